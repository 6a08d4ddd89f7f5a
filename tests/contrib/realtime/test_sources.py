"""Every way to write a row, and what is told of it."""

import json
from datetime import date
from decimal import Decimal
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.state import ModelState, ProjectState
from django.db.models import F, Model
from django.db.models.functions import Upper
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)

from django_grip.contrib.realtime import (
    ModelStream,
    actor,
    apublish_event,
    channel_for,
    publish_changes,
    publish_event,
    register,
    suppress,
)
from django_grip.contrib.realtime.streams import registry
from tests.shop.models import (
    Category,
    Club,
    Customer,
    Day,
    Depot,
    Item,
    Label,
    Member,
    Membership,
    OpenShipment,
    Order,
    Parcel,
    Price,
    Seat,
    Shipment,
    Tag,
    Truck,
    UrgentOrder,
    Vehicle,
    Word,
)
from tests.shop.reading import configurator, events, told

pytestmark = pytest.mark.django_db(transaction=True)


class Abort(Exception):
    pass


@pytest.fixture
def configure():
    with configurator() as configure:
        yield configure


def given(model, **values):
    """A row that nobody was told of."""
    with suppress():
        return model._base_manager.create(**values)


def announced(op, *pks, of="shop.shipment"):
    """What is told of these rows, each in its turn."""
    return [line for pk in pks for line in (f"{op} {of}", f"{op} {of}.{pk}")]


def run(coroutine_function, *args, **kwargs):
    async def call():
        return await coroutine_function(*args, **kwargs)

    return async_to_sync(call)()


# One row.


def test_save_and_delete_and_their_async_twins(published):
    shipment = Shipment(pk=1)
    shipment.save()
    run(shipment.asave)
    shipment.delete()
    run(Shipment(pk=2).asave)
    run(Shipment(pk=2).adelete)
    assert told(published) == [
        *announced("create", 1),
        *announced("update", 1),
        *announced("delete", 1),
        *announced("create", 2),
        *announced("delete", 2),
    ]


def test_get_or_create_tells_only_when_it_creates(published):
    Shipment.objects.get_or_create(pk=1, defaults={"note": "a"})
    Shipment.objects.get_or_create(pk=1, defaults={"note": "b"})
    run(Shipment.objects.aget_or_create, pk=1)
    assert told(published) == announced("create", 1)


def test_update_or_create_tells_what_it_did(published):
    Shipment.objects.update_or_create(pk=1, defaults={"note": "a"})
    Shipment.objects.update_or_create(pk=1, defaults={"note": "b"})
    run(Shipment.objects.aupdate_or_create, pk=1, defaults={"note": "c"})
    assert told(published) == [
        *announced("create", 1),
        *announced("update", 1),
        *announced("update", 1),
    ]
    assert [event["data"]["note"] for event in events(published)[::2]] == [*"abc"]


def test_saving_over_a_row_by_its_pk_is_an_update(published):
    given(Shipment, pk=1)
    Shipment(pk=1, note="made by hand").save()
    assert told(published) == announced("update", 1)


def test_f_expressions_are_told_as_the_value_they_came_to(published):
    shipment = given(Shipment, pk=1, tenant=7)
    shipment.tenant = F("tenant") + 1
    shipment.note = Upper(F("status"))
    shipment.save(update_fields=["tenant", "note"])
    data = events(published)[0]["data"]
    assert (data["tenant"], data["note"]) == (8, "OPEN")


def test_db_defaults_and_generated_columns_are_told_as_stored(published, configure):
    configure(Shipment, fields=["priority", "double"])
    shipment = Shipment.objects.create(pk=1, weight=4)
    assert events(published)[0]["data"] == {"priority": 5, "double": 8}
    shipment.weight = 6
    shipment.save(update_fields=["weight"])
    assert events(published)[-1]["data"]["double"] == 12


def test_auto_now_is_told_as_stored(published, configure):
    configure(Shipment, fields=["saved_at"])
    shipment = given(Shipment, pk=1)
    shipment.save()
    stored = Shipment.objects.get().saved_at
    text = events(published)[0]["data"]["saved_at"]
    assert text[:23] == stored.isoformat()[:23]


