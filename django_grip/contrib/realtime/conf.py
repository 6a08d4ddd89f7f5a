"""GRIP_REALTIME: the one settings dict of the contrib layer, read when asked."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

_DEFAULTS: dict[str, Any] = {
    "KEEP_ALIVE": 25,
    "MAX_PAYLOAD": 64 * 1024,
    "RETRY": (1, 5),
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
