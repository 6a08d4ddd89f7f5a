"""Trimming: what is too old leaves the log, from its beginning on."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

from django.db.models import Max, Min
from django.utils import timezone

from django_grip.contrib.eventlog import sequences
from django_grip.contrib.eventlog.failpoints import failpoint
from django_grip.contrib.eventlog.models import (
    LoggedEvent,
    Sequence,
    SetAside,
    Target,
)
from django_grip.contrib.realtime import conf
from django_grip.publishers import get_publisher

CHUNK = 1_000
"""Events that are removed together."""


def trim(using: str, *, chunks: int | None = None) -> int:
    """Remove what is older than HISTORY or beyond HISTORY_ROWS; returns how many.

    At most `chunks` of CHUNK, if given. The floor rises before events go: who asks
    meanwhile is told that they are gone, or gets all of them.
    """
    removed = 0
    for _ in count() if chunks is None else range(chunks):
        if not (floor := _floor(using)):
            break
        rows = Sequence.objects.using(using).filter(pk=1, floor__lt=floor)
        rows.update(floor=floor)
        failpoint("retention.after_floor")
        gone = LoggedEvent.objects.using(using).filter(seq__lte=floor)
        removed += gone._raw_delete(using)
        failpoint("retention.mid_delete")
    # Of no more use than the events themselves; a change that was set aside is, and
    # stays until somebody has looked at it.
    before = timezone.now() - timedelta(seconds=conf.history())
    refused = SetAside.objects.using(using).filter(seq__isnull=False)
    refused.filter(created_at__lt=before).delete()
    return removed


def published(using: str) -> int:
    """The last event that a server of this process's settings has accepted.

    Without servers, or while no relay has begun with them, the last event.
    """
    targets = Target.objects.using(using).filter(server__in=get_publisher().servers)
    last: int | None = targets.aggregate(last=Max("published"))["last"]
    return sequences.state(using).last_seq if last is None else last


def _floor(using: str) -> int | None:
    """The last event of the next chunk to go; None: nothing has to go."""
    log = LoggedEvent.objects.using(using)
    first = log.aggregate(first=Min("seq"))["first"]
    if first is None:
        return None
    last = sequences.state(using).last_seq
    before = timezone.now() - timedelta(seconds=conf.history())
    limit = conf.history_rows()
    most = 0 if limit is None else last - limit
    chunk = log.filter(seq__lt=first + CHUNK).order_by("seq")
    old = chunk.filter(created_at__lt=before).aggregate(last=Max("seq"))["last"] or 0
    floor = max(old, min(most, first + CHUNK - 1))
    return floor if floor >= first else None
