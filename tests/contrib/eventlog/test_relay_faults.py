"""A relay that dies, sleeps or is not alone loses nothing and reorders nothing."""

import os
import signal
import threading
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.utils import timezone
from processes import (
    HOT_ROWS,
    RELAY,
    WRITERS,
    check_log,
    exit_code,
    journal_of,
    on_thread,
    received,
    relaying,
    shown,
    until_published,
)

from django_grip.contrib.eventlog import leases, records, sequences
from django_grip.contrib.eventlog.leases import Lease
from django_grip.contrib.eventlog.models import (
    LoggedEvent,
    Outbox,
    Sequence,
    SetAside,
    Target,
)
from django_grip.contrib.eventlog.relays import Relay
from django_grip.contrib.realtime.events import Event
from servers import wait_until
from tests.shop.models import Shipment, Tag

pytestmark = pytest.mark.django_db(transaction=True)


def write(start, stop):
    """Write tags, and return the channels in the order in which they are told."""
    channels = []
    for pk in range(start, stop):
        Tag.objects.create(pk=pk, name="a")
        channels += ["shop.tag", f"shop.tag.{pk}"]
    return channels


def channels_of(events):
    return [event.channel for event in events]


def check_shown(control, channels):
    """A client has all of these, once and in order; returns all that arrived."""
    events = received(control)
    ids = {}
    for event in events:
        assert ids.setdefault(event.seq, event.id) == event.id
    applied = [event for channel in shown(events).values() for event in channel]
    applied.sort(key=lambda event: event.seq)
    assert channels_of(applied) == channels
    assert [event.seq for event in applied] == list(range(1, len(channels) + 1))
    check_log(LoggedEvent.objects.order_by("seq"))
    assert not Outbox.objects.exists()
    return events


def test_f06_killed_before_the_sequencing_commit_nothing_has_changed(
    log, processes, control
):
    channels = write(1, 4)
    relay = processes.relay(failpoint="relay.before_seq_commit:kill")
    assert exit_code(relay) == -signal.SIGKILL
    assert Outbox.objects.count() == 3
    assert not LoggedEvent.objects.exists()
    assert Sequence.objects.get().last_seq == 0
    assert received(control) == []
    processes.publish_rest()
    assert len(check_shown(control, channels)) == len(channels)


def test_f07_killed_after_the_sequencing_commit_the_next_relay_publishes(
    log, processes, control
):
    channels = write(1, 4)
    relay = processes.relay(failpoint="relay.after_seq_commit:kill")
    assert exit_code(relay) == -signal.SIGKILL
    assert not Outbox.objects.exists()
    assert LoggedEvent.objects.count() == len(channels)
    assert received(control) == []
    processes.publish_rest()
    assert len(check_shown(control, channels)) == len(channels)


def test_f08_killed_within_a_batch_the_rest_comes_and_repeats_are_dropped(
    log, processes, control
):
    """The relay dies while its second of several POSTs waits for an answer."""
    note = "n" * 50_000
    for pk in range(1, 61):
        Shipment.objects.create(pk=pk, note=note)
    channels = [name for pk in range(1, 61) for name in ("", f".{pk}")]
    channels = [f"shop.shipment{name}" for name in channels]
    died = threading.Event()

    def kill(connection, post):
        relay.kill()
        died.set()

    control.script.extend([200, kill])
    relay = processes.relay()
    assert died.wait(20)
    accepted = channels_of(received(control))
    assert 0 < len(accepted) < len(channels)
    assert Target.objects.get().published == 0
    processes.publish_rest()
    assert len(check_shown(control, channels)) == len(accepted) + len(channels)


def test_f08_killed_before_a_later_batch_is_offered_that_is_published(
    log, processes, control
):
    channels = write(1, 3)
    relay = processes.relay(failpoint="relay.mid_publish:kill@2")
    until_published(control, len(channels))
    with transaction.atomic():
        channels += write(3, 5)
    assert exit_code(relay) == -signal.SIGKILL
    assert LoggedEvent.objects.count() == len(channels)
    assert len(received(control)) == 4
    processes.publish_rest()
    check_shown(control, channels)


def test_f09_killed_before_the_cursor_moves_the_same_comes_again(
    log, processes, control
):
    channels = write(1, 4)
    relay = processes.relay(failpoint="relay.after_publish:kill")
    assert exit_code(relay) == -signal.SIGKILL
    assert sorted(channels_of(received(control))) == sorted(channels)
    assert Target.objects.get().published == 0
    processes.publish_rest()
    assert len(check_shown(control, channels)) == 2 * len(channels)
    assert Target.objects.get().published == len(channels)


