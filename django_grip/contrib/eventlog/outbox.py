"""Outbox: what a transaction has to say, written in the transaction itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from django.db import connections, transaction
from django.utils import timezone

from django_grip.contrib.eventlog import records, wakeups
from django_grip.contrib.eventlog.failpoints import failpoint
from django_grip.contrib.eventlog.models import Outbox
from django_grip.contrib.eventlog.statements import insert, moment
from django_grip.contrib.realtime.events import Event, Telling


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
    created_at = moment(connection, timezone.now())
    columns = ("transaction", "body", "created_at")
    rows = [(number, body, created_at) for body in bodies]
    insert(connection, Outbox, columns, rows)


def _transaction(connection: Any) -> int:
    """The number of the transaction under way.

    It is kept in the hook that wakes the relay: that outlives savepoints, and is gone
    with the transaction. Where a program commits by hand, hooks outlive transactions,
    and every write gets a number of its own.
    """
    if connection.commit_on_exit:
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
