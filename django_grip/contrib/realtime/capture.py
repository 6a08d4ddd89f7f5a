"""Capture: model signals to announcements, inside the writer's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import wraps
from typing import Any

from django.apps import apps
from django.db import models, transaction
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from django_grip.contrib.realtime import managers, states
from django_grip.contrib.realtime.contexts import is_silent
from django_grip.contrib.realtime.delivery import announce
from django_grip.contrib.realtime.states import Row
from django_grip.contrib.realtime.streams import ModelStream, registry

_BEFORE = "_grip_before"
"""Where an instance carries its rows as they stood before the write under way."""


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
    if raw:
        return
    before: dict[str, dict[Any, Row]] = {}
    for stream in _streams(sender):
        pk = _pk(instance, stream)
        if not _is_new(instance, stream, pk) and stream.may_matter(update_fields):
            before[stream.label] = states.read(stream, using, [pk], lock=True)
    setattr(instance, _BEFORE, before)


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
    before = instance.__dict__.pop(_BEFORE, {})
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
        if not managers.is_collecting(stream) and stream.may_matter(None):
            before[stream.label] = states.read(stream, using, [pk], lock=True)
    setattr(instance, _BEFORE, before)


def on_delete(
    sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any
) -> None:
    """Receive post_delete, where the instance still has its pk."""
    before = instance.__dict__.pop(_BEFORE, {})
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
    """Receive m2m_changed, from either side: the rows that have the field changed."""
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
    if pk_set is not None:
        return sorted(pk_set)
    through = field.remote_field.through
    rows = through._base_manager.using(using).filter(
        **{field.m2m_reverse_field_name(): instance.pk}
    )
    column = through._meta.get_field(field.m2m_field_name()).attname
    return sorted(rows.values_list(column, flat=True))


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


def _is_new(instance: models.Model, stream: ModelStream, pk: Any) -> bool:
    """Whether save() will insert for sure: see Model._save_table."""
    field = stream.model._meta.pk
    return pk is None or (
        instance._state.adding
        and (field.has_default() or field.has_db_default())
        and type(instance)._meta.concrete_model is stream.model
    )


def _make_saves_atomic(model: type[models.Model]) -> None:
    """In autocommit Django sends post_save after the commit; capture needs it before.

    See `Model.save_base`: its atomic block ends before the signal.
    """
    save_base = model.save_base
    if getattr(save_base, "grip_atomic", False):
        return

    @wraps(save_base)
    def atomic_save_base(self: models.Model, *args: Any, **kwargs: Any) -> None:
        using = kwargs.get("using") or (args[3] if len(args) > 3 else None)
        with transaction.atomic(using=using, savepoint=False):
            save_base(self, *args, **kwargs)

    atomic_save_base.grip_atomic = True  # type: ignore[attr-defined]
    model.save_base = atomic_save_base  # type: ignore[method-assign]
