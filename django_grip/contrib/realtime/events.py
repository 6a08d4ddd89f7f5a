"""What happened to a row, and the envelope that tells it. Pure.

A `Change` is what a write said. A `State` is where a row stood before or after it. A
`Notice` is a change with both states and its payloads, as it leaves the transaction. An
`Event` is what one channel is told of it; its envelope is the JSON text clients get.

Notices and events say all that is needed to tell them: whoever has them needs neither
the model nor its stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from django_grip.contrib.realtime.channels import pk_text

Op = Literal["create", "update", "delete"]
Reason = Literal["enter", "leave"]

Place: TypeAlias = tuple[str, str]
"""A scope's name and a value of it, as text: `("tenant", "7")`."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One write to one row.

    `label` is the concrete model's `label_lower`; `using` the alias written on;
    `changed` the columns the write named, None if it named none; `origin` what
    `actor()` was given; `instance` the row as it is after the write, None when it is
    gone or was not read.
    """

    op: Op
    label: str
    pk: Any
    using: str
    changed: frozenset[str] | None = None
    origin: str | None = None
    instance: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class State:
    """A row among those a stream tells of: its places and the watched values."""

    places: frozenset[Place] = frozenset()
    watched: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Topic:
    """What a stream says of all its notices.

    `label` is the model's; `on` the alias written on, None if it is the model's own;
    `audiences` are the stream's, `(None,)` without named ones; `events` the ops it
    tells. `watches` is whether it has `watch`, and `watched_sets` are the names of the
    many-to-many fields among these. With `refresh` clients are told as well that there
    is something new, and no more: see refreshing().
    """

    label: str
    on: str | None
    audiences: tuple[str | None, ...]
    events: tuple[str, ...]
    watches: bool = False
    watched_sets: frozenset[str] = frozenset()
    refresh: bool = False

    def is_seen(self, before: State, after: State, named: Iterable[str] | None) -> bool:
        """Whether an update changed something that is watched, or moved the row.

        Many-to-many values have no column: there what the writes named counts.
        """
        if not self.watches or before != after:
            return True
        return bool(named and not self.watched_sets.isdisjoint(named))


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A change, the row's states (None: not among the stream's rows), its payloads.

    `payloads` has JSON text for each audience; None is thin: the event says op and pk
    only. It has the one key None where a stream has no named audiences. `truncated`
    names audiences whose payload was too large. `turn` is smaller the earlier `before`
    was read. `named` are all columns and many-to-many fields that were named. With
    `always`, it is told whatever is watched.
    """

    topic: Topic
    change: Change
    before: State | None
    after: State | None
    payloads: Mapping[str | None, str | None]
    truncated: frozenset[str | None] = frozenset()
    turn: int = 0
    named: frozenset[str] = frozenset()
    always: bool = False


@dataclass(frozen=True, kw_only=True)
class BulkNotice:
    """One operation on more rows than are told one by one.

    `moves` holds each row's pk and states; it is empty where the rows are not known,
    and `places` then are those that may have changed.
    """

    op: Op
    topic: Topic
    count: int
    moves: Sequence[tuple[Any, State | None, State | None]] = ()
    places: frozenset[Place] = frozenset()
    changed: frozenset[str] | None = None
    origin: str | None = None


@dataclass(frozen=True, kw_only=True)
class Event:
    """What one channel is told. `channel` is without GRIP_PREFIX.

    See envelope() for `id`, `label`, `ts`, `data` and `values`. The op "close" is no
    event: it ends the streams of the channel, so that their clients are asked again;
    `values` may say a `reason`.
    """

    channel: str
    op: str
    id: str
    label: str | None = None
    ts: str = ""
    data: str | None = None
    origin: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_close(self) -> bool:
        """Whether it ends streams."""
        return self.op == CLOSE

    def envelope(self, **position: int) -> str:
        """The JSON text; `position` is `seq` and `prev` where there is an order."""
        return envelope(
            id=self.id,
            channel=self.channel,
            op=self.op,
            label=self.label,
            ts=self.ts,
            data=self.data,
            origin=self.origin,
            **self.values,
            **position,
        )


CLOSE = "close"

REFRESH = "refresh"
"""The op that says that there is something new, and the audience that is told so."""

AGE = "age"
"""The reason of a close (`values`) that is only of HTTP: see tellings.close_item()."""

Telling: TypeAlias = Notice | BulkNotice | Event
"""What a transaction has to say."""


def refreshing(telling: Notice | BulkNotice) -> Notice | BulkNotice:
    """The same for the audience of refreshes, which gets no payload."""
    topic = replace(telling.topic, audiences=(REFRESH,))
    if isinstance(telling, BulkNotice):
        return replace(telling, topic=topic)
    return replace(telling, topic=topic, payloads={REFRESH: None})


