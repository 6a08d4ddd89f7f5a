"""Log: what the realtime layer asks of the event log. See durable.EventLog."""

from __future__ import annotations

from collections.abc import Sequence

from django.urls import get_script_prefix

from django_grip import proxies
from django_grip.contrib.eventlog import closing, history, outbox
from django_grip.contrib.realtime.durable import Page
from django_grip.contrib.realtime.events import Telling
from django_grip.contrib.realtime.streams import alias_of
from django_grip.links import NEXT


class Log:
    """The event log in the project's databases."""

    def write(self, using: str, tellings: Sequence[Telling]) -> None:
        """See EventLog.write()."""
        outbox.write(using, tellings)

    def read(self, channel: str, since: str | None, *, trusted: bool = False) -> Page:
        """See EventLog.read()."""
        return history.read(channel, since, trusted=trusted)

    def position(self, channel: str) -> str:
        """See EventLog.position()."""
        return history.position(channel)

    def newest(self, channel: str, since: str) -> Page:
        """See EventLog.newest()."""
        return history.newest(channel, since)

    def link_path(self) -> str | None:
        """See EventLog.link_path()."""
        return get_script_prefix() + NEXT if proxies.verifiers() else None

    def opened(self, channel: str) -> None:
        """See EventLog.opened()."""
        closing.opened(alias_of(channel), channel)

    def held(self, prefix: str) -> Sequence[str]:
        """See EventLog.held()."""
        return closing.held(alias_of(prefix), prefix)
