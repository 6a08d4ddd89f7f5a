"""Answers: pages of the event log as server-sent events, held by the proxy."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest, HttpResponse
from gripcontrol import Channel

from django_grip import set_hold_stream
from django_grip.contrib.realtime import conf, durable, sse
from django_grip.contrib.realtime.durable import Page
from django_grip.contrib.realtime.grants import Grant

CONTENT_TYPE = "text/event-stream"

FIRST_LINK = 2
"""Seconds after which a stream that has just begun is asked for: what was published
between this answer and the hold may have gone past it, and of several such holds the
proxy notices only the first.
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
            _hold(request, channel)
        return response
    page = log.read(channel, since)
    ready = _ready(
        id=page.position if since is None else None,
        channel=channel,
        position=page.position,
        gapless=log.link_path() is not None,
    )
    frames = [retry, ready, *_frames(page)]
    if since is None or page.reset is not None:
        frames += (sse.frame("snapshot", text) for text in snapshots(grant))
    response = HttpResponse(frames, content_type=CONTENT_TYPE)
    if request.method != "HEAD":
        log.opened(channel)
        _continue(request, page, FIRST_LINK)
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


def continuation(request: HttpRequest, page: Page) -> HttpResponse:
    """What a stream has missed, and how it goes on: all of its instruction again."""
    response = HttpResponse("".join(_frames(page)), content_type=CONTENT_TYPE)
    _continue(request, page, conf.link_timeout())
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


def _continue(request: HttpRequest, page: Page, timeout: int) -> None:
    log = durable.log
    link = log.link_path() if log is not None else None
    if page.next_path is not None:
        request.grip.start_instruct().set_next_link(page.next_path)  # type: ignore[attr-defined]
    elif link is None:
        _hold(request, page.channel)
    else:
        _hold(request, Channel(page.channel, page.position))
        request.grip.instruct.set_next_link(link, timeout=timeout)  # type: ignore[attr-defined]


def _hold(request: HttpRequest, channel: str | Channel) -> None:
    set_hold_stream(
        request,
        channel,
        keep_alive_data=sse.KEEP_ALIVE,
        keep_alive_timeout=conf.keep_alive(),
    )
