"""Course: the way of the log to one server, from its cursor on."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

from django.db.models import Max
from django.utils import timezone

from django_grip import conf
from django_grip.contrib.eventlog import sequences
from django_grip.contrib.eventlog.failpoints import failpoint
from django_grip.contrib.eventlog.models import LoggedEvent, SetAside, Target
from django_grip.contrib.eventlog.positions import Position
from django_grip.contrib.realtime.tellings import close_item, event_item
from django_grip.items import Item
from django_grip.publishers.base import BasePublisher, Refusal

logger = logging.getLogger("django_grip.eventlog")

AHEAD = 10_000
"""Events that may be on their way to a server."""

AHEAD_BYTES = 16 * 1024 * 1024
"""Bytes of envelopes that may be on their way to a server."""

BATCH = 1_000
"""Events that are read and offered together."""

TROUBLE_AFTER = 5.0
"""Seconds without an answer after which a server counts as failing."""

PAUSE = (0.2, 5.0)
"""Seconds before what a server did not take is offered again, doubled; the most."""


@dataclass(eq=False)
class Offer:
    """Events that are on their way to one server, and how to take them back."""

    last: int
    seqs: Sequence[int]
    size: int
    since: float
    take_back: Callable[[], object] = lambda: None
    failures: Mapping[int, str] | None = None


class Course:
    """Publishes the log to one server, in order; `published` is its cursor."""

    def __init__(
        self,
        using: str,
        publisher: BasePublisher,
        server: str,
        answered: Callable[[], object],
    ) -> None:
        self.server = server
        self._using = using
        self._publisher = publisher
        self._answered = answered
        self._answers: SimpleQueue[Offer] = SimpleQueue()
        self._offers: deque[Offer] = deque()
        self.published = self._stored()
        self._offered = self.published
        self._is_failing = False
        self._attempts = 0
        self._retry_at = 0.0

    def limit(self, last: int) -> None:
        """Take the cursor back to the log's end: a backup may have been restored."""
        if self._offered > last:
            self.take_back()
            self._offers.clear()
            self.published = self._offered = min(self.published, last)
            Target.objects.using(self._using).filter(
                server=self.server, published__gt=last
            ).update(published=last)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._offers

    @property
    def offered(self) -> int:
        """The last event that is on its way or accepted."""
        return self._offered

    def offer(self, epoch: str, last: int, fresh: Sequence[LoggedEvent]) -> bool:
        """Put what follows on its way, up to `last`; whether anything was.

        `fresh` are events just sequenced, which then need not be read.
        """
        if self._offered >= last or time.monotonic() < self._retry_at:
            return False
        under_way = sum(len(offer.seqs) for offer in self._offers)
        size = sum(offer.size for offer in self._offers)
        if under_way >= AHEAD or size >= AHEAD_BYTES:
            return False
        rows = fresh
        if not fresh or fresh[0].seq != self._offered + 1:
            rows = list(
                LoggedEvent.objects.using(self._using)
                .filter(seq__gt=self._offered)
                .order_by("seq")[:BATCH]
            )
        if not rows:
            # Retention was faster than the server.
            self._offered = last
            self._store(last)
            return False
        prefix = conf.prefix()
        offer = Offer(
            rows[-1].seq,
            [row.seq for row in rows],
            sum(len(row.text) for row in rows),
            time.monotonic(),
        )
        self._offers.append(offer)
        self._offered = offer.last
        items = [item_of(row, epoch, prefix) for row in rows]

        def outcome(failures: Mapping[int, str]) -> None:
            offer.failures = failures
            self._answers.put(offer)
            self._answered()

        failpoint("relay.mid_publish")
        offer.take_back = self._publisher.offer(self.server, items, outcome)
        return True

    def settle(self) -> bool:
        """Move the cursor by what was answered; whether anything was."""
        settled = False
        while not self._answers.empty():
            self._answers.get()
            settled = True
        published = self.published
        failure = None
        while self._offers and (failures := self._offers[0].failures) is not None:
            offer = self._offers.popleft()
            lost = [r for r in failures.values() if not isinstance(r, Refusal)]
            if lost:
                failure = lost[0]
                break
            self._set_aside(offer, failures)
            published = offer.last
        if published > self.published:
            failpoint("relay.after_publish")
            self._store(published)
        if failure is not None:
            self._fail(failure)
        elif (
            self._offers
            and time.monotonic() - self._offers[0].since > TROUBLE_AFTER
            and (trouble := self._publisher.trouble(self.server))
        ):
            self._say_failing(trouble)
        return settled

    def take_back(self) -> None:
        """Leave what was not accepted to the next relay."""
        for offer in self._offers:
            offer.take_back()

    def _fail(self, reason: str) -> None:
        """Begin again behind the cursor, a little later each time."""
        self.take_back()
        self._offers.clear()
        self._offered = self.published
        first, most = PAUSE
        self._retry_at = time.monotonic() + min(most, first * 2**self._attempts)
        self._attempts = min(self._attempts + 1, 10)
        self._say_failing(reason)

    def _set_aside(self, offer: Offer, refused: Mapping[int, str]) -> None:
        SetAside.objects.using(self._using).bulk_create(
            SetAside(
                reason=reason,
                seq=offer.seqs[index],
                server=self.server,
                created_at=timezone.now(),
            )
            for index, reason in refused.items()
        )

    def _stored(self) -> int:
        """Where the server's cursor stands.

        A server that is new begins where the others are, and the first one at the
        log's end: nobody there has missed anything.
        """
        targets = Target.objects.using(self._using)
        found = targets.filter(server=self.server).first()
        if found is None:
            others = targets.aggregate(last=Max("published"))["last"]
            last = sequences.state(self._using).last_seq if others is None else others
            found, _ = targets.get_or_create(
                server=self.server, defaults={"published": last}
            )
        return found.published

    def _store(self, published: int) -> None:
        self.published = published
        row = Target.objects.using(self._using).filter(server=self.server)
        # Another relay may be ahead, as nothing rests on the lease.
        values = {"published": published, "failing_since": None, "last_error": ""}
        moved = row.filter(published__lte=published).update(**values)
        if not moved and not row.exists():
            Target.objects.using(self._using).create(server=self.server, **values)
        if self._is_failing:
            self._is_failing = False
            logger.warning("%s takes events again.", self.server)
        self._attempts = 0

    def _say_failing(self, reason: str) -> None:
        if not self._is_failing:
            self._is_failing = True
            logger.error(
                "%s takes no events: %s. They wait in the log.", self.server, reason
            )
            Target.objects.using(self._using).filter(server=self.server).update(
                failing_since=timezone.now(), last_error=reason
            )


def item_of(row: LoggedEvent, epoch: str, prefix: str) -> Item:
    """The item of an event of the log."""
    id, prev_id = str(Position(epoch, row.seq)), str(Position(epoch, row.prev))
    if not row.text:
        return close_item(prefix + row.channel, row.op, id=id, prev_id=prev_id)
    return event_item(
        prefix + row.channel, row.op, row.text, id, row.origin, prev_id=prev_id
    )
