"""Writes: what was written, with states and payloads, to notices that await the commit.

Everything is read here, in the writer's transaction and after the write.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone, translation

from django_grip.contrib.realtime import conf, states
from django_grip.contrib.realtime.contexts import current_origin, is_silent
from django_grip.contrib.realtime.delivery import deliver
from django_grip.contrib.realtime.events import (
    BulkNotice,
    Change,
    Notice,
    Op,
    Place,
    State,
    Topic,
)
from django_grip.contrib.realtime.signals import payload_failed
from django_grip.contrib.realtime.states import Row
from django_grip.contrib.realtime.streams import ModelStream, registry

logger = logging.getLogger("django_grip.realtime")


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

    @cached_property
    def topic(self) -> Topic:
        """What goes with every notice of this."""
        return self.stream.topic(self.using)

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
                seen = self.topic.is_seen(old.state, new.state, self.changed)
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
            topic=write.topic,
            count=len(pks),
            moves=[(pk, *write.states(pk, rows.get(pk))) for pk in pks],
            changed=changed,
            origin=write.origin,
        )
        deliver(using, [bulk])
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
        topic=stream.topic(using),
        count=count,
        places=places,
        origin=current_origin(),
    )
    deliver(using, [bulk])


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
    notices = (_notice(write, pk, rows.get(pk)) for pk in pks)
    deliver(write.using, [notice for notice in notices if notice is not None])
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
        topic=write.topic,
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
