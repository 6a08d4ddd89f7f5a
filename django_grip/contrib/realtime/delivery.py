"""Delivery: a change to its payloads now, to the publisher on commit."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.db import transaction
from django.utils import timezone, translation

from django_grip import conf as grip_conf
from django_grip.contrib.realtime import sse
from django_grip.contrib.realtime.events import Change, Notice, envelope, merge
from django_grip.contrib.realtime.signals import payload_failed
from django_grip.contrib.realtime.streams import ModelStream
from django_grip.items import Item
from django_grip.publishers import get_publisher

logger = logging.getLogger("django_grip.realtime")


def announce(stream: ModelStream, change: Change) -> None:
    """Capture a change: read its payload now, publish it when the transaction commits.

    Called inside the transaction of the write. Never raises for what a serializer
    does: the event is then thin, which is logged and signalled.
    """
    notice = Notice(change=change, audiences=_payloads(stream, change))
    _departure(change.using).add(stream, notice)


def _payloads(stream: ModelStream, change: Change) -> dict[str | None, str | None]:
    payloads: dict[str | None, str | None] = dict.fromkeys(stream.serializers)
    if change.op == "delete" or stream.is_thin:
        return payloads
    try:
        # The savepoint: a query that fails would leave PostgreSQL's transaction
        # unusable. Zone and language: a payload goes to everybody, so it may not
        # depend on what the writer's request has activated.
        with (
            transaction.atomic(using=change.using),
            timezone.override(None),
            translation.override(settings.LANGUAGE_CODE),
        ):
            row = stream.get_queryset().using(change.using).get(pk=change.pk)
            for audience in payloads:
                data = stream.get_data(row, audience)
                payloads[audience] = stream.encode(data, audience)
    except Exception as exc:
        # A boundary: the serializer is the user's, and the write must go on.
        logger.exception(
            "The payload of %s %s failed; its event goes out without data.",
            change.label,
            change.pk,
        )
        payload_failed.send_robust(sender=type(stream), change=change, exception=exc)
    return payloads


class Departure:
    """What one transaction has to say when it commits.

    Each notice is a commit hook of its own, so a rolled-back savepoint takes exactly
    its own with it. Hooks run in order, so the last `leave` sees all that survived.
    """

    def __init__(self, using: str) -> None:
        self.using = using
        self._captured = 0
        self._survived: list[tuple[ModelStream, Notice]] = []

    def add(self, stream: ModelStream, notice: Notice) -> None:
        """Have a notice leave when the transaction commits."""
        self._captured += 1
        turn = self._captured

        def survive() -> None:
            self._survived.append((stream, notice))

        def leave() -> None:
            if turn == self._captured:
                self.leave()

        leave.departure = self  # type: ignore[attr-defined]
        transaction.on_commit(survive, using=self.using)
        connection = transaction.get_connection(self.using)
        if connection.in_atomic_block:
            # Not on_commit(): the hook of a savepoint goes with it, and this one has
            # to outlive the savepoint to send what was captured before it.
            connection.run_on_commit.append((set(), leave, True))
        else:
            leave()

    def leave(self) -> None:
        """Publish what survived, one notice for each row."""
        survived, self._survived = self._survived, []
        rows: dict[tuple[str, Any], tuple[ModelStream, Notice]] = {}
        for stream, notice in survived:
            key = (stream.label, notice.change.pk)
            merged: Notice | None = notice
            if key in rows:
                merged = merge(rows[key][1], notice)
            if merged is None:
                del rows[key]
            else:
                rows[key] = (stream, merged)
        items = [
            item
            for stream, notice in rows.values()
            if notice.change.op in stream.events
            for item in _items(stream, notice)
        ]
        if items:
            get_publisher().enqueue(items)


def _departure(using: str) -> Departure:
    """The departure of the transaction under way, or a new one.

    It is kept nowhere but in the transaction's own hooks, so it goes with them.
    """
    for _, hook, _ in reversed(transaction.get_connection(using).run_on_commit):
        departure: Departure | None = getattr(hook, "departure", None)
        if departure is not None:
            return departure
    return Departure(using)


def _items(stream: ModelStream, notice: Notice) -> list[Item]:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    id = uuid4().hex
    prefix = grip_conf.prefix()
    items = []
    for audience, data in notice.audiences.items():
        for channel in stream.channels(notice.change, audience):
            text = envelope(
                id=id, channel=channel, change=notice.change, ts=now, data=data
            )
            content = sse.frame(notice.change.op, text)
            items.append(
                Item(
                    channel=prefix + channel,
                    formats={"http-stream": {"content": content}},
                    id=id,
                    events=True,
                )
            )
    return items
