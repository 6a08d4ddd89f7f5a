"""Transports: the ways in which a granted stream reaches its client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from django_grip.contrib.realtime.answers import opening
from django_grip.contrib.realtime.grants import Grant

Transport: TypeAlias = Callable[[HttpRequest, Grant], HttpResponseBase]
"""What answers a request whose view granted a stream.

Whoever asks a view on somebody's behalf (a socket that multiplexes, a private link)
puts its own on the request, as `stream_transport`.
"""

PARAMETERS = frozenset({"since", "snapshot", "ticket", "wait"})
"""Query parameters of a stream's URL. Others are refused: a stream is not filtered."""


def answer(request: HttpRequest, grant: Grant) -> HttpResponseBase:
    """The answer to a request for this stream, in the way it asks for."""
    transport: Transport = getattr(request, "stream_transport", None) or _chosen(
        request
    )
    return transport(request, grant)


def since(request: HttpRequest) -> str | None:
    """The position a client has come to, as far as it says."""
    return request.headers.get("Last-Event-ID") or request.GET.get("since") or None


def _chosen(request: HttpRequest) -> Transport:
    return server_sent_events


def server_sent_events(request: HttpRequest, grant: Grant) -> HttpResponseBase:
    """The stream as server-sent events."""
    return opening(request, grant, since(request))
