"""The helpers for the tests of others: django_grip.contrib.realtime.test."""

from decimal import Decimal

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from gripcontrol import HttpStreamFormat

from django_grip import publish
from django_grip.contrib.realtime import actor, channel_for, publish_event, test
from django_grip.contrib.realtime.streams import ModelStream, registry
from django_grip.contrib.realtime.test import (
    Event,
    assert_not_published,
    assert_published,
    capture_events,
)
from django_grip.publishers import locmem
from tests.shop.models import Customer, Item, Order, Parcel, Shipment, Tag

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tenants(monkeypatch):
    """Shipments with scopes."""
    options = {"fields": ("id", "tenant"), "scopes": {"tenant": "tenant"}}
    stream = type("TenantStream", (ModelStream,), options)(Shipment)
    monkeypatch.setitem(registry._streams, Shipment, stream)


def test_events_are_read_from_what_is_published():
    with capture_events() as events, actor("tab-1"):
        order = Order.objects.create(total=5)
        order.status = "paid"
        order.save(update_fields=["status"])
    assert [(event.op, event.channel) for event in events] == [
        ("create", "shop.order"),
        ("create", f"shop.order.{order.pk}"),
        ("update", "shop.order"),
        ("update", f"shop.order.{order.pk}"),
    ]
    update = events[-1]
    assert update.pk == order.pk
    assert update.data["total"] == "5.00"
    assert update.changed == ["status"]
    assert update.origin == "tab-1"
    assert update.reason is None
    assert update.envelope["model"] == "shop.order"
    assert events[0].changed is None


def test_nothing_leaves_and_the_list_grows_as_they_come():
    before = list(locmem.outbox)
    with capture_events() as events:
        assert events == []
        Tag.objects.create(pk=8, name="x")
        assert len(events) == 2
        events.clear()
        assert events == []
        Tag.objects.create(pk=9, name="x")
    assert events[1:] == [
        Event(channel="shop.tag.9", op="create", pk=9, envelope=events[1].envelope)
    ]
    assert locmem.outbox == before


def test_moves_show_leave_enter_and_the_close(tenants):
    shipment = Shipment.objects.create(tenant=1)
    with capture_events() as events:
        shipment.tenant = 2
        shipment.save()
    own = f"shop.shipment.{shipment.pk}"
    assert [(event.op, event.reason, event.channel) for event in events] == [
        ("update", None, "shop.shipment"),
        ("delete", "leave", own),
        ("close", None, own),
        ("delete", "leave", "shop.shipment~tenant.1"),
        ("create", "enter", "shop.shipment~tenant.2"),
    ]
    assert_published(shipment, op="close")
    assert_published(channel_for(Shipment, "tenant", 1), op="delete", reason="leave")
    assert_published(channel_for(Shipment, "tenant", 2), data={"tenant": 2})
    assert_not_published(channel_for(Shipment, "tenant", 3))


def test_a_prefix_is_on_no_channel(settings, tenants):
    settings.GRIP_PREFIX = "p-"
    shipment = Shipment.objects.create(tenant=1)
    with capture_events() as events:
        shipment.tenant = 2
        shipment.save()
    assert {event.channel.partition(".")[0] for event in events} == {"shop"}
    assert_published(shipment, op="close")


def test_what_publish_sends_is_no_event():
    with capture_events() as events:
        publish("room", HttpStreamFormat("event: update\ndata: {}\n\n"))
        publish_event("room", "said", {"text": "a\n\nb"})
    assert [(event.op, event.data) for event in events] == [
        ("said", {"text": "a\n\nb"})
    ]


def test_assert_published_takes_rows_models_and_channels():
    with capture_events():
        order = Order.objects.create(total=5)
        assert_published(order)
        assert_published(Order, op="create", pk=order.pk)
        found = assert_published("shop.order", op="create", data={"total": "5.00"})
    assert found.envelope["pk"] == order.pk
    assert_published(order, op="create")


