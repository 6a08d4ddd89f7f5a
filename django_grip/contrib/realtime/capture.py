"""Capture: model signals to changes, inside the writer's transaction."""

from __future__ import annotations

from collections.abc import Iterable
from functools import wraps
from typing import Any

from django.apps import apps
from django.db import models, transaction
from django.db.models.signals import post_delete, post_save

from django_grip.contrib.realtime.delivery import announce
from django_grip.contrib.realtime.events import Change
from django_grip.contrib.realtime.streams import ModelStream, registry


def connect(stream: ModelStream) -> None:
    """Hear of a stream's model, of its proxies and of its multi-table children.

    Each is named as a sender: a receiver without one would take the fast path of
    delete() from every model of the project.
    """
    _make_saves_atomic(stream.model)
    for model in apps.get_models(include_auto_created=True):
        if issubclass(model, stream.model):
            uid = "grip_realtime"
            post_save.connect(on_save, sender=model, dispatch_uid=uid)
            post_delete.connect(on_delete, sender=model, dispatch_uid=uid)


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
    for stream in _streams(sender):
        changed = None
        if update_fields is not None and not created:
            changed = frozenset(update_fields)
        announce(
            stream,
            Change(
                op="create" if created else "update",
                label=stream.label,
                pk=_pk(instance, stream),
                using=using,
                changed=changed,
            ),
        )


def on_delete(
    sender: type[models.Model], instance: models.Model, using: str, **kwargs: Any
) -> None:
    """Receive post_delete, where the instance still has its pk."""
    for stream in _streams(sender):
        announce(
            stream,
            Change(
                op="delete",
                label=stream.label,
                pk=_pk(instance, stream),
                using=using,
            ),
        )


def _streams(sender: type[models.Model]) -> Iterable[ModelStream]:
    """The streams that speak of a row of `sender`: its own and its parents'."""
    concrete = sender._meta.concrete_model or sender
    for model in (concrete, *concrete._meta.get_parent_list()):
        stream = registry.get(model)
        if stream is not None:
            yield stream


def _pk(instance: models.Model, stream: ModelStream) -> Any:
    """The pk as the stream's model has it: a child's link may have another name."""
    return getattr(instance, stream.model._meta.pk.attname)


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
