"""Models to events: every committed change on the channels of its model and object.

The names are loaded when asked for: `INSTALLED_APPS` imports this package before
models may be imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_grip.contrib.realtime.streams import (
        ModelStream,
        RealtimeModel,
        realtime,
        register,
    )

__all__ = ["ModelStream", "RealtimeModel", "realtime", "register"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from django_grip.contrib.realtime import streams

        return getattr(streams, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
