"""Outbox: what a transaction has to say, written in the transaction itself."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connections, transaction
from django.utils import timezone

from django_grip.contrib.eventlog import records, wakeups
from django_grip.contrib.eventlog.failpoints import failpoint
from django_grip.contrib.eventlog.models import Outbox
from django_grip.contrib.realtime.events import Event, Telling

CHUNK = 1_000
"""Rows of one INSERT."""

CHUNK_BYTES = 4 * 1024 * 1024
"""Bytes of records in one INSERT: MySQL takes 16 MiB at most, as installed."""


def write(using: str, tellings: Sequence[Telling]) -> None:
    """Keep these with the change that they tell of.

    In autocommit they are kept at once. Raises DatabaseError if they cannot be, and
    ValueError for an event that the log cannot hold.
    """
    bodies = []
    for telling in tellings:
        if isinstance(telling, Event):
            records.check(telling)
        bodies.append(records.dump(telling))
    connection = connections[using]
    if not connection.in_atomic_block:
        with transaction.atomic(using=using):
            _write(connection, bodies)
    else:
        _write(connection, bodies)
    failpoint("capture.after_outbox_insert")


def _write(connection: Any, bodies: Sequence[str]) -> None:
    number = _transaction(connection)
    created_at = connection.ops.adapt_datetimefield_value(timezone.now())
    for chunk in _chunks(bodies):
        values = [value for body in chunk for value in (number, body, created_at)]
        # Not the ORM: this is in every write, and it costs half of what it would.
        with connection.cursor() as cursor:
            cursor.execute(_insert(connection, len(chunk)), values)


def _chunks(bodies: Sequence[str]) -> Iterator[Sequence[str]]:
    start = size = 0
    for end, body in enumerate(bodies):
        if end - start == CHUNK or (size and size + len(body) > CHUNK_BYTES):
            yield bodies[start:end]
            start, size = end, 0
        size += len(body)
    yield bodies[start:]


def _insert(connection: Any, rows: int) -> str:
    quote = connection.ops.quote_name
    columns = ", ".join(map(quote, ("transaction", "body", "created_at")))
    table = quote(Outbox._meta.db_table)
    return f"INSERT INTO {table} ({columns}) VALUES " + ", ".join(
        ["(%s, %s, %s)"] * rows
    )


def _transaction(connection: Any) -> int:
    """The number of the transaction under way.

    It is kept in the hook that wakes the relay: that outlives savepoints, and is gone
    with the transaction.
    """
    for _, hook, _ in reversed(connection.run_on_commit):
        found: int | None = getattr(hook, "grip_transaction", None)
        if found is not None:
            return found
    # Not of a generator that a program may have seeded.
    number = int.from_bytes(os.urandom(8), "big") >> 2
    using = connection.alias

    def wake() -> None:
        failpoint("capture.before_kick")
        wakeups.wake(using)

    wake.grip_transaction = number  # type: ignore[attr-defined]
    connection.run_on_commit.append((set(), wake, True))
    return number
