"""`manage.py realtime_explain LABEL PK`: who would hear what if this row were saved.

The row is saved for real, in a transaction that is rolled back.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.exceptions import (
    FieldDoesNotExist,
    ImproperlyConfigured,
    ObjectDoesNotExist,
    ValidationError,
)
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections, models, router, transaction

from django_grip import conf
from django_grip.contrib.realtime.delivery import diverted
from django_grip.contrib.realtime.management.answers import askers
from django_grip.contrib.realtime.streams import ModelStream, registry
from django_grip.contrib.realtime.test import Event, events_of
from django_grip.items import Item
from django_grip.test import capture_published

_REALTIME = "django_grip.contrib.realtime."


class Command(BaseCommand):
    """Saves one row, reads what would be published, and takes it back."""

    help = (
        "Says which events a save() of one row would send, on which channels, and "
        "which stream URLs would hold these for a user. The row is saved for real in "
        "a transaction that is rolled back: nothing is published and nothing stays "
        "changed. What save() and its signals do outside of the database, they do."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """See BaseCommand.add_arguments()."""
        parser.add_argument("label", help="The model, e.g. shop.Order.")
        parser.add_argument("pk", help="Of the row; a JSON array if it is composite.")
        parser.add_argument(
            "--user",
            metavar="NAME",
            help="Ask the stream URLs as this user. Default: as nobody.",
        )
        parser.add_argument(
            "--change",
            nargs="+",
            action="extend",
            default=[],
            metavar="FIELD=VALUE",
            help="Set these fields before the save; FIELD= is NULL where that may be.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """See BaseCommand.handle()."""
        model = _model(options["label"])
        streams = _streams(model)
        using = router.db_for_write(model)
        if not connections[using].features.supports_transactions:
            raise CommandError(f"The database {using!r} cannot take back a save.")
        row = _row(model, options["pk"], using)
        user = _user(options["user"])
        changes = dict(_change(model, text) for text in options["change"])
        with capture_published():
            answers = [answer for ask in askers for answer in ask(row, user)]

        what = " ".join(f"{name}={value!r}" for name, value in changes.items())
        self.stdout.write(
            f"{model._meta.label_lower} {row.pk}: save()"
            f"{' with ' if what else ''}{what} sends, when it commits"
        )
        rehearsal = Rehearsal(row, using, streams)
        try:
            rehearsal.run(changes)
        except Exception as exc:
            # A boundary: save() is the user's, and whatever it raises is the answer.
            raise CommandError(f"save() raised {exc!r}; nothing is changed.") from exc
        for line in _table(rehearsal.told()):
            self.stdout.write(line)
        for line in rehearsal.silence:
            self.stdout.write(f"  nothing: {line}")
        self.stdout.write(rehearsal.summary())
        self.stdout.write("Rolled back: nothing was published, nothing is changed.")

        if not askers:
            return
        who = f"as {user.get_username()}" if user else "without a user"
        self.stdout.write(f"\nStreams that hold it, asked {who} for the row as it is")
        channels = dict.fromkeys(event.channel for event in rehearsal.events)
        held: dict[str, list[str]] = {channel: [] for channel in channels}
        for answer in answers:
            if answer.channel in held:
                held[answer.channel].append(answer.url)
        urls = [(channel, " ".join(held[channel]) or "-") for channel in held]
        for line in _table(urls):
            self.stdout.write(line)
        refused = [(a.url, a.reason) for a in answers if a.channel is None]
        if refused:
            self.stdout.write("Streams that refuse")
        for line in _table(refused):
            self.stdout.write(line)


class Rehearsal:
    """One save that does not last, and what it would have sent."""

    def __init__(
        self, row: models.Model, using: str, streams: list[ModelStream]
    ) -> None:
        self.items: list[Item] = []
        self.events: list[Event] = []
        self.silence: list[str] = []
        self._row = row
        self._using = using
        self._streams = streams
        self._queries = 0
        self._own_queries = 0
        self._foreign_hooks = 0

    def run(self, changes: dict[str, Any]) -> None:
        """Save with these values, and take it back. Raises what save() raises."""
        connection = connections[self._using]
        with (
            capture_published() as items,
            diverted(),
            transaction.atomic(using=self._using),
        ):
            for name, value in changes.items():
                setattr(self._row, name, value)
            first = len(connection.run_on_commit)
            with connection.execute_wrapper(self._count):
                self._row.save(using=self._using)
            for _, hook, *_ in connection.run_on_commit[first:]:
                # Only ours: others may do what no rollback takes back.
                if getattr(hook, "__module__", "").startswith(_REALTIME):
                    hook()
                else:
                    self._foreign_hooks += 1
            self.items = list(items)
            self.events = [event for item in items for event in events_of(item)]
            self.silence = list(self._find_silence())
            transaction.set_rollback(True, using=self._using)

    def told(self) -> Iterator[tuple[str, str, str]]:
        """What is sent, on which channel, of how many bytes."""
        for item in self.items:
            channel = item.channel.removeprefix(conf.prefix())
            event = next(events_of(item), None)
            if event is None:
                yield "publish()", channel, f"{item.size()} bytes"
                continue
            what = event.op if event.reason is None else f"{event.op}, {event.reason}"
            if event.envelope.get("truncated"):
                what += ", truncated"
            yield what, channel, "" if _is_close(item) else f"{item.size()} bytes"

    def summary(self) -> str:
        """One line of numbers."""
        size = sum(item.size() for item in self.items if not _is_close(item))
        own, all_ = self._own_queries, self._queries
        text = (
            f"{len(self.items)} items, {size} bytes; {all_} queries, {own} of them for "
            "the events."
        )
        if self._foreign_hooks:
            text += f" {self._foreign_hooks} commit hooks of others were not run."
        return text

    def _count(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: Any,
        many: bool,
        context: Any,
    ) -> Any:
        self._queries += 1
        self._own_queries += _is_for_events()
        return execute(sql, params, many, context)

    def _find_silence(self) -> Iterator[str]:
        """Why a stream said nothing, as far as that can be seen from here."""
        told = {event.envelope.get("model") for event in self.events}
        for stream in self._streams:
            if stream.label in told:
                continue
            pk = getattr(self._row, stream.model._meta.pk.attname)
            rows = stream.get_queryset().using(self._using)
            if "update" not in stream.events:
                reason = f"events are {', '.join(stream.events)}"
            elif not rows.filter(pk=pk).exists():
                reason = "the row is outside get_queryset()"
            elif type(stream).should_publish is not ModelStream.should_publish:
                reason = "should_publish() may have said no"
                if stream.watch is not None:
                    reason += f", or nothing of watch ({', '.join(stream.watch)})"
            elif stream.watch is not None:
                reason = f"nothing of watch changed ({', '.join(stream.watch)})"
            else:
                continue
            yield f"{stream.label}: {reason}"


def _is_close(item: Item) -> bool:
    return any(event.op == "close" for event in events_of(item))


def _model(label: str) -> type[models.Model]:
    try:
        return apps.get_model(label)
    except (LookupError, ValueError) as exc:
        known = ", ".join(sorted(stream.label for stream in registry))
        raise CommandError(
            f"Expected a model such as shop.Order; got {label!r}. Registered are: "
            f"{known or 'none'}."
        ) from exc


def _streams(model: type[models.Model]) -> list[ModelStream]:
    concrete = model._meta.concrete_model or model
    found = [registry.get(m) for m in (concrete, *concrete._meta.get_parent_list())]
    if streams := [stream for stream in found if stream is not None]:
        return streams
    raise CommandError(
        f"{model._meta.label} is not registered for realtime, nor is a parent of it."
    )


def _row(model: type[models.Model], text: str, using: str) -> models.Model:
    try:
        pk = json.loads(text) if text.startswith("[") else text
        return model._base_manager.using(using).get(pk=pk)
    except (ValueError, TypeError, ValidationError) as exc:
        raise CommandError(f"{text!r} is no pk of {model._meta.label}.") from exc
    except ObjectDoesNotExist as exc:
        raise CommandError(f"There is no {model._meta.label} {text}.") from exc


def _user(name: str | None) -> Any:
    if name is None:
        return None
    try:
        return get_user_model()._default_manager.get_by_natural_key(name)
    except ImproperlyConfigured as exc:
        raise CommandError(f"--user: {exc}") from exc
    except ObjectDoesNotExist as exc:
        raise CommandError(f"There is no user {name!r}.") from exc


def _change(model: type[models.Model], text: str) -> tuple[str, Any]:
    """The attribute and the value of FIELD=VALUE."""
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f"--change takes FIELD=VALUE; got {text!r}.")
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist as exc:
        raise CommandError(f"{model._meta.label} has no field {name!r}.") from exc
    if not isinstance(field, models.Field) or not field.concrete or field.many_to_many:
        raise CommandError(f"{name!r} is no column of {model._meta.label}.")
    if not value and field.null:
        return field.attname, None
    try:
        return field.attname, field.to_python(value)
    except ValidationError as exc:
        raise CommandError(f"--change {text}: {' '.join(exc.messages)}") from exc


def _is_for_events() -> bool:
    """Whether the query under way is asked by the realtime layer."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module in (f"{_REALTIME}states", f"{_REALTIME}writes"):
            return True
        frame = frame.f_back
    return False


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    found = list(rows)
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    for row in found:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
