"""Capture: model signals to announcements, inside the writer's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import wraps
from typing import Any

from django.apps import apps
from django.db import models, router, transaction
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from django_grip.contrib.realtime import managers, states
from django_grip.contrib.realtime.contexts import is_silent
from django_grip.contrib.realtime.states import Row
from django_grip.contrib.realtime.streams import ModelStream, registry
from django_grip.contrib.realtime.writes import announce

_BEFORE = "_grip_before"
"""Where an instance carries its rows as they stood before the writes under way."""

_INSERTS = "_grip_inserts"
"""Where an instance says that the save under way inserts for sure."""

_RAW = "_grip_raw"
"""Where an instance says that it comes from a fixture."""


def connect(stream: ModelStream) -> None:
    """Hear of a stream's model, of its proxies and of its multi-table children.

    Each is named as a sender: a receiver without one would take the fast path of
    delete() from every model of the project.
    """
    _make_saves_atomic(stream.model)
    for model in apps.get_models(include_auto_created=True):
        if issubclass(model, stream.model):
            for signal, receiver in (
                (pre_save, before_save),
                (post_save, on_save),
                (pre_delete, before_delete),
                (post_delete, on_delete),
            ):
                signal.connect(receiver, sender=model, dispatch_uid="grip_realtime")
    for field in stream.model._meta.local_many_to_many:
        m2m_changed.connect(
            on_m2m, sender=field.remote_field.through, dispatch_uid="grip_realtime"
        )


def before_save(
    sender: type[models.Model],
    instance: models.Model,
    raw: bool,
    using: str,
    update_fields: Iterable[str] | None,
    **kwargs: Any,
) -> None:
    """Receive pre_save: read where the row stands, if the write may move it."""
    instance.__dict__[_RAW] = raw
    if raw:
        return
    before: dict[str, dict[Any, Row]] = {}
    for stream in _streams(sender):
        pk = _pk(instance, stream)
        is_new = pk is None or (
            instance.__dict__.get(_INSERTS)
            and sender._meta.concrete_model is stream.model
        )
        if not is_new and stream.may_matter(update_fields):
            before[stream.label] = states.read(stream, using, [pk], lock=True)
    _stack(instance).append(before)


def on_save(
    sender: type[models.Model],
    instance: models.Model,
    created: bool,
    raw: bool,
    using: str,
    update_fields: Iterable[str] | None,
    **kwargs: Any,
) -> None:
    """Receive post_save. Fixtures (`raw`) are silent."""
    if raw:
        return
    before = _pop(instance)
    changed = None
    if update_fields is not None and not created:
        changed = frozenset(update_fields)
    for stream in _streams(sender):
        announce(
            stream,
            "create" if created else "update",
            [_pk(instance, stream)],
            using,
            before=before.get(stream.label),
            changed=changed,
        )


def before_delete(
    sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any
) -> None:
    """Receive pre_delete: read where the row stands, as long as it does."""
    before: dict[str, dict[Any, Row]] = {}
    for stream in _streams(sender):
        pk = _pk(instance, stream)
        if stream.may_matter(None) and not managers.knows(stream, pk):
            row = states.read(stream, using, [pk], lock=True)
            if not managers.learn(stream, row):
                before[stream.label] = row
    _stack(instance).append(before)


def on_delete(
    sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any
) -> None:
    """Receive post_delete, where the instance still has its pk."""
    before = _pop(instance)
    for stream in _streams(sender):
        pk = _pk(instance, stream)
        if not managers.collect(stream, pk):
            announce(stream, "delete", [pk], using, before=before.get(stream.label))


def on_m2m(
    sender: type[models.Model],
    instance: models.Model,
    action: str,
    reverse: bool,
    model: type[models.Model],
    pk_set: set[Any] | None,
    using: str,
    **kwargs: Any,
) -> None:
    """Receive m2m_changed, from either side: the rows that have the field changed.

    loaddata sets the values of an instance that it has just saved as it was.
    """
    if instance.__dict__.get(_RAW):
        return
    owner = model if reverse else type(instance)
    when, _, what = action.partition("_")
    for stream in _streams(owner):
        field = _m2m_field(stream, sender)
        if field is None:
            continue
        key = f"{_BEFORE}_{sender._meta.label}_{what}"
        if when == "pre":
            pks = _m2m_rows(stream, field, instance, reverse, pk_set, using)
            before = None
            if stream.may_matter({field.name}):
                before = states.read(stream, using, pks, lock=True)
            instance.__dict__[key] = (pks, before)
            continue
        pks, before = instance.__dict__.pop(key, ([], None))
        if pks:
            announce(
                stream,
                "update",
                pks,
                using,
                before=before,
                changed=frozenset({field.name}),
            )


def _m2m_field(stream: ModelStream, through: type[models.Model]) -> Any:
    for field in stream.model._meta.local_many_to_many:
        if field.remote_field.through is through:
            return field
    return None


def _m2m_rows(
    stream: ModelStream,
    field: Any,
    instance: models.Model,
    reverse: bool,
    pk_set: set[Any] | None,
    using: str,
) -> list[Any]:
    """The pks of the rows with the field, of those that one call changes."""
    if pk_set is not None and not pk_set:
        return []
    if not reverse:
        return [_pk(instance, stream)]
    through = field.remote_field.through
    owner = through._meta.get_field(field.m2m_field_name())
    if pk_set is None:
        rows = through._base_manager.using(using).filter(
            **{field.m2m_reverse_field_name(): instance}
        )
        pk_set = set(rows.values_list(owner.attname, flat=True))
    if owner.target_field.primary_key:
        return sorted(pk_set)
    rows = stream.model._base_manager.using(using).filter(
        **{f"{owner.target_field.name}__in": pk_set}
    )
    return sorted(rows.values_list("pk", flat=True))


def _streams(sender: type[models.Model]) -> Iterator[ModelStream]:
    """The streams that speak of a row of `sender`: its own and its parents'."""
    concrete = sender._meta.concrete_model or sender
    for model in (concrete, *concrete._meta.get_parent_list()):
        stream = registry.get(model)
        if stream is not None and not is_silent(model):
            yield stream


