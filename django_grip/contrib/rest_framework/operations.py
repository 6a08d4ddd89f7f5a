"""Operations: what a client asks of a socket, one in each text it sends. Pure.

Whatever the text is, it is an operation or a problem; it never raises.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias, TypeGuard, get_args

TEXT_MAX = 64 * 1024
"""Bytes of a client's text. A longer one is not even parsed."""

ID_MAX = 64
SINCE_MAX = 1_000
URL_MAX = 2_000

Kind: TypeAlias = Literal["subscribe", "unsubscribe", "resume", "ping"]
_KINDS: tuple[str, ...] = get_args(Kind)

_URL = re.compile(r"/(?!/)[\x21-\x7e]*")
"""A path of this site with its query, as it stands in a request."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What a client asks for. A ping has neither `id`, `url` nor `since`."""

    kind: Kind
    id: str | None = None
    url: str = ""
    since: str | None = None


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a client does not get what it asks for. `status` is that of HTTP."""

    status: int
    reason: str
    id: str | None = None


def is_too_long(text: str) -> bool:
    """Whether a text has more than TEXT_MAX bytes."""
    return len(text) > TEXT_MAX or (
        not text.isascii() and len(text.encode(errors="replace")) > TEXT_MAX
    )


def parse(text: str, *, is_single: bool = False) -> Operation | Problem:
    """The operation that a text of at most TEXT_MAX bytes asks for.

    On the socket of one stream, `is_single`, subscriptions have no ids, and there is
    nothing to subscribe to.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return Problem(status=400, reason="Expected a JSON object.")
    if not isinstance(value, dict):
        return Problem(status=400, reason="Expected a JSON object.")
    kind = value.get("type")
    kinds = ("resume", "ping") if is_single else _KINDS
    id = value.get("id")
    if is_single or kind == "ping" or not _is_text(id, ID_MAX):
        id = None
    if not isinstance(kind, str) or kind not in kinds:
        reason = f'Expected a "type" of {", ".join(kinds)}.'
        return Problem(id=id, status=400, reason=reason)
    if id is None and not is_single and kind != "ping":
        reason = f'Expected an "id": a text of 1 to {ID_MAX} characters.'
        return Problem(status=400, reason=reason)
    return _parsed(kind, id, value)


def _parsed(kind: Any, id: str | None, value: dict[str, Any]) -> Operation | Problem:
    url, since = value.get("url"), value.get("since")
    if kind != "subscribe":
        url = ""
    elif not _is_text(url, URL_MAX) or not _URL.fullmatch(url):
        reason = (
            'Expected a "url": the path of a stream of this site, percent-encoded, of '
            f"at most {URL_MAX} characters."
        )
        return Problem(id=id, status=400, reason=reason)
    if kind not in ("subscribe", "resume"):
        since = None
    elif (since is not None or kind == "resume") and not _is_text(since, SINCE_MAX):
        reason = 'Expected a "since": a position that came from here.'
        return Problem(id=id, status=400, reason=reason)
    return Operation(kind=kind, id=id, url=url, since=since)


def _is_text(value: Any, most: int) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= most


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
