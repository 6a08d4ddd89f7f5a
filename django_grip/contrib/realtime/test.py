"""Helpers for the tests of projects whose models are announced."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, overload

from django.core.exceptions import ImproperlyConfigured
from django.db import models

from django_grip import conf
from django_grip.contrib.realtime.announcements import Target
from django_grip.contrib.realtime.delivery import diverted
from django_grip.contrib.realtime.events import json_pk
from django_grip.contrib.realtime.streams import json_text, registry
from django_grip.items import Item
from django_grip.test import capture_published


@dataclass(frozen=True, kw_only=True)
class Event:
    """What the clients of one channel are sent.

    `channel` has no GRIP_PREFIX. `op` "close" is no event: the proxy ends the streams
    of that channel, so that their clients are asked again. `envelope` is all that was
    sent; what it does not have is None here.
    """

    channel: str
    op: str
    pk: Any = None
    data: Any = None
    changed: list[str] | None = None
    reason: str | None = None
    origin: str | None = None
    envelope: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        named = {
            name: self.envelope[name]
            for name in ("pk", "changed", "reason", "origin", "action", "count", "data")
            if name in self.envelope
        }
        return " ".join([self.op, self.channel, *_words(named)])


class Events(Sequence[Event]):
    """What a capture has seen so far, oldest first; equal to a list of the same."""

    def __init__(self, items: list[Item]) -> None:
        self._items = items

    def clear(self) -> None:
        """Forget what was seen."""
        self._items.clear()

    def _list(self) -> list[Event]:
        return [event for item in self._items for event in events_of(item)]

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: Any) -> Any:
        return self._list()[index]

    def __len__(self) -> int:
        return len(self._list())

    def __eq__(self, other: object) -> bool:
        return self._list() == (other._list() if isinstance(other, Events) else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._list())


_captures: list[Events] = []
"""Those under way, the innermost last."""

_ended: Events | None = None
"""The one that ended last."""


@contextmanager
def capture_events() -> Iterator[Events]:
    """Collect what is announced inside the block; nothing leaves the process.

    Yields the events, oldest first, as they come. They come when the transaction
    commits: in a TestCase, where none ever does, put
    `captureOnCommitCallbacks(execute=True)` inside. What `publish()` sends is no event:
    see `django_grip.test.capture_published`.
    """
    global _ended
    with capture_published() as items, diverted():
        events = Events(items)
        _captures.append(events)
        try:
            yield events
        finally:
            _captures.pop()
            _ended = events


def events_of(item: Item) -> Iterator[Event]:
    """The events of an item; none if it was published by other means."""
    stream = item.formats.get("http-stream", {})
    if stream.get("action") == "close":
        yield Event(channel=item.channel.removeprefix(conf.prefix()), op="close")
    elif item.events:
        for frame in stream["content"].split("\n\n"):
            data = [
                line.removeprefix("data: ")
                for line in frame.split("\n")
                if line.startswith("data: ")
            ]
            if data:
                yield _event(json.loads("\n".join(data)))


def assert_published(
    target: Target,
    op: str | None = None,
    *,
    pk: Any = None,
    data: Any = None,
    changed: Sequence[str] | None = None,
    reason: str | None = None,
    origin: str | None = None,
    among: Sequence[Event] | None = None,
) -> Event:
    """Assert that such an event was published, and return the first.

    `target` is a row (its own channel is meant), a model class (the channel of all
    rows) or a channel's name, as `channel_for` gives it; of a stream with audiences
    any of them will do. Of `data`, a dict, the event's has at least these keys with
    these values; a value is compared as JSON. What is None is not looked at.
    Raises ImproperlyConfigured for a model that is not registered, and ValueError for
    a row without pk.

    It looks at the innermost `capture_events()`, or after its end at the last one;
    `among` names another.
    """
    expected = _expected(
        op=op,
        pk=json_pk(pk),
        data=json.loads(json_text(data)),
        changed=None if changed is None else sorted(changed),
        reason=reason,
        origin=origin,
    )
    events = _seen(among)
    channels = _channels(target)
    for event in events:
        if event.channel in channels and _fits(event, expected):
            return event
    raise AssertionError(
        f"Not published: {_sentence(channels, expected)}. {_summary(events)}"
    )


def assert_not_published(
    target: Target,
    op: str | None = None,
    *,
    pk: Any = None,
    among: Sequence[Event] | None = None,
) -> None:
    """Assert that no such event was published. See assert_published()."""
    expected = _expected(op=op, pk=json_pk(pk))
    events = _seen(among)
    channels = _channels(target)
    for event in events:
        if event.channel in channels and _fits(event, expected):
            raise AssertionError(
                f"Not expected, but published: {event}. {_summary(events)}"
            )


def _event(envelope: dict[str, Any]) -> Event:
    names = ("channel", "op", "pk", "data", "changed", "reason", "origin")
    values: dict[str, Any] = {name: envelope.get(name) for name in names}
    return Event(**values, envelope=envelope)


def _seen(among: Sequence[Event] | None) -> list[Event]:
    events = among
    if events is None:
        events = _captures[-1] if _captures else _ended
    if events is None:
        raise RuntimeError(
            "Nothing was captured: let it happen inside `with capture_events():`."
        )
    return list(events)


def _channels(target: Target) -> list[str]:
    if isinstance(target, str):
        return [target]
    is_object = isinstance(target, models.Model)
    stream = registry.get(type(target) if is_object else target)  # type: ignore[arg-type]
    if stream is None:
        raise ImproperlyConfigured(
            f"{target!r} is not registered for realtime: nothing is published of it."
        )
    pk = using = None
    if isinstance(target, models.Model):
        pk, using = target.pk, target._state.db
        if pk is None:
            raise ValueError(
                f"This {stream.label} has no pk: it was deleted, or never saved. Keep "
                f"its pk before, and ask for {stream.model.__name__} with pk=…."
            )
    return [
        stream.channel(pk, audience=audience, using=using)
        for audience in stream.told_audiences
    ]


def _expected(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _fits(event: Event, expected: Mapping[str, Any]) -> bool:
    for name, value in expected.items():
        found = getattr(event, name)
        if name == "data" and isinstance(value, dict) and isinstance(found, dict):
            found = {key: found[key] for key in value if key in found}
        if found != value:
            return False
    return True


def _sentence(channels: Sequence[str], expected: Mapping[str, Any]) -> str:
    named = dict(expected)
    op = named.pop("op", "anything")
    return " ".join([op, "on", " or ".join(channels), *_words(named)])


def _summary(events: Sequence[Event]) -> str:
    if not events:
        return (
            "Nothing was. Events leave when the transaction commits: in a TestCase "
            "use captureOnCommitCallbacks(execute=True)."
        )
    lines = "".join(f"\n  {event}" for event in events)
    return f"Published were:{lines}"


def _words(named: Mapping[str, Any]) -> Iterator[str]:
    for name, value in named.items():
        yield f"{name}={json.dumps(value, ensure_ascii=False)}"
