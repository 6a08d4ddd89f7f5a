"""Panel: the stream of a page of the browsable API, to open and to watch there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.apps import apps
from django.urls import NoReverseMatch
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.utils.urls import replace_query_param
from rest_framework.versioning import QueryParameterVersioning


class StreamBrowsableAPIRenderer(BrowsableAPIRenderer):
    """The browsable API, with a panel on the pages of a list and of an object.

    Views with streams use it in place of exactly BrowsableAPIRenderer. Its template
    extends `rest_framework/api.html`, which stays the project's own to override.
    """

    template = "grip_rest_framework/api.html"

    def get_context(
        self,
        data: Any,
        accepted_media_type: str | None,
        renderer_context: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The context of the page, and `stream_url`: None where there is no panel."""
        context = super().get_context(data, accepted_media_type, renderer_context)
        url = _stream_url(renderer_context["view"], renderer_context["response"])
        return {**context, "stream_url": url}


def with_panel(renderers: Sequence[BaseRenderer]) -> list[BaseRenderer]:
    """The renderers of a view, the browsable API with the panel."""
    if not apps.is_installed("django_grip.contrib.rest_framework"):
        return list(renderers)  # Its templates are not found.
    return [
        StreamBrowsableAPIRenderer() if type(each) is BrowsableAPIRenderer else each
        for each in renderers
    ]


def _stream_url(view: Any, response: Response) -> str | None:
    """The path, with the version if that is a parameter, of this page's stream."""
    actions = getattr(view, "action_map", {})
    if response.status_code >= 400 or actions.get("get") not in ("list", "retrieve"):
        return None
    kwargs = dict(view.kwargs)
    # The page may be /orders.api.
    kwargs.pop(api_settings.FORMAT_SUFFIX_KWARG, None)
    try:
        # Without the request, which would add its host and its ?format=.
        url: str = view.reverse_action(
            "stream", args=view.args, kwargs=kwargs, request=None
        )
    except NoReverseMatch:
        return None
    scheme = view.request.versioning_scheme
    if isinstance(scheme, QueryParameterVersioning) and view.request.version:
        url = replace_query_param(url, scheme.version_param, view.request.version)
    return url
