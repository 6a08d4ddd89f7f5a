"""Delivery: the notices of a transaction to the publisher, when it commits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from django.db import transaction

from django_grip import conf
from django_grip.contrib.realtime import sse
from django_grip.contrib.realtime.events import (
    BulkNotice,
    Notice,
    Step,
    envelope,
    json_pk,
    merge,
    steps,
)
from django_grip.contrib.realtime.streams import ModelStream
from django_grip.items import Item
from django_grip.publishers import get_publisher

BULK_PKS = 1_000
"""Pks a bulk event names; with more it only counts."""

BULK_OBJECTS = 10_000
"""Rows of one operation whose own channels are told one by one."""


class Departure:
    """What one transaction has to say when it commits.

    Each notice is a commit hook of its own, so a rolled-back savepoint takes exactly
    its own with it. Hooks run in order, so the last `leave` sees all that survived.
    """

    def __init__(self, using: str) -> None:
        self.using = using
        self._captured = 0
        self._survived: list[tuple[ModelStream, Notice | BulkNotice]] = []

    def add(self, stream: ModelStream, notice: Notice | BulkNotice) -> None:
        """Have a notice leave when the transaction commits."""
        self._captured += 1
        turn = self._captured

        def survive() -> None:
            self._survived.append((stream, notice))

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
        leaving: dict[Any, tuple[ModelStream, Notice | BulkNotice]] = {}
        latest_bulk: dict[str, int] = {}
        positions: dict[Any, int] = {}
        for position, (stream, notice) in enumerate(survived):
            if isinstance(notice, BulkNotice):
                leaving[position] = (stream, notice)
                latest_bulk[stream.label] = position
                continue
            key = (stream.label, notice.change.pk)
            merged: Notice | None = notice
            if key in leaving:
                merged = merge(leaving[key][1], notice)  # type: ignore[arg-type]
                if latest_bulk.get(stream.label, -1) > positions[key]:
                    # The bulk may be of this row, and this is the last word on it.
                    del leaving[key]
            if merged is None:
                leaving.pop(key, None)
                continue
            if key not in leaving:
                positions[key] = position
            leaving[key] = (stream, merged)
        items = list(self._items(leaving.values()))
        if items:
            get_publisher().enqueue(items)

    @staticmethod
    def _items(
        leaving: Iterable[tuple[ModelStream, Notice | BulkNotice]],
    ) -> Iterator[Item]:
        prefix, ts = conf.prefix(), now()
        for stream, notice in leaving:
            if isinstance(notice, BulkNotice):
                yield from _bulk_items(stream, notice, prefix, ts)
            else:
                yield from _items(stream, notice, prefix, ts)


def departure(using: str) -> Departure:
    """The departure of the transaction under way, or a new one.

    It is kept nowhere but in the transaction's own hooks, so it goes with them.
    """
    for _, hook, _ in reversed(transaction.get_connection(using).run_on_commit):
        found: Departure | None = getattr(hook, "departure", None)
        if found is not None:
            return found
    return Departure(using)


def _items(stream: ModelStream, notice: Notice, prefix: str, ts: str) -> Iterator[Item]:
    change = notice.change
    found = list(steps(change.op, notice.before, notice.after))
    if not _is_told(stream, notice, found):
        return
    id = uuid4().hex
    for audience, data in notice.payloads.items():
        for step in found:
            channel = _channel(stream, step, change.pk, audience, change.using)
            has_row = step.op != "delete"
            if step.op in stream.events:
                yield event_item(
                    prefix,
                    channel,
                    step.op,
                    change.origin,
                    id=id,
                    label=change.label,
                    ts=ts,
                    data=data if has_row else None,
                    pk=change.pk,
                    changed=_sorted(change.changed) if step.op == "update" else None,
                    reason=step.reason,
                    truncated=(has_row and audience in notice.truncated) or None,
                )
            if step.to == "object" and step.reason == "leave":
                yield _close(prefix + channel)


def _is_told(stream: ModelStream, notice: Notice, found: list[Step]) -> bool:
    """Whether a plain update changed something that is watched."""
    if notice.always or stream.watch is None:
        return True
    if any(step.op != "update" for step in found):
        return True
    if notice.before is None or notice.after is None:
        return True
    return stream.is_seen(notice.before, notice.after, notice.named)


def _bulk_items(
    stream: ModelStream, bulk: BulkNotice, prefix: str, ts: str
) -> Iterator[Item]:
    groups: dict[Step, list[Any]] = {}
    for pk, before, after in bulk.moves:
        found = list(steps(bulk.op, before, after))
        if before and after and not stream.is_seen(before, after, bulk.changed):
            continue
        for step in found:
            groups.setdefault(step, []).append(pk)
    if not bulk.moves:
        places: list[Step] = [Step(place, bulk.op) for place in sorted(bulk.places)]
        groups = {step: [] for step in [Step("collection", bulk.op), *places]}
    for audience in stream.serializers:
        for step, pks in groups.items():
            if step.to == "object":
                yield from _object_items(stream, bulk, step, pks, audience, prefix, ts)
            elif step.op in stream.events:
                named = 0 < len(pks) <= BULK_PKS
                yield event_item(
                    prefix,
                    _channel(stream, step, None, audience, bulk.using),
                    "bulk",
                    bulk.origin,
                    id=uuid4().hex,
                    label=bulk.label,
                    ts=ts,
                    action=step.op,
                    count=len(pks) or bulk.count,
                    pks=[json_pk(pk) for pk in pks] if named else None,
                    changed=_sorted(bulk.changed) if step.op == "update" else None,
                    reason=step.reason,
                )


def _object_items(
    stream: ModelStream,
    bulk: BulkNotice,
    step: Step,
    pks: list[Any],
    audience: str | None,
    prefix: str,
    ts: str,
) -> Iterator[Item]:
    """Each row's own clients are told without data, and sent away if it left."""
    for pk in pks if step.reason == "leave" else pks[:BULK_OBJECTS]:
        channel = _channel(stream, step, pk, audience, bulk.using)
        if step.op in stream.events:
            yield event_item(
                prefix,
                channel,
                step.op,
                bulk.origin,
                id=uuid4().hex,
                label=bulk.label,
                ts=ts,
                pk=pk,
                changed=_sorted(bulk.changed) if step.op == "update" else None,
                reason=step.reason,
            )
        if step.reason == "leave":
            yield _close(prefix + channel)


