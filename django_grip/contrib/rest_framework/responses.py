"""Responses: the streams of models for views that are no viewsets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from rest_framework.exceptions import APIException
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from django_grip.contrib.realtime.announcements import Target, channel_for
from django_grip.contrib.realtime.grants import Grant, Link
from django_grip.contrib.rest_framework.refusals import NotProxied
from django_grip.contrib.rest_framework.transports import answer
from django_grip.headers import check_channel


def stream_response(
    request: HttpRequest | Request,
    target: Target,
    *,
    scope: tuple[str, Any] | None = None,
    audience: str | None = None,
    link: Link = "shared",
) -> HttpResponseBase:
    """Answer a request with a stream: as events, a long-poll or over a WebSocket.

    `target` is a model class (all its rows, or with `scope=("tenant", 7)` those of
    that value), an instance, or the name of a channel without GRIP_PREFIX. **Whether
    this client may see it is for you to decide before**, also when it comes back.
    A request that came through no GRIP proxy is answered 501.

    `link` "private" has the view asked again while the stream is open, which only
    StreamModelMixin can do; here it is "shared", or None for streams that are not
    healed. Raises ImproperlyConfigured for a model that is not registered, and
    ValueError for a scope, a value or an audience that its stream does not have.
    """
    if link not in ("shared", None):
        raise ValueError(f"link is 'shared' or None here; got {link!r}.")
    if isinstance(target, str):
        if scope is not None or audience is not None:
            raise ValueError("A channel's name says all: no scope, no audience.")
        check_channel(target)
        channel = target
    else:
        name, value = scope if scope is not None else (None, None)
        channel = channel_for(target, name, value, audience)
    plain = request._request if isinstance(request, Request) else request
    user = getattr(getattr(request, "user", None), "pk", None)
    try:
        if not getattr(plain, "grip_proxied", False):
            raise NotProxied
        return answer(plain, Grant(channel=channel, link=link, user=user))
    except APIException as exc:
        if isinstance(request, Request):
            raise
        return JsonResponse({"detail": exc.detail}, status=exc.status_code)


async def astream_response(
    request: HttpRequest | Request, target: Target, **kwargs: Any
) -> HttpResponseBase:
    """See stream_response()."""
    return await sync_to_async(stream_response)(request, target, **kwargs)


class StreamNegotiation(BaseContentNegotiation):
    """For views of DRF that answer with a stream: whatever is accepted is fine.

    An EventSource accepts `text/event-stream` only, which no renderer makes: with
    DRF's own negotiation it gets 406.
    """

    def select_parser(
        self, request: Request, parsers: Iterable[BaseParser]
    ) -> BaseParser | None:
        """The first one: streams have no body."""
        return next(iter(parsers), None)

    def select_renderer(
        self,
        request: Request,
        renderers: Iterable[BaseRenderer],
        format_suffix: str | None = None,
    ) -> tuple[BaseRenderer, str]:
        """What refusals are written with."""
        return JSONRenderer(), JSONRenderer.media_type
