"""What waits for a proxy: how much may, who is told, and what is counted."""

import asyncio
import gc
import threading
import time
import tracemalloc

import pytest
from control_port import Answer
from sending import counters, numbers, text

from django_grip import apublish, publish
from django_grip.exceptions import PublishError
from django_grip.publishers import endpoint, get_publisher, sender
from django_grip.signals import published
from servers import wait_until


def test_the_limits_are_those_promised():
    assert sender.QUEUE_MAX == 100_000
    assert sender.QUEUE_BYTES_MAX == 64 * 1024 * 1024
    assert sender.PATIENCE == endpoint.TIMEOUT == 5
    assert sender.RETRY_FOR == 60


@pytest.fixture
def held(control):
    """A control port that holds the answer to an item `first,` of room."""
    control.gate.clear()
    publish("room", text("first,"))
    control.wait(1)
    return control


def test_what_no_longer_fits_is_refused_and_the_old_stays(held, reports, tuned):
    tuned(QUEUE_MAX=5)
    for number in numbers(0, 10):
        publish("room", text(number), callback=reports.callback(number))
    # At once: nothing was answered yet.
    assert not held.accepted
    refused = numbers(4, 10)
    assert [name for name, _, _ in reports.told] == refused
    assert reports.contents_failed == refused
    for _, ok, message in reports.told:
        assert not ok
        assert message.startswith(f"{held.url}: 5 items of ")
    assert counters(held)["dropped"] == 6
    with pytest.raises(PublishError, match="5 items of "):
        publish("room", text("blocking"), blocking=True)
    assert counters(held)["dropped"] == 7
    held.gate.set()
    get_publisher().wait_all_sent()
    publish("room", text("end"), blocking=True)
    assert held.text == "first," + "".join(numbers(0, 4)) + "end"


def test_bytes_are_limited_as_items_are(held, reports, tuned):
    tuned(QUEUE_BYTES_MAX=3000)
    for number in range(5):
        publish("room", text("é" * 400), callback=reports.callback(number))
    publish("room", text("x" * 100), callback=reports.callback("small"))
    assert [name for name, _, _ in reports.told] == [3, 4]
    held.gate.set()
    get_publisher().wait_all_sent()
    assert held.text == "first," + "é" * 1200 + "x" * 100
    # Bytes that have left count no more.
    for _ in range(10):
        publish("room", text("é" * 1200), blocking=True)
    assert len(reports.contents_failed) == 2


def test_one_item_over_the_limit_is_taken_where_nothing_waits(control, tuned):
    tuned(QUEUE_BYTES_MAX=100)
    publish("room", text("x" * 1000), blocking=True)
    assert control.text == "x" * 1000


def test_refusing_is_logged_once_and_its_end_too(held, caplog, tuned):
    tuned(QUEUE_MAX=1)
    for number in numbers(0, 10):
        publish("room", text(number))
    held.gate.set()
    get_publisher().wait_all_sent()
    publish("room", text("end"), blocking=True)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2, messages
    assert all(held.url in message for message in messages)
    assert "refused" in messages[0]


def test_the_queue_of_one_proxy_says_nothing_about_the_other(
    control_port, settings, reports, tuned
):
    held, living = control_port(), control_port()
    held.gate.clear()
    settings.GRIP_PROXIES = [{"control_uri": port.url} for port in (held, living)]
    tuned(QUEUE_MAX=5)
    for number in numbers(0, 20):
        publish("room", text(number))
        wait_until(lambda: counters(living)["queued"] == 0, "the living one has it")
    assert living.text == "".join(numbers(0, 20))
    assert {address for _, address, _ in reports.failed} == {held.url}
    assert reports.contents_failed == numbers(5, 20)


def test_counters_are_there_before_the_first_publish(control):
    assert set(counters(control)) == {
        "queued",
        "sent",
        "merged",
        "retried",
        "dropped",
        "oldest_age",
    }


