"""Writes of many rows: what is told, and how many queries that takes."""

import pytest
from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import NotSupportedError, connection, models, transaction
from django.db.models import Avg, Count, F, Subquery, Value
from django.db.models.functions import Concat
from django.test.utils import CaptureQueriesContext

from django_grip.contrib.realtime import suppress
from tests.shop.models import Depot, Label, Shipment
from tests.shop.reading import configurator, events, told

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def configure():
    with configurator() as configure:
        yield configure


def given(count, **values):
    """Rows from pk 1 on that nobody was told of."""
    with suppress():
        rows = [Shipment(pk=pk, **values) for pk in range(1, count + 1)]
        return Shipment.objects.bulk_create(rows)


def bulks(published):
    return [line for line in told(published) if line.startswith("bulk")]


def singles(published):
    return [line for line in told(published) if not line.startswith("bulk")]


# The number of queries.


def bulk_create(count):
    # As many parameters per row on every database, so as many INSERTs.
    Shipment.objects.bulk_create(
        [Shipment(pk=pk, tenant=7) for pk in range(10_001, 10_001 + count)],
        batch_size=50,
    )


def update(count):
    Shipment.objects.filter(pk__lte=count).update(tenant=8)


def bulk_update(count):
    rows = list(Shipment.objects.filter(pk__lte=count))
    for row in rows:
        row.tenant = 8
    Shipment.objects.bulk_update(rows, ["tenant"], batch_size=50)


def delete(count):
    Shipment.objects.filter(pk__lte=count).delete()


def statements(write, count):
    """The statements of a write, taken back, without those of the transaction."""
    with transaction.atomic():
        with CaptureQueriesContext(
            connection,
        ) as queries:
            write(count)
        transaction.set_rollback(True)
    return [
        query["sql"].split()[0]
        for query in queries
        if not query["sql"].startswith(("SAVEPOINT", "RELEASE"))
    ]


def added(write, count):
    """How many statements a write takes more than it does in plain Django."""
    with suppress():
        plain = statements(write, count)
    return len(statements(write, count)) - len(plain)


@pytest.mark.parametrize(
    ("write", "once", "by_chunk"),
    [
        # The rows after the write.
        (bulk_create, 0, 1),
        # The pks; the rows before and after. A second chunk is a second UPDATE.
        (update, 0, 3),
        # The rows before and after.
        (bulk_update, 0, 2),
        # The pks; the rows before.
        (delete, 1, 1),
    ],
)
def test_queries_grow_with_chunks_of_a_thousand_and_not_with_rows(
    configure, write, once, by_chunk
):
    configure(Shipment, scopes={"tenant": "tenant"})
    given(2_000, tenant=7)
    counts = [added(write, count) for count in (20, 1_000, 2_000)]
    assert counts == [once + by_chunk, once + by_chunk, once + 2 * by_chunk]


def test_without_scopes_an_update_adds_the_pks_and_one_read(configure):
    given(2_000)
    # Below the limit the payloads; above it nothing but a second UPDATE.
    assert added(update, 20) == 2
    assert added(update, 2_000) == 2


def test_12000_rows_without_scopes_are_one_statement(published, configure):
    given(12_000)
    with CaptureQueriesContext(connection) as queries:
        assert Shipment.objects.update(tenant=8) == 12_000
    updates = [query["sql"] for query in queries if query["sql"].startswith("UPDATE")]
    assert len(updates) == 1
    assert Shipment.objects.filter(tenant=8).count() == 12_000
    assert bulks(published) == ["bulk shop.shipment update 12000"]
    assert "pks" not in events(published)[0]
    assert len(singles(published)) == 10_000
    assert set(singles(published)) <= {
        f"update shop.shipment.{pk}" for pk in range(1, 12_001)
    }


def test_however_many_rows_move_all_leave(published, configure):
    configure(Shipment, scopes={"tenant": "tenant"})
    given(10_500, tenant=7)
    assert Shipment.objects.update(tenant=8) == 10_500
    assert sorted(bulks(published)) == [
        "bulk shop.shipment update 10500",
        "bulk shop.shipment~tenant.7 delete 10500 leave",
        "bulk shop.shipment~tenant.8 create 10500 enter",
    ]
    closes = {line for line in told(published) if line.startswith("close")}
    assert len(closes) == 10_500


