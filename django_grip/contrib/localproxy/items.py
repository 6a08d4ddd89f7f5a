"""Published items, as they come in the JSON body of a publish request. Pure."""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FORMATS = ("http-stream", "http-response", "ws-message")


class ItemError(ValueError):
    """A publish body is malformed; the message is the reason told to the publisher."""


@dataclass(frozen=True, kw_only=True)
class StreamContent:
    """What an item gives to stream holds: bytes to append, or the end of the stream."""

    content: bytes = b""
    action: Literal["send", "hint", "close"] = "send"


@dataclass(frozen=True, kw_only=True)
class ResponseContent:
    """What an item gives to response holds: the answer, merged over the held one."""

    code: int = 200
    reason: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    action: Literal["send", "hint"] = "send"


@dataclass(frozen=True, kw_only=True)
class MessageContent:
    """What an item gives to WebSockets: a message, or a close with code and reason."""

    type: Literal["text", "binary", "ping", "pong", "close"] = "text"
    content: bytes = b""
    code: int = 1000
    action: Literal["send"] = "send"


Content = StreamContent | ResponseContent | MessageContent


@dataclass(frozen=True, kw_only=True)
class Item:
    """One published item. A format is None if the item has nothing for it.

    `ignored` names what the item asks for and this proxy cannot do.
    """

    channel: str
    id: str | None = None
    prev_id: str | None = None
    no_seq: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)
    stream: StreamContent | None = None
    response: ResponseContent | None = None
    message: MessageContent | None = None
    ignored: tuple[str, ...] = field(default=())


