"""The socket that multiplexes: what is granted, told, limited and kept."""

import json
import logging
import re
from itertools import count
from pathlib import Path

import hypothesis
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from django_grip.contrib.eventlog import closing, sequences
from django_grip.contrib.eventlog.models import Held, LoggedEvent, Sequence
from django_grip.contrib.realtime.tellings import ASK_AGAIN
from django_grip.contrib.rest_framework import RealtimeSocket, connections, sockets
from django_grip.contrib.rest_framework.messages import ANSWER_BYTES, OBJECT_MAX
from django_grip.contrib.rest_framework.seals import seal, unseal
from django_grip.test import AsyncGripClient
from django_grip.websocket_events import decode
from tests.contrib.eventlog.history_fixtures import (
    Reads,
    at,
    nothing_published,  # noqa: F401
    publish,
    relay,
)
from tests.contrib.rest_framework.socket_urls import IsAllowed, RowsTags
from tests.contrib.rest_framework.wires import Wire, brief, problem
from tests.shop.models import Line, Order, Tag, Word
from tests.shop.views import ItemViewSet

URLS = "tests.contrib.rest_framework.socket_urls"
pytestmark = [pytest.mark.django_db, pytest.mark.urls(URLS)]

PAGE = Path(__file__).parents[3] / "docs/reference/websocket-protocol.md"
TAGS = "/tags/stream/"
SUBSCRIBE = json.dumps({"type": "subscribe", "id": "a", "url": TAGS})


@pytest.fixture
def wire():
    """An open connection."""
    wire = Wire("/realtime/")
    assert wire.open() == 200
    return wire


def opened(**headers):
    wire = Wire("/realtime/", **headers)
    assert wire.open() == 200
    return wire


def tag(name):
    """A tag that is told."""
    Tag.objects.create(name=name)
    relay()


# Opening.


def test_anybody_may_open_it_and_has_nothing(wire):
    assert (wire.told, wire.channels, wire.closed) == ([], [], None)
    assert "Sec-WebSocket-Protocol" not in wire.response
    assert wire.keep_alive["content"] == "[]"
    assert wire.keep_alive["timeout"] == 25


def test_what_is_no_websocket_is_told_so(through_proxy):
    for method in ("get", "post", "head", "options"):
        response = getattr(through_proxy, method)("/realtime/")
        assert response.status_code == 426
        assert response["Upgrade"] == "websocket"
    assert b"wss://" in through_proxy.get("/realtime/").content


def test_past_the_proxy_it_is_501(client):
    response = client.get("/realtime/")
    assert response.status_code == 501
    assert b"GRIP proxy" in response.content


def test_s17_events_that_no_proxy_signed_subscribe_nothing():
    wire = Wire("/realtime/", client=Client())
    response = Client().generic(
        "POST", "/realtime/", b"OPEN\r\n", "application/websocket-events"
    )
    assert response.status_code == 501
    assert wire.channels == []


def test_s14_a_foreign_page_with_cookies_is_refused_before_any_subscription():
    wire = Wire(
        "/realtime/", HTTP_COOKIE="sessionid=x", HTTP_ORIGIN="https://evil.example"
    )
    assert wire.open() == 403


def test_login_required_middleware_lets_the_views_decide(settings):
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
        "django_grip.GripMiddleware",
    ]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    assert opened().subscribe(TAGS)[0]["type"] == "subscribed"


def test_it_is_served_under_asgi_as_well():
    @async_to_sync
    async def ask(path, *events, **headers):
        client = AsyncGripClient()
        response = await client.websocket(path, *events, headers=headers)
        return response, [event.content or b"" for event in decode(response.content)]

    open_, subscribe = ("OPEN", None), ("TEXT", SUBSCRIBE)
    response, _ = ask("/realtime/", open_, connection_id="c")
    kept = response["Set-Meta-realtime"]
    _, told = ask("/realtime/", subscribe, connection_id="c", meta_realtime=kept)
    assert b'c:{"type": "subscribe", "channel": "shop.tag"}' in told
    _, told = ask(TAGS, open_, connection_id="c")
    assert b'c:{"type": "subscribe", "channel": "shop.tag"}' in told


