"""Sequencing: rows of outboxes to events in one order. Pure.

See docs/explanation/event-log.md for why the order is right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from django_grip.contrib.realtime.events import Event


class Waiting(NamedTuple):
    """A row of the outbox: see models.Outbox."""

    id: int
    transaction: int
    body: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Sequenced:
    """An event with its place: see models.LoggedEvent."""

    seq: int
    prev: int
    event: Event


def departing(
    window: Sequence[Waiting], unfinished: Collection[int]
) -> list[list[Waiting]]:
    """The rows that go now, transaction by transaction.

    `window` holds committed rows, by key; `unfinished` the transactions that have rows
    behind it, which wait for them. Transactions go in the order of their last rows: if
    one has changed a row after another, it had to wait for that other's commit, and
    so its last key is greater than all of the other's.
    """
    transactions: dict[int, list[Waiting]] = {}
    for row in window:
        if row.transaction not in unfinished:
            transactions.setdefault(row.transaction, []).append(row)
    return sorted(transactions.values(), key=lambda rows: rows[-1].id)


def sequenced(
    events: Iterable[Event], last: int, heads: MutableMapping[str, int]
) -> Iterator[Sequenced]:
    """Number events from `last` + 1 on; `heads` has the last seq of each channel."""
    for seq, event in enumerate(events, last + 1):
        yield Sequenced(seq, heads.get(event.channel, 0), event)
        heads[event.channel] = seq
