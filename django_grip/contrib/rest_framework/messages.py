"""Messages: what a socket's client is told, as texts that one answer can carry. Pure.

Each text is a JSON array of objects. Those with an `op` are events, and what replaces
them: `reset`, `snapshot`. Those with a `type` speak of the subscription itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from django_grip.websocket import MESSAGE_MAX

TOGETHER = 16_000
"""Bytes of a message of several objects."""

ANSWER_BYTES = 900_000
"""Bytes of events and rows in one answer: a proxy takes 1,000,000."""

OBJECT_MAX = MESSAGE_MAX - 2
"""Bytes of one object: a message has brackets around it."""

_JSON = json.JSONEncoder(separators=(",", ":"))


class Messages:
    """The objects that one answer tells, in order."""

    def __init__(self) -> None:
        self._objects: list[str] = []
        self._left = ANSWER_BYTES

    def tell(self, **values: Any) -> None:
        """Add an object; what is None is left out."""
        told = {name: value for name, value in values.items() if value is not None}
        self._objects.append(_JSON.encode(told))

    def add(self, *texts: str) -> bool:
        """Add these objects, or none of them: False if they do not all fit."""
        sizes = [_size(text) for text in texts]
        if sum(sizes) > self._left or max(sizes, default=0) > OBJECT_MAX:
            return False
        self._left -= sum(sizes)
        self._objects += texts
        return True

    def texts(self) -> Iterator[str]:
        """The messages."""
        together: list[str] = []
        size = 0
        for text in self._objects:
            own = _size(text) + 1
            if together and size + own > TOGETHER:
                yield f"[{','.join(together)}]"
                together, size = [], 0
            together.append(text)
            size += own
        if together:
            yield f"[{','.join(together)}]"


def fitting(envelope: str) -> str:
    """An envelope, or what is left of it that fits a message.

    A published message has any size, one in an answer has not: `truncated` says that
    `data`, or the pks of a bulk event, are left out.
    """
    if _size(envelope) <= OBJECT_MAX:
        return envelope
    values = json.loads(envelope)
    values.pop("data", None)
    values.pop("pks", None)
    return _JSON.encode(values | {"truncated": True})


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
