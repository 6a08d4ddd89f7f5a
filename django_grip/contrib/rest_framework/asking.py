"""Asking: a view is asked for a stream on somebody's behalf, as a GET would ask it."""

from __future__ import annotations

from copy import copy
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest, QueryDict
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

from django_grip.contrib.rest_framework.mixins import StreamModelMixin
from django_grip.contrib.rest_framework.transports import Transport

_ACTIONS = ("stream_collection", "stream_object")


def ask(
    request: HttpRequest, url: str, transport: Transport, user: Any = None
) -> HttpResponseBase:
    """What the view at a stream's URL answers to a GET with the headers of `request`.

    `url` is a path with its query, as clients of this site know it; `transport` answers
    if the view grants the stream. With `user` the view takes that one for
    authenticated; else it authenticates by the headers. Middleware is not asked again.
    Raises Resolver404 for a URL that is no stream of a StreamModelMixin.
    """
    parts = urlsplit(url)
    path = parts.path
    script = request.META.get("SCRIPT_NAME", "")
    if parts.scheme or parts.netloc or not path.startswith(f"{script}/"):
        raise Resolver404({"path": path})
    inner = path.removeprefix(script)
    match = resolve(inner, urlconf=getattr(request, "urlconf", None))
    view = getattr(match.func, "cls", None)
    actions = getattr(match.func, "actions", None) or {}
    is_stream = isinstance(view, type) and issubclass(view, StreamModelMixin)
    if not is_stream or actions.get("get") not in _ACTIONS:
        raise Resolver404({"path": path})
    asked: Any = copy(request)
    asked.method = "GET"
    asked.META = {
        name: value
        for name, value in request.META.items()
        if name not in ("CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_LAST_EVENT_ID")
    } | {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": inner,
        "QUERY_STRING": parts.query,
    }
    # A cached property of the request that was copied.
    asked.__dict__.pop("headers", None)
    asked.path, asked.path_info = path, inner
    asked.GET = QueryDict(parts.query)
    asked.POST = QueryDict()
    asked._body = b""
    asked.resolver_match = match
    asked.wscontext = None
    asked.stream_transport = transport
    if user is not None:
        asked.user = asked._force_auth_user = user
    response = match.func(asked, *match.args, **match.kwargs)
    if hasattr(response, "render") and not response.is_rendered:
        response.render()
    answered: HttpResponseBase = response
    return answered
