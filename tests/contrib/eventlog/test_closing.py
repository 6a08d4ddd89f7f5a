"""Closing: streams end in time, in the order of events, and never by accident."""

import json
import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_grip.contrib.eventlog import closing, history, sequences
from django_grip.contrib.eventlog.models import Held, LoggedEvent, Outbox
from django_grip.contrib.eventlog.relays import Relay
from django_grip.contrib.realtime import publish_event
from tests.contrib.eventlog.history_fixtures import (
    at,
    frames,
    instruction,
    nothing_published,  # noqa: F401
    reached,
    relay,
    seqs,
)
from tests.shop.models import Tag

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log")]


def held():
    return set(Held.objects.values_list("channel", flat=True))


def due(channel="shop.tag"):
    """Have the streams of a channel be too old."""
    moment = timezone.now() - timedelta(seconds=1)
    assert Held.objects.filter(channel=channel).update(close_at=moment) == 1


def closes(items):
    return [item for item in items if item.formats["http-stream"].get("action")]


# Noted.


def test_a_stream_that_is_opened_is_to_end_within_the_max_age(through_proxy, settings):
    settings.GRIP_REALTIME = {"STREAM_MAX_AGE": 1000}
    before = timezone.now()
    through_proxy.get("/tags/stream/")
    row = Held.objects.get()
    assert row.channel == "shop.tag"
    age = (row.close_at - before).total_seconds()
    assert 750 <= age <= 1001


def test_ends_are_spread():
    for number in range(20):
        closing.opened("default", f"room.{number}")
    ends = Held.objects.values_list("close_at", flat=True)
    assert (max(ends) - min(ends)).total_seconds() > 100


def test_the_first_stream_of_a_channel_says_when_all_of_them_end(through_proxy):
    through_proxy.get("/tags/stream/")
    first = Held.objects.get()
    through_proxy.get("/tags/stream/")
    assert Held.objects.get().close_at == first.close_at


def test_what_is_refused_or_not_held_is_not_noted(through_proxy, client):
    through_proxy.head("/tags/stream/")
    through_proxy.get("/tags/stream/?page=1")
    del client.defaults["HTTP_GRIP_SIG"]
    client.get("/tags/stream/")
    assert held() == set()


def test_a_stream_that_resumes_by_pages_is_noted(through_proxy, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 1)
    for name in "ab":
        Tag.objects.create(name=name)
        relay()
    response = through_proxy.get("/tags/stream/", HTTP_LAST_EVENT_ID=at(0))
    assert instruction(response).hold is None
    assert held() == {"shop.tag"}


# Closed.


def test_nothing_is_closed_before_its_time(through_proxy):
    through_proxy.get("/tags/stream/")
    closing.close_due("default")
    assert not Outbox.objects.exists()
    assert held() == {"shop.tag"}


def test_what_is_due_is_closed_behind_all_that_was_told_before(
    through_proxy, published
):
    through_proxy.get("/tags/stream/")
    Tag.objects.create(name="a")
    relay()
    due()
    closing.close_due("default")
    assert held() == set()
    relay()
    assert [item.channel for item in published if item in closes(published)] == [
        "shop.tag"
    ]
    [close] = closes(published)
    assert (close.id, close.prev_id) == (at(3), at(1))
    assert "content" not in close.formats["http-stream"]
    row = LoggedEvent.objects.get(seq=3)
    assert (row.op, row.prev, row.text) == ("age", 1, "")


def test_for_their_age_http_streams_end_and_websockets_stay(through_proxy, published):
    """WebSockets are asked again at each of their keep-alives."""
    through_proxy.get("/tags/stream/")
    due()
    closing.close_due("default")
    closing.close("default", ["shop.tag"])
    relay()
    aged, closed = published
    answers = [item.formats.pop("http-response")["body"] for item in published]
    assert [json.loads(text) for text in answers] == [
        {"events": [], "position": at(1)},
        {"events": [], "position": at(2)},
    ]
    assert aged.formats == {"http-stream": {"action": "close"}}
    assert closed.formats == {
        "http-stream": {"action": "close"},
        "ws-message": {"action": "close", "code": 4001},
    }


def test_what_comes_after_a_close_follows_it(through_proxy, published):
    through_proxy.get("/tags/stream/")
    due()
    closing.close_due("default")
    Tag.objects.create(name="a")
    relay()
    close, after = (item for item in published if item.channel == "shop.tag")
    assert (close.id, after.prev_id) == (at(1), at(1))


def test_a_relay_closes_what_is_due(through_proxy):
    through_proxy.get("/tags/stream/")
    due()
    Relay("default")._do_chores()
    assert held() == set()
    assert Outbox.objects.count() == 1


@pytest.mark.parametrize("how", ["link", "opening"])
def test_without_a_relay_that_runs_requests_close_what_is_due(
    through_proxy, published, how
):
    position = instruction(through_proxy.get("/tags/stream/")).prev_id
    due()
    if how == "link":
        last = f"shop.tag; last-id={position}"
        through_proxy.get("/grip/next/", HTTP_GRIP_LAST=last)
    else:
        through_proxy.get("/tags/stream/")
    relay()
    assert [item.channel for item in closes(published)] == ["shop.tag"]


