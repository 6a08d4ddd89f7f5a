"""`manage.py grip_relay`: publish what was committed, in order."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.utils import DatabaseError

from django_grip.contrib.eventlog.models import Outbox
from django_grip.contrib.eventlog.relays import Relay
from django_grip.publishers import close_publisher


class Command(BaseCommand):
    """Runs a relay, for as long as it is let."""

    help = (
        "Takes committed changes from the outbox, puts them in order, and publishes "
        "them to every proxy. Run one for each database that has an event log; more "
        "stand by. SIGTERM ends it within a second; nothing is lost by SIGKILL either."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """See BaseCommand.add_arguments()."""
        parser.add_argument(
            "--database",
            default=DEFAULT_DB_ALIAS,
            choices=tuple(connections),
            help="The database whose event log is published.",
        )
        parser.add_argument(
            "--once",
            action="store_true",
            help="Publish what was committed until now, and end.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """See BaseCommand.handle(). Raises CommandError without the tables."""
        using = options["database"]
        relay = Relay(using)
        try:
            _check_tables(using)
            if options["once"]:
                relay.drain()
            else:
                _run_until_told(relay)
        except DatabaseError as exc:
            raise CommandError(f"The database {using!r} failed: {exc}") from exc
        finally:
            close_publisher()


def _check_tables(using: str) -> None:
    if Outbox._meta.db_table not in connections[using].introspection.table_names():
        raise CommandError(
            f"The database {using!r} has no event log. Put "
            "'django_grip.contrib.eventlog' into INSTALLED_APPS and run: "
            f"manage.py migrate --database {using}"
        )


def _run_until_told(relay: Relay) -> None:
    """Run it on a thread of its own, until SIGTERM or SIGINT.

    What a signal handler does may come while this thread holds any lock, so it only
    sets a value here, and another thread is stopped.
    """
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    thread = threading.Thread(target=relay.run, name="grip-relay")
    thread.start()
    while thread.is_alive() and not told:
        thread.join(0.2)
    relay.stop()
    thread.join()
