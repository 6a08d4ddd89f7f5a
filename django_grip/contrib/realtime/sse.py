"""Server-sent events: values to the bytes of a stream. Pure.

See https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re

KEEP_ALIVE = ":\n\n"
"""A comment: keeps the connection in use, and says nothing."""

_LINE_END = re.compile(r"\r\n|\r|\n")


def frame(event: str, data: str, *, id: str | None = None) -> str:
    """One event. A client gets `data` as it is, with every line end as one `\\n`."""
    lines = [f"event: {_single(event)}"]
    if id is not None:
        lines.append(f"id: {_single(id)}")
    lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return "\n".join(lines) + "\n\n"


def mark(id: str) -> str:
    """A new position without an event."""
    return f": moved on\nid: {_single(id)}\n\n"


def retry(milliseconds: int) -> str:
    """How long a client waits before it connects again."""
    return f"retry: {milliseconds}\n\n"


def _single(value: str) -> str:
    if _LINE_END.search(value) or "\0" in value:
        raise ValueError(f"{value!r} must be one line without NUL.")
    return value
