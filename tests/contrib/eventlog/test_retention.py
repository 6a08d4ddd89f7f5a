"""Retention: the past leaves from its beginning on, and nobody is told otherwise."""

import os
import subprocess
import sys
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from django_grip.contrib.eventlog import failpoints, history, sequences, trimming
from django_grip.contrib.eventlog.models import Head, LoggedEvent, Sequence, Target
from django_grip.contrib.eventlog.relays import Relay
from django_grip.contrib.realtime import publish_event
from tests.contrib.eventlog.history_fixtures import (
    Reads,
    at,
    nothing_published,  # noqa: F401
    publish,
    published_until,
    reached,
    relay,
    seqs,
)
from tests.servers import ROOT, environment

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log")]


def tell(count, channel="room"):
    for _ in range(count):
        publish_event(channel, "said")
    relay()


def age(until, hours=25):
    """Have the events up to one be so old."""
    moment = timezone.now() - timedelta(hours=hours)
    LoggedEvent.objects.filter(seq__lte=until).update(created_at=moment)


def floor():
    return sequences.state("default").floor


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(trimming, "CHUNK", 3)


# What goes.


def test_nothing_goes_from_an_empty_log():
    assert trimming.trim("default") == 0
    assert floor() == 0


def test_nothing_goes_before_its_time():
    tell(5)
    age(5, hours=23)
    assert trimming.trim("default") == 0
    assert (seqs("room"), floor()) == ([1, 2, 3, 4, 5], 0)


def test_what_is_older_than_history_goes():
    tell(5)
    age(3)
    assert trimming.trim("default") == 3
    assert (seqs("room"), floor()) == ([4, 5], 3)
    assert trimming.trim("default") == 0


def test_history_is_a_setting(settings):
    settings.GRIP_REALTIME = {"HISTORY": 3600}
    tell(5)
    age(3, hours=2)
    assert trimming.trim("default") == 3


def test_what_is_beyond_history_rows_goes(settings):
    settings.GRIP_REALTIME = {"HISTORY_ROWS": 2}
    tell(5)
    assert trimming.trim("default") == 3
    assert (seqs("room"), floor()) == ([4, 5], 3)
    tell(1)
    assert trimming.trim("default") == 1


def test_history_rows_keeps_a_shorter_log(settings):
    settings.GRIP_REALTIME = {"HISTORY_ROWS": 5}
    tell(5)
    assert trimming.trim("default") == 0


def test_history_rows_of_zero_keeps_nothing(settings):
    settings.GRIP_REALTIME = {"HISTORY_ROWS": 0}
    tell(5)
    assert trimming.trim("default") == 5
    assert (seqs("room"), floor()) == ([], 5)


@pytest.mark.parametrize(("rows", "old", "kept"), [(3, 1, 3), (3, 4, 1), (3, 0, 3)])
def test_age_and_count_are_both_limits(settings, rows, old, kept):
    settings.GRIP_REALTIME = {"HISTORY_ROWS": rows}
    tell(5)
    age(old)
    trimming.trim("default")
    assert len(seqs("room")) == kept


@pytest.mark.parametrize("limit", ["age", "rows"])
def test_events_go_in_chunks_from_the_first_on(small_chunks, settings, limit):
    tell(10)
    if limit == "age":
        age(8)
    else:
        settings.GRIP_REALTIME = {"HISTORY_ROWS": 2}
    with Reads() as reads:
        assert trimming.trim("default") == 8
    assert (seqs("room"), floor()) == ([9, 10], 8)
    gone = f"DELETE FROM {connection.ops.quote_name(LoggedEvent._meta.db_table)}"
    deleted = [params for sql, params in reads.statements if sql.startswith(gone)]
    assert [params[0] for params in deleted] == [3, 6, 8]


def test_the_floor_rises_before_events_go(small_chunks):
    tell(7)
    age(7)
    with Reads() as reads:
        trimming.trim("default")
    tables = {model._meta.db_table for model in (LoggedEvent, Sequence)}
    order = [
        (sql.split()[0], params[0])
        for sql, params in reads.statements
        if sql.startswith(("DELETE", "UPDATE")) and any(name in sql for name in tables)
    ]
    assert order == [
        ("UPDATE", 3),
        ("DELETE", 3),
        ("UPDATE", 6),
        ("DELETE", 6),
        ("UPDATE", 7),
        ("DELETE", 7),
    ]


def test_the_floor_never_sinks():
    tell(5)
    age(3)
    Sequence.objects.update(floor=4)
    trimming.trim("default")
    assert floor() == 4


def test_a_clock_that_was_wrong_for_a_while_does_not_stop_retention(small_chunks):
    """Event 2 seems to be of tomorrow."""
    tell(7)
    age(7)
    LoggedEvent.objects.filter(seq=2).update(
        created_at=timezone.now() + timedelta(hours=25)
    )
    assert trimming.trim("default") == 7


def test_gaps_in_the_log_do_not_stop_retention(small_chunks):
    tell(10)
    LoggedEvent.objects.filter(seq__in=(2, 3, 4, 5, 6, 7)).delete()
    age(9)
    assert trimming.trim("default") == 3
    assert seqs("room") == [10]


def test_a_round_may_be_limited(small_chunks):
    """A relay has to publish in between: what is old may be a million events."""
    tell(10)
    age(8)
    assert [trimming.trim("default", chunks=1) for _ in range(4)] == [3, 3, 2, 0]


def test_one_step_of_a_relay_does_not_remove_all(monkeypatch):
    monkeypatch.setattr(trimming, "CHUNK", 1)
    tell(100)
    age(100)
    Relay("default")._do_chores()
    assert LoggedEvent.objects.exists()


