"""Snapshots: the rows a stream begins with, and where a list stands in the events.

Whoever has rows and a position that was read before them misses nothing by streaming
from there on. What was written in between comes twice at worst.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import models
from rest_framework.exceptions import ParseError
from rest_framework.mixins import RetrieveModelMixin
from rest_framework.utils.encoders import JSONEncoder

from django_grip.contrib.realtime import durable
from django_grip.contrib.realtime.streams import json_text
from django_grip.contrib.rest_framework.authorization import (
    audience_of_view,
    check_all_rows,
    check_scope,
    lists_plainly,
    model_of,
    stream_of,
)
from django_grip.contrib.rest_framework.refusals import Refused, TooLarge

POSITION = "Realtime-Position"
"""The header of a `GET`: the position from which a stream of its rows goes on."""

_ASKED = {"1": True, "true": True, "0": False, "false": False}


def asked_of(
    view: Any, row: models.Model | None = None
) -> Callable[[], Sequence[str]] | None:
    """What reads the rows that a stream begins with, if it shall; see Grant.snapshot.

    `row` is the object whose stream it is, None for the list. Raises Refused where
    nobody but the view's own code knows what it shows.
    """
    text = view.request.query_params.get("snapshot")
    if text is not None and text not in _ASKED:
        raise ParseError(f"Expected snapshot=1 or snapshot=0; got {text[:20]!r}.")
    if not (view.stream_snapshot if text is None else _ASKED[text]):
        return None
    if view.stream_mode == "refresh":
        raise ParseError(
            "This stream has no snapshot: it says that there is something new, and no "
            "more. GET the rows, at first and whenever it does."
        )
    is_list = row is None
    if not (lists_plainly(view) if is_list else _retrieves_plainly(view)):
        name = type(view).__name__
        raise Refused(
            f"{name} overrides {'list' if is_list else 'retrieve'}(), which may hide "
            "what a snapshot would show. Choose rows in get_queryset() and their "
            "fields in the serializer, or have clients GET them."
        )
    return (lambda: _rows(view)) if is_list else (lambda: [_row(view)])


def _rows(view: Any) -> list[str]:
    limit = view.stream_snapshot_limit
    rows = list(view.filter_queryset(view.get_queryset())[: limit + 1])
    if len(rows) > limit:
        raise TooLarge(
            f"A stream begins with at most {limit} rows, and here are more. GET the "
            f"list, page by page, and open the stream with ?since= and the {POSITION} "
            "of the first answer."
        )
    return [_text(row) for row in view.get_serializer(rows, many=True).data]


def _row(view: Any) -> str:
    # Anew: the row that was authorised was read before the position.
    return _text(view.get_serializer(view.get_object()).data)


def _text(data: Any) -> str:
    return json_text(data, JSONEncoder)


def _retrieves_plainly(view: Any) -> bool:
    found = getattr(type(view), "retrieve", None)
    return found is not None and inspect.unwrap(found) is RetrieveModelMixin.retrieve


def position_of(view: Any) -> str | None:
    """Where the events stand before the rows of a `GET` are read.

    Of all channels of the model's database alike, so it costs the same for a list and
    for an object however it is found, and nobody is asked for a scope. None without an
    event log, and where the view has no such stream.
    """
    log = durable.log
    model = None if log is None else model_of(view)
    if log is None or model is None:
        return None
    try:
        if view.action == "list":
            check_all_rows(view, view.kwargs)
        stream = stream_of(model)
        check_scope(stream, view)
        audience_of_view(stream, view)
    except (Refused, ImproperlyConfigured):
        return None
    return log.position(stream.channel())
