"""The port publishers talk to: `POST /publish/`, answered as Pushpin does."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from django_grip.contrib.localproxy.hub import Hub
from django_grip.contrib.localproxy.items import ItemError, parse_items
from django_grip.contrib.localproxy.notices import Notices

BODY_MAX = 1_000_000
"""Bytes of a publish body, as in Pushpin."""

ITEMS_AT_ONCE = 10
"""Items published before the streams get time to write: far below Session's queue."""


class Control:
    """Takes publishes for `hub`. Use `application()` once."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._notices = Notices()

    def application(self) -> web.Application:
        """The aiohttp application of the control port."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        # The raw path: with a query string it is another one, and Pushpin says 404.
        if request.raw_path == "/":
            response = _answer_text(200, "django_grip local proxy")
        elif request.raw_path in ("/publish", "/publish/"):
            response = await self._publish(request)
        else:
            response = _answer_text(404, "Not Found")
        response.force_close()
        return response

    async def _publish(self, request: web.Request) -> web.Response:
        if request.method != "POST":
            response = _answer_text(405, "Method not allowed: POST.")
            response.headers["Allow"] = "POST"
            return response
        answer_type = _accepted_type(request.headers.get("Accept", ""))
        if answer_type is None:
            return _answer_text(
                406,
                "Not Acceptable. Supported formats are text/plain"
                " and application/json.",
            )
        if request.content_length is None:
            return _answer_text(411, "Length Required.")
        if request.content_length > BODY_MAX:
            return _answer_text(400, "Request body too large.")
        try:
            items = parse_items(await request.content.read(-1))
        except ItemError as exc:
            return _answer_text(400, str(exc))

        for number, item in enumerate(items, start=1):
            self._notices.ignored(item.ignored)
            self._hub.publish(item)
            if number % ITEMS_AT_ONCE == 0:
                await asyncio.sleep(0)
        if answer_type == "application/json":
            return web.json_response({"message": "Published"}, dumps=_compact)
        return _answer_text(200, "Published")


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _accepted_type(accept: str) -> str | None:
    """The first of our two content types that the client takes; None if neither."""
    if not accept.strip():
        return "text/plain"
    for element in accept.split(","):
        match element.partition(";")[0].strip().lower():
            case "text/plain" | "text/*" | "*/*":
                return "text/plain"
            case "application/json" | "application/*":
                return "application/json"
    return None


def _answer_text(status: int, text: str) -> web.Response:
    # No charset, as Pushpin: some clients compare the whole header.
    return web.Response(
        status=status, body=text.encode() + b"\n", content_type="text/plain"
    )
