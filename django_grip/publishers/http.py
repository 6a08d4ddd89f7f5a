"""The HTTP publisher: POST /publish/ to every proxy, each from a thread of its own.

Everything published goes through the same queue, so order is the order of the calls,
and one proxy that is slow or dead does not delay another.
"""

from __future__ import annotations

import atexit
import json
import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TypeAlias
from urllib.parse import urlsplit

import jwt
from django.core.exceptions import ImproperlyConfigured

from django_grip import conf, proxies
from django_grip.items import Item
from django_grip.proxies import Proxy
from django_grip.publishers.base import BasePublisher, Callback, Delivery, logger

BODY_MAX = 900_000
"""Bytes of one POST: Pushpin refuses 1,000,000."""

QUEUE_MAX = 100_000
"""Items that may wait for one proxy. Further ones fail at once, and say so."""

TIMEOUT = 5.0
"""Seconds for connecting, and for each read of the answer."""


_Queued: TypeAlias = tuple[Delivery, str | None]
"""A delivery, and why an item of it was left out (None: none was)."""


class Publisher(BasePublisher):
    """Publishes to every configured proxy, and to PUBLISH_SERVERS."""

    def __init__(self) -> None:
        self._interval = conf.publish_interval()
        self._senders = [
            Sender(proxy, self._interval)
            for proxy in proxies.configured() + proxies.publish_servers()
            if proxy.control_uri
        ]
        if self._senders:
            atexit.register(self.close)

    def publish(self, items: Sequence[Item]) -> None:
        """See BasePublisher.publish()."""
        self._send(items).wait()

    def enqueue(self, items: Sequence[Item], callback: Callback | None = None) -> None:
        """See BasePublisher.enqueue()."""
        self._send(items, callback)

    def _send(
        self, items: Sequence[Item], callback: Callback | None = None
    ) -> Delivery:
        delivery = Delivery(type(self), items, callback=callback)
        for sender in self._senders:
            delivery.expect(sender.address)
            sender.put(delivery)
        delivery.close()
        return delivery

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits, for at most `timeout` seconds; what is left is reported."""
        atexit.unregister(self.close)
        until = time.monotonic() + timeout
        for sender in self._senders:
            sender.close(until)


class Sender:
    """The queue of one proxy, and the daemon thread that empties it.

    Nagle-like: items leave at once when the last answer is more than `interval`
    seconds old, else they wait and leave together in one POST.
    """

    def __init__(self, proxy: Proxy, interval: float) -> None:
        self.address = _address(proxy)
        self._endpoint = _Endpoint(proxy)
        self._interval = interval
        self._queue: deque[tuple[_Queued, list[bytes]]] = deque()
        self._sending: list[_Queued] = []
        self._waiting = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._failed_items = 0

    def put(self, delivery: Delivery) -> None:
        """Queue a delivery; it is reported when this proxy has answered.

        An item that no proxy would take is logged and left out; the delivery then
        fails with that reason, and its other items are sent.
        """
        parts = []
        left_out = None
        for item in delivery.items:
            try:
                parts.append(_encode(item))
            except ValueError as exc:
                left_out = str(exc)
                logger.error("Not published to %s: %s", self.address, left_out)
        if not parts:
            delivery.report(self.address, left_out)
            return
        with self._changed:
            refusal = self._refusal(len(parts))
            if refusal is None:
                self._queue.append(((delivery, left_out), parts))
                self._waiting += len(parts)
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._run,
                        name=f"grip-sender {self.address}",
                        daemon=True,
                    )
                    self._thread.start()
                self._changed.notify()
                return
        self._settle([(delivery, left_out)], refusal)

    def _refusal(self, items: int) -> str | None:
        if self._closing:
            return "the publisher was closed"
        if self._waiting + items > QUEUE_MAX and self._waiting:
            return f"{self._waiting} items wait already (limit {QUEUE_MAX})"
        return None

    def close(self, until: float) -> None:
        """Stop when the queue is empty, or at `until` on the monotonic clock."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            # What is on its way may arrive, but nobody will be there to hear of it.
            left = self._sending + [queued for queued, _ in self._queue]
            self._sending = []
            self._queue.clear()
            self._waiting = 0
        if left:
            self._settle(left, "not sent before the process ended")

    def _run(self) -> None:
        next_at = 0.0
        while True:
            with self._changed:
                while not self._queue and not self._closing:
                    self._changed.wait()
                if not self._queue:
                    return
            self._sleep_until(next_at)
            bodies = self._take()
            reason = None
            for body in bodies:
                self._sleep_until(next_at)
                reason = self._endpoint.post(body) or reason
                next_at = time.monotonic() + self._interval
            with self._changed:
                sent, self._sending = self._sending, []
            self._settle(sent, reason)

    @staticmethod
    def _sleep_until(moment: float) -> None:
        if (pause := moment - time.monotonic()) > 0:
            time.sleep(pause)

    def _take(self) -> list[bytes]:
        """Begin sending what fits one body; a larger delivery is several bodies."""
        parts: list[bytes] = []
        size = 0
        with self._changed:
            while self._queue:
                queued, more = self._queue[0]
                more_size = sum(len(part) + 1 for part in more)
                if self._sending and size + more_size > BODY_MAX:
                    break
                self._queue.popleft()
                self._waiting -= len(more)
                self._sending.append(queued)
                parts += more
                size += more_size
        return _bodies(parts)

    def _settle(self, settled: list[_Queued], reason: str | None) -> None:
        """Report, and say the beginning and the end of an outage once."""
        if not settled:
            return
        if reason is not None:
            if not self._failed_items:
                logger.error(
                    "Publishing to %s failed: %s. Until it works again further "
                    "failures are counted, and signalled by publish_failed.",
                    self.address,
                    reason,
                )
            self._failed_items += sum(len(delivery.items) for delivery, _ in settled)
        elif self._failed_items:
            logger.warning(
                "Publishing to %s works again; %d items were not delivered.",
                self.address,
                self._failed_items,
            )
            self._failed_items = 0
        for delivery, left_out in settled:
            delivery.report(self.address, reason or left_out)


