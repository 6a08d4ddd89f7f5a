"""realtime_list and realtime_explain."""

import json
import re

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import connections, models, transaction
from django.db.models.signals import post_save
from django.urls import include, path
from gripcontrol import HttpStreamFormat
from rest_framework import permissions, viewsets
from rest_framework.routers import DefaultRouter

from django_grip import publish
from django_grip.contrib.realtime.streams import ModelStream, registry
from django_grip.contrib.rest_framework import StreamModelMixin
from django_grip.publishers import locmem
from tests.shop import serializers, views
from tests.shop.models import (
    Customer,
    Item,
    Line,
    Order,
    Seat,
    Shipment,
    Tag,
    UrgentOrder,
)

pytestmark = pytest.mark.django_db(transaction=True)


class OwnShipments(permissions.BasePermission):
    """Staff lists; who is called as the tenant sees its shipments, and writes."""

    def has_permission(self, request, view):
        return view.action == "retrieve" or request.user.is_staff

    def has_object_permission(self, request, view, shipment):
        Shipment.objects.update(note="looked at")
        publish("audit", HttpStreamFormat("looked at"))
        return request.user.username == f"tenant{shipment.tenant}"


class ShipmentViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = Shipment.objects.order_by("pk")
    serializer_class = serializers.TagSerializer
    permission_classes = (OwnShipments,)
    stream_audience = ""


class OpenShipmentViewSet(ShipmentViewSet):
    queryset = Shipment.objects.filter(status="open")
    permission_classes = ()


class BrokenShipmentViewSet(ShipmentViewSet):
    permission_classes = ()

    def get_object(self):
        Shipment.objects.update(note="written by a view")
        raise ZeroDivisionError


router = DefaultRouter()
router.register("shipments", ShipmentViewSet)
router.register("open", OpenShipmentViewSet, basename="open")
router.register("tags", views.TagViewSet)
nested = DefaultRouter()
nested.register("shipments", ShipmentViewSet, basename="nested")
broken = DefaultRouter()
broken.register("broken", BrokenShipmentViewSet, basename="broken")

urlpatterns = [
    path("api/", include(router.urls)),
    path("<slug:tenant_slug>/", include(nested.urls)),
    path("", include(broken.urls)),
]


@pytest.fixture
def configure(monkeypatch):
    def configure(model, **options):
        stream = type("Changed", (ModelStream,), options)(model)
        monkeypatch.setitem(registry._streams, model, stream)

    return configure


@pytest.fixture
def tenants(configure):
    configure(Shipment, fields=("id", "tenant"), scopes={"tenant": "tenant"})


@pytest.fixture
def run(capsys):
    """Call a command; its lines, without the trailing blanks and repeated ones."""

    def run(*arguments, **options):
        call_command(*map(str, arguments), **options)
        out = capsys.readouterr().out
        return [re.sub(r" +", " ", line.strip()) for line in out.splitlines()]

    return run


def test_list_says_what_is_announced(run, configure):
    options = {
        "fields": ("id", "status"),
        "events": ("update",),
        "scopes": {"tenant": "tenant", "late": lambda shipment: False},
        "watch": ("status", "depot"),
        "touch": ("depot",),
        "bulk_limit": 7,
        "get_queryset": lambda self: Shipment.objects.exclude(status="draft"),
    }
    configure(Shipment, **options)
    lines = run("realtime_list")
    start = lines.index("shop.shipment")
    assert lines[start : start + 14] == [
        "shop.shipment",
        "payload fields: id, status",
        "events update",
        "scope tenant: tenant",
        "scope late: computed",
        "rows those of get_queryset(); others have left",
        "watch status, depot",
        "touch depot: shop.depot",
        "bulk writes by objects: seen",
        "bulk_limit 7 rows",
        "channel shop.shipment",
        "channel shop.shipment.PK",
        "channel shop.shipment~tenant.VALUE",
        "channel shop.shipment~late.VALUE",
    ]


