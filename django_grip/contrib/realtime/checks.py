"""System checks of the realtime layer."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured

from django_grip.contrib.realtime import conf
from django_grip.contrib.realtime.streams import registry


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
