import json
import logging

import pytest

from django_grip.contrib.localproxy.hub import IDS_MAX, QUEUE_MAX, Hub, Session
from django_grip.contrib.localproxy.items import (
    Item,
    ItemError,
    ResponseContent,
    StreamContent,
    parse_items,
)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def hub(clock):
    return Hub(clock)


def listen(hub, *channels, content_type=StreamContent, events=None):
    events = [] if events is None else events
    session = Session(
        channels,
        content_type,
        on_change=lambda: events.append("change"),
        on_overflow=lambda: events.append("overflow"),
    )
    hub.subscribe(session)
    return session


def item(channel, text, **fields):
    return Item(channel=channel, stream=StreamContent(content=text), **fields)


def taken(session):
    return [content.content for content in session.take()]


def test_item_reaches_the_sessions_of_its_channel_in_order(hub):
    one, both, other = listen(hub, "a"), listen(hub, "a", "b"), listen(hub, "c")
    assert hub.publish(item("a", b"1")) == 2
    assert hub.publish(item("b", b"2")) == 1
    assert (taken(one), taken(both), taken(other)) == ([b"1"], [b"1", b"2"], [])
    assert taken(one) == []


def test_unsubscribed_session_gets_nothing_and_leaves_nothing_behind(hub):
    session = listen(hub, "a", "b")
    hub.unsubscribe(session)
    hub.unsubscribe(session)
    assert hub.publish(item("a", b"1")) == 0
    assert taken(session) == []
    assert hub._sessions == {}


def test_session_takes_only_its_own_format(hub):
    poll = listen(hub, "a", content_type=ResponseContent)
    assert hub.publish(item("a", b"1")) == 0
    assert hub.publish(Item(channel="a", response=ResponseContent(body=b"2"))) == 1
    assert [content.body for content in poll.take()] == [b"2"]


def test_overflow_ends_the_slow_session_only(hub, caplog):
    events = []
    slow, quick = listen(hub, "a", "b", events=events), listen(hub, "a")
    for number in range(QUEUE_MAX):
        hub.publish(item("a", b"%d" % number))
        assert taken(quick) == [b"%d" % number]
    assert "overflow" not in events

    with caplog.at_level(logging.WARNING):
        assert hub.publish(item("a", b"one too many")) == 1
    assert events[-1] == "overflow"
    assert slow.ended
    assert slow.take() == []
    assert taken(quick) == [b"one too many"]
    assert hub.subscribers("a") == 1
    assert hub.subscribers("b") == 0
    assert hub.counts.overflows == 1
    assert "reads too slowly" in caplog.text


def test_repeated_id_is_dropped_for_a_minute_per_channel(hub, clock):
    a, b = listen(hub, "a"), listen(hub, "b")
    hub.publish(item("a", b"1", id="7"))
    clock.now += 59.9
    hub.publish(item("a", b"again", id="7"))
    hub.publish(item("b", b"other channel", id="7"))
    assert (taken(a), taken(b)) == ([b"1"], [b"other channel"])
    assert hub.counts.duplicates == 1
    clock.now += 0.2
    hub.publish(item("a", b"later", id="7"))
    assert taken(a) == [b"later"]


def test_id_counts_as_seen_even_if_nobody_was_there(hub):
    hub.publish(item("a", b"1", id="7"))
    session = listen(hub, "a")
    hub.publish(item("a", b"1", id="7"))
    assert taken(session) == []


def test_memory_of_ids_is_bounded(hub, monkeypatch):
    monkeypatch.setattr("django_grip.contrib.localproxy.hub.IDS_MAX", 3)
    for number in range(10):
        hub.publish(item("a", b"", id=str(number)))
    assert len(hub._seen) == 3
    assert IDS_MAX > 1000


def test_hint_is_not_delivered(hub):
    session = listen(hub, "a")
    hub.publish(Item(channel="a", stream=StreamContent(action="hint")))
    assert taken(session) == []


def test_close_ends_every_session_with_or_without_channels(hub):
    sessions = [listen(hub, "a"), listen(hub, "a", "b"), listen(hub)]
    hub.close()
    assert [session.ended for session in sessions] == [True, True, True]


def test_items_are_read_with_their_formats():
    body = b"""{"items": [
        {"channel": "a", "id": "1",
         "formats": {"http-stream": {"content": "x", "content-bin": "AP8="},
                     "http-response": {"code": "201", "headers": {"X-A": "b"},
                                       "body": "y"}}},
        {"channel": "b", "http-stream": {"action": "close"}},
        {"channel": "c", "formats": {"unknown": {}}}]}"""
    first, second, third = parse_items(body)
    assert first.stream == StreamContent(content=b"\x00\xff")
    assert first.response == ResponseContent(
        code=201, headers=(("X-A", "b"),), body=b"y"
    )
    assert second.stream == StreamContent(action="close")
    assert (third.stream, third.response) == (None, None)


GOOD = {"channel": "a", "formats": {"http-stream": {"content": "x"}}}


@pytest.mark.parametrize(
    "item",
    [
        5,
        {"formats": GOOD["formats"]},
        {**GOOD, "channel": 5},
        {**GOOD, "id": None},
        {**GOOD, "id": 5},
        {**GOOD, "prev-id": None},
        {**GOOD, "meta": {"x": 5}},
        {**GOOD, "meta": None},
        {"channel": "a"},
        {"channel": "a", "formats": {}},
        {"channel": "a", "formats": []},
        {"channel": "a", "formats": {"http-stream": "x"}},
        {"channel": "a", "formats": {"http-stream": {}}},
        {"channel": "a", "formats": {"http-stream": {"content": None}}},
        {"channel": "a", "formats": {"http-stream": {"action": "jump"}}},
        {"channel": "a", "formats": {"http-stream": {"content-bin": "%"}}},
        {"channel": "a", "formats": {"http-response": {"code": "x", "body": ""}}},
        {
            "channel": "a",
            "formats": {"http-response": {"headers": {"A": "b\n"}, "body": ""}},
        },
    ],
)
def test_bad_item_spoils_the_batch(item):
    parse_items(json.dumps({"items": [GOOD]}).encode())
    with pytest.raises(ItemError):
        parse_items(json.dumps({"items": [GOOD, item]}).encode())


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b"{}", b'{"items": {}}'])
def test_body_without_items_is_refused(body):
    with pytest.raises(ItemError):
        parse_items(body)
