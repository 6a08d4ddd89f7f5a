"""Records: tellings to the JSON text of an outbox row, and back. Pure.

A record has a version `v`: code that meets one it does not know sets it aside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, time
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder

from django_grip.contrib.realtime.channels import NAME_MAX
from django_grip.contrib.realtime.events import (
    BulkNotice,
    Change,
    Event,
    Notice,
    State,
    Telling,
    Topic,
    json_pk,
)
from django_grip.headers import check_channel

VERSION = 1

OP_MAX = 100
"""Characters of an op."""


class BadRecord(ValueError):
    """A record that this code does not understand; the text says why."""


def dump(telling: Telling) -> str:
    """The record of one telling: ASCII, so any database takes it."""
    if isinstance(telling, Event):
        kind, body = "event", _event(telling)
    elif isinstance(telling, BulkNotice):
        kind, body = "bulk", _bulk(telling)
    else:
        kind, body = "notice", _notice(telling)
    return _ENCODER.encode({"v": VERSION, kind: body})


def load(text: str) -> Telling:
    """The telling of a record. Raises BadRecord."""
    try:
        record = json.loads(text)
        if record["v"] != VERSION:
            found = repr(record["v"])[:40]
            raise BadRecord(f"Expected a record of version {VERSION}; got {found}.")
        for kind, make in _KINDS.items():
            if kind in record:
                return make(record[kind])
    except BadRecord:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise BadRecord(f"Not a record of ours: {type(exc).__name__}.") from exc
    raise BadRecord(f"Expected one of {', '.join(_KINDS)}; got {list(record)}.")


def check(event: Event) -> None:
    """Raise ValueError for an event that a log cannot hold or a stream not carry."""
    if len(event.channel) > NAME_MAX or len(event.op) > OP_MAX:
        raise ValueError(
            f"The event log keeps channels of {NAME_MAX} and ops of {OP_MAX} "
            f"characters; got {event.channel!r} and {event.op!r}."
        )
    check_channel(event.channel)
    for text in (event.op, event.origin or ""):
        if not text.isprintable():
            raise ValueError(f"Expected printable text; got {text!r}.")


def _notice(notice: Notice) -> dict[str, Any]:
    change = notice.change
    return _slim(
        topic=_topic(notice.topic),
        op=change.op,
        pk=json_pk(change.pk),
        changed=_names(change.changed),
        origin=change.origin,
        before=_state(notice.before),
        after=_state(notice.after),
        payloads=list(notice.payloads.items()),
        truncated=list(notice.truncated) or None,
        turn=notice.turn,
        named=_names(notice.named) or None,
        always=notice.always or None,
    )


def _load_notice(body: Mapping[str, Any]) -> Notice:
    topic = _load_topic(body["topic"])
    changed = body.get("changed")
    return Notice(
        topic=topic,
        change=Change(
            op=body["op"],
            label=topic.label,
            pk=_hashable(body["pk"]),
            using=topic.on or "",
            changed=None if changed is None else frozenset(changed),
            origin=body.get("origin"),
        ),
        before=_load_state(body.get("before")),
        after=_load_state(body.get("after")),
        payloads={audience: _payload(text) for audience, text in body["payloads"]},
        truncated=frozenset(body.get("truncated", ())),
        turn=body["turn"],
        named=frozenset(body.get("named", ())),
        always=body.get("always", False),
    )


def _payload(text: Any) -> str | None:
    # NUL is in no JSON text, and PostgreSQL does not take it.
    if text is None or (isinstance(text, str) and "\0" not in text):
        return text
    raise BadRecord("Expected a payload of JSON text.")


def _bulk(bulk: BulkNotice) -> dict[str, Any]:
    return _slim(
        topic=_topic(bulk.topic),
        op=bulk.op,
        count=bulk.count,
        moves=[
            (json_pk(pk), _state(before), _state(after))
            for pk, before, after in bulk.moves
        ],
        places=sorted(bulk.places),
        changed=_names(bulk.changed),
        origin=bulk.origin,
    )


def _load_bulk(body: Mapping[str, Any]) -> BulkNotice:
    changed = body.get("changed")
    return BulkNotice(
        topic=_load_topic(body["topic"]),
        op=body["op"],
        count=body["count"],
        moves=[
            (_hashable(pk), _load_state(before), _load_state(after))
            for pk, before, after in body["moves"]
        ],
        places=frozenset(map(tuple, body["places"])),
        changed=None if changed is None else frozenset(changed),
        origin=body.get("origin"),
    )


def _event(event: Event) -> dict[str, Any]:
    return _slim(
        channel=event.channel,
        op=event.op,
        id=event.id,
        label=event.label,
        ts=event.ts,
        data=event.data,
        origin=event.origin,
        values={
            name: json_pk(value) if name == "pk" else value
            for name, value in event.values.items()
        },
    )


def _load_event(body: Mapping[str, Any]) -> Event:
    values = body.get("values", {})
    if not isinstance(values, dict):
        raise BadRecord("Expected the values of an event by their names.")
    return Event(
        channel=body["channel"],
        op=body["op"],
        id=body.get("id", ""),
        label=body.get("label"),
        ts=body.get("ts", ""),
        data=_payload(body.get("data")),
        origin=body.get("origin"),
        values={name: values[name] for name in _VALUES if name in values},
    )


def _topic(topic: Topic) -> dict[str, Any]:
    return _slim(
        label=topic.label,
        on=topic.on,
        audiences=topic.audiences,
        events=topic.events,
        watches=topic.watches or None,
        watched_sets=_names(topic.watched_sets) or None,
        refresh=topic.refresh or None,
    )


def _load_topic(body: Mapping[str, Any]) -> Topic:
    return Topic(
        label=body["label"],
        on=body.get("on"),
        audiences=tuple(body["audiences"]),
        events=tuple(body["events"]),
        watches=body.get("watches", False),
        watched_sets=frozenset(body.get("watched_sets", ())),
        refresh=body.get("refresh", False),
    )


def _state(state: State | None) -> list[Any] | None:
    if state is None:
        return None
    return [sorted(state.places), [_watched(value) for value in state.watched]]


def _watched(value: Any) -> Any:
    """A value that is only compared: with others that went through here."""
    if isinstance(value, (date, time)):
        # The encoder would leave out microseconds.
        return value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    try:
        return json.loads(_ENCODER.encode(value))
    except (TypeError, ValueError):
        return repr(value)


def _load_state(body: Any) -> State | None:
    if body is None:
        return None
    places, watched = body
    return State(frozenset(map(tuple, places)), tuple(map(_hashable, watched)))


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _names(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _slim(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


_VALUES = ("pk", "changed", "reason", "truncated", "action", "count", "pks")
_ENCODER = DjangoJSONEncoder(separators=(",", ":"))
_KINDS: dict[str, Callable[[Any], Telling]] = {
    "notice": _load_notice,
    "bulk": _load_bulk,
    "event": _load_event,
}
