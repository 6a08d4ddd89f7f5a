"""What was published, as lines a test can compare; and streams with other options."""

import json
from contextlib import ExitStack, contextmanager

from django_grip.contrib.realtime.streams import registry


def events(published):
    """The envelopes of what was published, oldest first; not the closes."""
    return [event for event in map(envelope, published) if event is not None]


def told(published):
    """One line for each item: `update shop.order.1`, `close shop.order.1`.

    A reason stands behind it; a bulk event says its action and count as well.
    """
    return [line(item) for item in published]


def line(item):
    event = envelope(item)
    if event is None:
        return f"close {item.channel}"
    words = [event["op"], event["channel"], event.get("action"), event.get("count")]
    return " ".join(str(word) for word in [*words, event.get("reason")] if word)


def envelope(item):
    """The envelope of an item as a client reads it; None for a close."""
    fields = item.formats["http-stream"]
    if "content" not in fields:
        assert fields == {"action": "close"}
        return None
    name, _, data = fields["content"].partition("\ndata: ")
    assert data.endswith("\n\n")
    event = json.loads(data)
    assert name == f"event: {event['op']}"
    assert item.channel == event["channel"]
    assert item.id == event["id"]
    assert item.events
    return event


def text(items):
    """Every byte that leaves for these items."""
    return json.dumps([item.export() for item in items], ensure_ascii=False)


@contextmanager
def configurator():
    """Yields `configure(model, **options)`, which changes a stream until the end."""
    with ExitStack() as undo:

        def configure(model, **options):
            stream = registry.get(model)
            changed = type("Changed", (type(stream),), options)(model)
            registry._streams[model] = changed
            undo.callback(registry._streams.__setitem__, model, stream)
            return changed

        yield configure
