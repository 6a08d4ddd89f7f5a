"""Sequences: the transaction in which waiting changes get their places."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from django.db import IntegrityError, connections, transaction
from django.db.models import Max
from django.utils import timezone

from django_grip.contrib.eventlog import records
from django_grip.contrib.eventlog.failpoints import failpoint
from django_grip.contrib.eventlog.models import (
    Head,
    LoggedEvent,
    Outbox,
    SetAside,
    Target,
)
from django_grip.contrib.eventlog.models import (
    Sequence as SequenceRow,
)
from django_grip.contrib.eventlog.positions import new_epoch
from django_grip.contrib.eventlog.sequencing import (
    Sequenced,
    Waiting,
    departing,
    sequenced,
)
from django_grip.contrib.eventlog.statements import insert, moment, remove
from django_grip.contrib.realtime.events import AGE, Event, Telling
from django_grip.contrib.realtime.tellings import told

logger = logging.getLogger("django_grip.eventlog")

WINDOW = 500
"""Rows of the outbox that are looked at together."""

WINDOW_MAX = 10_000
"""The most, where one transaction has so many. One with more is told in parts."""

EVENTS_MAX = 20_000
"""Events after which a step ends: one bulk write may tell of many objects."""

AHEAD = 10_000
"""Keys behind the window among which further rows of a transaction are looked for."""

_CHUNK = 500


def state(using: str) -> SequenceRow:
    """The row that gives out seqs; made if it is not there."""
    found = SequenceRow.objects.using(using).filter(pk=1).first()
    return _made(using) if found is None else found


def sequence(using: str) -> Sequence[LoggedEvent]:
    """Give places to what waits in the outbox, and return the events.

    One transaction, serialised by the lock on the sequence's row. It has to be
    committed before anybody publishes them. [] if nothing waits.
    """
    if not Outbox.objects.using(using).exists():
        return []
    try:
        with transaction.atomic(using=using):
            logged = _sequence(using)
            failpoint("relay.before_seq_commit")
    except IntegrityError:
        if not _repair(using):
            raise
        return []
    failpoint("relay.after_seq_commit")
    return logged


def renew_epoch(using: str, epoch: str) -> None:
    """End an epoch, if it has not ended: whoever has a position of it starts anew."""
    with transaction.atomic(using=using):
        row = SequenceRow.objects.using(using).filter(pk=1, epoch=epoch)
        if row.update(epoch=new_epoch()):
            last = state(using).last_seq
            ahead = Target.objects.using(using).filter(published__gt=last)
            ahead.update(published=last)


def _sequence(using: str) -> list[LoggedEvent]:
    if connections[using].vendor == "postgresql":
        # A relay that is halted here, with its machine, must not halt the others.
        with connections[using].cursor() as cursor:
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '10s'")
    current = _locked(using)
    rows, unfinished = _window(using)
    if not rows:
        return []
    departed: list[int] = []
    told: list[Event] = []
    for group in departing(rows, unfinished):
        departed += (row.id for row in group)
        told += _told(using, group)
        if len(told) >= EVENTS_MAX:
            break
    heads = _heads(using, {event.channel for event in told})
    places = sequenced(told, current.last_seq, heads)
    now = timezone.now()
    logged = [
        LoggedEvent(
            seq=place.seq,
            channel=place.event.channel,
            prev=place.prev,
            op=_op(place.event),
            origin=place.event.origin,
            text=_text(place),
            created_at=now,
        )
        for place in places
    ]
    if logged:
        _keep(using, logged, heads)
    remove(connections[using], Outbox, departed)
    return logged


def _op(event: Event) -> str:
    """Of a close for its streams' age, that reason: it has no envelope to say it."""
    is_of_age = event.is_close and event.values.get("reason") == AGE
    return AGE if is_of_age else event.op


def _text(place: Sequenced) -> str:
    if place.event.is_close:
        return ""
    text = place.event.envelope(seq=place.seq, prev=place.prev)
    # Half a surrogate pair is in no encoding, so no database would take it.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _locked(using: str) -> SequenceRow:
    """The sequence's row, locked.

    By an UPDATE: that takes the lock in every database, and SQLite has no other.
    """
    row = SequenceRow.objects.using(using).filter(pk=1)
    if not row.update(seen_at=timezone.now()):
        _made(using)
        row.update(seen_at=timezone.now())
    return row.get()


