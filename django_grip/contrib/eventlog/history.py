"""History: what came on a channel after a position, or why nobody can say."""

from __future__ import annotations

import logging
from collections.abc import Collection

from django.core import signing
from django.urls import get_script_prefix

from django_grip import links
from django_grip.contrib.eventlog import sequences, trimming
from django_grip.contrib.eventlog.models import Head, LoggedEvent, Sequence
from django_grip.contrib.eventlog.positions import Position, parse
from django_grip.contrib.realtime.durable import Kept, Page
from django_grip.contrib.realtime.streams import alias_of

logger = logging.getLogger("django_grip.eventlog")

PAGE = 200
"""Events of one answer."""

PAGE_BYTES = 512 * 1024
"""Bytes of envelopes in one answer."""

OVERFLOW = 5_000
"""Events that are caught up with; who missed more fetches anew."""

_SALT = "django_grip.eventlog.page"

PAGE_AGE = 300
"""Seconds for which the path of a page is good: the proxy asks for it at once."""


def read(
    channel: str,
    since: str | None,
    *,
    trusted: bool = False,
    granted: int | None = None,
) -> Page:
    """See EventLog.read().

    `trusted` positions come from the proxy, which has them from us: one that lies in
    the future shows that the log was restored from a backup. `granted` is where the log
    ended when a page of this row of pages was granted, None for its first; only that
    one may overflow.
    """
    using = alias_of(channel)
    state = sequences.state(using)
    if since is None:
        return _from_now(using, state, channel)
    found = _place(using, state, channel, since, trusted=trusted)
    if isinstance(found, Page):
        return found
    is_first = granted is None
    if granted is None:
        granted = found if trusted else state.last_seq
    return _since(using, state, channel, found, granted, is_first=is_first)


def newest(channel: str, since: str) -> Page:
    """See EventLog.newest()."""
    using = alias_of(channel)
    state = sequences.state(using)
    found = _place(using, state, channel, since, trusted=True)
    if isinstance(found, Page):
        return found
    log = LoggedEvent.objects.using(using).filter(
        channel=channel, seq__gt=found, seq__lte=_published(using, state)
    )
    # Closes have no text.
    rows = log.exclude(text="").order_by("-seq")
    row = rows.values_list("seq", "prev", "op", "text").first()
    if row is None:
        return Page(channel=channel, position=str(Position(state.epoch, found)))
    return _page(state, channel, [row], state.last_seq)


def _place(
    using: str, state: Sequence, channel: str, since: str, *, trusted: bool
) -> int | Page:
    """The seq of a position; or the reset, where it is none of this log."""
    position = parse(since)
    if position is None:
        logger.debug("A position on %s that is none of ours.", channel)
        return _reset(using, state, channel, "bad-id")
    if position.epoch != state.epoch:
        return _reset(using, state, channel, "epoch")
    if position.seq > state.last_seq:
        if trusted:
            state = _restored(using, state, position)
        return _reset(using, state, channel, "future")
    return position.seq


def position(channel: str) -> str:
    """See EventLog.position()."""
    using = alias_of(channel)
    state = sequences.state(using)
    return str(Position(state.epoch, _published(using, state)))


def read_page(token: str) -> Page | None:
    """The page whose path ends in `token`; None for one that is forged or too old."""
    try:
        channel, since, granted = signing.loads(token, salt=_SALT, max_age=PAGE_AGE)
    except signing.BadSignature:
        return None
    return read(channel, since, granted=granted)


def _from_now(using: str, state: Sequence, channel: str) -> Page:
    head = _head(using, channel, _published(using, state))
    return Page(channel=channel, position=str(Position(state.epoch, head)))


def _reset(using: str, state: Sequence, channel: str, reason: str) -> Page:
    head = _head(using, channel, _published(using, state))
    position = str(Position(state.epoch, head))
    return Page(channel=channel, position=position, reset=reason)


def _since(
    using: str,
    state: Sequence,
    channel: str,
    since: int,
    granted: int,
    *,
    is_first: bool,
) -> Page:
    # Not further than what was published: what comes later would not fit. But a client
    # may be ahead of what is noted as published.
    until = max(_published(using, state), since)
    log = LoggedEvent.objects.using(using).filter(channel=channel)
    missed = log.filter(seq__gt=max(since, state.floor), seq__lte=until).order_by("seq")
    # Before the envelopes, which may be many megabytes: whether they are of use.
    prev = missed.values_list("prev", flat=True).first()
    if prev is None:
        latest = _latest(using, channel)
        head = latest if latest <= until else _last(using, channel, until)
        if head > since:
            return _reset(using, state, channel, "expired")
        position = str(Position(state.epoch, head))
        return Page(channel=channel, position=position, is_behind=latest > until)
    if prev > since:
        return _reset(using, state, channel, "expired")
    if is_first and missed.values_list("seq")[OVERFLOW : OVERFLOW + 1]:
        return _reset(using, state, channel, "overflow")
    rows = list(missed.values_list("seq", "prev", "op", "text")[: PAGE + 1])
    if not rows or rows[0][1] > since:
        # Retention came in between.
        return _reset(using, state, channel, "expired")
    taken, size = 0, 0
    for _, _, _, text in rows[:PAGE]:
        size += len(text) if text.isascii() else len(text.encode())
        if taken and size > PAGE_BYTES:
            break
        taken += 1
    return _page(state, channel, rows[:taken], granted, has_more=taken < len(rows))


def _page(
    state: Sequence,
    channel: str,
    rows: Collection[tuple[int, int, str, str]],
    granted: int,
    *,
    has_more: bool = False,
) -> Page:
    events = [
        Kept(position=str(Position(state.epoch, seq)), op=op, text=text)
        for seq, _, op, text in rows
    ]
    position = events[-1].position
    path = None
    if has_more:
        token = signing.dumps((channel, position, granted), salt=_SALT)
        path = f"{get_script_prefix()}{links.PAGE}{token}/"
    return Page(
        channel=channel,
        position=position,
        events=events,
        next_path=path,
        is_closed=any(seq > granted and not text for seq, _, _, text in rows),
    )


def _published(using: str, state: Sequence) -> int:
    """The last event that streams may be told of. What is gone will not come."""
    return max(min(trimming.published(using), state.last_seq), state.floor)


def _head(using: str, channel: str, until: int) -> int:
    """The last event of a channel up to `until`; 0: there was none."""
    latest = _latest(using, channel)
    return latest if latest <= until else _last(using, channel, until)


def _latest(using: str, channel: str) -> int:
    """The last event of a channel, published or not; 0: there was none."""
    heads = Head.objects.using(using).filter(channel=channel)
    return heads.values_list("seq", flat=True).first() or 0


def _last(using: str, channel: str, until: int) -> int:
    """The last event of a channel up to `until`, where there are later ones."""
    log = LoggedEvent.objects.using(using).filter(channel=channel)
    last = log.filter(seq__lte=until).order_by("-seq").values_list("seq", flat=True)
    if (found := last.first()) is not None:
        return found
    later = log.filter(seq__gt=until).order_by("seq").values_list("prev", flat=True)
    return later.first() or 0


def _restored(using: str, state: Sequence, position: Position) -> Sequence:
    """The proxy has seen an event that is not in the log any more."""
    logger.error(
        "The event log of %s ends at %d, but %d was published: was a backup restored? "
        "A new epoch begins; clients fetch anew.",
        using,
        state.last_seq,
        position.seq,
    )
    sequences.renew_epoch(using, state.epoch)
    return sequences.state(using)
