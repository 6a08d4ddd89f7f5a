"""Lease: which relay works. It saves work, and nothing rests on it.

Two relays at once would number events one after the other, and publish them twice with
the same ids. Time is the database's.
"""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from django_grip.contrib.eventlog.failpoints import failpoint
from django_grip.contrib.eventlog.models import Sequence

TTL = 10.0
"""Seconds after which another relay takes over from one that is gone."""

RENEW = 3.0
"""Seconds between two renewals."""


class DatabaseNow(Now):
    """The database's time. MySQL's NOW() is that of the session's zone, which may step
    by an hour.
    """

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """See Func.as_sql()."""
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)


class Lease:
    """The lease of the relay of one database, for one holder."""

    def __init__(self, using: str) -> None:
        self.owner = f"{socket.gethostname()[:24]}:{os.getpid()}:{uuid4().hex[:8]}"
        self._using = using
        self._renew_at = 0.0

    def hold(self) -> bool:
        """Take the lease or keep it; False while another relay has it."""
        if failpoint("relay.lease"):
            return True
        now = time.monotonic()
        if now < self._renew_at:
            return True
        row = Sequence.objects.using(self._using).filter(
            Q(lease_owner=self.owner)
            | Q(lease_until__isnull=True)
            | Q(lease_until__lt=DatabaseNow()),
            pk=1,
        )
        # Asking first: an UPDATE takes the lock for which SQLite's writers queue.
        held = row.exists() and row.update(
            lease_owner=self.owner,
            lease_until=DatabaseNow() + timedelta(seconds=TTL),
            seen_at=timezone.now(),
        )
        self._renew_at = now + RENEW if held else 0.0
        return bool(held)

    def doubt(self) -> None:
        """Ask the database next time, whatever it said last."""
        self._renew_at = 0.0

    def release(self) -> None:
        """Let another relay take over at once."""
        self._renew_at = 0.0
        Sequence.objects.using(self._using).filter(pk=1, lease_owner=self.owner).update(
            lease_until=None, lease_owner=""
        )
