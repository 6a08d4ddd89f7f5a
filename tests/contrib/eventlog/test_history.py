"""History: what came after a position, or why nobody can say."""

import logging
import re

import pytest
from django.core import signing
from django.db import IntegrityError, connection
from django.utils import timezone

from django_grip.contrib.eventlog import history, sequences, trimming
from django_grip.contrib.eventlog.models import (
    Head,
    LoggedEvent,
    Outbox,
    Sequence,
    Target,
)
from django_grip.contrib.eventlog.relays import Relay
from django_grip.contrib.realtime import publish_event
from tests.contrib.eventlog.history_fixtures import (
    SERVER,
    Reads,
    at,
    nothing_published,  # noqa: F401
    publish,
    published_until,
    reached,
    relay,
    seqs,
)
from tests.contrib.eventlog.test_positions import HOSTILE

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log")]


def tell(*channels, data=None):
    """Events on channels, in the log and published."""
    for channel in channels:
        publish_event(channel, "said", data)
    return relay()


@pytest.fixture
def room():
    """The log with events 1, 3 and 5 of `room`, and 2 and 4 of `hall`."""
    tell("room", "hall", "room", "hall", "room")


# What a position is answered with.


def test_without_a_position_a_stream_begins_at_its_channels_last_event(room):
    assert reached(history.read("room", None)) == ([], 5)
    assert reached(history.read("hall", None)) == ([], 4)


def test_a_channel_that_never_had_an_event_begins_at_zero(room):
    assert reached(history.read("loft", None)) == ([], 0)
    assert reached(history.read("loft", at(5))) == ([], 0)


def test_what_came_after_a_position_is_told_in_order_with_its_own_positions(room):
    page = history.read("room", at(1))
    assert reached(page) == ([3, 5], 5)
    assert (page.reset, page.next_path) == (None, None)
    assert [event.op for event in page.events] == ["said", "said"]
    assert reached(history.read("room", at(0))) == ([1, 3, 5], 5)


def test_a_position_of_another_channel_misses_nothing(room):
    assert reached(history.read("room", at(2))) == ([3, 5], 5)
    assert reached(history.read("room", at(4))) == ([5], 5)


def test_who_is_current_gets_the_position_that_the_next_event_follows(room):
    page = history.read("hall", at(5))
    assert reached(page) == ([], 4)
    tell("hall")
    assert LoggedEvent.objects.get(seq=6).prev == 4


def test_another_epoch_is_reset(room):
    page = history.read("room", "another.1")
    assert (page.reset, *reached(page)) == ("epoch", [], 5)
    assert page.position == at(5)


@pytest.mark.parametrize("text", HOSTILE)
def test_s39_a_position_that_is_none_is_reset(room, text, caplog):
    caplog.set_level(logging.DEBUG)
    page = history.read("room", text)
    assert (page.reset, *reached(page)) == ("bad-id", [], 5)
    assert not text or len(text) < 4 or text not in caplog.text


@pytest.mark.parametrize("seq", [6, 10**17, 10**18 - 1])
def test_s39_a_huge_number_is_reset_and_no_database_overflows(room, seq):
    page = history.read("room", at(seq))
    assert (page.reset, *reached(page)) == ("future", [], 5)


def test_close_rows_are_in_the_answer_without_a_text(room):
    publish_event("room", "close")
    relay()
    [event] = history.read("room", at(5)).events
    assert (event.op, event.text, event.position) == ("close", "", at(6))


# Not further than what was published.


def test_an_answer_ends_at_what_was_published(room):
    publish_event("room", "said")
    publish_event("room", "said")
    sequences.sequence("default")
    assert reached(history.read("room", at(3))) == ([5], 5)
    published_until(6)
    assert reached(history.read("room", at(3))) == ([5, 6], 6)


def test_a_stream_never_begins_at_an_event_that_is_not_published(room):
    publish_event("room", "said")
    sequences.sequence("default")
    assert seqs("room") == [1, 3, 5, 6]
    assert reached(history.read("room", None)) == ([], 5)
    assert reached(history.read("room", "another.1")) == ([], 5)


def test_a_first_event_that_is_not_published_leaves_the_channel_at_zero(room):
    publish_event("loft", "said")
    sequences.sequence("default")
    assert reached(history.read("loft", None)) == ([], 0)
    assert reached(history.read("loft", at(4))) == ([], 0)


