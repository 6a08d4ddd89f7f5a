"""Which sessions hear of which channel, and what waits for each of them. Pure.

No sockets and no event loop: whoever holds a connection makes a `Session`, is woken
by its callbacks, and writes what `take` returns.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django_grip.contrib.localproxy.items import Item, ResponseContent, StreamContent

logger = logging.getLogger(__name__)

QUEUE_MAX = 100
"""Items that may wait for one session, as in Pushpin."""

ID_SECONDS = 60.0
"""How long (channel, id) is remembered: a repeated publish within it is dropped."""

IDS_MAX = 100_000

Content = StreamContent | ResponseContent


class Session:
    """One held connection: its channels, and the content that waits to be written.

    `on_change` is called when there is something to take or the session has ended;
    `on_overflow` when the queue was full, which ends the session. An item that does
    not fit is never skipped in silence: a client whose connection is cut knows that
    it missed something and asks again, one whose stream goes on never finds out.
    (Pushpin drops the item and keeps the connection.)
    """

    def __init__(
        self,
        channels: Iterable[str],
        content_type: type[Content],
        *,
        on_change: Callable[[], None],
        on_overflow: Callable[[], None],
    ) -> None:
        self.channels = frozenset(channels)
        self.ended = False
        self._content_type = content_type
        self._queue: deque[Content] = deque()
        self._on_change = on_change
        self._on_overflow = on_overflow

    def content_of(self, item: Item) -> Content | None:
        """What the item has for this kind of session; None if nothing."""
        if self._content_type is StreamContent:
            return item.stream
        return item.response

    def offer(self, content: Content) -> bool:
        """Queue the content. False, and the session is over, if there is no room."""
        if len(self._queue) >= QUEUE_MAX:
            self.ended = True
            self._queue.clear()
            self._on_overflow()
            return False
        self._queue.append(content)
        self._on_change()
        return True

    def take(self) -> list[Content]:
        """Return everything that waits, oldest first, and forget it."""
        contents = list(self._queue)
        self._queue.clear()
        return contents

    def end(self) -> None:
        """Ask the holder to finish the connection properly."""
        self.ended = True
        self._on_change()


@dataclass
class Counts:
    """What happened since the start; the only memory of items that were not sent."""

    published: int = 0
    delivered: int = 0
    duplicates: int = 0
    overflows: int = 0


class Hub:
    """Channels and the sessions subscribed to them. Not thread-safe: one event loop.

    `clock` returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts = Counts()
        self._clock = clock
        self._sessions: dict[str, dict[Session, None]] = {}
        self._without_channel: dict[Session, None] = {}
        self._seen: dict[tuple[str, str], float] = {}

    def subscribe(self, session: Session) -> None:
        """Give the session every item published to its channels from now on."""
        if not session.channels:
            self._without_channel[session] = None
        for channel in session.channels:
            self._sessions.setdefault(channel, {})[session] = None

    def unsubscribe(self, session: Session) -> None:
        """Forget the session. It is no error if it is already forgotten."""
        self._without_channel.pop(session, None)
        for channel in session.channels:
            sessions = self._sessions.get(channel, {})
            sessions.pop(session, None)
            if not sessions:
                self._sessions.pop(channel, None)

    @contextmanager
    def subscription(self, session: Session) -> Iterator[Session]:
        """Subscribe for the length of a `with` block."""
        self.subscribe(session)
        try:
            yield session
        finally:
            self.unsubscribe(session)

    def subscribers(self, channel: str) -> int:
        """How many sessions hold the channel now."""
        return len(self._sessions.get(channel, ()))

    def publish(self, item: Item) -> int:
        """Offer the item to its channel's sessions; return how many took it.

        An item whose (channel, id) was published within ID_SECONDS is dropped, even
        if nobody was there to receive the first one: so does Pushpin.
        """
        self.counts.published += 1
        if item.id is not None and self._is_repeated(item.channel, item.id):
            self.counts.duplicates += 1
            return 0
        delivered = 0
        for session in list(self._sessions.get(item.channel, ())):
            content = session.content_of(item)
            if content is None or content.action == "hint":
                continue
            if session.offer(content):
                delivered += 1
            else:
                self._drop(session, item.channel)
        self.counts.delivered += delivered
        return delivered

    def close(self) -> None:
        """End every session."""
        sessions = {
            session: None for held in self._sessions.values() for session in held
        }
        for session in sessions | self._without_channel:
            session.end()

    def _drop(self, session: Session, channel: str) -> None:
        self.unsubscribe(session)
        self.counts.overflows += 1
        logger.warning(
            "A client of channel %r reads too slowly: %d items wait for it. It was "
            "disconnected, so that it can reconnect and ask for what it missed "
            "(%d clients so far).",
            channel,
            QUEUE_MAX,
            self.counts.overflows,
        )

    def _is_repeated(self, channel: str, item_id: str) -> bool:
        now = self._clock()
        # In the order of their time, so that the old ones are at the front.
        while self._seen:
            oldest = next(iter(self._seen))
            if self._seen[oldest] > now - ID_SECONDS and len(self._seen) < IDS_MAX:
                break
            del self._seen[oldest]
        if (channel, item_id) in self._seen:
            return True
        self._seen[channel, item_id] = now
        return False