# Subscribing.


def test_a_stream_is_subscribed_to_by_its_url(wire):
    assert wire.subscribe(TAGS) == [
        {"type": "subscribed", "id": "a", "channel": "shop.tag", "gapless": False}
    ]
    assert wire.channels == ["shop.tag"]
    assert wire.interval == 20


def test_each_subscription_is_of_its_own(wire):
    order = Order.objects.create()
    wire.send(
        {"type": "subscribe", "id": "a", "url": TAGS},
        {"type": "subscribe", "id": "b", "url": f"/orders/{order.pk}/stream/"},
        {"type": "subscribe", "id": "c", "url": "/nowhere/"},
    )
    assert wire.channels == ["shop.tag", f"shop.order.{order.pk}"]
    assert [each["type"] for each in wire.told] == ["subscribed"] * 2 + ["problem"]
    assert wire.send({"type": "unsubscribe", "id": "a"}) == [
        {"type": "unsubscribed", "id": "a"}
    ]
    assert wire.channels == [f"shop.order.{order.pk}"]
    assert wire.subscribe(TAGS)[0]["id"] == "a"


def test_two_ids_on_one_channel_are_one_subscription_of_the_proxy(wire):
    wire.subscribe(TAGS, id="a")
    assert wire.subscribe(TAGS, id="b")[0]["channel"] == "shop.tag"
    assert wire.channels == ["shop.tag"]
    wire.send({"type": "unsubscribe", "id": "a"})
    assert wire.channels == ["shop.tag"]
    wire.send({"type": "unsubscribe", "id": "b"})
    assert wire.channels == []


CHANNELS = {
    TAGS: "shop.tag",
    "/rows/stream/?snapshot=0": "shop.tag",
    "/lines/stream/": "shop.line",
    "/nowhere/": None,
}
STEPS = st.tuples(
    st.sampled_from(["subscribe", "unsubscribe", "resume", "ping"]),
    st.sampled_from("abc"),
    st.sampled_from(list(CHANNELS)),
)


@given(st.lists(st.lists(STEPS, max_size=4), max_size=6))
@hypothesis.settings(max_examples=40, deadline=None)
def test_the_proxy_has_what_the_client_subscribed_to_and_nothing_else(requests):
    wire, has = opened(), {}
    for steps in requests:
        expected = []
        for kind, id, url in steps:
            channel = CHANNELS[url]
            if kind == "subscribe" and id not in has and channel:
                has[id] = channel
                expected.append("subscribed")
            elif kind == "unsubscribe" and has.pop(id, None):
                expected.append("unsubscribed")
            elif kind == "resume" and id in has:
                expected += [None, "resumed"]  # A reset: there is no event log.
            else:
                expected.append("pong" if kind == "ping" else "problem")
        told = wire.send(
            *(
                {"type": kind, "id": id, "url": url, "since": "e"}
                for kind, id, url in steps
            )
        )
        assert [each.get("type") for each in told] == expected
        assert sorted(wire.channels) == sorted(set(has.values()))
        assert wire.poll() == []


def test_an_id_in_use_is_409(wire):
    wire.subscribe(TAGS)
    reason = "There is a subscription with this id."
    assert wire.subscribe("/lines/stream/") == [problem(409, reason, id="a")]
    assert wire.channels == ["shop.tag"]


def test_what_is_not_subscribed_to_is_404(wire):
    reason = "No subscription has this id."
    assert (
        wire.send(
            {"type": "unsubscribe", "id": "a"},
            {"type": "resume", "id": "a", "since": "e"},
        )
        == [problem(404, reason, id="a")] * 2
    )


def test_a_ping_is_answered_and_asks_no_view(wire, django_assert_num_queries):
    wire.subscribe("/failing/stream/")
    with django_assert_num_queries(0):
        assert wire.send({"type": "ping"}) == [{"type": "pong"}]