def test_a_client_may_be_ahead_of_what_is_noted_as_published(room):
    published_until(3)
    assert reached(history.read("room", at(5))) == ([], 5)
    assert reached(history.read("room", at(1))) == ([3], 3)


def test_with_two_proxies_an_answer_goes_as_far_as_the_faster_one(room, monkeypatch):
    """A stream of the slower one is ahead of it then, and asks until that catches up;
    the other way a stream of the faster one would never get the rest.
    """
    monkeypatch.setattr(
        "django_grip.publishers.locmem.Publisher.servers", [SERVER, "slow"]
    )
    published_until(3, "slow")
    assert reached(history.read("room", at(1))) == ([3, 5], 5)
    Target.objects.filter(server=SERVER).update(published=1)
    assert reached(history.read("room", at(1))) == ([3], 3)


def test_a_server_that_is_not_configured_any_more_does_not_count(room):
    publish_event("room", "said")
    sequences.sequence("default")
    published_until(6, "gone")
    assert reached(history.read("room", None)) == ([], 5)


def test_without_servers_everything_counts_as_published(room, monkeypatch):
    monkeypatch.setattr("django_grip.publishers.locmem.Publisher.servers", [])
    publish_event("room", "said")
    sequences.sequence("default")
    assert reached(history.read("room", at(3))) == ([5, 6], 6)


def test_events_that_are_gone_before_they_are_published_are_missed_aloud(room):
    """The proxy was away for longer than HISTORY."""
    tell("room")
    published_until(5)
    LoggedEvent.objects.all().delete()
    Sequence.objects.update(floor=6)
    page = history.read("room", at(5))
    assert (page.reset, *reached(page)) == ("expired", [], 6)


def test_a_stream_begins_behind_events_that_are_gone_unpublished(room):
    tell("room")
    published_until(5)
    LoggedEvent.objects.all().delete()
    Sequence.objects.update(floor=6)
    assert reached(history.read("room", None)) == ([], 6)
    tell("room")
    assert LoggedEvent.objects.get(seq=7).prev == 6


# Pages.


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(history, "PAGE", 3)
    monkeypatch.setattr(history, "OVERFLOW", 8)


def token_of(page):
    prefix, _, token = page.next_path.rstrip("/").rpartition("/")
    assert prefix == "/grip/page"
    return token


def test_f30_pages_follow_each_other_until_the_client_is_current(small_pages):
    tell(*["room"] * 8)
    pages = [history.read("room", at(0))]
    while pages[-1].next_path and len(pages) < 5:
        pages.append(history.read_page(token_of(pages[-1])))
    assert [reached(page) for page in pages] == [
        ([1, 2, 3], 3),
        ([4, 5, 6], 6),
        ([7, 8], 8),
    ]


def test_f30_a_page_that_is_just_full_is_the_last(small_pages):
    tell(*["room"] * 3)
    page = history.read("room", at(0))
    assert (reached(page), page.next_path) == (([1, 2, 3], 3), None)


def test_f30_a_page_goes_on_with_what_came_meanwhile(small_pages):
    tell(*["room"] * 4)
    page = history.read("room", at(0))
    tell("hall", "room")
    assert reached(history.read_page(token_of(page))) == ([4, 6], 6)


def test_f30_a_client_continues_from_the_end_of_any_page(small_pages):
    tell(*["room"] * 8)
    page = history.read("room", at(0))
    for _ in range(2):
        again = history.read("room", page.position)
        page = history.read_page(token_of(page))
        assert reached(again) == reached(page)
    assert page.next_path is None


def test_only_the_first_page_overflows(small_pages):
    tell(*["room"] * 8)
    page = history.read("room", at(0))
    assert page.reset is None
    tell(*["room"] * 9)
    assert reached(history.read_page(token_of(page))) == ([4, 5, 6], 6)


def test_who_missed_too_much_is_reset(small_pages):
    tell(*["room", "hall"] * 9)
    page = history.read("room", at(0))
    assert (page.reset, *reached(page)) == ("overflow", [], 17)
    assert history.read("room", at(1)).reset is None


def test_pages_are_cut_by_bytes_too_and_never_empty(monkeypatch):
    tell(*["room"] * 5, data="x" * 1_000)
    monkeypatch.setattr(history, "PAGE_BYTES", 2_500)
    page = history.read("room", at(0))
    assert reached(page) == ([1, 2], 2)
    monkeypatch.setattr(history, "PAGE_BYTES", 10)
    assert reached(history.read_page(token_of(page))) == ([3], 3)


