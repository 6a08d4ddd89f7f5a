import json
import logging

import pytest

from django_grip.contrib.localproxy.hub import IDS_MAX, QUEUE_MAX, Hub, Session
from django_grip.contrib.localproxy.instructions import Channel
from django_grip.contrib.localproxy.items import (
    Item,
    ItemError,
    MessageContent,
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


def listen(hub, *channels, content_type=StreamContent, events=None, meta=None):
    """Subscribe to channels, given by name or whole."""
    events = [] if events is None else events
    session = Session(
        [Channel(name=each) if isinstance(each, str) else each for each in channels],
        content_type,
        meta=meta,
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


def after(name, prev_id, *filters):
    return Channel(name=name, prev_id=prev_id, filters=filters)


def test_items_that_follow_on_each_other_are_delivered(hub):
    session = listen(hub, after("a", "0"))
    hub.publish(item("a", b"1", id="1", prev_id="0"))
    hub.publish(item("a", b"2", id="2", prev_id="1"))
    assert taken(session) == [b"1", b"2"]
    assert (session.last_ids, session.stale) == ({"a": "2"}, False)


@pytest.mark.parametrize("fields", [{}, {"id": "9"}, {"id": "9", "prev_id": "8"}])
def test_item_that_does_not_follow_makes_the_session_stale(hub, fields):
    session = listen(hub, after("a", "0"))
    hub.publish(item("a", b"1", id="1", prev_id="0"))
    hub.publish(item("a", b"9", no_seq=True, **fields))
    hub.publish(item("a", b"2", no_seq=True, id="2", prev_id="1"))
    assert taken(session) == [b"1"]
    assert (session.last_ids, session.stale) == ({"a": "1"}, True)
    assert taken(session) == []
    session.drop_waiting()
    hub.publish(item("a", b"2", id="2b", prev_id="1"))
    hub.publish(item("a", b"3", id="3", prev_id="2"))
    hub.release()
    session.offer(item("a", b"3", id="3", prev_id="2"))
    hub.resubscribe(session, [after("a", "2")], {})
    assert (taken(session), session.stale) == ([b"3"], False)


def test_hold_after_an_item_it_does_not_know_is_stale(hub):
    listen(hub, "a")
    hub.publish(item("a", b"1", id="1"))
    late, other = listen(hub, after("a", "0")), listen(hub, after("a", "0"))
    assert (late.take(), late.stale) == ([], True)
    # The last id is in doubt from then on: one of them finds out for all.
    assert (other.take(), other.stale) == ([], False)
    assert not listen(hub, after("a", "1")).stale


def test_early_item_waits_for_the_one_before_it(hub):
    due = []
    hub.on_parked = due.append
    session = listen(hub, "a")
    for number in (4, 7, 6, 5):
        hub.publish(item("a", b"%d" % number, id=f"{number}", prev_id=f"{number - 1}"))
    assert taken(session) == [b"4", b"5", b"6", b"7"]
    assert due[0] == 1005.0


def test_early_item_waits_five_seconds(hub, clock):
    session = listen(hub, "a")
    hub.publish(item("a", b"1", id="1"))
    hub.publish(item("a", b"3", id="3", prev_id="2"))
    hub.publish(item("a", b"4", id="4", prev_id="3"))
    clock.now += 4.9
    hub.release()
    assert taken(session) == [b"1"]
    clock.now += 0.2
    hub.release()
    assert taken(session) == [b"3", b"4"]
    assert hub._sequencer.due() is None


def test_last_id_is_cleared_by_an_item_without_one_and_by_the_last_leave(hub):
    session = listen(hub, "a")
    hub.publish(item("a", b"1", id="1"))
    hub.publish(item("a", b"x"))
    hub.publish(item("a", b"3", id="3", prev_id="2"))
    assert taken(session) == [b"1", b"x", b"3"]
    hub.unsubscribe(session)
    session = listen(hub, "a")
    hub.publish(item("a", b"5", id="5", prev_id="4"))
    assert taken(session) == [b"5"]


def test_first_subscriber_of_a_channel_is_told(hub, clock):
    first = []
    hub.on_first = first.append
    session = listen(hub, "a", "b")
    listen(hub, "b")
    hub.unsubscribe(session)
    listen(hub, "a")
    poll = listen(hub, "p", content_type=ResponseContent)
    hub.unsubscribe(poll)
    clock.now += 59
    poll = listen(hub, "p", content_type=ResponseContent)
    assert first == ["a", "b", "a", "p"]
    hub.unsubscribe(poll)
    clock.now += 61
    listen(hub, "p")
    assert first == ["a", "b", "a", "p", "p"]


def test_refresh_makes_streams_and_polls_stale_and_loses_nothing(hub):
    stream = listen(hub, "a")
    poll = listen(hub, "a", content_type=ResponseContent)
    socket = listen(hub, "a", content_type=MessageContent)
    hub.publish(item("a", b"1"))
    hub.refresh("a")
    assert taken(stream) == [b"1"]
    assert (poll.take(), socket.take()) == ([], [])
    assert [each.stale for each in (stream, poll, socket)] == [True, True, False]


def test_hint_makes_the_session_stale(hub):
    session = listen(hub, "a")
    hub.publish(Item(channel="a", stream=StreamContent(action="hint")))
    assert (taken(session), session.stale) == ([], True)


def test_resubscription_leaves_and_joins_channels(hub):
    session = listen(hub, "a", "b")
    hub.resubscribe(session, [Channel(name="b"), Channel(name="c")], {"user": "x"})
    assert [hub.subscribers(name) for name in "abc"] == [0, 1, 1]
    hub.resubscribe(session, [], {})
    hub.close()
    assert session.ended


@pytest.mark.parametrize(
    ("filter_name", "meta", "passing"),
    [
        ("skip-self", {"sender": "ann"}, False),
        ("skip-self", {"sender": "bob"}, True),
        ("skip-self", {}, True),
        ("skip-users", {"skip_users": "bob, ann"}, False),
        ("skip-users", {"skip_users": "annabel"}, True),
        ("require-sub", {"require_sub": "b"}, False),
        ("require-sub", {"require_sub": "a"}, True),
        ("unknown", {"sender": "ann"}, True),
    ],
)
def test_filters_spare_a_session_items(hub, filter_name, meta, passing):
    session = listen(hub, after("a", "0", filter_name), meta={"user": "ann"})
    hub.publish(item("a", b"1", id="1", prev_id="0", meta=meta))
    assert taken(session) == ([b"1"] if passing else [])
    assert session.last_ids == {"a": "1"}


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


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": "ä"}, MessageContent(content="ä".encode())),
        ({"content-bin": "AP8="}, MessageContent(type="binary", content=b"\x00\xff")),
        ({"type": "ping"}, MessageContent(type="ping")),
        ({"action": "close"}, MessageContent(type="close")),
        (
            {"action": "close", "code": 4001, "reason": "bye"},
            MessageContent(type="close", code=4001, content=b"bye"),
        ),
        ({"action": "hint"}, None),
    ],
)
def test_websocket_messages_are_read(message, content):
    body = {"items": [{"channel": "a", "formats": {"ws-message": message}}]}
    assert parse_items(json.dumps(body).encode())[0].message == content


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
        {**GOOD, "no-seq": 1},
        {"channel": "a", "formats": {"ws-message": {}}},
        {"channel": "a", "formats": {"ws-message": {"action": "refresh"}}},
        {"channel": "a", "formats": {"ws-message": {"content": "x", "type": "odd"}}},
        {"channel": "a", "formats": {"ws-message": {"action": "close", "code": "x"}}},
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