@pytest.mark.parametrize(
    "url",
    [
        "/nowhere/",
        "/hold/",
        "/tags/",
        "/tags/1/",
        "/realtime/",
        "/tags/stream",
        "/tags/../tags/stream/",
    ],
)
def test_what_is_no_stream_of_a_view_is_404(wire, url):
    reason = "No stream has this URL."
    assert wire.subscribe(url) == [problem(404, reason, id="a")]
    assert wire.channels == []


def test_s25_refusals_have_the_status_and_the_words_of_get():
    order = Order.objects.create()
    for pk, badge, status in [
        (order.pk, "no", 403),
        (999, "yes", 404),
        (999, "no", 404),
        ("x", "yes", 404),
    ]:
        wire = opened(HTTP_X_BADGE=badge)
        got = wire.client.get(f"/guarded/{pk}/", HTTP_X_BADGE=badge)
        assert got.status_code == status
        assert wire.subscribe(f"/guarded/{pk}/stream/") == [
            problem(status, got.json()["detail"], id="a")
        ]
        assert wire.channels == []
    assert (
        opened(HTTP_X_BADGE="yes").subscribe(f"/guarded/{order.pk}/stream/")[0][
            "channel"
        ]
        == f"shop.order.{order.pk}"
    )


def test_who_is_not_authenticated_gets_401_of_the_view(wire):
    assert brief(wire.subscribe("/personal/stream/")) == [problem(401, id="a")]


def test_a_filter_is_400_as_it_is_for_get(wire):
    found = wire.subscribe("/tags/stream/?name=x")
    assert brief(found) == [problem(400, id="a")]
    assert "name" in found[0]["reason"]


def test_a_path_is_decoded_as_that_of_a_request(wire):
    Word.objects.create(text="a bé")
    assert wire.subscribe("/words/a%20b%C3%A9/stream/")[0]["type"] == "subscribed"
    assert wire.channels == ["shop.word.a%20b%C3%A9"]


def test_s46_a_view_that_fails_is_500_without_its_words(wire, caplog):
    found = wire.subscribe("/failing/stream/?snapshot=abc")
    assert found == [problem(500, "The server failed.", id="a")]
    assert "secret of a view" not in json.dumps(wire.told)
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "/failing/stream/" in record.getMessage()
    assert "abc" not in caplog.text
    assert wire.subscribe(TAGS)[0]["type"] == "subscribed"


def test_a_view_that_answers_something_else_is_no_stream(wire):
    assert brief(wire.subscribe("/other/stream/")) == [problem(500, id="a")]
    assert wire.channels == []


