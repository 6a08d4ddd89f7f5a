"""System checks of the realtime layer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import models

from django_grip.contrib.realtime import conf
from django_grip.contrib.realtime.managers import RealtimeQuerySet
from django_grip.contrib.realtime.streams import ModelStream, Serializer, registry

_SECRET = re.compile(
    r"(?:^|_)(?:password|passwd|secret|token|api_?key|private_?key)(?:_|$)"
)


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """E001: a key of GRIP_REALTIME that does not exist."""
    try:
        conf.check()
    except ImproperlyConfigured as exc:
        return [Error(str(exc), id="grip_realtime.E001")]
    return []


def check_serializers(**kwargs: Any) -> list[CheckMessage]:
    """E002: a serializer path that cannot be imported."""
    errors: list[CheckMessage] = []
    for stream in registry:
        try:
            _ = stream.serializers
        except ImproperlyConfigured as exc:
            errors.append(Error(str(exc), obj=stream.model, id="grip_realtime.E002"))
    return errors


def check_touch(**kwargs: Any) -> list[CheckMessage]:
    """E003: a touched model has no stream, so nothing is told of it."""
    return [
        Error(
            f"The stream of {stream.label} touches {name!r}, but {_label(parent)} is "
            "not registered for realtime: nothing is told of it.",
            hint=f"Register {_label(parent)} as well, or take {name!r} out of touch.",
            obj=stream.model,
            id="grip_realtime.E003",
        )
        for stream in registry
        for name in stream.touch
        if registry.get(parent := stream.model._meta.get_field(name).related_model)
        is None
    ]


def check_managers(**kwargs: Any) -> list[CheckMessage]:
    """W001: bulk writes of the default manager may move rows without a word.

    Where rows do not move, a client that misses one shows an old value until it asks
    again: the docs say so, and `realtime_list`. Where they do, it goes on showing a
    row that is no longer its own. Installed packages are not ours to change.
    """
    return [
        Warning(
            f"{stream.model._meta.label} has {_movable(stream)}, but update(), "
            "bulk_update(), bulk_create() and delete() of its manager "
            f"`{stream.model._default_manager.name}` are not seen: who could see a row "
            "that such a write moves goes on showing it.",
            hint="objects = RealtimeManager(); a manager of your own is made by "
            "from_queryset() of a subclass of RealtimeQuerySet.",
            obj=stream.model,
            id="grip_realtime.W001",
        )
        for stream in registry
        if _movable(stream)
        and not sees_bulk_writes(stream)
        and not _is_installed(stream.model)
    ]


def check_foreign_keys(**kwargs: Any) -> list[CheckMessage]:
    """W002: a deleted row changes others unseen. W003: the database deletes unseen.

    W002 only for foreign keys that the stream names: in `scopes`, `watch`, `touch`,
    `fields`, or in the fields of its serializers.
    """
    messages: list[CheckMessage] = []
    for stream in registry:
        named = _named(stream)
        for field in stream.model._meta.concrete_fields:
            if field.remote_field is None:
                continue
            parent = _label(field.related_model)
            on_delete = field.remote_field.on_delete
            if on_delete is getattr(models, "DB_CASCADE", ()):
                messages.append(
                    Warning(
                        f"When a row of {parent} is deleted, the database deletes "
                        f"those of {stream.model._meta.label} by itself "
                        f"({field.name}: DB_CASCADE): these deletes are not seen.",
                        hint="Use on_delete=models.CASCADE, or call "
                        "publish_changes(queryset, 'delete') before.",
                        obj=field,
                        id="grip_realtime.W003",
                    )
                )
            elif _is_set(on_delete) and not named.isdisjoint(
                {field.name, field.attname}
            ):
                messages.append(
                    Warning(
                        f"When a row of {parent} is deleted, {field.name} of "
                        f"{stream.model._meta.label} is set past the signals "
                        f"({_name_of(on_delete)}): these updates are not seen.",
                        hint=f"Before the delete, update({field.name}=…) through a "
                        "RealtimeManager; on_delete=models.PROTECT reminds of it.",
                        obj=field,
                        id="grip_realtime.W002",
                    )
                )
    return messages


def check_secrets(**kwargs: Any) -> list[CheckMessage]:
    """W004: `fields` names what looks like a secret. W005: all columns of a user."""
    messages: list[CheckMessage] = []
    for stream in registry:
        label = stream.model._meta.label
        if secret := [name for name in stream.fields or () if _SECRET.search(name)]:
            messages.append(
                Warning(
                    f"The stream of {label} sends {', '.join(secret)} to everyone who "
                    "may stream it.",
                    hint="Take it out of fields.",
                    obj=stream.model,
                    id="grip_realtime.W004",
                )
            )
        messages += [
            Warning(
                f"{getattr(serializer, '__name__', serializer)} sends every column of "
                f"{shown._meta.label} to everyone who may stream {label}, the "
                "password's hash too.",
                hint="Name the columns: Meta.fields = ['id', 'username'].",
                obj=stream.model,
                id="grip_realtime.W005",
            )
            for serializer in _serializers(stream)
            for shown in _shown_whole(serializer)
            if isinstance(shown, type) and issubclass(shown, AbstractBaseUser)
        ]
    return messages


def sees_bulk_writes(stream: ModelStream) -> bool:
    """Whether bulk writes of the model's default manager are told."""
    queryset = stream.model._default_manager.get_queryset()
    return isinstance(queryset, RealtimeQuerySet)


