import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_grip.websocket_events import (
    EVENTS_MAX,
    WebSocketEvent,
    close_content,
    decode,
    encode,
    parse_close,
)

MIDDLE = st.builds(
    WebSocketEvent, st.sampled_from(["TEXT", "BINARY"]), st.binary(max_size=50)
) | st.builds(
    WebSocketEvent,
    st.sampled_from(["PING", "PONG", "CLOSE"]),
    st.none() | st.binary(max_size=50),
)


@given(st.booleans(), st.lists(MIDDLE), st.booleans())
def test_events_survive_the_wire(opening, middle, lost):
    events = [WebSocketEvent("OPEN")] * opening + middle
    events += [WebSocketEvent("DISCONNECT")] * lost
    assert decode(encode(events)) == events


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_the_documented_error(body):
    try:
        events = decode(body)
    except ValueError:
        return
    assert decode(encode(events)) == events


PARTS = [b"OPEN", b"TEXT", b" ", b"5", b"-1", b"\r\n", b"hello", b"DISCONNECT", b"ffff"]


@given(st.lists(st.sampled_from(PARTS)).map(b"".join))
def test_near_events_raise_nothing_but_the_documented_error(body):
    with contextlib.suppress(ValueError):
        decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"OPEN",
        b"TEXT 5\r\nhell",
        b"TEXT 5\r\nhello",
        b"TEXT 5\r\nhelloXX",
        b"TEXT -5\r\nhello\r\n",
        b"TEXT ffffffff\r\nhello\r\n",
        b"TEXT fffffffff\r\nhello\r\n",
        b"TEXT 0x5\r\nhello\r\n",
        b"TEXT\r\n",
        b"HELLO\r\n",
        b"text 1\r\na\r\n",
        b"TEXT 1\r\na\r\nOPEN\r\n",
        b"OPEN\r\nOPEN\r\n",
        b"DISCONNECT\r\nTEXT 1\r\na\r\n",
        b"\xff\xfe",
    ],
)
def test_s21_what_is_not_whole_known_and_in_order_is_refused(body):
    with pytest.raises(ValueError, match=r"expected|cut|unknown|without|OPEN|after"):
        decode(body)


def test_s21_a_million_events_are_refused_before_they_are_kept():
    with pytest.raises(ValueError, match=f"more than {EVENTS_MAX} events"):
        decode(b"TEXT 0\r\n\r\n" * 1_000_000)


def test_hex_lengths_may_be_of_either_case():
    body = b"TEXT A\r\n0123456789\r\nTEXT a\r\n0123456789\r\n"
    assert [event.content for event in decode(body)] == [b"0123456789"] * 2


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535])
def test_s23_codes_no_endpoint_may_send_are_refused_and_normalised(code):
    with pytest.raises(ValueError, match="no close code"):
        close_content(code)
    assert parse_close(code.to_bytes(2, "big")) == (1002, "")


def test_s23_close_with_and_without_code_and_reason():
    assert parse_close(close_content(4000, "cya")) == (4000, "cya")
    assert parse_close(None) == parse_close(b"") == parse_close(b"\x0f") == (None, "")
    assert parse_close(b"\x0f\xa0\xff") == (4000, "\ufffd")
    with pytest.raises(ValueError, match="123 bytes"):
        close_content(1000, "é" * 62)
