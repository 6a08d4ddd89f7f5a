"""The pace of publishing: of one process, and of all on a host."""

import json
import os
import signal
import time
from itertools import pairwise

import pytest
from sending import end, program, start, text

from django_grip import publish
from django_grip.items import make_item
from django_grip.publishers import get_publisher
from django_grip.publishers.slot import WINDOW, Slot
from servers import wait_until

# One process.


def assert_paced(posts, interval):
    """Each POST comes an interval after the answer of the one before."""
    for before, after in pairwise(posts):
        assert after.arrived - before.answered >= interval


def test_posts_keep_the_interval_from_the_answer(control, settings):
    settings.GRIP_PUBLISH_INTERVAL = 0.05
    for number in range(5):
        publish("room", text(str(number)), blocking=True)
    assert len(control.posts) == 5
    assert_paced(control.posts, 0.05)


def test_the_posts_of_one_large_delivery_keep_the_interval_too(control, settings):
    settings.GRIP_PUBLISH_INTERVAL = 0.05
    items = [make_item("room", text("x" * 400_000)) for _ in range(6)]
    get_publisher().publish(items)
    assert len(control.posts) == 3
    assert_paced(control.posts, 0.05)


def test_repetitions_and_halves_keep_the_interval_too(control, settings, tuned):
    settings.GRIP_PUBLISH_INTERVAL = 0.05
    tuned(BACK_OFF=(0.0, 0.0))
    control.script += [200, 500, 400]
    control.gate.clear()
    publish("first", text("first"))
    control.wait(1)
    for number in range(4):
        publish(f"room-{number}", text(str(number)))
    control.gate.set()
    get_publisher().wait_all_sent()
    assert control.contents == ["first", "0", "1", "2", "3"]
    assert len(control.posts) >= 5
    assert_paced(control.posts, 0.05)


def test_an_item_leaves_at_once_when_the_last_answer_is_old(control, settings):
    settings.GRIP_PUBLISH_INTERVAL = 2.0
    begin = time.monotonic()
    publish("room", text("a"), blocking=True)
    assert time.monotonic() - begin < 1.0


def test_what_is_published_in_the_interval_leaves_together(control, settings):
    settings.GRIP_PUBLISH_INTERVAL = 0.5
    publish("room", text("0,"), blocking=True)
    for number in range(1, 20):
        publish("room", text(f"{number},"))
    get_publisher().wait_all_sent()
    assert len(control.posts) == 2


def test_an_interval_of_zero_paces_nothing_and_makes_no_file(
    control, settings, tmp_path
):
    settings.GRIP_PUBLISH_INTERVAL = 0
    for number in range(20):
        publish("room", text(str(number)), blocking=True)
    assert len(control.posts) == 20
    assert not list(tmp_path.glob("*.slot"))


def test_each_control_uri_has_a_pace_of_its_own(control_port, settings, tmp_path):
    settings.GRIP_PUBLISH_INTERVAL = 0.05
    ports = [control_port(), control_port()]
    settings.GRIP_PROXIES = [{"control_uri": port.url} for port in ports]
    publish("room", text("a"), blocking=True)
    assert [port.contents for port in ports] == [["a"], ["a"]]
    assert len(list(tmp_path.glob("*.slot"))) == 2


# The file they share.


@pytest.fixture
def slot():
    """Makes slots of one URI, as different processes have them."""
    slots = []

    def make(interval=0.05, uri="http://a"):
        slots.append(Slot(uri, interval))
        return slots[-1]

    yield make
    for each in slots:
        each.close()


def test_the_first_taker_may_speak_and_another_may_join_once(slot):
    # An hour: what is joined here is no matter of time.
    one, two = slot(3600), slot(3600)
    assert one.take() == 0
    began = time.monotonic()
    joined = two.take()
    assert joined == 0 or time.monotonic() - began >= WINDOW
    assert one.take() > 3500
    assert two.take() > 3500


def test_all_are_quiet_for_the_interval_after_an_answer(slot):
    one, two = slot(0.2), slot(0.2)
    assert one.take() == 0
    one.leave()
    left = time.monotonic()
    wait_until(lambda: time.monotonic() - left > WINDOW, "the window is over")
    while (pause := two.take()) > 0:
        assert pause <= 0.2
        time.sleep(pause)
    assert time.monotonic() - left >= 0.19


def test_other_control_uris_have_other_slots(slot):
    assert slot(3600).take() == 0
    assert slot(3600, "http://b").take() == 0


def test_the_file_is_for_its_owner_alone(slot):
    one = slot()
    one.take()
    assert one.path.stat().st_mode & 0o777 == 0o600