def _movable(stream: ModelStream) -> str:
    """What a row may move between, in words; empty if it stays where it is."""
    if stream.scopes:
        return f"the scope {', '.join(stream.scopes)}"
    return "a get_queryset() that rows may leave" if stream.is_restricted else ""


def _is_installed(model: type[models.Model]) -> bool:
    path = Path(apps.get_app_config(model._meta.app_label).path)
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _is_set(on_delete: Any) -> bool:
    """Whether a foreign key gets another value when its row goes, without a signal."""
    known = ("SET_NULL", "SET_DEFAULT", "DB_SET_NULL", "DB_SET_DEFAULT")
    return any(on_delete is getattr(models, name, ()) for name in known) or (
        _name_of(on_delete) == "SET()"
    )


def _name_of(on_delete: Any) -> str:
    # models.SET(…) is a function of its own each time; migrations ask it this way.
    deconstruct = getattr(on_delete, "deconstruct", None)
    if deconstruct is not None and deconstruct()[0] == "django.db.models.SET":
        return "SET()"
    return str(getattr(on_delete, "__name__", on_delete))


def _named(stream: ModelStream) -> set[str]:
    """The fields that the stream names, in its options or by its serializers."""
    named = {*(stream.fields or ()), *(stream.watch or ()), *stream.touch}
    named |= {
        source.split("__")[0]
        for source in stream.scopes.values()
        if isinstance(source, str)
    }
    for serializer in _serializers(stream):
        fields = getattr(getattr(serializer, "Meta", None), "fields", ())
        if fields == "__all__":
            fields = [field.name for field in stream.model._meta.concrete_fields]
        named |= set(fields)
    return named


def _serializers(stream: ModelStream) -> list[Serializer]:
    try:
        found = stream.serializers.values()
    except ImproperlyConfigured:
        return []  # E002 says which cannot be imported.
    return [serializer for serializer in found if serializer is not None]


def _shown_whole(serializer: Serializer) -> Iterator[type[models.Model]]:
    """The models that a ModelSerializer shows with all their columns."""
    meta = getattr(serializer, "Meta", None)
    model = getattr(meta, "model", None)
    if model is None:
        return
    fields = getattr(meta, "fields", None)
    exclude = getattr(meta, "exclude", ())
    if fields == "__all__" or (exclude and "password" not in exclude):
        yield model
    if getattr(meta, "depth", 0):
        for field in model._meta.get_fields():
            is_shown = fields in (None, "__all__") or field.name in fields
            if is_shown and field.name not in exclude and field.is_relation:
                yield field.related_model


def _label(model: type[models.Model]) -> str:
    return model._meta.label
