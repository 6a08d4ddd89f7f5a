"""Closing: streams end in time, so that their clients are asked again who they are.

The proxy holds them and Django cannot see how old each is, so all streams of a channel
end together, at the latest STREAM_MAX_AGE after the first was opened.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import timedelta

from django.db import connections, transaction
from django.utils import timezone

from django_grip.contrib.eventlog import outbox
from django_grip.contrib.eventlog.models import Held
from django_grip.contrib.eventlog.statements import remove
from django_grip.contrib.realtime import conf
from django_grip.contrib.realtime.events import AGE, CLOSE, Event

_AT_ONCE = 200


def opened(using: str, channel: str) -> None:
    """A stream was opened: note when it has to end."""
    if not _is_open(using, channel):
        # Spread, so that what was opened together does not come back together.
        age = conf.stream_max_age() * random.uniform(0.75, 1)
        close_at = timezone.now() + timedelta(seconds=age)
        Held.objects.using(using).bulk_create(
            [Held(channel=channel, close_at=close_at)], ignore_conflicts=True
        )


def _is_open(using: str, channel: str) -> bool:
    """Whether streams of a channel are known, and have time left.

    Those whose time has come are closed, also where no relay runs all the time.
    """
    held = Held.objects.using(using).filter(channel=channel)
    close_at = held.values_list("close_at", flat=True).first()
    if close_at is not None and close_at <= timezone.now():
        _close_once(using, [channel])
        return False
    return close_at is not None


def close_due(using: str) -> None:
    """Close the channels whose time has come."""
    due = Held.objects.using(using).filter(close_at__lte=timezone.now())
    if channels := list(due.values_list("channel", flat=True)[:_AT_ONCE]):
        _close_once(using, channels)


def held(using: str, prefix: str) -> list[str]:
    """The channels with streams whose names begin so."""
    held = Held.objects.using(using).filter(channel__startswith=prefix)
    names = held.values_list("channel", flat=True)
    # SQLite takes `A` for `a` here.
    return [name for name in names if name.startswith(prefix)]


def close(using: str, channels: Sequence[str]) -> None:
    """Close the streams of channels, after all that was told on them until now."""
    with transaction.atomic(using=using):
        remove(connections[using], Held, channels)
        _write(using, channels)


def _close_once(using: str, channels: Sequence[str]) -> None:
    """See close(); by one only of those who find the same channel due: a second close
    would end the streams of those who have just come back.
    """
    due = Held.objects.using(using).filter(close_at__lte=timezone.now())
    with transaction.atomic(using=using):
        # One by one: MariaDB would read the whole table for several.
        removed = [name for name in channels if due.filter(pk=name)._raw_delete(using)]
        _write(using, removed, reason=AGE)


def _write(using: str, channels: Sequence[str], **why: str) -> None:
    if channels:
        closes = [Event(channel=name, op=CLOSE, id="", values=why) for name in channels]
        outbox.write(using, closes)