GARBAGE = {
    "empty": b"",
    "short": b"\x00" * 5,
    "text": b"garbage " * 4,
    "not a number": b"\xff" * 16,
    "infinite": b"\x00\x00\x00\x00\x00\x00\xf0\x7f" * 2,
    # The clock of before the last start of the machine was further.
    "of the future": b"\x00\x00\x00\x00\x00\x00\xe0\x7e" * 2,
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_the_file_stops_nobody(slot, content):
    one = slot(3600)
    one.path.write_bytes(content)
    assert one.take() == 0
    one.leave()
    # What it says now is understood by another process, once the window is over.
    wait_until(lambda: slot(3600).take() > 3000, "the slot is taken")


def symlink(path, target):
    target.write_bytes(b"precious")
    path.symlink_to(target)


def directory(path, target):
    path.mkdir()


def fifo(path, target):
    os.mkfifo(path)


@pytest.mark.parametrize("make", [symlink, directory, fifo])
def test_what_is_not_a_file_of_ours_is_left_alone_and_said(
    slot, make, tmp_path, caplog
):
    one = slot(3600)
    target = tmp_path / "target"
    make(one.path, target)
    assert one.take() == 0
    one.leave()
    # This process keeps the pace by itself.
    assert one.take() > 3000
    if make is symlink:
        assert target.read_bytes() == b"precious"
    (record,) = caplog.records
    assert "not paced together" in record.getMessage()


def test_a_temporary_directory_that_is_gone_is_said_and_stops_nobody(
    control, settings, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    settings.GRIP_PUBLISH_INTERVAL = 0.05
    for number in range(3):
        publish("room", text(str(number)), blocking=True)
    assert control.text == "012"
    assert_paced(control.posts, 0.05)
    assert len(caplog.records) == 1


def test_a_file_that_is_deleted_while_it_is_used_stops_nobody(slot):
    one = slot(0.05)
    one.take()
    one.leave()
    one.path.unlink()
    while (pause := one.take()) > 0:
        time.sleep(pause)


# Several processes.

PUBLISHING = """
from itertools import count
name = f"room-{os.getpid()}"
say("ready")
for number in count():
    publish(name, text("x"), blocking=True)
"""


@pytest.fixture
def processes(tmp_path):
    """Starts processes that publish to a control port all the time."""
    children = []

    def run(control, count, interval, code=PUBLISHING):
        path = program(code, tmp_path)
        options = {"GRIP_URL": control.url, "GRIP_PUBLISH_INTERVAL": interval}
        new = [start(path, json.dumps(options)) for _ in range(count)]
        children.extend(new)
        for child in new:
            assert child.stdout.readline() == "ready\n"
        return new

    yield run
    for child in children:
        end(child)


def channel_of(post):
    return post.items[0]["channel"]


def test_processes_that_publish_all_the_time_speak_in_common_windows(
    control_port, processes
):
    interval, slack = 0.25, 0.12
    control = control_port()
    processes(control, 4, interval)
    wait_until(lambda: len({channel_of(post) for post in control.posts}) == 4, "all")
    first = len(control.posts)
    control.wait(first + 24)
    posts = sorted(control.posts, key=lambda post: post.arrived)
    windows = [[posts[0]]]
    for before, post in pairwise(posts):
        gap = post.arrived - before.arrived
        # In one window, or an interval later: nothing comes in between.
        assert gap <= slack or gap >= interval - slack, gap
        if gap <= slack:
            windows[-1].append(post)
        else:
            windows.append([post])
    for before, after in pairwise(windows):
        answered = max(post.answered for post in before)
        assert after[0].arrived - answered >= interval - 0.005
        # Nobody speaks twice in a window.
        assert len({channel_of(post) for post in before}) == len(before)
    # They do share windows: one each would be 24 of them.
    assert len(windows) <= 16
    # And nobody is left out.
    assert len({channel_of(post) for post in posts[-12:]}) == 4


def test_a_process_that_is_killed_or_stopped_does_not_stop_the_others(
    control_port, processes
):
    control = control_port()
    # Those that take the slot and keep it are ended in all places of their work.
    victims = processes(control, 3, 0.02)
    control.wait(10)
    killed, stopped, living = victims
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    stopped.send_signal(signal.SIGSTOP)
    control.wait(len(control.posts) + 20)
    stopped.send_signal(signal.SIGCONT)
    name = f"room-{stopped.pid}"
    seen = sum(channel_of(post) == name for post in control.posts)
    wait_until(
        lambda: sum(channel_of(post) == name for post in control.posts) > seen + 2,
        "the one that was stopped goes on",
    )
    assert living.poll() is None


HOLDING = """
import fcntl
from django_grip.publishers.slot import Slot
slot = Slot(settings.GRIP_URL, settings.GRIP_PUBLISH_INTERVAL)
assert slot.take() == 0
slot.leave()
file = open(slot.path, "r+b")
fcntl.flock(file, fcntl.LOCK_EX)
fcntl.lockf(file, fcntl.LOCK_EX)
say("ready")
time.sleep(600)
"""


def test_a_lock_that_is_never_given_back_stops_nobody(
    control, settings, processes, tmp_path
):
    settings.GRIP_PUBLISH_INTERVAL = 0.02
    (holder,) = processes(control, 1, 0.02, HOLDING)
    for number in range(3):
        publish("room", text(str(number)), blocking=True)
    assert control.text == "012"
    assert_paced(control.posts, 0.02)
    # Killed, it has held the slot no longer.
    holder.kill()
    holder.wait()
    publish("room", text("3"), blocking=True)
    assert control.text == "0123"


def test_a_process_that_is_killed_on_its_way_does_not_stop_the_others(
    control, settings, processes
):
    settings.GRIP_PUBLISH_INTERVAL = 0.02
    control.gate.clear()
    (victim,) = processes(control, 1, 0.02)
    control.wait(1)
    victim.kill()
    victim.wait()
    publish("room", text("a"))
    # While the answer of the killed one is still held.
    assert channel_of(control.wait(2)[1]) == "room"
    control.gate.set()