def test_f11_told_to_end_it_finishes_and_another_takes_over_at_once(
    log, processes, control
):
    first = processes.relay()
    channels = write(1, 4)
    until_published(control, len(channels))
    second = processes.relay()
    owner = Sequence.objects.get().lease_owner
    control.gate.clear()
    channels += write(4, 6)
    control.wait(len(control.posts) + 1)
    first.popen.terminate()
    control.gate.set()
    assert exit_code(first) == 0, first.log.read_text()

    def taken_over():
        return Sequence.objects.get().lease_owner not in ("", owner)

    # Much less than the ten seconds of a lease.
    wait_until(taken_over, "the other relay has the lease", timeout=5)
    channels += write(6, 8)
    until_published(control, len(channels))
    check_shown(control, channels)
    assert second.stop() == 0


def test_f11_told_to_end_it_does_not_wait_for_a_proxy_that_does_not_answer(
    log, processes, control
):
    control.gate.clear()
    channels = write(1, 4)
    relay = processes.relay()
    control.wait(1)
    relay.popen.terminate()
    assert exit_code(relay, timeout=4) == 0
    assert Sequence.objects.get().lease_owner == ""
    control.gate.set()
    processes.publish_rest()
    check_shown(control, channels)


def test_f12_another_takes_over_when_the_lease_of_the_dead_runs_out(
    log, processes, control
):
    first = processes.python(RELAY)
    channels = write(1, 4)
    until_published(control, len(channels))
    first.kill()
    assert Sequence.objects.get().lease_owner
    second = processes.python(RELAY)
    channels += write(4, 6)
    until_published(control, len(channels))
    check_shown(control, channels)
    second.stop()


def test_f12_a_relay_that_was_not_released_holds_others_up_no_longer_than_its_lease(
    log,
):
    sequences.state("default")
    dead, living = Lease("default"), Lease("default")
    assert dead.hold()
    assert not living.hold()
    until = F("lease_until") - timedelta(seconds=leases.TTL + 1)
    Sequence.objects.update(lease_until=until)
    assert living.hold()


def halt(process):
    """Stop it where it has no lock: within a transaction it would hold up everybody."""

    def has_no_lock():
        os.kill(process.popen.pid, signal.SIGSTOP)
        try:
            with transaction.atomic():
                if connection.vendor == "sqlite":
                    Sequence.objects.update(seen_at=None)
                else:
                    Sequence.objects.select_for_update(nowait=True).get()
        except OperationalError:
            os.kill(process.popen.pid, signal.SIGCONT)
            return False
        return True

    wait_until(has_no_lock, "it is stopped", timeout=60)


def test_f13_of_two_leaders_the_one_that_slept_doubles_and_loses_nothing(
    log, processes, control
):
    sleeper = processes.python(RELAY)
    channels = write(1, 4)
    until_published(control, len(channels))
    owner = Sequence.objects.get().lease_owner
    halt(sleeper)
    processes.python(RELAY)
    channels += write(4, 6)
    until_published(control, len(channels))
    assert Sequence.objects.get().lease_owner != owner
    os.kill(sleeper.popen.pid, signal.SIGCONT)
    channels += write(6, 30)
    until_published(control, len(channels))
    check_shown(control, channels)
    wait_until(
        lambda: "Another relay" in sleeper.log.read_text(), "the sleeper steps back"
    )


def test_f13_asleep_within_its_publishing_it_repeats_what_another_has_told(
    log, processes, control
):
    """It wakes with a batch in its hands that is told, and newer ones as well."""
    sleeper = processes.relay(
        failpoint="relay.mid_publish:sleep=3@2",
        GRIP_FAILPOINT_LOG=str(processes.journal),
    )
    channels = write(1, 3)
    until_published(control, len(channels))
    channels += write(3, 5)
    wait_until(processes.journal.exists, "the relay sleeps")
    halt(sleeper)
    other = processes.relay(failpoint="relay.lease:skip")
    until_published(control, len(channels))
    channels += write(5, 7)
    until_published(control, len(channels))
    os.kill(sleeper.popen.pid, signal.SIGCONT)
    wait_until(lambda: len(received(control)) > len(channels), "it repeats")
    assert sleeper.popen.poll() is None
    assert other.popen.poll() is None
    check_shown(control, channels)


def test_f14_three_relays_without_a_lease_only_double(log, processes, control):
    for _ in range(3):
        processes.relay(failpoint="relay.lease:skip")
    channels = write(1, 101)
    events = until_published(control, len(channels))
    check_shown(control, channels)
    # They do work beside each other; what they doubled may still be on its way.
    wait_until(lambda: len(received(control)) > len(events) / 2, "events are doubled")
    assert not SetAside.objects.exists()


