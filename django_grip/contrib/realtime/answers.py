"""Answers: pages of the event log as server-sent events, held by the proxy."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from django.http import HttpRequest, HttpResponse
from gripcontrol import Channel

from django_grip import set_hold_stream
from django_grip.contrib.realtime import conf, durable, sse
from django_grip.contrib.realtime.channels import user_channel
from django_grip.contrib.realtime.durable import Page
from django_grip.contrib.realtime.grants import Grant

CONTENT_TYPE = "text/event-stream"

FIRST_LINK = 2
"""Seconds after which a stream that has just begun is asked for: what was published
between this answer and the hold may have gone past it, and of several such holds the
proxy notices only the first.
"""

NEXT_PAGE = 1
"""Seconds after which a private stream is asked for that has missed more than an answer
holds. Its path has no position in it, and a proxy that is given one would have to hold.
"""

SNAPSHOT_BYTES = 16_000
"""Bytes of rows in one `snapshot`, roughly: WebSocket messages have a limit."""


def opening(request: HttpRequest, grant: Grant, since: str | None) -> HttpResponse:
    """The beginning of a granted stream, from the position `since` on.

    Without an event log there are no positions, and the stream begins now. Who begins
    anew gets the snapshot, read after the position. A HEAD request gets the headers and
    is not held.
    """
    channel, log = grant.channel, durable.log
    least, most = conf.retry()
    retry = sse.retry(random.randint(round(least * 1000), round(most * 1000)))
    if log is None:
        frames = [retry, _ready(channel=channel, gapless=False)]
        frames += (sse.frame("snapshot", text) for text in snapshots(grant))
        response = HttpResponse(frames, content_type=CONTENT_TYPE)
        if request.method != "HEAD":
            _hold(request, grant, channel)
        return response
    page = _answerable(grant, log.read(channel, since))
    ready = _ready(
        id=page.position if since is None else None,
        channel=channel,
        position=page.position,
        gapless=_link_path(grant) is not None,
    )
    frames = [retry, ready, *_frames(page)]
    if since is None or page.reset is not None:
        frames += (sse.frame("snapshot", text) for text in snapshots(grant))
    response = HttpResponse(frames, content_type=CONTENT_TYPE)
    if request.method != "HEAD":
        log.opened(channel)
        _continue(request, grant, page, FIRST_LINK)
    return response


def snapshots(grant: Grant) -> Iterator[str]:
    """The rows a stream begins with, as JSON texts: `done` is true in the last one."""
    if grant.snapshot is None:
        return
    rows: list[str] = []
    size = 0
    for row in grant.snapshot():
        if rows and size + len(row) > SNAPSHOT_BYTES:
            yield _snapshot(grant.channel, rows, done=False)
            rows, size = [], 0
        rows.append(row)
        size += len(row)
    yield _snapshot(grant.channel, rows, done=True)


def _snapshot(channel: str, rows: list[str], *, done: bool) -> str:
    head = json.dumps({"op": "snapshot", "channel": channel, "done": done})
    return f'{head[:-1]},"rows":[{",".join(rows)}]}}'


def continuation(request: HttpRequest, grant: Grant, page: Page) -> HttpResponse:
    """What a stream has missed, and how it goes on: all of its instruction again."""
    response = HttpResponse("".join(_frames(page)), content_type=CONTENT_TYPE)
    _continue(request, grant, page, conf.link_timeout())
    return response


def _ready(id: str | None = None, **values: Any) -> str:
    return sse.frame("ready", json.dumps(values, separators=(",", ":")), id=id)


def _frames(page: Page) -> Iterator[str]:
    if page.reset is not None:
        data = {"channel": page.channel, "reason": page.reset}
        yield sse.frame(
            "reset", json.dumps(data, separators=(",", ":")), id=page.position
        )
    for event in page.events:
        if event.text:
            yield sse.frame(event.op, event.text, id=event.position)
        else:
            # A close that others got: this stream begins behind it.
            yield sse.mark(event.position)


def _link_path(grant: Grant) -> str | None:
    """The path at which the proxy asks for more of a stream; None: it does not ask."""
    path = None if durable.log is None else durable.log.link_path()
    return path if path is None or grant.link == "shared" else grant.link_path


def _answerable(grant: Grant, page: Page) -> Page:
    """A page that the stream can go on from.

    What does not fit one answer is asked for at a link: by all streams at pages of
    their own, by a private one at its own path. One that has no path fetches anew.
    """
    if page.next_path is None or grant.link == "shared" or _link_path(grant):
        return page
    log = durable.log
    position = page.position if log is None else log.read(page.channel, None).position
    return replace(page, position=position, events=(), reset="overflow", next_path=None)


def _continue(request: HttpRequest, grant: Grant, page: Page, timeout: int) -> None:
    if page.next_path is not None and grant.link == "shared":
        request.grip.start_instruct().set_next_link(page.next_path)  # type: ignore[attr-defined]
        return
    path = _link_path(grant)
    if path is None:
        _hold(request, grant, page.channel)
        return
    _hold(request, grant, Channel(page.channel, page.position))
    if page.next_path is not None:
        timeout = NEXT_PAGE
    elif page.is_behind:
        timeout = min(timeout, FIRST_LINK)
    request.grip.instruct.set_next_link(path, timeout=timeout)  # type: ignore[attr-defined]


def _hold(request: HttpRequest, grant: Grant, channel: str | Channel) -> None:
    channels = [channel]
    if grant.link == "private":
        channels.append(user_channel(grant.user))
    set_hold_stream(
        request,
        channels,
        keep_alive_data=sse.KEEP_ALIVE,
        keep_alive_timeout=conf.keep_alive(),
    )