def test_the_heads_of_channels_stay():
    tell(5)
    age(5)
    trimming.trim("default")
    assert list(Head.objects.values_list("channel", "seq")) == [("room", 5)]
    tell(1)
    assert LoggedEvent.objects.get().prev == 5


def test_grip_trim_says_how_many(capsys):
    tell(5)
    age(3)
    call_command("grip_trim")
    assert capsys.readouterr().out == "3 events removed.\n"
    call_command("grip_trim")
    assert capsys.readouterr().out == "0 events removed.\n"


# What clients are told.


def test_who_was_away_for_longer_is_reset_and_who_was_not_is_told():
    tell(5)
    age(3)
    trimming.trim("default")
    assert history.read("room", at(2)).reset == "expired"
    assert reached(history.read("room", at(3))) == ([4, 5], 5)


def test_a_quiet_channel_whose_last_event_is_gone_misses_nothing():
    tell(1, "quiet")
    tell(5)
    age(3)
    trimming.trim("default")
    assert floor() > Head.objects.get(channel="quiet").seq
    page = history.read("quiet", at(1))
    assert (page.reset, *reached(page)) == (None, [], 1)
    assert history.read("quiet", at(0)).reset == "expired"
    tell(1, "quiet")
    assert reached(history.read("quiet", at(1))) == ([7], 7)


def test_between_floor_and_delete_the_answer_is_whole_or_a_reset():
    """The floor has risen; the events are still there."""
    tell(5)
    Sequence.objects.update(floor=3)
    assert history.read("room", at(1)).reset == "expired"
    assert reached(history.read("room", at(3))) == ([4, 5], 5)


def test_events_that_go_while_the_log_is_read_are_missed_aloud(monkeypatch):
    """The floor is read first, and then the events."""
    tell(5)
    age(3)
    original = history.trimming.published

    def trim_and_read(using):
        trimming.trim(using)
        return original(using)

    monkeypatch.setattr(history.trimming, "published", trim_and_read)
    assert history.read("room", at(1)).reset == "expired"


def test_events_that_go_before_they_are_published_are_missed_aloud():
    """A proxy that was away for longer than HISTORY goes on with what is left."""
    tell(2)
    for _ in range(5):
        publish_event("room", "said")
    sequences.sequence("default")
    age(5)
    trimming.trim("default")
    assert seqs("room") == [6, 7]
    page = history.read("room", at(2))
    assert (page.reset, *reached(page)) == ("expired", [], 5)
    assert LoggedEvent.objects.get(seq=6).prev == 5
    publish()
    assert trimming.published("default") == 7
    assert reached(history.read("room", at(5))) == ([6, 7], 7)


def test_when_all_of_them_are_gone_the_proxy_is_current():
    tell(2)
    published_until(1)
    age(2)
    trimming.trim("default")
    publish()
    assert Target.objects.get().published == 2
    tell(1)
    assert trimming.published("default") == 3


# F10: killed in between.

TRIM = """
import sys, django
django.setup()
from django.core.management import call_command
from django.db import connection
connection.settings_dict["NAME"] = sys.argv[1]
from django_grip.contrib.eventlog import trimming
trimming.CHUNK = 3
call_command("grip_trim")
"""


def killed_at(failpoint, tmp_path):
    """Run grip_trim in a process of its own that dies there."""
    journal = tmp_path / "journal"
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("TEST_DATABASE", "PYTHONPATH")
    }
    done = subprocess.run(
        [sys.executable, "-c", TRIM, str(connection.settings_dict["NAME"])],
        cwd=ROOT,
        env=environment(
            kept
            | {
                "DJANGO_SETTINGS_MODULE": "tests.settings",
                "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sample_app'}",
                "GRIP_FAILPOINT": failpoint,
                "GRIP_FAILPOINT_LOG": str(journal),
            }
        ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -9, done.stderr
    assert journal.read_text().splitlines()[-1] == failpoint.partition(":")[0]


def no_hole():
    """Every position is answered with all that came after it, or with a reset."""
    lowest = LoggedEvent.objects.order_by("seq").values_list("seq", flat=True).first()
    assert lowest is None or floor() >= lowest - 1
    for seq in range(11):
        page = history.read("room", at(seq))
        if page.reset is None:
            assert reached(page) == (list(range(seq + 1, 11)), 10)
        else:
            assert (page.reset, seq < floor()) == ("expired", True)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("failpoint", "left"),
    [
        ("retention.after_floor:kill", 10),
        ("retention.after_floor:kill@2", 7),
        ("retention.mid_delete:kill", 7),
        ("retention.mid_delete:kill@3", 2),
    ],
)
def test_f10_killed_during_retention_there_is_no_hole(failpoint, left, tmp_path):
    tell(10)
    age(8)
    killed_at(failpoint, tmp_path)
    assert LoggedEvent.objects.count() == left
    no_hole()
    assert trimming.trim("default") == left - 2
    assert (seqs("room"), floor()) == ([9, 10], 8)
    no_hole()


@pytest.mark.parametrize("name", ["retention.after_floor", "retention.mid_delete"])
def test_f10_an_error_during_retention_leaves_no_hole(name, monkeypatch, small_chunks):
    tell(10)
    age(8)
    monkeypatch.setattr(failpoints, "_spec", f"{name}:raise")
    with pytest.raises(failpoints.Failed):
        trimming.trim("default")
    no_hole()
    monkeypatch.setattr(failpoints, "_spec", "")
    trimming.trim("default")
    assert seqs("room") == [9, 10]
    no_hole()