def test_a_refusal_rolls_back_its_own_view_alone(wire, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    wire.send(
        {"type": "subscribe", "id": "a", "url": "/orders/999/stream/"},
        {"type": "subscribe", "id": "b", "url": "/failing/stream/"},
        {"type": "subscribe", "id": "c", "url": f"/tags/{new_tag().pk}/stream/"},
    )
    assert [each.get("status") for each in wire.told] == [404, 500, None]


def new_tag():
    return Tag.objects.create(name="t")


def test_s51_a_subscription_counts_for_the_throttle_of_its_view_and_a_check_does_not(
    wire,
):
    for id in "ab":
        assert wire.subscribe("/throttled/stream/", id=id)[0]["type"] == "subscribed"
    for _ in range(5):
        assert wire.poll() == []
    wire.resume("e.1", id="a")
    found = wire.subscribe("/throttled/stream/", id="c")
    assert brief(found) == [problem(429, id="c")]
    assert "second" in found[0]["reason"]


# Floods.


def test_s52_more_subscriptions_than_fit_are_429(wire):
    for number in range(16):
        assert (
            "channel" in wire.subscribe(f"/tags/{new_tag().pk}/stream/", str(number))[0]
        )
    assert brief(wire.subscribe(TAGS, "more")) == [problem(429, id="more")]
    assert len(wire.channels) == 16
    wire.send({"type": "unsubscribe", "id": "3"})
    assert "channel" in wire.subscribe(TAGS, "more")[0]


def test_s52_channels_of_users_count_for_what_a_proxy_takes(wire):
    for number in range(12):
        name, row = f"user{number}", new_tag()
        User.objects.create_user(name)
        url = f"/personal/{row.pk}/stream/"
        answer = wire.client.post(f"{url}ticket/", HTTP_X_USER=name)
        wire.subscribe(f"{url}?ticket={answer.json()['ticket']}", name)
    statuses = [each.get("status") for each in wire.told]
    assert statuses == [None] * 10 + [429] * 2
    assert len(wire.channels) == 20


def test_s52_what_the_proxy_keeps_stays_small_however_long_the_urls_are(wire):
    Word.objects.create(text="w")
    for number in range(16):
        noise = "".join(chr(97 + (number * i * i) % 26) for i in range(64))
        id = f"{number}-{noise}"[:64]
        text = f"{noise}{number}" * 4
        Word.objects.create(text=text)
        wire.subscribe(f"/words/{text}/stream/", id)
    assert len(wire.meta["realtime"]) <= connections.BYTES_MAX + 200
    kept = {each["id"] for each in wire.told if each["type"] == "subscribed"}
    refused = {each["id"] for each in wire.told if each["type"] == "problem"}
    assert len(kept) == len(wire.channels)
    assert len(kept) + len(refused) == 16


def test_s52_too_many_operations_in_a_request_close_it(wire):
    wire.send(*[{"type": "ping"}] * 101)
    assert len(wire.told) == 100
    assert wire.closed[0] == 1008


def test_s52_too_many_operations_within_a_minute_close_it(wire, monkeypatch):
    now = 1_000_000_020.0
    monkeypatch.setattr(sockets.time, "time", lambda: now)
    for _ in range(4):
        wire.send(*[{"type": "ping"}] * 60)
    assert wire.closed is None
    wire.send({"type": "ping"})
    assert wire.closed[0] == 1008


def test_s52_operations_of_another_minute_do_not_count(wire, monkeypatch):
    minutes = count(30)
    monkeypatch.setattr(sockets.time, "time", lambda: 60 * next(minutes))
    for _ in range(5):
        wire.send(*[{"type": "ping"}] * 99)
    assert wire.closed is None


def test_s22_a_text_above_64_kib_closes_with_1009_and_is_not_parsed(wire):
    wire.send("[" * (64 * 1024 + 1), {"type": "ping"})
    assert (wire.closed[0], wire.told) == (1009, [])


@pytest.mark.parametrize(
    ("event", "code"), [(("TEXT", b"\xff\xfe"), 1007), (("BINARY", b"{}"), 1003)]
)
def test_s22_what_is_no_text_closes_it(wire, event, code):
    wire.ask(event)
    assert wire.closed[0] == code


def test_s22_nonsense_is_a_problem_and_the_rest_goes_on(wire):
    found = wire.send("[" * 60_000, "NaN", '{"type":"x","id":"a"}', {"type": "ping"})
    assert brief(found) == [
        problem(400),
        problem(400),
        problem(400, id="a"),
        {"type": "pong"},
    ]


@pytest.mark.parametrize("content", [None, b"", b"\x03", b"\x03\xe7", b"\x0f\xa0bye"])
def test_s23_a_client_that_closes_is_answered_and_nobody_is_asked(wire, content):
    wire.ask(
        ("TEXT", '{"type":"subscribe","id":"a","url":"/failing/stream/"}'),
        ("CLOSE", content),
    )
    assert wire.told == []
    assert wire.closed[0] in (1000, 1002, 4000)


def test_a_client_that_vanishes_is_not_told_anything(wire):
    wire.ask(("TEXT", '{"type":"ping"}'), ("DISCONNECT", None))
    assert (wire.told, wire.closed) == ([], None)


# What the proxy keeps.


def test_s24_what_the_proxy_keeps_is_of_no_use_on_another_connection(wire):
    wire.subscribe(TAGS)
    other = opened()
    other.meta = dict(wire.meta)
    other.poll()
    assert other.closed[0] == 1012
    assert other.channels == []


@pytest.mark.parametrize("value", ["", "x", "x:y", "e30:abc", "é" * 100])
def test_s24_what_is_forged_or_lost_closes_the_connection(wire, value):
    wire.subscribe(TAGS)
    wire.meta["realtime"] = value
    wire.send({"type": "ping"})
    assert (wire.closed[0], wire.told[1:]) == (1012, [])


def test_s24_a_changed_byte_is_noticed(wire):
    wire.subscribe(TAGS)
    kept = wire.meta["realtime"]
    wire.meta["realtime"] = kept[:10] + ("A" if kept[10] != "A" else "B") + kept[11:]
    wire.poll()
    assert wire.closed[0] == 1012


def place_of(wire):
    return f"{wire.headers['HTTP_CONNECTION_ID']} /realtime/"


@pytest.mark.parametrize("purpose", ["ticket", "private link"])
def test_s13_a_seal_of_another_purpose_is_none(wire, purpose):
    kept = [0, 0, 0, [], []]
    wire.meta["realtime"] = seal(purpose, kept, place_of(wire))
    wire.poll()
    assert wire.closed[0] == 1012


def test_s38_what_speaks_of_the_beginning_is_not_kept(wire):
    wire.subscribe("/tags/stream/?since=e.1&snapshot=1")
    *_, [[_, url, *_]] = unseal("connection", wire.meta["realtime"], place_of(wire))
    assert url == "/tags/stream/"


def test_a_request_that_is_repeated_is_answered_alike(wire):
    """The proxy repeats what may not have arrived."""
    meta = dict(wire.meta)
    first = wire.subscribe(TAGS)
    body = wire.response.content
    wire.meta, wire.channels = meta, []
    assert wire.subscribe(TAGS) == first
    assert wire.response.content == body


# Over time.


@pytest.fixture
def user():
    return User.objects.create_user("ann")


@pytest.fixture
def refused():
    """The names of users that views refuse."""
    yield IsAllowed.refused
    IsAllowed.refused.clear()


def test_an_authenticated_connection_hears_what_is_said_to_its_user(user):
    wire = opened(HTTP_X_USER="ann")
    wire.subscribe("/personal/stream/")
    assert wire.channels == ["shop.tag", f"~user.{user.pk}"]
    wire.subscribe(f"/personal/{new_tag().pk}/stream/", "b")
    wire.send({"type": "unsubscribe", "id": "a"})
    assert f"~user.{user.pk}" in wire.channels
    wire.send({"type": "unsubscribe", "id": "b"})
    assert wire.channels == []


def test_s32_who_is_refused_later_is_told_and_the_last_one_closed(user, refused):
    wire = opened(HTTP_X_USER="ann")
    wire.subscribe("/personal/stream/")
    wire.subscribe(TAGS, "b")
    assert wire.poll() == []
    assert wire.interval == 60
    refused.add("ann")
    assert brief(wire.poll()) == [problem(403, id="a")]
    assert wire.channels == ["shop.tag"]
    assert wire.closed is None

    alone = opened(HTTP_X_USER="bob")
    User.objects.create_user("bob")
    alone.subscribe("/personal/stream/")
    refused.add("bob")
    assert brief(alone.poll()) == [problem(403, id="a")]
    assert alone.closed[0] == 4403


def test_s34_a_resume_is_authorised_before_anything_is_read(log, user, refused):
    wire = opened(HTTP_X_USER="ann")
    [subscribed] = wire.subscribe("/personal/stream/")
    tag("hidden")
    refused.add("ann")
    found = wire.resume(subscribed["position"], id="a")
    assert brief(found) == [problem(403, id="a")]
    assert "hidden" not in json.dumps(wire.told)


def test_s32_a_deleted_row_ends_its_own_subscription(wire):
    row = new_tag()
    wire.subscribe(f"/tags/{row.pk}/stream/")
    wire.subscribe(TAGS, "b")
    row.delete()
    assert brief(wire.poll()) == [problem(404, id="a")]
    assert wire.channels == ["shop.tag"]


def test_s33_a_url_that_is_of_another_channel_by_now_ends_its_subscription(
    wire, monkeypatch
):
    wire.subscribe("/items/stream/")
    wire.subscribe(TAGS, "b")
    assert wire.channels == ["shop.item~as.public", "shop.tag"]
    monkeypatch.setattr(ItemViewSet, "stream_audience", "staff")
    assert brief(wire.poll()) == [problem(409, id="a")]
    assert wire.channels == ["shop.tag"]
    assert wire.subscribe("/items/stream/")[0]["channel"] == "shop.item~as.staff"


@pytest.fixture
def sessions(settings):
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django_grip.GripMiddleware",
    ]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.cache"
    settings.CSRF_TRUSTED_ORIGINS = ["https://shop.example"]


