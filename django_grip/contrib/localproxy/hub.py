"""Which sessions hear of which channel, and what waits for each of them. Pure.

No sockets and no event loop: whoever holds a connection makes a `Session`, is woken
by its callbacks, and writes what `take` returns.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from django_grip.contrib.localproxy.filters import Meta, passes
from django_grip.contrib.localproxy.instructions import Channel
from django_grip.contrib.localproxy.items import (
    Content,
    Item,
    MessageContent,
    ResponseContent,
    StreamContent,
)
from django_grip.contrib.localproxy.sequencer import MESSAGE_WAIT, Sequencer

logger = logging.getLogger(__name__)

QUEUE_MAX = 100
"""Items that may wait for one session, as in Pushpin."""

ID_SECONDS = 60.0
"""How long (channel, id) is remembered: a repeated publish within it is dropped."""

IDS_MAX = 100_000

LINGER_SECONDS = 60.0
"""How long a channel counts as held after the last response hold left it."""


class Session:
    """One held connection: its channels, and the items that wait to be written.

    `on_change` is called when there is something to take or the session has ended or
    become stale; `on_overflow` when the queue was full, which ends the session. An
    item that does not fit is never skipped in silence: a client whose connection is
    cut knows that it missed something and asks again, one whose stream goes on never
    finds out. (Pushpin drops the item and keeps the connection.)

    A `stale` session has to ask the origin what it missed, by its next link or by the
    request itself; until `renew` its items wait.
    """

    def __init__(
        self,
        channels: Iterable[Channel],
        content_type: type[Content],
        *,
        meta: Meta | None = None,
        on_change: Callable[[], None],
        on_overflow: Callable[[], None],
    ) -> None:
        self.meta = dict(meta or {})
        self.ended = False
        self.stale = False
        self._is_refresh_due = False
        self._channels = {channel.name: channel for channel in channels}
        self._content_type = content_type
        self._queue: deque[Item] = deque()
        self._on_change = on_change
        self._on_overflow = on_overflow
        self._forget_last_id: Callable[[str], None] = _ignore

    @property
    def channels(self) -> Mapping[str, Channel]:
        """The channels by name."""
        return self._channels

    @property
    def is_poll(self) -> bool:
        """Whether this is a response hold, which ends with its first item."""
        return self._content_type is ResponseContent

    @property
    def last_ids(self) -> dict[str, str]:
        """The last id seen on each channel that is held with one."""
        return {
            channel.name: channel.prev_id
            for channel in self._channels.values()
            if channel.prev_id is not None
        }

    def content_of(self, item: Item) -> Content | None:
        """What the item has for this kind of session; None if nothing."""
        if self._content_type is StreamContent:
            return item.stream
        if self._content_type is MessageContent:
            return item.message
        return item.response

    def offer(self, item: Item) -> bool:
        """Queue the item. False, and the session is over, if there is no room."""
        if len(self._queue) >= QUEUE_MAX:
            self.ended = True
            self._queue.clear()
            self._on_overflow()
            return False
        self._queue.append(item)
        self._on_change()
        return True

    def take(self) -> list[Content]:
        """Return the content that may be written now, oldest first, and forget it.

        An item that does not follow on what the session has seen, or that is a hint,
        is not among it: it makes the session stale, and what is behind it waits.
        """
        contents: list[Content] = []
        while self._queue and not self.stale:
            item = self._queue.popleft()
            channel = self._channels.get(item.channel)
            content = self.content_of(item)
            if channel is None or content is None:
                continue
            if channel.prev_id is not None and channel.prev_id != item.prev_id:
                self._forget_last_id(item.channel)
                self.stale = True
            else:
                if channel.prev_id is not None:
                    self._channels[channel.name] = replace(channel, prev_id=item.id)
                if content.action == "hint":
                    self.stale = True
                elif passes(channel.filters, self.meta, item.meta, self._channels):
                    contents.append(content)
        if self._is_refresh_due:
            self._is_refresh_due = False
            self.stale = True
        return contents

    def refresh(self) -> None:
        """Make the session stale as soon as it has taken what waits for it."""
        # A WebSocket has no way to ask.
        if self._content_type is not MessageContent:
            self._is_refresh_due = True
            self._on_change()

    def drop_waiting(self) -> None:
        """Forget what waits: the origin's answer will contain it."""
        self._queue.clear()

    def renew(self, channels: Iterable[Channel], meta: Meta) -> None:
        """Go on with what the origin answered; drop what it contained already."""
        self.stale = False
        self._channels = {channel.name: channel for channel in channels}
        self.meta = dict(meta)
        while self._queue:
            first = self._queue[0]
            channel = self._channels.get(first.channel)
            if channel is not None and channel.prev_id in (None, first.prev_id):
                break
            self._queue.popleft()
        self._on_change()

    def end(self) -> None:
        """Ask the holder to finish the connection properly."""
        self.ended = True
        self._on_change()

    def attached(self, forget_last_id: Callable[[str], None]) -> None:
        """Take note of whom to tell that a channel's last id is in doubt."""
        self._forget_last_id = forget_last_id


