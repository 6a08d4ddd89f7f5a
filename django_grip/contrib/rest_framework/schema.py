"""Schema: the stream routes for drf-spectacular. Imported where that is installed."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import get_doc
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers
from rest_framework.settings import api_settings

from django_grip.contrib.realtime.longpolls import WAIT_MAX
from django_grip.contrib.rest_framework.mixins import StreamModelMixin

PARAMETERS = [
    OpenApiParameter(
        "client",
        str,
        description="What the client calls itself: its changes have it as `origin`.",
    ),
    OpenApiParameter(
        "since",
        str,
        description="The position from which the stream goes on.",
    ),
    OpenApiParameter(
        "wait",
        {"type": "integer", "minimum": 0, "maximum": WAIT_MAX},
        description="Long-poll: seconds for which the request waits for an event.",
    ),
    OpenApiParameter(
        "snapshot",
        bool,
        description="Whether the stream begins with the rows as they are.",
    ),
    OpenApiParameter(
        "ticket",
        str,
        description="A ticket of this URL, for clients that cannot send a header.",
    ),
]


class StreamPoll(serializers.Serializer[Any]):
    """The answer to a long-poll."""

    events = serializers.ListField(child=serializers.DictField())
    position = serializers.CharField(required=False)


class StreamTicket(serializers.Serializer[Any]):
    """The answer to a request for a ticket."""

    ticket = serializers.CharField()
    expires_in = serializers.IntegerField(help_text="Seconds.")


class StreamRefusal(serializers.Serializer[Any]):
    """Why there is no stream."""

    detail = serializers.CharField()


_JSON = "application/json"

_REFUSALS = {
    (400, _JSON): OpenApiResponse(StreamRefusal, "A parameter is not understood."),
    (401, _JSON): OpenApiResponse(StreamRefusal, "As GET answers."),
    (403, _JSON): OpenApiResponse(
        StreamRefusal, "As GET answers; or this cannot be streamed."
    ),
    (404, _JSON): OpenApiResponse(StreamRefusal, "As GET answers."),
}

_STREAM = {
    (200, "text/event-stream"): OpenApiResponse(
        OpenApiTypes.STR, "Events as they come."
    ),
    (200, _JSON): OpenApiResponse(StreamPoll, "Events as they come."),
    **_REFUSALS,
    (413, _JSON): OpenApiResponse(StreamRefusal, "The list is too long a snapshot."),
    (501, _JSON): OpenApiResponse(
        StreamRefusal, "The request came through no GRIP proxy."
    ),
}

_TICKET = {(200, _JSON): StreamTicket, **_REFUSALS}


class StreamSchema(AutoSchema):
    """The schema of a stream route, below what `extend_schema` says of it."""

    def get_operation_id(self) -> str:
        """For a list another id than for an object, whose path has a parameter."""
        view: Any = self.view
        if not view.detail:
            self.method_mapping = {"get": "list", "post": "list_create"}
        return super().get_operation_id()

    def get_description(self) -> str:  # type: ignore[override]
        """What the action says: to the schema it is `list` or `retrieve`."""
        view: Any = self.view
        return get_doc(getattr(view, view.action_map[self.method.lower()]))

    def _is_list_view(self, serializer: Any = None) -> bool:
        return False  # No pages, no filters.

    def get_override_parameters(self) -> list[Any]:
        """The parameters of a stream; the format is none."""
        found: list[Any] = super().get_override_parameters()
        if name := api_settings.URL_FORMAT_OVERRIDE:
            found = [*found, OpenApiParameter(name, exclude=True)]
        return [*found, *PARAMETERS] if self.method == "GET" else found

    def get_request_serializer(self) -> Any:
        """Nothing is sent."""
        return None

    def get_response_serializers(self) -> Any:
        """Events or a ticket, and the refusals of both."""
        return _STREAM if self.method == "GET" else _TICKET


def describe() -> None:
    """Have drf-spectacular use StreamSchema for the actions of StreamModelMixin."""
    # Else it stands for the words of views that have none, on each of their routes.
    StreamModelMixin.__doc__ = None
    for each in vars(StreamModelMixin).values():
        if hasattr(each, "mapping"):  # An @action.
            each.kwargs["schema"] = StreamSchema
