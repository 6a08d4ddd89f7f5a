"""System checks of stream views, found by walking the URLconf."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isfunction, unwrap
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured
from django.urls import get_resolver
from rest_framework.generics import GenericAPIView
from rest_framework.views import APIView

from django_grip import proxies
from django_grip.contrib.realtime.streams import ModelStream, registry
from django_grip.contrib.rest_framework.authorization import (
    MODES,
    audience_of,
    check_all_rows,
    check_mode,
    check_scope,
    is_declared,
    model_of,
)
from django_grip.contrib.rest_framework.mixins import StreamModelMixin
from django_grip.contrib.rest_framework.refusals import Refused
from django_grip.contrib.rest_framework.routes import parameters, stream_routes

OVERRIDABLE = frozenset({"get_stream_scope"})
"""Methods of the mixin that views are meant to define."""


def check_views(**kwargs: Any) -> list[CheckMessage]:
    """Check every routed StreamModelMixin view. E001-E010."""
    if not settings.ROOT_URLCONF:
        return []
    # Of each view the parameters of its lists: it may be routed more than once.
    views: dict[Any, set[str] | None] = {}
    for route, callback in stream_routes(get_resolver().url_patterns):
        named = views.setdefault(callback.cls, None)
        actions = getattr(callback, "actions", None) or {}
        if actions.get("get") == "stream_collection":
            views[callback.cls] = (named or set()) | {*parameters(route)}
    messages: list[CheckMessage] = []
    for view, named in views.items():
        messages += _check_bases(view)
        if not issubclass(view, GenericAPIView):
            continue
        messages += _check_declarations(view)
        if named is not None:
            messages += _check_list(view, named)
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


def _any_proxy() -> bool:
    try:
        return bool(proxies.configured())
    except ImproperlyConfigured:
        return True  # django_grip.E002 says what is wrong with them.


def _check_bases(view: Any) -> Iterator[CheckMessage]:
    """E001: a base or the class itself hides a method of the mixin."""
    mro = view.__mro__
    if not issubclass(view, GenericAPIView):
        yield Error(
            f"{view.__name__} has StreamModelMixin, but is no GenericViewSet.",
            hint="Derive it from GenericViewSet, or answer with stream_response().",
            obj=view,
            id="grip_rest_framework.E001",
        )
        return
    if mro.index(StreamModelMixin) > mro.index(APIView):
        hidden = ["the methods"]
    else:
        # `stream_collection = None` takes a route away.
        hidden = [
            name
            for name, method in vars(StreamModelMixin).items()
            if isfunction(method)
            and "stream" in name
            and name not in OVERRIDABLE
            and (own := getattr(view, name)) is not None
            and unwrap(own) is not method  # extend_schema wraps it.
        ]
    if hidden:
        yield Error(
            f"{view.__name__} hides {', '.join(hidden)} of StreamModelMixin.",
            hint="List StreamModelMixin before the viewset's other bases, and give "
            "your own methods other names.",
            obj=view,
            id="grip_rest_framework.E001",
        )


def _check_declarations(view: Any) -> Iterator[CheckMessage]:
    """E007: a scope without its value. E008: mode. E009: snapshots. E010: link."""
    name = view.__name__
    is_own = view.get_stream_scope is not StreamModelMixin.get_stream_scope
    if view.stream_scope is not None and not is_own:
        yield Error(
            f"{name} has stream_scope = {view.stream_scope!r}, but no "
            "get_stream_scope().",
            hint="Define get_stream_scope(self): it returns the value of that scope "
            "whose rows the caller, self.request.user, may see.",
            obj=view,
            id="grip_rest_framework.E007",
        )
    elif is_own and not is_declared(view):
        yield Error(
            f"{name} defines get_stream_scope(), but no stream_scope: it is not asked.",
            hint="Name the scope: stream_scope = '…'.",
            obj=view,
            id="grip_rest_framework.E007",
        )
    if view.stream_mode not in MODES:
        yield Error(
            f"stream_mode of {name} is {view.stream_mode!r}.",
            hint=f"Set one of {', '.join(map(repr, MODES))}.",
            obj=view,
            id="grip_rest_framework.E008",
        )
    if view.stream_link not in ("shared", "private", None):
        yield Error(
            f"stream_link of {name} is {view.stream_link!r}.",
            hint="Set one of 'shared', 'private' and None.",
            obj=view,
            id="grip_rest_framework.E010",
        )
    limit = view.stream_snapshot_limit
    if not isinstance(limit, int) or limit < 1:
        yield Error(
            f"stream_snapshot_limit of {name} is {limit!r}.",
            hint="Set how many rows a stream may begin with, e.g. 1_000.",
            obj=view,
            id="grip_rest_framework.E009",
        )
    if view.stream_snapshot and view.stream_mode == "refresh":
        yield Error(
            f'{name} has stream_snapshot, but stream_mode = "refresh" says only that '
            "there is something new.",
            hint="Remove stream_snapshot: clients GET the rows.",
            obj=view,
            id="grip_rest_framework.E009",
        )


def _check_list(view: Any, named: set[str]) -> Iterator[CheckMessage]:
    """E003: the list may not stream."""
    try:
        check_all_rows(view, sorted(named))
    except Refused as exc:
        yield Error(str(exc), obj=view, id="grip_rest_framework.E003")


def _check_model(view: Any) -> Iterator[CheckMessage]:
    """E002: no stream. E004: no fitting audience. E006: no such scope. E008: mode."""
    model = model_of(view)
    if model is None:
        return
    stream = registry.get(model)
    if stream is None:
        yield Error(
            f"{view.__name__} streams {model._meta.label}, which is not registered "
            "for realtime.",
            hint="Decorate the model with @realtime, or register a ModelStream.",
            obj=view,
            id="grip_rest_framework.E002",
        )
        return
    try:
        check_scope(stream, view)
    except Refused as exc:
        yield Error(str(exc), obj=view, id="grip_rest_framework.E006")
    if view.stream_mode in MODES:
        try:
            check_mode(stream, view)
        except Refused as exc:
            yield Error(str(exc), obj=view, id="grip_rest_framework.E008")
    if view.stream_mode != "refresh":
        yield from _check_audience(view, stream)


def _check_audience(view: Any, stream: ModelStream) -> Iterator[CheckMessage]:
    if view.get_serializer_class is not GenericAPIView.get_serializer_class:
        return  # Decided for each request, so it is checked for each.
    try:
        if view.serializer_class is None and not stream.is_thin:
            return  # DRF itself raises at the first request.
        audience_of(stream, view.stream_audience, view.serializer_class)
    except Refused as exc:
        yield Error(str(exc), obj=view, id="grip_rest_framework.E004")
    except ImproperlyConfigured:
        pass  # grip_realtime.E002 says which serializer cannot be imported.
