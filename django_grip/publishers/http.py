"""The HTTP publisher: POST /publish/ to every proxy, each from a thread of its own.

Everything published goes through the same queues, so order is the order of the calls,
and one proxy that is slow or dead does not delay another.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from django_grip import conf, proxies
from django_grip.exceptions import PublishError
from django_grip.items import Item
from django_grip.publishers.base import (
    BasePublisher,
    Callback,
    Delivery,
    Outcome,
    Share,
    teller,
)
from django_grip.publishers.sender import PATIENCE, Sender


class Publisher(BasePublisher):
    """Publishes to every configured proxy, and to PUBLISH_SERVERS."""

    def __init__(self) -> None:
        interval = conf.publish_interval()
        self._senders = [
            Sender(proxy, interval)
            for proxy in proxies.configured() + proxies.publish_servers()
            if proxy.control_uri
        ]

    def publish(self, items: Sequence[Item]) -> None:
        """See BasePublisher.publish(). Returns or raises within PATIENCE.

        Raises RuntimeError on a sender's own thread, in a callback or a receiver:
        there it would wait for itself.
        """
        done = threading.Event()
        delivery, shares = self._send(items, lambda failures: done.set(), blocking=True)
        if not done.wait(PATIENCE):
            _withdraw(shares, f"not accepted within {PATIENCE:g} s")
        if delivery.failures:
            raise PublishError(delivery.failures)

    async def apublish(self, items: Sequence[Item]) -> None:
        """See publish(). No thread waits."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def tell(failures: Mapping[str, str]) -> None:
            loop.call_soon_threadsafe(done.set)

        delivery, shares = self._send(items, tell, blocking=True)
        try:
            async with asyncio.timeout(PATIENCE):
                await done.wait()
        except TimeoutError:
            _withdraw(shares, f"not accepted within {PATIENCE:g} s")
        except asyncio.CancelledError:
            _withdraw(shares, "cancelled")
            raise
        if delivery.failures:
            raise PublishError(delivery.failures)

    def enqueue(self, items: Sequence[Item], callback: Callback | None = None) -> None:
        """See BasePublisher.enqueue()."""
        self._send(items, teller(callback))

    @property
    def servers(self) -> Sequence[str]:
        """See BasePublisher.servers."""
        return [sender.address for sender in self._senders]

    def offer(
        self, server: str, items: Sequence[Item], outcome: Outcome
    ) -> Callable[[], object]:
        """See BasePublisher.offer()."""
        [sender] = [sender for sender in self._senders if sender.address == server]

        def done(failures: Mapping[str, str]) -> None:
            outcome(share.failures)

        delivery = Delivery(type(self), items, done, kept=True)
        share = sender.put(delivery)
        delivery.close()
        return lambda: share.give_up("taken back")

    def trouble(self, server: str) -> str:
        """See BasePublisher.trouble()."""
        return next(
            (each.trouble() for each in self._senders if each.address == server), ""
        )

    def counters(self) -> dict[str, dict[str, float]]:
        """See BasePublisher.counters().

        `queued`: items that wait or are on their way. `sent`: items accepted.
        `merged`: items that travelled inside another. `retried`: POSTs repeated.
        `dropped`: items given up, each of which was reported. `oldest_age`: seconds
        that the oldest has waited.
        """
        return {sender.address: sender.counters() for sender in self._senders}

    def wait_all_sent(self) -> None:
        """Return when nothing waits and nothing is on its way.

        Raises RuntimeError on a sender's own thread.
        """
        for sender in self._senders:
            sender.wait_all_sent()

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most `timeout` seconds; what is left is reported."""
        until = time.monotonic() + timeout
        for sender in self._senders:
            sender.begin_close(until)
        for sender in self._senders:
            sender.close(until)

    def _send(
        self,
        items: Sequence[Item],
        done: Callable[[Mapping[str, str]], object] | None,
        *,
        blocking: bool = False,
    ) -> tuple[Delivery, list[tuple[Sender, Share]]]:
        if blocking:
            for sender in self._senders:
                sender.refuse_to_wait()
        delivery = Delivery(type(self), items, done)
        shares = []
        if items:
            for sender in self._senders:
                shares.append((sender, sender.put(delivery, blocking=blocking)))
        delivery.close()
        return delivery, shares


def _withdraw(shares: list[tuple[Sender, Share]], reason: str) -> None:
    for sender, share in shares:
        sender.withdraw(share, reason)
