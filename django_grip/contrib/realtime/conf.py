"""GRIP_REALTIME: the one settings dict of the contrib layer, read when asked."""

from __future__ import annotations

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
    "STREAM_MAX_AGE": 3600,
}


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


def check() -> None:
    """Raise ImproperlyConfigured for a key that does not exist, naming the nearest."""
    given = getattr(settings, "GRIP_REALTIME", {})
    for key in given:
        if key not in _DEFAULTS:
            near = get_close_matches(str(key), _DEFAULTS, n=1)
            cure = (
                f"Did you mean {near[0]!r}?" if near else f"Known: {list(_DEFAULTS)}."
            )
            raise ImproperlyConfigured(f"GRIP_REALTIME has no key {key!r}. {cure}")


def _get(key: str) -> Any:
    return getattr(settings, "GRIP_REALTIME", {}).get(key, _DEFAULTS[key])