@dataclass(frozen=True)
class Step:
    """An event on one channel: of the collection, of the object, or of a place."""

    to: Literal["collection", "object"] | Place
    op: Op
    reason: Reason | None = None


def merge(earlier: Notice, later: Notice) -> Notice | None:
    """What two changes of one row in one transaction come to; None for nothing.

    They come in the order in which they were told. A save within a save is told first,
    so a create may follow an update; but an update after a delete is of a row that was
    touched and is gone.
    """
    first, last = earlier.change, later.change
    if first.op == "delete" and last.op == "update":
        return earlier
    is_new = first.op == "create" or (first.op == "update" and last.op == "create")
    if is_new and last.op == "delete":
        return None
    oldest = min(earlier, later, key=lambda notice: notice.turn)
    changed = None
    if first.op == last.op and first.changed is not None and last.changed is not None:
        changed = first.changed | last.changed
    op = last.op if last.op == "delete" else "create" if is_new else "update"
    return replace(
        later,
        change=replace(last, op=op, changed=changed),
        before=None if is_new else oldest.before,
        turn=oldest.turn,
        named=earlier.named | later.named,
        always=earlier.always or later.always,
    )


def coalesced(tellings: Iterable[Telling]) -> list[Telling]:
    """What a transaction comes to: one notice for each row, where the first stood."""
    leaving: dict[Any, Telling] = {}
    latest_bulk: dict[str, int] = {}
    positions: dict[Any, int] = {}
    for position, telling in enumerate(tellings):
        if not isinstance(telling, Notice):
            leaving[position] = telling
            if isinstance(telling, BulkNotice):
                latest_bulk[telling.topic.label] = position
            continue
        label = telling.topic.label
        key = (label, pk_text(telling.change.pk))
        merged: Notice | None = telling
        if key in leaving:
            merged = merge(leaving[key], telling)  # type: ignore[arg-type]
            if latest_bulk.get(label, -1) > positions[key]:
                # The bulk may be of this row, and this is the last word on it.
                del leaving[key]
        if merged is None:
            leaving.pop(key, None)
            continue
        if key not in leaving:
            positions[key] = position
        leaving[key] = merged
    return list(leaving.values())


def steps(op: Op, before: State | None, after: State | None) -> Iterator[Step]:
    """Who hears what of a row that went from one state to another.

    A row that is no longer where it was is told there as a delete, one that is new
    somewhere as a create; `reason` says that the row itself goes on existing. The
    clients of an object that lost a place may have lost the right to see it.
    """
    if after is None:
        if before is not None:
            reason: Reason | None = None if op == "delete" else "leave"
            yield Step("collection", "delete", reason)
            yield Step("object", "delete", reason)
            for place in sorted(before.places):
                yield Step(place, "delete", reason)
        return
    if before is None:
        reason = None if op == "create" else "enter"
        yield Step("collection", "create", reason)
        yield Step("object", "create", reason)
        for place in sorted(after.places):
            yield Step(place, "create", reason)
        return
    lost = before.places - after.places
    yield Step("collection", "update")
    yield Step("object", "delete", "leave") if lost else Step("object", "update")
    for place in sorted(before.places | after.places):
        if place in lost:
            yield Step(place, "delete", "leave")
        elif place in before.places:
            yield Step(place, "update")
        else:
            yield Step(place, "create", "enter")


_ORDER = (
    *("model", "pk", "seq", "prev", "ts"),
    *("changed", "reason", "origin", "truncated"),
    *("action", "count", "pks"),
)
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def envelope(
    *,
    id: str,
    channel: str,
    op: str,
    label: str | None,
    ts: str,
    data: str | None = None,
    **values: Any,
) -> str:
    """The JSON text of an event on a channel.

    `id` tells the change apart from every other, `ts` is UTC in RFC 3339 with
    milliseconds, `label` the model's, `data` JSON text. `values` are `pk`, `seq`,
    `prev`, `changed`, `reason`, `origin`, `truncated`, and of a bulk event `action`,
    `count`, `pks`. None is left out.
    """
    head = {"id": id, "channel": channel, "op": op}
    values |= {"model": label, "pk": json_pk(values.get("pk")), "ts": ts}
    for name in _ORDER:
        if (value := values.get(name)) is not None:
            head[name] = value
    text = _JSON.encode(head)
    return text if data is None else f'{text[:-1]},"data":{data}}}'


def json_pk(pk: Any) -> Any:
    """A primary key as JSON: int and str as they are, others as text, tuples arrays."""
    if isinstance(pk, (tuple, list)):
        return [json_pk(part) for part in pk]
    return pk if pk is None or isinstance(pk, (int, str)) else str(pk)
