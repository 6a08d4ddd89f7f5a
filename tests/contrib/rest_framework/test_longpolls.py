"""Long-polls: what the view's answer asks of the proxy."""

import json

import pytest

from django_grip import GripMiddleware
from django_grip.contrib.eventlog import closing
from django_grip.contrib.realtime.grants import Grant
from django_grip.contrib.realtime.longpolls import polled
from tests.contrib.eventlog.history_fixtures import (
    at,
    instruction,
    nothing_published,  # noqa: F401
    published_until,
    relay,
    seqs,
)
from tests.contrib.eventlog.test_positions import HOSTILE
from tests.shop.models import Order, Tag

pytestmark = pytest.mark.django_db


@pytest.fixture
def tags(log):
    """Three tags: events 1, 3 and 5 of the collection."""
    for name in "abc":
        Tag.objects.create(name=name)
        relay()
    assert seqs() == [1, 3, 5]


def poll(client, path="/tags/stream/", wait="25", since=None, **extra):
    query = {"wait": wait} | ({} if since is None else {"since": since})
    return client.get(path, query, **extra)


def told(response):
    """The body of an answer."""
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "application/json"
    return json.loads(response.content)


def is_held(response):
    return "Grip-Hold" in response


# Without an event log.


def test_without_a_log_the_next_event_is_the_answer(through_proxy):
    response = poll(through_proxy)
    assert told(response) == {"events": []}
    held = instruction(response)
    assert (held.hold, held.channel, held.prev_id) == ("response", "shop.tag", None)
    assert response["Grip-Timeout"] == "25"
    assert (held.link, "Grip-Keep-Alive" in response) == (None, False)
    assert response["Cache-Control"] == "no-store"


def test_without_a_log_a_position_says_nothing(through_proxy):
    assert is_held(poll(through_proxy, since="k.5"))


def test_without_a_log_rows_come_at_once(through_proxy):
    Tag.objects.create(name="a")
    response = through_proxy.get("/tags/stream/?wait=25&snapshot=1")
    [snapshot] = told(response)["events"]
    assert (snapshot["op"], snapshot["done"]) == ("snapshot", True)
    assert [row["name"] for row in snapshot["rows"]] == ["a"]
    assert not is_held(response)


# With the log.


def test_who_has_no_position_is_told_where_it_stands_at_once(through_proxy, tags):
    response = poll(through_proxy)
    assert told(response) == {"events": [], "position": at(5)}
    assert not is_held(response)


def test_what_came_since_is_the_answer_at_once(through_proxy, tags):
    response = poll(through_proxy, since=at(1))
    body = told(response)
    assert [event["seq"] for event in body["events"]] == [3, 5]
    assert body["position"] == at(5)
    assert not is_held(response)


def test_if_nothing_came_it_is_held_behind_the_position(through_proxy, tags):
    response = poll(through_proxy, since=at(5), wait="60")
    assert told(response) == {"events": [], "position": at(5)}
    held = instruction(response)
    assert (held.hold, held.channel, held.prev_id) == ("response", "shop.tag", at(5))
    assert response["Grip-Timeout"] == "60"


def test_a_position_of_the_whole_log_is_held_behind_the_channels_own(
    through_proxy, tags
):
    """It is what a GET of the rows says: see Realtime-Position."""
    response = poll(through_proxy, since=at(6))
    assert told(response) == {"events": [], "position": at(5)}
    assert instruction(response).prev_id == at(5)


def test_without_a_key_nobody_is_asked_to_compare(client, tags, settings):
    settings.GRIP_URL = "http://127.0.0.1:9"
    response = poll(client, since=at(5), HTTP_GRIP_SIG="unsigned")
    held = instruction(response)
    assert (held.hold, held.prev_id) == ("response", None)
    assert told(response)["position"] == at(5)


def test_nobody_is_told_what_is_not_published(through_proxy, tags):
    published_until(3)
    response = poll(through_proxy, since=at(3))
    assert told(response) == {"events": [], "position": at(3)}
    assert instruction(response).prev_id == at(3)


def test_while_events_are_being_published_it_is_not_held_for_long(through_proxy, tags):
    """The proxy may have had them, and this request was read before that was noted."""
    published_until(3)
    assert poll(through_proxy, since=at(3))["Grip-Timeout"] == "5"
    assert not is_held(poll(through_proxy, since=at(3), wait="0"))
    published_until(4)
    assert poll(through_proxy, since=at(3))["Grip-Timeout"] == "5"
    published_until(5)
    assert poll(through_proxy, since=at(5))["Grip-Timeout"] == "25"
    # What is behind on another channel says nothing of this one.
    assert poll(through_proxy, "/orders/stream/", since=at(0))["Grip-Timeout"] == "25"


def test_a_page_at_a_time(through_proxy, tags, monkeypatch):
    monkeypatch.setattr("django_grip.contrib.eventlog.history.PAGE", 2)
    body = told(poll(through_proxy, since=at(0)))
    assert ([event["seq"] for event in body["events"]], body["position"]) == (
        [1, 3],
        at(3),
    )
    body = told(poll(through_proxy, since=body["position"]))
    assert ([event["seq"] for event in body["events"]], body["position"]) == (
        [5],
        at(5),
    )


def test_a_close_that_others_got_moves_the_position_on(through_proxy, tags):
    closing.close("default", ["shop.tag"])
    relay()
    response = poll(through_proxy, since=at(5))
    assert told(response) == {"events": [], "position": at(7)}
    assert instruction(response).prev_id == at(7)


