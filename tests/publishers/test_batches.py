"""Which waiting items become one, and which never may."""

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_grip.items import Item
from django_grip.publishers.batches import (
    BODY_MAX,
    JOINED_MAX,
    Entry,
    Part,
    grouped,
    joined,
    leading,
    pack,
    post_body,
)

STREAM = "http-stream"
MESSAGE = "ws-message"

CONTENTS = st.builds(
    str.__mul__, st.text("aé€\n\x01", max_size=3), st.sampled_from([1, 1, 9000, 15000])
)
ARRAYS = st.lists(st.sampled_from([1, "a,b", [2], {"k": "]["}]), max_size=3).map(
    json.dumps
)
UNJOINABLE = st.sampled_from(
    [
        {STREAM: {"action": "close"}},
        {STREAM: {"content": "a", "content-filters": ["skip-self"]}},
        {STREAM: {"content-bin": "AA=="}},
        {"http-response": {"body": "a"}},
        {MESSAGE: {"content": "[]", "type": "text"}},
        {MESSAGE: {"content-bin": "AA=="}},
        {STREAM: {"content": "a"}, "http-response": {"body": "a"}},
    ]
)
IDS = st.none() | st.sampled_from("123")


@st.composite
def items(draw):
    events = draw(st.booleans())
    stream = CONTENTS.map(lambda content: {STREAM: {"content": content}})
    # Only the contents of events are arrays.
    messages = (ARRAYS if events else st.text("a[],", max_size=4)).map(
        lambda content: {MESSAGE: {"content": content}}
    )
    both = st.builds(dict.__or__, stream, messages)
    return Item(
        channel=draw(st.sampled_from("ab")),
        formats=draw(stream | stream | messages | both | UNJOINABLE),
        id=draw(IDS),
        prev_id=draw(IDS),
        meta=draw(st.sampled_from([{}, {}, {}, {"k": "v"}])),
        events=events,
    )


def entry(item, alone=False):
    return Entry(item, None, 0, 0.0, alone)


FEW = settings(deadline=None, max_examples=50)
ENTRIES = st.lists(st.builds(entry, items(), st.sampled_from([False] * 9 + [True])))


def of_channels(all_items):
    """The items of each channel, in their order."""
    channels = {}
    for item in all_items:
        channels.setdefault(item.channel, []).append(item)
    return channels


def as_received(all_items):
    """What clients of each format get of the items of one channel, end to end."""
    received = {STREAM: [], MESSAGE: [], "http-response": []}
    for item in all_items:
        for name, fields in item.formats.items():
            got = received[name]
            if set(fields) == {"content"} and name == STREAM:
                if got and isinstance(got[-1], str):
                    got[-1] += fields["content"]
                else:
                    got.append(fields["content"])
            elif set(fields) == {"content"} and item.events:
                got += json.loads(fields["content"])
            else:
                got.append(fields)
    return received


def is_joinable(item):
    kinds = {(name, *fields) for name, fields in item.formats.items()}
    if item.events:
        return kinds <= {(STREAM, "content"), (MESSAGE, "content")}
    return kinds == {(STREAM, "content")}


@FEW
@given(ENTRIES)
def test_every_entry_is_in_one_group_and_channels_keep_their_order(entries):
    flat = [entry for group in grouped(entries) for entry in group]
    assert len(flat) == len(entries)
    for channel in "ab":
        assert [id(e) for e in flat if e.item.channel == channel] == [
            id(e) for e in entries if e.item.channel == channel
        ]


@FEW
@given(ENTRIES)
def test_clients_receive_the_same_joined_or_not(entries):
    before = of_channels(entry.item for entry in entries)
    after = {}
    for group in grouped(entries):
        one = joined([entry.item for entry in group])
        assert one.meta == group[0].item.meta
        after.setdefault(one.channel, []).append(one)
    assert after.keys() == before.keys()
    for channel, before_items in before.items():
        assert as_received(after[channel]) == as_received(before_items)


@FEW
@given(ENTRIES)
def test_only_what_may_be_joined_is(entries):
    for group in grouped(entries):
        if len(group) == 1:
            continue
        assert not any(entry.alone for entry in group)
        assert all(is_joinable(entry.item) for entry in group)
        assert len({entry.item.channel for entry in group}) == 1
        assert len({tuple(entry.item.meta.items()) for entry in group}) == 1
        assert len({tuple(entry.item.formats) for entry in group}) <= 2
        one = joined([entry.item for entry in group])
        assert max(one.sizes()) <= JOINED_MAX


