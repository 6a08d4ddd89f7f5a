"""From the outbox to the log: what waits gets its place."""

import json
import threading
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone
from processes import check_log, on_thread

from django_grip.contrib.eventlog import records, sequences
from django_grip.contrib.eventlog.models import (
    Head,
    LoggedEvent,
    Outbox,
    Sequence,
    SetAside,
)
from django_grip.contrib.realtime.events import Event
from tests.shop.models import Order, Shipment, Tag

pytestmark = pytest.mark.django_db(transaction=True)


def sequence():
    return sequences.sequence("default")


def wait(body, number=1):
    """Another program writes to the outbox."""
    Outbox.objects.create(transaction=number, body=body, created_at=timezone.now())


def ops():
    return list(LoggedEvent.objects.order_by("seq").values_list("op", "channel"))


def test_a_change_is_written_with_its_row_and_sequenced(log):
    tag = Tag.objects.create(name="a")
    assert Outbox.objects.count() == 1
    logged = sequence()
    assert [(row.seq, row.prev, row.channel) for row in logged] == [
        (1, 0, "shop.tag"),
        (2, 0, f"shop.tag.{tag.pk}"),
    ]
    assert not Outbox.objects.exists()
    tag.save()
    sequence()
    assert list(LoggedEvent.objects.order_by("seq").values_list("seq", "prev", "op"))[
        2:
    ] == [
        (3, 1, "update"),
        (4, 2, "update"),
    ]
    assert dict(Head.objects.values_list("channel", "seq")) == {
        "shop.tag": 3,
        f"shop.tag.{tag.pk}": 4,
    }
    assert Sequence.objects.get().last_seq == 4


def test_an_envelope_says_its_place(log):
    Tag.objects.create(pk=1, name="a")
    [first, second] = sequence()
    assert json.loads(second.text)["seq"] == second.seq == 2
    assert json.loads(first.text)["prev"] == first.prev == 0


def test_a_transaction_comes_to_one_change_for_each_row(log):
    with transaction.atomic():
        order = Order.objects.create(pk=1)
        order.status = "paid"
        order.save()
        Tag.objects.create(pk=1, name="a")
        Tag.objects.get(pk=1).delete()
    sequence()
    assert ops() == [("create", "shop.order"), ("create", "shop.order.1")]
    text = LoggedEvent.objects.first().text
    assert json.loads(text)["data"]["status"] == "paid"


def test_changes_of_different_transactions_are_all_told(log):
    tag = Tag.objects.create(pk=1, name="a")
    tag.save()
    tag.save()
    tag.delete()
    sequence()
    told = [op for op, channel in ops() if channel == "shop.tag"]
    assert told == ["create", "update", "update", "delete"]


def test_what_waits_is_taken_in_windows(log, monkeypatch):
    monkeypatch.setattr(sequences, "WINDOW", 3)
    for pk in range(1, 8):
        Tag.objects.create(pk=pk, name="a")
    assert [len(sequence()) for _ in range(4)] == [6, 6, 2, 0]
    check_log(LoggedEvent.objects.order_by("seq"))


def test_a_transaction_wider_than_the_window_is_told_in_one_piece(log, monkeypatch):
    monkeypatch.setattr(sequences, "WINDOW", 2)
    with transaction.atomic():
        Tag.objects.create(pk=1, name="a")
        for pk in range(2, 9):
            Tag.objects.create(pk=pk, name="a")
        Tag.objects.get(pk=1).delete()
    sequence()
    assert len(LoggedEvent.objects.all()) == 14
    assert not LoggedEvent.objects.filter(channel="shop.tag.1").exists()


def test_a_transaction_of_more_than_the_most_is_told_in_parts(log, monkeypatch):
    monkeypatch.setattr(sequences, "WINDOW", 2)
    monkeypatch.setattr(sequences, "WINDOW_MAX", 4)
    with transaction.atomic():
        for pk in range(1, 8):
            Tag.objects.create(pk=pk, name="a")
    assert [len(sequence()) for _ in range(3)] == [8, 6, 0]
    check_log(LoggedEvent.objects.order_by("seq"))


def test_a_change_of_the_transaction_that_commits_last_comes_last(log):
    """Another changed the row in between: its keys lie between those of the first."""
    for number, name in ((1, "first"), (2, "second"), (1, "third")):
        wait(records.dump(Event(channel="a", op=name, id=name)), number)
    sequence()
    assert [op for op, _ in ops()] == ["second", "first", "third"]


