"""RealtimeSocket: one WebSocket for many streams, each granted by its own view."""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404
from django.utils.decorators import method_decorator
from django.views import View

from django_grip.contrib.rest_framework import asking
from django_grip.contrib.rest_framework.refusals import NotProxied
from django_grip.contrib.rest_framework.sockets import Ask, Denied, converse, reason_of
from django_grip.contrib.rest_framework.transports import Transport

logger = logging.getLogger("django_grip.rest_framework")


@method_decorator(login_not_required, name="dispatch")
class RealtimeSocket(View):
    """A WebSocket over which clients subscribe to streams by their URLs.

    `path("realtime/", RealtimeSocket.as_view())`. Anybody may open it: each stream is
    granted by its own view, which is asked as by a `GET` with the headers and cookies
    of the handshake, when it is subscribed to and again while it lasts. For what is
    said see docs/reference/websocket-protocol.md.
    """

    def dispatch(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        """Answer a request of a connection; 426 to others, 501 past the proxy."""
        if not getattr(request, "grip_proxied", False):
            return _plain(501, NotProxied.default_detail)
        if request.wscontext is None:  # type: ignore[attr-defined]
            response = _plain(426, "This is a WebSocket: connect with ws:// or wss://.")
            response["Upgrade"] = "websocket"
            return response
        return converse(request, _asker(request))


def _asker(request: HttpRequest) -> Ask:
    """What asks the views behind the URLs that the client of a request names."""

    def ask(url: str, transport: Transport, *, again: bool, user: Any) -> None:
        try:
            response = asking.ask(request, url, transport, user=user, again=again)
        except Resolver404:
            raise Denied(404, "No stream has this URL.") from None
        except Exception:
            # A boundary: the view is the user's, and one that fails is one of many.
            path = url.partition("?")[0]
            logger.exception("The view at %s failed to say whether it streams.", path)
            raise Denied(500, "The server failed.") from None
        if response.status_code != 200:
            raise Denied(response.status_code, reason_of(response))

    return ask


def _plain(status: int, reason: Any) -> HttpResponse:
    return HttpResponse(f"{reason}\n", status=status, content_type="text/plain")
