"""Sender: the queue of one proxy, and the thread that empties it."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Sequence

from django_grip.proxies import Proxy
from django_grip.publishers.base import Delivery, Refusal, Share, logger
from django_grip.publishers.batches import (
    BODY_MAX,
    Entry,
    Part,
    grouped,
    leading,
    pack,
    post_body,
)
from django_grip.publishers.endpoint import Answer, Endpoint
from django_grip.publishers.slot import Slot

QUEUE_MAX = 100_000
"""Items that may wait for one proxy. What no longer fits is refused, and says so: what
waits already is nearer to its clients."""

QUEUE_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of content that may wait for one proxy."""

RETRY_FOR = 60.0
"""Seconds after which an item is given up: Pushpin knows the ids it has seen for 60 s,
so a later repetition could be shown twice."""

PATIENCE = 5.0
"""Seconds for which a blocking publish waits."""

BACK_OFF = (0.1, 5.0)
"""Seconds before the first repetition, doubled for each further one; and the most."""


class Sender:
    """Publishes to one proxy, in the order of the calls.

    Nagle-like: items leave at once when the last answer is more than `interval`
    seconds old, else they wait and leave together in one POST.
    """

    def __init__(self, proxy: Proxy, interval: float) -> None:
        self._endpoint = Endpoint(proxy)
        self.address = self._endpoint.address
        self._slot = Slot(self.address, interval)
        self._changed = threading.Condition()
        # The rest is guarded by it. What waits is in `_queue`, just being packed in
        # `_packing`, or, older, packed and perhaps on its way in `_parts`.
        self._thread: threading.Thread | None = None
        self._queue: deque[Entry] = deque()
        self._packing: list[Entry] = []
        self._parts: deque[Part] = deque()
        self._suspects = 0
        self._close_at: float | None = None
        self._is_closed = False
        self._count = self._bytes = 0
        self._sent = self._merged = self._retried = self._dropped = 0
        self._is_refusing = False
        self._is_late = False
        self._down_since: float | None = None
        self._down_reason = ""
        self._dropped_before = 0
        self._attempts = 0
        self._retry_at = 0.0

    # What callers call.

    def put(self, delivery: Delivery, *, blocking: bool = False) -> Share:
        """Queue the items of a delivery; its share is settled as they are answered."""
        share = delivery.expect(self.address)
        now = time.monotonic()
        entries = []
        size = 0
        for index, item in enumerate(delivery.items):
            try:
                entries.append(Entry(item, share, index, now, blocking, delivery.kept))
            except ValueError as exc:
                self._say_bad(item.channel, str(exc))
                share.settle(index, Refusal(exc))
                with self._changed:
                    self._dropped += 1
            else:
                size += entries[-1].size
        with self._changed:
            refusal = self._refusal(len(entries), size, now, blocking)
            if refusal is None:
                self._queue += entries
                self._count += len(entries)
                self._bytes += size
                self._changed.notify_all()
        if refusal is not None:
            self._refuse(entries, refusal)
        elif self._is_late:
            self._send_here()
        elif self._is_refusing and self._count - len(entries) < QUEUE_MAX / 2:
            self._is_refusing = False
            logger.warning("Items for %s are queued again.", self.address)
        return share

    def withdraw(self, share: Share, reason: str) -> None:
        """Give up what was not accepted yet, of a share that somebody waited for."""
        with self._changed:
            if self._down_since is not None:
                reason += f": {self._down_reason}"
        dropped = share.give_up(reason)
        with self._changed:
            self._dropped += dropped

    def trouble(self) -> str:
        """Why nothing gets through at the moment; empty if it does."""
        with self._changed:
            return "" if self._down_since is None else self._down_reason

    def refuse_to_wait(self) -> None:
        """Raise RuntimeError on the sender's own thread: it would wait for itself."""
        if self._is_own_thread():
            raise RuntimeError(
                "A callback or a receiver of a publisher's signal runs on the thread "
                "that sends, and cannot wait there: publish without blocking."
            )

    def _is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def wait_all_sent(self) -> None:
        """Return when nothing waits and nothing is on its way.

        Raises RuntimeError on the sender's own thread.
        """
        self.refuse_to_wait()
        with self._changed:
            self._changed.wait_for(lambda: self._count <= 0)

    def counters(self) -> dict[str, float]:
        """See BasePublisher.counters()."""
        with self._changed:
            waiting = [part.entries[0].since for part in self._parts]
            if self._queue:
                waiting.append(self._queue[0].since)
            return {
                "queued": self._count,
                "sent": self._sent,
                "merged": self._merged,
                "retried": self._retried,
                "dropped": self._dropped,
                "oldest_age": time.monotonic() - min(waiting) if waiting else 0.0,
            }

    def begin_close(self, until: float) -> None:
        """Take nothing more, and stop when the queue is empty or at `until`."""
        with self._changed:
            self._close_at = until
            self._changed.notify_all()

    def close(self, until: float) -> None:
        """Wait for the end, until `until` on the monotonic clock; report what is left.

        `begin_close` comes first.
        """
        with self._changed:
            thread = self._thread
            waits = self._waits()
        if waits and thread is not None and not self._is_own_thread():
            thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            # What is on its way may arrive, but nobody will be there to hear of it.
            left = [entry for part in self._parts for entry in part.entries]
            left += [*self._packing, *self._queue]
            self._is_closed = True
            self._parts.clear()
            self._packing.clear()
            self._queue.clear()
        left = [entry for entry in left if not entry.share.is_settled]
        if left:
            reason = "not sent before the publisher was closed"
            logger.error("%d items for %s: %s.", len(left), self.address, reason)
            self._settle(left, reason)
            self._leave(left)

    def _refusal(self, items: int, size: int, now: float, blocking: bool) -> str | None:
        """Why items cannot be queued, or None; the thread is started if need be."""
        if self._close_at is not None:
            return "the publisher was closed"
        if self._count and (
            self._count + items > QUEUE_MAX or self._bytes + size > QUEUE_BYTES_MAX
        ):
            return (
                f"{self._count:,} items of {self._bytes:,} bytes wait already (limits "
                f"{QUEUE_MAX:,} and {QUEUE_BYTES_MAX:,})"
            )
        if (
            blocking
            and self._down_since is not None
            and now - self._down_since > PATIENCE
            and now < self._retry_at
        ):
            return self._down_reason
        if self._thread is None:
            thread = threading.Thread(
                target=self._run, name=f"grip-sender {self.address}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                # The interpreter ends, and starts no thread any more (3.12).
                self._is_late = True
            else:
                self._thread = thread
        return None

    def _send_here(self) -> None:
        """Send on the caller's thread what waits, for at most PATIENCE."""
        until = time.monotonic() + PATIENCE
        while (self._queue or self._parts) and time.monotonic() < until:
            time.sleep(max(0.0, self._retry_at - time.monotonic()))
            if self._wait_for_slot() and (batch := self._take()):
                self._post(batch)

    def _refuse(self, entries: list[Entry], reason: str) -> None:
        if not self._is_refusing and self._down_since is None:
            self._is_refusing = True
            logger.error(
                "Items for %s are refused: %s. Until that ends further ones are "
                "counted, and signalled by publish_failed.",
                self.address,
                reason,
            )
        self._settle(entries, reason)

    # What the thread does.

    def _run(self) -> None:
        try:
            while self._wait_for_work() and self._wait_for_slot():
                try:
                    if batch := self._take():
                        self._post(batch)
                except Exception as exc:
                    # A boundary: one error must not end all publishing in silence.
                    logger.exception("An error of the sender of %s.", self.address)
                    self._give_up(f"an error of the sender: {type(exc).__name__}")
        finally:
            self._endpoint.close()
            self._slot.close()

    def _wait_for_work(self) -> bool:
        """Wait until something may be sent. False: the publisher is closed."""
        with self._changed:
            while True:
                now = time.monotonic()
                pause = None
                if self._close_at is not None and (
                    now >= self._close_at or not self._waits()
                ):
                    return False
                if self._queue or self._parts:
                    pause = self._retry_at - now
                    if pause <= 0:
                        return True
                self._changed.wait(pause)

    def _waits(self) -> bool:
        """Whether somebody waits for something that is here."""
        parts = (part.entries for part in self._parts)
        return any(
            not entry.share.is_settled
            for entries in (*parts, self._packing, self._queue)
            for entry in entries
        )

    def _wait_for_slot(self) -> bool:
        while (pause := self._slot.take()) > 0:
            if self._close_at is not None and time.monotonic() >= self._close_at:
                return False
            time.sleep(pause)
        return True

    def _take(self) -> list[Part]:
        """The batch to send now. It stays in `_parts` until it is answered."""
        self._weed()
        with self._changed:
            room = BODY_MAX - sum(len(part.body) for part in self._parts)
            while self._queue and room > 0:
                self._packing.append(self._queue.popleft())
                room -= self._packing[-1].size
            entries = self._packing[:]
        parts = []
        for group in _grouped(entries):
            parts += self._packed(group)
        with self._changed:
            if self._is_closed:
                return []
            self._packing.clear()
            self._parts += parts
            # One of the suspects spoils a batch: half of them shows in which half.
            most = max(1, self._suspects // 2) if self._suspects else len(self._parts)
            return leading(self._parts, most)

    def _packed(self, group: list[Entry]) -> list[Part]:
        """One part, or one for each entry where they cannot be one after all."""
        try:
            return [pack(group)]
        except Exception as exc:
            # A boundary: items may be made by anybody, and each must be told.
            if len(group) > 1:
                return [part for entry in group for part in self._packed([entry])]
            self._report_bad(group, _phrase(exc))
            self._leave(group)
            return []

    def _give_up(self, reason: str) -> None:
        """Report everything that was packed as failed."""
        with self._changed:
            entries = [entry for part in self._parts for entry in part.entries]
            entries += self._packing
            self._parts.clear()
            self._packing.clear()
            self._suspects = 0
        self._settle(entries, reason)
        self._leave(entries)

    def _weed(self) -> None:
        """Take out what is too old, and what nobody waits for any more."""
        with self._changed:
            expired = time.monotonic() - RETRY_FOR
            out = []
            for part in list(self._parts):
                if part.is_older(expired) or part.is_settled:
                    self._parts.remove(part)
                    self._suspects = 0
                    out += part.entries
            while self._queue and (
                self._queue[0].is_older(expired) or self._queue[0].share.is_settled
            ):
                out.append(self._queue.popleft())
        if out:
            self._settle(out, f"given up after {RETRY_FOR:g} s: {self._down_reason}")
            self._leave(out)

    def _post(self, batch: list[Part]) -> None:
        answer = self._endpoint.post(post_body(batch))
        self._slot.leave()
        if answer.is_bad_batch and len(batch) > 1:
            self._recover()
            self._suspects = len(batch)
        elif answer.is_bad_batch and len(batch[0].entries) > 1:
            self._recover()
            self._replace([pack([entry]) for entry in batch[0].entries])
        elif answer.is_transient:
            self._suffer(answer)
        else:
            self._conclude(batch, answer)

    def _replace(self, parts: list[Part]) -> None:
        """Take the first part apart."""
        with self._changed:
            if not self._is_closed:
                self._parts.popleft()
                self._parts.extendleft(reversed(parts))
                self._suspects = len(parts)

    def _conclude(self, batch: list[Part], answer: Answer) -> None:
        """Report a batch that was accepted, or never will be."""
        with self._changed:
            if self._is_closed:
                return
            for _ in batch:
                self._parts.popleft()
            self._suspects = max(0, self._suspects - len(batch))
        entries = [entry for part in batch for entry in part.entries]
        if answer.is_accepted:
            self._recover()
            self._merged += len(entries) - len(batch)
            self._settle(entries, None)
        elif answer.is_bad_batch:
            self._recover()
            self._suspects = 0
            self._report_bad(entries, answer.reason)
        else:
            self._say_down(answer.reason, "That does not heal by itself")
            self._settle(entries, answer.reason)
        self._leave(entries)

    def _suffer(self, answer: Answer) -> None:
        """The same bytes again, a little later each time."""
        again = f"It is tried again until items are {RETRY_FOR:g} s old"
        self._say_down(answer.reason, again)
        first, most = BACK_OFF
        pause = min(most, first * 2 ** min(self._attempts, 10))
        now = time.monotonic()
        with self._changed:
            self._attempts += 1
            self._retried += 1
            self._retry_at = now + pause * random.uniform(0.5, 1)
            if self._down_since is None or now - self._down_since < PATIENCE:
                return
            waited_for = [
                entry
                for entries in [*(part.entries for part in self._parts), self._queue]
                for entry in entries
                if entry.alone
            ]
        self._settle(waited_for, answer.reason)

    def _say_down(self, reason: str, prospect: str) -> None:
        with self._changed:
            self._down_reason = reason
            if self._down_since is not None:
                return
            self._down_since = time.monotonic()
            self._dropped_before = self._dropped
        logger.error(
            "Publishing to %s failed: %s. %s. Further failures are counted, and "
            "signalled by publish_failed.",
            self.address,
            reason,
            prospect,
        )

    def _recover(self) -> None:
        with self._changed:
            self._attempts = 0
            self._retry_at = 0.0
            if self._down_since is None:
                return
            self._down_since = None
            dropped = self._dropped - self._dropped_before
        logger.warning(
            "Publishing to %s works again; %d items were not delivered.",
            self.address,
            dropped,
        )

    def _report_bad(self, entries: list[Entry], reason: str) -> None:
        """Items that no proxy takes, each said once."""
        for entry in entries:
            self._say_bad(entry.item.channel, reason)
        self._settle(entries, Refusal(reason))

    def _say_bad(self, channel: str, reason: str) -> None:
        logger.error(
            "Not published to %s on channel %s: %s", self.address, channel, reason
        )

    def _settle(self, entries: Sequence[Entry], reason: str | None) -> None:
        """Tell the deliveries, and count what they had not given up themselves."""
        heard = sum(entry.share.settle(entry.index, reason) for entry in entries)
        with self._changed:
            if reason is None:
                self._sent += heard
            else:
                self._dropped += heard

    def _leave(self, entries: Sequence[Entry]) -> None:
        """Entries wait no more."""
        with self._changed:
            self._count -= len(entries)
            self._bytes -= sum(entry.size for entry in entries)
            if self._count <= 0:
                self._changed.notify_all()


def _grouped(entries: list[Entry]) -> list[list[Entry]]:
    try:
        return grouped(entries)
    except Exception:
        # A boundary: items may be made by anybody. Each will be told its own error.
        return [[entry] for entry in entries]


def _phrase(error: Exception) -> str:
    """An error in words. One that nobody foresaw may say anything: its name."""
    known = isinstance(error, (TypeError, ValueError))
    return str(error) if known else type(error).__name__
