"""Answers: what the stream URLs of a project say to one user about one row.

This layer has no URLs. An app that has some adds what asks them to `askers`, in its
`ready()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import models


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A URL holds `channel`, or does not, for a reason."""

    url: str
    channel: str | None = None
    reason: str = ""


Asker = Callable[[models.Model, Any], Iterable[Answer]]
"""Called with a row and a user, None for nobody."""

askers: list[Asker] = []
