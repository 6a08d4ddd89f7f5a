"""Copies: a request as the GET that it stands for, so that a view can be asked."""

from __future__ import annotations

from copy import copy
from typing import Any

from django.http import HttpRequest, QueryDict


def as_get(request: HttpRequest) -> Any:
    """A shallow copy of a request as a GET of the same URL, without a body.

    The events of a WebSocket come as POST, and views decide by the method.
    """
    asked: Any = copy(request)
    asked.method = "GET"
    asked.META = {
        name: value
        for name, value in request.META.items()
        if name not in ("CONTENT_TYPE", "CONTENT_LENGTH")
    } | {"REQUEST_METHOD": "GET"}
    # A cached property of the request that was copied.
    asked.__dict__.pop("headers", None)
    asked.POST = QueryDict()
    asked._body = b""
    asked.resolver_match = request.resolver_match
    return asked
