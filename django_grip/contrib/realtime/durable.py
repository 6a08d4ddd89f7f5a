"""Durable: the place of the event log, which is in use when its app is installed.

The layers above and below meet here: those who write and those who stream ask `log`,
and know nothing of what keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from django_grip.contrib.realtime.events import Telling


@dataclass(frozen=True, kw_only=True)
class Kept:
    """An event as it is kept: its position, its op and its envelope.

    The op "close" has none: see events.Event.
    """

    position: str
    op: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a client has missed on one channel.

    `position` is where the client stands after `events`. `reset` is the reason why
    history cannot answer (`expired`, `epoch`, `overflow`, `future`, `bad-id`): then
    `events` is empty, and the client fetches what it shows. With `next_path` there is
    more, under that path. A page without events `is_behind` if some are just being
    published: the proxy may have had them, and nobody knows yet. It `is_closed` if
    streams were ended that had been granted before: who has missed that has to be asked
    again.
    """

    channel: str
    position: str
    events: Sequence[Kept] = ()
    reset: str | None = None
    next_path: str | None = None
    is_behind: bool = False
    is_closed: bool = False


class EventLog(Protocol):
    """What keeps events in order."""

    def write(self, using: str, tellings: Sequence[Telling]) -> None:
        """Keep these, in the transaction under way on `using` if there is one.

        Raises DatabaseError if they cannot be kept: then nothing may be committed.
        """

    def read(self, channel: str, since: str | None, *, trusted: bool = False) -> Page:
        """What came on a channel after the position `since`; None: from now on.

        Whatever `since` is, there is an answer. It is `trusted` where a proxy says it
        in a request that is verified.
        """

    def position(self, channel: str) -> str:
        """Where a channel stands now, and every other one of the same database.

        A client that has read its rows since misses nothing by streaming from here.
        """

    def newest(self, channel: str, since: str) -> Page:
        """Like read(), but the last event alone, if it came after `since`.

        Whoever follows the rule for clients sees by its `prev` whether it has missed
        others. `since` is a position that was given out.
        """

    def link_path(self) -> str | None:
        """The path under which the proxy asks what its streams have missed.

        None: it cannot be trusted to ask, as no proxy has a key.
        """

    def opened(self, channel: str) -> None:
        """A stream of a channel was opened, and has to end by STREAM_MAX_AGE."""

    def held(self, prefix: str) -> Sequence[str]:
        """The channels with streams whose names begin so: a label, and what follows."""


log: EventLog | None = None
"""The event log in use."""
