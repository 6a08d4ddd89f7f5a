"""The origin's answer headers, read as Pushpin reads them. Pure.

The grammar has its own rules: a channel name is literal up to the first `;`, quotes
do not protect it, and keep-alive data are never unquoted. Values are case-sensitive.
See https://pushpin.org/docs/protocols/grip/
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

CHANNELS_MAX = 20
"""Channels of one hold that count; Pushpin ignores the rest."""

RESPONSE_TIMEOUT = 55
RESPONSE_TIMEOUT_MIN = 5
KEEP_ALIVE_TIMEOUT = 55

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
class Instruction:
    """What the origin wants done with its answer.

    `hold` is None for an answer that simply goes on to the client. `timeout` is in
    seconds and for response holds. `status` and `expose_headers` (lower case) are
    None when the answer stays as it is. `ignored` names what this proxy cannot do.
    """

    hold: Literal["response", "stream"] | None = None
    channels: tuple[str, ...] = ()
    timeout: int = RESPONSE_TIMEOUT
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

    if _media_type(values) == "application/grip-instruct":
        raise InstructionError(
            "Content-Type application/grip-instruct is not understood by the local "
            "proxy. Send the instruction in Grip-* headers instead."
        )
    hold = _hold(values)
    channels, ignored = _channels(values.get("grip-channel", []))
    ignored += [
        name for name in ("Grip-Link", "Grip-Set-Meta") if name.lower() in values
    ]
    if hold and _last(values, "content-encoding") not in (None, "", "identity"):
        raise InstructionError(
            "A held response may not have a Content-Encoding: published items are "
            "appended to it as they are. Exempt this view from compression."
        )
    return Instruction(
        hold=hold,
        channels=tuple(channels),
        timeout=_timeout(_last(values, "grip-timeout")),
        keep_alive=_keep_alive(_last(values, "grip-keep-alive")),
        status=_status(_last(values, "grip-status")),
        expose_headers=_expose_headers(values.get("grip-expose-headers")),
        ignored=tuple(ignored),
    )


def _last(values: dict[str, list[str]], name: str) -> str | None:
    found = values.get(name)
    return found[-1].strip() if found else None


def _media_type(values: dict[str, list[str]]) -> str:
    return (_last(values, "content-type") or "").partition(";")[0].strip().lower()


def _hold(values: dict[str, list[str]]) -> Literal["response", "stream"] | None:
    hold = _last(values, "grip-hold")
    if hold is None:
        return None
    if hold == "response":
        return "response"
    if hold == "stream":
        return "stream"
    raise InstructionError(
        f"Grip-Hold is 'response' or 'stream', in lower case; got {hold!r}."
    )


def _channels(headers: list[str]) -> tuple[list[str], list[str]]:
    names: list[str] = []
    ignored: list[str] = []
    for header in headers:
        for element in split_list(header):
            name, *parameters = element.split(";")
            if name.strip() not in names:
                names.append(name.strip())
            for parameter in parameters:
                key, _, value = parameter.strip().partition("=")
                if key.lower() == "prev-id":
                    ignored.append("prev-id in Grip-Channel")
                elif key == "filter":
                    ignored.append(f"filter {value.strip()} in Grip-Channel")
    if len(names) > CHANNELS_MAX:
        ignored.append(f"more than {CHANNELS_MAX} channels in one hold")
    return names[:CHANNELS_MAX], ignored


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


def _timeout(text: str | None) -> int:
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
    options = {
        name.strip().lower(): value.strip().strip('"')
        for name, _, value in (parameter.partition("=") for parameter in parameters)
    }
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
        return _lenient_base64(data)
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


def _lenient_base64(data: bytes) -> bytes:
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
