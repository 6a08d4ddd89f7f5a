"""RealtimeManager: bulk writes are announced as single ones are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from django.db import models, transaction

from django_grip.contrib.realtime import states
from django_grip.contrib.realtime.contexts import is_silent
from django_grip.contrib.realtime.events import Place
from django_grip.contrib.realtime.states import Row
from django_grip.contrib.realtime.streams import ModelStream, registry
from django_grip.contrib.realtime.tellings import BULK_OBJECTS
from django_grip.contrib.realtime.writes import announce, announce_unknown

T = TypeVar("T", bound=models.Model)

_collecting: ContextVar[
    tuple[dict[str, dict[Any, None]], dict[str, dict[Any, Row] | None]] | None
] = ContextVar("grip_collecting", default=None)
"""Of a delete() under way, by the label of the stream: the pks it has deleted, in
order, and where the rows stood."""

_is_inner: ContextVar[bool] = ContextVar("grip_is_inner", default=False)
"""Whether a bulk write of ours calls another one of Django's."""


class RealtimeQuerySet(models.QuerySet[T]):
    """A queryset whose `update`, `delete`, `bulk_create` and `bulk_update` are told.

    Django's async twins call these, so they are told as well. The rows are locked and
    read before the write where that decides who hears of it. An operation on more than
    10,000 rows of a stream without scopes is one statement and counted only.
    """

    def update(self, **kwargs: Any) -> int:
        """See QuerySet.update()."""
        streams = self._streams()
        if not streams or self.query.is_sliced:
            return super().update(**kwargs)
        self._for_write = True
        changed = frozenset(kwargs)
        with transaction.atomic(using=self.db):
            pks = self._pks()
            before = {
                stream.label: _before(stream, pks, self.db, changed)
                for stream in streams
            }
            if not pks or (len(pks) > BULK_OBJECTS and not any(before.values())):
                return self._update_all(pks, kwargs, streams, changed)
            count = 0
            for rows in self._rows(pks):
                count += models.QuerySet.update(rows, **kwargs)
            for stream in streams:
                announce(
                    stream,
                    "update",
                    pks,
                    self.db,
                    before=before[stream.label],
                    changed=changed,
                )
        return count

    update.alters_data = True  # type: ignore[attr-defined]

    def _update_all(
        self,
        pks: list[Any],
        values: dict[str, Any],
        streams: list[ModelStream],
        changed: frozenset[str],
    ) -> int:
        """One statement, for no rows or for very many."""
        count = super().update(**values)
        for stream in streams:
            if pks:
                announce(stream, "update", pks, self.db, changed=changed)
        return count

    def _rows(self, pks: list[Any]) -> Iterator[models.QuerySet[T]]:
        """Exactly these rows: what chose them may be what the update changes."""
        if self.query.annotations:
            # The values may be made of them, so their query is kept, in one piece.
            yield self.filter(pk__in=pks)
            return
        for chunk in states.chunks(pks):
            yield models.QuerySet(self.model, using=self.db).filter(pk__in=chunk)

    def delete(self) -> tuple[int, dict[str, int]]:
        """See QuerySet.delete()."""
        streams = self._streams()
        if not streams or self.query.is_sliced or self.query.distinct:
            return super().delete()
        self._for_write = True
        with transaction.atomic(using=self.db):
            pks = self._pks()
            before = {
                stream.label: _before(stream, pks, self.db, None) for stream in streams
            }
            with _collect(before) as collected:
                result = super().delete()
            for stream in streams:
                announce(
                    stream,
                    "delete",
                    list(collected[stream.label]),
                    self.db,
                    before=before[stream.label],
                )
        return result

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]

    def bulk_create(self, objs: Iterable[T], *args: Any, **kwargs: Any) -> list[T]:
        """See QuerySet.bulk_create(). Without pks in return, one event counts."""
        streams = self._streams()
        if not streams:
            return super().bulk_create(objs, *args, **kwargs)
        self._for_write = True
        with transaction.atomic(using=self.db):
            created = super().bulk_create(objs, *args, **kwargs)
            pks = [instance.pk for instance in created]
            is_known = len(args) < 2 and not (
                kwargs.get("ignore_conflicts") or kwargs.get("update_conflicts")
            )
            for stream in streams:
                if not created:
                    continue
                if is_known and None not in pks:
                    announce(stream, "create", pks, self.db)
                else:
                    places = _places_in_memory(stream, created)
                    announce_unknown(stream, "create", len(created), self.db, places)
        return created

    def bulk_update(
        self, objs: Iterable[T], fields: Iterable[str], batch_size: int | None = None
    ) -> int:
        """See QuerySet.bulk_update()."""
        objs, fields = list(objs), list(fields)
        streams = self._streams()
        if not streams or not objs:
            return super().bulk_update(objs, fields, batch_size)
        self._for_write = True
        changed = frozenset(fields)
        pks = [instance.pk for instance in objs]
        with transaction.atomic(using=self.db):
            before = {
                stream.label: _before(stream, pks, self.db, changed)
                for stream in streams
            }
            with _inner():
                count = super().bulk_update(objs, fields, batch_size)
            for stream in streams:
                announce(
                    stream,
                    "update",
                    pks,
                    self.db,
                    before=before[stream.label],
                    changed=changed,
                )
        return count

    bulk_update.alters_data = True  # type: ignore[attr-defined]

    def _streams(self) -> list[ModelStream]:
        """The streams that are to be told: of the model and of its parents."""
        if _is_inner.get():
            return []
        concrete = self.model._meta.concrete_model or self.model
        found = [
            registry.get(model)
            for model in (concrete, *concrete._meta.get_parent_list())
            if not is_silent(model)
        ]
        return [stream for stream in found if stream is not None]

    def _pks(self) -> list[Any]:
        return sorted(self.order_by().values_list("pk", flat=True).distinct())


