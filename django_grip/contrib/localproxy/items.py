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
class Item:
    """One published item. A format is None if the item has nothing for it.

    `ignored` names what the item asks for and this proxy cannot do.
    """

    channel: str
    id: str | None = None
    stream: StreamContent | None = None
    response: ResponseContent | None = None
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
    _check_meta(item)
    formats = item.get("formats", item)
    if not isinstance(formats, dict):
        raise ItemError("'formats' of an item is not an object.")
    known = {name: formats[name] for name in FORMATS if name in formats}
    if not known and not ("formats" in item and formats):
        raise ItemError("An item contains no formats.")
    for name, value in known.items():
        if not isinstance(value, dict):
            raise ItemError(f"{name} of an item is not an object.")
    ignored = [] if prev_id is None else ["prev-id of items"]
    if "ws-message" in known:
        ignored.append("ws-message items")
    if "body-patch" in known.get("http-response", {}):
        ignored.append("body-patch of http-response items")
    return Item(
        channel=channel,
        id=item_id,
        stream=_stream(known.get("http-stream")),
        response=_response(known.get("http-response")),
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


def _check_meta(item: Mapping[str, Any]) -> None:
    if "meta" not in item:
        return
    meta = item["meta"]
    if not isinstance(meta, dict) or not all(
        isinstance(value, str) for value in meta.values()
    ):
        raise ItemError("'meta' of an item is an object of strings.")


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
