"""The publisher: one small contract between publish() and what carries the items."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from asgiref.sync import sync_to_async

from django_grip.exceptions import PublishError
from django_grip.items import Item
from django_grip.signals import publish_failed, published

logger = logging.getLogger("django_grip.publishers")

Callback = Callable[[bool, str], object]


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
        delivery = Delivery(type(self), items, callback=callback)
        try:
            self.publish(items)
        except PublishError as exc:
            for address, reason in exc.failures.items():
                logger.error("Publishing to %s failed: %s", address, reason)
                delivery.expect(address)
                delivery.report(address, reason)
        delivery.close()

    async def apublish(self, items: Sequence[Item]) -> None:
        """See publish()."""
        await sync_to_async(self.publish, thread_sensitive=False)(items)

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most `timeout` seconds."""


class Delivery:
    """What becomes of the items of one call, server by server.

    `expect` each server, then `close`; each server `report`s once. When the last has
    reported, the callback is told, and `wait` returns. Thread-safe.
    """

    def __init__(
        self,
        publisher: type[BasePublisher],
        items: Sequence[Item],
        *,
        callback: Callback | None = None,
    ) -> None:
        self.items = items
        self.failures: dict[str, str] = {}
        self._publisher = publisher
        self._callback = callback
        self._open = 1
        self._lock = threading.Lock()
        self._done = threading.Event()

    def expect(self, address: str) -> None:
        """One more server will report."""
        with self._lock:
            self._open += 1

    def report(self, address: str, reason: str | None) -> None:
        """The server at `address` accepted (reason None) or will not get the items."""
        if reason is None:
            self._signal(published, address=address)
        else:
            with self._lock:
                self.failures[address] = reason
            self._signal(publish_failed, address=address, reason=reason)
        self.close()

    def close(self) -> None:
        """No further server will be expected by this caller."""
        with self._lock:
            self._open -= 1
            if self._open:
                return
        self._done.set()
        if self._callback is not None:
            message = str(PublishError(self.failures)) if self.failures else ""
            try:
                self._callback(not self.failures, message)
            except Exception:
                # A boundary: the callback is the user's, the thread is everybody's.
                logger.exception("The callback of a publish raised.")

    def wait(self) -> None:
        """Return when every server has reported. Raises PublishError for failures."""
        self._done.wait()
        if self.failures:
            raise PublishError(self.failures)

    def _signal(self, signal: object, **named: object) -> None:
        responses = signal.send_robust(  # type: ignore[attr-defined]
            sender=self._publisher, items=self.items, **named
        )
        for receiver, response in responses:
            if isinstance(response, Exception):
                logger.error(
                    "A receiver of a publisher's signal raised: %r",
                    receiver,
                    exc_info=response,
                )
