"""Transports: a channel to a held response. Server-sent events for now."""

from __future__ import annotations

import json
import random

from django.http import HttpRequest, HttpResponse

from django_grip import set_hold_stream
from django_grip.contrib.realtime import conf, sse


def event_stream(request: HttpRequest, channel: str) -> HttpResponse:
    """Answer with the beginning of an SSE stream, held on `channel`.

    A HEAD request gets the headers and is not held.
    """
    least, most = conf.retry()
    retry = random.randint(round(least * 1000), round(most * 1000))
    ready = json.dumps({"channel": channel, "gapless": False}, separators=(",", ":"))
    response = HttpResponse(
        sse.retry(retry) + sse.frame("ready", ready),
        content_type="text/event-stream",
    )
    if request.method != "HEAD":
        set_hold_stream(
            request,
            channel,
            keep_alive_data=sse.KEEP_ALIVE,
            keep_alive_timeout=conf.keep_alive(),
        )
    return response