def test_the_bytes_of_a_page_are_those_of_utf_8(monkeypatch):
    tell(*["room"] * 3, data="é" * 1_000)
    monkeypatch.setattr(history, "PAGE_BYTES", 3_000)
    assert reached(history.read("room", at(0))) == ([1], 1)


def test_a_page_that_retention_has_overtaken_is_reset(small_pages):
    tell(*["room"] * 8)
    page = history.read("room", at(0))
    Sequence.objects.update(floor=6)
    LoggedEvent.objects.filter(seq__lte=6).delete()
    assert history.read_page(token_of(page)).reset == "expired"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "a:b:c",
        "é",
        "..",
        signing.dumps(("room", "e.1"), salt="another"),
        signing.dumps(("room", "e.1")),
    ],
)
def test_s13_a_page_that_is_not_ours_is_none(token):
    assert history.read_page(token) is None


def test_a_page_of_another_secret_key_or_cut_short_is_none(small_pages, settings):
    tell(*["room"] * 4)
    token = token_of(history.read("room", at(0)))
    assert history.read_page(token) is not None
    assert history.read_page(token[:-1]) is None
    settings.SECRET_KEY = "another"
    assert history.read_page(token) is None


def test_a_page_is_asked_for_soon_or_never(small_pages, monkeypatch):
    tell(*["room"] * 4)
    token = token_of(history.read("room", at(0)))
    monkeypatch.setattr(history, "PAGE_AGE", -1)
    assert history.read_page(token) is None


# F32, F33: the past is gone, or it is another one.


def test_f32_a_position_before_what_is_left_is_reset(room):
    Sequence.objects.update(floor=3)
    LoggedEvent.objects.filter(seq__lte=3).delete()
    page = history.read("room", at(1))
    assert (page.reset, *reached(page)) == ("expired", [], 5)
    assert reached(history.read("room", at(3))) == ([5], 5)


def test_f32_a_quiet_channel_misses_nothing_below_the_floor(room):
    tell("loft")
    Sequence.objects.update(floor=5)
    LoggedEvent.objects.filter(seq__lte=5).delete()
    for seq in (4, 5, 6):
        page = history.read("hall", at(seq))
        assert (page.reset, *reached(page)) == (None, [], 4)
    assert history.read("hall", at(3)).reset == "expired"


def test_f32_after_a_reset_the_client_goes_on_from_its_position(room):
    LoggedEvent.objects.filter(seq__lte=3).delete()
    position = history.read("room", at(1)).position
    tell("room")
    assert reached(history.read("room", position)) == ([6], 6)


def test_f32_an_event_in_the_middle_that_is_gone_is_never_passed_over(room):
    LoggedEvent.objects.filter(seq=3).delete()
    assert history.read("room", at(1)).reset == "expired"


def restore(seq):
    """The log as a backup has it that was made when `seq` was the last."""
    LoggedEvent.objects.filter(seq__gt=seq).delete()
    for head in Head.objects.filter(seq__gt=seq):
        log = LoggedEvent.objects.filter(channel=head.channel)
        last = log.order_by("seq").values_list("seq", flat=True).last()
        Head.objects.filter(pk=head.pk).update(seq=last or 0)
    Sequence.objects.update(last_seq=seq)
    Target.objects.update(published=seq)


def test_f33_a_position_in_the_future_is_reset_to_what_there_is(room):
    restore(3)
    page = history.read("room", at(5))
    assert (page.reset, *reached(page)) == ("future", [], 3)


def test_f33_a_client_alone_does_not_begin_an_epoch(room):
    epoch = sequences.state("default").epoch
    history.read("room", at(10**17))
    assert sequences.state("default").epoch == epoch


def test_f33_a_proxy_that_saw_the_future_begins_a_new_epoch_once(room, caplog):
    old = at(5)
    restore(3)
    page = history.read("room", old, trusted=True)
    assert (page.reset, page.position) == ("future", at(3))
    assert "backup" in caplog.text
    epoch = sequences.state("default").epoch
    assert not old.startswith(epoch)
    again = history.read("room", old, trusted=True)
    assert (again.reset, sequences.state("default").epoch) == ("epoch", epoch)


