"""A writer that dies, fails or is refused leaves a row with its event, or neither."""

import signal
import sqlite3
import subprocess
import threading

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction
from processes import exit_code, on_thread, received, shown, until_published

from django_grip.contrib.eventlog import sequences
from django_grip.contrib.eventlog.models import Outbox
from tests import databases
from tests.shop.models import Shipment, Tag

pytestmark = pytest.mark.django_db(transaction=True)

KILL_BEFORE_THE_OUTBOX = """
def kill(execute, sql, params, many, context):
    if "grip_eventlog_outbox" in sql:
        os.kill(os.getpid(), 9)
    return execute(sql, params, many, context)

with connection.execute_wrapper(kill):
    Tag.objects.create(name="autocommit")
"""


def test_f01_killed_before_the_commit_neither_row_nor_event_is_there(processes):
    writer = processes.python(
        """
with transaction.atomic():
    Tag.objects.create(name="a")
    Tag.objects.create(name="b")
""",
        failpoint="capture.after_outbox_insert:kill@2",
    )
    assert exit_code(writer) == -signal.SIGKILL
    assert not Tag.objects.exists()
    assert not Outbox.objects.exists()


def test_f02_killed_before_it_wakes_the_relay_its_event_arrives(processes, control):
    """The relay looks by itself."""
    processes.relay()
    writer = processes.python(
        "Tag.objects.create(pk=1, name='a')", failpoint="capture.before_kick:kill"
    )
    assert exit_code(writer) == -signal.SIGKILL
    assert Tag.objects.count() == 1
    events = until_published(control, 2)
    assert [event.channel for event in events] == ["shop.tag", "shop.tag.1"]


@pytest.mark.parametrize(
    ("code", "failpoint", "rows"),
    [
        (KILL_BEFORE_THE_OUTBOX, "", 0),
        ("Tag.objects.create(name='a')", "capture.after_outbox_insert:kill", 0),
        ("Tag.objects.create(name='a')", "capture.before_kick:kill", 1),
    ],
    ids=["between row and outbox", "before the commit", "after the commit"],
)
def test_f05_killed_in_autocommit_there_are_both_or_none(
    processes, code, failpoint, rows
):
    writer = processes.python(code, failpoint=failpoint)
    assert exit_code(writer) == -signal.SIGKILL
    assert Tag.objects.count() == Outbox.objects.count() == rows


@pytest.mark.only_on("postgresql", "mysql")
def test_f28_of_two_writers_in_a_deadlock_one_writes_nothing(log):
    first, second = Shipment.objects.bulk_create([Shipment(pk=1), Shipment(pk=2)])
    Outbox.objects.all().delete()
    both = threading.Barrier(2, timeout=20)
    failed = []

    def write(mine, other):
        try:
            with transaction.atomic():
                Shipment.objects.filter(pk=mine.pk).update(status=f"by {mine.pk}")
                both.wait()
                Shipment.objects.filter(pk=other.pk).update(status=f"by {mine.pk}")
        except OperationalError:
            failed.append(mine.pk)

    with (
        on_thread(lambda: write(first, second)),
        on_thread(lambda: write(second, first)),
    ):
        pass
    [victim] = failed
    winner = 3 - victim
    assert {row.status for row in Shipment.objects.all()} == {f"by {winner}"}
    texts = [row.text for row in sequences.sequence("default")]
    assert len(texts) == 4
    assert all(f"by {winner}" in text for text in texts)


@pytest.mark.only_on("sqlite")
def test_f28_a_writer_that_gets_no_lock_writes_nothing(log):
    Tag.objects.create(name="a")
    Outbox.objects.all().delete()
    busy = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 0")
    try:
        busy.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            Tag.objects.create(name="b")
        busy.execute("ROLLBACK")
    finally:
        busy.close()
        connection.close()
    assert Tag.objects.count() == 1
    assert not Outbox.objects.exists()
    Tag.objects.create(name="b")
    assert Outbox.objects.count() == 1


class Failing:
    """Notes which statement the database refused."""

    sql = ""

    def __call__(self, execute, sql, params, many, context):
        try:
            return execute(sql, params, many, context)
        except DatabaseError:
            self.sql = self.sql or sql
            raise


