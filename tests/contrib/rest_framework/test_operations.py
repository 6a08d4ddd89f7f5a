"""What clients ask of a socket: any text is an operation or a problem."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_grip.contrib.rest_framework.operations import (
    TEXT_MAX,
    Operation,
    Problem,
    is_too_long,
    parse,
)
from tests.contrib.rest_framework.wires import schema

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
KINDS = st.sampled_from(["subscribe", "unsubscribe", "resume", "ping", "resumed", ""])
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "type": KINDS | JSON,
        "id": st.sampled_from(["a", "", "a" * 64, "a" * 65]) | JSON,
        "url": st.sampled_from(["/x/", "//x/", "x", "/" * 2001, "/é/", "/x y"]) | JSON,
        "since": st.sampled_from(["e.1", "", "1" * 1001]) | JSON,
    },
)


def is_valid(value):
    return schema("client").is_valid(value)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_s22_any_text_is_a_problem_or_an_operation(text):
    for is_single in (False, True):
        assert isinstance(parse(text, is_single=is_single), Operation | Problem)


@given(NEARLY)
def test_s22_what_the_schema_refuses_is_a_problem_and_nothing_else_is(value):
    text = json.dumps(value)
    found = parse(text)
    needs_id = value.get("type") == "resume" and "id" not in value
    assert isinstance(found, Operation) == (is_valid(value) and not needs_id), found
    if isinstance(found, Problem):
        assert found.status == 400


@pytest.mark.parametrize(
    "text",
    [
        "[" * 30_000,
        '{"type":' + "[" * 30_000,
        '{"type":"ping","n":NaN}',
        '{"type":"ping","n":-Infinity}',
        '{"type":"ping","n":' + "9" * 5_000 + "}",
        "",
        "null",
        "[]",
        '"ping"',
        '{"type":["ping"]}',
        '{"type":{"ping":1}}',
        '{"type":"subscribe","id":7,"url":"/x/"}',
        '{"type":"subscribe","id":null,"url":"/x/"}',
        '{"type":"subscribe","id":"a","url":"https://evil.example/x/"}',
        '{"type":"subscribe","id":"a","url":"//evil.example/x/"}',
        '{"type":"subscribe","id":"a","url":"/\\u0000/"}',
        '{"type":"subscribe","id":"a","url":"/\\ud800/"}',
        '{"type":"subscribe","id":"a","url":"/x/","since":5}',
        '{"type":"resume","id":"a"}',
    ],
)
def test_s22_what_is_strange_is_a_problem(text):
    assert isinstance(parse(text), Problem)


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ('{"type":"ping","type":"ping","n":1e400}', Operation(kind="ping")),
        (
            '{"type":"subscribe","id":"a","url":"/x/?y=1","later":[{}]}',
            Operation(kind="subscribe", id="a", url="/x/?y=1"),
        ),
        (
            '{"type":"resume","id":"b","id":"a","since":"e.1"}',
            Operation(kind="resume", id="a", since="e.1"),
        ),
        (
            '{"type":"unsubscribe","id":"a"}',
            Operation(kind="unsubscribe", id="a"),
        ),
    ],
)
def test_s22_what_is_double_large_or_new_does_no_harm(text, operation):
    assert parse(text) == operation


def test_the_socket_of_one_stream_knows_no_ids():
    assert parse('{"type":"resume","id":"a","since":"e.1"}', is_single=True) == (
        Operation(kind="resume", since="e.1")
    )
    for kind in ("subscribe", "unsubscribe"):
        text = json.dumps({"type": kind, "id": "a", "url": "/x/"})
        assert parse(text, is_single=True) == Problem(
            status=400, reason='Expected a "type" of resume, ping.'
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * TEXT_MAX, False),
        ("x" * TEXT_MAX + "x", True),
        ("é" * (TEXT_MAX // 2), False),
        ("é" * (TEXT_MAX // 2) + "x", True),
    ],
)
def test_s22_length_is_counted_in_bytes(text, expected):
    assert is_too_long(text) is expected