def logged_in(user):
    wire = Wire("/realtime/", HTTP_ORIGIN="https://shop.example")
    wire.client.force_login(user)
    assert wire.open() == 200
    return wire


def log_out(wire, user):
    wire.client.session.flush()


def change_password(wire, user):
    user.password = "another"
    user.save()


def deactivate(wire, user):
    User.objects.filter(pk=user.pk).update(is_active=False)


def delete(wire, user):
    user.delete()


@pytest.mark.parametrize("end", [log_out, change_password, deactivate, delete])
@pytest.mark.parametrize(
    ("url", "code"), [("/session/stream/", 4403), ("/public/stream/", 4401)]
)
def test_s32_whose_session_is_over_is_closed_when_the_proxy_asks(
    sessions, user, end, url, code
):
    wire = logged_in(user)
    assert wire.subscribe(url)[0]["type"] == "subscribed"
    assert wire.channels == ["shop.tag", f"~user.{user.pk}"]
    wire.poll()
    assert wire.closed is None
    end(wire, user)
    wire.poll()
    assert wire.closed[0] == code


def test_s32_a_client_that_pings_is_asked_for_all_the_same(wire, monkeypatch):
    now = 1_000_000_000.0
    monkeypatch.setattr(sockets.time, "time", lambda: now)
    row = new_tag()
    wire.subscribe(f"/tags/{row.pk}/stream/")
    row.delete()
    now += 19
    assert wire.send({"type": "ping"}) == [{"type": "pong"}]
    now += 1
    assert brief(wire.send({"type": "ping"})) == [problem(404, id="a")]
    assert wire.closed[0] == 4404


