"""Batches: which waiting items leave together, and the bytes they leave as. No I/O.

Pushpin queues 100 items for each client and drops the rest in silence, so events of one
channel that wait together are joined into one item: by bytes, never by count.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django_grip.items import Item
from django_grip.publishers.base import Share

BODY_MAX = 900_000
"""Bytes of one POST: Pushpin refuses 1,000,000."""

JOINED_MAX = 100_000
"""Bytes of content of an item made of several, in one format: a client gets one.

One POST carries one such item of a channel with messages, so this bounds the events a
second of a channel. At 140,000 slow WebSockets behind Pushpin lost some.
"""

MESSAGES_MAX = 8_000
"""Bytes of WebSocket messages for one channel in one POST, or else one message: what
Pushpin cannot hand to a connection at once (`client_buffer_size`, 8,192 as installed)
it drops in silence, but one message of any size it takes whole."""

_STREAM = "http-stream"
_MESSAGE = "ws-message"


@dataclass(slots=True)
class Entry:
    """One item that waits for one server: item `index` of the delivery of `share`.

    `since` is on the monotonic clock. `alone` keeps it out of joined items: somebody
    waits for it, and may take it back. What is `kept` by the caller never expires.
    """

    item: Item
    share: Share
    index: int
    since: float
    alone: bool = False
    kept: bool = False
    size: int = field(init=False)
    longest: int = field(init=False)

    def __post_init__(self) -> None:
        """Raises ValueError for what is not Unicode."""
        sizes = self.item.sizes()
        self.size, self.longest = sum(sizes), max(sizes, default=0)

    def is_older(self, than: float) -> bool:
        """Whether it has waited since before `than`, and may expire."""
        return self.since < than and not self.kept


@dataclass(slots=True)
class Part:
    """One item as it is sent, and the entries it is made of.

    Its bytes never change, whatever happens on the way: a proxy that has seen the id
    drops what comes again.
    """

    body: bytes
    entries: list[Entry]
    channel: str
    message_size: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether nobody waits any more for what becomes of it."""
        return all(entry.share.is_settled for entry in self.entries)

    def is_older(self, than: float) -> bool:
        """Whether it has waited since before `than`, and may expire."""
        return self.entries[0].is_older(than)


def pack(entries: list[Entry]) -> Part:
    """Join the items of entries that `grouped` put together.

    Raises ValueError for an item that no proxy takes.
    """
    item = joined([entry.item for entry in entries])
    body = json.dumps(item.export(), ensure_ascii=False, separators=(",", ":")).encode()
    if len(body) > BODY_MAX:
        raise ValueError(
            f"an item of {len(body):,} bytes for channel {item.channel}; a proxy takes "
            f"{BODY_MAX:,}"
        )
    message = item.formats.get(_MESSAGE, {})
    texts = [value for value in message.values() if isinstance(value, str)]
    size = sum(len(text.encode()) for text in texts)
    return Part(body, entries, item.channel, size)


def post_body(parts: Iterable[Part]) -> bytes:
    """The body of `POST /publish/`."""
    return b'{"items":[' + b",".join(part.body for part in parts) + b"]}"


def leading(parts: Iterable[Part], most: int) -> list[Part]:
    """The first parts, at most `most`, that fit one POST."""
    batch: list[Part] = []
    size = 0
    messages: dict[str, int] = {}
    for part in parts:
        size += len(part.body) + 1
        if len(batch) == most or (batch and size > BODY_MAX):
            break
        if part.message_size:
            before = messages.get(part.channel, 0)
            if before and before + part.message_size > MESSAGES_MAX:
                break
            messages[part.channel] = before + part.message_size
        batch.append(part)
    return batch


def grouped(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Put together what can be one item.

    The order within a channel stays. A group stands where its first entry stood, so
    between channels later events may overtake.
    """
    groups: list[list[Entry]] = []
    latest: dict[str, tuple[list[Entry], int]] = {}
    for entry in entries:
        item = entry.item
        group, size = latest.get(item.channel, (None, 0))
        size += entry.longest
        if group is not None and size <= JOINED_MAX and _may_follow(group[-1], entry):
            group.append(entry)
        else:
            group, size = [entry], entry.longest
            groups.append(group)
        latest[item.channel] = (group, size)
    return groups


def joined(items: Sequence[Item]) -> Item:
    """One item with the contents of several, the id of the last, prev_id of the first.

    Stream contents are put end to end; messages, JSON arrays, become one array.
    """
    first, last = items[0], items[-1]
    if len(items) == 1:
        return first
    return Item(
        channel=first.channel,
        formats={
            name: {"content": _JOIN[name]([item.formats[name] for item in items])}
            for name in first.formats
        },
        id=last.id,
        prev_id=first.prev_id,
        meta=first.meta,
        events=first.events,
    )


def _may_follow(earlier: Entry, later: Entry) -> bool:
    if earlier.alone or later.alone:
        return False
    before, after = earlier.item, later.item
    return (
        _is_joinable(before)
        and _is_joinable(after)
        and before.formats.keys() == after.formats.keys()
        and before.meta == after.meta
        and _is_next(before, after)
    )


def _is_next(before: Item, after: Item) -> bool:
    if (before.id is None) != (after.id is None):
        return False
    if after.prev_id is not None:
        return after.prev_id == before.id
    # Who gives an id may publish it twice and count on the second being dropped; the
    # ids of events are their own.
    return after.id is None or after.events


def _is_joinable(item: Item) -> bool:
    for name, fields in item.formats.items():
        if len(fields) != 1 or "content" not in fields:
            return False
        if name == _STREAM:
            continue
        if name != _MESSAGE or not item.events:
            return False
    return True


def _concatenated(formats: Iterable[Mapping[str, Any]]) -> str:
    return "".join(fields["content"] for fields in formats)


def _one_array(formats: Iterable[Mapping[str, Any]]) -> str:
    elements = (fields["content"].strip()[1:-1] for fields in formats)
    return "[" + ",".join(filter(None, elements)) + "]"


_JOIN = {_STREAM: _concatenated, _MESSAGE: _one_array}
