"""The events of WebSocket-over-HTTP: bytes to values and back. Pure.

`TYPE` CRLF, or `TYPE SP <hex length>` CRLF `<content>` CRLF, both ways.
See https://pushpin.org/docs/protocols/websocket-over-http/
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from struct import pack, unpack

CONTENT_TYPE = "application/websocket-events"

EVENTS_MAX = 10_000
"""Events of one request. Pushpin's own buffer ends far below."""

_TYPES = frozenset(("OPEN", "TEXT", "BINARY", "PING", "PONG", "CLOSE", "DISCONNECT"))
_WITH_CONTENT = frozenset(("TEXT", "BINARY"))
_HEAD = re.compile(rb"([A-Z]{4,10})(?: ([0-9A-Fa-f]{1,8}))?\r\n")


@dataclass(frozen=True)
class WebSocketEvent:
    """One event. `content` is None where there is none, which differs from empty."""

    type: str
    content: bytes | None = None


def decode(body: bytes) -> list[WebSocketEvent]:
    """Parse a body. Raises ValueError for anything but whole, known, ordered events.

    OPEN stands first or nowhere; nothing follows DISCONNECT.
    """
    events: list[WebSocketEvent] = []
    at = 0
    while at < len(body):
        head = _HEAD.match(body, at)
        if head is None:
            raise ValueError(f"expected an event at byte {at}")
        kind, length = head.group(1).decode(), head.group(2)
        at = head.end()
        content = None
        if length is not None:
            end = at + int(length, 16)
            if body[end : end + 2] != b"\r\n":
                raise ValueError(f"the content of {kind} at byte {at} is cut or longer")
            content = body[at:end]
            at = end + 2
        if kind not in _TYPES:
            raise ValueError(f"unknown event {kind}")
        if content is None and kind in _WITH_CONTENT:
            raise ValueError(f"{kind} without content")
        if kind == "OPEN" and events:
            raise ValueError("OPEN is not the first event")
        if events and events[-1].type == "DISCONNECT":
            raise ValueError("an event after DISCONNECT")
        if len(events) == EVENTS_MAX:
            raise ValueError(f"more than {EVENTS_MAX} events")
        events.append(WebSocketEvent(kind, content))
    return events


def encode(events: Iterable[WebSocketEvent]) -> bytes:
    """The body that carries these events."""
    parts = []
    for event in events:
        if event.content is None:
            parts.append(b"%b\r\n" % event.type.encode())
        else:
            head = b"%b %x\r\n" % (event.type.encode(), len(event.content))
            parts.append(head + event.content + b"\r\n")
    return b"".join(parts)


def is_close_code(code: int) -> bool:
    """Whether an endpoint may send this code (RFC 6455, 7.4; 1012-1014 registered)."""
    return (
        code in (1000, 1001, 1002, 1003)
        or 1007 <= code <= 1014
        or (3000 <= code <= 4999)
    )


def close_content(code: int, reason: str = "") -> bytes:
    """The content of a CLOSE event.

    Raises ValueError for a code no endpoint may send, or a reason over 123 bytes.
    """
    if not is_close_code(code):
        raise ValueError(
            f"{code} is no close code an endpoint may send: expected 1000-1003, "
            "1007-1014 or 3000-4999."
        )
    text = reason.encode()
    if len(text) > 123:
        raise ValueError(f"A close reason has at most 123 bytes; got {len(text)}.")
    return pack(">H", code) + text


def parse_close(content: bytes | None) -> tuple[int | None, str]:
    """(code, reason) of a CLOSE event; code None if it has none.

    A code that no endpoint may send counts as 1002, a protocol error, and bytes that
    are no UTF-8 are replaced: what a client says while it leaves is not worth a fault.
    """
    if content is None or len(content) < 2:
        return None, ""
    code: int = unpack(">H", content[:2])[0]
    reason = content[2:].decode("utf-8", "replace")
    return (code if is_close_code(code) else 1002), reason
