import json
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_grip.contrib.realtime import sse
from django_grip.contrib.realtime.events import (
    Change,
    Notice,
    State,
    Step,
    Topic,
    envelope,
    merge,
    steps,
)


def notice(op, changed=None, data="{}"):
    change = Change(
        op=op,
        label="shop.order",
        pk=1,
        using="default",
        changed=None if changed is None else frozenset(changed),
    )
    return Notice(
        topic=Topic("shop.order", None, (None,), ("create", "update", "delete")),
        change=change,
        before=None if op == "create" else State(),
        after=None if op == "delete" else State(),
        payloads={None: data},
    )


@pytest.mark.parametrize(
    ("first", "second", "op"),
    [
        ("create", "update", "create"),
        ("create", "delete", None),
        ("update", "update", "update"),
        ("update", "delete", "delete"),
        ("delete", "delete", "delete"),
        ("delete", "create", "update"),
    ],
)
def test_two_changes_of_a_row_are_one(first, second, op):
    merged = merge(notice(first), notice(second, data='{"last":1}'))
    assert (merged and merged.change.op) == op
    if merged:
        assert merged.payloads == {None: '{"last":1}'}


def test_changed_columns_are_united_and_forgotten_when_one_is_unknown():
    both = merge(notice("update", ["a"]), notice("update", ["b"]))
    assert both.change.changed == {"a", "b"}
    assert merge(notice("update", ["a"]), notice("update")).change.changed is None
    assert merge(notice("create"), notice("update", ["a"])).change.changed is None


def test_envelope_has_the_promised_fields_and_no_nulls():
    text = envelope(
        id="9f",
        channel="shop.order.1",
        op="update",
        label="shop.order",
        pk=1,
        ts="2026-11-20T23:44:51.120Z",
        changed=["a", "b"],
        reason=None,
        data='{"id":1}',
    )
    assert json.loads(text) == {
        "id": "9f",
        "channel": "shop.order.1",
        "op": "update",
        "model": "shop.order",
        "pk": 1,
        "ts": "2026-11-20T23:44:51.120Z",
        "changed": ["a", "b"],
        "data": {"id": 1},
    }


def test_pks_are_json():
    pk = (1, uuid.UUID(int=5))
    text = envelope(id="i", channel="c", op="delete", label="a.b", pk=pk, ts="t")
    assert json.loads(text)["pk"] == [1, "00000000-0000-0000-0000-000000000005"]


SEVEN, EIGHT = ("tenant", "7"), ("tenant", "8")


def state(*places):
    return State(frozenset(places))


@pytest.mark.parametrize(
    ("op", "before", "after", "expected"),
    [
        (
            "create",
            None,
            state(SEVEN),
            [
                Step("collection", "create"),
                Step("object", "create"),
                Step(SEVEN, "create"),
            ],
        ),
        (
            "update",
            state(SEVEN),
            state(SEVEN),
            [
                Step("collection", "update"),
                Step("object", "update"),
                Step(SEVEN, "update"),
            ],
        ),
        (
            "update",
            state(SEVEN),
            state(EIGHT),
            [
                Step("collection", "update"),
                Step("object", "delete", "leave"),
                Step(SEVEN, "delete", "leave"),
                Step(EIGHT, "create", "enter"),
            ],
        ),
        (
            "update",
            state(),
            state(EIGHT),
            [
                Step("collection", "update"),
                Step("object", "update"),
                Step(EIGHT, "create", "enter"),
            ],
        ),
        (
            "update",
            state(SEVEN),
            None,
            [
                Step("collection", "delete", "leave"),
                Step("object", "delete", "leave"),
                Step(SEVEN, "delete", "leave"),
            ],
        ),
        (
            "update",
            None,
            state(SEVEN),
            [
                Step("collection", "create", "enter"),
                Step("object", "create", "enter"),
                Step(SEVEN, "create", "enter"),
            ],
        ),
        (
            "delete",
            state(SEVEN),
            None,
            [
                Step("collection", "delete"),
                Step("object", "delete"),
                Step(SEVEN, "delete"),
            ],
        ),
        ("update", None, None, []),
        ("create", None, None, []),
    ],
)
def test_who_hears_what_of_a_row_that_moves(op, before, after, expected):
    assert list(steps(op, before, after)) == expected


def parse(text):
    """What an EventSource makes of one frame, by the HTML standard."""
    fields = {}
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    return fields["event"][0], "\n".join(fields["data"])


@given(st.text())
def test_s44_a_client_gets_equal_data(data):
    lines = data.replace("\r\n", "\n").replace("\r", "\n")
    assert parse(sse.frame("update", data)) == ("update", lines)


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b"])
def test_s44_names_and_ids_are_one_line(value):
    with pytest.raises(ValueError, match="one line"):
        sse.frame(value, "{}")
    with pytest.raises(ValueError, match="one line"):
        sse.frame("update", "{}", id=value)


def test_frame_with_id():
    assert sse.frame("a", "b", id="1") == "event: a\nid: 1\ndata: b\n\n"
    assert sse.retry(1500) == "retry: 1500\n\n"
