"""Transports: the ways in which a granted stream reaches its client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.exceptions import ParseError

from django_grip.contrib.realtime.answers import opening
from django_grip.contrib.realtime.grants import Grant
from django_grip.contrib.realtime.longpolls import WAIT_MAX, polled
from django_grip.contrib.rest_framework.sockets import single

Transport: TypeAlias = Callable[[HttpRequest, Grant], HttpResponseBase]
"""What answers a request whose view granted a stream.

Whoever asks a view on somebody's behalf (a socket that multiplexes, a private link)
puts its own on the request, as `stream_transport`.
"""

PARAMETERS = frozenset({"client", "since", "snapshot", "ticket", "wait"})
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
    if getattr(request, "wscontext", None) is not None:
        return single
    return long_poll if "wait" in request.GET else server_sent_events


def server_sent_events(request: HttpRequest, grant: Grant) -> HttpResponseBase:
    """The stream as server-sent events."""
    return opening(request, grant, since(request))


def long_poll(request: HttpRequest, grant: Grant) -> HttpResponseBase:
    """The stream as one JSON answer at a time.

    Raises ParseError for a `wait` that is no number of seconds.
    """
    wait = request.GET["wait"]
    if not (wait.isascii() and wait.isdigit() and len(wait) < 9):
        wait = repr(wait[:20])
    elif int(wait) <= WAIT_MAX:
        return polled(request, grant, since(request), int(wait))
    raise ParseError(
        f"wait is a whole number of seconds from 0 to {WAIT_MAX}; got {wait}."
    )
