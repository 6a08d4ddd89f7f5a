"""Scopes: who hears a row that moves, however it is moved. And `watch` and `touch`."""

import time
from concurrent.futures import ThreadPoolExecutor
from random import randrange
from threading import Event
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.db.models import F

from django_grip.contrib.realtime import suppress
from tests.shop.models import (
    Customer,
    Depot,
    Invoice,
    Label,
    Order,
    Parcel,
    Shipment,
)
from tests.shop.reading import configurator, events, text, told

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 20
"""Seconds until a test of two writers is given up."""


@pytest.fixture
def configure():
    with configurator() as configure:
        yield configure


def given(model, **values):
    """A row that nobody was told of."""
    with suppress():
        return model._base_manager.create(**values)


def moved(old, new, pk=1, scope="tenant"):
    """What is told of a row that goes from one value of a scope to another."""
    return sorted(
        [
            "update shop.shipment",
            f"delete shop.shipment.{pk} leave",
            f"close shop.shipment.{pk}",
            f"delete shop.shipment~{scope}.{old} leave",
            f"create shop.shipment~{scope}.{new} enter",
        ]
    )


def stayed(value, pk=1, scope="tenant"):
    return sorted(
        [
            "update shop.shipment",
            f"update shop.shipment.{pk}",
            f"update shop.shipment~{scope}.{value}",
        ]
    )


# What a scope's value may be.


@pytest.mark.parametrize(
    ("source", "values"),
    [
        ("tenant", ["7"]),
        ("status", ["open"]),
        ("depot", ["3"]),
        ("depot_id", ["3"]),
        ("depot__region", ["north"]),
        ("double", ["8"]),
        ("priority", ["5"]),
        (lambda shipment: shipment.tenant == 7, ["true"]),
        (lambda shipment: shipment.tenant == 8, []),
        (lambda shipment: None, []),
        (lambda shipment: 0, ["0"]),
        (lambda shipment: "", [""]),
        (lambda shipment: shipment.depot, ["3"]),
        (lambda shipment: shipment.depot.region, ["north"]),
        (lambda shipment: [shipment.tenant, "x", None, False], ["7", "x"]),
        (lambda shipment: (7, 7), ["7"]),
        (lambda shipment: {7, 8}, ["7", "8"]),
        (lambda shipment: [], []),
        (lambda shipment: Depot.objects.values_list("region", flat=True), ["north"]),
        (lambda shipment: (number for number in (7, 8)), ["7", "8"]),
        (lambda shipment: {7: "a", 8: "b"}.keys(), ["7", "8"]),
        (lambda shipment: map(str, range(2)), ["0", "1"]),
    ],
)
def test_a_row_is_under_each_value_of_its_scope(published, configure, source, values):
    given(Depot, pk=3)
    configure(Shipment, scopes={"place": source})
    shipment = Shipment.objects.create(pk=1, tenant=7, depot_id=3, weight=4)
    expected = [f"shop.shipment~place.{value}" for value in values]
    assert told(published)[2:] == [f"create {channel}" for channel in expected]
    published.clear()
    shipment.save()
    assert told(published)[2:] == [f"update {channel}" for channel in expected]
    published.clear()
    shipment.delete()
    assert told(published)[2:] == [f"delete {channel}" for channel in expected]


def test_a_row_is_in_several_scopes(published, configure):
    configure(
        Shipment,
        scopes={"tenant": "tenant", "open": lambda row: row.status == "open"},
    )
    Shipment.objects.create(pk=1, tenant=7)
    assert told(published)[2:] == [
        "create shop.shipment~open.true",
        "create shop.shipment~tenant.7",
    ]
    published.clear()
    Shipment.objects.filter(pk=1).update(status="sent")
    assert told(published) == [
        "update shop.shipment",
        "delete shop.shipment.1 leave",
        "close shop.shipment.1",
        "delete shop.shipment~open.true leave",
        "update shop.shipment~tenant.7",
    ]