def test_list_names_serializers_and_audiences(run, configure):
    configure(Tag, get_data=lambda self, instance, audience: 1)
    text = "\n".join(run("realtime_list"))
    for expected in (
        "shop.order\npayload serializer: tests.shop.serializers.OrderSerializer\n",
        "shop.item\npayload a serializer for each audience\n"
        "audience public: tests.shop.serializers.ItemSerializer\n"
        "audience staff: tests.shop.serializers.StaffItemSerializer\n",
        "channel shop.item.PK~as.staff",
        "shop.depot\npayload none: op and pk only\n",
        "shop.tag\npayload computed by get_data()\n",
        "bulk writes by objects: not seen: no RealtimeManager",
    ):
        assert expected in text


def test_list_says_the_prefix_and_that_there_is_nothing(run, settings, monkeypatch):
    settings.GRIP_PREFIX = "p-"
    monkeypatch.setattr(registry, "_streams", {})
    assert run("realtime_list") == [
        "No model is registered for realtime.",
        "Before each channel stands GRIP_PREFIX, 'p-'.",
    ]


def test_explain_says_what_a_save_sends(run, published):
    order = Order.objects.create(total=5)
    published.clear()
    lines = run("realtime_explain", "shop.Order", order.pk)
    order.save()
    sizes = [item.size() for item in published]
    assert lines[:5] == [
        f"shop.order {order.pk}: save() sends, when it commits",
        f"update shop.order {sizes[0]} bytes",
        f"update shop.order.{order.pk} {sizes[1]} bytes",
        # UPDATE; and SAVEPOINT, SELECT, RELEASE around the payload.
        f"2 items, {sum(sizes)} bytes; 4 queries, 3 of them for the events.",
        "Rolled back: nothing was published, nothing is changed.",
    ]


def test_explain_publishes_nothing_and_changes_nothing(run, tenants, published):
    shipment = Shipment.objects.create(tenant=1, note="kept")
    before = Shipment.objects.values().get()
    published.clear()
    locmem_before = list(locmem.outbox)

    def receiver(**kwargs):
        publish("room", HttpStreamFormat("said by a signal"))
        transaction.on_commit(lambda: mail.send_mail("a", "b", "c@d.e", ["f@g.h"]))

    post_save.connect(receiver, sender=Shipment)
    try:
        lines = run(
            "realtime_explain",
            *("shop.shipment", shipment.pk),
            *("--change", "tenant=2", "note=changed"),
        )
    finally:
        post_save.disconnect(receiver, sender=Shipment)
    assert "publish() room 16 bytes" in lines
    assert any(
        line.endswith("1 commit hooks of others were not run.") for line in lines
    )
    assert mail.outbox == []
    assert published == []
    assert list(locmem.outbox) == locmem_before
    assert Shipment.objects.values().get() == before
    # Nor does anything wait for the next commit.
    Tag.objects.create(pk=5, name="x")
    assert [item.channel for item in published] == ["shop.tag", "shop.tag.5"]


def test_explain_changes_nothing_inside_a_transaction_either(run, tenants, published):
    with transaction.atomic():
        shipment = Shipment.objects.create(pk=5, tenant=1)
        lines = run("realtime_explain", "shop.shipment", 5, "--change", "tenant=2")
        assert "delete, leave shop.shipment~tenant.1" in "\n".join(lines)
        assert published == []
    shipment.refresh_from_db()
    assert shipment.tenant == 1
    assert {item.channel for item in published} == {
        "shop.shipment",
        "shop.shipment.5",
        "shop.shipment~tenant.1",
    }
    assert "leave" not in json.dumps([item.export() for item in published])


