"""The publisher: one small contract between publish() and what carries the items."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from asgiref.sync import sync_to_async
from django.dispatch import Signal

from django_grip.exceptions import PublishError
from django_grip.items import Item
from django_grip.signals import publish_failed, published

logger = logging.getLogger("django_grip.publishers")

Callback = Callable[[bool, str], object]

Outcome = Callable[[Mapping[int, str]], object]
"""Told of an offer once: why, by index, items were not accepted; empty: all were."""


class Refusal(str):
    """Why an item was not accepted, if it never will be: it is too large, or wrong."""

    __slots__ = ()


class BasePublisher(ABC):
    """Delivers items, in order, to every configured server.

    A backend must implement `publish`; the rest has defaults that are right for one
    whose `publish` returns quickly.
    """

    @abstractmethod
    def publish(self, items: Sequence[Item]) -> None:
        """Deliver items in order and return when every server accepted them.

        Raises PublishError naming the servers that did not.
        """

    def enqueue(self, items: Sequence[Item], callback: Callback | None = None) -> None:
        """Deliver items soon, in the order of the calls; never raises PublishError.

        `callback(ok, message)` is told the outcome once. What cannot be delivered is
        logged and signalled by `publish_failed`.
        """
        delivery = Delivery(type(self), items, teller(callback))
        try:
            self.publish(items)
        except PublishError as exc:
            for address, reason in exc.failures.items():
                logger.error("Publishing to %s failed: %s", address, reason)
                delivery.expect(address).give_up(reason)
        delivery.close()

    async def apublish(self, items: Sequence[Item]) -> None:
        """See publish()."""
        await sync_to_async(self.publish, thread_sensitive=False)(items)

    @property
    def servers(self) -> Sequence[str]:
        """The names of the servers, for `offer`."""
        return [f"{type(self).__module__}.{type(self).__qualname__}"]

    def offer(
        self, server: str, items: Sequence[Item], outcome: Outcome
    ) -> Callable[[], object]:
        """Deliver to one server items that the caller keeps, and will offer again.

        Items of several offers arrive in the order of the calls, and may be joined.
        They are tried for as long as it takes; call what is returned to take them
        back. `outcome` is told once, on any thread; a reason that is a `Refusal` is
        final, and signalled by `publish_failed`.
        """
        try:
            self.publish(items)
        except PublishError as exc:
            reason = str(exc)
            outcome(dict.fromkeys(range(len(items)), reason))
        else:
            outcome({})
        return lambda: None

    def trouble(self, server: str) -> str:
        """Why nothing gets through to a server at the moment; empty if it does."""
        return ""

    def counters(self) -> dict[str, dict[str, float]]:
        """What an exporter reads, for each server: `{address: {name: value}}`."""
        return {}

    def wait_all_sent(self) -> None:
        """Return when nothing waits any more."""

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most `timeout` seconds."""


class Delivery:
    """What becomes of the items of one call, server by server.

    `expect` each server, then `close`. When the last share is settled, `done` is told
    the failures: `{address: reason}`. Thread-safe. What is `kept` is delivered again
    by the caller: only a `Refusal` is signalled as failed.
    """

    def __init__(
        self,
        publisher: type[BasePublisher],
        items: Sequence[Item],
        done: Callable[[Mapping[str, str]], object] | None = None,
        *,
        kept: bool = False,
    ) -> None:
        self.items = items
        self.kept = kept
        self.failures: dict[str, str] = {}
        self.lock = threading.Lock()
        self._publisher = publisher
        self._done = done
        self._open = 1

    def expect(self, address: str) -> Share:
        """One more server will have a share in this."""
        with self.lock:
            self._open += 1
        return Share(self, address)

    def close(self) -> None:
        """No further server will be expected by this caller."""
        with self.lock:
            self._open -= 1
            if self._open:
                return
        if self._done is not None:
            with _guarded("The callback of a publish"):
                self._done(self.failures)

    def report(self, address: str, reasons: Mapping[int, str | None]) -> None:
        """Signal what the server accepted and what it did not, and why."""
        outcomes: dict[str | None, list[Item]] = {}
        for index, item in enumerate(self.items):
            outcomes.setdefault(reasons[index], []).append(item)
        for reason, items in outcomes.items():
            if reason is None:
                self._signal(published, items=items, address=address)
            elif self.kept and not isinstance(reason, Refusal):
                continue
            else:
                self._signal(
                    publish_failed, items=items, address=address, reason=reason
                )
                if len(items) < len(self.items):
                    reason = f"{len(items)} of {len(self.items)} items: {reason}"
                with self.lock:
                    self.failures.setdefault(address, reason)
        self.close()

    def _signal(self, signal: Signal, **named: object) -> None:
        with _guarded("A receiver of a publisher's signal"):
            # Django logs what receivers raise.
            signal.send_robust(sender=self._publisher, **named)


class Share:
    """What one server still has to say about the items of a delivery."""

    __slots__ = ("_delivery", "_reasons", "address")

    def __init__(self, delivery: Delivery, address: str) -> None:
        self.address = address
        self._delivery = delivery
        self._reasons: dict[int, str | None] = {}

    @property
    def failures(self) -> dict[int, str]:
        """Why items were not accepted, by index."""
        return {i: reason for i, reason in self._reasons.items() if reason is not None}

    @property
    def is_settled(self) -> bool:
        """Whether the outcome of every item is known."""
        return len(self._reasons) == len(self._delivery.items)

    def settle(self, index: int, reason: str | None = None) -> bool:
        """The server accepted item `index` (reason None), or will not get it.

        Returns whether that was news: what comes after `give_up` is not.
        """
        with self._delivery.lock:
            if self.is_settled:
                return False
            self._reasons[index] = reason
            if not self.is_settled:
                return True
        self._delivery.report(self.address, self._reasons)
        return True

    def give_up(self, reason: str) -> int:
        """The server will not get the items whose outcome is not known yet.

        Returns how many that are.
        """
        with self._delivery.lock:
            given_up = len(self._delivery.items) - len(self._reasons)
            if not given_up:
                return 0
            for index in range(len(self._delivery.items)):
                self._reasons.setdefault(index, reason)
        self._delivery.report(self.address, self._reasons)
        return given_up


def teller(
    callback: Callback | None,
) -> Callable[[Mapping[str, str]], object] | None:
    """What tells the user's callback."""
    if callback is None:
        return None

    def tell(failures: Mapping[str, str]) -> None:
        callback(not failures, str(PublishError(failures)) if failures else "")

    return tell


@contextmanager
def _guarded(what: str) -> Iterator[None]:
    """A boundary: the code is the user's, the thread that runs it is everybody's."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException:
        logger.exception("%s raised.", what)
