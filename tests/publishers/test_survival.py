"""What would end the thread that sends, and with it all publishing, without a word."""

import asyncio
import threading
from contextlib import suppress

import pytest
from django.core.exceptions import ImproperlyConfigured
from gripcontrol import HttpResponseFormat, HttpStreamFormat
from sending import counters, text

from django_grip import apublish, publish
from django_grip.exceptions import PublishError
from django_grip.items import Item
from django_grip.publishers import get_publisher
from django_grip.signals import published
from servers import wait_until


def assert_told(reports):
    wait_until(lambda: reports.told, "somebody is told", timeout=4)
    ((_, ok, message),) = reports.told
    assert not ok
    assert message
    assert len(reports.failed) == 1


CONFIGURATIONS = {
    "a key that no header carries": "http://127.0.0.1:{port}?key=a%0Ab",
    "a key that is not latin-1": "http://127.0.0.1:{port}?key=%D0%BA",
    "a public key to sign with": "http://127.0.0.1:{port}?iss=a&key=-----BEGIN%20",
    "a name that cannot be looked up": "http://a..b:{port}",
    "a name with too long a label": "http://" + "a" * 70 + ".invalid:{port}",
    "a path that is not ASCII": "http://127.0.0.1:{port}/é",
}


@pytest.mark.parametrize("url", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_configuration_that_cannot_work_is_told(
    control, settings, reports, tuned, url
):
    tuned(RETRY_FOR=0.3, PATIENCE=1.0)
    settings.GRIP_URL = url.format(port=control.port)
    try:
        publish("room", text("a"), callback=reports.callback("a"))
    except ImproperlyConfigured:
        # Better still: before anything waits.
        return
    assert_told(reports)
    assert any("grip-sender" in each.name for each in threading.enumerate())


ITEMS = {
    "meta": (text("a"), {"k": object()}),
    "headers": (HttpResponseFormat(body="a", headers={"X": b"y"}), None),
    "filters": (HttpStreamFormat("a", content_filters={"skip-self"}), None),
    "half a character": (text("\ud800"), None),
    "half a character in a field": (HttpResponseFormat(reason="\ud800"), None),
    "half a character in meta": (text("a"), {"k": "\ud800"}),
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_an_item_that_is_no_json_is_told_and_the_next_one_arrives(
    control, reports, tuned, item
):
    tuned(PATIENCE=4.0)
    format_, meta = item
    try:
        publish("room", format_, meta=meta, callback=reports.callback("bad"))
    except (TypeError, ValueError):
        # Better still: at once, where the mistake is.
        pass
    else:
        assert_told(reports)
    publish("room", text("next"), blocking=True)
    assert control.contents == ["next"]


def test_events_that_are_not_what_they_promise_are_told(control, reports, tuned):
    tuned(PATIENCE=4.0)
    control.gate.clear()
    publish("room", text("first,"))
    control.wait(1)
    formats = {"http-stream": {"content": 5}}
    for number in range(2):
        item = Item(channel="room", formats=formats, events=True)
        get_publisher().enqueue([item], reports.callback(number))
    control.gate.set()
    wait_until(lambda: len(reports.told) == 2, "somebody is told", timeout=4)
    publish("room", text("last"), blocking=True)
    assert control.contents[-1] == "last"


class Unusual(BaseException):
    """As asyncio.CancelledError is one, and the failures of pytest."""


@pytest.mark.parametrize("error", [SystemExit, Unusual])
def test_whatever_a_callback_raises_ends_nothing(control, error):
    def callback(*told):
        raise error

    publish("room", text("a"), callback=callback)
    publish("room", text("b"), blocking=True)
    assert control.text == "ab"


@pytest.mark.parametrize("error", [SystemExit, Unusual])
def test_whatever_a_receiver_raises_ends_nothing(control, reports, error):
    def receiver(**kwargs):
        published.disconnect(receiver)
        raise error

    published.connect(receiver)
    publish("room", text("a"), callback=reports.callback("a"))
    publish("room", text("b"), blocking=True)
    assert control.text == "ab"
    assert reports.told == [("a", True, "")]


def test_a_loop_that_has_ended_before_its_answer_takes_nobody_along(control, reports):
    async def impatient():
        with suppress(TimeoutError):
            await asyncio.wait_for(apublish("room", text("b,")), 0.05)

    control.gate.clear()
    publish("room", text("first,"))
    control.wait(1)
    publish("room", text("a,"), callback=reports.callback("a"))
    asyncio.run(impatient())
    publish("room", text("c"), callback=reports.callback("c"))
    control.gate.set()
    wait_until(lambda: len(reports.told) == 2, "both are told", timeout=4)
    assert reports.told == [("a", True, ""), ("c", True, "")]
    wait_until(lambda: counters(control)["queued"] == 0, "nothing waits", timeout=4)
    publish("room", text("."), blocking=True)
    assert control.text.replace("b,", "") == "first,a,c."


def test_an_error_that_nobody_foresaw_is_told_and_the_next_item_arrives(
    control, reports, monkeypatch
):
    """The only way to something nobody foresaw is to make it."""
    from django_grip.publishers import sender

    pack, errors = sender.pack, [ZeroDivisionError("unforeseen")]

    def break_once(*args):
        if errors:
            raise errors.pop()
        return pack(*args)

    monkeypatch.setattr(sender, "pack", break_once)
    publish("room", text("a"), callback=reports.callback("a"))
    wait_until(lambda: reports.told, "somebody is told", timeout=4)
    try:
        publish("room", text("b"), blocking=True)
    except PublishError:
        pytest.fail("One error has ended the publishing of this process.")
    assert control.contents[-1] == "b"