def test_explain_shows_a_move_and_who_may_stream_it(run, tenants, settings, published):
    settings.ROOT_URLCONF = __name__
    shipment = Shipment.objects.create(pk=5, tenant=1, status="sent")
    User.objects.create(username="tenant1")
    published.clear()
    arguments = ("realtime_explain", "shop.Shipment", 5, "--change", "tenant=2")
    lines = run(*arguments, "--user", "tenant1")
    assert lines[0] == "shop.shipment 5: save() with tenant=2 sends, when it commits"
    told = [re.sub(r" \d+ bytes$", "", line) for line in lines[1:6]]
    assert told == [
        "update shop.shipment",
        "delete, leave shop.shipment.5",
        "close shop.shipment.5",
        "delete, leave shop.shipment~tenant.1",
        "create, enter shop.shipment~tenant.2",
    ]
    streams = lines[lines.index("") + 1 :]
    restricted = "The queryset of OpenShipmentViewSet is restricted, "
    refusals = {line.partition(" ")[0]: line for line in streams[6:]}
    assert streams[:6] == [
        "Streams that hold it, asked as tenant1 for the row as it is",
        "shop.shipment /broken/stream/",
        "shop.shipment.5 /api/shipments/5/stream/",
        "shop.shipment~tenant.1 -",
        "shop.shipment~tenant.2 -",
        "Streams that refuse",
    ]
    assert refusals.keys() == {
        "/api/shipments/stream/",
        "/api/open/stream/",
        "/api/open/5/stream/",
        "/<tenant_slug>/shipments/stream/",
        "/<tenant_slug>/shipments/5/stream/",
        "/broken/5/stream/",
    }
    assert "403 You do not have permission" in refusals["/api/shipments/stream/"]
    assert f"403 {restricted}" in refusals["/api/open/stream/"]
    assert "404 No Shipment matches" in refusals["/api/open/5/stream/"]
    slug = "not asked: the row does not tell its tenant_slug"
    assert slug in refusals["/<tenant_slug>/shipments/5/stream/"]
    assert "500 ZeroDivisionError()" in refusals["/broken/5/stream/"]
    shipment.refresh_from_db()
    assert (shipment.note, shipment.tenant) == ("", 1)
    assert published == []


def test_explain_asks_as_nobody_and_as_staff(run, tenants, settings):
    settings.ROOT_URLCONF = __name__
    Shipment.objects.create(pk=5, tenant=1)
    lines = "\n".join(run("realtime_explain", "shop.Shipment", 5))
    assert "asked without a user" in lines
    assert "/api/shipments/5/stream/ 403 You do not have permission" in lines
    User.objects.create(username="boss", is_staff=True)
    lines = "\n".join(run("realtime_explain", "shop.Shipment", 5, "--user", "boss"))
    assert "shop.shipment /api/shipments/stream/ /broken/stream/" in lines
    assert "/api/shipments/5/stream/ 403 You do not have permission" in lines


def test_explain_names_the_audience_a_url_streams(run):
    item = Item.objects.create(name="i")
    lines = run("realtime_explain", "shop.Item", item.pk)
    assert "shop.item~as.public /items/stream/" in lines
    assert f"shop.item.{item.pk}~as.staff /staff-items/{item.pk}/stream/" in lines


def test_explain_asks_with_atomic_requests(run, tenants, settings, monkeypatch):
    settings.ROOT_URLCONF = __name__
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    Shipment.objects.create(pk=5, tenant=1)
    lines = run("realtime_explain", "shop.Shipment", 5)
    assert "shop.shipment.5 /api/open/5/stream/" in lines


def test_explain_says_nothing_of_urls_where_no_app_has_any(run, monkeypatch):
    monkeypatch.setattr(
        "django_grip.contrib.realtime.management.commands.realtime_explain.askers", []
    )
    tag = Tag.objects.create(name="x")
    assert len(run("realtime_explain", "shop.Tag", tag.pk)) == 5


def test_explain_a_child_tells_of_its_parent(run):
    child = UrgentOrder.objects.create()
    lines = run("realtime_explain", "shop.UrgentOrder", child.pk)
    assert lines[1].startswith("update shop.order ")
    assert f"shop.order.{child.pk} /orders/{child.pk}/stream/" in "\n".join(lines)