def test_from_no_value_to_one_and_back(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    shipment = given(Shipment, pk=1)
    shipment.tenant = 7
    shipment.save()
    assert told(published) == [
        "update shop.shipment",
        "update shop.shipment.1",
        "create shop.shipment~tenant.7 enter",
    ]
    published.clear()
    shipment.tenant = None
    shipment.save()
    assert told(published) == [
        "update shop.shipment",
        "delete shop.shipment.1 leave",
        "close shop.shipment.1",
        "delete shop.shipment~tenant.7 leave",
    ]


# Every way to move a row.


def save(shipment, tenant):
    shipment.tenant = tenant
    shipment.save()


def save_only_it(shipment, tenant):
    shipment.tenant = tenant
    shipment.save(update_fields=["tenant"])


def save_an_expression(shipment, tenant):
    shipment.tenant = F("tenant") * 0 + tenant
    shipment.save()


def save_a_deferred_one(shipment, tenant):
    save(Shipment.objects.defer("tenant").get(pk=shipment.pk), tenant)


def save_one_made_by_hand(shipment, tenant):
    Shipment(pk=shipment.pk, tenant=tenant).save()


def update(shipment, tenant):
    Shipment.objects.filter(pk=shipment.pk).update(tenant=tenant)


def update_where_it_was(shipment, tenant):
    Shipment.objects.exclude(tenant=tenant).update(tenant=tenant)


def bulk_update(shipment, tenant):
    shipment.tenant = tenant
    Shipment.objects.bulk_update([shipment], ["tenant"])


def update_or_create(shipment, tenant):
    Shipment.objects.update_or_create(pk=shipment.pk, defaults={"tenant": tenant})


def replace(shipment, tenant):
    with transaction.atomic():
        Shipment.objects.get(pk=shipment.pk).delete()
        Shipment.objects.create(pk=shipment.pk, tenant=tenant)


def move_twice(shipment, tenant):
    with transaction.atomic():
        save(shipment, tenant + 10)
        save(shipment, tenant)


MOVES = [
    *(save, save_only_it, save_an_expression, save_a_deferred_one),
    *(save_one_made_by_hand, update, update_where_it_was, bulk_update),
    *(update_or_create, replace, move_twice),
]


@pytest.mark.parametrize(
    ("move", "source"),
    [
        *((move, "tenant") for move in MOVES),
        *((move, lambda shipment: shipment.tenant) for move in MOVES[::3]),
    ],
)
def test_a_row_that_moves_leaves_and_enters(published, configure, move, source):
    configure(Shipment, scopes={"tenant": source})
    move(given(Shipment, pk=1, tenant=7), 8)
    assert sorted(told(published)) == moved(7, 8)


@pytest.mark.parametrize("move", MOVES)
def test_a_stale_instance_leaves_where_the_row_is(published, configure, move):
    configure(Shipment, scopes={"tenant": "tenant"})
    stale = given(Shipment, pk=1, tenant=6)
    with suppress():
        Shipment.objects.update(tenant=7)
    move(stale, 8)
    assert sorted(told(published)) == moved(7, 8)


def test_a_stale_save_that_moves_a_row_back_says_so(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    stale = given(Shipment, pk=1, tenant=6)
    with suppress():
        Shipment.objects.update(tenant=7)
    stale.note = "only this was meant"
    stale.save()
    assert sorted(told(published)) == moved(7, 6)


@pytest.mark.parametrize("move", [save, update, bulk_update, replace])
def test_a_row_that_ends_where_it_was_has_not_moved(published, configure, move):
    configure(Shipment, scopes={"tenant": "tenant"})
    shipment = given(Shipment, pk=1, tenant=7)
    with transaction.atomic():
        move(shipment, 8)
        save(shipment, 7)
    assert sorted(told(published)) == stayed(7)


def test_a_row_made_and_moved_in_one_transaction_is_only_new(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    with transaction.atomic():
        shipment = Shipment.objects.create(pk=1, tenant=7)
        save(shipment, 8)
    assert told(published)[2:] == ["create shop.shipment~tenant.8"]


def test_a_row_moved_and_deleted_is_deleted_where_it_was(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    shipment = given(Shipment, pk=1, tenant=7)
    with transaction.atomic():
        save(shipment, 8)
        shipment.delete()
    assert told(published) == [
        "delete shop.shipment",
        "delete shop.shipment.1",
        "delete shop.shipment~tenant.7",
    ]


def test_a_move_in_a_rolled_back_savepoint_was_none(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    shipment = given(Shipment, pk=1, tenant=7)
    with transaction.atomic():
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            save(shipment, 8)
            raise ZeroDivisionError
        save(Shipment.objects.get(), 9)
    assert sorted(told(published)) == moved(7, 9)


def test_a_delete_is_told_where_the_row_is_and_not_where_it_was_loaded(
    published, configure
):
    configure(Shipment, scopes={"tenant": "tenant"})
    stale = given(Shipment, pk=1, tenant=6)
    with suppress():
        Shipment.objects.update(tenant=7)
    stale.delete()
    assert told(published)[2:] == ["delete shop.shipment~tenant.7"]


def test_a_pk_with_a_default_is_no_proof_of_a_new_row(published, configure):
    configure(Parcel, scopes={"code": "code"})
    parcel = given(Parcel, code="old")
    Parcel(pk=parcel.pk, code="new").save(force_update=True)
    assert "delete shop.parcel~code.old leave" in told(published)
    assert f"close shop.parcel.{parcel.pk}" in told(published)


def test_a_save_in_a_receiver_of_the_save_hides_no_move(published, configure):
    configure(Invoice, scopes={"tenant": "tenant"})
    invoice = given(Invoice, pk=1, tenant=7)
    invoice.tenant = 8
    invoice.save()
    assert told(published) == [
        "update shop.invoice",
        "delete shop.invoice.1 leave",
        "close shop.invoice.1",
        "delete shop.invoice~tenant.7 leave",
        "create shop.invoice~tenant.8 enter",
    ]


@pytest.mark.parametrize(
    "write",
    [
        lambda shipment: shipment.save(update_fields=["weight"]),
        lambda shipment: Shipment.objects.update(weight=shipment.weight),
        lambda shipment: Shipment.objects.bulk_update([shipment], ["weight"]),
    ],
)
def test_a_generated_column_moves_a_row_when_its_source_is_written(
    published, configure, write
):
    configure(Shipment, scopes={"double": "double"})
    shipment = given(Shipment, pk=1, weight=4)
    shipment.weight = 5
    write(shipment)
    assert sorted(told(published)) == moved(8, 10, scope="double")


def test_a_path_over_a_relation_moves_with_its_foreign_key(published, configure):
    configure(Shipment, scopes={"region": "depot__region"})
    north, south = given(Depot, region="north"), given(Depot, region="south")
    shipment = given(Shipment, pk=1, depot=north)
    shipment.depot = south
    shipment.save(update_fields=["depot"])
    assert sorted(told(published)) == moved("north", "south", scope="region")
    published.clear()
    Shipment.objects.update(depot_id=north.pk)
    assert sorted(told(published)) == moved("south", "north", scope="region")


def test_writes_to_other_columns_read_no_place_before(
    published, configure, django_assert_num_queries
):
    configure(Shipment, scopes={"tenant": "tenant"}, fields=None)
    shipment = given(Shipment, pk=1, tenant=7)
    # UPDATE, and one SELECT of where it is now.
    with transaction.atomic(), django_assert_num_queries(2):
        shipment.save(update_fields=["note"])
    assert sorted(told(published)) == stayed(7)


# Many-to-many.


@pytest.fixture
def labels(configure):
    """Shipment 1 has the labels a and b; c is on none. Labels are a scope."""
    configure(Shipment, scopes={"label": "labels__word"})
    for pk, word in enumerate("abc", start=1):
        given(Label, pk=pk, word=word)
    with suppress():
        given(Shipment, pk=1).labels.set([1, 2])


def shipment():
    return Shipment.objects.get(pk=1)


def label(pk):
    return Label.objects.get(pk=pk)


@pytest.mark.parametrize(
    ("write", "lost", "kept", "won"),
    [
        (lambda: shipment().labels.add(3), "", "ab", "c"),
        (lambda: shipment().labels.remove(1), "a", "b", ""),
        (lambda: shipment().labels.set([2, 3]), "a", "b", "c"),
        (lambda: shipment().labels.set([3], clear=True), "ab", "", "c"),
        (lambda: shipment().labels.clear(), "ab", "", ""),
        (lambda: label(3).shipments.add(1), "", "ab", "c"),
        (lambda: label(2).shipments.remove(1), "b", "a", ""),
        (lambda: label(2).shipments.clear(), "b", "a", ""),
        (lambda: label(2).shipments.set([]), "b", "a", ""),
        (lambda: shipment().save(), "", "ab", ""),
    ],
)
@pytest.mark.usefixtures("labels")
def test_a_path_with_many_values_moves_with_each(published, write, lost, kept, won):
    with transaction.atomic():
        write()
    on = "shop.shipment~label."
    alone = ["update shop.shipment.1"]
    if lost:
        alone = ["delete shop.shipment.1 leave", "close shop.shipment.1"]
    assert sorted(told(published)) == sorted(
        [
            "update shop.shipment",
            *alone,
            *(f"delete {on}{word} leave" for word in lost),
            *(f"update {on}{word}" for word in kept),
            *(f"create {on}{word} enter" for word in won),
        ]
    )


@pytest.mark.usefixtures("labels")
def test_a_row_under_many_values_is_deleted_under_each(published):
    shipment().delete()
    assert told(published)[2:] == [
        "delete shop.shipment~label.a",
        "delete shop.shipment~label.b",
    ]


# What the old place is told, to the byte.


def many(move):
    """The move among so many rows that it is told in bulk."""

    def move_many(shipment, tenant):
        with suppress():
            Shipment.objects.bulk_create(
                Shipment(pk=pk, tenant=7) for pk in range(2, 6)
            )
        move(shipment, tenant)

    return move_many


def update_all(shipment, tenant):
    Shipment.objects.update(tenant=tenant, note=shipment.note, status=shipment.status)


def bulk_update_all(shipment, tenant):
    for row in (rows := list(Shipment.objects.all())):
        row.tenant, row.note, row.status = tenant, shipment.note, shipment.status
    Shipment.objects.bulk_update(rows, ["tenant", "note", "status"])


@pytest.mark.parametrize(
    "move",
    [save, update_all, bulk_update_all, many(update_all), many(bulk_update_all)],
)
def test_s33_the_old_place_sees_no_byte_of_the_new_values(published, configure, move):
    configure(
        Shipment,
        bulk_limit=3,
        scopes={"tenant": "tenant", "status": "status", "note": "note"},
    )
    shipment = given(Shipment, pk=1, tenant=7, status="old", note="old")
    note, status, tenant = (
        f"n-{uuid4().hex}",
        f"s-{uuid4().hex}",
        randrange(10**6, 10**9),
    )
    shipment.note, shipment.status = note, status
    move(shipment, tenant)
    by_channel = {}
    for item in published:
        by_channel.setdefault(item.channel, []).append(item)
    left = ["shop.shipment.1"]
    left += [f"shop.shipment~{place}" for place in ("tenant.7", "status.old")]
    for channel in left:
        leave, *close = by_channel.pop(channel)
        assert bool(close) == (channel == "shop.shipment.1")
        (event,) = events([leave])
        expected = {"id", "channel", "op", "model", "ts", "reason"}
        single, bulk = {"pk"}, {"action", "count", "pks"}
        assert set(event) in (expected | single, expected | bulk)
        assert (event.get("action") or event["op"]) == "delete"
        for secret in (note, status, f"tenant.{tenant}"):
            assert secret not in text([leave, *close])
    assert f"shop.shipment~tenant.{tenant}" in by_channel
    assert note in text([item for items in by_channel.values() for item in items])


# Two writers at once.


@pytest.fixture
def at_once():
    """`at_once(first, second)`: `second` runs while `first` has not committed."""

    def at_once(first, second):
        is_written, is_starting = Event(), Event()

        def write_and_hold():
            try:
                with transaction.atomic():
                    first()
                    is_written.set()
                    assert is_starting.wait(PATIENCE)
                    wait_until_someone_waits()
            finally:
                is_written.set()
                connection.close()

        def write_meanwhile():
            try:
                assert is_written.wait(PATIENCE)
                is_starting.set()
                second()
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as threads:
            runs = [threads.submit(run) for run in (write_and_hold, write_meanwhile)]
            for run in runs:
                run.result(PATIENCE)

    return at_once


def wait_until_someone_waits():
    """Until another transaction waits for a lock. SQLite waits before it begins."""
    if connection.vendor != "postgresql":
        return
    give_up = time.monotonic() + PATIENCE
    with connection.cursor() as cursor:
        while time.monotonic() < give_up:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
    raise AssertionError("The second writer did not wait for the first.")


@pytest.mark.parametrize("source", ["tenant", lambda shipment: shipment.tenant])
@pytest.mark.parametrize(
    "move",
    [save, save_only_it, update, bulk_update, save_one_made_by_hand, update_or_create],
)
def test_of_two_writers_each_leaves_where_the_row_really_was(
    published, configure, at_once, move, source
):
    configure(Shipment, scopes={"tenant": source})
    stale = given(Shipment, pk=1, tenant=7)
    at_once(lambda: save(Shipment.objects.get(), 8), lambda: move(stale, 9))
    # The first writer's row is free before its events leave: either may come first.
    assert sorted(told(published)) == sorted([*moved(7, 8), *moved(8, 9)])
    assert Shipment.objects.get().tenant == 9


@pytest.mark.parametrize(
    "delete",
    [lambda stale: stale.delete(), lambda stale: Shipment.objects.all().delete()],
)
def test_of_two_writers_one_deletes_where_the_other_put_it(
    published, configure, at_once, delete
):
    configure(Shipment, scopes={"tenant": "tenant"})
    stale = given(Shipment, pk=1, tenant=7)
    at_once(lambda: update(stale, 8), lambda: delete(stale))
    deleted = [
        "delete shop.shipment",
        "delete shop.shipment.1",
        "delete shop.shipment~tenant.8",
    ]
    assert sorted(told(published)) == sorted([*moved(7, 8), *deleted])


@pytest.mark.usefixtures("labels")
def test_of_two_writers_of_many_to_many_each_leaves_what_was_there(published, at_once):
    stale = shipment()
    at_once(lambda: shipment().labels.set([2, 3]), lambda: stale.labels.clear())
    lines = told(published)
    assert lines.count("delete shop.shipment~label.a leave") == 1
    for word in "bc":
        assert lines.count(f"delete shop.shipment~label.{word} leave") == 1
    assert not Shipment.labels.through.objects.exists()


def test_of_two_writers_the_second_touches_the_parent_of_the_first(
    published, configure, at_once
):
    configure(Shipment, touch=("depot",), events=())
    for pk in (1, 2, 3):
        given(Depot, pk=pk)
    stale = given(Shipment, pk=1, depot_id=1)
    stale.depot_id = 3
    at_once(lambda: Shipment.objects.update(depot_id=2), stale.save)
    assert sorted(told(published)) == sorted(touched(1, 2, 2, 3))


def test_of_two_writers_the_second_undoes_what_is_watched(
    published, configure, at_once
):
    configure(Shipment, watch=("status",))
    stale = given(Shipment, pk=1, status="open")
    at_once(lambda: Shipment.objects.update(status="sent"), stale.save)
    statuses = {event["data"]["status"] for event in events(published)}
    assert statuses == {"sent", "open"}


# watch


@pytest.mark.parametrize(
    ("write", "is_told"),
    [
        (lambda row: row.save(), False),
        (lambda row: set_and_save(row, note="x"), False),
        (lambda row: set_and_save(row, status="sent"), True),
        (lambda row: set_and_save(row, ["status"], status="sent"), True),
        (lambda row: set_and_save(row, ["status"], status="open"), False),
        (lambda row: set_and_save(row, ["note"], status="sent"), False),
        (lambda row: Shipment.objects.update(note="x"), False),
        (lambda row: Shipment.objects.update(status="open"), False),
        (lambda row: Shipment.objects.update(status="sent"), True),
        (lambda row: bulk_set(row, status="open"), False),
        (lambda row: bulk_set(row, status="sent"), True),
        (lambda row: row.labels.add(1), False),
    ],
)
@pytest.mark.parametrize("bulk_limit", [100, 0])
def test_watch_tells_of_updates_that_change_what_is_watched(
    published, configure, write, is_told, bulk_limit
):
    configure(Shipment, watch=("status",), bulk_limit=bulk_limit)
    given(Label, pk=1)
    write(given(Shipment, pk=1, status="open"))
    assert bool(published) == is_told


def set_and_save(row, columns=None, **values):
    for name, value in values.items():
        setattr(row, name, value)
    row.save(update_fields=columns)


def bulk_set(row, **values):
    for name, value in values.items():
        setattr(row, name, value)
    Shipment.objects.bulk_update([row], list(values))


def test_watch_leaves_creates_deletes_and_moves_alone(published, configure):
    configure(Shipment, watch=("status",), scopes={"tenant": "tenant"})
    shipment = Shipment.objects.create(pk=1, tenant=7)
    save(shipment, 8)
    shipment.delete()
    ops = [event["op"] for event in events(published) if "~" not in event["channel"]]
    assert ops == ["create", "create", "update", "delete", "delete", "delete"]


@pytest.mark.parametrize(
    ("statuses", "is_told"),
    [(["sent", "open"], False), (["sent", "lost"], True), (["open", "sent"], True)],
)
def test_watch_judges_a_transaction_by_what_it_came_to(
    published, configure, statuses, is_told
):
    configure(Shipment, watch=("status",))
    shipment = given(Shipment, pk=1, status="open")
    with transaction.atomic():
        for status in statuses:
            set_and_save(shipment, status=status)
    assert bool(published) == is_told


def test_watch_sees_a_stale_save_that_undoes_another(published, configure):
    configure(Shipment, watch=("status",))
    stale = given(Shipment, pk=1, status="open")
    with suppress():
        Shipment.objects.update(status="sent")
    stale.save()
    assert events(published)[0]["data"]["status"] == "open"


def test_watch_of_a_generated_column_sees_its_source(published, configure):
    configure(Shipment, watch=("double",))
    shipment = given(Shipment, pk=1, weight=4)
    set_and_save(shipment, ["weight"], weight=5)
    assert told(published) == ["update shop.shipment", "update shop.shipment.1"]


@pytest.mark.parametrize("also", [False, True])
def test_watch_of_many_to_many_values(published, configure, also):
    configure(Shipment, watch=("labels",))
    given(Label, pk=1)
    shipment = given(Shipment, pk=1)
    shipment.save()
    assert published == []
    with transaction.atomic():
        shipment.labels.add(1)
        if also:
            shipment.save()
    assert told(published) == ["update shop.shipment", "update shop.shipment.1"]


# touch


@pytest.fixture
def touching(configure):
    configure(Shipment, touch=("depot",), events=())
    for pk in (1, 2):
        given(Depot, pk=pk)


def touched(*pks):
    return [
        line for pk in pks for line in ("update shop.depot", f"update shop.depot.{pk}")
    ]


@pytest.mark.parametrize(
    ("write", "pks"),
    [
        (lambda row: Shipment.objects.create(pk=2, depot_id=1), [1]),
        (lambda row: Shipment.objects.create(pk=2), []),
        (lambda row: row.save(), [1]),
        (lambda row: row.delete(), [1]),
        (lambda row: set_and_save(row, depot_id=2), [1, 2]),
        (lambda row: set_and_save(row, ["depot"], depot_id=2), [1, 2]),
        (lambda row: set_and_save(row, ["note"], note="x"), [1]),
        (lambda row: set_and_save(row, depot=None), [1]),
        (lambda row: Shipment.objects.update(depot=2), [1, 2]),
        (lambda row: Shipment.objects.update(note="x"), [1]),
        (lambda row: bulk_set(row, depot_id=2), [1, 2]),
        (lambda row: Shipment.objects.bulk_create([Shipment(pk=2, depot_id=2)]), [2]),
        (lambda row: Shipment.objects.all().delete(), [1]),
        (lambda row: Depot.objects.none().delete(), []),
    ],
)
@pytest.mark.parametrize("bulk_limit", [100, 0])
@pytest.mark.usefixtures("touching")
def test_a_change_tells_of_its_parents(published, write, pks, bulk_limit, configure):
    configure(Shipment, bulk_limit=bulk_limit)
    write(given(Shipment, pk=1, depot_id=1))
    assert told(published) == touched(*pks)


@pytest.mark.usefixtures("touching")
def test_a_parent_is_told_once_in_a_transaction(published):
    with transaction.atomic():
        for _ in range(3):
            Shipment.objects.create(depot_id=1)
        Shipment.objects.update(note="x")
    assert told(published) == touched(1)


@pytest.mark.usefixtures("touching")
def test_a_stale_save_touches_the_parent_that_the_row_had(published):
    stale = given(Shipment, pk=1, depot_id=None)
    with suppress():
        Shipment.objects.update(depot_id=1)
    stale.depot_id = 2
    stale.save()
    assert told(published) == touched(1, 2)


@pytest.mark.usefixtures("touching")
def test_a_suppressed_parent_is_not_told(published):
    with suppress(Depot):
        Shipment.objects.create(depot_id=1)
    assert published == []


def test_a_parent_that_is_not_registered_is_not_told(published, configure):
    configure(Order, touch=("customer",), events=())
    Order.objects.create(customer=given(Customer, name="x"))
    assert published == []


def test_a_parent_that_is_deleted_with_the_row_is_not_updated(published, configure):
    configure(Shipment, touch=("depot",))
    depot = given(Depot, pk=1)
    given(Shipment, pk=2, depot=depot)
    depot.delete()
    assert sorted(told(published)) == [
        "delete shop.depot",
        "delete shop.depot.1",
        "delete shop.shipment",
        "delete shop.shipment.2",
    ]


# events


@pytest.mark.parametrize(
    ("kinds", "lines"),
    [
        (("create",), ["create shop.shipment", "create shop.shipment~tenant.7"]),
        (("update",), ["update shop.shipment"]),
        (("delete",), ["delete shop.shipment", "delete shop.shipment~tenant.8"]),
    ],
)
def test_events_chooses_what_is_told(published, configure, kinds, lines):
    configure(Shipment, scopes={"tenant": "tenant"}, events=kinds)
    shipment = Shipment.objects.create(pk=1, tenant=7)
    save(shipment, 8)
    shipment.delete()
    assert set(lines) <= set(told(published))
    assert {event["op"] for event in events(published)} == set(kinds)


def test_a_row_that_moves_closes_its_channel_whatever_is_told(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"}, events=("create", "update"))
    save(given(Shipment, pk=1, tenant=7), 8)
    assert "close shop.shipment.1" in told(published)
