"""What a transaction has to say is written with its rows, or they are not written."""

import random
from contextlib import suppress

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_grip.contrib.eventlog import records, sequences
from django_grip.contrib.eventlog.models import LoggedEvent, Outbox
from tests.shop.models import Order, Shipment, Tag

pytestmark = pytest.mark.django_db(transaction=True)


class Abort(Exception):
    pass


def statements(queries):
    return [
        query["sql"]
        for query in queries
        if Outbox._meta.db_table in query["sql"] and query["sql"].startswith("INSERT")
    ]


def numbers():
    """The transaction's number of each row that waits, in order."""
    return list(Outbox.objects.order_by("pk").values_list("transaction", flat=True))


def names_told():
    """What waits, as op and pk."""
    bodies = Outbox.objects.order_by("pk").values_list("body", flat=True)
    changes = [records.load(body).change for body in bodies]
    return [(change.op, change.pk) for change in changes]


def test_a_change_costs_one_insert(log):
    with CaptureQueriesContext(connection) as queries:
        tag = Tag.objects.create(name="a")
        tag.save()
        tag.delete()
    assert len(statements(queries)) == 3
    assert Outbox.objects.count() == 3


def test_a_change_costs_nothing_but_the_insert(log, monkeypatch):
    tag = Tag.objects.create(name="a")
    with CaptureQueriesContext(connection) as kept, transaction.atomic():
        tag.save()
    monkeypatch.setattr("django_grip.contrib.realtime.durable.log", None)
    with CaptureQueriesContext(connection) as unkept, transaction.atomic():
        tag.save()
    assert len(kept) == len(unkept) + 1


def test_a_bulk_write_costs_one_insert_for_a_thousand_rows(log, configure):
    configure(Shipment, bulk_limit=5_000)
    rows = Shipment.objects.bulk_create([Shipment(pk=n) for n in range(1, 2_501)])
    Outbox.objects.all().delete()
    with CaptureQueriesContext(connection) as queries:
        Shipment.objects.update(status="sent")
    assert len(statements(queries)) == 3
    assert Outbox.objects.count() == len(rows)
    assert len(set(numbers())) == 1


def test_a_change_that_cannot_be_kept_fails_its_write(log):
    name = Outbox._meta.db_table
    tag = Tag.objects.create(name="before")
    with connection.schema_editor() as editor:
        editor.alter_db_table(Outbox, name, "away")
    try:
        for write in (
            lambda: Tag.objects.create(name="new"),
            lambda: Tag.objects.filter(pk=tag.pk).get().delete(),
            lambda: Shipment.objects.bulk_create([Shipment()]),
        ):
            with pytest.raises(DatabaseError, match=name):
                write()
        tag.name = "after"
        with pytest.raises(DatabaseError, match=name):
            tag.save()
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(Outbox, "away", name)
    assert [tag.name for tag in Tag.objects.all()] == ["before"]
    assert not Shipment.objects.exists()


def test_changes_of_a_transaction_share_its_number(log):
    with transaction.atomic():
        Tag.objects.create(name="a")
        with transaction.atomic():
            Tag.objects.create(name="b")
        Tag.objects.create(name="c")
    Tag.objects.create(name="d")
    Tag.objects.create(name="e")
    first, second, third, fourth, fifth = numbers()
    assert first == second == third
    assert len({first, fourth, fifth}) == 3


def test_the_number_outlives_savepoints_that_are_rolled_back(log):
    with transaction.atomic():
        with suppress(Abort), transaction.atomic():
            Tag.objects.create(name="undone")
            raise Abort
        Tag.objects.create(name="a")
        with suppress(Abort), transaction.atomic():
            Tag.objects.create(name="undone")
            raise Abort
        Tag.objects.create(name="b")
    assert len(numbers()) == 2
    assert len(set(numbers())) == 1


def test_a_number_that_was_rolled_back_is_not_used_again(log):
    with suppress(Abort), transaction.atomic():
        Tag.objects.create(name="undone")
        undone = set(numbers())
        raise Abort
    Tag.objects.create(name="a")
    assert undone
    assert undone.isdisjoint(numbers())


def test_what_a_commit_hook_writes_is_a_transaction_of_its_own(log):
    with transaction.atomic():
        Tag.objects.create(name="a")
        transaction.on_commit(lambda: Tag.objects.create(name="b"))
    assert len(set(numbers())) == 2


def test_a_project_that_seeds_its_dice_has_different_numbers(log):
    for _ in range(2):
        random.seed(6)
        Tag.objects.create(name="a")
    assert len(set(numbers())) == 2


def test_transactions_managed_by_hand_have_different_numbers(log):
    transaction.set_autocommit(False)
    try:
        for name in "ab":
            Tag.objects.create(name=name)
            transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert len(set(numbers())) == 2


def test_f04_nothing_of_a_rolled_back_transaction_waits(log):
    with suppress(Abort), transaction.atomic():
        Tag.objects.create(name="undone")
        raise Abort
    with transaction.atomic():
        kept = Tag.objects.create(name="a")
        with suppress(Abort), transaction.atomic():
            Tag.objects.create(name="undone")
            Tag.objects.get(pk=kept.pk).delete()
            raise Abort
        kept.save()
    assert names_told() == [("create", kept.pk), ("update", kept.pk)]
    logged = sequences.sequence("default")
    assert [(row.op, row.channel) for row in logged] == [
        ("create", "shop.tag"),
        ("create", f"shop.tag.{kept.pk}"),
    ]


def test_f03_a_serializer_that_raises_makes_the_event_thin(log, monkeypatch):
    def fail(self, instance):
        raise ZeroDivisionError

    monkeypatch.setattr(
        "tests.shop.serializers.OrderSerializer.to_representation", fail
    )
    order = Order.objects.create(status="paid")
    assert Order.objects.get().status == "paid"
    sequences.sequence("default")
    for row in LoggedEvent.objects.all():
        assert row.op == "create"
        assert f'"pk":{order.pk}' in row.text
        assert '"data":' not in row.text
    assert LoggedEvent.objects.count() == 2


def test_f03_an_error_of_somebody_elses_receiver_takes_the_event_with_the_row(log):
    def fail(**kwargs):
        raise Abort

    from django.db.models.signals import post_save

    post_save.connect(fail, sender=Tag)
    try:
        with pytest.raises(Abort):
            Tag.objects.create(name="a")
    finally:
        post_save.disconnect(fail, sender=Tag)
    assert not Tag.objects.exists()
    assert not Outbox.objects.exists()


def test_what_a_log_cannot_hold_is_refused_at_once(log):
    from django_grip.contrib.realtime import publish_event

    with pytest.raises(ValueError, match="printable"):
        publish_event("lobby", "said\nnothing")
    assert not Outbox.objects.exists()
