"""What databases do to a relay: they go away, keep it waiting, or say nothing."""

import os
import signal
import sqlite3
import tempfile
from contextlib import closing, contextmanager

import psycopg
import pytest
from django.db import connection, transaction
from django.db.backends.signals import connection_created
from processes import (
    Processes,
    check_log,
    exit_code,
    on_thread,
    received,
    relaying,
    shown,
    until_published,
)

from django_grip.contrib.eventlog import relays, sequences, wakeups
from django_grip.contrib.eventlog.models import LoggedEvent, Outbox, Sequence
from django_grip.contrib.eventlog.relays import Relay
from servers import MANAGE, wait_until
from tests import databases
from tests.shop.models import Tag

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def admin():
    """A connection of its own to PostgreSQL, in autocommit."""
    parameters = connection.get_connection_params()
    for name in ("cursor_factory", "context", "prepare_threshold"):
        parameters.pop(name, None)
    with psycopg.connect(**parameters, autocommit=True) as admin:
        yield admin


def backends(admin, name, query="%"):
    rows = admin.execute(
        "SELECT pid FROM pg_stat_activity "
        "WHERE application_name = %s AND query LIKE %s",
        [name, query],
    )
    return [pid for (pid,) in rows]


@contextmanager
def keeping():
    """Keep the lock for which a relay waits when it gives places."""
    if connection.vendor == "sqlite":
        with closing(
            sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
        ) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")
        return
    with transaction.atomic():
        Sequence.objects.select_for_update().get()
        yield


IMPATIENT = {
    "sqlite": "PRAGMA busy_timeout = 0",
    "postgresql": "SET lock_timeout = '50ms'",
    "mysql": "SET innodb_lock_wait_timeout = 1",
}


def test_f28_a_relay_that_gets_no_lock_tries_again(log, control, monkeypatch):
    monkeypatch.setattr(relays, "BACK_OFF", (0.01, 0.05))
    sequences.state("default")
    Tag.objects.create(pk=1, name="a")
    relay = Relay("default")

    def impatient(sender, connection, **kwargs):
        with connection.cursor() as cursor:
            cursor.execute(IMPATIENT[connection.vendor])

    connection_created.connect(impatient)
    try:
        with on_thread(relay.run):
            try:
                with keeping():
                    wait_until(lambda: relay._errors >= 2, "it gets no lock")
                until_published(control, 2)
            finally:
                relay.stop()
    finally:
        connection_created.disconnect(impatient)
    assert len(received(control)) == 2


@pytest.mark.only_on("postgresql")
def test_f23_a_server_that_crashes_and_comes_back_loses_nothing(
    tmp_path, control, monkeypatch
):
    # The server is not root's, as this directory may be.
    monkeypatch.setattr(tempfile, "tempdir", None)
    with databases.server("postgresql") as server:
        processes = Processes(tmp_path, control)
        environment = {**server.environment(), "CHILD_DATABASE": databases.NAME}
        environment["TMPDIR"] = str(tmp_path)
        try:
            migrate = processes.start(
                [*MANAGE, "migrate", "-v0", "--run-syncdb"], **environment
            )
            assert exit_code(migrate) == 0, migrate.log.read_text()
            relay = processes.relay(**environment)
            writers = [
                processes.python(
                    "from tests.contrib.eventlog.processes import write_through\n"
                    f"write_through({start}, 200)",
                    **environment,
                )
                for start in (1, 1001)
            ]
            until_published(control, 20)
            server.kill()
            server.start()
            for writer in writers:
                assert exit_code(writer) == 0, writer.log.read_text()
                assert "failed" in writer.log.read_text()
            with psycopg.connect(
                host="127.0.0.1", port=server.port, user="grip", dbname=databases.NAME
            ) as database:
                rows = database.execute("SELECT id FROM shop_tag").fetchall()
            stored = {pk for (pk,) in rows}
            events = until_published(control, 2 * len(stored))
            assert relay.popen.poll() is None
        finally:
            processes.end()
    journal = {
        int(line.split()[1])
        for writer in writers
        for line in writer.log.read_text().splitlines()
        if line.startswith("committed")
    }
    applied = shown(events)
    told = [event.envelope["pk"] for event in applied["shop.tag"]]
    assert journal <= stored
    assert sorted(told) == sorted(stored)
    for start in (1, 1001):
        mine = [pk for pk in told if start <= pk < start + 1000]
        assert mine == sorted(mine)