@FEW
@given(ENTRIES)
def test_ids_chain_across_what_is_joined(entries):
    for group in grouped(entries):
        group_items = [entry.item for entry in group]
        one = joined(group_items)
        assert one.id == group_items[-1].id
        assert one.prev_id == group_items[0].prev_id
        for before, after in pairwise(group_items):
            if after.prev_id is not None:
                assert after.prev_id == before.id
            elif not after.events:
                assert before.id is after.id is None


@FEW
@given(ENTRIES)
def test_batches_are_parts_in_order_and_below_the_limit(entries):
    waiting = [pack(group) for group in grouped(entries)]
    expected = list(waiting)
    sent = []
    while waiting:
        batch = leading(waiting, len(waiting))
        assert batch
        body = post_body(batch)
        assert len(body) < 1_000_000
        assert [json.dumps(item) for item in json.loads(body)["items"]] == [
            json.dumps(json.loads(part.body)) for part in batch
        ]
        sent += batch
        waiting = waiting[len(batch) :]
    assert sent == expected


def stream(content, **options):
    return Item(channel="a", formats={STREAM: {"content": content}}, **options)


def contents(*waiting):
    """The contents that leave for items that wait together, item by item."""
    groups = grouped([entry(item) for item in waiting])
    return [
        joined([one.item for one in group]).formats[STREAM]["content"]
        for group in groups
    ]


def test_plain_contents_become_one():
    assert contents(stream("1"), stream("2"), stream("3")) == ["123"]


def test_other_channels_in_between_do_not_hinder():
    other = Item(channel="b", formats={STREAM: {"content": "x"}})
    assert contents(stream("1"), other, stream("2")) == ["12", "x"]


def test_what_cannot_be_joined_parts_what_is_before_it_from_what_is_after_it():
    filtered = Item(
        channel="a",
        formats={STREAM: {"content": "f", "content-filters": ["skip-self"]}},
    )
    assert contents(stream("1"), filtered, stream("2"), stream("3")) == ["1", "f", "23"]


def test_ids_that_chain_become_one():
    chain = [stream(str(n), id=str(n), prev_id=str(n - 1)) for n in range(1, 5)]
    assert contents(*chain) == ["1234"]
    one = joined(chain)
    assert (one.id, one.prev_id) == ("4", "0")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"id": "1"}, {"id": "2"}),
        ({"id": "1"}, {}),
        ({}, {"id": "2"}),
        ({"id": "1"}, {"id": "3", "prev_id": "2"}),
        ({}, {"id": "2", "prev_id": "1"}),
        ({"meta": {"k": "v"}}, {}),
    ],
)
def test_ids_that_do_not_chain_and_other_meta_are_left_alone(before, after):
    assert contents(stream("1", **before), stream("2", **after)) == ["1", "2"]


def test_events_with_ids_of_their_own_become_one():
    one, two = stream("1", id="x", events=True), stream("2", id="y", events=True)
    assert contents(one, two) == ["12"]
    assert joined([one, two]).id == "y"


def message(content, **options):
    return Item(channel="a", formats={MESSAGE: {"content": content}}, **options)


def test_the_arrays_of_events_become_one_array():
    arrays = [message(text, events=True) for text in ('[{"a":1}]', "[]", "[2,3]")]
    (group,) = grouped([entry(item) for item in arrays])
    one = joined([each.item for each in group])
    assert json.loads(one.formats[MESSAGE]["content"]) == [{"a": 1}, 2, 3]


def test_messages_that_are_no_events_stay_messages():
    assert len(grouped([entry(message("[1]")), entry(message("[2]"))])) == 2