def test_s32_who_subscribes_again_and_again_does_not_put_it_off(wire, monkeypatch):
    now = 1_000_000_000.0
    monkeypatch.setattr(sockets.time, "time", lambda: now)
    row = new_tag()
    wire.subscribe(f"/tags/{row.pk}/stream/")
    row.delete()
    now += 15
    wire.subscribe(TAGS, "b")
    now += 5
    assert brief(wire.send({"type": "ping"})) == [
        problem(404, id="a"),
        {"type": "pong"},
    ]


# With an event log.


def subscribed(position, id="a"):
    return {
        "type": "subscribed",
        "id": id,
        "channel": "shop.tag",
        "position": position,
        "gapless": True,
    }


def resumed(position, id="a", **more):
    return {"type": "resumed", "id": id, "position": position, **more}


def seqs(objects):
    return [each["seq"] for each in objects if "seq" in each]


@pytest.fixture
def tags(log):
    """Three tags: events 1, 3 and 5 of the collection."""
    for name in "abc":
        tag(name)


def test_a_subscription_begins_at_the_present(wire, tags):
    assert wire.subscribe(TAGS) == [subscribed(at(5))]


def test_a_subscription_with_since_is_told_what_it_missed(wire, tags):
    found = wire.subscribe(TAGS, since=at(1))
    assert found[0] == subscribed(at(1))
    assert seqs(found) == [3, 5]
    assert found[1]["prev"] == 1
    assert found[-1] == resumed(at(5))