def parse_items(body: bytes) -> list[Item]:
    """Return the items of a publish body, `{"items": [...]}`.

    Raises ItemError if any part is malformed: a batch is taken whole or not at all.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise ItemError("Body is not valid JSON.") from exc
    if not isinstance(document, dict):
        raise ItemError("Body is not an object.")
    items = document.get("items")
    if not isinstance(items, list):
        raise ItemError("Body does not contain a list 'items'.")
    return [_item(item) for item in items]


def _item(item: Any) -> Item:
    if not isinstance(item, dict):
        raise ItemError("An item is not an object.")
    channel = _text(item, "channel", "item")
    if channel is None:
        raise ItemError("An item does not contain 'channel'.")
    item_id = _text(item, "id", "item")
    prev_id = _text(item, "prev-id", "item")
    no_seq = item.get("no-seq", False)
    if not isinstance(no_seq, bool):
        raise ItemError("'no-seq' of an item is true or false.")
    formats = item.get("formats", item)
    if not isinstance(formats, dict):
        raise ItemError("'formats' of an item is not an object.")
    known = {name: formats[name] for name in FORMATS if name in formats}
    if not known and not ("formats" in item and formats):
        raise ItemError("An item contains no formats.")
    for name, value in known.items():
        if not isinstance(value, dict):
            raise ItemError(f"{name} of an item is not an object.")
    ignored: list[str] = []
    if "body-patch" in known.get("http-response", {}):
        ignored.append("body-patch of http-response items")
    return Item(
        channel=channel,
        id=item_id,
        prev_id=prev_id,
        no_seq=no_seq,
        meta=_meta(item),
        stream=_stream(known.get("http-stream")),
        response=_response(known.get("http-response")),
        message=_message(known.get("ws-message")),
        ignored=tuple(ignored),
    )


def _text(found: Mapping[str, Any], key: str, where: str) -> str | None:
    """The string under `key`; None if absent. Null and numbers are errors."""
    if key not in found:
        return None
    value = found[key]
    if not isinstance(value, str):
        raise ItemError(
            f"'{key}' of an {where} is a string; got {json.dumps(value)[:40]}."
        )
    return value


def _meta(item: Mapping[str, Any]) -> Mapping[str, str]:
    meta = item.get("meta", {})
    if not isinstance(meta, dict) or not all(
        isinstance(value, str) for value in meta.values()
    ):
        raise ItemError("'meta' of an item is an object of strings.")
    return meta


def _stream(found: Mapping[str, Any] | None) -> StreamContent | None:
    if found is None:
        return None
    action = _text(found, "action", "http-stream") or "send"
    if action == "close":
        return StreamContent(action="close")
    if action == "hint":
        return StreamContent(action="hint")
    if action != "send":
        raise ItemError(f"Unknown action {action!r} of http-stream.")
    content = _bytes(found, "content", "http-stream")
    if content is None:
        raise ItemError("http-stream contains neither 'content' nor 'content-bin'.")
    return StreamContent(content=content)


def _response(found: Mapping[str, Any] | None) -> ResponseContent | None:
    if found is None or "body-patch" in found:
        return None
    action = _text(found, "action", "http-response") or "send"
    if action == "hint":
        return ResponseContent(action="hint")
    if action != "send":
        raise ItemError(f"Unknown action {action!r} of http-response.")
    body = _bytes(found, "body", "http-response")
    if body is None:
        raise ItemError("http-response contains neither 'body' nor 'body-bin'.")
    return ResponseContent(
        code=_code(found.get("code", 200)),
        reason=_line(_text(found, "reason", "http-response")),
        headers=_headers(found.get("headers", [])),
        body=body,
    )


def _message(found: Mapping[str, Any] | None) -> MessageContent | None:
    if found is None:
        return None
    action = _text(found, "action", "ws-message") or "send"
    if action == "close":
        reason = _text(found, "reason", "ws-message") or ""
        return MessageContent(
            type="close",
            code=_close_code(found.get("code", 1000)),
            content=reason.encode("utf-8", "replace"),
        )
    if action == "hint":
        return None
    if action != "send":
        raise ItemError(f"Unknown action {action!r} of ws-message.")
    default = "binary" if "content-bin" in found else "text"
    kind = _text(found, "type", "ws-message") or default
    content = _bytes(found, "content", "ws-message")
    if kind == "ping":
        return MessageContent(type="ping", content=content or b"")
    if kind == "pong":
        return MessageContent(type="pong", content=content or b"")
    if content is None:
        raise ItemError("ws-message contains neither 'content' nor 'content-bin'.")
    if kind == "text":
        return MessageContent(type="text", content=content)
    if kind == "binary":
        return MessageContent(type="binary", content=content)
    raise ItemError(f"Unknown type {kind!r} of ws-message.")


def _close_code(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value <= 65535:
        raise ItemError("'code' of ws-message is a number up to 65535.")
    return value


def _bytes(found: Mapping[str, Any], key: str, where: str) -> bytes | None:
    """Base64 `<key>-bin` if present, else the text `<key>` as UTF-8."""
    encoded = _text(found, f"{key}-bin", where)
    if encoded is not None:
        try:
            return b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise ItemError(f"'{key}-bin' of {where} is not base64.") from exc
    text = _text(found, key, where)
    # A lone surrogate is valid JSON (\ud800) but has no UTF-8 form.
    return None if text is None else text.encode("utf-8", "replace")


def _code(value: Any) -> int:
    try:
        code = int(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ItemError("'code' of http-response is a number.") from exc
    if not 200 <= code <= 999:
        raise ItemError("'code' of http-response is a number from 200 to 999.")
    return code


def _headers(value: Any) -> tuple[tuple[str, str], ...]:
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list):
        raise ItemError("'headers' of http-response is an object or a list of pairs.")
    headers = []
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise ItemError("A header of http-response is a pair [name, value].")
        name, text = pair
        if not isinstance(name, str) or not isinstance(text, str):
            raise ItemError("Names and values of headers are strings.")
        headers.append((_line(name) or "", _line(text) or ""))
    return tuple(headers)


def _line(text: str | None) -> str | None:
    if text is not None and any(
        ord(character) < 32 or ord(character) == 127 for character in text
    ):
        raise ItemError("Reasons and headers may not hold control characters.")
    return text