POISON = {
    "no JSON": "{",
    "no record": "[]",
    "newer": '{"v":2,"notice":{}}',
    "channel": '{"v":1,"event":{"channel":"a;b","op":"b","id":"c"}}',
    "long channel": json.dumps(
        {"v": 1, "event": {"channel": "a" * 192, "op": "b", "id": "c"}}
    ),
    "channel of a number": '{"v":1,"event":{"channel":7,"op":"b","id":"c"}}',
    "op": '{"v":1,"event":{"channel":"a","op":"b\\nc","id":"c"}}',
    "op of nothing": '{"v":1,"event":{"channel":"a","op":null,"id":"c"}}',
    "surrogate": '{"v":1,"event":{"channel":"a","op":"\\ud800","id":"c"}}',
    "list of values": '{"v":1,"event":{"channel":"a","op":"b","id":"c","values":[1]}}',
    "twice": '{"v":1,"event":{"channel":"a","op":"b","id":"c","values":{"seq":1}}}',
    "NUL": '{"v":1,"event":{"channel":"a","op":"b","id":"c","data":"\\u0000"}}',
    "number of data": '{"v":1,"event":{"channel":"a","op":"b","id":"c","data":7}}',
    "origin": '{"v":1,"event":{"channel":"a","op":"b","id":"c","origin":7}}',
    "notice": '{"v":1,"notice":{"topic":{"label":"a.b","audiences":[null],'
    '"events":["create"]},"op":"create","pk":1,"before":7,"payloads":[],"turn":0}}',
}


@pytest.mark.parametrize("body", POISON.values(), ids=POISON)
def test_a_row_that_nobody_understands_stops_nobody(log, body):
    Tag.objects.create(pk=1, name="a")
    wait(body, 77)
    Tag.objects.create(pk=2, name="b")
    sequence()
    assert not Outbox.objects.exists()
    pks = [channel for _, channel in ops() if channel.startswith("shop.tag.")]
    assert pks == ["shop.tag.1", "shop.tag.2"]
    check_log(LoggedEvent.objects.order_by("seq"))
    for aside in SetAside.objects.all():
        assert aside.reason
        assert (aside.body, aside.transaction) == (body, 77)
    assert (
        SetAside.objects.count()
        + LoggedEvent.objects.exclude(channel__startswith="shop.").count()
        == 1
    )


def test_the_rest_of_its_transaction_is_told(log):
    with transaction.atomic():
        Tag.objects.create(pk=1, name="a")
        wait("{", Outbox.objects.get().transaction)
        Tag.objects.create(pk=2, name="a")
    assert len(sequence()) == 4
    assert SetAside.objects.get().body == "{"


@pytest.mark.only_on("mysql")
def test_one_statement_writes_at_most_what_a_server_takes(log):
    """MariaDB refuses packets of more than 16 MiB, as installed."""
    with transaction.atomic():
        for pk in range(1, 301):
            Shipment.objects.create(pk=pk, note="n" * 60_000)
    assert len(sequence()) == 600


def test_two_that_sequence_at_once_share_the_work(log):
    """Each waits for the lock of the other; all is told once."""
    for pk in range(1, 41):
        Tag.objects.create(pk=pk, name="a")
    sequences.state("default")
    both = threading.Barrier(2, timeout=20)
    found = []

    def work():
        both.wait()
        while Outbox.objects.exists():
            found.extend(sequence())

    with on_thread(work), on_thread(work):
        pass
    assert sorted(row.seq for row in found) == list(range(1, 81))
    check_log(LoggedEvent.objects.order_by("seq"))


def test_two_that_begin_at_once_make_one_sequence(log):
    both = threading.Barrier(2, timeout=20)
    Tag.objects.create(pk=1, name="a")

    def work():
        both.wait()
        sequence()

    with on_thread(work), on_thread(work):
        pass
    assert Sequence.objects.count() == 1
    check_log(LoggedEvent.objects.order_by("seq"))


@pytest.mark.parametrize(
    "emptied",
    [(Sequence,), (Sequence, LoggedEvent), (Head,), (LoggedEvent,)],
    ids=lambda models: " and ".join(model.__name__ for model in models),
)
def test_a_table_that_somebody_emptied_stops_nothing(log, emptied):
    Tag.objects.create(pk=1, name="a")
    sequence()
    for model in emptied:
        model.objects.all().delete()
    Tag.objects.create(pk=2, name="b")
    [first, second] = sequence()
    assert second.seq == first.seq + 1
    assert (first.channel, second.channel) == ("shop.tag", "shop.tag.2")


def test_a_log_that_is_ahead_of_its_sequence_begins_an_epoch(log, caplog):
    """The sequence's row was restored from a backup, and the log was not."""
    Tag.objects.create(pk=1, name="a")
    sequence()
    before = Sequence.objects.get().epoch
    Sequence.objects.update(last_seq=0)
    Tag.objects.create(pk=2, name="b")
    sequence()
    assert [row.seq for row in sequence()] == [3, 4]
    assert Sequence.objects.get().epoch != before
    assert "was a backup restored?" in caplog.text


def test_names_that_differ_in_case_are_different_channels(log):
    for number, channel in enumerate(["lobby", "Lobby", "lobby"]):
        wait(records.dump(Event(channel=channel, op="said", id="1")), number)
    assert [row.prev for row in sequence()] == [0, 0, 1]
    assert Head.objects.get(channel="Lobby").seq == 2


def test_a_bulk_of_many_rows_is_one_record(log):
    Shipment.objects.bulk_create([Shipment(pk=pk) for pk in range(1, 151)])
    sequence()
    Shipment.objects.update(note="x")
    assert Outbox.objects.count() == 1
    logged = sequence()
    assert logged[0].op == "bulk"
    assert len(logged) == 151
    assert logged[0].created_at - timezone.now() < timedelta(minutes=1)