def test_f33_two_proxies_that_saw_the_future_begin_one_epoch(room):
    """Both had read the sequence before either began."""
    old = at(5)
    restore(3)
    state = sequences.state("default")
    history.read("room", old, trusted=True)
    epoch = sequences.state("default").epoch
    sequences.renew_epoch("default", state.epoch)
    assert sequences.state("default").epoch == epoch


def test_f33_no_position_of_the_old_epoch_is_taken_for_one_of_the_new(room):
    old = {seq: at(seq) for seq in range(6)}
    restore(3)
    history.read("room", old[5], trusted=True)
    tell("room", "room", "room")
    for position in old.values():
        assert history.read("room", position).reset == "epoch"


@pytest.fixture
def running():
    """A relay that leads. It does not end as others: its connection is the test's."""
    running = Relay("default")
    running._begin()
    yield running
    if running._listener is not None:
        running._listener.stop()


@pytest.mark.parametrize("relay_lives_on", [False, True])
def test_f33_what_is_written_after_the_restore_is_published(
    room, running, published, relay_lives_on
):
    """Also by a relay that has published the future."""
    old = at(5)
    restore(3)
    history.read("room", old, trusted=True)
    publish_event("room", "after")
    if not relay_lives_on:
        running._begin()
    for _ in range(3):
        running._closing_at = 0.0
        running.step()
    [item] = [item for item in published if "after" in str(item.formats)]
    assert (item.id, item.prev_id) == (at(4), at(3))
    assert trimming.published("default") == 4


def test_f33_rows_beyond_the_sequence_are_repaired_by_a_new_epoch(room, caplog):
    epoch = sequences.state("default").epoch
    Sequence.objects.update(last_seq=3)
    publish_event("room", "said")
    assert list(sequences.sequence("default")) == []
    assert "backup" in caplog.text
    assert sequences.state("default").epoch != epoch
    [logged] = sequences.sequence("default")
    assert (logged.seq, logged.prev) == (6, 5)
    assert not Outbox.objects.exists()


def test_f33_after_the_repair_no_change_is_lost(room):
    Sequence.objects.update(last_seq=3)
    publish_event("room", "said")
    sequences.sequence("default")
    assert relay() == [6]
    assert reached(history.read("room", at(5))) == ([6], 6)


def test_an_outbox_that_no_repair_helps_fails_aloud(room, monkeypatch):
    """It must not look like an empty one."""

    def refuse(*args):
        raise IntegrityError("a constraint of the project's own")

    monkeypatch.setattr(sequences, "_keep", refuse)
    publish_event("room", "said")
    with pytest.raises(IntegrityError):
        sequences.sequence("default")


# The tables are the project's: somebody may empty them.


@pytest.mark.parametrize("model", [Outbox, LoggedEvent, Head, Sequence, Target])
def test_a_table_that_was_emptied_stops_nothing(room, model):
    positions = [at(seq) for seq in range(6)]
    model.objects.all().delete()
    for position in [None, *positions]:
        history.read("room", position)
    tell("room", "loft")
    position = history.read("room", None).position
    assert tell("room", "room") != []
    page = history.read("room", position)
    assert (page.reset, len(page.events)) == (None, 2)
    assert page.position == history.read("room", None).position


@pytest.mark.parametrize("model", [LoggedEvent, Head, Sequence, Target])
def test_who_was_away_while_a_table_was_emptied_misses_nothing_in_silence(room, model):
    position = at(3)
    model.objects.all().delete()
    tell("room")
    page = history.read("room", position)
    seen = {int(event.position.partition(".")[2]) for event in page.events}
    assert page.reset or {5, 6} <= seen


def test_an_emptied_sequence_goes_on_behind_a_log_that_retention_emptied(room):
    """Seqs that the proxies have had are not given out again: they would not be
    published, as their cursors stand behind them.
    """
    LoggedEvent.objects.all().delete()
    Sequence.objects.all().delete()
    publish_event("room", "said")
    [logged] = sequences.sequence("default")
    assert logged.seq > 5
    publish()
    assert trimming.published("default") == logged.seq


# S50: what it costs.


CHANNELS = 10
"""The channels of a log that was filled; event n is one of channel n modulo these."""


