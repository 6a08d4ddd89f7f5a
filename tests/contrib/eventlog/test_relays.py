"""The relay at work: leases, servers that fail, the command, and the inline thread."""

import threading

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from processes import on_thread, received, relaying, shown, until_published

from django_grip.contrib.eventlog import courses, inline, leases, relays, sequences
from django_grip.contrib.eventlog.leases import Lease
from django_grip.contrib.eventlog.models import (
    LoggedEvent,
    Outbox,
    Sequence,
    SetAside,
    Target,
)
from django_grip.contrib.eventlog.relays import Relay
from django_grip.publishers import locmem
from servers import wait_until
from tests.publishers.control_port import Answer
from tests.shop.models import Order, Tag

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sent():
    """What the publisher of the settings has, which keeps it in memory."""
    locmem.outbox.clear()
    yield locmem.outbox
    locmem.outbox.clear()


def channels(items):
    return [item.channel for item in items]


def test_what_waits_is_published_in_order_with_its_positions(log, sent):
    Tag.objects.create(pk=1, name="a")
    Relay("default").drain()
    epoch = Sequence.objects.get().epoch
    assert [(item.channel, item.id, item.prev_id) for item in sent] == [
        ("shop.tag", f"{epoch}.1", f"{epoch}.0"),
        ("shop.tag.1", f"{epoch}.2", f"{epoch}.0"),
    ]
    assert Target.objects.get().published == 2
    Relay("default").drain()
    assert len(sent) == 2


def test_names_get_the_prefix_once_and_on_the_wire_only(log, sent, settings):
    settings.GRIP_PREFIX = "site-"
    Tag.objects.create(pk=1, name="a")
    Relay("default").drain()
    assert channels(sent) == ["site-shop.tag", "site-shop.tag.1"]
    assert LoggedEvent.objects.first().channel == "shop.tag"


def test_whoever_holds_the_lease_works_and_others_stand_by(log, sent):
    first, second = Relay("default"), Relay("default")
    first.step()
    Tag.objects.create(pk=1, name="a")
    assert second.step() == ""
    assert Outbox.objects.exists()
    assert first.step() == "again"
    assert len(sent) == 2
    first.end()
    assert Sequence.objects.get().lease_owner == ""
    second.end()


def test_a_lease_is_renewed_in_time_and_not_at_every_step(log, monkeypatch):
    monkeypatch.setattr(leases, "RENEW", 0.05)
    sequences.state("default")
    lease = Lease("default")
    assert lease.hold()
    until = Sequence.objects.get().lease_until
    wait_until(
        lambda: lease.hold() and Sequence.objects.get().lease_until > until,
        "the lease is renewed",
    )
    monkeypatch.setattr(leases, "RENEW", 60)
    assert not Lease("default").hold()


def test_only_who_holds_a_lease_releases_it(log):
    sequences.state("default")
    holder, other = Lease("default"), Lease("default")
    assert holder.hold()
    other.release()
    assert not other.hold()
    holder.release()
    assert other.hold()


def test_a_server_that_was_down_gets_everything_in_order(log, control_port):
    control = control_port(is_up=False)
    with relaying(Relay("default")):
        for pk in range(1, 6):
            Tag.objects.create(pk=pk, name="a")
        wait_until(lambda: LoggedEvent.objects.count() == 10, "the order is given")
        assert received(control) == []
        control.up()
        until_published(control, 10)
    assert len(shown(received(control))["shop.tag"]) == 5
    assert Target.objects.get().published == 10


def test_f17_a_server_that_is_down_does_not_hold_up_another(
    log, control_port, monkeypatch
):
    monkeypatch.setattr(courses, "TROUBLE_AFTER", 0.1)
    up, down = control_port(), control_port(is_up=False)
    with relaying(Relay("default")):
        for pk in range(1, 4):
            Tag.objects.create(pk=pk, name="a")
        until_published(up, 6)

        def is_failing():
            target = Target.objects.filter(server=down.url).get()
            return target.failing_since and target.last_error

        wait_until(is_failing, "the trouble is noted")
        assert Target.objects.get(server=up.url).published == 6
        assert Target.objects.get(server=down.url).published == 0
        down.up()
        until_published(down, 6)
        wait_until(
            lambda: not Target.objects.filter(failing_since__isnull=False).exists(),
            "it is well again",
        )
    assert len(shown(received(down))["shop.tag"]) == 3


def test_an_item_that_a_server_refuses_is_set_aside_and_the_rest_goes_on(log, control):
    def answer(connection, post):
        bad = b"shop.order.2" in post.raw
        Answer(400 if bad else 200, "Bad\n" if bad else "Published\n")(connection, post)

    control.behaviour = answer
    for pk in range(1, 4):
        Order.objects.create(pk=pk)
    Relay("default").drain()
    refused = LoggedEvent.objects.filter(text__contains="shop.order.2")
    assert set(SetAside.objects.values_list("seq", "server")) == {
        (row.seq, control.url) for row in refused
    }
    assert all(aside.reason for aside in SetAside.objects.all())
    channels = {event.channel for event in received(control)}
    assert channels == {"shop.order", "shop.order.1", "shop.order.3"}
    assert Target.objects.get().published == 6


def test_a_wrong_key_loses_nothing(log, control):
    """A proxy that answers 403 does not take the events; later it does."""
    control.behaviour = Answer(403)
    with relaying(Relay("default")):
        Tag.objects.create(pk=1, name="a")
        wait_until(lambda: Target.objects.exclude(last_error="").exists(), "it is said")
        control.behaviour = Answer(200)
        until_published(control, 2)
    assert not SetAside.objects.exists()
    assert len(shown(received(control))["shop.tag"]) == 1