def _ignore(channel: str) -> None:
    """What a session that is not subscribed does with a doubt."""


@dataclass
class Counts:
    """What happened since the start; the only memory of items that were not sent."""

    published: int = 0
    delivered: int = 0
    duplicates: int = 0
    overflows: int = 0


class Hub:
    """Channels and the sessions subscribed to them. Not thread-safe: one event loop.

    `clock` returns seconds that never go back; `message_wait` is in seconds.
    `on_first` is called with a channel that gets its first subscriber, `on_parked`
    when an item waits for its predecessor and `release` has to be called later.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        message_wait: float = MESSAGE_WAIT,
    ) -> None:
        self.counts = Counts()
        self.on_first: Callable[[str], None] = _ignore
        self.on_parked: Callable[[float], None] = lambda due: None
        self._clock = clock
        self._sequencer = Sequencer(clock, message_wait)
        self._sessions: dict[str, dict[Session, None]] = {}
        self._lingering: dict[str, float] = {}
        self._without_channel: dict[Session, None] = {}
        self._seen: dict[tuple[str, str], float] = {}

    def subscribe(self, session: Session) -> bool:
        """Give the session every item published to its channels from now on.

        False, and the session is stale, if an item was missed between the origin's
        answer and now.
        """
        session.attached(self._sequencer.forget)
        if not session.channels:
            self._without_channel[session] = None
        for channel in session.channels:
            if not self._is_held(channel):
                self._sequencer.forget(channel)
                self.on_first(channel)
            self._lingering.pop(channel, None)
            self._sessions.setdefault(channel, {})[session] = None
        missed = [
            channel
            for channel, prev_id in session.last_ids.items()
            if self._sequencer.last_id(channel) not in (None, prev_id)
        ]
        for channel in missed:
            self._sequencer.forget(channel)
        if missed:
            session.refresh()
        return not missed

    def unsubscribe(self, session: Session) -> None:
        """Forget the session. It is no error if it is already forgotten."""
        self._without_channel.pop(session, None)
        for channel in session.channels:
            self._leave(session, channel)

    def resubscribe(
        self, session: Session, channels: Iterable[Channel], meta: Meta
    ) -> None:
        """Replace the channels of the session by those of the origin's new answer."""
        before = set(session.channels)
        session.renew(channels, meta)
        for channel in before - set(session.channels):
            self._leave(session, channel)
        for channel in set(session.channels) - before:
            if not self._is_held(channel):
                self.on_first(channel)
            self._sessions.setdefault(channel, {})[session] = None
        self._without_channel.pop(session, None)
        if not session.channels:
            self._without_channel[session] = None

    def refresh(self, channel: str) -> None:
        """Let every session of the channel ask the origin what it missed."""
        for session in list(self._sessions.get(channel, ())):
            session.refresh()

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
        if nobody was there to receive the first one: so does Pushpin. One that names
        a predecessor which has not come waits for it, if anybody holds the channel.
        """
        self.counts.published += 1
        if item.id is not None and self._is_repeated(item.channel, item.id):
            self.counts.duplicates += 1
            return 0
        if not self._is_held(item.channel):
            return 0
        ready = self._sequencer.put(item)
        if not ready and (due := self._sequencer.due()) is not None:
            self.on_parked(due)
        return sum(self._deliver(each) for each in ready)

    def release(self) -> None:
        """Deliver the items whose predecessor did not come in time."""
        for item in self._sequencer.expired():
            self._deliver(item)
        if (due := self._sequencer.due()) is not None:
            self.on_parked(due)

    def _deliver(self, item: Item) -> int:
        delivered = 0
        for session in list(self._sessions.get(item.channel, ())):
            if session.content_of(item) is None:
                continue
            if session.offer(item):
                delivered += 1
            else:
                self._drop(session, item.channel)
        self.counts.delivered += delivered
        return delivered

    def _leave(self, session: Session, channel: str) -> None:
        sessions = self._sessions.get(channel, {})
        if sessions.pop(session, session) is None and session.is_poll:
            self._linger(channel)
        if not sessions:
            self._sessions.pop(channel, None)
        if not self._is_held(channel):
            self._sequencer.forget(channel)

    def _linger(self, channel: str) -> None:
        now = self._clock()
        # In the order of their time, so that the old ones are at the front.
        self._lingering.pop(channel, None)
        while self._lingering and next(iter(self._lingering.values())) <= now:
            del self._lingering[next(iter(self._lingering))]
        self._lingering[channel] = now + LINGER_SECONDS

    def _is_held(self, channel: str) -> bool:
        if channel in self._sessions:
            return True
        if self._lingering.get(channel, self._clock()) > self._clock():
            return True
        self._lingering.pop(channel, None)
        return False

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
