"""StreamModelMixin: stream routes on a viewset, authorised by the viewset itself."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework import status
from rest_framework.decorators import action
from rest_framework.exceptions import APIException, ParseError, PermissionDenied
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from django_grip.contrib.realtime.channels import channel_name
from django_grip.contrib.realtime.grants import Grant
from django_grip.contrib.realtime.streams import ModelStream, registry
from django_grip.contrib.rest_framework.authorization import (
    Refused,
    audience_of,
    check_all_rows,
)
from django_grip.contrib.rest_framework.transports import PARAMETERS, answer

_ACTIONS = {"stream_collection": "list", "stream_object": "retrieve"}


class NotProxied(APIException):
    """The request came through no GRIP proxy, so nothing could hold it."""

    status_code = status.HTTP_501_NOT_IMPLEMENTED
    default_detail = (
        "Streams are served through a GRIP proxy, and this request came through none."
    )
    default_code = "not_proxied"


class StreamModelMixin:
    """Adds `GET …/stream/` and `GET …/{pk}/stream/` to a viewset.

    Whoever may `GET` the list or the object may stream it: permissions, throttles and
    `get_serializer_class()` see `self.action` as `list` or `retrieve`, with
    `self.streaming` True. List it before the viewset's other bases.
    """

    streaming = False
    stream_audience: str | None = None
    """The stream's audience to use instead of the one of the view's serializer.

    `""` names the only one of a stream without `audiences`.
    """
    stream_all_rows = False
    """Declare that whoever passes the permissions may see every row of the model."""

    @action(detail=False, url_path="stream", url_name="stream")
    def stream_collection(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        """Stream the events of every row."""
        try:
            check_all_rows(self)
        except Refused as exc:
            raise PermissionDenied(str(exc)) from exc
        return self._stream(request, self.get_queryset().model)  # type: ignore[attr-defined]

    @action(detail=True, url_path="stream", url_name="stream")
    def stream_object(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        """Stream the events of one row, which `get_object()` finds and authorises."""
        row = self.get_object()  # type: ignore[attr-defined]
        return self._stream(request, type(row), row.pk)

    def _stream(
        self, request: Request, model: type[models.Model], pk: Any = None
    ) -> HttpResponseBase:
        if unknown := sorted(set(request.query_params) - PARAMETERS):
            raise ParseError(
                f"A stream takes no parameter {', '.join(unknown)}: it is not "
                "filtered. Filter the events in the client."
            )
        stream = _stream_of(model)
        serializer = None if stream.is_thin else self.get_serializer_class()  # type: ignore[attr-defined]
        try:
            audience = audience_of(stream, self.stream_audience, serializer)
        except Refused as exc:
            raise PermissionDenied(str(exc)) from exc
        if not getattr(request, "grip_proxied", False):
            raise NotProxied
        channel = channel_name(stream.label, pk, audience=audience)
        grant = Grant(channel=channel, user=request.user.pk)
        return answer(request._request, grant)

    def initialize_request(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> Request:
        """Present a stream to the rest of the view as the `GET` it stands for."""
        drf_request: Request = super().initialize_request(request, *args, **kwargs)  # type: ignore[misc]
        plain = _ACTIONS.get(self.action)  # type: ignore[has-type]
        if plain is not None:
            self.streaming = True
            self.action = plain
        return drf_request

    def perform_content_negotiation(
        self, request: Request, force: bool = False
    ) -> tuple[BaseRenderer, str]:
        """A stream is an event stream whatever is accepted; its refusals are JSON."""
        if self.streaming:
            return JSONRenderer(), JSONRenderer.media_type
        negotiated: tuple[BaseRenderer, str] = super().perform_content_negotiation(  # type: ignore[misc]
            request, force
        )
        return negotiated


def _stream_of(model: type[models.Model]) -> ModelStream:
    stream = registry.get(model)
    if stream is None:
        raise ImproperlyConfigured(
            f"{model._meta.label} is not registered for realtime, so it has no stream. "
            "Decorate it with @realtime, or register a ModelStream for it."
        )
    return stream
