"""Delivery: a change to its payloads now, to the publisher on commit."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
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


def announce(
    stream: ModelStream,
    op: Op,
    pks: Sequence[Any],
    using: str,
    *,
    before: Mapping[Any, Row] | None = None,
    changed: frozenset[str] | None = None,
) -> None:
    """Capture one operation; publish it when the transaction commits.

    Called inside the transaction, after the write, with the pks of the rows written.
    `before` are the rows as they stood, without those that were not told of; None: the
    write moved nothing. States and payloads are read here, once. Never raises for what
    a serializer does: the event is then thin, which is logged and signalled.
    """
    if op == "update" and stream.watch is not None and not stream.is_watched(changed):
        return
    departure = _departure(using)
    after: Mapping[Any, Row] = {}
    parents = {parent for row in (before or {}).values() for parent in row.parents}
    if len(pks) > stream.bulk_limit:
        if op != "delete":
            after = _states(stream, pks, using)
        moves = [(pk, *_states_of(op, pk, before, after.get(pk))) for pk in pks]
        bulk = BulkNotice(
            op=op,
            label=stream.label,
            using=using,
            count=len(pks),
            moves=moves,
            changed=changed,
            origin=current_origin(),
        )
        departure.add(stream, bulk)
    else:
        after = rows = {} if op == "delete" else _rows(stream, pks, using)
        for pk in pks:
            notice = _notice(stream, op, pk, using, before, rows.get(pk), changed)
            if notice is not None:
                departure.add(stream, notice)
    if stream.touch:
        _touch(stream, parents.union(*(row.parents for row in after.values())), using)


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


def _touch(stream: ModelStream, parents: Iterable[tuple[str, Any]], using: str) -> None:
    """Announce the rows that changed with theirs. These touch nothing further."""
    pks: dict[str, list[Any]] = {}
    for name, pk in sorted(parents, key=str):
        pks.setdefault(name, []).append(pk)
    for name, found in pks.items():
        model = stream.model._meta.get_field(name).related_model
        parent = registry.get(model)  # type: ignore[arg-type]
        if parent is None or is_silent(parent.model):
            continue
        rows = _rows(parent, found, using)
        for pk in rows:
            notice = _notice(parent, "update", pk, using, None, rows[pk], None)
            if notice is not None:
                _departure(using).add(parent, notice)


def _notice(
    stream: ModelStream,
    op: Op,
    pk: Any,
    using: str,
    before: Mapping[Any, Row] | None,
    row: _Rendered | None,
    changed: frozenset[str] | None,
) -> Notice | None:
    """The notice of one row; None if the stream does not want it told."""
    old, new = _states_of(op, pk, before, row)
    change = Change(
        op=op,
        label=stream.label,
        pk=pk,
        using=using,
        changed=changed,
        origin=current_origin(),
        instance=row.instance if row is not None else None,
    )
    is_leave = old is not None and (new is None or old.places - new.places)
    if not (op != "delete" and is_leave) and not stream.should_publish(change):
        return None
    return Notice(
        # Not kept until the commit, which may be far.
        change=replace(change, instance=None),
        before=old,
        after=new,
        payloads=row.payloads if row is not None else dict.fromkeys(stream.serializers),
        truncated=row.truncated if row is not None else frozenset(),
    )


def _states_of(
    op: Op, pk: Any, before: Mapping[Any, Row] | None, row: Row | None
) -> tuple[State | None, State | None]:
    new = row.state if row is not None else None
    if op == "create":
        return None, new
    if before is not None:
        found = before.get(pk)
        return (found.state if found is not None else None), new
    return (State() if op == "delete" else new), new


@dataclass(frozen=True)
class _Rendered(Row):
    """A row with its payloads: see Notice."""

    payloads: Mapping[str | None, str | None] = field(default_factory=dict)
    truncated: frozenset[str | None] = frozenset()


def _states(stream: ModelStream, pks: Sequence[Any], using: str) -> Mapping[Any, Row]:
    if stream.columns or stream.columns is None:
        return states.read(stream, using, pks)
    return {pk: Row(State()) for pk in pks}


def _rows(stream: ModelStream, pks: Sequence[Any], using: str) -> dict[Any, _Rendered]:
    """The rows the stream tells of, as they are now, rendered for every audience."""
    if stream.is_thin and not stream.asks_instances:
        thin = dict.fromkeys(stream.serializers)
        return {
            pk: _Rendered(row.state, row.parents, None, thin)
            for pk, row in _states(stream, pks, using).items()
        }
    rows: dict[Any, _Rendered] = {}
    for chunk in states.chunks(pks):
        # Zone and language: a payload goes to everybody, so it may not depend on what
        # the writer's request has activated.
        with timezone.override(None), translation.override(settings.LANGUAGE_CODE):
            rows |= _rendered(stream, chunk, using)
    return rows


def _rendered(
    stream: ModelStream, pks: Sequence[Any], using: str
) -> dict[Any, _Rendered]:
    found: Mapping[Any, Row] | None = None
    try:
        # The savepoint: a query that fails would leave PostgreSQL's transaction
        # unusable. Where no code of the user runs there is nothing to guard.
        guard = transaction.atomic(using=using) if stream.runs_code else nullcontext()
        with guard:
            found = states.read_instances(stream, using, pks)
            return {pk: _render(stream, row) for pk, row in found.items()}
    except Exception as exc:
        # A boundary: the serializer is the user's, and the write must go on.
        if len(pks) > 1:
            rows: dict[Any, _Rendered] = {}
            for pk in pks:
                rows |= _rendered(stream, [pk], using)
            return rows
        logger.exception(
            "The payload of %s %s failed; its event goes out without data.",
            stream.label,
            pks[0],
        )
        change = Change(op="update", label=stream.label, pk=pks[0], using=using)
        payload_failed.send_robust(sender=type(stream), change=change, exception=exc)
    if found is None:
        # Not even read. Where it matters who may see it, nobody does.
        found = (
            {} if stream.columns is None or stream.scopes else {pks[0]: Row(State())}
        )
    thin = dict.fromkeys(stream.serializers)
    return {
        pk: _Rendered(row.state, row.parents, row.instance, thin)
        for pk, row in found.items()
    }


def _render(stream: ModelStream, row: Row) -> _Rendered:
    payloads: dict[str | None, str | None] = {}
    truncated = set()
    for audience in stream.serializers:
        payloads[audience] = None
        if stream.is_thin:
            continue
        text = stream.encode(stream.get_data(row.instance, audience), audience)
        if len(text.encode()) > conf.max_payload():
            truncated.add(audience)
        else:
            payloads[audience] = text
    return _Rendered(
        row.state, row.parents, row.instance, payloads, frozenset(truncated)
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
        for stream, notice in survived:
            if isinstance(notice, BulkNotice):
                leaving[object()] = (stream, notice)
                continue
            key = (stream.label, notice.change.pk)
            merged: Notice | None = notice
            if key in leaving:
                merged = merge(leaving[key][1], notice)  # type: ignore[arg-type]
            if merged is None:
                del leaving[key]
            else:
                leaving[key] = (stream, merged)
        items = [
            item
            for stream, notice in leaving.values()
            for item in (
                _bulk_items(stream, notice)
                if isinstance(notice, BulkNotice)
                else _items(stream, notice)
            )
        ]
        if items:
            get_publisher().enqueue(items)


def _departure(using: str) -> Departure:
    """The departure of the transaction under way, or a new one.

    It is kept nowhere but in the transaction's own hooks, so it goes with them.
    """
    for _, hook, _ in reversed(transaction.get_connection(using).run_on_commit):
        departure: Departure | None = getattr(hook, "departure", None)
        if departure is not None:
            return departure
    return Departure(using)


def _items(stream: ModelStream, notice: Notice) -> Iterator[Item]:
    change = notice.change
    found = list(steps(change.op, notice.before, notice.after))
    if not _is_told(stream, notice, found):
        return
    id = uuid4().hex
    ts = now()
    for audience, data in notice.payloads.items():
        for step in found:
            channel = _channel(stream, step, change.pk, audience, change.using)
            has_row = step.op != "delete"
            if step.op in stream.events:
                yield event_item(
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
                yield _close(channel)


def _is_told(stream: ModelStream, notice: Notice, found: list[Step]) -> bool:
    """Whether a plain update changed something that is watched."""
    if stream.watch is None or any(step.op != "update" for step in found):
        return True
    if notice.before is None or notice.after is None:
        return True
    if notice.before.watched != notice.after.watched:
        return True
    unseen = set(stream.watch) - set(stream.watched_columns)
    return bool(unseen & (notice.change.changed or set()))


def _bulk_items(stream: ModelStream, bulk: BulkNotice) -> Iterator[Item]:
    ts = now()
    groups: dict[Step, list[Any]] = {}
    for pk, before, after in bulk.moves:
        found = list(steps(bulk.op, before, after))
        if stream.watch is not None and before is not None and after is not None:
            moved = any(step.op != "update" for step in found)
            if not moved and before.watched == after.watched:
                continue
        for step in found:
            groups.setdefault(step, []).append(pk)
    if not bulk.moves:
        places: list[Step] = [Step(place, bulk.op) for place in sorted(bulk.places)]
        groups = {step: [] for step in [Step("collection", bulk.op), *places]}
    for audience in stream.serializers:
        for step, pks in groups.items():
            if step.to == "object":
                yield from _object_items(stream, bulk, step, pks, audience, ts)
            elif step.op in stream.events:
                named = 0 < len(pks) <= BULK_PKS
                yield event_item(
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
    ts: str,
) -> Iterator[Item]:
    """Each row's own clients are told without data, and sent away if it left."""
    for pk in pks if step.reason == "leave" else pks[:BULK_OBJECTS]:
        channel = _channel(stream, step, pk, audience, bulk.using)
        if step.op in stream.events:
            yield event_item(
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
            yield _close(channel)


def _channel(
    stream: ModelStream, step: Step, pk: Any, audience: str | None, using: str
) -> str:
    if step.to == "collection":
        return stream.channel(audience=audience, using=using)
    if step.to == "object":
        return stream.channel(pk, audience=audience, using=using)
    return stream.channel(place=step.to, audience=audience, using=using)


def event_item(
    channel: str,
    op: str,
    origin: str | None,
    *,
    id: str,
    label: str | None,
    **values: Any,
) -> Item:
    """The item of one event: see envelope() for `values`."""
    values.setdefault("ts", now())
    text = envelope(id=id, channel=channel, op=op, label=label, origin=origin, **values)
    return Item(
        channel=grip_conf.prefix() + channel,
        formats={"http-stream": {"content": sse.frame(op, text)}},
        id=id,
        meta={} if origin is None else {"sender": origin},
        events=True,
    )


def _close(channel: str) -> Item:
    """Ends the streams of a channel: their clients come back, and are asked again."""
    return Item(
        channel=grip_conf.prefix() + channel,
        formats={"http-stream": {"action": "close"}},
    )


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def now() -> str:
    """The time of an event: UTC in RFC 3339 with milliseconds."""
    moment = datetime.now(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
