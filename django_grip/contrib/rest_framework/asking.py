"""Asking: a view is asked for a stream on somebody's behalf, as a GET would ask it."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from django.core.handlers.base import BaseHandler
from django.http import HttpRequest, QueryDict
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve
from django.utils.encoding import repercent_broken_unicode

from django_grip.contrib.rest_framework.copies import as_get
from django_grip.contrib.rest_framework.mixins import StreamModelMixin
from django_grip.contrib.rest_framework.transports import Transport

_ACTIONS = ("stream_collection", "stream_object")


def ask(
    request: HttpRequest,
    url: str,
    transport: Transport,
    user: Any = None,
    *,
    again: bool = False,
) -> HttpResponseBase:
    """What the view at a stream's URL answers to a GET with the headers of `request`.

    `url` is a path with its query, as clients of this site know it; `transport` answers
    if the view grants the stream. With `user` the view takes that one for
    authenticated; else it authenticates by the headers. `again` says that it granted
    the stream before: it is not throttled then. Middleware is not asked again.
    Raises Resolver404 for a URL that is no stream of a StreamModelMixin.
    """
    parts = urlsplit(url)
    # As a request's path is decoded: see django.core.handlers.wsgi.
    path = repercent_broken_unicode(unquote_to_bytes(parts.path)).decode()
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
    asked = as_get(request)
    asked.META.pop("HTTP_LAST_EVENT_ID", None)
    asked.META |= {"PATH_INFO": inner, "QUERY_STRING": parts.query}
    asked.path, asked.path_info = path, inner
    asked.GET = QueryDict(parts.query)
    asked.resolver_match = match
    asked.wscontext = None
    asked.stream_transport, asked.stream_again = transport, again
    if user is not None:
        asked.user = asked._force_auth_user = user
    # A refusal rolls back: its own transaction, not that of who asks for several.
    view_func = BaseHandler().make_view_atomic(match.func)
    response: Any = view_func(asked, *match.args, **match.kwargs)
    if hasattr(response, "render") and not response.is_rendered:
        response.render()
    answered: HttpResponseBase = response
    return answered