def _made(using: str) -> SequenceRow:
    """Make the row, after the first start or after somebody emptied the table."""
    made, _ = SequenceRow.objects.using(using).get_or_create(
        pk=1, defaults={"epoch": new_epoch(), "last_seq": _given_out(using)}
    )
    return made


def _given_out(using: str) -> int:
    """The greatest seq that anything remembers."""
    found = [
        model.objects.using(using).aggregate(last=Max(field))["last"] or 0
        for model, field in ((LoggedEvent, "seq"), (Head, "seq"), (Target, "published"))
    ]
    return max(found)


def _repair(using: str) -> bool:
    """Whether the log held seqs that were not given out: a part of a backup was
    restored. Then they are, and a new epoch begins.
    """
    with transaction.atomic(using=using):
        current = _locked(using)
        last = _given_out(using)
        if last <= current.last_seq:
            return False
        SequenceRow.objects.using(using).filter(pk=1).update(
            last_seq=last, epoch=new_epoch()
        )
    logger.error(
        "The event log of %s ends at %d, but its sequence at %d: was a backup "
        "restored? A new epoch begins; clients fetch anew.",
        using,
        last,
        current.last_seq,
    )
    return True


def _window(using: str) -> tuple[list[Waiting], set[int]]:
    """Rows by key, and the transactions among them that have more behind these."""
    size = WINDOW
    while True:
        rows = [
            Waiting(*values)
            for values in Outbox.objects.using(using)
            .order_by("pk")
            .values_list("pk", "transaction", "body", "created_at")[:size]
        ]
        if len(rows) < size:
            return rows, set()
        end = rows[-1].id
        behind = Outbox.objects.using(using).filter(pk__gt=end, pk__lte=end + AHEAD)
        known = {row.transaction for row in rows}
        unfinished = known & set(behind.values_list("transaction", flat=True))
        if size >= WINDOW_MAX:
            return rows, set()
        if known - unfinished:
            return rows, unfinished
        size = min(size * 4, WINDOW_MAX)


def _told(using: str, group: Sequence[Waiting]) -> list[Event]:
    """The events of one transaction; rows that nobody understands are set aside."""
    tellings: list[Telling] = []
    for row in group:
        try:
            telling = records.load(row.body)
        except records.BadRecord as exc:
            _set_aside(using, [row], str(exc))
        else:
            tellings.append(telling)
    try:
        ts = _ts(group[-1].created_at)
        return list(_valid(told(tellings, ts)))
    except Exception as exc:
        # A boundary: another program may have written the row.
        logger.exception("Changes of one transaction on %s are set aside.", using)
        _set_aside(using, group, f"{type(exc).__name__}: {exc}")
        return []


def _valid(told: Iterable[Event]) -> Iterable[Event]:
    """Raises ValueError for an event that would fail the INSERT of all."""
    for event in told:
        records.check(event)
        yield event


def _set_aside(using: str, rows: Sequence[Waiting], reason: str) -> None:
    for row in rows:
        logger.error("Change %d of %s is set aside: %s", row.id, using, reason)
    SetAside.objects.using(using).bulk_create(
        SetAside(
            reason=reason,
            body=row.body,
            transaction=row.transaction,
            created_at=timezone.now(),
        )
        for row in rows
    )


def _heads(using: str, channels: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    names = sorted(channels)
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        rows = Head.objects.using(using).filter(channel__in=chunk)
        found.update(rows.values_list("channel", "seq"))
    return found


def _keep(using: str, logged: Sequence[LoggedEvent], heads: dict[str, int]) -> None:
    connection = connections[using]
    created_at = moment(connection, logged[0].created_at)
    insert(
        connection,
        LoggedEvent,
        ("seq", "channel", "prev", "op", "origin", "text", "created_at"),
        [
            (e.seq, e.channel, e.prev, e.op, e.origin, e.text, created_at)
            for e in logged
        ],
    )
    named: dict[str, Any] = {}
    if connection.features.supports_update_conflicts_with_target:
        named["unique_fields"] = ["channel"]
    Head.objects.using(using).bulk_create(
        [Head(channel=channel, seq=seq) for channel, seq in sorted(heads.items())],
        batch_size=_CHUNK,
        update_conflicts=True,
        update_fields=["seq"],
        **named,
    )
    SequenceRow.objects.using(using).filter(pk=1).update(last_seq=logged[-1].seq)


def _ts(moment: datetime) -> str:
    if timezone.is_naive(moment):
        moment = timezone.make_aware(moment)
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
