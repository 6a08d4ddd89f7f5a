"""Private paths: where the proxy asks for more of one user's own stream.

A path says whose it is and is sealed. Whoever else finds it can do nothing with it: a
request has to name the position that the proxy saw last, and a proxy takes that from no
client.
"""

from __future__ import annotations

import time

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, QueryDict
from django.urls import get_script_prefix
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from django_grip.contrib.realtime import conf
from django_grip.contrib.realtime.grants import Link
from django_grip.contrib.rest_framework import seals
from django_grip.contrib.rest_framework.sessions import Owner, owner_of
from django_grip.contrib.rest_framework.transports import PARAMETERS
from django_grip.links import PRIVATE

AGE = 3600
"""Seconds for which a stream has the same path. It is good for as long again: each
answer gives the one of its own time, and the proxy asks every LINK_TIMEOUT.
"""

_PURPOSE = "private link"


def private_path(link: Link, request: Request, channel: str) -> str | None:
    """The path for a stream of `channel` that is being granted; None unless it is
    private.

    Raises NotAuthenticated where nobody is there whose own it could be.
    """
    if link in ("shared", None):
        return None
    if link != "private":
        raise ImproperlyConfigured(
            f"stream_link is 'shared', 'private' or None; got {link!r}."
        )
    owner = owner_of(request._request, request.user)
    if owner is None:
        raise NotAuthenticated("This stream is a user's own: log in.")
    value = [_url(request._request), owner, _time()]
    token = seals.seal(_PURPOSE, value, channel)
    return f"{get_script_prefix()}{PRIVATE}{token}/"


def opened(token: str, channel: str) -> tuple[str, Owner] | None:
    """The URL of the stream and whose it is; None for a token that is forged, too old,
    or of another channel.
    """
    found = seals.unseal(_PURPOSE, token, channel)
    if found is None:
        return None
    url, known, at = found
    return (url, Owner(*known)) if _time() - at in (0, 1) else None


def _time() -> int:
    """The time in ages."""
    return int(time.time() // max(AGE, 2 * conf.link_timeout()))


def _url(request: HttpRequest) -> str:
    """The URL of a stream without what was said of its beginning."""
    query = QueryDict(request.META.get("QUERY_STRING", ""), mutable=True)
    for name in PARAMETERS:
        query.pop(name, None)
    url = request.get_full_path().partition("?")[0]
    return f"{url}?{query.urlencode()}" if query else url
