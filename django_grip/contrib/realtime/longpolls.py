"""Long-polls: a request that is held until there is something to answer it with."""

from __future__ import annotations

import json
from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from gripcontrol import Channel

from django_grip import conf, set_hold_longpoll
from django_grip.contrib.realtime import durable
from django_grip.contrib.realtime.answers import snapshots
from django_grip.contrib.realtime.channels import user_channel
from django_grip.contrib.realtime.grants import Grant
from django_grip.items import ANSWER_TYPE, answer

WAIT_MAX = 60
"""Seconds for which a request may be held: what is between drops those of more."""


WAIT_BEHIND = 5
"""Seconds for the same while events are being published that the proxy may have had
before this request: it then waits for the next one. Proxies hold no shorter.
"""


def polled(
    request: HttpRequest, grant: Grant, since: str | None, wait: int
) -> HttpResponse:
    """What came on a granted stream after the position `since`, as one JSON object.

    If there is nothing yet, the proxy holds the request for `wait` seconds; 0 and a
    HEAD request are not held. Who has no position is told where the stream stands, at
    once, and asks again from there. Without an event log there are no positions: the
    answer is the next event, and what comes between two requests is gone.
    """
    channel, log = grant.channel, durable.log
    if log is None:
        events = list(snapshots(grant))
        held: str | Channel | None = None if events else channel
        position = None
    else:
        seen = _seen(request, channel)
        since = seen or since
        page = log.read(channel, since, trusted=seen is not None)
        position = page.position
        events = [event.text for event in page.events if event.text]
        if page.reset is not None:
            events.append(_reset(channel, page.reset))
        if since is None or page.reset is not None:
            events += snapshots(grant)
        held = None
        if page.is_behind:
            wait = min(wait, WAIT_BEHIND)
        if since is not None and not events and page.next_path is None:
            # Who cannot be trusted to say what it saw last is not asked to compare.
            is_trusted = log.link_path() is not None
            held = Channel(channel, position) if is_trusted else channel
    if held is not None and wait > 0 and request.method != "HEAD":
        if log is not None:
            log.opened(channel)
        _hold(request, grant, held, wait)
    return _response(events, position)


def _seen(request: HttpRequest, channel: str) -> str | None:
    """The position that the proxy saw last on a request that it makes again."""
    grip = request.grip  # type: ignore[attr-defined]
    last: str | None = grip.last.get(conf.prefix() + channel)
    return last if grip.signed else None


def _hold(
    request: HttpRequest, grant: Grant, channel: str | Channel, wait: int
) -> None:
    channels: list[str | Channel] = [channel]
    if grant.link == "private" and grant.user is not None:
        channels.append(user_channel(grant.user))
    set_hold_longpoll(request, channels, timeout=wait)


def _reset(channel: str, reason: str) -> str:
    return json.dumps({"op": "reset", "channel": channel, "reason": reason})


def _response(events: Iterable[str], position: str | None) -> HttpResponse:
    body = answer(f"[{','.join(events)}]", position)
    response = HttpResponse(body, content_type=ANSWER_TYPE)
    response["Cache-Control"] = "no-store"
    return response
