"""What the tests of resume share: a log that is published, streams, and their bytes."""

import json
import re
from dataclasses import dataclass, field

import pytest
from django.db import connection

from django_grip.contrib.eventlog import sequences
from django_grip.contrib.eventlog.courses import Course
from django_grip.contrib.eventlog.models import LoggedEvent, Target
from django_grip.contrib.eventlog.positions import Position
from django_grip.publishers import get_publisher, locmem

SERVER = "django_grip.publishers.locmem.Publisher"
"""The one server of the test settings."""


@pytest.fixture(autouse=True)
def nothing_published():
    """Each test begins with an empty wire."""
    locmem.outbox.clear()


def courses():
    """The ways to the servers, from their cursors on."""
    publisher = get_publisher()
    return [
        Course("default", publisher, server, lambda: None)
        for server in publisher.servers
    ]


def relay():
    """Sequence what waits, and publish it; returns the seqs of all of it.

    The connection stays open, which a Relay would close within a test's transaction.
    """
    ways = courses()
    logged = []
    while fresh := sequences.sequence("default"):
        logged += [event.seq for event in fresh]
    publish(ways)
    return logged


def publish(ways=None):
    """Publish what is sequenced, and note it: the relay's second half."""
    state = sequences.state("default")
    for course in courses() if ways is None else ways:
        while course.offer(state.epoch, state.last_seq, ()):
            course.settle()


def published_until(seq, server=SERVER):
    """Have a server's cursor stand at `seq`."""
    Target.objects.update_or_create(server=server, defaults={"published": seq})


def at(seq):
    """The position of an event of the log that is in use."""
    return str(Position(sequences.state("default").epoch, seq))


def last_seq():
    return sequences.state("default").last_seq


def seqs(channel="shop.tag"):
    """The events of a channel that are in the log."""
    log = LoggedEvent.objects.filter(channel=channel).order_by("seq")
    return list(log.values_list("seq", flat=True))


def reached(page):
    """A page in short: the seqs of its events and of its position."""
    return [_seq(event.position) for event in page.events], _seq(page.position)


def _seq(position):
    return int(position.partition(".")[2])


@dataclass
class Frames:
    """An answer as the client and the proxy read it."""

    retry: int | None = None
    comments: list = field(default_factory=list)
    events: list = field(default_factory=list)
    last_id: str | None = None

    @property
    def names(self):
        return [name for name, _, _ in self.events]

    def data(self, name):
        """What the one event of this name says."""
        [found] = [data for event, _, data in self.events if event == name]
        return found

    @property
    def ids(self):
        return [id for _, id, _ in self.events]


def frames(response):
    """Read an answer as the HTML standard has clients read it."""
    assert response.status_code == 200, response.content
    found = Frames()
    text = response.content.decode()
    assert not text or text.endswith("\n\n")
    for block in text.split("\n\n")[:-1]:
        name = id = data = None
        for line in block.split("\n"):
            key, _, value = line.partition(": ")
            if line.startswith(":"):
                found.comments.append(line)
            elif key == "retry":
                found.retry = int(value)
            elif key == "event":
                name = value
            elif key == "id":
                id = found.last_id = value
            else:
                assert key == "data", line
                data = json.loads(value)
        if data is not None:
            found.events.append((name, id, data))
    return found


@dataclass(frozen=True)
class Instruction:
    """What an answer asks of the proxy."""

    hold: str | None
    channel: str | None
    prev_id: str | None
    link: str | None
    timeout: int | None


def instruction(response):
    """The Grip-* headers of an answer, taken apart."""
    channel, _, prev_id = response.get("Grip-Channel", "").partition("; prev-id=")
    link = re.fullmatch(
        r"<([^<>]+)>; rel=next(?:; timeout=(\d+))?", response.get("Grip-Link", "")
    )
    return Instruction(
        hold=response.get("Grip-Hold"),
        channel=channel or None,
        prev_id=prev_id or None,
        link=link and link[1],
        timeout=int(link[2]) if link and link[2] else None,
    )


class Reads:
    """The statements of a block, as they were given to the database."""

    def __init__(self):
        self.statements = []

    def __enter__(self):
        self._wrapper = connection.execute_wrapper(self._note)
        self._wrapper.__enter__()
        return self

    def __exit__(self, *exc_info):
        self._wrapper.__exit__(*exc_info)

    def __len__(self):
        return len(self.statements)

    def _note(self, execute, sql, params, many, context):
        self.statements.append((sql, params))
        return execute(sql, params, many, context)