def test_explain_takes_composite_pks(run):
    Seat.objects.create(hall=3, number="7b")
    lines = run("realtime_explain", "shop.Seat", '[3, "7b"]', "--change", "status=sold")
    assert lines[2].startswith("update shop.seat.%5B3%2C%20%227b%22%5D ")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"events": ("create",)}, "events are create"),
        (
            {"get_queryset": lambda self: Tag.objects.filter(name="y")},
            "the row is outside get_queryset()",
        ),
        ({"watch": ("name",)}, "nothing of watch changed (name)"),
        (
            {"should_publish": lambda self, c: False},
            "should_publish() may have said no",
        ),
        (
            {"should_publish": lambda self, c: False, "watch": ("name",)},
            "should_publish() may have said no, or nothing of watch (name)",
        ),
    ],
)
def test_explain_says_why_nothing_is_sent(run, configure, options, reason):
    configure(Tag, **options)
    tag = Tag.objects.create(name="x")
    lines = run("realtime_explain", "shop.Tag", tag.pk)
    assert lines[1] == f"nothing: shop.tag: {reason}"
    assert lines[2].startswith("0 items, 0 bytes; ")


def test_explain_sets_keys_null_and_other_types(run, tenants):
    order = Order.objects.create(customer=Customer.objects.create(name="Ann"))
    line = Line.objects.create(order=order, sku="a")
    lines = run(
        "realtime_explain",
        *("shop.order", order.pk, "--change", "customer=", "total=7.5"),
    )
    assert "save() with customer_id=None total=Decimal('7.5') sends" in lines[0]
    other = Order.objects.create()
    lines = run(
        "realtime_explain", "shop.line", line.pk, "--change", f"order={other.pk}"
    )
    assert f"save() with order_id={other.pk} sends" in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shop.Nothing", 1], r"Expected a model such as shop\.Order; got 'shop\.Noth"),
        (["nothing", 1], "Registered are: .*shop.item, .*shop.line"),
        (["shop.Customer", 1], "Customer is not registered for realtime, nor is a par"),
        (["shop.Tag", "x"], "'x' is no pk of shop.Tag"),
        (["shop.Tag", "[1"], r"'\[1' is no pk of shop.Tag"),
        (["shop.Tag", 99], "There is no shop.Tag 99"),
        (["shop.Tag", 1, "--user", "zoe"], "There is no user 'zoe'"),
        (["shop.Tag", 1, "--change", "name"], "takes FIELD=VALUE; got 'name'"),
        (["shop.Tag", 1, "--change", "nome=x"], "shop.Tag has no field 'nome'"),
        (
            ["shop.Tag", 1, "--change", "id=x"],
            "--change id=x: .x. value must be an int",
        ),
        (["shop.Order", 1, "--change", "lines=1"], "'lines' is no column of shop.Ord"),
    ],
)
def test_explain_says_what_it_expected(run, arguments, message):
    Tag.objects.create(pk=1, name="x")
    Order.objects.create(pk=1)
    with pytest.raises(CommandError, match=message):
        run("realtime_explain", *arguments)


def test_explain_tells_what_save_raised(run, published, monkeypatch):
    tag = Tag.objects.create(name="x")
    published.clear()

    def save(self, **kwargs):
        models.Model.save(self, **kwargs)
        raise ZeroDivisionError

    monkeypatch.setattr(Tag, "save", save)
    with pytest.raises(CommandError, match=r"raised ZeroDivisionError\(\); nothing is"):
        run("realtime_explain", "shop.Tag", tag.pk, "--change", "name=y")
    assert published == []
    assert Tag.objects.get().name == "x"


def test_explain_refuses_a_database_that_takes_nothing_back(run, monkeypatch):
    tag = Tag.objects.create(name="x")
    features = connections["default"].features
    monkeypatch.setattr(features, "supports_transactions", False)
    with pytest.raises(CommandError, match="'default' cannot take back a save"):
        run("realtime_explain", "shop.Tag", tag.pk)
