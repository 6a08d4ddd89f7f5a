"""Probes: what `grip_check` asks of sockets. Each ends within its time."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Self, TypeVar
from urllib.parse import urlsplit

from django_grip.management.findings import Burst
from django_grip.proxies import Proxy
from django_grip.publishers.endpoint import TIMEOUT, Answer, Endpoint

ANSWER_TIME = 10.0
"""Seconds for an answer through the proxy: it may have to wake Django."""

LINE_MAX = 10_000

BURST = 40
"""Publishes of one burst."""

BURST_GAP = 0.01
"""Seconds between two of them: far below what the limiter waits for."""

BURST_PATIENCE = 5.0
"""Seconds for the last item of a burst to arrive."""

EXPOSURE_TIME = 1.0
"""Seconds for a publish to another address of this machine."""

EMPTY_BATCH = b'{"items":[]}'

_T = TypeVar("_T")


def within(seconds: float, probe: Callable[[], _T]) -> _T:
    """The result of `probe`; raises TimeoutError after `seconds`, whatever it does.

    A resolver, for one, takes no timeout. Its thread is left behind as a daemon.
    """
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(probe())
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]


def control_port(proxy: Proxy, seconds: float = TIMEOUT + 1) -> Answer:
    """What the control port says to an empty batch with our authorization."""
    try:
        return within(seconds, lambda: _post(proxy, EMPTY_BATCH))
    except (TimeoutError, ValueError) as exc:
        return Answer(0, str(exc))


def _post(proxy: Proxy, body: bytes) -> Answer:
    endpoint = Endpoint(proxy)
    try:
        return endpoint.post(body)
    finally:
        endpoint.close()


def addresses_of(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses of a host; empty if there are none in time."""
    try:
        found = within(TIMEOUT, lambda: socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return []
    texts = {str(entry[4][0]).partition("%")[0] for entry in found}
    return [ipaddress.ip_address(text) for text in sorted(texts)]


def open_addresses(proxy: Proxy) -> list[str]:
    """The addresses of this machine, loopback aside, that take publishes at its port.

    Asked without authorization: who listens there may be somebody else.
    """
    url = urlsplit(proxy.control_uri or "")
    found = []
    for address in _own_addresses():
        host = f"[{address}]" if ":" in address else address
        port = url.port or (443 if url.scheme == "https" else 80)
        probe = Proxy(control_uri=f"{url.scheme}://{host}:{port}{url.path}")
        if control_port(probe, EXPOSURE_TIME).is_accepted:
            found.append(f"{host}:{port}")
    return found


def _own_addresses() -> list[str]:
    """Addresses that other machines may know this one by, one for each route."""
    addresses = {str(address) for address in addresses_of(socket.gethostname())}
    # Addresses for documentation: what matters is the route. UDP sends nothing yet.
    for family, target in (
        (socket.AF_INET, "203.0.113.1"),
        (socket.AF_INET, "10.255.255.254"),
        (socket.AF_INET, "172.17.255.254"),
        (socket.AF_INET, "192.168.255.254"),
        (socket.AF_INET6, "2001:db8::1"),
        (socket.AF_INET6, "fd00::ffff"),
    ):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            addresses.add(probe.getsockname()[0])
    return sorted(
        text
        for text in addresses
        if not (address := ipaddress.ip_address(text)).is_loopback
        and not address.is_link_local
        and not address.is_unspecified
    )


class Stream:
    """The answer to one GET, its lines read as they come. Use it in `with`.

    Raises OSError or HTTPException if there is no answer within ANSWER_TIME.
    """

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url = urlsplit(url)
        self._headers = headers
        self._connection: HTTPConnection
        self._response: HTTPResponse
        self._sock: socket.socket | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._lines: dict[str, float] = {}
        self._changed = threading.Condition()
        self._has_ended = False
        self._is_closed = False
        self.status = 0
        self.location = ""
        self.first_line = b""

    def __enter__(self) -> Self:
        try:
            within(ANSWER_TIME, self._open)
        except BaseException:
            self.close()
            raise
        with self._changed:
            self._changed.wait_for(lambda: self.first_line or self._has_ended, TIMEOUT)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def has_ended(self) -> bool:
        """Whether the answer is complete."""
        return self._has_ended

    def wait_for(self, lines: set[str], seconds: float) -> dict[str, float]:
        """When each of these lines came (monotonic), of those that come in time."""
        with self._changed:
            self._changed.wait_for(
                lambda: lines <= self._lines.keys() or self._has_ended, seconds
            )
            return {line: self._lines[line] for line in lines & self._lines.keys()}

    def close(self) -> None:
        """Hang up; the reading thread ends."""
        with self._changed:
            self._is_closed = True
            sock = self._sock
        if sock is not None:
            # close() alone would not wake a thread that reads.
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if self._reader.is_alive():
            self._reader.join(TIMEOUT)

    def _open(self) -> None:
        url = self._url
        connection_class = HTTPSConnection if url.scheme == "https" else HTTPConnection
        connection = connection_class(
            url.hostname or "", url.port, timeout=ANSWER_TIME / 2
        )
        try:
            connection.connect()
            with self._changed:
                self._refuse_if_closed()
                self._sock = connection.sock
            self._sock.settimeout(ANSWER_TIME)
            target = (url.path or "/") + (f"?{url.query}" if url.query else "")
            connection.request("GET", target, headers=self._headers)
            response = connection.getresponse()
            self._sock.settimeout(None)
            self.status = response.status
            self.location = response.headers.get("Location", "")
            self._connection, self._response = connection, response
            with self._changed:
                if self._is_closed:
                    response.close()
                self._refuse_if_closed()
                self._reader.start()
        except BaseException:
            connection.close()
            raise

    def _refuse_if_closed(self) -> None:
        """End the thread that `within` has left behind."""
        if self._is_closed:
            raise ConnectionAbortedError("closed meanwhile")

    def _read(self) -> None:
        try:
            while line := self._response.readline(LINE_MAX):
                with self._changed:
                    self.first_line = self.first_line or line
                    self._lines[line.decode("utf-8", "replace").rstrip("\n")] = (
                        time.monotonic()
                    )
                    self._changed.notify_all()
        except (OSError, HTTPException, ValueError):
            # Closed by us or broken by the other side: the same end.
            pass
        finally:
            self._response.close()
            self._connection.close()
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()


def burst(proxy: Proxy, channel: str, stream: Stream, mark: str) -> Burst:
    """Publish BURST items straight to the control port, and see them in the stream.

    No pacing, that is the point; each has a thread, so that a slow network does not
    spread them. `mark` tells the items of this burst from others.
    """
    answered: dict[int, float] = {}
    begin = time.monotonic() + 0.05

    def post(number: int) -> None:
        body = _body(channel, _line(mark, number))
        time.sleep(max(0.0, begin + number * BURST_GAP - time.monotonic()))
        if _post(proxy, body).is_accepted:
            answered[number] = time.monotonic()

    threads = [
        threading.Thread(target=post, args=(number,), daemon=True)
        for number in range(BURST)
    ]
    for thread in threads:
        thread.start()
    end = begin + BURST * BURST_GAP + TIMEOUT
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    posted = dict(answered)
    lines = {_line(mark, number): number for number in posted}
    arrived = stream.wait_for(set(lines), BURST_PATIENCE)
    return Burst(
        answered=posted,
        arrived={lines[line]: moment for line, moment in arrived.items()},
        until=time.monotonic(),
    )


def _line(mark: str, number: int) -> str:
    return f"{mark} {number}"


def _body(channel: str, line: str) -> bytes:
    formats = {"http-stream": {"content": line + "\n"}}
    return json.dumps({"items": [{"channel": channel, "formats": formats}]}).encode()