# What is told above the limit, and below.


@pytest.mark.parametrize(
    ("write", "action"),
    [
        (lambda: Shipment.objects.update(note="x"), "update"),
        (lambda: Shipment.objects.all().delete(), "delete"),
    ],
)
@pytest.mark.parametrize(("count", "is_bulk"), [(100, False), (101, True)])
def test_above_bulk_limit_one_event_tells_of_all(
    published, write, action, count, is_bulk
):
    given(count)
    write()
    if not is_bulk:
        assert bulks(published) == []
        assert len(published) == 200
        return
    assert bulks(published) == [f"bulk shop.shipment {action} 101"]
    bulk = events(published)[0]
    assert sorted(bulk["pks"]) == list(range(1, 102))
    assert "pk" not in bulk
    assert "data" not in bulk
    assert bulk.get("changed") == (["note"] if action == "update" else None)
    assert sorted(singles(published)) == sorted(
        f"{action} shop.shipment.{pk}" for pk in range(1, 102)
    )
    assert not any("data" in event for event in events(published))


@pytest.mark.parametrize(("count", "is_bulk"), [(100, False), (101, True)])
def test_bulk_create_and_bulk_update_have_the_same_limit(published, count, is_bulk):
    rows = Shipment.objects.bulk_create([Shipment(pk=pk) for pk in range(1, count + 1)])
    expected = ["bulk shop.shipment create 101"] if is_bulk else []
    assert bulks(published) == expected
    published.clear()
    Shipment.objects.bulk_update(rows, ["note"])
    expected = ["bulk shop.shipment update 101"] if is_bulk else []
    assert bulks(published) == expected
    assert all(event["changed"] == ["note"] for event in events(published))


@pytest.mark.parametrize(("count", "is_named"), [(1_000, True), (1_001, False)])
def test_a_bulk_event_names_a_thousand_pks_and_counts_more(published, count, is_named):
    given(count)
    Shipment.objects.update(note="x")
    bulk = events(published)[0]
    assert bulk["count"] == count
    assert ("pks" in bulk) == is_named


def test_the_object_channels_of_a_bulk_write_carry_no_data(published, configure):
    configure(Shipment, bulk_limit=1)
    given(2)
    Shipment.objects.update(note="secret to be fetched")
    for event in events(published):
        assert "data" not in event
        assert event["changed"] == ["note"]
    ids = [event["id"] for event in events(published)]
    assert len(set(ids)) == len(ids)


def test_in_bulk_rows_move_by_groups(published, configure):
    configure(Shipment, bulk_limit=3, scopes={"tenant": "tenant"})
    with suppress():
        for pk, tenant in enumerate([7, 7, 7, 8, 8, 9, None], start=1):
            Shipment.objects.create(pk=pk, tenant=tenant)
    Shipment.objects.update(tenant=9)
    assert sorted(bulks(published)) == [
        "bulk shop.shipment update 7",
        "bulk shop.shipment~tenant.7 delete 3 leave",
        "bulk shop.shipment~tenant.8 delete 2 leave",
        "bulk shop.shipment~tenant.9 create 6 enter",
        "bulk shop.shipment~tenant.9 update 1",
    ]
    pks = {
        (event["channel"], event["action"]): sorted(event["pks"])
        for event in events(published)
        if event["op"] == "bulk"
    }
    assert pks["shop.shipment~tenant.7", "delete"] == [1, 2, 3]
    assert pks["shop.shipment~tenant.8", "delete"] == [4, 5]
    assert pks["shop.shipment~tenant.9", "create"] == [1, 2, 3, 4, 5, 7]
    assert pks["shop.shipment~tenant.9", "update"] == [6]
    left = range(1, 6)
    assert sorted(singles(published)) == sorted(
        [
            *(f"delete shop.shipment.{pk} leave" for pk in left),
            *(f"close shop.shipment.{pk}" for pk in left),
            "update shop.shipment.6",
            "update shop.shipment.7",
        ]
    )


