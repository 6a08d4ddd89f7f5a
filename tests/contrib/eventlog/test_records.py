"""Records: what goes into the outbox comes out of it."""

import datetime as dt
import json
from dataclasses import fields, is_dataclass, replace
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_grip.contrib.eventlog import records
from django_grip.contrib.realtime.events import (
    BulkNotice,
    Change,
    Event,
    Notice,
    State,
    Topic,
    coalesced,
    json_pk,
)
from django_grip.contrib.realtime.tellings import events

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SETS = st.frozensets(NAMES, max_size=3)
PLACES = st.frozensets(st.tuples(NAMES, NAMES), max_size=3)
PKS = st.one_of(
    st.integers(),
    NAMES,
    st.uuids(),
    st.decimals(allow_nan=False, allow_infinity=False, places=2),
    st.dates(),
    st.tuples(st.integers(), NAMES),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NAMES,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2)
    ),
    max_leaves=4,
)
MOMENTS = st.datetimes(
    min_value=dt.datetime(2026, 1, 1), max_value=dt.datetime(2026, 1, 1, 0, 0, 0, 2000)
)
WATCHED = st.sampled_from(
    [
        JSON,
        MOMENTS,
        MOMENTS.map(lambda moment: moment.time()),
        MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.UTC)),
        st.dates(),
        st.timedeltas(),
        st.uuids(),
        st.floats(allow_nan=False),
        st.decimals(allow_nan=False, places=2),
        st.binary(max_size=3),
        st.binary(max_size=3).map(memoryview),
    ]
)
"""Of each kind of column, the values."""
TOPICS = st.builds(
    Topic,
    label=st.just("shop.order"),
    on=st.none() | st.just("other"),
    audiences=st.just((None,)) | st.just(("public", "staff")),
    events=st.just(("create", "update", "delete")) | st.just(("delete",)),
    watches=st.booleans(),
    watched_sets=SETS,
)


STATES = st.none() | st.builds(
    State, places=PLACES, watched=st.lists(JSON, max_size=2).map(tuple)
)


@st.composite
def notices(draw):
    topic = draw(TOPICS)
    return Notice(
        topic=topic,
        change=Change(
            op=draw(st.sampled_from(["create", "update", "delete"])),
            label=topic.label,
            pk=draw(PKS),
            using=topic.on or "",
            changed=draw(st.none() | SETS),
            origin=draw(st.none() | NAMES),
        ),
        before=draw(STATES),
        after=draw(STATES),
        payloads=dict.fromkeys(topic.audiences, draw(st.none() | JSON.map(json.dumps))),
        truncated=draw(st.frozensets(st.sampled_from(topic.audiences))),
        turn=draw(st.integers(min_value=0)),
        named=draw(SETS),
        always=draw(st.booleans()),
    )


NOTICE = Notice(
    topic=Topic(label="shop.order", on=None, audiences=(None,), events=("create",)),
    change=Change(op="create", label="shop.order", pk=UUID(int=1), using=""),
    before=None,
    after=State(watched=(Decimal("1.00"),)),
    payloads={None: None},
)

BULKS = st.builds(
    BulkNotice,
    op=st.sampled_from(["create", "update", "delete"]),
    topic=TOPICS,
    count=st.integers(min_value=0, max_value=5),
    moves=st.lists(st.tuples(PKS, STATES, STATES), max_size=3),
    places=PLACES,
    changed=st.none() | SETS,
    origin=st.none() | NAMES,
)
EVENTS = st.builds(
    Event,
    channel=NAMES,
    op=NAMES,
    id=NAMES,
    label=st.none() | NAMES,
    ts=NAMES,
    data=st.none() | NAMES,
    origin=st.none() | NAMES,
    values=st.fixed_dictionaries({}, optional={"pk": PKS, "changed": st.lists(NAMES)}),
)


def as_kept(telling):
    """A telling with the keys that JSON leaves of it."""
    if isinstance(telling, Notice):
        return replace(
            telling, change=replace(telling.change, pk=kept_pk(telling.change.pk))
        )
    if isinstance(telling, BulkNotice):
        return replace(
            telling, moves=[(kept_pk(pk), *rest) for pk, *rest in telling.moves]
        )
    values = {
        name: json_pk(value) if name == "pk" else value
        for name, value in telling.values.items()
    }
    return replace(telling, values=values)


def kept_pk(pk):
    return tuple(map(json_pk, pk)) if isinstance(pk, tuple) else json_pk(pk)


def told(telling):
    """What clients get, but for the ids that are made for each telling."""
    return [
        replace(event, id="").envelope(seq=2, prev=1) for event in events(telling, "ts")
    ]


@given(st.one_of(notices(), BULKS, EVENTS))
def test_what_is_written_comes_back(telling):
    text = records.dump(telling)
    assert text.isascii()
    found = records.load(text)
    expected = as_kept(telling)
    assert told(found) == told(expected)
    assert comparable(found) == comparable(expected)


def comparable(value):
    """JSON has lists for tuples, where only their order matters."""
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, dict):
        return {name: comparable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(comparable, value))
    return value


def through_outbox(value):
    """The state of a row with a watched value, as it comes back with a notice."""
    notice = replace(NOTICE, before=State(watched=(value,)))
    return records.load(records.dump(notice)).before


@given(WATCHED.flatmap(lambda values: st.tuples(values, values)))
def test_watched_values_that_differ_still_differ(values):
    first, second = values
    if first != second:
        assert through_outbox(first) != through_outbox(second)


@given(st.lists(notices(), max_size=4))
def test_a_transaction_comes_to_the_same_through_the_outbox(tellings):
    direct = [told(telling) for telling in coalesced(map(as_kept, tellings))]
    through = [records.load(records.dump(telling)) for telling in tellings]
    assert [told(telling) for telling in coalesced(through)] == direct


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "7",
        '"v"',
        "{}",
        '{"v":1}',
        '{"v":1,"telegram":{}}',
        '{"v":1,"notice":{}}',
        '{"v":1,"notice":null}',
        '{"v":1,"bulk":{"topic":{}}}',
        '{"v":1,"event":{"channel":"a"}}',
        "[" * 100_000,
        '{"v":' + "9" * 5_000 + "}",
    ],
)
def test_what_is_no_record_is_refused_with_a_reason(text):
    with pytest.raises(records.BadRecord, match=r"\w"):
        records.load(text)


@given(st.text(max_size=30) | JSON.map(json.dumps))
def test_whatever_is_no_record_is_refused(text):
    with pytest.raises(records.BadRecord):
        records.load(text)


def test_f40_a_record_of_another_version_is_refused():
    text = records.dump(Event(channel="a", op="said", id="1"))
    newer = json.dumps({**json.loads(text), "v": 2})
    with pytest.raises(records.BadRecord, match="version 1; got 2"):
        records.load(newer)


@pytest.mark.parametrize(
    ("kind", "telling"),
    [
        ("notice", NOTICE),
        ("bulk", BulkNotice(op="update", topic=NOTICE.topic, count=1)),
        ("event", Event(channel="a", op="said", id="1")),
    ],
)
def test_f40_a_record_with_something_more_is_read(kind, telling):
    """As the next release may write it, while the relay is still of this one."""
    record = json.loads(records.dump(telling))
    record["sender"] = "new"
    record[kind]["colour"] = "red"
    if "topic" in record[kind]:
        record[kind]["topic"]["colour"] = "red"
    assert told(records.load(json.dumps(record))) == told(as_kept(telling))
