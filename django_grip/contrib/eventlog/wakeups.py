"""Wake-ups: from a commit to the relay.

They only save time: the relay looks into the outbox anyway, every quarter of a second
when nothing happens.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import connections

from django_grip.contrib.realtime import conf

logger = logging.getLogger("django_grip.eventlog")

CHANNEL = "django_grip_outbox"

APART = 0.01
"""Seconds between two notifications of one process."""

_notified: dict[str, float] = {}

starters: list[Callable[[str], object]] = []
"""Called with the alias after each commit with something to say, if RELAY is inline."""


def wake(using: str) -> None:
    """There is something in the outbox. Called after the commit, on its thread."""
    if conf.relay() == "inline":
        for start in starters:
            start(using)
    else:
        notify(using)


def notify(using: str) -> None:
    """Tell a relay in another process, where the database can do that.

    After the commit and not within the transaction: there it would take a lock that
    all transactions with notifications share. At most one in APART seconds.
    """
    connection = connections[using]
    if not can_notify(connection) or connection.in_atomic_block:
        return
    now = time.monotonic()
    if now - _notified.get(using, 0.0) >= APART:
        _notified[using] = now
        with connection.cursor() as cursor:
            cursor.execute(f"NOTIFY {CHANNEL}")


def can_notify(connection: Any) -> bool:
    """Whether the database tells others: PostgreSQL by psycopg 3."""
    if connection.vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


class Listener:
    """Sets `woken` whenever a process notifies; it has a connection of its own."""

    def __init__(self, using: str, woken: threading.Event) -> None:
        self._using = using
        self._woken = woken
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"grip-listener {using}", daemon=True
        )

    def start(self) -> None:
        """Listen until stopped."""
        self._thread.start()

    def stop(self) -> None:
        """Stop listening."""
        self._ended.set()
        self._thread.join(2)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                with self._connected() as connection:
                    self._listen(connection)
            except Exception as exc:
                # A boundary: without it the relay still polls.
                logger.debug("Listening on %s failed: %s", self._using, exc)
                self._ended.wait(1)

    def _connected(self) -> Any:
        import psycopg

        parameters = dict(connections[self._using].get_connection_params())
        for name in ("cursor_factory", "context", "prepare_threshold"):
            parameters.pop(name, None)
        return psycopg.connect(**parameters, autocommit=True)

    def _listen(self, connection: Any) -> None:
        connection.execute(f"LISTEN {CHANNEL}")
        self._woken.set()
        while not self._ended.is_set():
            readable, _, _ = select.select([connection.fileno()], [], [], 0.25)
            if readable:
                with suppress(StopIteration):
                    for _ in connection.notifies(timeout=0):
                        self._woken.set()
