"""Delivery: what a transaction has to say, to the event log or to the publisher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from django.db import transaction

from django_grip import conf
from django_grip.contrib.realtime import durable
from django_grip.contrib.realtime.events import Telling
from django_grip.contrib.realtime.tellings import item, told
from django_grip.publishers import get_publisher

_diversions = 0


def deliver(using: str, tellings: Sequence[Telling]) -> None:
    """Have these leave when the transaction under way on `using` commits.

    With an event log they are written to it, and otherwise given to the publisher.
    """
    if not tellings:
        return
    log = durable.log
    if log is None or _diversions:
        _departure(using).add(tellings)
    else:
        log.write(using, tellings)


def deliver_at_once(using: str, tellings: Sequence[Telling]) -> None:
    """Have these leave when the transaction commits, past the event log.

    They have no place in the order, and nobody who misses them is told later.
    """
    if tellings:
        _departure(using).add(tellings)


@contextmanager
def diverted() -> Iterator[None]:
    """Give everything to the publisher inside the block, whether there is a log or not.

    For every thread: what captures events in a test looks at the publisher.
    """
    global _diversions
    _diversions += 1
    try:
        yield
    finally:
        _diversions -= 1


class Departure:
    """What one transaction has to say when it commits.

    Each call of `add` is a commit hook of its own, so a rolled-back savepoint takes
    exactly its own with it. Hooks run in order, so the last `leave` sees all that
    survived.
    """

    def __init__(self, using: str) -> None:
        self.using = using
        self._captured = 0
        self._survived: list[Telling] = []

    def add(self, tellings: Sequence[Telling]) -> None:
        """Have these leave when the transaction commits."""
        self._captured += 1
        turn = self._captured

        def survive() -> None:
            self._survived += tellings

        def leave() -> None:
            if turn == self._captured:
                self.leave()

        leave.departure = self  # type: ignore[attr-defined]
        transaction.on_commit(survive, using=self.using)
        connection = transaction.get_connection(self.using)
        if connection.in_atomic_block:
            # Not on_commit(): the hook of a savepoint goes with it, and this one has
            # to outlive the savepoint to send what was captured before it.
            connection.run_on_commit.append((set(), leave, True))
        else:
            leave()

    def leave(self) -> None:
        """Publish what survived, one notice for each row."""
        survived, self._survived = self._survived, []
        prefix, ts = conf.prefix(), now()
        items = [item(event, prefix) for event in told(survived, ts)]
        if items:
            get_publisher().enqueue(items)


def _departure(using: str) -> Departure:
    """The departure of the transaction under way, or a new one.

    It is kept nowhere but in the transaction's own hooks, so it goes with them.
    """
    for _, hook, _ in reversed(transaction.get_connection(using).run_on_commit):
        found: Departure | None = getattr(hook, "departure", None)
        if found is not None:
            return found
    return Departure(using)


def now() -> str:
    """The time of an event: UTC in RFC 3339 with milliseconds."""
    moment = datetime.now(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
