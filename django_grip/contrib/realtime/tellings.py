"""Tellings: what each channel is told of a notice, and the items that carry it.

The channels are those of the collection, of the object and of its scopes' values, for
each audience.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import uuid4

from django_grip.contrib.realtime import sse
from django_grip.contrib.realtime.channels import channel_name
from django_grip.contrib.realtime.events import (
    AGE,
    CLOSE,
    REFRESH,
    BulkNotice,
    Event,
    Notice,
    Step,
    Telling,
    Topic,
    coalesced,
    json_pk,
    refreshing,
    steps,
)
from django_grip.items import Item, response

BULK_PKS = 1_000
"""Pks a bulk event names; with more it only counts."""

BULK_OBJECTS = 10_000
"""Rows of one operation whose own channels are told one by one."""

ASK_AGAIN = 4001
"""The code with which a WebSocket is closed: its client opens another, and asks for
each of its streams again. Of the codes that are free to use, see RFC 6455, 7.4.2.
"""


def told(tellings: Iterable[Telling], ts: str) -> Iterator[Event]:
    """The events of what one transaction has to say. `ts`: see envelope().

    A channel of refreshes is told once, however much there is.
    """
    refreshed: set[str] = set()
    for telling in coalesced(tellings):
        for event in events(telling, ts):
            if event.op == REFRESH and not isinstance(telling, Event):
                if event.channel in refreshed:
                    continue
                refreshed.add(event.channel)
            yield event


def events(telling: Telling, ts: str) -> Iterator[Event]:
    """The events of one telling, with ids of their own. `ts`: see envelope()."""
    if isinstance(telling, Event):
        yield telling
        return
    yield from _events(telling, ts)
    if telling.topic.refresh:
        for event in _events(refreshing(telling), ts):
            yield event if event.is_close else refresh(event.channel, ts)


def refresh(channel: str, ts: str) -> Event:
    """Says that there is something new on a channel, and no more."""
    return Event(channel=channel, op=REFRESH, id=uuid4().hex, ts=ts)


def _events(telling: Notice | BulkNotice, ts: str) -> Iterator[Event]:
    if isinstance(telling, BulkNotice):
        return _of_bulk(telling, ts)
    return _of_notice(telling, ts)


def item(event: Event, prefix: str) -> Item:
    """The item of an event that has no place in an order. `prefix` is GRIP_PREFIX."""
    if event.is_close:
        return close_item(prefix + event.channel, event.values.get("reason"))
    return event_item(
        prefix + event.channel, event.op, event.envelope(), event.id, event.origin
    )


def event_item(
    channel: str,
    op: str,
    text: str,
    id: str,
    origin: str | None,
    *,
    prev_id: str | None = None,
) -> Item:
    """The item of an envelope, for a channel named with GRIP_PREFIX.

    With `prev_id` its id is a position in an order, and a client hears of it.
    """
    position = None if prev_id is None else id
    return Item(
        channel=channel,
        formats={
            "http-stream": {"content": sse.frame(op, text, id=position)},
            "ws-message": {"content": f"[{text}]"},
        },
        id=id,
        prev_id=prev_id,
        meta={} if origin is None else {"sender": origin},
        events=True,
    )


def close_item(
    channel: str,
    reason: str | None = None,
    *,
    id: str | None = None,
    prev_id: str | None = None,
) -> Item:
    """Ends the streams of a channel, named with GRIP_PREFIX: their clients come back,
    and are asked again.

    For the reason AGE WebSockets stay: they are asked again while they are open.
    """
    position = None if prev_id is None else id
    formats = {
        "http-stream": {"action": "close"},
        "http-response": response("[]", position),
    }
    if reason != AGE:
        formats["ws-message"] = {"action": "close", "code": ASK_AGAIN}
    return Item(channel=channel, formats=formats, id=id, prev_id=prev_id)


def _of_notice(notice: Notice, ts: str) -> Iterator[Event]:
    change, topic = notice.change, notice.topic
    found = list(steps(change.op, notice.before, notice.after))
    if not _is_told(notice, found):
        return
    id = uuid4().hex
    for audience, data in notice.payloads.items():
        for step in found:
            channel = _channel(topic, step, change.pk, audience)
            has_row = step.op != "delete"
            if step.op in topic.events:
                yield Event(
                    channel=channel,
                    op=step.op,
                    id=id,
                    label=topic.label,
                    ts=ts,
                    data=data if has_row else None,
                    origin=change.origin,
                    values={
                        "pk": change.pk,
                        "changed": _changed(change.changed, step),
                        "reason": step.reason,
                        "truncated": (has_row and audience in notice.truncated) or None,
                    },
                )
            if step.to == "object" and step.reason == "leave":
                yield Event(channel=channel, op=CLOSE, id="")


def _is_told(notice: Notice, found: list[Step]) -> bool:
    """Whether a plain update changed something that is watched."""
    if notice.always or not notice.topic.watches:
        return True
    if any(step.op != "update" for step in found):
        return True
    if notice.before is None or notice.after is None:
        return True
    return notice.topic.is_seen(notice.before, notice.after, notice.named)


def _of_bulk(bulk: BulkNotice, ts: str) -> Iterator[Event]:
    groups: dict[Step, list[Any]] = {}
    topic = bulk.topic
    for pk, before, after in bulk.moves:
        if before and after and not topic.is_seen(before, after, bulk.changed):
            continue
        for step in steps(bulk.op, before, after):
            groups.setdefault(step, []).append(pk)
    if not bulk.moves:
        places: list[Step] = [Step(place, bulk.op) for place in sorted(bulk.places)]
        groups = {step: [] for step in [Step("collection", bulk.op), *places]}
    for audience in topic.audiences:
        for step, pks in groups.items():
            if step.to == "object":
                yield from _of_objects(bulk, step, pks, audience, ts)
            elif step.op in topic.events:
                named = 0 < len(pks) <= BULK_PKS
                yield Event(
                    channel=_channel(topic, step, None, audience),
                    op="bulk",
                    id=uuid4().hex,
                    label=topic.label,
                    ts=ts,
                    origin=bulk.origin,
                    values={
                        "action": step.op,
                        "count": len(pks) or bulk.count,
                        "pks": [json_pk(pk) for pk in pks] if named else None,
                        "changed": _changed(bulk.changed, step),
                        "reason": step.reason,
                    },
                )


def _of_objects(
    bulk: BulkNotice,
    step: Step,
    pks: Sequence[Any],
    audience: str | None,
    ts: str,
) -> Iterator[Event]:
    """Each row's own clients are told without data, and sent away if it left.

    A row that was just made has none.
    """
    if step.op == "create" and step.reason is None:
        return
    for pk in pks if step.reason == "leave" else pks[:BULK_OBJECTS]:
        channel = _channel(bulk.topic, step, pk, audience)
        if step.op in bulk.topic.events:
            yield Event(
                channel=channel,
                op=step.op,
                id=uuid4().hex,
                label=bulk.topic.label,
                ts=ts,
                origin=bulk.origin,
                values={
                    "pk": pk,
                    "changed": _changed(bulk.changed, step),
                    "reason": step.reason,
                },
            )
        if step.reason == "leave":
            yield Event(channel=channel, op=CLOSE, id="")


def _channel(topic: Topic, step: Step, pk: Any, audience: str | None) -> str:
    label, on = topic.label, topic.on
    if step.to == "collection":
        return channel_name(label, audience=audience, using=on)
    if step.to == "object":
        return channel_name(label, pk, audience=audience, using=on)
    return channel_name(label, place=step.to, audience=audience, using=on)


def _changed(names: frozenset[str] | None, step: Step) -> list[str] | None:
    return sorted(names) if names is not None and step.op == "update" else None
