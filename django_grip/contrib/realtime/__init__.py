"""Models to events: every committed change on the channels of its model and object.

The names are loaded when asked for: `INSTALLED_APPS` imports this package before
models may be imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_grip.contrib.realtime.announcements import (
        apublish_event,
        channel_for,
        publish_changes,
        publish_event,
    )
    from django_grip.contrib.realtime.contexts import actor, suppress
    from django_grip.contrib.realtime.managers import RealtimeManager, RealtimeQuerySet
    from django_grip.contrib.realtime.revocations import (
        areset,
        arevoke,
        reset,
        revoke,
    )
    from django_grip.contrib.realtime.streams import (
        ModelStream,
        RealtimeModel,
        realtime,
        register,
    )

__all__ = [
    "ModelStream",
    "RealtimeManager",
    "RealtimeModel",
    "RealtimeQuerySet",
    "actor",
    "apublish_event",
    "areset",
    "arevoke",
    "channel_for",
    "publish_changes",
    "publish_event",
    "realtime",
    "register",
    "reset",
    "revoke",
    "suppress",
]

_MODULES = {
    "announcements": {
        "apublish_event",
        "channel_for",
        "publish_changes",
        "publish_event",
    },
    "contexts": {"actor", "suppress"},
    "managers": {"RealtimeManager", "RealtimeQuerySet"},
    "revocations": {"areset", "arevoke", "reset", "revoke"},
    "streams": {"ModelStream", "RealtimeModel", "realtime", "register"},
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