def test_a_deferred_instance_is_told_whole(published):
    given(Shipment, pk=1, tenant=7, note="not loaded")
    for shipment in (Shipment.objects.defer("note"), Shipment.objects.only("status")):
        loaded = shipment.get()
        loaded.status = "sent"
        loaded.save()
    for event in events(published):
        assert event["data"] == {
            "id": 1,
            "tenant": 7,
            "status": "sent",
            "note": "not loaded",
        }


def test_changed_names_the_columns_of_update_fields(published):
    shipment = given(Shipment, pk=1)
    shipment.save(update_fields=["status", "note"])
    shipment.save()
    shipment.save(update_fields=[])
    named, plain = events(published)[::2]
    assert named["changed"] == ["note", "status"]
    assert "changed" not in plain


def test_a_delete_tells_of_its_cascade(published):
    depot = given(Depot, pk=1)
    given(Shipment, pk=2, depot=depot)
    depot.delete()
    assert sorted(told(published)) == sorted(
        [*announced("delete", 2), *announced("delete", 1, of="shop.depot")]
    )


@pytest.mark.parametrize("scopes", [{}, {"tenant": "tenant"}])
def test_a_queryset_delete_tells_of_rows_below_its_own(published, configure, scopes):
    configure(Category, scopes=scopes)
    root = given(Category, pk=1)
    given(Category, pk=3, parent=given(Category, pk=2, parent=root))
    Category.objects.filter(pk=1).delete()
    assert {event["pk"] for event in events(published)} == {1, 2, 3}
    tenants = told(published).count("delete shop.category~tenant.7")
    assert tenants == (3 if scopes else 0)


