"""The order rule: a row's changes leave in the order in which they were committed."""

from datetime import datetime
from itertools import count

from hypothesis import example, given
from hypothesis import strategies as st

from django_grip.contrib.eventlog.sequencing import Waiting, departing, sequenced
from django_grip.contrib.realtime.events import Event

NOW = datetime(2026, 1, 1)


class Database:
    """Rows with locks, as a database keeps them until the commit.

    A write draws the key of its outbox row after it has got the row's lock.
    """

    def __init__(self):
        self.keys = count(1)
        self.versions = count(1)
        self.locks = {}
        self.open = {}
        self.committed = []

    def write(self, transaction, row):
        """Returns False where a database would have it wait."""
        if self.locks.setdefault(row, transaction) != transaction:
            return False
        body = f"{row} {next(self.versions)}"
        waiting = Waiting(next(self.keys), transaction, body, NOW)
        self.open.setdefault(transaction, []).append(waiting)
        return True

    def end(self, transaction, *, commits):
        rows = self.open.pop(transaction, [])
        if commits:
            self.committed += rows
        self.locks = {
            row: owner for row, owner in self.locks.items() if owner != transaction
        }

    def window(self, size):
        """See sequences._window()."""
        rows = sorted(self.committed)
        window, behind = rows[:size], rows[size:]
        known = {row.transaction for row in window}
        unfinished = known & {row.transaction for row in behind}
        if known and known == unfinished:
            return self.window(size * 4)
        return window, unfinished

    def depart(self, size):
        groups = departing(*self.window(size))
        gone = {row for group in groups for row in group}
        self.committed = [row for row in self.committed if row not in gone]
        return groups


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 2), st.sampled_from("XY")),
        st.tuples(st.just("write"), st.integers(0, 2), st.sampled_from("XY")),
        st.tuples(st.just("commit"), st.integers(0, 2)),
        st.tuples(st.just("roll back"), st.integers(0, 2)),
        st.tuples(st.just("relay"), st.integers(1, 4)),
    ),
    min_size=10,
    max_size=40,
)


@given(STEPS, st.integers(1, 20))
@example(
    steps=[
        ("write", 0, "Y"),
        ("write", 1, "X"),
        ("commit", 1),
        ("write", 0, "X"),
        ("commit", 0),
    ],
    size=20,
)
def test_each_rows_changes_leave_in_their_order_and_none_is_lost(steps, size):
    database = Database()
    # Those who write, and the number of the transaction each has open.
    numbers, current = count(1), {}
    groups, expected = [], set()
    for step, *what in steps:
        if step == "relay":
            groups += database.depart(*what)
            continue
        number = current.setdefault(what[0], next(numbers))
        if step == "write":
            database.write(number, what[1])
            continue
        if step == "commit":
            expected |= set(database.open.get(number, ()))
        database.end(current.pop(what[0]), commits=step == "commit")
    for number in current.values():
        expected |= set(database.open.get(number, ()))
        database.end(number, commits=True)
    while database.committed:
        groups += database.depart(size)
    left = [row for group in groups for row in group]
    assert len(left) == len(set(left))
    assert set(left) == expected
    assert len({group[0].transaction for group in groups}) == len(groups)
    last = {}
    for row in left:
        name, version = row.body.split()
        assert int(version) > last.get(name, 0), f"{name} goes back"
        last[name] = int(version)


def rows(*pairs):
    return [Waiting(id, transaction, "", NOW) for id, transaction in pairs]


def test_a_transaction_leaves_in_one_piece_where_its_last_row_stands():
    window = rows((1, 7), (2, 8), (3, 7), (4, 9))
    groups = departing(window, set())
    assert [[row.id for row in group] for group in groups] == [[2], [1, 3], [4]]


def test_a_transaction_with_rows_behind_the_window_waits():
    window = rows((1, 7), (2, 8), (3, 7))
    assert departing(window, {7}) == [rows((2, 8))]


def test_places_are_without_holes_and_name_the_one_before():
    heads = {"a": 4}
    events = [Event(channel=name, op="said", id=name) for name in "abab"]
    places = list(sequenced(events, 9, heads))
    assert [(place.seq, place.prev) for place in places] == [
        (10, 4),
        (11, 0),
        (12, 10),
        (13, 11),
    ]
    assert heads == {"a": 12, "b": 13}
