"""Which channel a view may stream, decided from what the view declares. Fail closed.

The same rules speak at run time (403) and from `manage.py check`.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable
from functools import cache, lru_cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.utils.module_loading import import_string
from rest_framework.filters import OrderingFilter, SearchFilter
from rest_framework.generics import GenericAPIView
from rest_framework.mixins import ListModelMixin
from rest_framework.settings import api_settings
from rest_framework.versioning import URLPathVersioning

from django_grip.contrib.realtime import states
from django_grip.contrib.realtime.events import REFRESH, Place
from django_grip.contrib.realtime.streams import ModelStream, registry
from django_grip.contrib.rest_framework.refusals import NothingToStream, Refused

MODES = ("events", "refresh")


def channel_of(view: Any, row: models.Model | None = None) -> str:
    """The channel of the stream that a view's request may hold.

    It is that of `row`, which the view has authorised, or else of its list. Raises
    Refused, NothingToStream, and ImproperlyConfigured.
    """
    if row is None:
        check_all_rows(view, view.kwargs)
    stream = stream_of(view.get_queryset().model if row is None else type(row))
    audience = audience_of_view(stream, view)
    if row is not None:
        return stream.channel(row.pk, audience=audience)
    place = None if view.stream_scope is None else place_of(stream, view)
    return stream.channel(place=place, audience=audience)


def stream_of(model: type[models.Model]) -> ModelStream:
    """The stream of a model. Raises ImproperlyConfigured if it has none."""
    stream = registry.get(model)
    if stream is None:
        raise ImproperlyConfigured(
            f"{model._meta.label} is not registered for realtime, so it has no stream. "
            "Decorate it with @realtime, or register a ModelStream for it."
        )
    return stream


def model_of(view: Any) -> type[models.Model] | None:
    """The model of a view or of its class, as far as its attributes say."""
    if view.queryset is not None:
        model: type[models.Model] = view.queryset.model
        return model
    meta = getattr(view.serializer_class, "Meta", None)
    return getattr(meta, "model", None)


def audience_of_view(stream: ModelStream, view: Any) -> str | None:
    """The audience whose channels a view streams, by its mode and its serializer."""
    check_mode(stream, view)
    if view.stream_mode == "refresh":
        return REFRESH
    serializer = None
    if not stream.is_thin and view.stream_audience is None:
        serializer = view.get_serializer_class()
    return audience_of(stream, view.stream_audience, serializer)


def check_mode(stream: ModelStream, view: Any) -> None:
    """Raise Refused unless the stream is told in the mode of a view or its class."""
    name = _name(view)
    if view.stream_mode not in MODES:
        raise Refused(
            f"stream_mode of {name} is {view.stream_mode!r}; expected one of "
            f"{', '.join(map(repr, MODES))}."
        )
    if view.stream_mode == "refresh" and not stream.refresh:
        raise Refused(
            f'{name} has stream_mode = "refresh", but nothing is told of '
            f"{stream.label} in that way. Set refresh = True on its stream: "
            "@realtime(refresh=True)."
        )


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
        readable = _readable(serializer)
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


@lru_cache(maxsize=512)
def _readable(serializer: Any) -> frozenset[str]:
    return frozenset(
        name
        for name, field in serializer().fields.items()
        if not getattr(field, "write_only", False)
    )


def place_of(stream: ModelStream, view: Any) -> Place:
    """The value of the view's scope that this caller may stream.

    Raises NothingToStream if there is none, Refused for a scope that the stream does
    not have, and ImproperlyConfigured for several values: a stream has one channel.
    """
    check_scope(stream, view)
    value = view.get_stream_scope()
    # What has a pk stands for it: an instance that is not stored, and the user of a
    # request without one, for nothing.
    if getattr(value, "pk", value) is None:
        raise NothingToStream
    if not isinstance(value, (str, bytes, models.Model)) and isinstance(
        value, Iterable
    ):
        raise ImproperlyConfigured(
            f"get_stream_scope() of {_name(view)} returned a {type(value).__name__}; "
            "expected one value. A stream has one channel: give each value a URL of "
            "its own, or add a scope to the model that covers them."
        )
    text = next(states.texts(value), "")
    if not text:
        raise NothingToStream
    return view.stream_scope, text


def check_scope(stream: ModelStream, view: Any) -> None:
    """Raise Refused unless the stream has the scope of a view or its class."""
    if view.stream_scope is not None and view.stream_scope not in stream.scopes:
        known = ", ".join(map(repr, stream.scopes))
        raise Refused(
            f"stream_scope of {_name(view)} is {view.stream_scope!r}; the stream of "
            f"{stream.label} has {known or 'no scopes'}. Name one of its scopes, or "
            f"add it: scopes = {{{str(view.stream_scope)!r}: '…'}}."
        )


def check_all_rows(view: Any, parameters: Collection[str] = ()) -> None:
    """Raise Refused unless every client of the view's list may see every row.

    `view` is a view, or its class where there is no request to ask about; `parameters`
    are those of the list's URL.

    The collection's channel carries all rows of the model, so whatever narrows the
    list of a view would be bypassed by its stream. Three declarations stand against it:
    a scope, that all rows may be seen, and that only refreshes are told.
    """
    if is_declared(view):
        return
    if reason := _narrows(view, parameters):
        raise Refused(
            f"{reason}, and the collection's stream carries every row. Declare one of "
            'three: stream_scope = "…" with get_stream_scope(), if each caller may '
            "see the rows of one value of a scope; stream_all_rows = True, if "
            "whoever passes the view's permissions may see every row; stream_mode = "
            '"refresh", if it depends on more. Without a stream of the list: '
            "stream_collection = None."
        )


def is_declared(view: Any) -> bool:
    """Whether a view or its class says who may see the rows of its list."""
    has_scope = view.stream_scope is not None
    return bool(has_scope or view.stream_all_rows or view.stream_mode == "refresh")


def _narrows(view: Any, parameters: Collection[str]) -> str:
    """What may hide rows from the list of a view; empty if nothing does."""
    name = _name(view)
    view_class = _class(view)
    if view_class.get_queryset is not GenericAPIView.get_queryset:
        return f"{name} overrides get_queryset()"
    if view_class.filter_queryset is not GenericAPIView.filter_queryset:
        return f"{name} overrides filter_queryset()"
    if not lists_plainly(view):
        has_list = hasattr(view_class, "list")
        return f"{name} {'overrides' if has_list else 'has no'} list()"
    query = getattr(view.queryset, "query", None)
    if query is None:
        return f"{name} has no queryset"
    if query.where or query.is_sliced or query.combinator or query.distinct:
        return f"The queryset of {name} is restricted"
    for backend in view.filter_backends:
        if not _is_harmless(backend):
            shown = getattr(backend, "__name__", backend)
            return f"{name} has the filter backend {shown}, which may hide rows"
    if narrowing := [n for n in parameters if not _is_general(view, n)]:
        return f"The URL of {name} names a part of the rows ({', '.join(narrowing)})"
    return ""


def lists_plainly(view: Any) -> bool:
    """Whether what a view lists are the rows of its filtered queryset.

    Decorators that say what they wrap are looked through: they do not choose rows.
    """
    listing = getattr(_class(view), "list", None)
    return listing is not None and inspect.unwrap(listing) is ListModelMixin.list


def _is_general(view: Any, parameter: str) -> bool:
    """Whether a parameter of a URL says how, not which."""
    if parameter == api_settings.FORMAT_SUFFIX_KWARG:
        return True
    versioning = view.versioning_class
    return (
        isinstance(versioning, type)
        and issubclass(versioning, URLPathVersioning)
        and parameter == versioning.version_param
    )


def _is_harmless(backend: Any) -> bool:
    """Whether a backend only does what clients ask for by parameters.

    Exactly these classes: a subclass may do anything.
    """
    return backend in (SearchFilter, OrderingFilter, _django_filter())


@cache
def _django_filter() -> Any:
    # Looking for a package that is not there takes long each time.
    try:
        return import_string("django_filters.rest_framework.DjangoFilterBackend")
    except ImportError:
        return None


def _class(view: Any) -> Any:
    return view if isinstance(view, type) else type(view)


def _name(view: Any) -> str:
    name: str = _class(view).__name__
    return name


def _names(names: Iterable[Any]) -> str:
    return ", ".join(
        "no named audience" if name is None else str(name) for name in names
    )
