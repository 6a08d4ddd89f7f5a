"""Grant: what a client was allowed to stream. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Link: TypeAlias = Literal["shared", "private"] | None
"""How the proxy continues a stream: see Grant.link."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """A stream that its view allows, before it is known how the client takes it.

    `channel` is without GRIP_PREFIX. With the `link` "shared" the proxy asks at one
    path for all streams, and the channel alone decides the answer; with "private" at
    `link_path`, a path of this user's own, where the view is asked again; with None it
    does not ask. `user` is the pk of the user who was asked, None for nobody: private
    streams and WebSockets end when that user's permissions change. `snapshot` reads the
    rows that the stream begins with, each as JSON text.
    """

    channel: str
    link: Link = "shared"
    link_path: str | None = None
    user: Any = None
    snapshot: Callable[[], Sequence[str]] | None = None
