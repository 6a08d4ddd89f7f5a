"""Delivery: a change to its payloads now, to the publisher on commit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.db import transaction
from django.utils import timezone, translation

from django_grip import conf as grip_conf
from django_grip.contrib.realtime import conf, sse, states
from django_grip.contrib.realtime.contexts import current_origin, is_silent
from django_grip.contrib.realtime.events import (
    BulkNotice,
    Change,
    Notice,
    Op,
    Place,
    State,
    Step,
    envelope,
    json_pk,
    merge,
    steps,
)
from django_grip.contrib.realtime.signals import payload_failed
from django_grip.contrib.realtime.states import Row
from django_grip.contrib.realtime.streams import ModelStream, registry
from django_grip.items import Item
from django_grip.publishers import get_publisher

logger = logging.getLogger("django_grip.realtime")

BULK_PKS = 1_000
"""Pks a bulk event names; with more it only counts."""

BULK_OBJECTS = 10_000
"""Rows of one operation whose own channels are told one by one."""


@dataclass(frozen=True, kw_only=True)
class Write:
    """One operation on rows of a stream, as it is captured.

    `before` are the rows as they stood, without those that were not told of; None: the
    write moved nothing. With `always` it is told whatever is watched.
    """

    stream: ModelStream
    op: Op
    using: str
    before: Mapping[Any, Row] | None = None
    changed: frozenset[str] | None = None
    always: bool = False
    origin: str | None = field(default_factory=current_origin)

    def change(self, pk: Any, instance: Any = None) -> Change:
        """The change of one row."""
        return Change(
            op=self.op,
            label=self.stream.label,
            pk=pk,
            using=self.using,
            changed=self.changed,
            origin=self.origin,
            instance=instance,
        )

    def states(self, pk: Any, row: Row | None) -> tuple[State | None, State | None]:
        """Where a row stood and, by what was read of it now, stands."""
        after = row.state if row is not None else None
        if self.op == "create":
            return None, after
        if self.before is not None:
            found = self.before.get(pk)
            return (found.state if found is not None else None), after
        return (State() if self.op == "delete" else after), after

    def parents(self, rows: Mapping[Any, Row]) -> set[tuple[str, Any]]:
        """The rows touched by those that are told, before and after."""
        found: set[tuple[str, Any]] = set()
        before = self.before or {}
        for pk in {**before, **rows}:
            old, new = before.get(pk), rows.get(pk)
            if self.before is not None and old and new and not self.always:
                seen = is_seen(self.stream, old.state, new.state, self.changed)
                if self.op == "update" and not seen:
                    continue
            for row in (old, new):
                found |= row.parents if row is not None else set()
        return found


def announce(
    stream: ModelStream,
    op: Op,
    pks: Sequence[Any],
    using: str,
    *,
    before: Mapping[Any, Row] | None = None,
    changed: frozenset[str] | None = None,
    always: bool = False,
) -> None:
    """Capture one operation; publish it when the transaction commits.

    Called inside the transaction, after the write, with the pks of the rows written;
    the rest is said at `Write`. States and payloads are read here, once. Never raises
    for what a serializer does: the event is then thin, which is logged and signalled.
    """
    is_watching = op == "update" and stream.watch is not None and not always
    if is_watching and not stream.is_watched(changed):
        return
    write = Write(
        stream=stream,
        op=op,
        using=using,
        before=before,
        changed=changed,
        always=always,
    )
    rows: Mapping[Any, Row] = {}
    if len(pks) > stream.bulk_limit:
        if op != "delete":
            rows = _states(write, pks)
        bulk = BulkNotice(
            op=op,
            label=stream.label,
            using=using,
            count=len(pks),
            moves=[(pk, *write.states(pk, rows.get(pk))) for pk in pks],
            changed=changed,
            origin=write.origin,
        )
        _departure(using).add(stream, bulk)
    else:
        rows = _add(write, pks)
    if stream.touch:
        _touch(stream, write.parents(rows), using)


def announce_unknown(
    stream: ModelStream, op: Op, count: int, using: str, places: frozenset[Place]
) -> None:
    """Capture an operation on rows that the database does not name."""
    bulk = BulkNotice(
        op=op,
        label=stream.label,
        using=using,
        count=count,
        places=places,
        origin=current_origin(),
    )
    _departure(using).add(stream, bulk)


def is_seen(
    stream: ModelStream, before: State, after: State, named: frozenset[str] | None
) -> bool:
    """Whether an update changed something that is watched, or moved the row.

    Many-to-many values have no column: there what the writes named counts.
    """
    if stream.watch is None or before != after:
        return True
    unseen = set(stream.watch) - set(stream.watched_columns)
    return bool(named and unseen & named)


def _touch(stream: ModelStream, parents: Iterable[tuple[str, Any]], using: str) -> None:
    """Announce the rows that changed with theirs. These touch nothing further."""
    pks: dict[str, list[Any]] = {}
    for name, pk in sorted(parents, key=str):
        pks.setdefault(name, []).append(pk)
    for name, found in pks.items():
        model = stream.model._meta.get_field(name).related_model
        parent = registry.get(model)  # type: ignore[arg-type]
        if parent is not None and not is_silent(parent.model):
            write = Write(stream=parent, op="update", using=using, always=True)
            _add(write, found)


def _add(write: Write, pks: Sequence[Any]) -> Mapping[Any, Row]:
    """A notice for each row; returns the rows as they are now."""
    rows: Mapping[Any, _Rendered] = {}
    if write.op != "delete":
        rows = _rows(write, pks)
    departure = _departure(write.using)
    for pk in pks:
        notice = _notice(write, pk, rows.get(pk))
        if notice is not None:
            departure.add(write.stream, notice)
    return rows


def _notice(write: Write, pk: Any, row: _Rendered | None) -> Notice | None:
    """The notice of one row; None if the stream does not want it told."""
    stream = write.stream
    before, after = write.states(pk, row)
    is_leave = before is not None and (
        after is None or not before.places <= after.places
    )
    if write.op == "delete" or not is_leave:
        instance = row.instance if row is not None else None
        if not _is_wanted(stream, write.change(pk, instance)):
            return None
    payloads = dict.fromkeys(stream.serializers) if row is None else row.payloads
    old = None if write.before is None else write.before.get(pk)
    return Notice(
        # Without the instance: it is not kept until the commit, which may be far.
        change=write.change(pk),
        before=before,
        after=after,
        payloads=payloads,
        truncated=row.truncated if row is not None else frozenset(),
        turn=states.next_turn() if old is None else old.turn,
        named=write.changed or frozenset(),
        always=write.always,
    )


def _is_wanted(stream: ModelStream, change: Change) -> bool:
    try:
        return stream.should_publish(change)
    except Exception as exc:
        # A boundary: the method is the user's, and the write must go on.
        _say_failed(
            stream, change, exc, "should_publish() of %s %s failed; it is not told"
        )
        return False


@dataclass(frozen=True)
class _Rendered(Row):
    """A row with its payloads: see Notice."""

    payloads: Mapping[str | None, str | None] = field(default_factory=dict)
    truncated: frozenset[str | None] = frozenset()


def _states(write: Write, pks: Sequence[Any]) -> Mapping[Any, Row]:
    stream = write.stream
    if stream.columns or stream.columns is None:
        return states.read(stream, write.using, pks)
    return {pk: Row(State()) for pk in pks}


def _rows(write: Write, pks: Sequence[Any]) -> dict[Any, _Rendered]:
    """The rows the stream tells of, as they are now, rendered for every audience."""
    stream = write.stream
    if stream.is_thin and not stream.asks_instances:
        thin = dict.fromkeys(stream.serializers)
        return {
            pk: _Rendered(row.state, row.parents, None, row.turn, thin)
            for pk, row in _states(write, pks).items()
        }
    rows: dict[Any, _Rendered] = {}
    for chunk in states.chunks(pks):
        # Zone and language: a payload goes to everybody, so it may not depend on what
        # the writer's request has activated.
        with timezone.override(None), translation.override(settings.LANGUAGE_CODE):
            rows |= _rendered(write, chunk)
    return rows


def _rendered(
    write: Write, pks: Sequence[Any], *, guarded: bool = False
) -> dict[Any, _Rendered]:
    stream, using = write.stream, write.using
    found: Mapping[Any, Row] | None = None
    try:
        # The savepoint: a query that fails would leave PostgreSQL's transaction
        # unusable. Where no code of the user runs there is nothing to guard.
        guard = transaction.atomic(using=using) if stream.runs_code else nullcontext()
        with guard:
            found = states.read_instances(stream, using, pks, guarded=guarded)
            return {pk: _render(write, pk, row) for pk, row in found.items()}
    except Exception as exc:
        # A boundary: the serializer is the user's, and the write must go on.
        if len(pks) > 1:
            rows: dict[Any, _Rendered] = {}
            for pk in pks:
                rows |= _rendered(write, [pk])
            return rows
        if found is None and stream.computes_scopes and not guarded:
            return _rendered(write, pks, guarded=True)
        what = "The payload of %s %s failed; its event goes out without data"
        _say_failed(stream, write.change(pks[0]), exc, what)
    if found is None:
        # Not even read. Where it matters who may see it, nobody does.
        is_anywhere = stream.columns is not None and not stream.scopes
        found = {pks[0]: Row(State())} if is_anywhere else {}
    thin = dict.fromkeys(stream.serializers)
    return {
        pk: _Rendered(row.state, row.parents, row.instance, row.turn, thin)
        for pk, row in found.items()
    }


def _say_failed(
    stream: ModelStream, change: Change, error: Exception, what: str
) -> None:
    logger.error(f"{what}.", stream.label, change.pk, exc_info=error)
    payload_failed.send_robust(sender=type(stream), change=change, exception=error)


def _render(write: Write, pk: Any, row: Row) -> _Rendered:
    stream = write.stream
    payloads: dict[str | None, str | None] = {}
    truncated = set()
    change = write.change(pk, row.instance)
    for audience in stream.serializers:
        payloads[audience] = None
        if stream.is_thin:
            continue
        text = stream.encode(stream.get_data(change, audience), audience)
        if len(text.encode()) > conf.max_payload():
            truncated.add(audience)
        else:
            payloads[audience] = text
    return _Rendered(
        row.state, row.parents, row.instance, row.turn, payloads, frozenset(truncated)
    )


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
        prefix, ts = grip_conf.prefix(), now()
        for stream, notice in leaving:
            if isinstance(notice, BulkNotice):
                yield from _bulk_items(stream, notice, prefix, ts)
            else:
                yield from _items(stream, notice, prefix, ts)


def _departure(using: str) -> Departure:
    """The departure of the transaction under way, or a new one.

    It is kept nowhere but in the transaction's own hooks, so it goes with them.
    """
    for _, hook, _ in reversed(transaction.get_connection(using).run_on_commit):
        departure: Departure | None = getattr(hook, "departure", None)
        if departure is not None:
            return departure
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
    return is_seen(stream, notice.before, notice.after, notice.named)


def _bulk_items(
    stream: ModelStream, bulk: BulkNotice, prefix: str, ts: str
) -> Iterator[Item]:
    groups: dict[Step, list[Any]] = {}
    for pk, before, after in bulk.moves:
        found = list(steps(bulk.op, before, after))
        if before and after and not is_seen(stream, before, after, bulk.changed):
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