class _Endpoint:
    """One control port: where to POST and with what authorisation."""

    def __init__(self, proxy: Proxy) -> None:
        url = urlsplit(proxy.control_uri or "")
        self._proxy = proxy
        self._connection_class = (
            HTTPSConnection if url.scheme == "https" else HTTPConnection
        )
        self._host = url.hostname or ""
        self._port = url.port
        self._userinfo = (
            f"{url.username or ''}:{url.password or ''}" if "@" in url.netloc else None
        )
        path = url.path.rstrip("/") + "/publish/"
        self._target = f"{path}?{url.query}" if url.query else path

    def post(self, body: bytes) -> str | None:
        """Send one batch. Returns None if it was accepted, else the reason."""
        connection = self._connection_class(self._host, self._port, timeout=TIMEOUT)
        headers = {"Content-Type": "application/json", **self._authorization()}
        try:
            connection.request("POST", self._target, body, headers)
            response = connection.getresponse()
            text = response.read(1000).decode("utf-8", "replace").strip()
        except (OSError, HTTPException) as exc:
            return str(exc) or type(exc).__name__
        finally:
            connection.close()
        return None if response.status == 200 else f"HTTP {response.status}: {text}"

    def _authorization(self) -> dict[str, str]:
        if self._userinfo is not None:
            return {
                "Authorization": f"Basic {b64encode(self._userinfo.encode()).decode()}"
            }
        key = self._proxy.key
        if key is None:
            return {}
        if self._proxy.control_iss:
            claims = {"iss": self._proxy.control_iss, "exp": int(time.time()) + 3600}
            token = jwt.encode(claims, key, algorithm="HS256")
        else:
            token = key if isinstance(key, str) else b64encode(key).decode()
        return {"Authorization": f"Bearer {token}"}


def _address(proxy: Proxy) -> str:
    """The control URI without what may be secret, for logs and errors."""
    url = urlsplit(proxy.control_uri or "")
    if not url.hostname:
        raise ImproperlyConfigured(
            "The control URI of a GRIP proxy names no host: "
            f"{url.scheme}://{url.path}. Example: GRIP_URL = 'http://localhost:5561'."
        )
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}"


def _encode(item: Item) -> bytes:
    part = json.dumps(item.export(), ensure_ascii=False, separators=(",", ":")).encode()
    if len(part) > BODY_MAX:
        raise ValueError(
            f"an item of {len(part):,} bytes for channel {item.channel}; a proxy takes "
            f"{BODY_MAX:,}"
        )
    return part


def _bodies(parts: list[bytes]) -> list[bytes]:
    """Join encoded items into bodies of at most BODY_MAX bytes and a little frame."""
    bodies = []
    batch: list[bytes] = []
    size = 0
    for part in parts:
        if batch and size + len(part) + 1 > BODY_MAX:
            bodies.append(b'{"items":[' + b",".join(batch) + b"]}")
            batch, size = [], 0
        batch.append(part)
        size += len(part) + 1
    if batch:
        bodies.append(b'{"items":[' + b",".join(batch) + b"]}")
    return bodies