def _channel(
    stream: ModelStream, step: Step, pk: Any, audience: str | None, using: str
) -> str:
    if step.to == "collection":
        return stream.channel(audience=audience, using=using)
    if step.to == "object":
        return stream.channel(pk, audience=audience, using=using)
    return stream.channel(place=step.to, audience=audience, using=using)


def event_item(
    prefix: str,
    channel: str,
    op: str,
    origin: str | None,
    *,
    id: str,
    label: str | None,
    ts: str,
    **values: Any,
) -> Item:
    """The item of one event: see envelope() for `values`. `prefix` is GRIP_PREFIX."""
    text = envelope(
        id=id, channel=channel, op=op, label=label, ts=ts, **values, origin=origin
    )
    return Item(
        channel=prefix + channel,
        formats={"http-stream": {"content": sse.frame(op, text)}},
        id=id,
        meta={} if origin is None else {"sender": origin},
        events=True,
    )


def _close(channel: str) -> Item:
    """Ends the streams of a channel, named with GRIP_PREFIX: their clients come back,
    and are asked again.
    """
    return Item(
        channel=channel,
        formats={"http-stream": {"action": "close"}},
    )


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def now() -> str:
    """The time of an event: UTC in RFC 3339 with milliseconds."""
    moment = datetime.now(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
