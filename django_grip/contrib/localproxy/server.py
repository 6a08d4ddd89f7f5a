"""The local proxy as a running thing: two ports, one event loop, in a thread."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

from aiohttp import web

from django_grip.contrib.localproxy.addresses import Address
from django_grip.contrib.localproxy.control import Control
from django_grip.contrib.localproxy.hub import Counts, Hub
from django_grip.contrib.localproxy.proxy import Proxy
from django_grip.contrib.localproxy.sequencer import MESSAGE_WAIT
from django_grip.contrib.localproxy.signing import Signer

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

STOP_SECONDS = 0.3
"""How long requests under way may take to finish when the proxy stops."""

LINGER_SECONDS = 1.0
"""How long a body that was refused is still read, so that the answer gets through."""

_HEAD_MAX = 65536


class BindError(OSError):
    """An address cannot be listened on; the message names it and the cure."""


class LocalProxy:
    """A GRIP proxy in front of `upstream` (such as `http://127.0.0.1:8000`).

    Clients connect to `listen`, publishers to `control`; port 0 takes any free one,
    and after `start()` both attributes tell the real ones. With `key` (a shared
    secret) requests to the origin are signed in the name of `iss`. An item waits
    `message_wait` seconds for the one before it. Starts once.

    Raises ValueError for a key that cannot sign.
    """

    def __init__(
        self,
        *,
        upstream: str,
        listen: Address = Address("127.0.0.1", 7999),  # noqa: B008
        control: Address = Address("127.0.0.1", 5561),  # noqa: B008
        key: str | bytes | None = None,
        iss: str = "pushpin",
        message_wait: float = MESSAGE_WAIT,
    ) -> None:
        self.upstream = upstream
        self.listen = listen
        self.control = control
        self._hub = Hub(message_wait=message_wait)
        self._signer = None if key is None else Signer(key, iss)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Where a client on this machine finds the proxy."""
        return f"http://{self.listen.reachable}"

    @property
    def control_url(self) -> str:
        """What GRIP_URL should be for a Django on this machine."""
        return f"http://{self.control.reachable}"

    @property
    def counts(self) -> Counts:
        """What was published, delivered and not delivered so far."""
        return self._hub.counts

    def start(self) -> None:
        """Listen on both ports and serve in a daemon thread.

        Raises BindError if a port cannot be had; then nothing is left running.
        Raises RuntimeError if the proxy dies at once.
        """
        listening = _listen(self.listen, "--listen")
        try:
            controlling = _listen(self.control, "--control")
        except BindError:
            listening.close()
            raise
        self.listen = Address(self.listen.host, listening.getsockname()[1])
        self.control = Address(self.control.host, controlling.getsockname()[1])

        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run_loop,
            args=(listening, controlling, ready.set),
            name="grip-localproxy",
            daemon=True,
        )
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            self.stop()

    def stop(self) -> None:
        """End the held streams and close both ports; return when that is done.

        Raises RuntimeError if the proxy had died before of a fault of its own.
        """
        if self._thread is None:
            return
        if self._loop is not None and self._stopping is not None:
            try:
                self._loop.call_soon_threadsafe(self._stopping.set)
            except RuntimeError:
                logger.debug("The loop of the local proxy is closed already.")
        self._thread.join()
        self._thread = None
        if self._failure is not None:
            raise RuntimeError("The local GRIP proxy died.") from self._failure

    def run(self, on_start: Callable[[], None]) -> None:
        """Start, call `on_start`, and serve until SIGINT or SIGTERM.

        For the main thread only. Raises what start() and stop() raise.
        """
        told = threading.Event()

        def tell(number: int, frame: FrameType | None) -> None:
            told.set()

        previous = {
            number: signal.signal(number, tell)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self.start()
            on_start()
            # In steps: on Windows a signal does not interrupt the wait.
            while self._thread is not None and self._thread.is_alive():
                if told.wait(0.5):
                    break
        finally:
            self.stop()
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _run_loop(
        self,
        listening: socket.socket,
        controlling: socket.socket,
        on_ready: Callable[[], None],
    ) -> None:
        try:
            asyncio.run(self._serve(listening, controlling, on_ready))
        except Exception as exc:
            self._failure = exc
            logger.exception("The local GRIP proxy died.")
        finally:
            on_ready()
            listening.close()
            controlling.close()

    async def _serve(
        self,
        listening: socket.socket,
        controlling: socket.socket,
        on_ready: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        proxy = Proxy(self._hub, self.upstream, self._signer)
        runners = [
            (_runner(Control(self._hub).application()), controlling),
            (_runner(proxy.application()), listening),
        ]
        try:
            for runner, sock in runners:
                await runner.setup()
                await web.SockSite(runner, sock, backlog=1024).start()
            on_ready()
            await self._stopping.wait()
        finally:
            for runner, _ in runners:
                await runner.cleanup()


def _runner(application: web.Application) -> web.AppRunner:
    return web.AppRunner(
        application,
        access_log=None,
        auto_decompress=False,
        handle_signals=False,
        # A client that leaves must be unsubscribed at once.
        handler_cancellation=True,
        lingering_time=LINGER_SECONDS,
        max_field_size=_HEAD_MAX,
        max_line_size=_HEAD_MAX,
        shutdown_timeout=STOP_SECONDS,
    )


def _listen(address: Address, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server(
            (address.host, address.port),
            family=family,
            backlog=1024,
            dualstack_ipv6=address.host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            cure = f"Stop what is listening there, or choose another with {option}."
        elif exc.errno == errno.EACCES:
            cure = f"Choose a port above 1023 with {option}."
        else:
            cure = f"Choose an address of this machine with {option}."
        reason = exc.strerror or str(exc)
        raise BindError(
            exc.errno, f"Cannot listen on {address}: {reason}. {cure}"
        ) from exc


def raise_file_limit() -> None:
    """Let this process have as many open connections as it is allowed to.

    The usual soft limit of 1,024 files would end at about 1,000 held streams.
    """
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