def fill(count):
    """A log of so many events, all of them published."""
    state = sequences.state("default")
    moment = timezone.now()
    LoggedEvent.objects.bulk_create(
        (
            LoggedEvent(
                seq=seq,
                channel=f"room.{seq % CHANNELS}",
                prev=max(0, seq - CHANNELS),
                op="said",
                text="{}",
                created_at=moment,
            )
            for seq in range(1, count + 1)
        ),
        batch_size=1_000,
    )
    Head.objects.bulk_create(
        Head(channel=f"room.{seq % CHANNELS}", seq=seq)
        for seq in range(count - CHANNELS + 1, count + 1)
    )
    Sequence.objects.update(last_seq=count)
    published_until(count)
    return state.epoch


def forget(until):
    """Retention up to and including an event."""
    Sequence.objects.update(floor=until)
    LoggedEvent.objects.filter(seq__lte=until).delete()


def asked(epoch, count):
    """Positions that clients may come with, by what they are answered."""
    return {
        None: None,
        "random": f"{epoch}x.{count // 2}",
        "garbage": "%" * 10_000,
        "future": f"{epoch}.{10**17}",
        "ancient": f"{epoch}.0",
        "expired": f"{epoch}.{count // 4}",
        "current": f"{epoch}.{count}",
        "late": f"{epoch}.{count - 5}",
        "page": f"{epoch}.{count - CHANNELS * 3}",
    }


def test_s50_an_answer_takes_as_many_queries_in_a_long_log_as_in_a_short_one():
    found = []
    for count in (200, 4_000):
        LoggedEvent.objects.all().delete()
        Head.objects.all().delete()
        epoch = fill(count)
        forget(count // 2)
        taken = {}
        for name, position in asked(epoch, count).items():
            with Reads() as reads:
                history.read("room.0", position)
            taken[name] = len(reads)
        found.append(taken)
    assert found[0] == found[1]
    assert max(found[0].values()) <= 5


def test_s50_no_answer_reads_the_log_without_a_limit():
    epoch = fill(4_000)
    forget(1_000)
    for position in asked(epoch, 4_000).values():
        with Reads() as reads:
            history.read("room.0", position)
        for sql, params in reads.statements:
            if LoggedEvent._meta.db_table in sql:
                limit = re.search(r"LIMIT (\d+)", sql % tuple(params))
                assert limit, sql
                assert int(limit[1]) <= history.PAGE + 1, sql


def test_s50_every_query_finds_its_rows_by_an_index():
    epoch = fill(4_000)
    forget(1_000)
    published_until(3_000)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {LoggedEvent._meta.db_table}")
    with Reads() as reads:
        for position in asked(epoch, 4_000).values():
            history.read("room.0", position)
        history.read("room.0", f"{epoch}.2900")
    log = LoggedEvent._meta.db_table
    explained = [statement for statement in reads.statements if log in statement[0]]
    assert explained
    for sql, params in explained:
        for plan in plans(sql, params):
            assert not reads_all(plan), (sql, plan)


def plans(sql, params):
    """The lines of a query's plan."""
    verb = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with connection.cursor() as cursor:
        cursor.execute(f"{verb} {sql}", params)
        names = [column[0] for column in cursor.description]
        return [
            " ".join(f"{name}={value}" for name, value in zip(names, row, strict=True))
            for row in cursor.fetchall()
        ]


def reads_all(plan):
    """Whether a line of a plan says that a table is read from end to end."""
    signs = ("Seq Scan", "SCAN ", "TEMP B-TREE", "type=ALL", "filesort")
    return any(sign in plan for sign in signs)


def test_s50_who_is_too_late_costs_no_envelopes():
    """200 of them may be 12 MB."""
    epoch = fill(4_000)
    forget(1_000)
    with Reads() as reads:
        assert history.read("room.0", f"{epoch}.500").reset == "expired"
    assert [
        sql for sql, _ in reads.statements if ".`text`" in sql.replace('"', "`")
    ] == []


def test_s50_who_missed_too_much_costs_no_more_than_counting_to_the_limit(monkeypatch):
    epoch = fill(4_000)
    monkeypatch.setattr(history, "OVERFLOW", 300)
    with Reads() as reads:
        page = history.read("room.0", f"{epoch}.0")
    assert page.reset == "overflow"
    [counting] = [sql for sql, _ in reads.statements if "OFFSET" in sql]
    assert "text" not in counting


def test_s50_every_database_has_the_index_on_channel_and_seq():
    """MariaDB leaves out an index on expressions, without a word."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(
            cursor, LoggedEvent._meta.db_table
        )
    assert found["grip_event_channel"]["columns"] == ["channel", "seq"]
