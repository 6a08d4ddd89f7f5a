"""Revocations: streams end, or begin anew, because a program says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, models, router

from django_grip.contrib.realtime import delivery, durable
from django_grip.contrib.realtime.announcements import Target, stream_of
from django_grip.contrib.realtime.channels import user_channel
from django_grip.contrib.realtime.events import CLOSE, Event
from django_grip.contrib.realtime.streams import alias_of
from django_grip.headers import check_channel

ASKED = "asked"
"""The reason of a `reset` that a program has asked for."""


def revoke(user: Any = None, target: Target | None = None) -> None:
    """End streams when the transaction commits: their clients come back, and are asked
    again whether they may.

    `target` is a row (its own stream), a model (its collection and its scopes) or a
    channel's name. Its streams end in their order, behind what was told before.
    Without the event log, which notes where streams are, those of a model's scopes are
    not known: name their channels.

    `user` ends the private streams and the WebSockets of that user at once. With a
    `target` as well it does the same: who streams what is known to nobody but the
    proxy.

    Raises ValueError without either, or for what is not stored; TypeError for a target
    of another kind; ImproperlyConfigured for a model that is not registered.
    """
    if user is None and target is None:
        raise ValueError("revoke() takes a user, a target or both; got neither.")
    places = None if target is None else _places(target)
    if user is not None:
        pk = getattr(user, "pk", None)
        if pk is None:
            raise ValueError(f"Expected a user that is stored; got {user!r}.")
        state = getattr(user, "_state", None)
        revoke_users([pk], getattr(state, "db", None) or DEFAULT_DB_ALIAS)
    elif places is not None:
        using, channels = places
        delivery.deliver(
            using, [Event(channel=channel, op=CLOSE, id="") for channel in channels]
        )


def revoke_users(pks: Iterable[Any], using: str) -> None:
    """End the private streams and WebSockets of users when a transaction commits."""
    delivery.deliver_at_once(
        using, [Event(channel=user_channel(pk), op=CLOSE, id="") for pk in pks]
    )


def reset(target: Target) -> None:
    """Have the clients of these streams fetch anew when the transaction commits.

    For `target` see revoke(). The streams go on; clients get a `reset` with the reason
    `asked`, in its place among the events. For writes that nothing can tell of: a data
    migration, an import, a restored table.

    Raises ValueError for a row that is not stored, TypeError for a target of another
    kind, and ImproperlyConfigured for a model that is not registered.
    """
    using, channels = _places(target)
    id, ts = uuid4().hex, delivery.now()
    delivery.deliver(
        using,
        [
            Event(channel=channel, op="reset", id=id, ts=ts, values={"reason": ASKED})
            for channel in channels
        ],
    )


async def arevoke(user: Any = None, target: Target | None = None) -> None:
    """See revoke()."""
    await sync_to_async(revoke)(user, target)


async def areset(target: Target) -> None:
    """See reset()."""
    await sync_to_async(reset)(target)


def _places(target: Target) -> tuple[str, list[str]]:
    """The database that tells of a target, and its channels."""
    if isinstance(target, str):
        check_channel(target)
        return alias_of(target), [target]
    stream = stream_of(target)
    using = router.db_for_write(stream.model)
    pk = None
    if isinstance(target, models.Model):
        pk, using = target.pk, target._state.db or using
        if pk is None:
            raise ValueError(f"A {stream.label} that is not stored has no stream.")
    channels = [
        stream.channel(pk, audience=audience, using=using)
        for audience in stream.told_audiences
    ]
    if pk is None and durable.log is not None:
        channels += durable.log.held(f"{stream.channel()}~")
    return using, list(dict.fromkeys(channels))
