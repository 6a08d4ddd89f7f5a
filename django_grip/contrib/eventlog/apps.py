"""The app of the event log."""

from __future__ import annotations

from django.apps import AppConfig


class EventLogConfig(AppConfig):
    """Makes every stream durable."""

    name = "django_grip.contrib.eventlog"
    label = "grip_eventlog"
    verbose_name = "GRIP event log"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Take the place of the event log."""
        from django_grip import links
        from django_grip.contrib.eventlog import inline, wakeups
        from django_grip.contrib.eventlog.logs import Log
        from django_grip.contrib.realtime import durable

        durable.log = Log()
        links.urlconf = "django_grip.contrib.eventlog.links"
        wakeups.starters.append(inline.start)