def test_many_channels_are_closed_over_several_rounds(monkeypatch):
    monkeypatch.setattr(closing, "_AT_ONCE", 2)
    for number in range(5):
        closing.opened("default", f"room.{number}")
    Held.objects.update(close_at=timezone.now() - timedelta(seconds=1))
    left = []
    for _ in range(3):
        closing.close_due("default")
        left.append(Held.objects.count())
    assert left == [3, 1, 0]
    assert len(relay()) == 5


def test_a_close_that_is_rolled_back_leaves_the_streams_noted(through_proxy):
    through_proxy.get("/tags/stream/")
    due()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        closing.close_due("default")
        raise ZeroDivisionError
    assert held() == {"shop.tag"}
    assert not Outbox.objects.exists()


# Replayed.


@pytest.fixture
def closed():
    """Events 1 and 3 of `room`, and a close between them."""
    publish_event("room", "said")
    relay()
    closing.close("default", ["room"])
    relay()
    publish_event("room", "said")
    relay()
    assert seqs("room") == [1, 2, 3]


def link(client, seq):
    last = f"room; last-id={at(seq)}"
    return client.get("/grip/next/", HTTP_GRIP_LAST=last)


def resumed(client, seq):
    return client.get("/tags/stream/", HTTP_LAST_EVENT_ID=at(seq))


def test_a_close_is_replayed_to_who_comes_back_as_a_comment_that_moves_on(
    through_proxy,
):
    closing.close("default", ["shop.tag"])
    Tag.objects.create()
    relay()
    found = frames(resumed(through_proxy, 0))
    assert (found.comments, found.names) == ([": moved on"], ["ready", "create"])


def test_s34_a_stream_that_has_missed_its_close_is_told_nothing_and_ends(
    through_proxy, published, closed
):
    """Whoever is behind it may have lost the right to what came since."""
    for seq in (0, 1):
        response = link(through_proxy, seq)
        assert (response.status_code, response.content) == (200, b"")
        assert instruction(response).hold is None
    assert len(closes(published)) == 1
    assert instruction(link(through_proxy, 2)).hold == "stream"


def test_s34_a_close_on_a_later_page_ends_it_there(through_proxy, closed, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 1)
    first = link(through_proxy, 0)
    assert frames(first).ids == [at(1)]
    second = through_proxy.get(instruction(first).link)
    assert (second.content, instruction(second).link) == (b"", None)


def test_s34_a_close_between_two_pages_of_who_came_back_ends_it(
    through_proxy, monkeypatch
):
    monkeypatch.setattr(history, "PAGE", 1)
    for _ in range(3):
        Tag.objects.create()
    relay()
    opening = resumed(through_proxy, 0)
    closing.close("default", ["shop.tag"])
    relay()
    path = instruction(opening).link
    second = through_proxy.get(path)
    third = through_proxy.get(instruction(second).link)
    assert (len(frames(second).ids), len(frames(third).ids)) == (1, 1)
    last = through_proxy.get(instruction(third).link)
    assert (last.content, instruction(last).hold) == (b"", None)


def test_a_page_may_end_with_a_close(closed, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    assert reached(history.read("room", at(0))) == ([1, 2], 2)


def test_a_close_counts_as_an_event_that_may_be_missed(closed):
    LoggedEvent.objects.filter(seq=2).delete()
    assert history.read("room", at(1)).reset == "expired"


# A stream never stays unnoted.


def test_a_stream_of_an_emptied_table_is_noted_when_its_proxy_asks(through_proxy):
    position = instruction(through_proxy.get("/tags/stream/")).prev_id
    Held.objects.all().delete()
    through_proxy.get("/grip/next/", HTTP_GRIP_LAST=f"shop.tag; last-id={position}")
    assert held() == {"shop.tag"}


def test_an_opening_that_closes_others_is_noted_itself(through_proxy):
    through_proxy.get("/tags/stream/")
    due()
    through_proxy.get("/tags/stream/")
    assert Held.objects.get().close_at > timezone.now()


# Several at once.


@pytest.mark.only_on("postgresql", "mysql")  # SQLite has one writer.
@pytest.mark.django_db(transaction=True)
def test_two_requests_that_find_a_channel_due_close_it_once():
    """A second close would end the streams of those who just came back."""
    closing.opened("default", "room")
    due("room")
    found, done = threading.Event(), threading.Event()
    errors = []

    def wait_after_the_read(execute, sql, params, many, context):
        result = execute(sql, params, many, context)
        if "close_at" in sql and not found.is_set():
            found.set()
            assert done.wait(20)
        return result

    def late():
        try:
            with connection.execute_wrapper(wait_after_the_read):
                closing.opened("default", "room")
        except Exception as exc:
            errors.append(exc)
        finally:
            found.set()
            connection.close()

    thread = threading.Thread(target=late)
    thread.start()
    try:
        assert found.wait(20)
        closing.opened("default", "room")
    finally:
        done.set()
        thread.join(20)
    assert errors == []
    sequences.sequence("default")
    assert LoggedEvent.objects.filter(op="age").count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_streams_that_open_at_once_are_one_note():
    barrier = threading.Barrier(4)
    errors = []

    def open_one():
        try:
            barrier.wait(20)
            closing.opened("default", "room")
        except Exception as exc:
            errors.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=open_one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []
    assert held() == {"room"}
