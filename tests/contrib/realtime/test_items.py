"""What leaves for each kind of client, of an event and of a close."""

import json

import pytest

from django_grip.contrib.realtime import publish_event, suppress
from tests.shop.models import Shipment
from tests.shop.reading import configurator

pytestmark = pytest.mark.django_db


def formats(item):
    return item.export()["formats"]


def test_an_event_leaves_for_streams_long_polls_and_websockets(
    published, settings, django_capture_on_commit_callbacks
):
    settings.GRIP_PREFIX = "p-"
    with django_capture_on_commit_callbacks(execute=True):
        publish_event("room", "rang", {"by": "Zoë"})
    (item,) = published
    found = formats(item)
    (envelope,) = json.loads(found["ws-message"]["content"])
    assert (envelope["channel"], envelope["data"]) == ("room", {"by": "Zoë"})
    assert found["http-stream"]["content"].startswith("event: rang\ndata: {")
    assert found["http-response"]["headers"] == {"Content-Type": "application/json"}
    # Without an event log nobody stands anywhere.
    assert json.loads(found["http-response"]["body"]) == {"events": [envelope]}
    assert item.channel == "p-room"


def test_a_row_that_leaves_ends_all_that_is_held_of_it(
    published, django_capture_on_commit_callbacks
):
    with suppress():
        row = Shipment.objects.create(tenant=7)
    with configurator() as configure:
        configure(Shipment, scopes={"tenant": "tenant"})
        with django_capture_on_commit_callbacks(execute=True):
            row.tenant = 8
            row.save()
    [close] = [item for item in published if item.formats["http-stream"].get("action")]
    assert close.channel == f"shop.shipment.{row.pk}"
    found = formats(close)
    assert found["http-stream"] == {"action": "close"}
    assert found["ws-message"] == {"action": "close", "code": 4001}
    assert json.loads(found["http-response"]["body"]) == {"events": []}