@pytest.mark.parametrize("hours", [-1, 1])
def test_f34_the_lease_keeps_to_the_clock_of_the_database(log, monkeypatch, hours):
    sequences.state("default")
    first, second = Lease("default"), Lease("default")
    assert first.hold()
    now = timezone.now

    monkeypatch.setattr(timezone, "now", lambda: now() + timedelta(hours=hours))
    assert not second.hold()
    until = F("lease_until") - timedelta(seconds=leases.TTL + 1)
    Sequence.objects.update(lease_until=until)
    assert second.hold()
    first.doubt()
    assert not first.hold()


@pytest.mark.parametrize("hours", [-1, 1])
def test_f34_a_relay_whose_clock_is_wrong_publishes_in_order(
    log, control, monkeypatch, hours
):
    channels = write(1, 3)
    Relay("default").drain()
    now = timezone.now
    monkeypatch.setattr(timezone, "now", lambda: now() + timedelta(hours=hours))
    channels += write(3, 5)
    Relay("default").drain()
    monkeypatch.setattr(timezone, "now", now)
    channels += write(5, 7)
    Relay("default").drain()
    assert len(check_shown(control, channels)) == len(channels)


@pytest.mark.only_on("postgresql", "mysql")
def test_f26_nobody_waits_for_a_transaction_that_holds_an_early_place(log, control):
    """It wrote first and commits last; its row was changed before and is after."""
    Shipment.objects.create(pk=1, note="before")
    wrote, may_commit = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            Shipment.objects.filter(pk=1).update(note="held")
            wrote.set()
            assert may_commit.wait(30)

    with on_thread(hold), relaying(Relay("default")):
        try:
            assert wrote.wait(20)
            early = Outbox.objects.order_by("pk").last()
            for pk in range(2, 12):
                Shipment.objects.create(pk=pk, note="meanwhile")
            events = until_published(control, 22)
            assert early is None or "held" not in early.body
            assert "held" not in {told_note(event) for event in events}
        finally:
            may_commit.set()
        events = until_published(control, 24)
        Shipment.objects.filter(pk=1).update(note="after")
        events = until_published(control, 26)
    notes = [told_note(event) for event in shown(events)["shop.shipment.1"]]
    assert notes == ["before", "held", "after"]
    assert told_note(events[22]) == "held"


def told_note(event):
    return event.envelope["data"]["note"]


def test_f27_writers_that_race_for_rows_are_told_in_the_order_of_their_commits(
    log, processes, control
):
    """Half of the transactions roll back; relays come and go meanwhile."""
    Shipment.objects.bulk_create(
        [Shipment(pk=pk, note="0", status="") for pk in HOT_ROWS]
    )
    writers = [
        processes.python(
            f"from tests.contrib.eventlog.processes import write_hot_rows\n"
            f"write_hot_rows({seed})"
        )
        for seed in range(WRITERS)
    ]
    relay = processes.relay()
    for number, writer in enumerate(writers):
        assert exit_code(writer) == 0, writer.log.read_text()
        if number % 2:
            relay.kill()
            Sequence.objects.update(lease_until=None)
            relay = processes.relay()
    relay.kill()
    processes.publish_rest()

    committed, undone = journal_of(writers)
    rows = LoggedEvent.objects.order_by("seq")
    check_log(rows)
    applied = shown(received(control))
    for pk in HOT_ROWS:
        events = applied[f"shop.shipment.{pk}"]
        versions = [int(event.envelope["data"]["note"]) for event in events]
        names = [event.envelope["data"]["status"] for event in events]
        assert versions == list(range(len(versions)))
        assert versions[-1] == int(Shipment.objects.get(pk=pk).note)
        assert sorted(names[1:]) == sorted(committed[pk])
        assert not undone & set(names)
    assert sum(len(events) for events in applied.values()) == rows.count()


def test_f40_a_record_of_a_newer_version_is_set_aside_and_can_be_tried_again(
    log, control
):
    text = records.dump(Event(channel="lobby", op="said", id="1"))
    newer = text.replace('"v":1', '"v":2')
    assert newer != text
    Outbox.objects.create(transaction=1, body=newer, created_at=timezone.now())
    Tag.objects.create(pk=1, name="a")
    Relay("default").drain()
    assert channels_of(received(control)) == ["shop.tag", "shop.tag.1"]
    aside = SetAside.objects.get()
    assert "version 1; got 2" in aside.reason
    assert (aside.body, aside.transaction) == (newer, 1)

    # The newer code, which understands it.
    Outbox.objects.create(transaction=1, body=text, created_at=timezone.now())
    Relay("default").drain()
    assert channels_of(received(control)) == ["shop.tag", "shop.tag.1", "lobby"]
