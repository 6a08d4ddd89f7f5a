"""Streams on viewsets: one permission, asked by `GET` and stream alike.

The names are loaded when asked for: `INSTALLED_APPS` imports this package before
Django REST Framework may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_grip.contrib.rest_framework.mixins import StreamModelMixin

__all__ = ["StreamModelMixin"]


def __getattr__(name: str) -> Any:
    if name == "StreamModelMixin":
        from django_grip.contrib.rest_framework.mixins import StreamModelMixin

        return StreamModelMixin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
