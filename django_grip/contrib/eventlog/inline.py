"""Inline: a relay in each process that writes, on a thread that sleeps in between."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading

from django_grip.contrib.eventlog.relays import Relay

logger = logging.getLogger("django_grip.eventlog")

IDLE = 5.0
"""Seconds without work after which the thread gives back lease and connection."""

PATIENCE = 2.0
"""Seconds for which the end of a process waits for what it has written to be told.
What is left goes with the next commit of any process."""

_threads: dict[str, RelayThread] = {}
_lock = threading.Lock()


def start(using: str) -> None:
    """Have what waits in the outbox relayed, soon and not by the caller.

    Not in Django's test environment: there a thread would write between tests, and its
    connection would keep the database from being dropped. Call `drain` instead.
    """
    if _is_testing():
        return
    with _lock:
        thread = _threads.get(using)
        if thread is None or not thread.is_alive():
            thread = RelayThread(using)
            try:
                thread.start()
            except RuntimeError:
                # The interpreter ends, and starts no thread any more.
                logger.warning("Events of %s wait for the next relay.", using)
                return
            _threads[using] = thread
            _end_in_child()
    thread.wake()


def drain(using: str = "default") -> None:
    """Relay what waits in the outbox, here and now."""
    Relay(using).drain()


def finish() -> None:
    """Let the threads publish what waits, for at most PATIENCE, and end them."""
    threads = list(_threads.values())
    _threads.clear()
    for thread in threads:
        thread.leave()
    for thread in threads:
        thread.join(PATIENCE)
        if thread.is_alive():
            thread.stop()
            thread.join(1)


class RelayThread(threading.Thread):
    """Runs a relay whenever it is woken, until that has nothing to do for a while."""

    def __init__(self, using: str) -> None:
        super().__init__(name=f"grip-relay {using}", daemon=True)
        self._using = using
        self._wanted = threading.Event()
        self._is_leaving = False
        self._relay: Relay | None = None

    def wake(self) -> None:
        """There is something in the outbox."""
        self._wanted.set()
        if (relay := self._relay) is not None:
            relay.woken.set()

    def leave(self) -> None:
        """End when everything is published."""
        self._is_leaving = True
        if (relay := self._relay) is not None:
            relay.leave()
        self._wanted.set()

    def stop(self) -> None:
        """End now."""
        if (relay := self._relay) is not None:
            relay.stop()

    def run(self) -> None:
        """See Thread.run()."""
        while True:
            self._wanted.wait()
            self._wanted.clear()
            self._relay = relay = Relay(self._using)
            if self._is_leaving:
                relay.leave()
            relay.run(idle=IDLE)
            self._relay = None
            if self._is_leaving:
                return


def _is_testing() -> bool:
    module = sys.modules.get("django.test.utils")
    return module is not None and hasattr(module._TestState, "saved_data")


def _end_in_child() -> None:
    """A child of multiprocessing skips atexit."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, finish, exitpriority=20)


def _start_afresh() -> None:
    """A forked child has none of the parent's threads."""
    global _lock
    _threads.clear()
    _lock = threading.Lock()


# After that of the publishers, and so called before it.
atexit.register(finish)
os.register_at_fork(after_in_child=_start_afresh)
