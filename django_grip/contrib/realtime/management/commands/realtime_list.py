"""`manage.py realtime_list`: what is announced, of which models, on which channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand

from django_grip import conf
from django_grip.contrib.realtime.checks import sees_bulk_writes
from django_grip.contrib.realtime.streams import ModelStream, registry


class Command(BaseCommand):
    """Lists the registry."""

    help = (
        "Lists the models that are registered for realtime: what is sent of a row, to "
        "whom, and on which channels."
    )
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        """See BaseCommand.handle()."""
        streams = sorted(registry, key=lambda stream: stream.label)
        if not streams:
            self.stdout.write("No model is registered for realtime.")
        if prefix := conf.prefix():
            self.stdout.write(f"Before each channel stands GRIP_PREFIX, {prefix!r}.\n")
        for stream in streams:
            self.stdout.write(stream.label)
            for name, text in _lines(stream):
                self.stdout.write(f"  {name:<12} {text}")


def _lines(stream: ModelStream) -> Iterator[tuple[str, str]]:
    yield "payload", _payload(stream)
    for audience, serializer in stream.serializers.items():
        if audience is not None:
            yield "audience", f"{audience}: {_name(serializer)}"
    if stream.refresh:
        yield "refresh", 'without content, for stream_mode = "refresh"'
    yield "events", ", ".join(stream.events)
    for scope, source in stream.scopes.items():
        yield "scope", f"{scope}: {source if isinstance(source, str) else 'computed'}"
    if stream.is_restricted:
        yield "rows", "those of get_queryset(); others have left"
    if stream.watch is not None:
        yield "watch", ", ".join(stream.watch)
    for name in stream.touch:
        related: Any = stream.model._meta.get_field(name).related_model
        yield "touch", f"{name}: {related._meta.label_lower}"
    seen = "seen" if sees_bulk_writes(stream) else "not seen: no RealtimeManager"
    manager = stream.model._default_manager.name
    yield "bulk writes", f"by {manager}: {seen}"
    yield "bulk_limit", f"{stream.bulk_limit} rows"
    for audience in stream.told_audiences:
        for channel in _channels(stream, audience):
            yield "channel", channel


def _payload(stream: ModelStream) -> str:
    if type(stream).get_data is not ModelStream.get_data:
        return "computed by get_data()"
    if stream.fields is not None:
        return f"fields: {', '.join(stream.fields)}"
    if stream.audiences is not None:
        return "a serializer for each audience"
    if stream.is_thin:
        return "none: op and pk only"
    return f"serializer: {_name(stream.serializers[None])}"


def _channels(stream: ModelStream, audience: str | None) -> Iterator[str]:
    yield stream.channel(audience=audience)
    yield stream.channel("PK", audience=audience)
    for scope in stream.scopes:
        yield stream.channel(place=(scope, "VALUE"), audience=audience)


def _name(serializer: Any) -> str:
    module = getattr(serializer, "__module__", "")
    return f"{module}.{getattr(serializer, '__qualname__', serializer)}"
