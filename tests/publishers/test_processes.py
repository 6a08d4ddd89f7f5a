"""Processes that fork, end, or are ended, with items on their way."""

import json
import time

import pytest
from control_port import ControlPort, Drip
from sending import end, numbers, program, start


@pytest.fixture
def begin(tmp_path):
    """Starts programs that publish to a control port; none outlives the test."""
    children = []

    def run(code, control, name="program.py", **settings):
        path = program(code, tmp_path, name)
        children.append(start(path, json.dumps({"GRIP_URL": control.url, **settings})))
        return children[-1]

    yield run
    for child in children:
        end(child)


def output(child, timeout=30):
    """What a child wrote, once it has ended well."""
    out, err = child.communicate(timeout=timeout)
    assert child.returncode == 0, err
    return out.splitlines()


# Ending.


def test_a_program_that_exits_at_once_loses_nothing(begin, control_port):
    control = control_port()
    output(begin("for n in range(100): publish('room', text(f'{n},'))", control))
    assert control.text == "".join(numbers(0, 100))


def test_a_program_that_ends_by_an_exception_loses_nothing(begin, control_port):
    control = control_port()
    child = begin("publish('room', text('a'))\nraise SystemExit(3)", control)
    child.communicate(timeout=30)
    assert child.returncode == 3
    assert control.text == "a"


def test_what_is_published_while_the_program_ends_arrives(begin, control_port):
    control = control_port()
    code = """
import atexit
# Of those registered, the last is the first to run.
publish('room', text('a'))
atexit.register(publish, 'room', text('b'))
"""
    output(begin(code, control))
    assert control.text == "ab"


def test_what_is_first_published_while_the_program_ends_arrives(begin, control_port):
    control = control_port()
    output(begin("import atexit; atexit.register(publish, 'room', text('a'))", control))
    assert control.text == "a"


def test_what_is_published_after_the_end_is_told(begin, control_port):
    control = control_port()
    code = """
import atexit
atexit.register(
    lambda: publish('room', text('late'), callback=lambda *told: say(*told))
)
publish('room', text('a'))
"""
    (told,) = output(begin(code, control))
    # Sent or refused: either way somebody is told.
    assert control.text == ("alate" if told.startswith("True") else "a")


REPORTING = """
from django_grip.signals import publish_failed, published

def report(items, reason="", **kwargs):
    for item in items:
        say("failed" if reason else "published", item.channel, reason)

publish_failed.connect(report)
published.connect(report)
"""

FULL_QUEUE = """
import multiprocessing

def work():
    for number in range(20):
        publish(f"room-{number}", text("x" * 500_000))

if __name__ == "__main__":
    say(time.monotonic())
"""
IN_CHILD = """
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join()
    assert child.exitcode == 0
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Programs that end with a full queue, at the same time: what they wrote."""
    controls = {
        "down": ControlPort(is_up=False),
        "hanging": ControlPort(),
        "slow": ControlPort(),
        "down, in a child": ControlPort(is_up=False),
    }
    controls["hanging"].gate.clear()
    controls["slow"].behaviour = lambda *got: Drip(0.01)(*got)
    directory = tmp_path_factory.mktemp("ended")
    children = {}
    try:
        for name, control in controls.items():
            code = REPORTING + FULL_QUEUE
            code += IN_CHILD if "child" in name else "    work()\n"
            path = program(code, directory, f"{name}.py")
            children[name] = start(path, json.dumps({"GRIP_URL": control.url}))
        wrote = {}
        for name, child in children.items():
            begin, *lines = output(child)
            # They end together, so the last has not waited for the others.
            wrote[name] = (lines, time.monotonic() - float(begin), controls[name])
        yield wrote
    finally:
        for child in children.values():
            end(child)
        for control in controls.values():
            control.close()


@pytest.mark.parametrize("proxy", ["down", "hanging", "slow", "down, in a child"])
def test_an_exit_with_a_full_queue_is_bounded_and_what_is_left_reported(ended, proxy):
    lines, took, control = ended[proxy]
    assert took < 7
    outcomes = [line.split(" ", 2) for line in lines]
    # Each item once, with its outcome, in order.
    assert [channel for _, channel, _ in outcomes] == [f"room-{n}" for n in range(20)]
    sent = [channel for kind, channel, _ in outcomes if kind == "published"]
    arrived = [item["channel"] for post in control.accepted for item in post.items]
    assert sent == arrived[: len(sent)]
    assert bool(sent) == (proxy == "slow")
    reasons = {reason for kind, _, reason in outcomes if kind == "failed"}
    assert reasons == {"not sent before the publisher was closed"}


# Forking.