@pytest.mark.parametrize(
    ("since", "reason"),
    [
        ("x", "bad-id"),
        ("0.1", "epoch"),
        ("9" * 30, "bad-id"),
        ("1;DROP TABLE", "bad-id"),
    ],
)
def test_s39_a_position_that_is_none_gets_a_reset(wire, tags, since, reason):
    reset = {"op": "reset", "channel": "shop.tag", "reason": reason, "position": at(5)}
    assert wire.subscribe(TAGS, since=since) == [
        subscribed(at(5)),
        reset,
        resumed(at(5)),
    ]
    assert wire.resume(since, id="a") == [reset, resumed(at(5))]


def test_resume_tells_what_came_after_a_position(wire, tags):
    wire.subscribe(TAGS)
    tag("d")
    found = wire.resume(at(5), id="a")
    assert seqs(found) == [7]
    assert found[-1] == resumed(at(7))
    assert wire.resume(at(7), id="a") == [resumed(at(7))]


def test_without_an_event_log_a_resume_is_a_reset(wire):
    wire.subscribe(TAGS)
    assert wire.resume("e.1", id="a") == [
        {"op": "reset", "channel": "shop.tag", "reason": "bad-id"},
        {"type": "resumed", "id": "a"},
    ]


def test_a_poll_repeats_the_newest_event_once(wire, tags):
    wire.subscribe(TAGS)
    assert wire.poll() == []
    tag("d")
    tag("e")
    # Its prev, 7, shows who stands at 5 that one is missing.
    [newest] = wire.poll()
    assert (newest["seq"], newest["prev"]) == (9, 7)
    assert wire.poll() == []


def test_a_poll_tells_nothing_that_the_proxies_do_not_have(wire, tags):
    wire.subscribe(TAGS)
    Tag.objects.create(name="d")
    while sequences.sequence("default"):
        pass
    assert wire.poll() == []
    publish()
    assert seqs(wire.poll()) == [7]


def test_a_poll_repeats_no_close(wire, tags):
    [start] = wire.subscribe(TAGS)
    tag("d")
    closing.close("default", ["shop.tag"])
    relay()
    assert seqs(wire.poll()) == [7]
    # A resume goes past it.
    [event, end] = wire.resume(start["position"], id="a")
    assert event["seq"] == 7
    assert end == resumed(at(9))


def test_a_poll_notes_that_a_channel_is_streamed_still(wire, tags):
    """Its close for its age leaves WebSockets, and has it forgotten."""
    wire.subscribe(TAGS)
    Held.objects.all().delete()
    wire.poll()
    assert [held.channel for held in Held.objects.all()] == ["shop.tag"]


def test_a_poll_finds_that_a_backup_was_restored(wire, tags, caplog):
    wire.subscribe(TAGS)
    LoggedEvent.objects.filter(seq__gt=1).delete()
    Sequence.objects.update(last_seq=1)
    [reset] = wire.poll()
    assert (reset["op"], reset["reason"]) == ("reset", "future")
    assert "was a backup restored" in caplog.text


def test_a_poll_says_where_the_log_is_another(wire, tags):
    wire.subscribe(TAGS)
    Sequence.objects.update(epoch="another")
    [reset] = wire.poll()
    assert (reset["op"], reset["reason"]) == ("reset", "epoch")
    assert wire.poll() == []


def test_a_poll_costs_the_same_however_much_has_come(wire, tags):
    wire.subscribe(TAGS)
    with Reads() as few:
        wire.poll()
    for _ in range(30):
        Tag.objects.create(name="x")
    relay()
    with Reads() as many:
        [newest] = wire.poll()
    assert len(many) == len(few)
    assert newest["prev"] == newest["seq"] - 2
    assert len(wire.response.content) < 1_000


# What is large.


def test_an_event_that_fits_no_message_comes_without_its_data(wire, log, settings):
    settings.GRIP_REALTIME = {"MAX_PAYLOAD": 100_000}
    order = Order.objects.create()
    relay()
    [start] = wire.subscribe("/lines/stream/")
    Line.objects.create(order=order, sku="x" * 40_000)
    relay()
    [event, end] = wire.resume(start["position"], id="a")
    assert event["truncated"] is True
    assert "data" not in event
    assert (event["op"], at(event["seq"])) == ("create", end["position"])


