"""Where rows stand: their places, watched values and parents, read from the database.

Never from memory: an instance may be older than another process's write, and a move
that is judged by it would not be told where the row was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from django.db import DatabaseError, connections, models, transaction
from django.db.models import F

from django_grip.contrib.realtime.events import Place, State
from django_grip.contrib.realtime.streams import ModelStream

logger = logging.getLogger("django_grip.realtime")

_turns = count(1)

CHUNK = 1_000
"""Rows of one query: some databases take no more parameters."""


@dataclass(frozen=True)
class Row:
    """One row as read: its state, the rows it touches, and the instance."""

    state: State
    parents: frozenset[tuple[str, Any]] = frozenset()
    instance: Any = None
    turn: int = 0


def read(
    stream: ModelStream, using: str, pks: Collection[Any], *, lock: bool = False
) -> dict[Any, Row]:
    """The rows with these pks that the stream tells of, without their instances.

    With `lock` they stay as they are until the transaction ends, where the database
    can do that.
    """
    rows: dict[Any, Row] = {}
    for chunk in chunks(list(pks)):
        queryset = _queryset(stream, using, chunk)
        if lock and _can_lock(using):
            if stream.is_own_query and not any("__" in path for path in _paths(stream)):
                queryset = queryset.select_for_update().order_by("pk")
            else:
                _lock(stream, using, chunk)
        if stream.computes_scopes:
            rows |= _computed_rows(stream, using, chunk, queryset)
        else:
            found = queryset.values_list("pk", *_paths(stream))
            rows |= _grouped(stream, ((pk, values, None) for pk, *values in found))
    return rows


def read_instances(
    stream: ModelStream, using: str, pks: Sequence[Any], *, guarded: bool = False
) -> dict[Any, Row]:
    """See read(); with the instances, for payloads. At most CHUNK pks.

    Raises DatabaseError if a scope's query fails, after which the transaction has to
    be rolled back to a savepoint; with `guarded` each scope has one of its own.
    """
    queryset = _queryset(stream, using, pks)
    return _grouped(stream, _annotated(stream, queryset), using if guarded else None)


def next_turn() -> int:
    """Greater than any before: tells what was read earlier."""
    return next(_turns)


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
    elif isinstance(value, Iterable) and not isinstance(value, bytes):
        for part in value:
            yield from texts(part)
    else:
        yield str(value)


def _queryset(
    stream: ModelStream, using: str, pks: Sequence[Any]
) -> models.QuerySet[Any]:
    queryset = stream.get_queryset().using(using)
    return queryset.filter(pk=pks[0]) if len(pks) == 1 else queryset.filter(pk__in=pks)


def _can_lock(using: str) -> bool:
    connection = connections[using]
    return connection.features.has_select_for_update and connection.in_atomic_block


def _lock(stream: ModelStream, using: str, pks: Sequence[Any]) -> None:
    """Lock the rows of the table itself: joins and the user's query may not lock."""
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
    touched = [_parent_path(stream.model._meta.get_field(n)) for n in stream.touch]
    scoped = [path for _, path in _scope_paths(stream)]
    return [*scoped, *stream.watched_columns, *touched]


def _parent_path(field: Any) -> str:
    """Where the parent's pk is read: in the row itself, unless by another column."""
    is_pk = field.target_field.primary_key
    return str(field.attname if is_pk else f"{field.name}__pk")


def _annotated(
    stream: ModelStream, queryset: models.QuerySet[Any]
) -> Iterator[tuple[Any, Sequence[Any], Any]]:
    names = {f"grip_{n}": F(path) for n, path in enumerate(_paths(stream))}
    for instance in queryset.annotate(**names) if names else queryset:
        values = [instance.__dict__.pop(name) for name in names]
        yield instance.pk, values, instance


def _grouped(
    stream: ModelStream,
    found: Iterator[tuple[Any, Sequence[Any], Any]],
    guarded_by: str | None = None,
) -> dict[Any, Row]:
    """Rows by pk; a path through many values gives one line for each of them."""
    scopes = [name for name, _ in _scope_paths(stream)]
    watch = len(stream.watched_columns)
    rows: dict[Any, Row] = {}
    turn = next_turn()
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
                    value = _computed(stream, source, instance, guarded_by)
                    places |= {(name, text) for text in texts(value)}
        rows[pk] = Row(
            State(frozenset(places), watched),
            frozenset((name, pk) for name, pk in parents if pk is not None),
            instance,
            turn,
        )
    return rows


def _computed_rows(
    stream: ModelStream,
    using: str,
    pks: Sequence[Any],
    queryset: models.QuerySet[Any],
) -> dict[Any, Row]:
    """Rows with scopes that are computed, perhaps by queries that fail."""
    try:
        with transaction.atomic(using=using):
            return _grouped(stream, _annotated(stream, queryset))
    except DatabaseError:
        return _grouped(stream, _annotated(stream, queryset.all()), using)


def _computed(
    stream: ModelStream,
    source: Callable[[Any], Any],
    instance: Any,
    guarded_by: str | None,
) -> Any:
    try:
        if guarded_by is None:
            return source(instance)
        with transaction.atomic(using=guarded_by):
            return source(instance)
    except Exception as exc:
        if guarded_by is None and isinstance(exc, DatabaseError):
            raise  # The transaction is broken: who opened the savepoint goes on.
        # A boundary: the callable is the user's, and the write must go on. Who may
        # see the row is not known then, so nobody does.
        logger.exception(
            "A scope of %s failed for %s; the row is in none of its values.",
            stream.label,
            instance.pk,
        )
        return None