def test_a_page_of_nothing_but_closes_is_not_the_last_one(
    through_proxy, tags, monkeypatch
):
    monkeypatch.setattr("django_grip.contrib.eventlog.history.PAGE", 1)
    closing.close("default", ["shop.tag"])
    Tag.objects.create(name="d")
    relay()
    response = poll(through_proxy, since=at(5))
    assert told(response) == {"events": [], "position": at(7)}
    assert not is_held(response)


def test_rows_come_behind_the_position_that_was_read_before_them(through_proxy, tags):
    response = through_proxy.get("/tags/stream/?wait=25&snapshot=1")
    body = told(response)
    [snapshot] = body["events"]
    assert snapshot["done"] is True
    assert [row["name"] for row in snapshot["rows"]] == ["a", "b", "c"]
    assert body["position"] == at(5)
    assert not is_held(response)
    again = through_proxy.get(f"/tags/stream/?wait=25&snapshot=1&since={at(5)}")
    assert told(again)["events"] == []
    assert is_held(again)


def test_what_is_written_while_the_rows_are_read_comes_afterwards(rf, tags):
    def rows():
        Tag.objects.create(name="d")
        relay()
        return ['{"name":"d"}']

    def get_response(request):
        return polled(request, Grant(channel="shop.tag", snapshot=rows), None, 25)

    body = told(GripMiddleware(get_response)(rf.get("/")))
    assert body["events"][0]["rows"] == [{"name": "d"}]
    assert body["position"] == at(5)


@pytest.mark.parametrize(
    ("since", "reason"), [("another.4", "epoch"), ("nonsense", "bad-id")]
)
def test_who_cannot_be_answered_fetches_anew(through_proxy, tags, since, reason):
    response = poll(through_proxy, since=since)
    assert told(response) == {
        "events": [{"op": "reset", "channel": "shop.tag", "reason": reason}],
        "position": at(5),
    }
    assert not is_held(response)


@pytest.mark.parametrize("since", HOSTILE)
def test_any_position_is_answered(through_proxy, tags, since):
    assert "position" in told(poll(through_proxy, since=since))


# The proxy asks again.


def last(seq, channel="shop.tag"):
    return {"HTTP_GRIP_LAST": f"{channel}; last-id={at(seq)}"}


def test_what_the_proxy_saw_last_wins_over_since(through_proxy, tags):
    response = poll(through_proxy, since=at(1), **last(3))
    assert [event["seq"] for event in told(response)["events"]] == [5]
    assert is_held(poll(through_proxy, since=at(1), **last(5)))


def test_what_the_proxy_saw_has_the_prefix(through_proxy, tags, settings):
    settings.GRIP_PREFIX = "p-"
    response = poll(through_proxy, since=at(1), **last(5, "p-shop.tag"))
    assert instruction(response).channel == "p-shop.tag"
    response = poll(through_proxy, since=at(1), **last(5))
    assert not is_held(response)


@pytest.mark.parametrize("by_proxy", [True, False])
def test_only_what_the_proxy_saw_shows_that_a_backup_was_restored(
    through_proxy, tags, by_proxy
):
    epoch = at(0)
    extra = last(99) if by_proxy else {}
    body = told(poll(through_proxy, since=at(99), **extra))
    assert [event["reason"] for event in body["events"]] == ["future"]
    assert (at(0) != epoch) is by_proxy


def test_what_nobody_signed_is_not_what_the_proxy_saw(client, tags, settings):
    settings.GRIP_URL = "http://127.0.0.1:9"
    response = poll(client, since=at(1), HTTP_GRIP_SIG="unsigned", **last(5))
    assert len(told(response)["events"]) == 2


# How long.


@pytest.mark.parametrize("wait", ["-1", "61", "", "2.5", "1e1", "x", "²", "9" * 5000])
def test_how_long_it_waits_is_said_in_seconds_or_refused(through_proxy, wait):
    response = poll(through_proxy, wait=wait)
    assert response.status_code == 400
    detail = response.json()["detail"]
    assert detail.startswith("wait is a whole number of seconds from 0 to 60; got ")
    assert len(detail) < 100
    assert not is_held(response)


def test_no_time_is_no_hold(through_proxy, tags):
    response = poll(through_proxy, since=at(5), wait="0")
    assert told(response) == {"events": [], "position": at(5)}
    assert not is_held(response)


def test_head_is_not_held(through_proxy, tags):
    response = through_proxy.head(f"/tags/stream/?wait=25&since={at(5)}")
    assert response.status_code == 200
    assert not is_held(response)


# Who may.


def test_the_view_decides_at_each_request(through_proxy):
    order = Order.objects.create()
    path = f"/guarded/{order.pk}/stream/"
    assert is_held(poll(through_proxy, path, HTTP_X_BADGE="yes"))
    assert poll(through_proxy, path).status_code == 403
    assert poll(through_proxy, "/guarded/0/stream/").status_code == 404


def test_a_direct_request_is_not_held(client):
    assert poll(client).status_code == 501


def held_channels(request, user, since=None):
    """The channels on which a private poll of this user is held."""

    def get_response(request):
        grant = Grant(channel="shop.tag", link="private", user=user)
        return polled(request, grant, since, 25)

    GripMiddleware(get_response)(request)
    channels = request.grip.instruct.channels
    return [(channel.name, channel.prev_id) for channel in channels]


def test_a_private_poll_is_held_on_its_users_channel_too(rf):
    channels = held_channels(rf.get("/"), 9)
    assert channels == [("shop.tag", None), ("~user.9", None)]
    assert held_channels(rf.get("/"), None) == [("shop.tag", None)]


def test_what_a_user_is_told_at_once_has_no_order(rf, tags):
    channels = held_channels(rf.get("/"), 9, at(5))
    assert channels == [("shop.tag", at(5)), ("~user.9", None)]