def test_assert_published_compares_values_as_json():
    with capture_events():
        parcel = Parcel.objects.create(code="c")
    assert_published(Parcel, pk=parcel.pk, data={"id": parcel.pk})
    with pytest.raises(AssertionError, match="Not published"):
        assert_published(Parcel, data={"id": Decimal(1)})


def test_of_a_stream_with_audiences_any_will_do():
    with capture_events():
        item = Item.objects.create(name="i", reserve=7)
    assert_published(item, op="create", data={"name": "i"})
    assert_published(Item, data={"reserve": 7})
    public = channel_for(item, audience="public")
    assert_published(public, op="create")
    with pytest.raises(
        AssertionError, match=r"Not published: anything on .*as\.public"
    ):
        assert_published(public, data={"reserve": 7})


@pytest.mark.parametrize(
    "wrong",
    [
        {"op": "delete"},
        {"data": {"total": "6.00"}},
        {"data": {"nothing": None}},
        {"data": []},
        {"pk": 7},
        {"changed": ["total"]},
        {"reason": "leave"},
        {"origin": "tab-1"},
    ],
)
def test_assert_published_fails_for_each_thing_that_differs(wrong):
    with capture_events():
        order = Order.objects.create(pk=5, total=5)
        order.save(update_fields=["status"])
    assert_published(Order, op="update", pk=5, changed=["status"], data={"id": 5})
    with pytest.raises(AssertionError, match="Not published"):
        assert_published(order, **wrong)


def test_errors_say_what_was_expected_and_what_was_published():
    with capture_events():
        tag = Tag.objects.create(pk=7, name="x")
        tag.save(update_fields=["name"])
    with pytest.raises(AssertionError) as caught:
        assert_published(tag, op="delete", reason="leave")
    assert str(caught.value) == (
        'Not published: delete on shop.tag.7 reason="leave". Published were:\n'
        "  create shop.tag pk=7\n"
        "  create shop.tag.7 pk=7\n"
        '  update shop.tag pk=7 changed=["name"]\n'
        '  update shop.tag.7 pk=7 changed=["name"]'
    )
    with pytest.raises(AssertionError) as caught:
        assert_not_published(Tag, op="update")
    assert str(caught.value).startswith(
        'Not expected, but published: update shop.tag pk=7 changed=["name"]. Published'
    )
    assert_not_published(tag, op="delete")
    assert_not_published(Tag, pk=8)
    assert_not_published(Order)


def test_events_that_wait_for_a_commit_are_named_as_a_cause():
    with transaction.atomic(), capture_events():
        tag = Tag.objects.create(name="x")
        with pytest.raises(AssertionError, match="captureOnCommitCallbacks"):
            assert_published(tag)


def test_the_innermost_capture_is_looked_at_then_the_last_one():
    with capture_events() as outer:
        Tag.objects.create(pk=1, name="x")
        with capture_events() as inner:
            Tag.objects.create(pk=2, name="x")
            assert_not_published(Tag, pk=1)
        assert_published(Tag, pk=1)
        assert_not_published(Tag, pk=2)
        assert_published(Tag, pk=2, among=inner)
    assert_published(Tag, pk=1)
    assert [event.pk for event in outer] == [1, 1]


def test_misuse_is_told_with_the_cure(monkeypatch):
    monkeypatch.setattr(test, "_ended", None)
    with pytest.raises(RuntimeError, match=r"with capture_events\(\):"):
        assert_published(Tag)
    with capture_events():
        tag = Tag.objects.create(name="x")
        pk = tag.pk
        tag.delete()
    with pytest.raises(ValueError, match=r"no pk: it was deleted.*Tag with pk="):
        assert_published(tag, op="delete")
    assert_published(Tag, op="delete", pk=pk)
    with pytest.raises(ImproperlyConfigured, match="not registered"):
        assert_not_published(Customer)
