"""Relay: takes what waits in the outbox, gives it places, and publishes it in order."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from django.db import connections
from django.db.utils import Error

from django_grip.contrib.eventlog import closing, sequences, trimming
from django_grip.contrib.eventlog.courses import Course
from django_grip.contrib.eventlog.leases import Lease
from django_grip.contrib.eventlog.models import LoggedEvent, Outbox
from django_grip.contrib.eventlog.wakeups import Listener, can_notify, notify
from django_grip.publishers import get_publisher

logger = logging.getLogger("django_grip.eventlog")

BUSY = 0.02
"""Seconds between two looks into the outbox while there is something to do."""

APART = 0.01
"""Seconds between two steps: what comes meanwhile is taken together."""

IDLE = 0.25
"""The same, after nothing came for a while."""

STAND_BY = 0.25
"""Seconds between two looks at the lease that another relay has."""

BACK_OFF = (0.1, 5.0)
"""Seconds before the database is tried again after an error, doubled; the most."""

FINISH = 0.5
"""Seconds in which what is on its way may still arrive when the relay ends."""

CHORES = 10.0
"""Seconds between two rounds of retention."""


class Relay:
    """The relay of one database, run on one thread that has its connection."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.woken = threading.Event()
        self.stopped = threading.Event()
        self.leaving = False
        self._lease = Lease(using)
        self._courses: list[Course] = []
        self._listener: Listener | None = None
        self._leads = False
        self._epoch = ""
        self._last = 0
        self._look_at = 0.0
        self._chores_at = 0.0
        self._closing_at = 0.0
        self._errors = 0
        self._pause = BUSY
        self._busy_at = 0.0

    def stop(self) -> None:
        """Have run() return soon. From any thread, but not from a signal handler: the
        thread that it interrupts may hold the lock of an event.
        """
        self.stopped.set()
        self.woken.set()

    def leave(self) -> None:
        """Have run() return as soon as everything is published. From any thread."""
        self.leaving = True
        self.woken.set()

    def run(self, *, idle: float | None = None) -> None:
        """Work until stopped, or until there was nothing to do for `idle` seconds.

        Errors are logged once and tried again.
        """
        self._pause = BUSY
        self._busy_at = time.monotonic()
        # Whoever starts a relay has written something.
        was_woken = True
        try:
            while not self.stopped.is_set():
                self.woken.clear()
                try:
                    if self._round(idle, was_woken):
                        return
                except Exception as exc:
                    # A boundary: whatever it is, what waits must not wait for ever.
                    self.stopped.wait(self._suffer(exc))
                was_woken = self.woken.wait(self._pause if self._leads else STAND_BY)
        finally:
            self.end()
            self._disconnect()

    def _round(self, idle: float | None, was_woken: bool) -> bool:
        """Work while there is something to do. Returns whether this relay is over."""
        while (worked := self.step()) == "again" and not self.stopped.is_set():
            # A step costs the same for one row and for many.
            self.stopped.wait(APART)
        now = time.monotonic()
        if worked:
            self._busy_at, self._pause = now, BUSY
        elif now - self._busy_at > 1:
            self._pause = min(IDLE, self._pause * 1.5)
        if was_woken and not self._leads:
            notify(self.using)
        is_over = idle is not None and now - self._busy_at > idle
        return (is_over or self.leaving) and not worked and self._is_done()

    def drain(self) -> None:
        """Work until everything that is committed now is published: `--once`.

        Waits while another relay has the lease, and tries a server that takes nothing
        for as long as `stopped` is not set. Raises DatabaseError.
        """
        try:
            while not self.stopped.is_set():
                self.woken.clear()
                self.step()
                if self._is_done():
                    return
                self.woken.wait(BUSY)
        finally:
            self.end()

    def step(self) -> str:
        """One round: `again` if there may be more at once, `some` if there was
        something, else empty.
        """
        if not self._lead():
            self._errors = 0
            return ""
        fresh: Sequence[LoggedEvent] = sequences.sequence(self.using)
        if fresh:
            self._last = fresh[-1].seq
            if any(course.offered >= fresh[0].seq for course in self._courses):
                self._go_back(fresh[0].seq - 1)
        offered = answered = False
        for course in self._courses:
            answered |= course.settle()
            offered |= course.offer(self._epoch, self._last, fresh)
        self._do_chores()
        self._errors = 0
        if fresh or offered:
            return "again"
        return "some" if answered or any(not c.is_idle for c in self._courses) else ""

    def end(self) -> None:
        """Leave the rest to the next relay, and give back the lease."""
        try:
            until = time.monotonic() + FINISH
            while any(not course.is_idle for course in self._courses):
                if time.monotonic() > until:
                    break
                self.woken.wait(0.01)
                self.woken.clear()
                for course in self._courses:
                    course.settle()
            if self._leads:
                self._lease.release()
        except Exception as exc:
            # A boundary: the lease then runs out by itself.
            logger.warning("The relay of %s ends without notice: %s", self.using, exc)
        self._abdicate()

    def _abdicate(self) -> None:
        """Leave what is on its way to the next relay."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        for course in self._courses:
            course.take_back()
        self._courses = []
        self._leads = False

    def _lead(self) -> bool:
        """Hold the lease, if nobody else does."""
        now = time.monotonic()
        if not self._leads and now < self._look_at:
            return False
        held = self._lease.hold()
        if not held and not self._leads:
            # The row is made by whoever comes first.
            sequences.state(self.using)
            held = self._lease.hold()
        if held and not self._leads:
            self._begin()
        elif not held and self._leads:
            logger.warning("Another relay of %s has taken over.", self.using)
            self._abdicate()
        if not held:
            self._look_at = now + STAND_BY
        return held

    def _begin(self) -> None:
        publisher = get_publisher()
        self._courses = [
            Course(self.using, publisher, server, self.woken.set)
            for server in publisher.servers
        ]
        self._look_around()
        if self._listener is None and can_notify(connections[self.using]):
            self._listener = Listener(self.using, self.woken)
            self._listener.start()
        self._leads = True

    def _is_done(self) -> bool:
        """Whether everything is published, by us or by whoever has the lease."""
        if Outbox.objects.using(self.using).exists():
            return False
        state = sequences.state(self.using)
        if not self._leads:
            return trimming.published(self.using) >= state.last_seq
        return all(course.published >= state.last_seq for course in self._courses)

    def _do_chores(self) -> None:
        now = time.monotonic()
        if now >= self._closing_at:
            self._closing_at = now + 1
            closing.close_due(self.using)
            self._look_around()
        if now >= self._chores_at:
            self._chores_at = now + CHORES
            trimming.trim(self.using, chunks=10)

    def _go_back(self, last: int) -> None:
        """Events that were published are gone, and their places were given anew."""
        logger.error(
            "The event log of %s has gone back to %d: was a backup restored? A new "
            "epoch begins; clients fetch anew.",
            self.using,
            last,
        )
        sequences.renew_epoch(self.using, self._epoch)
        for course in self._courses:
            course.limit(last)
        self._look_around()

    def _look_around(self) -> None:
        """See what others have done: another relay, or who restored a backup."""
        state = sequences.state(self.using)
        self._epoch, self._last = state.epoch, state.last_seq
        for course in self._courses:
            course.limit(self._last)

    def _suffer(self, error: Exception) -> float:
        """After an error: anew from what is stored, a little later each time."""
        if not self._errors:
            logger.error(
                "The relay of %s: %s. It is tried again.",
                self.using,
                error,
                exc_info=None if isinstance(error, Error) else error,
            )
        self._abdicate()
        self._lease.doubt()
        first, most = BACK_OFF
        pause: float = min(most, first * 2**self._errors)
        self._errors = min(self._errors + 1, 10)
        self._disconnect()
        return pause * random.uniform(0.5, 1)

    def _disconnect(self) -> None:
        with suppress(Error):
            # MySQL's driver does not close twice.
            connections[self.using].close()