def test_a_child_sends_nothing_of_its_parent_and_the_parent_all(begin, control_port):
    control = control_port()
    control.gate.clear()
    code = """
def told(ok, message):
    say(os.getpid(), "told", ok)

for number in range(10):
    publish("parent", text(f"{number},"), callback=told)
sys.stdin.readline()
pid = os.fork()
if pid == 0:
    # Not blocking, and ended by the exit: the parent's queue is none of its business.
    for number in range(10):
        publish("child", text(f"{number},"), callback=told)
    sys.exit()
say("parent", os.getpid())
say("child", pid)
assert os.waitpid(pid, 0)[1] == 0
"""
    child = begin(code, control)
    control.wait(1)
    child.stdin.write("\n")
    child.stdin.flush()
    # The child's sender works while the parent's is waiting for an answer.
    second = control.wait(2)[1]
    assert {item["channel"] for item in second.items} == {"child"}
    control.gate.set()
    lines = output(child)
    pids = dict(line.split() for line in lines if "told" not in line)
    for name, pid in pids.items():
        assert lines.count(f"{pid} told True") == 10, name
    by_channel = {"parent": "", "child": ""}
    for post in control.accepted:
        for item in post.items:
            content = item["formats"]["http-stream"]["content"]
            by_channel[item["channel"]] += content
    assert by_channel == dict.fromkeys(("parent", "child"), "".join(numbers(0, 10)))


def test_forks_while_other_threads_publish_leave_no_lock_behind(begin, control_port):
    control = control_port()
    code = """
import logging, signal
from django_grip.publishers import sender

sender.QUEUE_MAX = 20
logging.disable()
# An import that is under way in a fork stands still in the child: that is Python's.
publish("parent", text("x"), blocking=True)
ended = threading.Event()

def publish_much():
    while not ended.is_set():
        # Long, so that a fork comes often where items are measured and encoded.
        publish("parent", text("é" * 20_000))

threads = [threading.Thread(target=publish_much, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
for number in range(30):
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        publish("child", text(f"{number},"), blocking=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
ended.set()
"""
    output(begin(code, control))
    arrived = [
        item["formats"]["http-stream"]["content"]
        for post in control.accepted
        for item in post.items
        if item["channel"] == "child"
    ]
    assert arrived == numbers(0, 30)


def test_a_child_that_is_forked_before_the_first_publish_publishes(begin, control_port):
    control = control_port()
    code = """
pid = os.fork()
publish("room", text("child," if pid == 0 else "parent,"))
if pid:
    assert os.waitpid(pid, 0)[1] == 0
"""
    output(begin(code, control))
    assert sorted(control.contents) == ["child,", "parent,"]


def test_grandchildren_publish_too(begin, control_port):
    control = control_port()
    code = """
for generation in range(3):
    publish("room", text(f"{generation},"), blocking=True)
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        break
else:
    publish("room", text("3,"))
"""
    output(begin(code, control))
    assert control.text == "".join(numbers(0, 4))


MULTIPROCESSING = """
import multiprocessing

def work(name):
    for number in range(50):
        publish(name, text(f"{number},"))

if __name__ == "__main__":
    context = multiprocessing.get_context(METHOD)
    if PARENT_PUBLISHES:
        publish("parent", text("parent"), blocking=True)
    children = [
        context.Process(target=work, args=(f"child-{number}",)) for number in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
"""


@pytest.mark.parametrize(
    ("method", "parent_publishes"),
    [("fork", True), ("fork", False), ("spawn", True), ("forkserver", False)],
)
def test_a_child_of_multiprocessing_that_ends_loses_nothing(
    begin, control_port, method, parent_publishes
):
    control = control_port()
    code = MULTIPROCESSING.replace("METHOD", repr(method))
    code = code.replace("PARENT_PUBLISHES", repr(parent_publishes))
    output(begin(code, control))
    arrived = {}
    for post in control.accepted:
        for item in post.items:
            content = item["formats"]["http-stream"]["content"]
            arrived[item["channel"]] = arrived.get(item["channel"], "") + content
    assert arrived.pop("parent", None) == ("parent" if parent_publishes else None)
    assert arrived == dict.fromkeys(("child-0", "child-1"), "".join(numbers(0, 50)))


def test_workers_of_a_process_pool_lose_nothing(begin, control_port):
    control = control_port()
    code = """
from concurrent.futures import ProcessPoolExecutor

def work(number):
    publish("room", text(f"{number},"))

if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(work, range(20)))
"""
    output(begin(code, control))
    arrived = sorted(control.text.split(",")[:-1], key=int)
    assert arrived == [str(number) for number in range(20)]
