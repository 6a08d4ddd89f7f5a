"""Routes: where the URLconf has views with streams."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.urls import URLPattern, URLResolver

from django_grip.contrib.rest_framework.mixins import StreamModelMixin

_PARAMETER = re.compile(r"<(?:[^<>:]+:)?(\w+)>")


def stream_routes(
    patterns: Iterable[URLPattern | URLResolver], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """The routes of StreamModelMixin views among URL patterns, with their callbacks."""
    for pattern in patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from stream_routes(pattern.url_patterns, route)
            continue
        view = getattr(pattern.callback, "cls", None)
        if isinstance(view, type) and issubclass(view, StreamModelMixin):
            yield route, pattern.callback


def parameters(route: str) -> list[str]:
    """The names of a route's parameters."""
    return _PARAMETER.findall(route)