def test_joined_content_is_limited_in_bytes_not_in_count():
    many = [stream("x") for _ in range(JOINED_MAX + 1)]
    assert [len(content) for content in contents(*many)] == [JOINED_MAX, 1]
    long = [stream("é" * 100) for _ in range(JOINED_MAX // 200 + 1)]
    assert [len(content) for content in contents(*long)] == [JOINED_MAX // 2, 100]


def test_one_item_object_that_is_published_twice_arrives_twice():
    same = stream("1")
    assert contents(same, same) == ["11"]
    assert contents(same, stream("2"), same) == ["121"]


def test_an_item_over_the_limit_of_joining_leaves_alone():
    waiting = [stream("a"), stream("x" * 100_000), stream("b"), stream("c")]
    assert contents(*waiting) == ["a", "x" * 100_000, "bc"]


def test_who_waits_for_an_item_gets_it_alone():
    waiting = [entry(stream("1")), entry(stream("2"), alone=True), entry(stream("3"))]
    assert [len(group) for group in grouped(waiting)] == [1, 1, 1]


def test_an_item_that_no_proxy_takes_is_refused_with_its_size_and_channel():
    with pytest.raises(
        ValueError, match=r"9\d\d,\d{3} bytes for channel a; .* 900,000"
    ):
        pack([entry(stream("x" * BODY_MAX))])


def test_a_batch_holds_what_fits_and_at_most_what_is_asked():
    parts = [Part(b"x" * 400_000, [], "a") for _ in range(3)]
    assert len(leading(parts, 3)) == 2
    assert len(leading(parts, 1)) == 1
    assert len(leading([Part(b"x" * 950_000, [], "a")], 3)) == 1


def event(number, content=None, **options):
    array = json.dumps([content or {"seq": number}])
    return Item(
        channel="a",
        formats={
            STREAM: {"content": f"data: {number}\n\n"},
            MESSAGE: {"content": array},
        },
        id=f"e.{number}",
        events=True,
        **options,
    )


def long_poll(entries):
    """What answers a long-poll: the JSON of its body, if that is all there is."""
    found = json.loads(pack(entries).body)["formats"]["http-response"]
    assert found.pop("headers") == {"Content-Type": "application/json"}
    assert found.keys() == {"body"}
    return json.loads(found["body"])


def test_long_polls_are_answered_with_all_events_and_the_last_position():
    chain = [event(number, prev_id=f"e.{number - 1}") for number in (5, 6, 7)]
    (group,) = grouped([entry(item) for item in chain])
    assert long_poll(group) == {
        "events": [{"seq": 5}, {"seq": 6}, {"seq": 7}],
        "position": "e.7",
    }
    assert long_poll([entry(chain[0])]) == {"events": [{"seq": 5}], "position": "e.5"}


def test_an_answer_to_long_polls_names_no_position_where_there_is_no_order():
    (group,) = grouped([entry(event(1)), entry(event(2))])
    assert long_poll(group) == {"events": [{"seq": 1}, {"seq": 2}]}


def test_an_answer_to_long_polls_is_made_when_the_item_leaves():
    item = event(1)
    assert item.formats.keys() == {STREAM, MESSAGE}
    assert item.export()["formats"].keys() == {STREAM, MESSAGE, "http-response"}
    assert Item.size(item) == sum(item.sizes()) == len("data: 1\n\n" + '[{"seq": 1}]')


def test_messages_that_are_no_events_do_not_answer_long_polls():
    assert message("[1]").export()["formats"].keys() == {MESSAGE}


def test_joined_events_are_limited_by_what_one_client_gets():
    """A client queues one format; that the item has three says nothing to it."""
    many = [event(number, "x" * 600) for number in range(250)]
    sizes = [max(item.sizes()) for item in many]
    (first, *_) = groups = grouped([entry(item) for item in many])
    assert len(groups) == 2
    assert sum(sizes[: len(first)]) <= JOINED_MAX < sum(sizes[: len(first) + 1])
    # Quotes are doubled in JSON within JSON, and all three have to fit one POST.
    worst = [event(number, prev_id=f"e.{number - 1}") for number in range(1, 20_000)]
    assert all(
        len(pack(group).body) < BODY_MAX / 2 for group in grouped(map(entry, worst))
    )


def test_what_counts_as_messages_is_what_websockets_get():
    """Streams and long-polls are not to wait for what they have no part in."""
    one = event(1, "é" * 100)
    assert pack([entry(one)]).message_size == len('["' + "\\u00e9" * 100 + '"]')
    assert pack([entry(message("é"))]).message_size == 2
    assert pack([entry(stream("x" * 100))]).message_size == 0


def test_an_export_has_no_trace_of_events():
    (part,) = [pack([entry(stream("a", events=True))])]
    assert json.loads(part.body) == {
        "channel": "a",
        "formats": {STREAM: {"content": "a"}},
    }


def test_a_post_has_no_more_messages_for_a_channel_than_its_clients_take_at_once():
    """Pushpin drops the rest of what its buffer of 8,192 bytes cannot hold."""

    def part(channel, size):
        return Part(b"x" * size, [], channel, size)

    small = [part("a", 3_000) for _ in range(4)]
    assert leading(small, 10) == small[:2]
    large = [part("a", 60_000), part("b", 60_000), part("a", 10)]
    assert leading(large, 10) == large[:2]
    streams = [Part(b"x" * 60_000, [], "a") for _ in range(4)]
    assert leading(streams, 10) == streams
