"""Clients: what one calls itself, so that it knows its own changes again."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from django.http import HttpRequest
from rest_framework.exceptions import ParseError
from rest_framework.permissions import SAFE_METHODS

from django_grip.contrib.realtime.contexts import actor

NAME_MAX = 64
"""Characters of a client's name, printable ASCII."""

_HEADER = "X-Realtime-Client"
_PARAMETER = "client"


def acting(request: HttpRequest) -> AbstractContextManager[None]:
    """Marks what is changed inside with the client that asks for it, if it says so."""
    name = _name(request, takes_parameter=request.method not in SAFE_METHODS)
    return actor(name) if name and _is_valid(name) else nullcontext()


def check(request: HttpRequest, *, takes_parameter: bool) -> None:
    """Raise ParseError for a name that events cannot carry.

    The parameter is ours on writes and streams: elsewhere it may be a filter.
    """
    name = _name(request, takes_parameter=takes_parameter)
    if name and not _is_valid(name):
        raise ParseError(
            f"{_HEADER}, or the parameter {_PARAMETER}, is up to {NAME_MAX} printable "
            "ASCII characters."
        )


def _name(request: HttpRequest, *, takes_parameter: bool) -> str | None:
    name = request.headers.get(_HEADER)
    if name is None and takes_parameter:
        return request.GET.get(_PARAMETER)
    return name


def _is_valid(name: str) -> bool:
    return name.isascii() and name.isprintable() and len(name) <= NAME_MAX