def test_counters_say_what_happened(held):
    for number in numbers(0, 10):
        publish("room", text(number))
    waiting = counters(held)
    assert waiting.pop("oldest_age") > 0
    assert waiting == {
        "queued": 11,
        "sent": 0,
        "merged": 0,
        "retried": 0,
        "dropped": 0,
    }
    held.script.append(500)
    held.gate.set()
    publish("room", text("end"), blocking=True)
    get_publisher().wait_all_sent()
    assert counters(held) == {
        "queued": 0,
        "sent": 12,
        "merged": 9,
        "retried": 1,
        "dropped": 0,
        "oldest_age": 0.0,
    }


def test_every_item_is_counted_exactly_once(control, reports):
    def moody(connection, post):
        status = (200, 500, 200, 400, 200)[len(control.posts) % 5]
        Answer(status)(connection, post)

    control.behaviour = moody
    threads = [
        threading.Thread(
            target=lambda: [
                publish(f"room-{number % 3}", text("x"), callback=reports.callback(0))
                for number in range(100)
            ]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    get_publisher().wait_all_sent()
    counted = counters(control)
    assert counted["sent"] + counted["dropped"] == 400
    wait_until(lambda: len(reports.told) == 400, "every callback is told")
    assert sum(ok for _, ok, _ in reports.told) == counted["sent"]
    assert len(reports.published) == counted["sent"] == len(control.text)
    assert len(reports.failed) == counted["dropped"]


def test_order_holds_for_every_thread(control):
    def speak(name):
        for number in range(200):
            publish("room", text(f"{name}{number} "))

    threads = [threading.Thread(target=speak, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    get_publisher().wait_all_sent()
    words = control.text.split()
    for name in "abcd":
        assert [word for word in words if word[0] == name] == [
            f"{name}{number}" for number in range(200)
        ]


def test_memory_does_not_grow(control, settings):
    settings.GRIP_PUBLISH_INTERVAL = 0
    control.is_remembering = False
    publisher = get_publisher()

    def publish_much():
        for number in range(1000):
            publish(
                f"room-{number % 10}",
                text("x" * 500 + str(number)),
                callback=lambda ok, message: None,
            )
        publisher.wait_all_sent()
        publish("room", text("end"), blocking=True)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        publish_much()
        before = publish_much()
        after = [publish_much() for _ in range(4)][-1]
    finally:
        tracemalloc.stop()
    # 4,000 items of 500 bytes went through meanwhile.
    assert after - before < 200_000


def test_memory_does_not_grow_in_an_outage_that_is_too_long(control_down, tuned):
    tuned(QUEUE_MAX=100, BACK_OFF=(0.05, 0.05))

    def publish_much():
        for number in range(2000):
            publish("room", text("x" * 500 + str(number)))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        publish_much()
        before = publish_much()
        after = publish_much()
    finally:
        tracemalloc.stop()
    assert counters(control_down)["queued"] == 100
    assert after - before < 200_000


# Callbacks and receivers run on the sender's thread.


def test_a_callback_may_publish(control):
    def again(ok, message):
        publish("room", text("b"), callback=last)

    def last(ok, message):
        publish("room", text("c"))

    publish("room", text("a"), callback=again)
    wait_until(lambda: control.text == "abc", "all three arrive")


def blocking():
    publish("room", text("never"), blocking=True)


def asynchronous():
    asyncio.run(apublish("room", text("never")))


@pytest.mark.parametrize("wait", [blocking, asynchronous])
def test_a_callback_that_waits_is_told_and_nothing_stands_still(control, caplog, wait):
    begin = time.monotonic()
    publish("room", text("a"), callback=lambda ok, message: wait())
    publish("room", text("b"), blocking=True)
    assert time.monotonic() - begin < 4
    assert control.text == "ab"
    (record,) = caplog.records
    assert record.exc_info[0] is RuntimeError


@pytest.mark.parametrize("wait", [blocking, asynchronous])
def test_a_receiver_that_waits_is_told_and_nothing_stands_still(control, caplog, wait):
    def receiver(items, **kwargs):
        wait()

    published.connect(receiver)
    try:
        publish("room", text("a"), blocking=True)
    finally:
        published.disconnect(receiver)
    publish("room", text("b"), blocking=True)
    assert control.text == "ab"
    # Django says it, too.
    said = [each for each in caplog.records if each.threadName.endswith(control.url)]
    assert {each.exc_info and each.exc_info[0] for each in said} == {RuntimeError}, said


def test_a_callback_that_raises_is_logged_and_the_next_is_told(
    control, caplog, reports
):
    publish("room", text("a"), callback=lambda ok, message: 1 / 0)
    publish("room", text("b"), callback=reports.callback("b"))
    wait_until(lambda: reports.told, "the second callback is told")
    assert reports.told == [("b", True, "")]
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError


def test_a_callback_may_close_the_publisher(control, reports):
    publish("room", text("a"), callback=lambda ok, message: get_publisher().close())
    wait_until(lambda: reports.published, "the item is accepted")
    wait_until(
        lambda: not any("grip-sender" in t.name for t in threading.enumerate()),
        "the sender ends",
    )


def test_a_callback_that_waits_until_all_is_sent_is_told(control, caplog):
    # It would wait for itself: its own item is not over before it returns.
    publish("room", text("a"), callback=lambda *told: get_publisher().wait_all_sent())
    publish("room", text("b"), blocking=True)
    (record,) = caplog.records
    assert record.exc_info[0] is RuntimeError


# The end.


def test_close_sends_what_waits(held, reports):
    for number in numbers(0, 10):
        publish("room", text(number), callback=reports.callback(number))
    closing = threading.Thread(target=get_publisher().close)
    closing.start()
    held.gate.set()
    closing.join(20)
    assert not closing.is_alive()
    assert held.text == "first," + "".join(numbers(0, 10))
    assert len(reports.told) == 10


def test_close_sends_in_an_outage_what_can_be_sent_in_time(control_down):
    publish("room", text("a"))
    wait_until(lambda: counters(control_down)["retried"], "an attempt has failed")
    closing = threading.Thread(target=get_publisher().close)
    closing.start()
    control_down.up()
    closing.join(20)
    assert control_down.text == "a"


def test_closing_twice_and_from_two_threads_is_harmless(control):
    publish("room", text("a"))
    publisher = get_publisher()
    threads = [threading.Thread(target=publisher.close) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    publisher.close()
    assert control.text == "a"


def test_a_closed_publisher_refuses_and_says_so(control, reports):
    publisher = get_publisher()
    publisher.close()
    publish("room", text("a"), callback=reports.callback("a"))
    assert reports.told == [("a", False, f"{control.url}: the publisher was closed")]
    with pytest.raises(PublishError, match="the publisher was closed"):
        publish("room", text("b"), blocking=True)
    assert not control.posts
    assert reports.contents_failed == ["a", "b"]


def test_wait_all_sent_waits_for_what_is_on_its_way(held):
    publish("room", text("last"))
    ended = threading.Event()

    def wait():
        get_publisher().wait_all_sent()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    assert not ended.wait(0.1)
    held.gate.set()
    assert ended.wait(20)
    assert held.text == "first,last"


def test_wait_all_sent_does_not_outlive_the_publisher(control_down):
    publish("room", text("a"))
    ended = threading.Event()
    publisher = get_publisher()

    def wait():
        publisher.wait_all_sent()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    publisher.close(timeout=0)
    assert ended.wait(20)


def test_a_close_while_items_are_packed_leaves_nobody_untold(control, monkeypatch):
    """Held where the items are in the queue no more, and not yet on their way."""
    from django_grip.publishers import sender

    packing, closed = threading.Event(), threading.Event()
    pack = sender.pack

    def held_pack(group):
        packing.set()
        assert closed.wait(20)
        return pack(group)

    monkeypatch.setattr(sender, "pack", held_pack)
    told = []
    for _ in range(10):
        publish("room", text("a"), callback=lambda ok, message: told.append(ok))
    assert packing.wait(20)
    publisher = get_publisher()
    publisher.close(timeout=0)
    closed.set()
    assert told == [False] * 10
    publisher.wait_all_sent()
