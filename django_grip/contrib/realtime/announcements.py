"""What programs announce themselves, and the names of channels."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import models, router, transaction

from django_grip.contrib.realtime import delivery, states
from django_grip.contrib.realtime.contexts import current_origin
from django_grip.contrib.realtime.events import REFRESH, Event, Op
from django_grip.contrib.realtime.streams import (
    ModelStream,
    alias_of,
    json_text,
    registry,
)
from django_grip.contrib.realtime.tellings import refresh
from django_grip.contrib.realtime.writes import announce
from django_grip.headers import check_channel

Target = models.Model | type[models.Model] | str


def channel_for(
    target: models.Model | type[models.Model],
    scope: str | None = None,
    value: Any = None,
    audience: str | None = None,
) -> str:
    """The channel of an object, of a model's collection or of a scope's value.

    Without GRIP_PREFIX, as `publish()` takes it. Raises TypeError for a target of
    another kind, ImproperlyConfigured for a model that is not registered, and
    ValueError for a scope or an audience that its stream does not have, or where it
    has audiences and none is named.
    """
    is_object = isinstance(target, models.Model)
    stream = stream_of(target)
    if audience not in stream.told_audiences:
        named = stream.told_audiences
        names = ", ".join(str(name) for name in named if name is not None)
        raise ValueError(
            f"The stream of {stream.label} has "
            f"{f'the audiences {names}' if names else 'no audiences'}; "
            f"got {audience!r}."
        )
    if scope is None:
        pk = target.pk if is_object else None
        if is_object and pk is None:
            raise ValueError(f"A {stream.label} that is not stored has no channel.")
        using = target._state.db if is_object else None
        return stream.channel(pk, audience=audience, using=using)
    if scope not in stream.scopes:
        raise ValueError(
            f"The stream of {stream.label} has no scope {scope!r}; it has "
            f"{', '.join(stream.scopes) or 'none'}."
        )
    if is_object:
        raise ValueError("A scope is one of the model's: pass the model class.")
    found = list(states.texts(value))
    if len(found) != 1:
        raise ValueError(f"Expected one value for the scope {scope!r}; got {value!r}.")
    return stream.channel(place=(scope, found[0]), audience=audience)


def publish_changes(queryset: models.QuerySet[Any], op: Op = "update") -> int:
    """Announce rows that were written past us: by raw SQL, a database, another program.

    For "delete" call it before the rows go. Returns how many rows. Raises
    ImproperlyConfigured for a model that is not registered.
    """
    stream = stream_of(queryset.model)
    using = queryset._db or router.db_for_write(queryset.model)  # type: ignore[attr-defined]
    with transaction.atomic(using=using):
        found = queryset.order_by().using(using).values_list("pk", flat=True)
        pks = list(dict.fromkeys(found))
        if pks:
            before = None
            if op == "delete":
                before = states.read(stream, using, pks)
            announce(stream, op, pks, using, before=before, always=True)
    return len(pks)


def publish_event(target: Target, op: str, data: Any = None) -> None:
    """Send an event of your own when the transaction commits.

    `publish_event(order, "shipped", {"by": "bike"})` goes where a change of that row
    would go: to the collection, its scopes and its own channel; of a model to the
    collection; of a str to the channel of that name. `data` is put into JSON as Django
    does. Audiences all get it: it must be fit for each.

    It leaves when the transaction commits: that of the row's database, or of the one
    that a model or a channel's name is of. Raises TypeError for a target of another
    kind, ValueError for a name that the wire cannot carry, and ImproperlyConfigured for
    a model that is not registered.
    """
    text = None if data is None else json_text(data)
    label, pk = None, None
    refreshed: list[str] = []
    if isinstance(target, str):
        check_channel(target)
        using, channels = alias_of(target), [target]
    else:
        stream = stream_of(target)
        label = stream.label
        using = router.db_for_write(stream.model)
        where: list[dict[str, Any]] = [{}]
        if isinstance(target, models.Model):
            pk, using = target.pk, target._state.db or using
            rows = states.read(stream, using, [pk])
            places = rows[pk].state.places if pk in rows else ()
            where += [{"pk": pk}, *({"place": place} for place in sorted(places))]
        channels = [
            stream.channel(audience=audience, using=using, **which)
            for audience in stream.serializers
            for which in where
        ]
        if stream.refresh:
            refreshed = [
                stream.channel(audience=REFRESH, using=using, **which)
                for which in where
            ]
    id, ts = uuid4().hex, delivery.now()
    delivery.deliver(
        using,
        [
            Event(
                channel=channel,
                op=op,
                id=id,
                label=label,
                ts=ts,
                data=text,
                origin=current_origin(),
                values={"pk": pk},
            )
            for channel in channels
        ]
        + [refresh(channel, ts) for channel in refreshed],
    )


async def apublish_event(target: Target, op: str, data: Any = None) -> None:
    """See publish_event()."""
    await sync_to_async(publish_event)(target, op, data)


def stream_of(target: Target) -> ModelStream:
    """The stream of a row or a model.

    Raises TypeError for anything else, and ImproperlyConfigured for a model that is not
    registered.
    """
    model = type(target) if isinstance(target, models.Model) else target
    if not (isinstance(model, type) and issubclass(model, models.Model)):
        raise TypeError(
            f"Expected a model or a row of one; got {target!r}. A row is found by its "
            "key: Model.objects.get(pk=…)."
        )
    stream = registry.get(model)
    if stream is None:
        raise ImproperlyConfigured(
            f"{model!r} is not registered for realtime. Decorate it with @realtime, or "
            "register a ModelStream for it."
        )
    return stream