class RealtimeManager(models.Manager.from_queryset(RealtimeQuerySet)):  # type: ignore[misc]
    """`objects = RealtimeManager()`: bulk writes of a registered model are told."""


def knows(stream: ModelStream, pk: Any) -> bool:
    """Whether a delete() under way has read where this row stands."""
    collecting = _collecting.get()
    return collecting is not None and pk in (collecting[1].get(stream.label) or ())


def learn(stream: ModelStream, rows: dict[Any, Row]) -> bool:
    """Give rows that go with those of a delete() under way to it, if there is one."""
    collecting = _collecting.get()
    before = None if collecting is None else collecting[1].get(stream.label)
    if before is None:
        return False
    before |= rows
    return True


def collect(stream: ModelStream, pk: Any) -> bool:
    """Leave a deleted row to the delete() under way; False if there is none."""
    collecting = _collecting.get()
    if collecting is None or stream.label not in collecting[0]:
        return False
    collecting[0][stream.label][pk] = None
    return True


@contextmanager
def _collect(
    before: dict[str, dict[Any, Row] | None],
) -> Iterator[dict[str, dict[Any, None]]]:
    collected: dict[str, dict[Any, None]] = {label: {} for label in before}
    token = _collecting.set((collected, before))
    try:
        yield collected
    finally:
        _collecting.reset(token)


@contextmanager
def _inner() -> Iterator[None]:
    token = _is_inner.set(True)
    try:
        yield
    finally:
        _is_inner.reset(token)


def _before(
    stream: ModelStream, pks: Sequence[Any], using: str, changed: frozenset[str] | None
) -> dict[Any, Row] | None:
    if not stream.may_matter(changed):
        return None
    return states.read(stream, using, pks, lock=True)


def _places_in_memory(
    stream: ModelStream, instances: Iterable[models.Model]
) -> frozenset[Place]:
    """Where rows that may have been written may be: all that is said there is so."""
    places: set[Place] = set()
    for name, source in stream.scopes.items():
        for instance in instances:
            value = source(instance) if callable(source) else _along(instance, source)
            places |= {(name, text) for text in states.texts(value)}
    return frozenset(places)


def _along(instance: Any, path: str) -> Any:
    for name in path.split("__"):
        instance = getattr(instance, name, None)
    return instance
