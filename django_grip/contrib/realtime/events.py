"""What happened to a row, and the envelope that tells it. Pure.

A `Change` is what a write said. A `State` is where a row stood before or after it. A
`Notice` is a change with both states and its payloads, as it leaves the transaction. An
envelope is the JSON text clients get.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

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


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A change, the row's states (None: not among the stream's rows), its payloads.

    `payloads` has JSON text for each audience; None is thin: the event says op and pk
    only. It has the one key None where a stream has no named audiences. `truncated`
    names audiences whose payload was too large. `turn` is smaller the earlier `before`
    was read. `named` are all columns and many-to-many fields that were named. With
    `always`, it is told whatever is watched.
    """

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
    label: str
    using: str
    count: int
    moves: Sequence[tuple[Any, State | None, State | None]] = ()
    places: frozenset[Place] = frozenset()
    changed: frozenset[str] | None = None
    origin: str | None = None


@dataclass(frozen=True)
class Step:
    """An event on one channel: of the collection, of the object, or of a place."""

    to: Literal["collection", "object"] | Place
    op: Op
    reason: Reason | None = None

    @property
    def is_leave(self) -> bool:
        """Whether the row is out of reach for those who hear it."""
        return self.reason == "leave"


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
    *("model", "pk", "ts", "changed", "reason", "origin", "truncated"),
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
    milliseconds, `label` the model's, `data` JSON text. `values` are `pk`, `changed`,
    `reason`, `origin`, `truncated`, and of a bulk event `action`, `count`, `pks`. None
    is left out.
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
