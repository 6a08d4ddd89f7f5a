"""Positions: what a log gave out is understood, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_grip.contrib.eventlog.positions import Position, new_epoch, parse
from django_grip.headers import channel_header, parse_last

EPOCHS = st.from_regex(r"[0-9a-z]{1,16}", fullmatch=True, alphabet=st.characters())
SEQS = st.integers(0, 10**18 - 1)


@given(EPOCHS, SEQS)
def test_a_position_is_read_as_it_was_written(epoch, seq):
    position = Position(epoch, seq)
    assert parse(str(position)) == position


@given(EPOCHS, SEQS)
def test_a_position_travels_in_the_headers_of_the_proxy(epoch, seq):
    position = str(Position(epoch, seq))
    assert channel_header([("room", position, ())]) == f"room; prev-id={position}"
    assert parse_last(f"room; last-id={position}") == {"room": position}


HOSTILE = [
    "",
    ".",
    "e",
    "e.",
    ".5",
    "e.5.6",
    "e.05",
    "e.+5",
    "e.-5",
    "e.5 ",
    " e.5",
    "e.5\n",
    "e.1e9",
    "e.0x10",
    "e.5_0",
    "e.½",
    "e.\u0665",
    "é.5",
    "E.5",
    "e.5\0",
    "0",
    "5",
    "null",
    "e.1000000000000000000",
    f"e.{10**30}",
    f"{'e' * 17}.5",
    "e" * 10_000,
    f"e.{'9' * 10_000}",
    "e.5' OR '1'='1",
    "e.5; DROP TABLE grip_eventlog_outbox",
    "../../etc/passwd",
    "<script>",
]
"""What a client may say instead of a position."""


@pytest.mark.parametrize("text", HOSTILE)
def test_s39_what_no_log_gave_out_is_no_position(text):
    assert parse(text) is None


@given(st.text())
def test_s39_any_text_is_a_position_or_none(text):
    found = parse(text)
    assert found is None or str(found) == text


@given(st.text())
def test_s39_the_largest_position_is_a_bigint(text):
    found = parse(f"e.{text}")
    assert found is None or 0 <= found.seq < 2**63


def test_epochs_are_new_and_fit_into_a_position():
    epochs = {new_epoch() for _ in range(100)}
    assert len(epochs) == 100
    assert all(re.fullmatch("[0-9a-z]{12}", epoch) for epoch in epochs)
