"""The origin's answer headers, read as Pushpin reads them. Pure.

The grammar has its own rules: a channel name is literal up to the first `;`, quotes
do not protect it, and keep-alive data are never unquoted. Values are case-sensitive.
See https://pushpin.org/docs/protocols/grip/
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from django_grip.contrib.localproxy.filters import FILTERS

CHANNELS_MAX = 20
"""Channels of one hold that count; Pushpin ignores the rest."""

RESPONSE_TIMEOUT = 55
RESPONSE_TIMEOUT_MIN = 5
KEEP_ALIVE_TIMEOUT = 55
LINK_TIMEOUT = 120

_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[^x]|x|$)", re.DOTALL)
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]")


class InstructionError(ValueError):
    """The origin's GRIP headers cannot be followed; the client is answered 502."""


@dataclass(frozen=True, kw_only=True)
class KeepAlive:
    """What a held stream sends so that nobody on the way takes it for dead.

    `timeout` is in seconds. In mode `idle` each item starts it anew.
    """

    content: bytes
    timeout: int = KEEP_ALIVE_TIMEOUT
    mode: Literal["idle", "interval"] = "idle"


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A channel of a hold: items must follow on `prev_id` unless that is None."""

    name: str
    prev_id: str | None = None
    filters: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Link:
    """Where the origin tells how a stream goes on. `timeout` is in seconds."""

    uri: str
    timeout: int = LINK_TIMEOUT


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """The answer inside an application/grip-instruct document."""

    code: int = 200
    reason: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """What the origin wants done with its answer.

    `hold` is None for an answer that simply goes on to the client. `timeout` is in
    seconds and for response holds. `meta` is what filters know of the subscriber.
    `status` and `expose_headers` (lower case) are None when the answer stays as it
    is; `replacement` is not None when a document took its place. `ignored` names what
    this proxy cannot do.
    """

    hold: Literal["response", "stream"] | None = None
    channels: tuple[Channel, ...] = ()
    timeout: int = RESPONSE_TIMEOUT
    link: Link | None = None
    meta: Mapping[str, str] = field(default_factory=dict)
    replacement: Replacement | None = None
    keep_alive: KeepAlive | None = None
    status: tuple[int, str] | None = None
    expose_headers: frozenset[str] | None = None
    ignored: tuple[str, ...] = ()


def parse_instruction(headers: Iterable[tuple[str, str]]) -> Instruction:
    """Return what the headers of an origin's answer ask for.

    Raises InstructionError where Pushpin answers 502.
    """
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(value)

    hold = hold_of(_last(values, "grip-hold"))
    channels, ignored = _channels(values.get("grip-channel", []))
    if hold and _last(values, "content-encoding") not in (None, "", "identity"):
        raise InstructionError(
            "A held response may not have a Content-Encoding: published items are "
            "appended to it as they are. Exempt this view from compression."
        )
    return Instruction(
        hold=hold,
        channels=tuple(channels),
        timeout=response_timeout(_last(values, "grip-timeout")),
        link=_link(values.get("grip-link", [])),
        meta=_meta(values.get("grip-set-meta", [])),
        keep_alive=_keep_alive(_last(values, "grip-keep-alive")),
        status=_status(_last(values, "grip-status")),
        expose_headers=_expose_headers(values.get("grip-expose-headers")),
        ignored=tuple(ignored),
    )


def _last(values: dict[str, list[str]], name: str) -> str | None:
    found = values.get(name)
    return found[-1].strip() if found else None


def hold_of(hold: str | None) -> Literal["response", "stream"] | None:
    """The kind of hold. Raises InstructionError for what is none."""
    if hold is None:
        return None
    if hold == "response":
        return "response"
    if hold == "stream":
        return "stream"
    raise InstructionError(
        f"Grip-Hold is 'response' or 'stream', in lower case; got {hold!r}."
    )


def _channels(headers: list[str]) -> tuple[list[Channel], list[str]]:
    channels: dict[str, Channel] = {}
    for header in headers:
        for element in split_list(header):
            name, *parameters = element.split(";")
            prev_id: str | None = None
            filters: list[str] = []
            for parameter in parameters:
                key, _, value = parameter.strip().partition("=")
                if key.lower() == "prev-id":
                    prev_id = _unquoted(value.strip())
                elif key == "filter":
                    filters.append(_unquoted(value.strip()))
            channel = Channel(
                name=name.strip(), prev_id=prev_id, filters=tuple(filters)
            )
            channels.setdefault(channel.name, channel)
    return known_channels(list(channels.values()))


def known_channels(channels: list[Channel]) -> tuple[list[Channel], list[str]]:
    """The channels that count, and what of them this proxy cannot do."""
    ignored = [
        f"filter {name} in Grip-Channel"
        for channel in channels
        for name in channel.filters
        if name not in FILTERS
    ]
    if len(channels) > CHANNELS_MAX:
        ignored.append(f"more than {CHANNELS_MAX} channels in one hold")
    return channels[:CHANNELS_MAX], ignored


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _link(headers: list[str]) -> Link | None:
    for header in headers:
        for element in split_list(header):
            uri, *parameters = element.split(";")
            uri = uri.strip()
            if len(uri) < 2 or uri[0] != "<" or uri[-1] != ">":
                raise InstructionError(
                    f"Grip-Link is '<URI>; rel=next', the URI without commas and "
                    f"semicolons (write %2C and %3B); got {header!r}."
                )
            options = _options(parameters)
            if options.get("rel") != "next":
                continue
            timeout = options.get("timeout", str(LINK_TIMEOUT))
            return Link(
                uri=uri[1:-1], timeout=_seconds("timeout of Grip-Link", timeout)
            )
    return None


def _meta(headers: list[str]) -> dict[str, str]:
    meta: dict[str, str] = {}
    for header in headers:
        for element in split_list(header):
            name, _, value = element.partition("=")
            meta[_unquoted(name.strip())] = _unquoted(value.strip())
    return meta


def _options(parameters: list[str]) -> dict[str, str]:
    return {
        name.strip().lower(): value.strip().strip('"')
        for name, _, value in (parameter.partition("=") for parameter in parameters)
    }


def split_list(header: str) -> list[str]:
    """Split at commas outside double quotes; trim; leave out what is empty.

    A quote that is never closed makes the rest one element, as in Pushpin.
    """
    elements: list[str] = []
    start = position = 0
    quoted = False
    while position < len(header):
        character = header[position]
        if quoted and character == "\\":
            position += 1
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            elements.append(header[start:position])
            start = position + 1
        position += 1
    elements.append(header[start:])
    return [element.strip() for element in elements if element.strip()]


def response_timeout(text: str | None) -> int:
    if text is None:
        return RESPONSE_TIMEOUT
    return max(_seconds("Grip-Timeout", text), RESPONSE_TIMEOUT_MIN)


def _seconds(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise InstructionError(f"{name} is a whole number of seconds; got {text!r}.")
    return int(text)


def _keep_alive(header: str | None) -> KeepAlive | None:
    if header is None:
        return None
    text, *parameters = header.split(";")
    if not text.strip():
        if parameters:
            raise InstructionError(
                f"Grip-Keep-Alive has parameters but no data; got {header!r}."
            )
        return None
    data = text.strip().encode("utf-8", "surrogateescape")
    options = _options(parameters)
    mode = options.get("mode", "idle")
    if mode != "idle" and mode != "interval":
        raise InstructionError(
            f"The mode of Grip-Keep-Alive is 'idle' or 'interval'; got {mode!r}."
        )
    timeout = options.get("timeout", str(KEEP_ALIVE_TIMEOUT))
    return KeepAlive(
        content=_decoded(data, options.get("format", "raw")),
        timeout=max(_seconds("timeout of Grip-Keep-Alive", timeout), 1),
        mode="idle" if mode == "idle" else "interval",
    )


def _decoded(data: bytes, format_: str) -> bytes:
    if format_ == "raw":
        return data
    if format_ == "cstring":
        return _ESCAPE.sub(_unescaped, data)
    if format_ == "base64":
        return lenient_base64(data)
    raise InstructionError(
        "The format of Grip-Keep-Alive is 'raw', 'cstring' or 'base64'; "
        f"got {format_!r}."
    )


def _unescaped(match: re.Match[bytes]) -> bytes:
    escape = match.group(1)
    if escape in (b"", b"x"):
        raise InstructionError(
            "Grip-Keep-Alive in cstring format ends a backslash or \\x without two "
            "hex digits. Known escapes are \\\\ \\r \\n \\xHH."
        )
    if escape.startswith(b"x"):
        return bytes([int(escape[1:], 16)])
    # Pushpin swallows any other escaped character together with its backslash.
    return {b"\\": b"\\", b"r": b"\r", b"n": b"\n"}.get(escape, b"")


def lenient_base64(data: bytes) -> bytes:
    # Pushpin skips what is not base64 and bits that fill no byte.
    digits = _NOT_BASE64.sub(b"", data)
    if len(digits) % 4 == 1:
        digits = digits[:-1]
    try:
        return b64decode(digits + b"=" * (-len(digits) % 4))
    except binascii.Error as exc:
        raise InstructionError(f"Grip-Keep-Alive is not base64: {exc}.") from exc


def _status(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    code, _, reason = text.partition(" ")
    if not (code.isascii() and code.isdigit() and len(code) <= 3):
        raise InstructionError(
            f"Grip-Status is a code and, if you like, a reason; got {text!r}. "
            "Example: 304."
        )
    return int(code), reason.strip() or reason_phrase(int(code))


def reason_phrase(code: int) -> str:
    """The customary reason of a status code, empty for an unknown one."""
    try:
        return HTTPStatus(code).phrase
    except ValueError:
        return ""


def _expose_headers(headers: list[str] | None) -> frozenset[str] | None:
    if headers is None:
        return None
    return frozenset(name.lower() for header in headers for name in split_list(header))