def _pk(instance: models.Model, stream: ModelStream) -> Any:
    """The pk as the stream's model has it: a child's link may have another name."""
    return getattr(instance, stream.model._meta.pk.attname)


def _stack(instance: models.Model) -> list[dict[str, dict[Any, Row]]]:
    """A receiver of a save may save the same instance again."""
    stack: list[dict[str, dict[Any, Row]]] = instance.__dict__.setdefault(_BEFORE, [])
    return stack


def _pop(instance: models.Model) -> dict[str, dict[Any, Row]]:
    stack = _stack(instance)
    return stack.pop() if stack else {}


def _make_saves_atomic(model: type[models.Model]) -> None:
    """In autocommit Django sends post_save after the commit; capture needs it before.

    See `Model.save_base`: its atomic block ends before the signal. In a transaction
    nothing is changed: an error of a receiver would else mark it for rollback.
    """
    save_base = model.save_base
    if getattr(save_base, "grip_atomic", False):
        return

    @wraps(save_base)
    def atomic_save_base(self: models.Model, *args: Any, **kwargs: Any) -> None:
        given = {**dict(zip(_SAVE_BASE, args, strict=False)), **kwargs}
        using = given.get("using") or router.db_for_write(type(self), instance=self)
        stack = _stack(self)
        depth = len(stack)
        outer = self.__dict__.get(_INSERTS, False)
        self.__dict__[_INSERTS] = _inserts(self, given)
        is_open = transaction.get_connection(using).in_atomic_block
        try:
            with nullcontext() if is_open else transaction.atomic(using=using):
                save_base(self, *args, **kwargs)
        finally:
            del stack[depth:]
            self.__dict__[_INSERTS] = outer

    atomic_save_base.grip_atomic = True  # type: ignore[attr-defined]
    model.save_base = atomic_save_base  # type: ignore[method-assign]


_SAVE_BASE = ("raw", "force_insert", "force_update", "using", "update_fields")
"""The parameters of Model.save_base, in order."""


def _inserts(instance: models.Model, given: Mapping[str, Any]) -> bool:
    """Whether a save inserts for sure: see Model._save_table."""
    if given.get("force_insert"):
        return True
    if given.get("force_update") or given.get("update_fields") is not None:
        return False
    pk = instance._meta.pk
    return instance._state.adding and (pk.has_default() or pk.has_db_default())
