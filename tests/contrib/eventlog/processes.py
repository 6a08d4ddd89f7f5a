"""What runs beside a test: processes on its database, and a client's view of events."""

import json
import os
import random
import re
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from typing import NamedTuple

from django.db import DatabaseError, connection, connections, transaction

from django_grip.contrib.eventlog.models import Sequence
from tests.servers import MANAGE, ROOT, Process, wait_until

SETUP = """
import os, random, sys, time
import django
django.setup()
from django.db import DatabaseError, connection, transaction
from tests.shop.models import *
"""

RELAY = """
from django.core.management import call_command
from django_grip.contrib.eventlog import leases
leases.TTL, leases.RENEW = 1.0, 0.3
call_command("grip_relay")
"""
"""A relay with a short lease."""


class Processes:
    """Starts processes on the database of the test, and ends them with it."""

    def __init__(self, directory, control):
        self._directory = directory
        self._control = control
        self._running = []
        self.journal = directory / "failpoints"
        """The failpoints that have acted, for GRIP_FAILPOINT_LOG."""

    def start(self, command, *, failpoint="", realtime=None, **environment):
        """Run a command to which the test's database is the default one."""
        database = connection.settings_dict
        number = len(self._running)
        process = Process(
            command,
            self._directory / f"{number}.log",
            {
                "DJANGO_SETTINGS_MODULE": "tests.contrib.eventlog.child_settings",
                "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sample_app'}",
                "TEST_DATABASE": os.environ.get("TEST_DATABASE", ""),
                "CHILD_DATABASE": str(database["NAME"]),
                "CHILD_GRIP_URL": self._control.url,
                "CHILD_GRIP_REALTIME": json.dumps(realtime or {"RELAY": "daemon"}),
                "GRIP_FAILPOINT": failpoint,
                "TMPDIR": tempfile.gettempdir(),
                **environment,
            },
        )
        self._running.append(process)
        return process

    def python(self, code, **options):
        """Run code that has Django and the models of the shop."""
        return self.start([sys.executable, "-c", SETUP + code], **options)

    def relay(self, *arguments, **options):
        """Run `manage.py grip_relay`."""
        return self.start([*MANAGE, "grip_relay", *arguments], **options)

    def publish_rest(self):
        """Have a relay publish what waits, and end; those before it are dead."""
        Sequence.objects.update(lease_until=None)
        process = self.relay("--once")
        assert process.popen.wait(60) == 0, process.log.read_text()

    def end(self):
        for process in self._running:
            process.kill()


def exit_code(process, timeout=60):
    return process.popen.wait(timeout)


class Received(NamedTuple):
    """An event as it arrived at a proxy."""

    seq: int
    prev: int
    channel: str
    id: str
    envelope: dict


def received(control):
    """The events of all items that a control port has accepted, as they came."""
    found = []
    for post in control.accepted:
        for item in post.items:
            fields = item["formats"]["http-stream"]
            for frame in fields.get("content", "").split("\n\n"):
                if frame:
                    [id] = re.findall("^id: (.*)$", frame, re.M)
                    [data] = re.findall("^data: (.*)$", frame, re.M)
                    envelope = json.loads(data)
                    found.append(
                        Received(
                            envelope["seq"],
                            envelope["prev"],
                            envelope["channel"],
                            id,
                            envelope,
                        )
                    )
    return found


def shown(events):
    """What a client that keeps the rule applies, by channel; a gap is an error.

    The rule: drop what is not newer than the last; what is must follow upon it.
    """
    last = defaultdict(int)
    applied = defaultdict(list)
    for event in events:
        if event.seq <= last[event.channel]:
            continue
        assert event.prev == last[event.channel], f"a gap before {event}"
        last[event.channel] = event.seq
        applied[event.channel].append(event)
    return applied


def check_log(rows):
    """Seqs without holes, and each row's `prev` the one before it on its channel."""
    heads = defaultdict(int)
    for seq, row in enumerate(rows, 1):
        assert row.seq == seq
        assert row.prev == heads[row.channel]
        heads[row.channel] = seq


@contextmanager
def on_thread(target):
    """Run `target` beside the block, on connections of its own; its errors are raised.

    The block ends when it has ended.
    """
    errors = []

    def run():
        try:
            target()
        except BaseException as exc:
            errors.append(exc)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(60)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def relaying(relay):
    """Run a relay beside the block, and stop it at its end."""

    @contextmanager
    def running():
        with on_thread(relay.run):
            try:
                yield relay
            finally:
                relay.stop()

    return running()


def until_published(control, count):
    """Wait until `count` different events have arrived, and return all that did."""

    def enough():
        events = received(control)
        return len({event.id for event in events}) >= count and events

    return wait_until(enough, f"{count} events arrive", timeout=30)


WRITERS = 12
HOT_ROWS = (1, 2, 3)


def write_hot_rows(seed, count=20):
    """Raise the versions of a few rows that others write as well, and print what came.

    A transaction changes one or two rows, in the order of their keys, and half of all
    are rolled back.
    """
    from tests.shop.models import Shipment

    dice = random.Random(seed)
    print("seed", seed, flush=True)
    for number in range(count):
        name = f"{seed}-{number}"
        commits = dice.random() < 0.5
        pks = sorted(dice.sample(HOT_ROWS, dice.choice([1, 2])))
        with suppress(Abort), transaction.atomic():
            for pk in pks:
                row = Shipment.objects.select_for_update().get(pk=pk)
                row.note, row.status = str(int(row.note) + 1), name
                row.save()
                time.sleep(dice.uniform(0, 0.003))
            if not commits:
                raise Abort
        print("committed" if commits else "undone", name, *pks, flush=True)
        time.sleep(dice.uniform(0, 0.005))


def write_through(start, count):
    """Write tags one by one, whatever becomes of the database meanwhile."""
    from tests.shop.models import Tag

    for pk in range(start, start + count):
        try:
            Tag.objects.create(pk=pk, name="a")
        except DatabaseError:
            print("failed", pk, flush=True)
            connection.close()
            time.sleep(0.05)
        else:
            print("committed", pk, flush=True)
            time.sleep(0.005)


class Abort(Exception):
    """Rolls back."""


def journal_of(writers):
    """What writers of hot rows have committed, by row, and what they rolled back."""
    committed, undone = defaultdict(list), set()
    for writer in writers:
        for line in writer.log.read_text().splitlines():
            what, name, *pks = line.split()
            if what == "committed":
                for pk in pks:
                    committed[int(pk)].append(name)
            elif what == "undone":
                undone.add(name)
    return committed, undone