@pytest.mark.only_on("postgresql")
def test_f24_a_relay_whose_connection_is_cut_again_and_again_goes_on(
    log, processes, control, admin
):
    relay = processes.relay(PGAPPNAME="a-relay")
    cuts = 0
    for pk in range(1, 101):
        Tag.objects.create(pk=pk, name="a")
        if pk % 20 == 0:
            pids = wait_until(lambda: backends(admin, "a-relay"), "it is connected")
            for pid in pids:
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])
                cuts += 1
    assert cuts >= 5
    until_published(control, 200)
    assert relay.popen.poll() is None
    check_log(LoggedEvent.objects.order_by("seq"))
    applied = shown(received(control))
    assert [event.envelope["pk"] for event in applied["shop.tag"]] == list(
        range(1, 101)
    )
    assert not Outbox.objects.exists()


@pytest.mark.only_on("postgresql")
def test_f25_when_nobody_notifies_the_relay_still_looks(log, processes, control, admin):
    """The server's process behind LISTEN stands still, so its connection is silent."""
    processes.relay(PGAPPNAME="a-relay")
    [listener] = wait_until(
        lambda: backends(admin, "a-relay", "LISTEN%"), "the relay listens"
    )
    os.kill(listener, signal.SIGSTOP)
    try:
        for pk in range(1, 4):
            Tag.objects.create(pk=pk, name="a")
            until_published(control, 2 * pk)
    finally:
        os.kill(listener, signal.SIGCONT)
    assert len(shown(received(control))["shop.tag"]) == 3


@pytest.mark.only_on("postgresql")
def test_f25_a_listener_that_is_cut_listens_again(log, processes, control, admin):
    processes.relay(PGAPPNAME="a-relay")

    def listening():
        return backends(admin, "a-relay", "LISTEN%")

    [first] = wait_until(listening, "the relay listens")
    admin.execute("SELECT pg_terminate_backend(%s)", [first])
    wait_until(lambda: first not in listening() and listening(), "it listens again")
    Tag.objects.create(pk=1, name="a")
    until_published(control, 2)


@pytest.mark.only_on("postgresql")
def test_a_commit_wakes_a_relay_that_sleeps(log, control, admin, monkeypatch, settings):
    """By NOTIFY: without it the relay would look in a minute."""
    settings.GRIP_REALTIME = {"RELAY": "daemon"}
    for name in ("BUSY", "IDLE"):
        monkeypatch.setattr(relays, name, 60.0)
    relay = Relay("default")
    with relaying(relay):
        wait_until(lambda: backends(admin, "", "LISTEN%"), "it listens")
        Tag.objects.create(pk=1, name="a")
        until_published(control, 2)


@pytest.mark.only_on("postgresql")
def test_a_relay_that_lost_the_lease_does_not_wake_itself(
    log, control, admin, settings, monkeypatch
):
    """It listens, and passes on what wakes it: these must not make a circle.

    Not even where the way to the database and back takes longer than APART.
    """
    monkeypatch.setattr(wakeups, "APART", 0.0)
    settings.GRIP_REALTIME = {"RELAY": "daemon"}
    relay = Relay("default")
    with relaying(relay):
        wait_until(lambda: relay._listener, "it leads")
        relay._lease.doubt()
        Sequence.objects.update(lease_owner="another", lease_until="2999-01-01T00:00Z")
        wait_until(lambda: not relay._leads, "it stands by")
        admin.execute(f"LISTEN {wakeups.CHANNEL}")
        wakeups.notify("default")
        heard = list(admin.notifies(timeout=1))
        Sequence.objects.update(lease_until=None)
    assert 1 <= len(heard) <= 5
