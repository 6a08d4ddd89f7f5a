"""The order of items that name their predecessor. Pure.

An item whose `prev-id` is not the channel's last id is parked until that one came,
for at most `wait` seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from django_grip.contrib.localproxy.items import Item

PARKED_MAX = 100
"""Items parked per channel, as in Pushpin; more are dropped."""

MESSAGE_WAIT = 5.0
"""Seconds an item waits for its predecessor, as in Pushpin."""


class Sequencer:
    """Remembers the last id of each channel and parks what comes too early.

    `clock` returns seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float], wait: float = MESSAGE_WAIT) -> None:
        self._clock = clock
        self._wait = wait
        self._last: dict[str, str] = {}
        # By channel and then by the awaited id: when it was parked, and the item.
        self._parked: dict[str, dict[str, tuple[float, Item]]] = {}

    def last_id(self, channel: str) -> str | None:
        """The id of the last item of the channel; None if unknown."""
        return self._last.get(channel)

    def forget(self, channel: str) -> None:
        """Forget the last id: the next item is delivered whatever its prev-id."""
        self._last.pop(channel, None)

    def put(self, item: Item) -> list[Item]:
        """Return what may be delivered now, in order: nothing if the item is parked."""
        if item.no_seq:
            return [item]
        last = self._last.get(item.channel)
        if last is not None and item.prev_id not in (None, last):
            self._park(item)
            return []
        return list(self._released(item))

    def due(self) -> float | None:
        """When `expired` has something to return next; None if nothing is parked."""
        times = [
            parked + self._wait
            for items in self._parked.values()
            for parked, _ in items.values()
        ]
        return min(times, default=None)

    def expired(self) -> list[Item]:
        """Return the items that waited long enough, and what they release."""
        limit = self._clock() - self._wait
        items: list[Item] = []
        for channel in list(self._parked):
            while (parked := self._parked.get(channel)) is not None:
                awaited, (since, item) = next(iter(parked.items()))
                if since > limit:
                    break
                self._unpark(channel, awaited)
                items += self._released(item)
        return items

    def _released(self, item: Item) -> Iterator[Item]:
        following: Item | None = item
        while following is not None:
            yield following
            if following.id is None:
                self._last.pop(following.channel, None)
                return
            self._last[following.channel] = following.id
            following = self._unpark(following.channel, following.id)

    def _park(self, item: Item) -> None:
        parked = self._parked.setdefault(item.channel, {})
        if len(parked) < PARKED_MAX and item.prev_id is not None:
            parked.setdefault(item.prev_id, (self._clock(), item))

    def _unpark(self, channel: str, awaited: str) -> Item | None:
        parked = self._parked.get(channel)
        if parked is None:
            return None
        _, item = parked.pop(awaited, (0.0, None))
        if not parked:
            del self._parked[channel]
        return item
