"""Streams on viewsets: one permission, asked by `GET` and stream alike.

The names are loaded when asked for: `INSTALLED_APPS` imports this package before
Django REST Framework may be.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_grip.contrib.rest_framework.mixins import StreamModelMixin
    from django_grip.contrib.rest_framework.multiplexing import RealtimeSocket
    from django_grip.contrib.rest_framework.responses import (
        StreamNegotiation,
        astream_response,
        stream_response,
    )

__all__ = [
    "RealtimeSocket",
    "StreamModelMixin",
    "StreamNegotiation",
    "astream_response",
    "stream_response",
]

_MODULES = {
    "RealtimeSocket": "multiplexing",
    "StreamModelMixin": "mixins",
    "StreamNegotiation": "responses",
    "astream_response": "responses",
    "stream_response": "responses",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