def test_what_does_not_fit_one_answer_is_gone_on_with(wire, log, settings):
    settings.GRIP_REALTIME = {"MAX_PAYLOAD": 100_000}
    order = Order.objects.create()
    relay()
    [start] = wire.subscribe("/lines/stream/")
    for _ in range(40):
        Line.objects.create(order=order, sku="x" * 30_000)
    relay()
    got, position, answers = [], start["position"], 0
    while True:
        *events, end = wire.resume(position, id="a")
        answers += 1
        assert wire.sizes[-1] < 1_000_000
        got += seqs(events)
        position = end["position"]
        if "more" not in end:
            break
    assert answers == 2
    assert len(got) == len(set(got)) == 40
    assert got == sorted(got)


def test_when_nothing_fits_any_more_the_client_goes_on_from_where_it_is(
    wire, tags, monkeypatch
):
    monkeypatch.setattr("django_grip.contrib.rest_framework.messages.ANSWER_BYTES", 10)
    wire.subscribe(TAGS)
    assert wire.resume(at(1), id="a") == [resumed(at(1), more=True)]
    monkeypatch.undo()
    assert seqs(wire.resume(at(1), id="a")) == [3, 5]


def test_a_snapshot_follows_the_position(wire, tags):
    found = wire.subscribe("/rows/stream/")
    assert found[0] == subscribed(at(5))
    assert found[1]["op"] == "snapshot"
    assert [row["name"] for row in found[1]["rows"]] == ["a", "b", "c"]
    assert found[1]["done"] is True
    assert wire.subscribe("/rows/stream/", "b", since=at(5)) == [
        subscribed(at(5), "b"),
        resumed(at(5), "b"),
    ]


def test_a_snapshot_whose_row_fits_no_message_is_a_reset(wire, monkeypatch):
    Tag.objects.create(name="x" * 50)
    monkeypatch.setattr("django_grip.contrib.rest_framework.messages.OBJECT_MAX", 60)
    assert wire.subscribe("/rows/stream/")[1:] == [
        {"op": "reset", "channel": "shop.tag", "reason": "overflow"}
    ]


def test_a_snapshot_with_too_many_rows_is_the_views_refusal(wire, monkeypatch):
    monkeypatch.setattr(RowsTags, "stream_snapshot_limit", 1)
    new_tag()
    new_tag()
    assert brief(wire.subscribe("/rows/stream/")) == [problem(413, id="a")]
    assert wire.channels == []


def test_messages_of_an_answer_are_small(wire, log):
    [start] = wire.subscribe(TAGS)
    for _ in range(200):
        Tag.objects.create(name="x")
    relay()
    found = wire.resume(start["position"], id="a")
    assert len(seqs(found)) == 200
    sizes = [len(event.content) for event in decode(wire.response.content)]
    assert len(sizes) > 1
    assert max(sizes) <= 16_004
    assert sum(sizes) < ANSWER_BYTES


# The words of docs/reference/websocket-protocol.md.


def test_the_page_has_a_url_that_works():
    [snippet] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    namespace = {}
    exec(snippet, namespace)
    [route] = namespace["urlpatterns"]
    assert route.resolve("realtime/").func.view_class is RealtimeSocket


def test_the_page_says_what_the_code_does():
    text = PAGE.read_text()
    assert f"as many as {connections.SUBSCRIPTIONS_MAX}" in text
    assert f"keeps {connections.BYTES_MAX:,} bytes" in text
    assert f"{sockets.OPERATIONS_MAX} operations in one request" in text
    assert f"or {connections.PER_MINUTE} within a minute" in text
    assert f"looks {sockets.FIRST_CHECK} seconds after" in text
    assert f"at most {OBJECT_MAX:,} bytes" in text
    assert f"{ASK_AGAIN} |" in text
