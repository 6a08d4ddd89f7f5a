"""What surrounds a write: silence, and who it is done for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import models

_silent: ContextVar[frozenset[type[models.Model] | None]] = ContextVar(
    "grip_silent", default=frozenset()
)
_origin: ContextVar[str | None] = ContextVar("grip_origin", default=None)


@contextmanager
def suppress(*model_classes: type[models.Model]) -> Iterator[None]:
    """Announce nothing of these models inside the block; of any, if none is named.

    What was announced before stays announced. Tell the clients afterwards with
    `publish_changes`, or they go on with what they have.
    """
    concrete = {model._meta.concrete_model for model in model_classes} or {None}
    token = _silent.set(_silent.get() | concrete)
    try:
        yield
    finally:
        _silent.reset(token)


@contextmanager
def actor(origin: str | None) -> Iterator[None]:
    """Mark what is announced inside the block with where it comes from; None: do not.

    Events carry it as `origin`, and items as meta `sender`, so that a client knows its
    own changes again, and a hold with `skip-self` is spared them.
    """
    token = _origin.set(origin)
    try:
        yield
    finally:
        _origin.reset(token)


def is_silent(model: type[models.Model]) -> bool:
    """Whether a concrete model is suppressed here."""
    silent = _silent.get()
    return bool(silent) and (None in silent or model in silent)


def current_origin() -> str | None:
    """What `actor` says here."""
    return _origin.get()
