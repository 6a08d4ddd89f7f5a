"""Status: how far the log and its servers are, for admin pages and exporters."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Count, Min, Q
from django.db.models.functions import Now
from django.utils import timezone

from django_grip.contrib.eventlog.models import (
    LoggedEvent,
    Outbox,
    Sequence,
    SetAside,
    Target,
)
from django_grip.publishers import get_publisher


def counters(using: str = "default") -> dict[str, Any]:
    """What an exporter reads of one database's log.

    `depth`: changes that wait for their place. `oldest_age`: seconds that the oldest
    has waited. `set_aside`: changes and events set aside. `last_seq`: the last event.
    `leader`: the relay that works; empty: none does. `servers` has for each server of
    the settings: `published`, its last event; `lag` and `lag_seconds`, the events it
    has not accepted, and the age of the oldest; `failing_seconds`, since when it takes
    none.
    """
    waiting = Outbox.objects.using(using).aggregate(
        depth=Count("pk"), oldest=Min("created_at")
    )
    last_seq, leader = _sequence(using)
    targets = Target.objects.using(using).in_bulk(list(get_publisher().servers))
    return {
        "depth": waiting["depth"],
        "oldest_age": age(waiting["oldest"]),
        "set_aside": SetAside.objects.using(using).count(),
        "last_seq": last_seq,
        "leader": leader,
        "servers": {
            server: {
                "published": target.published,
                "lag": max(0, last_seq - target.published),
                "lag_seconds": lag_seconds(using, target),
                "failing_seconds": age(target.failing_since),
            }
            for server, target in targets.items()
        },
    }


def lag_seconds(using: str, target: Target) -> float:
    """The age of the oldest event that a server has not accepted; 0: there is none."""
    behind = LoggedEvent.objects.using(using).filter(seq__gt=target.published)
    return age(behind.order_by("seq").values_list("created_at", flat=True).first())


def last_seq(using: str) -> int:
    """The last event of the log."""
    return _sequence(using)[0]


def age(moment: datetime | None) -> float:
    """Seconds since a moment; 0 for none."""
    if moment is None:
        return 0.0
    return max(0.0, (timezone.now() - moment).total_seconds())


def _sequence(using: str) -> tuple[int, str]:
    """The last event, and the relay that has the lease."""
    row = (
        Sequence.objects.using(using)
        .filter(pk=1)
        .annotate(is_led=Q(lease_until__gt=Now()))
        .values_list("last_seq", "lease_owner", "is_led")
        .first()
    )
    if row is None:
        return 0, ""
    last, owner, is_led = row
    return last, owner if is_led else ""
