"""Item: one message for one channel, in the formats its clients take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pubcontrol import Format

from django_grip.headers import check_channel

Formats: TypeAlias = Format | Iterable[Format]

ANSWER_TYPE = "application/json"
"""The Content-Type of a long-poll's answer."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A message as the proxy takes it.

    `channel` includes GRIP_PREFIX. `formats` maps a format's name (`http-stream`,
    `http-response`, `ws-message`) to its fields, ready for JSON.

    With `events` the publisher may join items of one channel that wait together: the
    content of `ws-message` is then a JSON array, that of `http-stream` whole frames,
    and no id comes twice. Long-polls are answered with the array, by an
    `http-response` that is made of it when the item leaves.
    """

    channel: str
    formats: Mapping[str, Mapping[str, Any]]
    id: str | None = None
    prev_id: str | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    events: bool = False

    def size(self) -> int:
        """Bytes of content, in UTF-8. Raises what sizes() raises."""
        return sum(self.sizes())

    def sizes(self) -> list[int]:
        """Bytes of content, in UTF-8, of each format.

        Raises UnicodeEncodeError, a ValueError, for half a surrogate pair.
        """
        return [
            sum(_size(value) for value in fields.values() if isinstance(value, str))
            for fields in self.formats.values()
        ]

    def export(self) -> dict[str, Any]:
        """The item object of `POST /publish/`. Absent ids are left out, never null."""
        formats = self.formats
        array = formats.get("ws-message", {}).get("content")
        if self.events and array is not None:
            # Only events in an order have a predecessor, and an id that is a position.
            position = None if self.prev_id is None else self.id
            formats = {**formats, "http-response": response(array, position)}
        out: dict[str, Any] = {"channel": self.channel, "formats": formats}
        if self.id is not None:
            out["id"] = self.id
        if self.prev_id is not None:
            out["prev-id"] = self.prev_id
        if self.meta:
            out["meta"] = self.meta
        return out


def make_item(
    channel: str,
    formats: Formats,
    *,
    id: str | None = None,
    prev_id: str | None = None,
    meta: Mapping[str, str] | None = None,
) -> Item:
    """An item from gripcontrol's formats.

    Raises ValueError for no format, two of one kind, or a channel or id that the
    wire cannot carry; TypeError for what is not a format.
    """
    if isinstance(formats, Format):
        formats = [formats]
    exported: dict[str, Mapping[str, Any]] = {}
    for format_ in formats:
        if not isinstance(format_, Format):
            raise TypeError(
                "A format is a gripcontrol HttpStreamFormat, HttpResponseFormat or "
                f"WebSocketMessageFormat; got {type(format_).__name__}."
            )
        name = format_.name()
        if name in exported:
            raise ValueError(f"An item takes one {name} format; got two.")
        exported[name] = {
            key: _json_ready(value) for key, value in format_.export().items()
        }
    if not exported:
        raise ValueError("An item takes at least one format; got none.")
    for given in (id, prev_id):
        if given is not None and (not isinstance(given, str) or not given):
            raise ValueError(
                f"id and prev_id are non-empty str or None; got {given!r}."
            )
    return Item(
        channel=check_channel(channel),
        formats=exported,
        id=id,
        prev_id=prev_id,
        meta=dict(meta or {}),
    )


def response(array: str, position: str | None) -> dict[str, Any]:
    """The `http-response` that answers long-polls with an array of events."""
    return {
        "headers": {"Content-Type": ANSWER_TYPE},
        "body": answer(array, position),
    }


def answer(array: str, position: str | None) -> str:
    """The body of a long-poll: events as a JSON array, and where the client then
    stands, if they have positions.
    """
    end = "" if position is None else f',"position":{json.dumps(position)}'
    return f'{{"events":{array}{end}}}'


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _json_ready(value: Any) -> Any:
    # gripcontrol has base64-encoded binary content, but left the text as bytes.
    return value.decode() if isinstance(value, bytes) else value
