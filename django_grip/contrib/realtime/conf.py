"""GRIP_REALTIME: the one settings dict of the contrib layer, read when asked."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_DEFAULTS: dict[str, Any] = {
    "HISTORY": 24 * 3600,
    "HISTORY_ROWS": None,
    "KEEP_ALIVE": 25,
    "LINK_TIMEOUT": 60,
    "MAX_PAYLOAD": 64 * 1024,
    "RELAY": "inline",
    "RETRY": (1, 5),
    "REVOKE_ON": ("logout", "password", "inactive", "deleted", "groups", "permissions"),
    "STREAM_MAX_AGE": 3600,
    "TICKET_TTL": 60,
}

TICKET_TTL_MAX = 60
"""Tickets stand in URLs, and URLs in logs."""


def keep_alive() -> int:
    """KEEP_ALIVE: seconds of silence after which a stream gets a comment."""
    return int(_get("KEEP_ALIVE"))


def retry() -> tuple[float, float]:
    """RETRY: (least, most) seconds a client waits before it connects again."""
    least, most = _get("RETRY")
    return float(least), float(most)


def max_payload() -> int:
    """MAX_PAYLOAD: bytes of JSON above which an event goes out without its data."""
    return int(_get("MAX_PAYLOAD"))


def history() -> float:
    """HISTORY: seconds for which the event log keeps events."""
    return float(_get("HISTORY"))


def history_rows() -> int | None:
    """HISTORY_ROWS: events that the event log keeps at most; None: no limit."""
    rows: int | None = _get("HISTORY_ROWS")
    return rows


def link_timeout() -> int:
    """LINK_TIMEOUT: seconds after which a silent stream is asked for at Django."""
    return int(_get("LINK_TIMEOUT"))


def relay() -> str:
    """RELAY: `inline`, a thread in each process that writes, or `daemon`, which is
    `manage.py grip_relay` alone.
    """
    return str(_get("RELAY"))


def stream_max_age() -> float:
    """STREAM_MAX_AGE: seconds after which a stream ends, and its client is asked again
    who it is.
    """
    return float(_get("STREAM_MAX_AGE"))


def revoke_on() -> tuple[str, ...]:
    """REVOKE_ON: what happens to a user that ends the user's streams by itself."""
    return tuple(_get("REVOKE_ON"))


def ticket_ttl() -> int:
    """TICKET_TTL: seconds within which a stream can be opened with a ticket."""
    return int(_get("TICKET_TTL"))


def check() -> None:
    """Raise ImproperlyConfigured for a key that does not exist, naming the nearest,
    and for values that cannot be meant.
    """
    given = getattr(settings, "GRIP_REALTIME", {})
    for key in given:
        if key not in _DEFAULTS:
            raise ImproperlyConfigured(
                f"GRIP_REALTIME has no key {key!r}. {_cure(key, _DEFAULTS)}"
            )
    causes = _get("REVOKE_ON")
    if isinstance(causes, str):
        raise ImproperlyConfigured(
            f"REVOKE_ON of GRIP_REALTIME is a tuple; got the str {causes!r}."
        )
    for cause in causes:
        if cause not in _DEFAULTS["REVOKE_ON"]:
            raise ImproperlyConfigured(
                f"REVOKE_ON of GRIP_REALTIME knows no {cause!r}. "
                f"{_cure(cause, _DEFAULTS['REVOKE_ON'])}"
            )
    ttl = _get("TICKET_TTL")
    if not isinstance(ttl, (int, float)) or not 1 <= ttl <= TICKET_TTL_MAX:
        raise ImproperlyConfigured(
            f"TICKET_TTL of GRIP_REALTIME is 1 to {TICKET_TTL_MAX} seconds; got "
            f"{ttl!r}. A ticket stands in a URL, and has to open a stream only."
        )


def _cure(given: object, known: Iterable[str]) -> str:
    names = list(known)
    near = get_close_matches(str(given), names, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {names}."


def _get(key: str) -> Any:
    return getattr(settings, "GRIP_REALTIME", {}).get(key, _DEFAULTS[key])
