"""What happened to a row, and the envelope that tells it. Pure.

A `Change` is what a model signal said. A `Notice` is a change with its payloads, as
it leaves the transaction. An envelope is the JSON text clients get.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Op = Literal["create", "update", "delete"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One write to one row.

    `label` is the concrete model's `label_lower`; `using` the alias written on;
    `changed` the columns the write named, None if it named none.
    """

    op: Op
    label: str
    pk: Any
    using: str
    changed: frozenset[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A change and its payload for each audience, as JSON text.

    A payload of None is thin: the event says op and pk only. `audiences` has the one
    key None where a stream has no named audiences.
    """

    change: Change
    audiences: Mapping[str | None, str | None]


def merge(earlier: Notice, later: Notice) -> Notice | None:
    """What two changes of one row in one transaction come to; None for nothing."""
    first, last = earlier.change, later.change
    if last.op == "delete":
        return None if first.op == "create" else later
    if first.op == "create":
        return replace(later, change=replace(last, op="create", changed=None))
    if first.op == "delete":
        return replace(later, change=replace(last, op="update", changed=None))
    changed = None
    if first.changed is not None and last.changed is not None:
        changed = first.changed | last.changed
    return replace(later, change=replace(last, changed=changed))


def envelope(
    *,
    id: str,
    channel: str,
    change: Change,
    ts: str,
    data: str | None,
) -> str:
    """The JSON text of an event on a channel.

    `id` tells the change apart from every other, `ts` is UTC in RFC 3339 with
    milliseconds, `data` JSON text. Absent values are left out, never null.
    """
    head: dict[str, Any] = {
        "id": id,
        "channel": channel,
        "op": change.op,
        "model": change.label,
        "pk": json_pk(change.pk),
        "ts": ts,
    }
    if change.changed is not None:
        head["changed"] = sorted(change.changed)
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":"))
    return text if data is None else f'{text[:-1]},"data":{data}}}'


def json_pk(pk: Any) -> Any:
    """A primary key as JSON: int and str as they are, others as text, tuples arrays."""
    if isinstance(pk, (tuple, list)):
        return [json_pk(part) for part in pk]
    return pk if isinstance(pk, (int, str)) else str(pk)
