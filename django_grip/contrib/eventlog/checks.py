"""System checks of the event log. Only those with `databases` ask one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, models, router
from django.utils import timezone

from django_grip import proxies
from django_grip.contrib.eventlog.models import Sequence as SequenceRow
from django_grip.contrib.realtime import conf
from django_grip.contrib.realtime.streams import registry

RELAYS = ("inline", "daemon")

SEEN = 600
"""Seconds without a relay after which one is missed; cron may start it now and then."""


def check_relay(**kwargs: Any) -> list[CheckMessage]:
    """E001: a RELAY that does not exist."""
    if conf.relay() in RELAYS:
        return []
    return [
        Error(
            f"GRIP_REALTIME['RELAY'] is {conf.relay()!r}; expected 'inline' or "
            "'daemon'.",
            id="grip_eventlog.E001",
        )
    ]


def check_realtime(**kwargs: Any) -> list[CheckMessage]:
    """E002: the event log without the layer that writes to it."""
    if apps.is_installed("django_grip.contrib.realtime"):
        return []
    return [
        Error(
            "The event log is installed, but not what writes to it: no change of a "
            "model is seen.",
            hint="Add 'django_grip.contrib.realtime' to INSTALLED_APPS.",
            id="grip_eventlog.E002",
        )
    ]


def check_key(**kwargs: Any) -> list[CheckMessage]:
    """W001: proxies, and none that can be trusted to ask what its streams missed."""
    try:
        if proxies.verifiers() or not proxies.configured():
            return []
    except ImproperlyConfigured:
        return []  # django_grip.E002 says so.
    return [
        Warning(
            "No proxy has a key, so requests of the proxy cannot be told from those of "
            "clients: an event that a proxy loses is missing on its streams until "
            "their clients connect again.",
            hint="Give the proxy a key, and name it: GRIP_URL = "
            "'http://localhost:5561?key=…'.",
            id="grip_eventlog.W001",
        )
    ]


def check_sqlite(**kwargs: Any) -> list[CheckMessage]:
    """W002: transactions of SQLite that fail as soon as two of them write."""
    return [
        Warning(
            f"Transactions of {alias!r} take SQLite's write lock at their first write, "
            'and fail ("database is locked") where another has written since they '
            "began. With the event log every write has a relay beside it.",
            hint=f"DATABASES[{alias!r}]['OPTIONS'] = "
            "{'transaction_mode': 'IMMEDIATE'}",
            id="grip_eventlog.W002",
        )
        for alias in _written()
        if connections[alias].vendor == "sqlite" and not _takes_lock_at_once(alias)
    ]


def check_tables(
    *, databases: Collection[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W003: registered models are written to where the log has no tables.

    No error: `migrate`, which makes them, would stop at it. A database in which the
    models themselves are not there yet has time.
    """
    return [
        Warning(
            f"The database {alias!r} has no tables of the event log, so every write "
            f"to {written[0]._meta.label} fails there.",
            hint=_cure(alias),
            id="grip_eventlog.W003",
        )
        for alias, tables in _tables(databases)
        if not {model._meta.db_table for model in _log()} <= tables
        and (
            written := [
                model for model in _written()[alias] if model._meta.db_table in tables
            ]
        )
    ]


def check_engine(
    *, databases: Collection[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """E003: tables that do not take part in transactions."""
    errors: list[CheckMessage] = []
    for alias, _ in _tables(databases):
        if connections[alias].vendor != "mysql":
            continue
        names = {model._meta.db_table for model in (*_log(), *_written()[alias])}
        errors += [
            Error(
                f"The table {name} of {alias!r} is kept by {engine}, which has no "
                "transactions: a change and its event may come apart.",
                hint=f"ALTER TABLE {name} ENGINE=InnoDB",
                id="grip_eventlog.E003",
            )
            for name, engine in _without_transactions(alias)
            if name in names
        ]
    return errors


def check_relay_seen(
    *, databases: Collection[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """W004, with --deploy: RELAY is `daemon`, and none has been at work."""
    if conf.relay() != "daemon":
        return []
    return [
        Warning(
            f"No relay of {alias!r} was at work in the last {SEEN // 60} minutes, and "
            "GRIP_REALTIME['RELAY'] is 'daemon': what is committed waits.",
            hint=f"Run as a service: manage.py grip_relay --database {alias}",
            id="grip_eventlog.W004",
        )
        for alias, tables in _tables(databases)
        if SequenceRow._meta.db_table in tables and not _is_seen(alias)
    ]


def _written() -> dict[str, list[type[models.Model]]]:
    """The aliases that registered models are written on, and which models."""
    written: dict[str, list[type[models.Model]]] = {}
    for stream in registry:
        alias = router.db_for_write(stream.model)
        written.setdefault(alias, []).append(stream.model)
    return written


def _log() -> list[type[models.Model]]:
    return list(apps.get_app_config("grip_eventlog").get_models())


def _tables(databases: Collection[str] | None) -> Iterator[tuple[str, set[str]]]:
    """Of those that may be asked, the databases with a log, and their tables."""
    for alias in _written():
        if alias in (databases or ()):
            yield alias, set(connections[alias].introspection.table_names())


def _takes_lock_at_once(alias: str) -> bool:
    options = connections[alias].settings_dict.get("OPTIONS", {})
    mode = options.get("transaction_mode") or "DEFERRED"
    return str(mode).upper() in ("IMMEDIATE", "EXCLUSIVE")


def _cure(alias: str) -> str:
    migrate = f"Run: manage.py migrate --database {alias}"
    if router.allow_migrate(alias, "grip_eventlog"):
        return migrate
    return f"Let DATABASE_ROUTERS allow grip_eventlog on {alias!r}. {migrate}"


def _without_transactions(alias: str) -> Sequence[tuple[str, str]]:
    """Tables of MySQL, and their engines."""
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT t.table_name, t.engine FROM information_schema.tables t "
            "JOIN information_schema.engines e ON e.engine = t.engine "
            "WHERE t.table_schema = DATABASE() AND e.transactions <> 'YES'"
        )
        found: Sequence[tuple[str, str]] = cursor.fetchall()
    return found


def _is_seen(alias: str) -> bool:
    rows = SequenceRow.objects.using(alias)
    return rows.filter(seen_at__gt=timezone.now() - timedelta(seconds=SEEN)).exists()
