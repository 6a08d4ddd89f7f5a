"""`manage.py grip_trim`: remove old events from the log."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections

from django_grip.contrib.eventlog.trimming import trim


class Command(BaseCommand):
    """Trims the log now; a relay does so all the time."""

    help = (
        "Removes events older than GRIP_REALTIME['HISTORY'], and those beyond "
        "HISTORY_ROWS. A relay does the same all the time. Clients that were away for "
        "longer are told to fetch anew."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """See BaseCommand.add_arguments()."""
        parser.add_argument(
            "--database",
            default=DEFAULT_DB_ALIAS,
            choices=tuple(connections),
            help="The database whose event log is trimmed.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """See BaseCommand.handle()."""
        removed = trim(options["database"])
        self.stdout.write(f"{removed} events removed.")
