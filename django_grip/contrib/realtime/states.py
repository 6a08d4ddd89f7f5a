"""Where rows stand: their places, watched values and parents, read from the database.

Never from memory: an instance may be older than another process's write, and a move
that is judged by it would not be told where the row was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections, models
from django.db.models import F

from django_grip.contrib.realtime.events import Place, State
from django_grip.contrib.realtime.streams import ModelStream

logger = logging.getLogger("django_grip.realtime")

CHUNK = 1_000
"""Rows of one query: some databases take no more parameters."""


@dataclass(frozen=True)
class Row:
    """One row as read: its state, the rows it touches, and the instance."""

    state: State
    parents: frozenset[tuple[str, Any]] = frozenset()
    instance: Any = None


def read(
    stream: ModelStream, using: str, pks: Collection[Any], *, lock: bool = False
) -> dict[Any, Row]:
    """The rows with these pks that the stream tells of, without their instances.

    With `lock` they stay as they are until the transaction ends, where the database
    can do that.
    """
    rows: dict[Any, Row] = {}
    for chunk in chunks(list(pks)):
        if lock:
            _lock(stream, using, chunk)
        queryset = _queryset(stream, using, chunk)
        if _needs_instances(stream):
            rows |= _grouped(stream, _annotated(stream, queryset))
        else:
            found = queryset.values_list("pk", *_paths(stream))
            rows |= _grouped(stream, ((pk, values, None) for pk, *values in found))
    return rows


def read_instances(
    stream: ModelStream, using: str, pks: Sequence[Any]
) -> dict[Any, Row]:
    """See read(); with the instances, for payloads. At most CHUNK pks."""
    queryset = _queryset(stream, using, pks)
    return _grouped(stream, _annotated(stream, queryset))


def chunks(pks: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """At most CHUNK at a time."""
    for start in range(0, len(pks), CHUNK):
        yield pks[start : start + CHUNK]


def texts(value: Any) -> Iterator[str]:
    """The values of a scope as text: see ModelStream."""
    if value is None or value is False:
        return
    if value is True:
        yield "true"
    elif isinstance(value, str):
        yield value
    elif isinstance(value, models.Model):
        yield str(value.pk)
    elif isinstance(value, (list, tuple, set, frozenset, models.QuerySet)):
        for part in value:
            yield from texts(part)
    else:
        yield str(value)


def _queryset(
    stream: ModelStream, using: str, pks: Sequence[Any]
) -> models.QuerySet[Any]:
    queryset = stream.get_queryset().using(using)
    return queryset.filter(pk=pks[0]) if len(pks) == 1 else queryset.filter(pk__in=pks)


def _lock(stream: ModelStream, using: str, pks: Sequence[Any]) -> None:
    connection = connections[using]
    if connection.features.has_select_for_update and connection.in_atomic_block:
        # Of the table itself: the stream's own query may be one that cannot lock.
        rows = stream.model._base_manager.using(using).filter(pk__in=pks)
        list(rows.select_for_update().order_by("pk").values_list("pk"))


def _scope_paths(stream: ModelStream) -> list[tuple[str, str]]:
    return [
        (name, source)
        for name, source in stream.scopes.items()
        if isinstance(source, str)
    ]


def _paths(stream: ModelStream) -> list[str]:
    """What is read of a row: scopes, watched fields, parents."""
    touched = [stream.model._meta.get_field(name).attname for name in stream.touch]  # type: ignore[union-attr]
    scoped = [path for _, path in _scope_paths(stream)]
    return [*scoped, *stream.watched_columns, *touched]


def _needs_instances(stream: ModelStream) -> bool:
    return any(callable(source) for source in stream.scopes.values())


def _annotated(
    stream: ModelStream, queryset: models.QuerySet[Any]
) -> Iterator[tuple[Any, Sequence[Any], Any]]:
    names = {f"grip_{n}": F(path) for n, path in enumerate(_paths(stream))}
    for instance in queryset.annotate(**names) if names else queryset:
        values = [instance.__dict__.pop(name) for name in names]
        yield instance.pk, values, instance


def _grouped(
    stream: ModelStream, found: Iterator[tuple[Any, Sequence[Any], Any]]
) -> dict[Any, Row]:
    """Rows by pk; a path through many values gives one line for each of them."""
    scopes = [name for name, _ in _scope_paths(stream)]
    watch = len(stream.watched_columns)
    rows: dict[Any, Row] = {}
    for pk, values, instance in found:
        places: set[Place] = set()
        for name, value in zip(scopes, values, strict=False):
            places |= {(name, text) for text in texts(value)}
        watched = tuple(values[len(scopes) : len(scopes) + watch])
        parents = zip(stream.touch, values[len(scopes) + watch :], strict=True)
        if pk in rows:
            places |= rows[pk].state.places
        elif instance is not None:
            for name, source in stream.scopes.items():
                if callable(source):
                    value = _computed(stream, source, instance)
                    places |= {(name, text) for text in texts(value)}
        rows[pk] = Row(
            State(frozenset(places), watched),
            frozenset((name, pk) for name, pk in parents if pk is not None),
            instance,
        )
    return rows


def _computed(stream: ModelStream, source: Callable[[Any], Any], instance: Any) -> Any:
    try:
        return source(instance)
    except Exception:
        # A boundary: the callable is the user's, and the write must go on. Who may
        # see the row is not known then, so nobody does.
        logger.exception(
            "A scope of %s failed for %s; the row is in none of its values.",
            stream.label,
            instance.pk,
        )
        return None