def test_in_bulk_an_object_is_closed_after_its_leave(published, configure):
    configure(Shipment, bulk_limit=1, scopes={"tenant": "tenant"})
    given(2, tenant=7)
    Shipment.objects.update(tenant=8)
    for pk in (1, 2):
        mine = [line for line in told(published) if f"shop.shipment.{pk}" in line]
        assert mine == [
            f"delete shop.shipment.{pk} leave",
            f"close shop.shipment.{pk}",
        ]


def test_a_bulk_delete_is_told_to_the_scopes_of_its_rows(published, configure):
    configure(Shipment, bulk_limit=1, scopes={"tenant": "tenant"})
    with suppress():
        for pk, tenant in enumerate([7, 7, 8], start=1):
            Shipment.objects.create(pk=pk, tenant=tenant)
    Shipment.objects.all().delete()
    assert sorted(bulks(published)) == [
        "bulk shop.shipment delete 3",
        "bulk shop.shipment~tenant.7 delete 2",
        "bulk shop.shipment~tenant.8 delete 1",
    ]


def test_a_bulk_create_is_told_to_the_scopes_of_its_rows(published, configure):
    configure(Shipment, bulk_limit=1, scopes={"tenant": "tenant"})
    tenants = [7, 7, None]
    Shipment.objects.bulk_create([Shipment(tenant=tenant) for tenant in tenants])
    assert bulks(published) == [
        "bulk shop.shipment create 3",
        "bulk shop.shipment~tenant.7 create 2",
    ]


# bulk_create that does not say which rows.


@pytest.mark.parametrize(
    "options",
    [
        {"ignore_conflicts": True},
        {
            "update_conflicts": True,
            "update_fields": ["tenant"],
            "unique_fields": ["id"],
        },
    ],
)
@pytest.mark.parametrize("count", [2, 150])
def test_bulk_create_with_conflicts_tells_one_event_without_pks(
    published, configure, options, count
):
    configure(Shipment, scopes={"tenant": "tenant"})
    given(1, tenant=7)
    rows = [Shipment(pk=pk, tenant=8) for pk in range(1, count + 1)]
    Shipment.objects.bulk_create(rows, **options)
    assert sorted(told(published)) == [
        f"bulk shop.shipment create {count}",
        f"bulk shop.shipment~tenant.8 create {count}",
    ]
    assert not any("pks" in event or "data" in event for event in events(published))


def test_bulk_create_that_conflicts_raises_and_says_nothing(published):
    given(1)
    with pytest.raises(Exception, match=r"(?i)unique"):
        Shipment.objects.bulk_create([Shipment(pk=2), Shipment(pk=1)])
    assert published == []


# As Django does.


QUERYSETS = {
    "ordered": lambda: Shipment.objects.order_by("-note"),
    "reversed": lambda: Shipment.objects.order_by("note").reverse(),
    "distinct": lambda: Shipment.objects.distinct(),
    "annotated": lambda: Shipment.objects.annotate(twice=F("weight") * 2),
    "filtered by an annotation": lambda: Shipment.objects.annotate(
        twice=F("weight") * 2
    ).filter(twice__gt=2),
    "ordered by an annotation": lambda: Shipment.objects.annotate(
        twice=F("weight") * 2
    ).order_by("-twice"),
    "counted": lambda: Shipment.objects.annotate(n=Count("labels")).filter(n__gt=1),
    "joined": lambda: Shipment.objects.filter(labels__word__in="ab"),
    "over a relation": lambda: Shipment.objects.filter(depot__region="north"),
    "select_related": lambda: Shipment.objects.select_related("depot"),
    "deferred": lambda: Shipment.objects.defer("note"),
    "values": lambda: Shipment.objects.values("note"),
    "first ones": lambda: Shipment.objects.filter(
        pk__in=Shipment.objects.order_by("weight")[:2]
    ),
    "none": lambda: Shipment.objects.none(),
    "or": lambda: Shipment.objects.filter(pk=1) | Shipment.objects.filter(weight=3),
}


@pytest.fixture
def various():
    with suppress():
        depot = Depot.objects.create(pk=1)
        labels = [Label.objects.create(pk=n, word=word) for n, word in enumerate("ab")]
        for pk in range(1, 5):
            row = Shipment.objects.create(pk=pk, weight=pk, note=f"n{pk}")
            if pk > 2:
                row.depot = depot
                row.save()
                row.labels.set(labels)