def fill(write):
    """Write until the disk is full; returns the statement that failed."""
    failing = Failing()
    with connection.execute_wrapper(failing), pytest.raises(DatabaseError):
        for _ in range(2_000):
            write()
    return failing.sql


@pytest.mark.only_on("sqlite")
def test_f29_without_room_for_the_event_the_row_is_not_written(log):
    row = Shipment.objects.create(note="n" * 50_000)
    Outbox.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")
        cursor.execute("PRAGMA page_count")
        [pages] = cursor.fetchone()
        cursor.execute(f"PRAGMA max_page_count = {pages + 10}")
    try:
        sql = fill(lambda: Shipment.objects.filter(pk=row.pk).update(status="sent"))
    finally:
        connection.close()
    assert Outbox._meta.db_table in sql
    assert Shipment.objects.get().status == "open"
    assert not Outbox.objects.exists()
    Shipment.objects.update(status="sent")
    assert Outbox.objects.count() == 1


@pytest.mark.only_on("postgresql")
def test_f29_without_room_for_the_event_the_row_is_not_written_on_postgresql(log):
    """The server's process may write no file further than the outbox's size."""
    table = Outbox._meta.db_table
    with connection.cursor() as cursor:
        # More than the 16 MB of a piece of the server's own log.
        cursor.execute(
            f"INSERT INTO {table} (transaction, body, created_at) "
            "SELECT n, repeat(md5(n::text), 40), now() FROM generate_series(1, 16000) n"
        )
        cursor.execute(f"SELECT pg_relation_size('{table}'), pg_backend_pid()")
        size, backend = cursor.fetchone()
    assert size > 17 * 1024 * 1024
    limit = ["prlimit", f"--pid={backend}", f"--fsize={size}"]
    subprocess.run([*databases.PostgreSQL().as_owner(), *limit], check=True)
    before = Outbox.objects.count()
    written = 0

    def write():
        nonlocal written
        Shipment.objects.create()
        written += 1

    try:
        sql = fill(write)
    finally:
        connection.close()
    assert table in sql
    assert Shipment.objects.count() == written
    assert Outbox.objects.count() == before + written


def test_a_process_that_ends_has_its_own_thread_publish_first(processes, control):
    """RELAY is inline: no relay runs but that of the writer."""
    writer = processes.python(
        "for n in range(5): Tag.objects.create(pk=n + 1, name='a')",
        realtime={"RELAY": "inline"},
    )
    assert exit_code(writer) == 0, writer.log.read_text()
    applied = shown(received(control))
    assert [event.envelope["pk"] for event in applied["shop.tag"]] == [1, 2, 3, 4, 5]
    assert not Outbox.objects.exists()


def test_a_process_killed_before_its_thread_starts_leaves_it_to_the_next(
    processes, control
):
    code = "Tag.objects.create(name='a')"
    killed = processes.python(
        code, failpoint="capture.before_kick:kill", realtime={"RELAY": "inline"}
    )
    assert exit_code(killed) == -signal.SIGKILL
    assert received(control) == []
    following = processes.python(code, realtime={"RELAY": "inline"})
    assert exit_code(following) == 0
    assert len(shown(received(control))["shop.tag"]) == 2


def test_a_forked_writer_has_a_relay_of_its_own(processes, control):
    """As a web server that loads the project and forks its workers.

    It forks when nothing is on its way: within a driver's call another thread may hold
    a lock of the driver, which no child could take.
    """
    writer = processes.python(
        """
import atexit, time
from django_grip.contrib.eventlog import inline
from django_grip.contrib.eventlog.models import Target
Tag.objects.create(name="parent")
while not Target.objects.filter(published=2).exists():
    time.sleep(0.02)
for thread in inline._threads.values():
    thread.stop()
while inline._threads["default"]._relay is not None:
    time.sleep(0.02)
connection.close()
if not (child := os.fork()):
    Tag.objects.create(name="child")
    atexit._run_exitfuncs()
    os._exit(0)
os.waitpid(child, 0)
Tag.objects.create(name="parent")
""",
        realtime={"RELAY": "inline"},
    )
    assert exit_code(writer) == 0, writer.log.read_text()
    assert len(shown(received(control))["shop.tag"]) == 3
