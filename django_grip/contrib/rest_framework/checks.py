"""System checks of stream views, found by walking the URLconf."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.generics import GenericAPIView

from django_grip import proxies
from django_grip.contrib.realtime.streams import registry
from django_grip.contrib.rest_framework.authorization import (
    Refused,
    audience_of,
    check_all_rows,
)
from django_grip.contrib.rest_framework.mixins import StreamModelMixin
from django_grip.contrib.rest_framework.routes import stream_routes


def check_views(**kwargs: Any) -> list[CheckMessage]:
    """Check every routed StreamModelMixin view. E001-E005, W001."""
    if not settings.ROOT_URLCONF:
        return []
    views = dict.fromkeys(stream_views(get_resolver().url_patterns))
    messages: list[CheckMessage] = []
    for view in views:
        messages += _check_bases(view)
        messages += _check_model(view)
    if views and not _any_proxy():
        messages.append(
            Error(
                "Views have streams, but no GRIP proxy is configured: every stream is "
                "answered 501.",
                hint="Set GRIP_URL, e.g. GRIP_URL = 'http://localhost:5561?key=…'.",
                id="grip_rest_framework.E005",
            )
        )
    return messages


def stream_views(
    patterns: Iterable[URLPattern | URLResolver],
) -> Iterator[type[GenericAPIView[Any]]]:
    """The view classes with streams among URL patterns, once for each route."""
    for _, callback in stream_routes(patterns):
        yield callback.cls


def _any_proxy() -> bool:
    try:
        return bool(proxies.configured())
    except ImproperlyConfigured:
        return True  # django_grip.E002 says what is wrong with them.


def _check_bases(view: type[GenericAPIView[Any]]) -> list[CheckMessage]:
    """E001: a base or the class itself hides a method of the mixin."""
    hidden = [
        name
        for name in (*_STREAM_METHODS, "initialize_request")
        if getattr(view, name) is not getattr(StreamModelMixin, name)
    ]
    if not hidden:
        return []
    return [
        Error(
            f"{view.__name__} hides {', '.join(hidden)} of StreamModelMixin.",
            hint="List StreamModelMixin before the viewset's other bases, and give "
            "your own methods other names.",
            obj=view,
            id="grip_rest_framework.E001",
        )
    ]


_STREAM_METHODS = ("stream_collection", "stream_object")


def _check_model(view: type[GenericAPIView[Any]]) -> list[CheckMessage]:
    """E002: no stream. E003: the list may not stream. E004: no fitting audience."""
    messages: list[CheckMessage] = []
    try:
        check_all_rows(view)
    except Refused as exc:
        messages.append(Error(str(exc), obj=view, id="grip_rest_framework.E003"))
    if view.queryset is None:
        return messages
    model = view.queryset.model
    stream = registry.get(model)
    if stream is None:
        messages.append(
            Error(
                f"{view.__name__} streams {model._meta.label}, which is not registered "
                "for realtime.",
                hint="Decorate the model with @realtime, or register a ModelStream.",
                obj=view,
                id="grip_rest_framework.E002",
            )
        )
        return messages
    if view.get_serializer_class is not GenericAPIView.get_serializer_class:
        return messages  # Decided for each request, so it is checked for each.
    if view.serializer_class is None and not stream.is_thin:
        return messages  # DRF itself raises at the first request.
    try:
        audience_of(
            stream,
            view.stream_audience,  # type: ignore[attr-defined]
            view.serializer_class,
        )
    except Refused as exc:
        messages.append(Error(str(exc), obj=view, id="grip_rest_framework.E004"))
    except ImproperlyConfigured:
        pass  # grip_realtime.E002 says which serializer cannot be imported.
    return messages
