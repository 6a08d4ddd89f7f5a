"""Links: where the proxy asks what its streams have missed.

One path for all: the channel and the position come from the proxy's own Grip-Last, so
requests of many streams of one channel are one request. GripMiddleware takes requests
with these paths here, whatever the project's URLconf says.
"""

from __future__ import annotations

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from django.urls import path

from django_grip import conf
from django_grip.contrib.eventlog import closing, history
from django_grip.contrib.realtime.answers import CONTENT_TYPE, continuation
from django_grip.contrib.realtime.channels import NAME_MAX
from django_grip.contrib.realtime.durable import Page
from django_grip.contrib.realtime.grants import Grant
from django_grip.contrib.realtime.streams import alias_of
from django_grip.headers import check_channel
from django_grip.links import NEXT, PAGE


@login_not_required
def next_events(request: HttpRequest) -> HttpResponse:
    """Continue the streams of one channel after what its proxy saw last."""
    grip = request.grip  # type: ignore[attr-defined]
    prefix = conf.prefix()
    positions = {
        name.removeprefix(prefix): last
        for name, last in grip.last.items()
        if name.startswith(prefix)
    }
    if not grip.signed or len(positions) != 1:
        return _refused()
    [(channel, since)] = positions.items()
    try:
        check_channel(channel)
    except ValueError:
        return _refused()
    if len(channel) > NAME_MAX:
        return _refused()
    # Nobody may remember that it was opened.
    closing.opened(alias_of(channel), channel)
    return _continued(request, history.read(channel, since, trusted=True))


@login_not_required
def next_page(request: HttpRequest, token: str) -> HttpResponse:
    """Continue a stream whose last answer did not hold everything."""
    grip = request.grip  # type: ignore[attr-defined]
    page = history.read_page(token) if grip.proxied else None
    return _refused() if page is None else _continued(request, page)


def _continued(request: HttpRequest, page: Page) -> HttpResponse:
    """What a stream has missed; one that has missed its close ends here, and is told
    the rest when its client comes back and may have it.
    """
    if page.is_closed:
        return HttpResponse(content_type=CONTENT_TYPE)
    return continuation(request, Grant(channel=page.channel), page)


def _refused() -> HttpResponse:
    return HttpResponseForbidden(
        "Only a GRIP proxy that is known by its key may ask here, for a stream of its "
        "own.\n",
        content_type="text/plain",
    )


urlpatterns = [
    path(NEXT, next_events),
    path(f"{PAGE}<str:token>/", next_page),
]
