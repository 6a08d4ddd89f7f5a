"""Private links: the proxy asks here for more of one user's own stream.

The view is asked again at each request, for the user who opened the stream, and its
answer is that user's alone.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from django.http.response import HttpResponseBase
from django.urls import Resolver404, path, set_urlconf

from django_grip import conf
from django_grip.contrib.realtime import durable
from django_grip.contrib.realtime.answers import CONTENT_TYPE, continuation
from django_grip.contrib.realtime.grants import Grant
from django_grip.contrib.rest_framework.asking import ask
from django_grip.contrib.rest_framework.private_paths import opened
from django_grip.contrib.rest_framework.sessions import user_of
from django_grip.links import PRIVATE


@login_not_required
def next_events(request: HttpRequest, token: str) -> HttpResponseBase:
    """Continue a stream of one user, if its view still grants it.

    To a refusal the answer is 200 and holds nothing, so that the stream ends: anything
    else the proxy would ask again for half a minute, as it does when the view cannot
    tell (5xx).
    """
    request_: Any = request
    grip = request_.grip
    prefix = conf.prefix()
    if not grip.signed or len(grip.last) != 1:
        return _refused()
    [(name, since)] = grip.last.items()
    channel = name.removeprefix(prefix)
    found = opened(token, channel) if name.startswith(prefix) else None
    if found is None:
        return _refused()
    url, owner = found
    user = user_of(owner)
    log = durable.log
    if user is None or log is None:
        return _ended()

    is_granted = False

    def transport(asked: HttpRequest, grant: Grant) -> HttpResponse:
        nonlocal is_granted
        # The user's stream may be another one by now, or one for all.
        if grant.channel != channel or grant.link != "private":
            return _ended()
        is_granted = True
        log.opened(channel)
        return continuation(asked, grant, log.read(channel, since, trusted=True))

    request_.stream_owner = owner
    # Resolved so far were the links.
    request_.urlconf = settings.ROOT_URLCONF
    set_urlconf(None)
    try:
        response = ask(request, url, transport, user, again=True)
    except Resolver404:
        return _ended()
    if is_granted and response.status_code == 200:
        return response
    grip.instruct = None
    if response.status_code >= 500:
        return HttpResponse(status=response.status_code)
    return _ended()


def _ended() -> HttpResponse:
    return HttpResponse(content_type=CONTENT_TYPE)


def _refused() -> HttpResponse:
    response: Any = HttpResponseForbidden(
        "Only a GRIP proxy that is known by its key may ask here, for a stream of its "
        "own.\n",
        content_type="text/plain",
    )
    # Django would log the path.
    response._has_been_logged = True
    return response  # type: ignore[no-any-return]


urlpatterns = [path(f"{PRIVATE}<str:token>/", next_events)]