def rows():
    return sorted(Shipment.objects.values_list("pk", "note", "weight"))


def taken_back(write):
    """What a write returned and left behind; it is rolled back."""
    with transaction.atomic():
        result = write()
        left = rows()
        transaction.set_rollback(True)
    return result, left


@pytest.mark.parametrize("name", QUERYSETS)
@pytest.mark.usefixtures("various")
def test_update_does_what_django_does(published, name):
    make = QUERYSETS[name]
    values = {"note": Concat("note", Value("!")), "weight": F("weight") + 10}
    django = taken_back(lambda: models.QuerySet.update(make(), **values))
    before = rows()
    assert make().update(**values) == django[0]
    assert rows() == django[1]
    changed = {new[0] for new, old in zip(rows(), before, strict=True) if new != old}
    assert {event["pk"] for event in events(published)} == changed
    assert name == "none" or changed


@pytest.mark.parametrize("name", [name for name in QUERYSETS if name != "values"])
@pytest.mark.usefixtures("various")
def test_delete_does_what_django_does(published, name):
    make = QUERYSETS[name]
    with suppress():
        django = taken_back(lambda: outcome(lambda: models.QuerySet.delete(make())))
    before = rows()
    assert outcome(lambda: make().delete()) == django[0]
    assert rows() == django[1]
    gone = {pk for pk, *_ in before} - {pk for pk, *_ in rows()}
    assert {event["pk"] for event in events(published)} == gone


def outcome(write):
    """What a write returns, or how it fails."""
    try:
        return write()
    except TypeError as exc:
        return str(exc)


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda: Shipment.objects.all()[:2].update(note="x"), TypeError),
        (lambda: Shipment.objects.all()[:2].delete(), TypeError),
        (lambda: Shipment.objects.values("note").delete(), TypeError),
        (lambda: Shipment.objects.update(nothing=1), FieldDoesNotExist),
        (lambda: Shipment.objects.update(note=F("depot__region")), FieldError),
        (lambda: Shipment.objects.update(weight=Count("labels")), FieldError),
        (
            lambda: Shipment.objects.union(Shipment.objects.all()).update(note="x"),
            NotSupportedError,
        ),
        (
            lambda: Shipment.objects.union(Shipment.objects.all()).delete(),
            NotSupportedError,
        ),
        (lambda: Shipment.objects.bulk_update(Shipment.objects.all(), []), ValueError),
        (lambda: Shipment.objects.bulk_update([Shipment()], ["note"]), ValueError),
    ],
)
@pytest.mark.parametrize("has_rows", [True, False])
def test_what_django_refuses_is_refused(published, write, error, has_rows):
    if has_rows:
        given(2)
    with suppress(), pytest.raises(error):
        write()
    with pytest.raises(error):
        write()
    assert published == []


def test_update_of_many_rows_chosen_by_what_it_changes(published):
    given(2_400)
    with suppress():
        Shipment.objects.update(weight=F("id"))
    mean = Shipment.objects.values("priority").annotate(mean=Avg("weight"))
    above = Shipment.objects.filter(weight__gt=Subquery(mean.values("mean")))
    assert above.update(weight=F("weight") + 5_000) == 1_200
    assert Shipment.objects.filter(weight__gt=5_000).count() == 1_200
    assert bulks(published) == ["bulk shop.shipment update 1200"]


def test_update_of_rows_that_no_longer_match_after_it(published):
    given(3, status="open")
    assert Shipment.objects.filter(status="open").update(status="sent") == 3
    assert {event["data"]["status"] for event in events(published)} == {"sent"}
    assert len(published) == 6


def test_bulk_update_tells_of_no_row_that_is_gone(published):
    stale = given(2)
    with suppress():
        Shipment.objects.filter(pk=1).delete()
    assert Shipment.objects.bulk_update(stale, ["note"]) == 1
    assert {event["pk"] for event in events(published)} == {2}


def test_bulk_update_in_batches_is_one_operation(published):
    stale = given(150)
    Shipment.objects.bulk_update(stale, ["note"], batch_size=40)
    assert bulks(published) == ["bulk shop.shipment update 150"]