def test_a_cascade_is_told_to_the_scopes_of_its_rows(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    given(Shipment, pk=2, tenant=7, depot=given(Depot, pk=1))
    Depot.objects.all().delete()
    assert "delete shop.shipment~tenant.7" in told(published)


# Models that share rows.


def test_a_child_is_told_once_on_its_label_and_once_on_its_parents(published):
    truck = Truck.objects.create(pk=1, load=3)
    truck.save()
    truck.delete()
    assert sorted(told(published)) == sorted(
        line
        for op in ("create", "update", "delete")
        for of in ("shop.truck", "shop.vehicle")
        for line in announced(op, 1, of=of)
    )
    loads = {event["model"]: event.get("data") for event in events(published)[:4]}
    assert loads["shop.truck"] == {"id": 1, "owner": 0, "load": 3}
    assert loads["shop.vehicle"] == {"id": 1, "owner": 0}


def test_a_parent_that_is_saved_says_nothing_of_its_child(published):
    given(Truck, pk=1)
    Vehicle.objects.get().save()
    assert told(published) == announced("update", 1, of="shop.vehicle")


def test_a_parent_that_is_deleted_takes_its_child_along(published):
    given(Truck, pk=1)
    Vehicle.objects.get().delete()
    assert sorted(told(published)) == [
        "delete shop.truck",
        "delete shop.truck.1",
        "delete shop.vehicle",
        "delete shop.vehicle.1",
    ]


def test_a_child_that_is_not_registered_speaks_for_its_parent(published):
    given(UrgentOrder, pk=1).save()
    assert told(published) == announced("update", 1, of="shop.order")


def test_bulk_writes_of_children_are_told_on_both_labels(published):
    given(Truck, pk=1)
    given(Truck, pk=2)
    Truck.objects.update(owner=9)
    assert sorted(told(published)) == sorted(
        [
            *announced("update", 1, 2, of="shop.truck"),
            *announced("update", 1, 2, of="shop.vehicle"),
        ]
    )
    assert {event["data"]["owner"] for event in events(published)} == {9}


def test_many_children_that_are_deleted_are_counted_once(published, configure):
    configure(Truck, bulk_limit=1)
    configure(Vehicle, bulk_limit=1)
    for pk in (1, 2, 3):
        given(Truck, pk=pk)
    Truck.objects.all().delete()
    bulks = [line for line in told(published) if line.startswith("bulk")]
    assert sorted(bulks) == [
        "bulk shop.truck delete 3",
        "bulk shop.vehicle delete 3",
    ]


def test_a_child_moves_in_the_scopes_of_its_parent(published, configure):
    configure(Vehicle, scopes={"owner": "owner"})
    truck = given(Truck, pk=1, owner=7)
    truck.owner = 8
    truck.save()
    Truck.objects.update(owner=9)
    lines = told(published)
    assert "delete shop.vehicle~owner.7 leave" in lines
    assert "create shop.vehicle~owner.8 enter" in lines
    assert "delete shop.vehicle~owner.8 leave" in lines
    assert "create shop.vehicle~owner.9 enter" in lines


def test_a_proxy_model_speaks_for_its_concrete_model(published):
    OpenShipment.objects.create(pk=1)
    OpenShipment.objects.update(note="x")
    OpenShipment.objects.bulk_create([OpenShipment(pk=2)])
    OpenShipment.objects.get(pk=2).delete()
    OpenShipment.objects.all().delete()
    assert told(published) == [
        *announced("create", 1),
        *announced("update", 1),
        *announced("create", 2),
        *announced("delete", 2),
        *announced("delete", 1),
    ]


# Many-to-many, from both sides.


@pytest.fixture
def labels():
    """Labels 1, 2 and 3; shipment 1 has the first and the second, shipment 2 none."""
    for pk in (1, 2, 3):
        given(Label, pk=pk)
    given(Shipment, pk=2)
    with suppress():
        given(Shipment, pk=1).labels.set([1, 2])


def shipment(pk):
    return Shipment.objects.get(pk=pk)


def label(pk):
    return Label.objects.get(pk=pk)


@pytest.mark.parametrize(
    ("write", "pks"),
    [
        (lambda: shipment(1).labels.add(3), [1]),
        (lambda: shipment(1).labels.add(label(3), 2), [1]),
        (lambda: shipment(1).labels.remove(1), [1]),
        (lambda: shipment(1).labels.set([1, 3]), [1]),
        (lambda: shipment(1).labels.set([3], clear=True), [1]),
        (lambda: shipment(1).labels.clear(), [1]),
        (lambda: shipment(1).labels.create(pk=4), [1]),
        (lambda: run(shipment(1).labels.aadd, 3), [1]),
        (lambda: run(shipment(1).labels.aremove, 1), [1]),
        (lambda: run(shipment(1).labels.aset, [3]), [1]),
        (lambda: run(shipment(1).labels.aclear), [1]),
        (lambda: OpenShipment.objects.get(pk=1).labels.clear(), [1]),
        (lambda: label(3).shipments.add(1, 2), [1, 2]),
        (lambda: label(1).shipments.remove(1), [1]),
        (lambda: label(1).shipments.set([2]), [1, 2]),
        (lambda: label(1).shipments.set([2], clear=True), [1, 2]),
        (lambda: label(1).shipments.clear(), [1]),
        (lambda: run(label(3).shipments.aset, [1, 2]), [1, 2]),
    ],
)
@pytest.mark.usefixtures("labels")
def test_the_row_that_has_the_field_is_told(published, write, pks):
    with transaction.atomic():
        write()
    told_of = [event for event in events(published) if event["model"] != "shop.label"]
    assert {event["op"] for event in told_of} == {"update"}
    assert sorted(event["pk"] for event in told_of) == sorted([*pks, *pks])
    assert {tuple(event["changed"]) for event in told_of} == {("labels",)}
    others = [line for line in told(published) if "label" in line]
    assert others in ([], ["create shop.label", "create shop.label.4"])


@pytest.mark.parametrize(
    "write",
    [
        lambda: shipment(1).labels.add(),
        lambda: shipment(1).labels.add(1, 2),
        lambda: shipment(1).labels.remove(),
        lambda: shipment(1).labels.set([2, 1]),
        lambda: label(1).shipments.add(1),
        lambda: label(1).shipments.set([1]),
        lambda: label(3).shipments.clear(),
    ],
)
@pytest.mark.usefixtures("labels")
def test_calls_that_change_nothing_are_silent(published, write):
    write()
    assert published == []


def test_the_payload_after_an_m2m_change_has_it(published, configure, labels):
    configure(Shipment, fields=["id", "labels"])
    shipment(1).labels.set([2, 3])
    assert events(published)[-1]["data"] == {"id": 1, "labels": [2, 3]}
    label(1).shipments.add(2)
    assert events(published)[-1]["data"] == {"id": 2, "labels": [1]}


@pytest.mark.parametrize(
    "write",
    [
        lambda club, member: club.members.add(member),
        lambda club, member: member.clubs.add(club),
        lambda club, member: club.members.set([member]),
        lambda club, member: member.clubs.set([club]),
    ],
)
def test_rows_joined_by_other_columns_than_their_pks_come_in(published, write):
    club, member = given(Club, pk=1, code="chess"), given(Member, pk=2, code="ann")
    with suppress(Membership):
        write(club, member)
    assert told(published) == announced("update", 1, of="shop.club")


@pytest.mark.parametrize(
    "write",
    [
        lambda club, member: club.members.remove(member),
        lambda club, member: club.members.clear(),
        lambda club, member: member.clubs.remove(club),
        lambda club, member: member.clubs.clear(),
        lambda club, member: member.clubs.set([]),
    ],
)
def test_rows_joined_by_other_columns_than_their_pks_go(published, write):
    club, member = given(Club, pk=1, code="chess"), given(Member, pk=2, code="ann")
    given(Membership, club=club, member=member)
    with suppress(Membership):
        write(club, member)
    assert told(published) == announced("update", 1, of="shop.club")


def test_rows_touched_by_other_columns_than_their_pks_are_told(published):
    club, member = given(Club, pk=1, code="chess"), given(Member, pk=2, code="ann")
    Membership.objects.create(pk=5, club=club, member=member)
    assert told(published) == [
        *announced("create", 5, of="shop.membership"),
        *announced("update", 1, of="shop.club"),
    ]


# The manager; test_bulk.py has the large ones.


def some():
    return Shipment.objects.filter(pk__in=(1, 2)).order_by("pk")


def noted():
    rows = list(some())
    for row in rows:
        row.note = "x"
    return rows


@pytest.mark.parametrize(
    ("write", "op"),
    [
        (lambda: some().update(note="x"), "update"),
        (lambda: run(some().aupdate, note="x"), "update"),
        (lambda: Shipment.objects.bulk_update(noted(), ["note"]), "update"),
        (
            lambda: run(Shipment.objects.abulk_update, noted(), ["note"], batch_size=1),
            "update",
        ),
        (lambda: Depot.objects.get().shipment_set.update(note="x"), "update"),
        (lambda: some().delete(), "delete"),
        (lambda: run(some().adelete), "delete"),
        (lambda: Depot.objects.get().shipment_set.all().delete(), "delete"),
    ],
)
def test_writes_of_many_rows_are_told_one_by_one(published, write, op):
    depot = given(Depot, pk=1)
    given(Shipment, pk=1, depot=depot)
    given(Shipment, pk=2, depot=depot)
    write()
    assert sorted(told(published)) == sorted(announced(op, 1, 2))
    for event in events(published):
        assert event.get("changed") == (["note"] if op == "update" else None)
        assert ("data" in event) == (op == "update")
        assert op == "delete" or event["data"]["note"] == "x"


@pytest.mark.parametrize("write", ["bulk_create", "abulk_create"])
def test_bulk_create_is_told_with_what_was_stored(published, write):
    rows = (Shipment(note=note) for note in "ab")
    method = getattr(Shipment.objects, write)
    created = run(method, rows) if write.startswith("a") else method(rows)
    assert told(published) == announced("create", *(row.pk for row in created))
    assert [event["data"]["note"] for event in events(published)[::2]] == ["a", "b"]


def test_writes_of_no_rows_are_silent(published):
    assert Shipment.objects.bulk_create([]) == []
    assert Shipment.objects.bulk_update([], ["note"]) == 0
    assert Shipment.objects.update(note="x") == 0
    assert Shipment.objects.none().update(note="x") == 0
    assert Shipment.objects.all().delete() == (0, {})
    assert published == []


# By hand.


def write_past(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_publish_changes_tells_what_was_written_past_us(published):
    given(Shipment, pk=1)
    given(Shipment, pk=2)
    write_past("UPDATE shop_shipment SET note = 'by sql'")
    assert publish_changes(Shipment.objects.order_by("pk")) == 2
    assert sorted(told(published)) == sorted(announced("update", 1, 2))
    assert {event["data"]["note"] for event in events(published)} == {"by sql"}


def test_publish_changes_of_new_rows_and_of_rows_that_will_go(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    given(Shipment, pk=1, tenant=7)
    assert publish_changes(Shipment.objects.all(), "create") == 1
    assert publish_changes(Shipment.objects.filter(pk=1), op="delete") == 1
    assert told(published) == [
        *announced("create", 1),
        "create shop.shipment~tenant.7",
        *announced("delete", 1),
        "delete shop.shipment~tenant.7",
    ]
    assert "data" not in events(published)[-1]


def test_publish_changes_waits_for_the_commit(published):
    given(Shipment, pk=1)
    with pytest.raises(Abort), transaction.atomic():
        publish_changes(Shipment.objects.all())
        raise Abort
    assert published == []


def test_publish_changes_of_nothing_is_silent(published):
    assert publish_changes(Shipment.objects.all()) == 0
    assert published == []


def test_publish_changes_counts_rows_and_not_the_lines_of_a_join(published, labels):
    assert publish_changes(Shipment.objects.filter(labels__pk__in=(1, 2))) == 1


def test_publish_changes_is_told_whatever_is_watched(published, configure):
    configure(Shipment, watch=("status",))
    given(Shipment, pk=1)
    write_past("UPDATE shop_shipment SET status = 'sent'")
    publish_changes(Shipment.objects.all())
    assert told(published) == announced("update", 1)


def test_publish_changes_of_an_unregistered_model_says_so():
    with pytest.raises(ImproperlyConfigured, match="not registered"):
        publish_changes(Customer.objects.all())


def test_an_event_about_a_row_goes_where_its_changes_go(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    shipment = given(Shipment, pk=1, tenant=7)
    with suppress():
        Shipment.objects.update(tenant=8)
    publish_event(shipment, "lost", {"near": "Delft"})
    assert told(published) == [
        "lost shop.shipment",
        "lost shop.shipment.1",
        "lost shop.shipment~tenant.8",
    ]
    for event in events(published):
        assert event["pk"] == 1
        assert event["model"] == "shop.shipment"
        assert event["data"] == {"near": "Delft"}


def test_an_event_about_a_model_and_on_a_channel(published):
    publish_event(Shipment, "strike")
    run(apublish_event, "news", "headline", [1])
    model, channel = events(published)
    assert (model["op"], model["channel"]) == ("strike", "shop.shipment")
    assert "pk" not in model
    assert "data" not in model
    assert (channel["op"], channel["channel"]) == ("headline", "news")
    assert channel["data"] == [1]
    assert "model" not in channel


def test_an_event_reaches_every_audience(published):
    publish_event(given(Item, pk=1), "sold")
    assert told(published) == [
        "sold shop.item~as.public",
        "sold shop.item.1~as.public",
        "sold shop.item~as.staff",
        "sold shop.item.1~as.staff",
    ]


def test_an_event_leaves_on_commit_and_is_lost_with_its_transaction(published):
    with transaction.atomic():
        publish_event("news", "kept")
        with pytest.raises(Abort), transaction.atomic():
            publish_event("news", "lost")
            raise Abort
        assert published == []
    assert told(published) == ["kept news"]


@pytest.mark.parametrize(
    ("target", "op", "data", "error"),
    [
        (Customer, "x", None, ImproperlyConfigured),
        (Shipment, "x", object(), TypeError),
        (Shipment, "x", float("nan"), ValueError),
        (Shipment, "two\nlines", None, ValueError),
    ],
)
def test_an_event_that_cannot_be_told_is_refused_at_once(
    published, target, op, data, error
):
    with pytest.raises(error):
        publish_event(target, op, data)
    assert published == []


def test_suppress_silences_the_models_it_names(published):
    with suppress(Shipment):
        Shipment.objects.create(pk=1)
        Shipment.objects.update(note="x")
        Shipment.objects.bulk_create([Shipment(pk=2)])
        Shipment.objects.get(pk=1).labels.add(Label.objects.create(pk=1))
        Shipment.objects.all().delete()
    assert told(published) == announced("create", 1, of="shop.label")


def test_suppress_without_a_name_silences_all(published):
    with suppress():
        Shipment.objects.create(pk=1)
        Label.objects.create(pk=1)
    assert published == []
    Label.objects.create(pk=2)
    assert told(published) == announced("create", 2, of="shop.label")


def test_suppress_nests_and_ends_with_an_exception(published):
    with pytest.raises(Abort), suppress(Label):
        with suppress(Tag):
            Label.objects.create(pk=1)
            Tag.objects.create(pk=1)
        Label.objects.create(pk=2)
        Tag.objects.create(pk=2)
        raise Abort
    Label.objects.create(pk=3)
    assert told(published) == [
        *announced("create", 2, of="shop.tag"),
        *announced("create", 3, of="shop.label"),
    ]


def test_suppress_takes_a_proxy_model_for_its_concrete_one(published):
    with suppress(OpenShipment):
        Shipment.objects.create(pk=1)
    assert published == []


def test_what_was_written_before_suppress_is_told(published):
    with transaction.atomic():
        Tag.objects.create(pk=1)
        with suppress():
            Tag.objects.create(pk=2)
    assert told(published) == announced("create", 1, of="shop.tag")


def test_suppress_reaches_async_code(published):
    async def write():
        with suppress(Tag):
            await Tag.objects.acreate(pk=1)
        with actor("tab-1"):
            await Tag.objects.acreate(pk=2)

    run(write)
    assert [(event["pk"], event["origin"]) for event in events(published)] == [
        (2, "tab-1")
    ] * 2


def test_actor_marks_events_and_items(published, configure):
    configure(Shipment, bulk_limit=1)
    with actor("tab-1"):
        Shipment.objects.create(pk=1)
        Shipment.objects.bulk_create([Shipment(pk=2), Shipment(pk=3)])
        with actor("tab-2"):
            publish_event("news", "headline")
    Shipment.objects.get(pk=1).delete()
    origins = [event.get("origin") for event in events(published)]
    assert origins == ["tab-1"] * 3 + ["tab-2", None, None]
    senders = [item.meta.get("sender") for item in published]
    assert senders == origins


# Names.


def test_channel_for_names_what_events_go_to(configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    for arguments, name in (
        ((Shipment,), "shop.shipment"),
        ((OpenShipment,), "shop.shipment"),
        ((Shipment(pk=4),), "shop.shipment.4"),
        ((Truck(pk=4),), "shop.truck.4"),
        ((Seat(hall=1, number="a"),), "shop.seat.%5B1%2C%20%22a%22%5D"),
        ((Shipment, "tenant", 7), "shop.shipment~tenant.7"),
        ((Shipment, "tenant", "7"), "shop.shipment~tenant.7"),
        ((Shipment, "tenant", True), "shop.shipment~tenant.true"),
        ((Shipment, "tenant", Depot(pk=3)), "shop.shipment~tenant.3"),
        ((Item, None, None, "staff"), "shop.item~as.staff"),
        ((Item(pk=4), None, None, "staff"), "shop.item.4~as.staff"),
    ):
        assert channel_for(*arguments) == name


def test_channel_for_leaves_the_prefix_to_publish(settings):
    settings.GRIP_PREFIX = "p-"
    assert channel_for(Shipment) == "shop.shipment"


def test_channel_for_refuses_what_has_no_channel(configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    for arguments, error, message in (
        (("shop.shipment",), TypeError, "a model or a row of one; got .shop.shipment."),
        ((Customer,), ImproperlyConfigured, "not registered"),
        ((Customer(pk=1),), ImproperlyConfigured, "not registered"),
        ((Item,), ValueError, "audiences public, staff"),
        ((Item, None, None, "nobody"), ValueError, "'nobody'"),
        ((Shipment, None, None, "staff"), ValueError, "no audiences"),
        ((Shipment, "region", 7), ValueError, "no scope 'region'"),
        ((Shipment, "tenant"), ValueError, "one value"),
        ((Shipment, "tenant", False), ValueError, "one value"),
        ((Shipment, "tenant", [7, 8]), ValueError, "one value"),
        ((Shipment(pk=1), "tenant", 7), ValueError, "model class"),
    ):
        with pytest.raises(error, match=message):
            channel_for(*arguments)


def test_channel_for_a_row_that_is_not_stored_is_not_the_collection():
    deleted = given(Shipment, pk=1)
    with suppress():
        deleted.delete()
    for row in (Shipment(), deleted):
        with pytest.raises(ValueError, match=r"pk|saved|stored"):
            channel_for(row)


# Models of others, and of the past.


@pytest.fixture
def registered():
    """Register a model for the time of one test."""
    models = []

    def registered(model):
        models.append(model)
        register(model)(type("Registered", (ModelStream,), {}))

    yield registered
    for model in models:
        del registry._streams[model]
        del model.save_base
        for signal in (pre_save, post_save, pre_delete, post_delete):
            signal.disconnect(sender=model, dispatch_uid="grip_realtime")
        for field in model._meta.local_many_to_many:
            through = field.remote_field.through
            m2m_changed.disconnect(sender=through, dispatch_uid="grip_realtime")


def test_a_model_of_somebody_else_is_told(published):
    group = Group.objects.create(pk=1, name="staff")
    group.delete()
    assert told(published) == [
        *announced("create", 1, of="auth.group"),
        *announced("delete", 1, of="auth.group"),
    ]
    assert events(published)[0]["data"] == {"id": 1, "name": "staff"}


def test_the_user_model_may_be_registered(published, registered):
    user_model = get_user_model()
    registered(user_model)
    user = user_model.objects.create_user("ann", password="secret")
    group = given(Group, pk=1, name="staff")
    user.groups.add(group)
    assert [event["op"] for event in events(published)[::2]] == ["create", "update"]
    assert events(published)[-1]["changed"] == ["groups"]
    group.user_set.clear()
    assert events(published)[-1]["changed"] == ["groups"]
    assert not any("data" in event for event in events(published))


def test_what_was_not_registered_saves_as_django_does(published):
    assert Customer.save_base is Model.save_base
    given(Customer, pk=1).save()
    assert published == []


def test_models_of_migrations_are_silent(published):
    state = ProjectState()
    for model in (Tag, Depot, Label, Shipment):
        state.add_model(ModelState.from_model(model))
    historical = state.apps.get_model("shop", "Tag")
    assert historical is not Tag
    historical.objects.create(pk=1)
    historical.objects.get().save()
    historical.objects.all().delete()
    state.apps.get_model("shop", "Shipment").objects.create(pk=1)
    assert Shipment.objects.count() == 1
    assert published == []


# Keys.


@pytest.mark.parametrize(
    ("row", "pk", "name"),
    [
        (lambda: Word(text="été"), "été", "%C3%A9t%C3%A9"),
        (lambda: Word(text="日本.a~b/c d"), "日本.a~b/c d", None),
        (lambda: Word(text="a\nb,;\"'%"), "a\nb,;\"'%", "a%0Ab%2C%3B%22%27%25"),
        (lambda: Price(amount=Decimal("1.50")), "1.50", "1%2E50"),
        (lambda: Day(date=date(2026, 7, 1)), "2026-07-01", "2026-07-01"),
        (lambda: Parcel(pk=UUID(int=5)), str(UUID(int=5)), str(UUID(int=5))),
        (lambda: Seat(hall=1, number="a"), [1, "a"], "%5B1%2C%20%22a%22%5D"),
    ],
)
def test_every_kind_of_pk_is_told_through_its_life(published, row, pk, name):
    written = row()
    written.save()
    stored = type(written).objects.get()
    stored.save()
    channel = channel_for(stored)
    stored.delete()
    assert [event["op"] for event in events(published)[::2]] == [
        "create",
        "update",
        "delete",
    ]
    assert {json.dumps(event["pk"]) for event in events(published)} == {json.dumps(pk)}
    assert {event["channel"] for event in events(published)[1::2]} == {channel}
    label = type(written)._meta.label_lower
    assert name is None or channel == f"{label}.{name}"


def test_composite_pks_are_told_in_bulk_and_in_scopes(published, configure):
    configure(Seat, scopes={"hall": "hall", "status": "status"}, watch=("status",))
    Seat.objects.bulk_create([Seat(hall=1, number=n) for n in "ab"])
    seat = Seat.objects.get(pk=(1, "a"))
    seat.status = "sold"
    Seat.objects.bulk_update([seat], ["status"])
    Seat.objects.filter(number="b").update(status="held")
    Seat.objects.all().delete()
    lines = told(published)
    assert lines.count("create shop.seat~hall.1") == 2
    assert lines.count("delete shop.seat~status.free leave") == 2
    assert lines.count("create shop.seat~status.sold enter") == 1
    assert lines.count("create shop.seat~status.held enter") == 1
    assert lines.count("delete shop.seat~hall.1") == 2
    pks = {tuple(event["pk"]) for event in events(published)}
    assert pks == {(1, "a"), (1, "b")}


def test_composite_pks_in_bulk_events_are_arrays(published, configure):
    configure(Seat, bulk_limit=1)
    Seat.objects.bulk_create([Seat(hall=1, number=n) for n in "ab"])
    assert events(published)[0]["pks"] == [[1, "a"], [1, "b"]]


# Fixtures.


def load(tmp_path, rows):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    call_command("loaddata", path, verbosity=0)


def test_fixtures_are_silent_for_new_rows_and_old_ones(published, tmp_path):
    given(Tag, pk=1, name="old")
    load(
        tmp_path,
        [
            {"model": "shop.tag", "pk": 1, "fields": {"name": "new"}},
            {"model": "shop.vehicle", "pk": 2, "fields": {"owner": 7}},
            {"model": "shop.truck", "pk": 2, "fields": {"load": 7}},
        ],
    )
    assert Tag.objects.get().name == "new"
    assert Truck.objects.get().owner == 7
    assert published == []


def test_fixtures_with_many_to_many_values_are_silent(published, tmp_path):
    given(Label, pk=1)
    fields = {"saved_at": "2026-11-20T23:44:51Z", "labels": [1]}
    load(tmp_path, [{"model": "shop.shipment", "pk": 1, "fields": fields}])
    assert Shipment.objects.get().labels.count() == 1
    assert published == []


# The envelope.


def test_the_envelope_has_its_keys_in_the_order_of_the_contract(published, configure):
    configure(Shipment, bulk_limit=1, scopes={"tenant": "tenant"})
    with actor("tab-1"):
        given(Shipment, pk=1, tenant=7).save(update_fields=["note"])
        given(Shipment, pk=2, tenant=7)
        Shipment.objects.update(tenant=8)
    single = events(published)[0]
    assert list(single) == [
        *("id", "channel", "op", "model", "pk", "ts", "changed", "origin", "data")
    ]
    bulk, *_, entered = (e for e in events(published) if e["op"] == "bulk")
    assert list(bulk) == [
        *("id", "channel", "op", "model", "ts", "changed", "origin"),
        *("action", "count", "pks"),
    ]
    assert list(entered) == [
        *("id", "channel", "op", "model", "ts", "reason", "origin"),
        *("action", "count", "pks"),
    ]


def test_an_order_is_told_as_its_serializer_says(published):
    order = Order.objects.create(total="1.5")
    assert events(published)[0]["data"]["total"] == "1.50"
    Order.objects.filter(pk=order.pk).update(total=3)
    assert len(published) == 2, "Order has no RealtimeManager"
