"""StreamModelMixin: stream routes on a viewset, authorised by the viewset itself."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.http import Http404, HttpRequest, QueryDict
from django.http.response import HttpResponseBase
from rest_framework.decorators import action
from rest_framework.exceptions import ParseError
from rest_framework.permissions import SAFE_METHODS
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.versioning import QueryParameterVersioning

from django_grip.contrib.realtime.grants import Grant, Link
from django_grip.contrib.rest_framework import clients, snapshots, sockets, tickets
from django_grip.contrib.rest_framework.authorization import channel_of
from django_grip.contrib.rest_framework.panel import with_panel
from django_grip.contrib.rest_framework.private_paths import private_path
from django_grip.contrib.rest_framework.refusals import (
    NotProxied,
    Refused,
    denial,
)
from django_grip.contrib.rest_framework.transports import PARAMETERS, answer

_ACTIONS = {
    "stream_collection": "list",
    "stream_collection_ticket": "list",
    "stream_object": "retrieve",
    "stream_object_ticket": "retrieve",
}


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
    stream_scope: str | None = None
    """The stream's scope whose value each caller may stream: see get_stream_scope()."""
    stream_all_rows = False
    """Declare that whoever passes the permissions may see every row of the model."""
    stream_mode = "events"
    """`"events"`, or `"refresh"`: clients are told that there is something new, and ask
    the view for it.
    """
    stream_link: Link = "shared"
    """How the proxy asks for more of a stream: `"shared"`, at one path for all;
    `"private"`, at one of the user's own, where this view is asked again; None, not.
    """
    stream_snapshot = False
    """Whether a stream begins with the rows as they are, where clients do not say."""
    stream_snapshot_limit = 1_000
    """Rows of the longest list that a stream begins with."""

    _stream_position: str | None = None

    def get_stream_scope(self) -> Any:
        """The value of `stream_scope` whose rows this caller may see.

        As the model's scope gives it; True stands for `true`. None, False and an empty
        text refuse the stream.
        """
        raise ImproperlyConfigured(
            f"{type(self).__name__} has stream_scope = {self.stream_scope!r}, but no "
            "get_stream_scope(). Define it: it returns the value of that scope whose "
            "rows the caller, self.request.user, may see."
        )

    @action(detail=False, url_path="stream", url_name="stream")
    def stream_collection(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        """Stream the events of every row, or of the caller's value of the scope."""
        return self._stream(request)

    @action(detail=True, url_path="stream", url_name="stream")
    def stream_object(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        """Stream the events of one row, which `get_object()` finds and authorises."""
        return self._stream(request, self.get_object())  # type: ignore[attr-defined]

    @action(
        detail=False,
        methods=["post"],
        url_path="stream/ticket",
        url_name="stream-ticket",
    )
    def stream_collection_ticket(
        self, request: Request, **kwargs: Any
    ) -> HttpResponseBase:
        """Give a ticket for the stream of the collection, to `?ticket=`."""
        return self._ticket(request)

    @action(
        detail=True,
        methods=["post"],
        url_path="stream/ticket",
        url_name="stream-ticket",
    )
    def stream_object_ticket(self, request: Request, **kwargs: Any) -> HttpResponseBase:
        """Give a ticket for the stream of one row, to `?ticket=`."""
        return self._ticket(request, self.get_object())  # type: ignore[attr-defined]

    def _ticket(
        self, request: Request, row: models.Model | None = None
    ) -> HttpResponseBase:
        request._request.stream_transport = tickets.issue  # type: ignore[attr-defined]
        return self._stream(request, row)

    def _stream(
        self, request: Request, row: models.Model | None = None
    ) -> HttpResponseBase:
        allowed = PARAMETERS
        if isinstance(request.versioning_scheme, QueryParameterVersioning):
            allowed |= {request.versioning_scheme.version_param}
        # As it was sent: NestedViewSetMixin of drf-nested-routers adds to query_params.
        asked = QueryDict(request.META.get("QUERY_STRING", ""))
        if unknown := sorted(set(asked) - allowed):
            raise ParseError(
                f"A stream takes no parameter {', '.join(unknown)}: it is not "
                "filtered. Filter the events in the client."
            )
        try:
            channel = channel_of(self, row)
            snapshot = snapshots.asked_of(self, row)
        except Refused as exc:
            raise denial(request, exc) from exc
        is_for_later = getattr(request, "stream_transport", None) is tickets.issue
        if not is_for_later and not getattr(request, "grip_proxied", False):
            raise NotProxied
        grant = Grant(
            channel=channel,
            link=self.stream_link,
            link_path=private_path(self.stream_link, request, channel),
            user=getattr(request.user, "pk", None),
            snapshot=snapshot,
        )
        return answer(request._request, grant)

    def initialize_request(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> Request:
        """Present a stream to the rest of the view as the `GET` it stands for."""
        if _is_of_socket(request) and self.action_map.get("get") in _ACTIONS:  # type: ignore[attr-defined]
            request = sockets.presented(request)
        drf_request: Request = super().initialize_request(request, *args, **kwargs)  # type: ignore[misc]
        plain = _ACTIONS.get(self.action)  # type: ignore[has-type]
        if plain is not None:
            self.streaming = True
            self.action = plain
        return drf_request

    def dispatch(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        """Mark what is changed with the client that asks for it: see actor()."""
        with clients.acting(request):
            answered: HttpResponseBase = super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        return answered

    def perform_authentication(self, request: Request) -> None:
        """Know a client by its ticket, if it shows one for a stream."""
        is_known = getattr(request, "_force_auth_user", None) is not None
        if self.streaming and "ticket" in request.query_params and not is_known:
            request.authenticators = (tickets.TicketAuthentication(),)
        super().perform_authentication(request)  # type: ignore[misc]
        if self.streaming and request.method == "POST":
            # A ticket is for what the view grants to a GET.
            request._request.method = "GET"
            self.get = self.post  # type: ignore[attr-defined]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Read the position of a `GET` before its rows: see snapshots.position_of()."""
        clients.check(
            request._request,
            takes_parameter=self.streaming or request.method not in SAFE_METHODS,
        )
        super().initial(request, *args, **kwargs)  # type: ignore[misc]
        if self.action in ("list", "retrieve") and not self.streaming:
            self._stream_position = snapshots.position_of(self)

    def check_throttles(self, request: Request) -> None:
        """Count a stream when it begins; the requests by which it goes on are free."""
        if not getattr(request, "stream_again", False):
            super().check_throttles(request)  # type: ignore[misc]

    def finalize_response(
        self, request: Request, response: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Say with the rows where a stream that goes on from them begins.

        A WebSocket that is open is told of a refusal by how it is closed.
        """
        final = super().finalize_response(request, response, *args, **kwargs)  # type: ignore[misc]
        if self.streaming and final.status_code >= 400 and _is_of_socket(request):
            return sockets.refused(request.wscontext, final)  # type: ignore[attr-defined]
        if self._stream_position is not None and final.status_code == 200:
            final[snapshots.POSITION] = self._stream_position
        return final

    def get_renderers(self) -> list[BaseRenderer]:
        """The view's renderers, the browsable API with a panel of the stream."""
        return with_panel(super().get_renderers())  # type: ignore[misc]

    @classmethod
    def get_extra_actions(cls) -> list[Any]:
        """The actions to route: what has no `GET` to ask has no stream either."""
        found = super().get_extra_actions()  # type: ignore[misc]
        return [each for each in found if cls._is_routed(each.__name__)]

    @classmethod
    def _is_routed(cls, name: str) -> bool:
        plain = _ACTIONS.get(name)
        if plain is None:
            return True  # The view's own.
        stream = getattr(cls, name.removesuffix("_ticket"))
        return hasattr(cls, plain) and stream is not None

    def perform_content_negotiation(
        self, request: Request, force: bool = False
    ) -> tuple[BaseRenderer, str]:
        """A stream is an event stream whatever is accepted; its refusals are JSON."""
        if self.streaming:
            if not force and self.format_kwarg:  # type: ignore[attr-defined]
                raise Http404  # /orders/stream.json
            return JSONRenderer(), JSONRenderer.media_type
        negotiated: tuple[BaseRenderer, str] = super().perform_content_negotiation(  # type: ignore[misc]
            request, force
        )
        return negotiated


def _is_of_socket(request: Any) -> bool:
    return getattr(request, "wscontext", None) is not None
