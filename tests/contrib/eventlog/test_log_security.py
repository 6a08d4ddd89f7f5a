"""Bad input to the log: from clients, from other programs, from other databases."""

import json
import pickle

import pytest
from django.db import connection
from django.utils import timezone

from django_grip.contrib.eventlog import (
    closing,
    courses,
    history,
    links,
    models,
    outbox,
    records,
    relays,
    sequences,
    trimming,
)
from django_grip.contrib.eventlog.models import (
    Head,
    Held,
    LoggedEvent,
    Outbox,
    Sequence,
    SetAside,
)
from django_grip.contrib.realtime import publish_event
from tests.contrib.eventlog.history_fixtures import (
    at,
    frames,
    nothing_published,  # noqa: F401
    reached,
    relay,
    seqs,
)
from tests.shop.models import Tag

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log")]


# S30: names that a database may take for one.


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("room.A", "room.a"),
        ("room.%C3%A9", "room.%C3%89"),
        ("room.%C3%A9", "room.e"),
        ("room.%20", "room."),
        ("room~a.1", "room~A.1"),
        ("room.1", "room.01"),
        ("ROOM", "room"),
    ],
)
def test_s30_channels_that_differ_are_never_one(first, second):
    publish_event(first, "said", "first")
    publish_event(second, "said", "second")
    assert relay() == [1, 2]
    assert list(LoggedEvent.objects.values_list("prev", flat=True)) == [0, 0]
    assert dict(Head.objects.values_list("channel", "seq")) == {first: 1, second: 2}
    for channel, told in ((first, "first"), (second, "second")):
        [event] = history.read(channel, at(0)).events
        assert json.loads(event.text)["data"] == told
    publish_event(first, "said")
    relay()
    assert LoggedEvent.objects.get(seq=3).prev == 1


def test_s30_a_stream_is_noted_for_its_own_channel():
    closing.opened("default", "room.A")
    closing.opened("default", "room.a")
    noted = Held.objects.values_list("channel", flat=True)
    assert sorted(noted) == ["room.A", "room.a"]


@pytest.mark.parametrize("channel", ["room ", " room", "room\t", "room\n", "ro om"])
def test_s30_blanks_are_in_no_channel_whatever_a_database_makes_of_them(channel):
    with pytest.raises(ValueError, match="channel"):
        publish_event(channel, "said")
    write(event(channel=channel))
    assert relay() == []
    assert set_aside() == 1
    assert not LoggedEvent.objects.exists()


# S39 is in test_positions, test_history, test_answers and test_links.

# S55: what is stored is JSON, and only read as such.


def test_s55_what_waits_is_json():
    Tag.objects.create(name="a")
    publish_event("room", "said", {"a": [1, "é"]})
    for body in Outbox.objects.values_list("body", flat=True):
        assert json.loads(body)["v"] == 1


class Evil:
    """Says `pickle.loads` was called."""

    called = False

    def __reduce__(self):
        return (exec, (f"import {__name__} as m; m.Evil.called = True",))


@pytest.mark.parametrize(
    "body",
    [
        pickle.dumps(Evil(), protocol=0).decode("latin-1"),
        "!!python/object/apply:os.system ['true']",
        "__import__('os').system('true')",
        '{"py/object": "os.system"}',
    ],
)
def test_s55_nothing_else_is_ever_loaded(body):
    write(body)
    assert relay() == []
    assert set_aside() == 1
    assert not Evil.called


def test_s55_no_module_of_the_log_imports_another_format():
    for module in (
        *(closing, courses, history, links, models),
        *(outbox, records, relays, sequences, trimming),
    ):
        assert not {"pickle", "marshal", "yaml", "shelve"} & set(vars(module))


# S56: another program writes to the outbox.


