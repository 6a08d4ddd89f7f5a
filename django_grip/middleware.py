"""GripMiddleware: reads what the proxy says, writes what the view asks of it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import (
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseBase,
    HttpResponseForbidden,
)

from django_grip import conf, headers, links, proxies, roundtrip
from django_grip.holds import GripData, GripInstruct
from django_grip.websocket import WebSocketContext, is_foreign
from django_grip.websocket_events import CONTENT_TYPE, WebSocketEvent, decode, encode
from django_grip.websocket_events import close_content as close

logger = logging.getLogger("django_grip.middleware")


class GripMiddleware:
    """Puts `request.grip` on each request and Grip-* headers on held responses.

    Place it near the top of MIDDLEWARE. The thinking is in plain methods that do no
    I/O, so sync and async requests share them without a thread hop.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self,
        get_response: Callable[
            [HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]
        ],
    ) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
            # Django takes a plain one to a worker thread, on every request.
            self.process_view = self._aprocess_view  # type: ignore[assignment,method-assign]

    def __call__(
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self.__acall__(request)
        if (rejection := self.process_request(request)) is not None:
            return rejection
        return self.process_response(request, self.get_response(request))  # type: ignore[arg-type]

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        if (rejection := self.process_request(request)) is not None:
            return rejection
        return self.process_response(request, await self.get_response(request))  # type: ignore[misc]

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        """Set `request.grip`, `request.wscontext` and the old `grip_proxied` and
        `grip_signed`. Returns an answer for what is not even understood.
        """
        meta = request.META
        token = meta.get("HTTP_GRIP_SIG")
        proxied, signed = proxies.trust(token) if token else (False, False)
        grip = GripData(proxied, signed)
        request.grip = grip  # type: ignore[attr-defined]
        request.wscontext = None  # type: ignore[attr-defined]
        request.grip_proxied = proxied  # type: ignore[attr-defined]
        request.grip_signed = signed  # type: ignore[attr-defined]
        if token:
            if roundtrip.META_KEY in meta:
                answer = _seen(request, token)
                if answer is not None:
                    return answer
            if proxied:
                links.route(request)
            elif proxies.is_expected():
                return None
            # The proxy decodes and holds: a compressed answer could not be continued.
            meta.pop("HTTP_ACCEPT_ENCODING", None)
        elif proxies.is_expected():
            return None
        if features := meta.get("HTTP_GRIP_FEATURE"):
            grip.features = headers.parse_features(features)
        if last := meta.get("HTTP_GRIP_LAST"):
            grip.last = headers.parse_last(last)
        if request.method == "POST" and _is_websocket(meta.get("CONTENT_TYPE", "")):
            return self._begin_websocket(request)
        return None

    def _begin_websocket(self, request: HttpRequest) -> HttpResponseBase | None:
        meta = request.META
        try:
            events = decode(request.body)
        except ValueError as exc:
            logger.warning("Malformed WebSocket events: %s", exc)
            return HttpResponseBadRequest("Error parsing WebSocket events.\n")
        if not _is_text(events):
            answer = encode([WebSocketEvent("CLOSE", close(1007, "not UTF-8"))])
            return HttpResponse(answer, content_type=CONTENT_TYPE)
        offered = meta.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "").split(",")
        context = WebSocketContext(
            meta.get("HTTP_CONNECTION_ID"),
            {
                name.removeprefix("HTTP_META_").replace("_", "-").lower(): value
                for name, value in meta.items()
                if name.startswith("HTTP_META_")
            },
            events,
            grip_prefix=conf.prefix(),
            subprotocols=[name.strip() for name in offered if name.strip()],
        )
        if context.is_opening() and is_foreign(request):
            logger.warning(
                "A WebSocket with cookies from a foreign Origin was refused."
            )
            return HttpResponseForbidden(
                "The Origin of this WebSocket is not trusted.\n",
                content_type="text/plain",
            )
        request.wscontext = context  # type: ignore[attr-defined]
        # The events come from the proxy, and their Origin was checked at OPEN.
        request.csrf_processing_done = True  # type: ignore[attr-defined]
        return None

    def process_view(
        self, request: HttpRequest, view_func: Any, view_args: Any, view_kwargs: Any
    ) -> HttpResponseBase | None:
        """Answer 400 to what a `websocket_only` view does not take."""
        if getattr(view_func, "websocket_only", False) and request.wscontext is None:  # type: ignore[attr-defined]
            return HttpResponseBadRequest("Request must contain WebSocket events.\n")
        return None

    async def _aprocess_view(
        self, request: HttpRequest, view_func: Any, view_args: Any, view_kwargs: Any
    ) -> HttpResponseBase | None:
        return GripMiddleware.process_view(
            self, request, view_func, view_args, view_kwargs
        )

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Turn the view's instruction into headers, if the proxy is to see them.

        A direct request gets no Grip-* header as soon as a proxy is configured; with
        GRIP_PROXY_REQUIRED it gets 501 instead of a stream that ends at once.
        """
        context: WebSocketContext | None = request.wscontext  # type: ignore[attr-defined]
        if context is not None:
            return context.response(response)
        grip: GripData = request.grip  # type: ignore[attr-defined]
        if grip.instruct is None:
            return response
        if not grip.proxied and conf.proxy_required():
            return HttpResponse("Not Implemented\n", status=501)
        if grip.proxied or not proxies.is_expected():
            _apply(grip.instruct, response)
        return response


def _is_websocket(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == CONTENT_TYPE


def _is_text(events: list[WebSocketEvent]) -> bool:
    try:
        for event in events:
            if event.type == "TEXT":
                (event.content or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _seen(request: HttpRequest, token: str) -> HttpResponse | None:
    """The answer to `manage.py grip_check`; None if it was not that who asked."""
    channel = roundtrip.read_token(request.META[roundtrip.META_KEY])
    if channel is None:
        return None
    grip: GripData = request.grip  # type: ignore[attr-defined]
    sighting = roundtrip.see(
        conf.prefix() + channel,
        token,
        trust=(grip.proxied, grip.signed),
        verifiers=proxies.verifiers(),
        features=headers.parse_features(request.META.get("HTTP_GRIP_FEATURE", "")),
    )
    response = HttpResponse(sighting.line(), content_type="text/plain")
    response["Cache-Control"] = "no-store, no-transform"
    if grip.proxied:
        instruct = grip.start_instruct()
        instruct.add_channel(channel)
        instruct.set_hold_stream()
        _apply(instruct, response)
    return response


def _apply(instruct: GripInstruct, response: HttpResponseBase) -> None:
    # Web servers strip headers from a 304, so the status itself travels in one.
    if instruct.hold and response.status_code == 304:
        response.status_code = 200
        response["Grip-Status"] = "304"
    if instruct.hold == "stream":
        # For the boxes between proxy and client: some buffer or compress streams.
        response.headers.setdefault("Cache-Control", "no-cache, no-transform")
        response.headers.setdefault("X-Accel-Buffering", "no")
    for name, value in instruct.headers(conf.prefix()).items():
        response[name] = value
