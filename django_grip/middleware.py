"""GripMiddleware: reads what the proxy says, writes what the view asks of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponse, HttpResponseBase

from django_grip import conf, headers, proxies
from django_grip.holds import GripData, GripInstruct


class GripMiddleware:
    """Puts `request.grip` on each request and Grip-* headers on held responses.

    Place it near the top of MIDDLEWARE. The thinking is in two plain methods that do
    no I/O, so sync and async requests share them without a thread hop.
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

    def __call__(
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self.__acall__(request)
        self.process_request(request)
        return self.process_response(request, self.get_response(request))  # type: ignore[arg-type]

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        self.process_request(request)
        return self.process_response(request, await self.get_response(request))  # type: ignore[misc]

    def process_request(self, request: HttpRequest) -> None:
        """Set `request.grip`, and the old `grip_proxied` and `grip_signed`."""
        meta = request.META
        proxied, signed = proxies.trust(meta.get("HTTP_GRIP_SIG"))
        grip = GripData(proxied=proxied, signed=signed)
        if proxied or not proxies.is_expected():
            if features := meta.get("HTTP_GRIP_FEATURE"):
                grip.features = headers.parse_features(features)
            if last := meta.get("HTTP_GRIP_LAST"):
                grip.last = headers.parse_last(last)
        request.grip = grip  # type: ignore[attr-defined]
        request.grip_proxied = proxied  # type: ignore[attr-defined]
        request.grip_signed = signed  # type: ignore[attr-defined]

    def process_response(
        self, request: HttpRequest, response: HttpResponseBase
    ) -> HttpResponseBase:
        """Turn the view's instruction into headers, if the proxy is to see them.

        A direct request gets no Grip-* header as soon as a proxy is configured; with
        GRIP_PROXY_REQUIRED it gets 501 instead of a stream that ends at once.
        """
        grip: GripData = request.grip  # type: ignore[attr-defined]
        if grip.instruct is None:
            return response
        if not grip.proxied and conf.proxy_required():
            return HttpResponse("Not Implemented\n", status=501)
        if grip.proxied or not proxies.is_expected():
            _apply(grip.instruct, response)
        return response


def _apply(instruct: GripInstruct, response: HttpResponseBase) -> None:
    # Web servers strip headers from a 304, so the status itself travels in one.
    if instruct.hold and response.status_code == 304:
        response.status_code = 200
        response["Grip-Status"] = "304"
    for name, value in instruct.headers(conf.prefix()).items():
        response[name] = value