def write(body, transaction=7):
    """A row as any program with the database's password may write it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO grip_eventlog_outbox (transaction, body, created_at) "
            "VALUES (%s, %s, %s)".replace(
                "transaction", connection.ops.quote_name("transaction")
            ),
            [
                transaction,
                body if isinstance(body, str) else json.dumps(body),
                connection.ops.adapt_datetimefield_value(timezone.now()),
            ],
        )


def event(**values):
    """A record of an event."""
    return {
        "v": 1,
        "event": {"channel": "room", "op": "said", "id": "x", "values": {}, **values},
    }


def set_aside():
    return SetAside.objects.count()


def test_s56_a_record_as_ours_is_told_as_ours():
    write(event(data='{"by":"hand"}', ts="2026-01-01T00:00:00.000Z"))
    assert relay() == [1]
    [kept] = history.read("room", at(0)).events
    assert json.loads(kept.text) == {
        "id": "x",
        "channel": "room",
        "op": "said",
        "seq": 1,
        "prev": 0,
        "ts": "2026-01-01T00:00:00.000Z",
        "data": {"by": "hand"},
    }


NOT_OURS = [
    "",
    " ",
    "null",
    "5",
    "[]",
    "{}",
    '"text"',
    '{"v": 1}',
    '{"v": 2, "event": {}}',
    '{"v": "1", "event": {}}',
    '{"v": null}',
    '{"v": 1, "event": null}',
    '{"v": 1, "event": []}',
    '{"v": 1, "event": {}}',
    '{"v": 1, "notice": {}}',
    '{"v": 1, "notice": {"topic": 5}}',
    '{"v": 1, "bulk": {"topic": {"label": 5}}}',
    '{"v": 1, "another": {}}',
    "[" * 100_000,
    '{"v": 1, "event": ' + "[" * 100_000,
    "9" * 10_000,
    '{"v": NaN}',
    {**event(), "v": 2},
    {**event(), "v": "1"},
    event(op=5),
    event(op=None),
    event(op="a\nb"),
    event(op="x" * 101),
    event(channel=5),
    event(channel=None),
    event(channel=""),
    event(channel="a;b"),
    event(channel="a,b"),
    event(channel='a"b'),
    event(channel="é"),
    event(channel="\0"),
    event(channel="r" * 192),
    event(channel=["room"]),
    event(origin=5),
    event(origin="a\r\nb"),
    event(origin=["x"]),
    event(values=None),
    event(values=[]),
    event(values=5),
    event(data={"not": "text"}),
    event(data="\0"),
]
"""What may stand in the outbox, and tells nobody anything."""


@pytest.mark.parametrize("body", NOT_OURS, ids=lambda body: str(body)[-40:])
def test_s56_what_is_not_understood_is_set_aside_and_stops_nothing(body):
    publish_event("room", "said")
    write(body)
    publish_event("room", "said")
    relay()
    assert not Outbox.objects.exists()
    assert set_aside() == 1
    row = SetAside.objects.get()
    assert row.body == (body if isinstance(body, str) else json.dumps(body))
    assert row.reason
    assert (seqs("room"), row.transaction) == ([1, 2], 7)


@pytest.mark.parametrize(
    "values",
    [{"seq": 99}, {"prev": 99}, {"channel": "secret"}, {"pk": {"deep": [1]}}],
)
def test_s56_no_record_says_its_own_place(values):
    publish_event("room", "said")
    write(event(values=values))
    relay()
    relay()
    for kept in history.read("room", at(0)).events:
        told = json.loads(kept.text)
        assert told["channel"] == "room"
        assert at(told["seq"]) == kept.position
    state = Sequence.objects.get()
    assert state.last_seq == len(seqs("room"))


def test_s56_epoch_and_sequence_are_nobody_elses_to_change():
    publish_event("room", "said")
    relay()
    before = Sequence.objects.values("epoch", "floor").get()
    for body in NOT_OURS[:20]:
        write(body)
    write({"v": 1, "epoch": "mine", "last_seq": 10**18})
    relay()
    assert Sequence.objects.values("epoch", "floor").get() == before
    assert Sequence.objects.get().last_seq == 1


def test_s56_rows_of_one_transaction_go_although_one_of_them_is_set_aside():
    write(event(id="a"))
    write("nonsense")
    write(event(id="b"))
    assert relay() == [1, 2]
    assert set_aside() == 1


def test_s56_a_foreign_event_cannot_break_out_of_its_frame(through_proxy):
    text = json.dumps("a\n\nevent: forged\ndata: 1\r\rid: 9\u2028")
    write(event(data=text, ts="x\n\nevent: forged"))
    relay()
    response = through_proxy.get("/grip/next/", HTTP_GRIP_LAST=f"room; last-id={at(0)}")
    found = frames(response)
    assert found.names == ["said"]
    assert found.data("said")["data"] == json.loads(text)
    assert found.last_id == at(1)


def test_half_a_surrogate_pair_is_kept_as_a_question_mark():
    write(event(values={"pk": "\ud800"}, label="\udfff"))
    assert relay() == [1]
    [kept] = history.read("room", at(0)).events
    assert json.loads(kept.text)["pk"] == "?"


def test_the_order_of_another_transactions_rows_is_their_own():
    write(event(id="a"), transaction=1)
    write(event(id="b", channel="hall"), transaction=2)
    write(event(id="c"), transaction=1)
    relay()
    assert list(
        LoggedEvent.objects.order_by("seq").values_list("channel", flat=True)
    ) == [
        "hall",
        "room",
        "room",
    ]
    assert reached(history.read("room", at(0))) == ([2, 3], 3)
