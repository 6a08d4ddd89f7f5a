"""The figures of the event log."""

from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from django_grip.contrib.eventlog import leases, sequences
from django_grip.contrib.eventlog.models import (
    LoggedEvent,
    Outbox,
    Sequence,
    SetAside,
    Target,
)
from django_grip.contrib.eventlog.relays import Relay
from django_grip.contrib.eventlog.status import counters
from django_grip.publishers import get_publisher
from tests.shop.models import Tag

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def server(published):
    """The one server of these tests."""
    [server] = get_publisher().servers
    return server


def ago(seconds):
    return timezone.now() - timedelta(seconds=seconds)


def test_before_the_first_change_there_is_nothing(server):
    assert counters() == {
        "depth": 0,
        "oldest_age": 0.0,
        "set_aside": 0,
        "last_seq": 0,
        "leader": "",
        "servers": {},
    }
    assert not Sequence.objects.exists()


def test_what_waits_is_counted_until_the_relay_has_it(log, server):
    Tag.objects.create(name="a")
    with transaction.atomic():
        Tag.objects.create(name="b")
        Tag.objects.create(name="c")
    Outbox.objects.filter(pk=Outbox.objects.first().pk).update(created_at=ago(100))
    waiting = counters()
    assert waiting["depth"] == 3
    assert 99 < waiting["oldest_age"] < 200
    Relay("default").drain()
    told = counters()
    assert (told["depth"], told["oldest_age"], told["last_seq"]) == (0, 0.0, 6)
    assert told["servers"] == {
        server: {"published": 6, "lag": 0, "lag_seconds": 0.0, "failing_seconds": 0.0}
    }


def test_the_lag_of_each_server_is_in_events_and_seconds(log, server):
    Tag.objects.create(name="a")
    Relay("default").drain()
    Tag.objects.create(name="b")
    sequences.sequence("default")
    LoggedEvent.objects.filter(seq=3).update(created_at=ago(50))
    Target.objects.update(failing_since=ago(30))
    Target.objects.create(server="http://gone:5561")
    assert counters()["servers"].keys() == {server}
    figures = counters()["servers"][server]
    assert (figures["published"], figures["lag"]) == (2, 2)
    assert 49 < figures["lag_seconds"] < 150
    assert 29 < figures["failing_seconds"] < 130


def test_the_leader_is_who_has_the_lease_and_is_not_gone():
    sequences.state("default")
    lease = leases.Lease("default")
    assert lease.hold()
    assert counters()["leader"] == lease.owner
    Sequence.objects.update(lease_until=ago(1))
    assert counters()["leader"] == ""


def test_what_was_set_aside_is_counted():
    SetAside.objects.create(reason="-", seq=1, created_at=timezone.now())
    assert counters()["set_aside"] == 1
