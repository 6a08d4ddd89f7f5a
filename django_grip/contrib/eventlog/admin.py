"""Read-only admin pages of the event log, of the database that the router reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.paginator import Paginator
from django.db import models, router, transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.timesince import timesince

from django_grip.contrib.eventlog import records, status, wakeups
from django_grip.contrib.eventlog.models import LoggedEvent, Outbox, SetAside, Target
from django_grip.contrib.realtime.events import BulkNotice, Event
from django_grip.publishers import get_publisher

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[models.Model]
    _Paginator = Paginator[models.Model]
else:
    _ModelAdmin = admin.ModelAdmin
    _Paginator = Paginator

LISTED = 10_000
"""Rows that a list goes back, at most: a log may have millions, and counting reads
each.
"""


class BoundedPaginator(_Paginator):
    """Counts up to LISTED rows."""

    @cached_property
    def count(self) -> int:
        """See Paginator.count."""
        rows: Any = self.object_list
        return int(rows.order_by()[:LISTED].count())


class ReadOnlyAdmin(_ModelAdmin):
    """Pages that only show."""

    actions: Sequence[Any] = ()
    list_per_page = 50
    paginator = BoundedPaginator
    show_full_result_count = False
    sortable_by = ()

    def has_add_permission(self, request: HttpRequest, *args: Any) -> bool:
        """See ModelAdmin."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """See ModelAdmin."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """See ModelAdmin."""
        return False


@admin.register(Outbox)
class OutboxAdmin(ReadOnlyAdmin):
    """What was committed and has no place yet: mostly nothing."""

    fields = ("summary", "age", "created_at", "transaction", "body")
    list_display = ("id", "summary", "age", "transaction")
    ordering = ("id",)

    @admin.display(description="change")
    def summary(self, row: Outbox) -> str:
        """The record in a few words."""
        return summary(row.body)

    @admin.display(description="waiting for")
    def age(self, row: Outbox) -> str:
        """How long it has waited."""
        return duration(row.created_at)


@admin.register(LoggedEvent)
class LoggedEventAdmin(ReadOnlyAdmin):
    """The events that are kept, the last first."""

    fields = ("seq", "prev", "channel", "op", "origin", "created_at", "text")
    list_display = ("seq", "op", "channel", "prev", "created_at")
    ordering = ("-seq",)
    search_fields = ("channel__exact",)
    search_help_text = "The whole name of a channel, without GRIP_PREFIX."


@admin.register(Target)
class TargetAdmin(ReadOnlyAdmin):
    """How far each proxy has been told."""

    fields = (
        *("server", "in_settings", "published", "lag", "lag_seconds"),
        *("failing_since", "last_error"),
    )
    list_display = fields
    ordering = ("server",)

    @admin.display(description="in the settings", boolean=True)
    def in_settings(self, target: Target) -> bool:
        """Whether this process publishes to it."""
        return target.server in get_publisher().servers

    @admin.display(description="events behind")
    def lag(self, target: Target) -> int:
        """The events that it has not accepted."""
        return max(0, status.last_seq(_alias(target)) - target.published)

    @admin.display(description="seconds behind")
    def lag_seconds(self, target: Target) -> str:
        """The age of the oldest of these."""
        return f"{status.lag_seconds(_alias(target), target):.1f}"


@admin.register(SetAside)
class SetAsideAdmin(ReadOnlyAdmin):
    """What could not be told, and why: to be tried again, or deleted."""

    actions = ("try_again",)
    fields = (
        *("reason", "summary", "created_at", "seq", "server"),
        *("transaction", "body"),
    )
    list_display = ("id", "created_at", "summary", "reason", "server")
    ordering = ("-id",)

    @admin.display(description="change")
    def summary(self, row: SetAside) -> str:
        """The record in a few words, or the event."""
        return summary(row.body) if row.body else f"event {row.seq}"

    @admin.action(description="Try again", permissions=["retry"])
    def try_again(self, request: HttpRequest, rows: models.QuerySet[Any]) -> None:
        """Put changes back into the outbox, where the relay finds them."""
        using = router.db_for_write(SetAside)
        with transaction.atomic(using=using):
            chosen = rows.using(using).select_for_update().order_by("pk")
            refused = chosen.filter(body="").count()
            changes = list(chosen.exclude(body=""))
            now = timezone.now()
            for change in changes:
                Outbox.objects.using(using).create(
                    transaction=change.transaction, body=change.body, created_at=now
                )
            keys = [change.pk for change in changes]
            SetAside.objects.using(using).filter(pk__in=keys).delete()
            if changes:
                transaction.on_commit(partial(wakeups.wake, using), using=using)
        if changes:
            said = f"Changes put back for the relay: {len(changes)}."
            self.message_user(request, said)
        if refused:
            self.message_user(
                request,
                f"Events that a proxy refused: {refused}. There is nothing to try "
                "again: they are in the log, and clients fetch them from there.",
                messages.WARNING,
            )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """See ModelAdmin: nothing else would ever take these rows away."""
        return _ModelAdmin.has_delete_permission(self, request, obj)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Whether the user may have changes tried again."""
        user: Any = request.user
        return bool(user.has_perm("grip_eventlog.change_setaside"))


def summary(body: str) -> str:
    """A record of the outbox in a few words."""
    try:
        telling = records.load(body)
    except records.BadRecord as exc:
        return f"not understood: {exc}"
    if isinstance(telling, Event):
        return f"{telling.op} on {telling.channel}"
    if isinstance(telling, BulkNotice):
        return f"{telling.op} of {telling.count} rows of {telling.topic.label}"
    change = telling.change
    changed = f" ({', '.join(sorted(change.changed))})" if change.changed else ""
    return f"{change.op} {change.label} {change.pk}{changed}"


def duration(since: datetime) -> str:
    """The time since a moment, in words."""
    seconds = status.age(since)
    return f"{seconds:.0f} s" if seconds < 120 else timesince(since)


def _alias(row: models.Model) -> str:
    return str(row._state.db)
