"""The app of the event log."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import Tags, register


class EventLogConfig(AppConfig):
    """Makes every stream durable."""

    name = "django_grip.contrib.eventlog"
    label = "grip_eventlog"
    verbose_name = "GRIP event log"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Take the place of the event log."""
        from django_grip import links
        from django_grip.contrib.eventlog import checks, inline, wakeups
        from django_grip.contrib.eventlog.logs import Log
        from django_grip.contrib.realtime import durable

        durable.log = Log()
        for link in (links.NEXT, links.PAGE):
            links.urlconfs[link] = "django_grip.contrib.eventlog.links"
        if inline.start not in wakeups.starters:  # Tests may change INSTALLED_APPS.
            wakeups.starters.append(inline.start)
        for check in (
            checks.check_relay,
            checks.check_realtime,
            checks.check_key,
            checks.check_sqlite,
        ):
            register(check)
        for check in (checks.check_tables, checks.check_engine):
            register(check, Tags.database)
        register(checks.check_relay_seen, Tags.database, deploy=True)
