"""Which channel a view may stream, decided from what the view declares. Fail closed.

The same rules speak at run time (403) and from `manage.py check`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.utils.module_loading import import_string
from rest_framework.filters import OrderingFilter, SearchFilter
from rest_framework.generics import GenericAPIView

from django_grip.contrib.realtime.streams import ModelStream


class Refused(Exception):
    """The view may not stream this; the text says why, and the cure."""


def audience_of(
    stream: ModelStream, declared: str | None, serializer: Any
) -> str | None:
    """The audience a view streams: the one whose serializer class is the view's own.

    `declared` is the view's `stream_audience`, which wins. Raises Refused if what the
    stream sends is not what the view's `GET` would show.
    """
    if declared is not None:
        audience = declared or None
        if audience in stream.serializers:
            return audience
        raise Refused(
            f"stream_audience is {declared!r}; the stream of {stream.label} has "
            f"{_names(stream.serializers)}."
        )
    if stream.is_thin:
        return None
    if stream.fields is not None:
        readable = {
            name
            for name, field in serializer().fields.items()
            if not getattr(field, "write_only", False)
        }
        if missing := [name for name in stream.fields if name not in readable]:
            raise Refused(
                f"The stream of {stream.label} sends {', '.join(missing)}, which "
                f"{serializer.__name__} does not show. Remove it from the stream's "
                "fields or add it to the serializer."
            )
        return None
    for audience, own in stream.serializers.items():
        if own is serializer:
            return audience
    own_names = _names(
        getattr(own, "__name__", own) for own in stream.serializers.values()
    )
    raise Refused(
        f"{serializer.__name__} is not a serializer of the stream of {stream.label} "
        f"({own_names}). Use one of these in the view, add an audience for it, or set "
        "stream_audience."
    )


def check_all_rows(view: Any) -> None:
    """Raise Refused unless every client of the view's list may see every row.

    `view` is a view, or its class where there is no request to ask about.

    The collection's channel carries all rows of the model, so whatever narrows the
    list of a view would be bypassed by its stream.
    """
    if getattr(view, "stream_all_rows", False):
        return
    cure = (
        "The collection's stream carries every row. If every client that passes the "
        "view's permissions may see every row, set stream_all_rows = True."
    )
    view_class = view if isinstance(view, type) else type(view)
    if view_class.get_queryset is not GenericAPIView.get_queryset:  # type: ignore[attr-defined]
        raise Refused(f"{view_class.__name__} overrides get_queryset(). {cure}")
    query = getattr(view.queryset, "query", None)
    if query is None:
        raise Refused(f"{view_class.__name__} has no queryset. {cure}")
    if query.where or query.is_sliced or query.combinator or query.distinct:
        raise Refused(f"The queryset of {view_class.__name__} is restricted. {cure}")
    for backend in view.filter_backends:
        if not _is_harmless(backend):
            raise Refused(
                f"{view_class.__name__} has the filter backend "
                f"{getattr(backend, '__name__', backend)}, which may hide rows. {cure}"
            )


def _is_harmless(backend: Any) -> bool:
    """Whether a backend only does what clients ask for by parameters.

    Exactly these classes: a subclass may do anything.
    """
    if backend in (SearchFilter, OrderingFilter):
        return True
    try:
        django_filter = import_string(
            "django_filters.rest_framework.DjangoFilterBackend"
        )
    except ImportError:
        return False
    return backend is django_filter


def _names(names: Iterable[Any]) -> str:
    return ", ".join(
        "no named audience" if name is None else str(name) for name in names
    )
