"""The handshake of a WebSocket: what the origin gets of it and what it says. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from django_grip.contrib.localproxy.headers import Headers, to_origin
from django_grip.websocket_events import CONTENT_TYPE

# Of the client's handshake: what is said by the proxy, or about this connection only.
_NOT_OF_EVENTS = frozenset(
    ("accept", "content-length", "content-type", "sec-websocket-extensions")
)


def handshake_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """The headers of every request about a WebSocket, from those of its handshake.

    Only the proxy may say who a connection is: Connection-Id and Meta-* of the client
    are left out, in the spelling with `_` too, which WSGI does not tell apart.
    """
    kept = [
        (name, value)
        for name, value in to_origin(headers)
        if name.lower() not in _NOT_OF_EVENTS
        and not name.lower()
        .replace("_", "-")
        .startswith(("meta-", "connection-id", "content-bytes-"))
    ]
    return [
        *kept,
        ("Accept", CONTENT_TYPE),
        ("Content-Type", CONTENT_TYPE),
        ("Connection-Id", str(uuid.uuid4())),
        ("Sec-WebSocket-Extensions", "grip"),
    ]


def message_prefix(extensions: str) -> bytes | None:
    """What marks a message for the client; None without the grip extension."""
    for extension in extensions.split(","):
        name, *parameters = extension.split(";")
        if name.strip() != "grip":
            continue
        for parameter in parameters:
            key, _, value = parameter.strip().partition("=")
            if key == "message-prefix":
                return value.strip('"').encode()
        return b"m:"
    return None