def test_a_server_that_is_new_begins_where_the_others_are(log, control_port):
    first = control_port()
    Tag.objects.create(pk=1, name="a")
    Relay("default").drain()
    second = control_port()
    Tag.objects.create(pk=2, name="a")
    Relay("default").drain()
    assert [event.seq for event in received(first)] == [1, 2, 3, 4]
    assert sorted(event.seq for event in received(second)) == [3, 4]


@pytest.mark.parametrize("emptied", [Sequence, Target, LoggedEvent])
def test_a_table_that_somebody_emptied_does_not_silence_the_relay(log, sent, emptied):
    Tag.objects.create(pk=1, name="a")
    relay = Relay("default")
    relay.step()
    emptied.objects.all().delete()
    Tag.objects.create(pk=2, name="b")
    wait_until(lambda: relay.step() or len(sent) >= 4, "the event is sent")
    relay.end()
    assert channels(sent)[-2:] == ["shop.tag", "shop.tag.2"]


def test_an_emptied_log_does_not_silence_the_next_relay(log, sent):
    Tag.objects.create(pk=1, name="a")
    Relay("default").drain()
    LoggedEvent.objects.all().delete()
    Sequence.objects.all().delete()
    Tag.objects.create(pk=2, name="b")
    Relay("default").drain()
    assert channels(sent)[2:] == ["shop.tag", "shop.tag.2"]


def test_a_backup_that_is_restored_beside_a_relay_does_not_silence_it(log, sent):
    relay = Relay("default")
    for pk in range(1, 4):
        Tag.objects.create(pk=pk, name="a")
    relay.step()
    LoggedEvent.objects.filter(seq__gt=2).delete()
    Sequence.objects.update(last_seq=2)
    Target.objects.update(published=2)
    relay._closing_at = 0.0
    relay.step()
    Tag.objects.create(pk=9, name="b")
    relay.step()
    relay.end()
    assert channels(sent)[6:] == ["shop.tag", "shop.tag.9"]


def test_an_error_is_said_once_and_tried_again(log, sent, caplog, monkeypatch):
    monkeypatch.setattr(relays, "BACK_OFF", (0.01, 0.02))
    relay = Relay("default")
    Tag.objects.create(pk=1, name="a")
    with connection.schema_editor() as editor:
        editor.alter_db_table(LoggedEvent, LoggedEvent._meta.db_table, "away")
    with relaying(relay):
        try:
            wait_until(lambda: relay._errors >= 3, "it is tried again")
        finally:
            with connection.schema_editor() as editor:
                editor.alter_db_table(LoggedEvent, "away", LoggedEvent._meta.db_table)
        wait_until(lambda: len(sent) == 2, "it is published")
    said = [record for record in caplog.records if "tried again" in record.message]
    assert len(said) == 1


def test_once_publishes_what_waits_and_ends(log, sent):
    Tag.objects.create(pk=1, name="a")
    with on_thread(lambda: call_command("grip_relay", "--once")):
        pass
    assert channels(sent) == ["shop.tag", "shop.tag.1"]
    assert Sequence.objects.get().lease_owner == ""


def test_the_command_says_where_the_tables_are_missing(log):
    with connection.schema_editor() as editor:
        editor.alter_db_table(Outbox, Outbox._meta.db_table, "away")
    try:
        with pytest.raises(CommandError, match="migrate --database default"):
            call_command("grip_relay", "--once")
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(Outbox, "away", Outbox._meta.db_table)


def test_a_daemon_publishes_ends_by_sigterm_and_releases_its_lease(
    log, processes, control
):
    relay = processes.relay()
    Tag.objects.create(pk=1, name="a")
    until_published(control, 2)
    assert Sequence.objects.get().lease_owner
    assert relay.stop(timeout=4) == 0
    assert Sequence.objects.get().lease_owner == ""


def test_a_relay_that_ends_waits_for_what_is_on_its_way(log, control, monkeypatch):
    monkeypatch.setattr(relays, "FINISH", 20.0)
    relay = Relay("default")
    Tag.objects.create(pk=1, name="a")
    control.gate.clear()
    relay.step()
    control.wait(1)
    threading.Timer(0.1, control.gate.set).start()
    relay.end()
    assert Target.objects.get().published == 2


@pytest.fixture
def thread(monkeypatch):
    """The thread of a process, which ends with the test."""
    monkeypatch.setattr(inline, "IDLE", 0.2)
    thread = inline.RelayThread("default")
    thread.start()
    yield thread
    thread.leave()
    thread.join(20)
    assert not thread.is_alive()


def test_the_inline_thread_publishes_whenever_it_is_woken(log, sent, thread):
    for number in (1, 2):
        Tag.objects.create(pk=number, name="a")
        thread.wake()
        wait_until(lambda n=number: len(sent) == 2 * n, "it is published")
        wait_until(
            lambda: Sequence.objects.get().lease_owner == "", "it gives back the lease"
        )


def test_the_inline_thread_leaves_when_everything_is_published(log, sent, thread):
    Tag.objects.create(pk=1, name="a")
    thread.leave()
    thread.join(20)
    assert len(sent) == 2
    assert not Outbox.objects.exists()


def test_the_inline_thread_outlives_its_connection(log, sent, thread, monkeypatch):
    """Whatever fails, and wherever: what is written later is published."""
    failed = threading.Event()
    is_done = Relay._is_done

    def lose_connection(relay):
        if not failed.is_set():
            failed.set()
            connections["default"].ensure_connection()
            connections["default"].connection.close()
        return is_done(relay)

    monkeypatch.setattr(Relay, "_is_done", lose_connection)
    Tag.objects.create(pk=1, name="a")
    thread.wake()
    assert failed.wait(20)
    Tag.objects.create(pk=2, name="b")
    thread.wake()
    wait_until(lambda: len(sent) == 4, "it is published")
