"""get_pubcontrol(): the engine under the names of django-grip 3.5.2."""

import threading

import pytest
from control_port import Answer
from gripcontrol import HttpResponseFormat, HttpStreamFormat, WebSocketMessageFormat
from pubcontrol import Item
from sending import numbers, text

from django_grip import get_pubcontrol, publish
from django_grip.exceptions import PublishError
from servers import wait_until


def items(control):
    return [item for post in control.accepted for item in post.items]


def test_publish_takes_an_item_of_the_pubcontrol_package(control):
    item = Item([HttpStreamFormat("a"), WebSocketMessageFormat("b")], "8", "7")
    get_pubcontrol().publish("room", item, blocking=True)
    assert items(control) == [
        {
            "channel": "room",
            "id": "8",
            "prev-id": "7",
            "formats": {
                "http-stream": {"content": "a"},
                "ws-message": {"content": "b"},
            },
        }
    ]


def test_meta_of_an_item_arrives_and_that_of_none_is_shared(control):
    engine = get_pubcontrol()
    engine.publish("room", Item(text("a"), meta={"k": "v"}), blocking=True)
    engine.publish("room", Item(text("b")), blocking=True)
    with_meta, without = items(control)
    assert with_meta["meta"] == {"k": "v"}
    assert "meta" not in without


@pytest.mark.parametrize("given", ["a", b"a", HttpStreamFormat("a")])
def test_publish_http_stream_takes_text_bytes_and_a_format(control, given):
    get_pubcontrol().publish_http_stream("room", given, "8", "7", blocking=True)
    assert items(control) == [
        {
            "channel": "room",
            "id": "8",
            "prev-id": "7",
            "formats": {"http-stream": {"content": "a"}},
        }
    ]


@pytest.mark.parametrize("given", ["a", b"a", HttpResponseFormat(body="a")])
def test_publish_http_response_takes_text_bytes_and_a_format(control, given):
    get_pubcontrol().publish_http_response("room", given, "8", "7", blocking=True)
    (item,) = items(control)
    assert item["formats"]["http-response"]["body"] == "a"
    assert (item["id"], item["prev-id"]) == ("8", "7")


def test_bytes_that_are_not_text_arrive_as_bytes(control):
    get_pubcontrol().publish_http_stream("room", b"\xff\x00", blocking=True)
    assert items(control)[0]["formats"] == {"http-stream": {"content-bin": "/wA="}}


def test_callbacks_are_told_and_blocking_raises(control, reports):
    engine = get_pubcontrol()
    engine.publish_http_stream("room", "a", callback=reports.callback("a"))
    engine.wait_all_sent()
    wait_until(lambda: reports.told, "the callback is told")
    control.behaviour = Answer(403, "No\n")
    with pytest.raises(PublishError):
        engine.publish_http_response(
            "room", "b", blocking=True, callback=reports.callback("b")
        )
    assert reports.told == [
        ("a", True, ""),
        ("b", False, f"{control.url}: HTTP 403: No"),
    ]


def test_it_is_the_engine_that_publish_uses_and_keeps_its_order(control):
    engine = get_pubcontrol()
    for number in range(0, 10, 2):
        publish("room", text(f"{number},"))
        engine.publish_http_stream("room", f"{number + 1},")
    engine.wait_all_sent()
    assert control.text == "".join(numbers(0, 10))


def test_wait_all_sent_returns_when_all_is_sent(control):
    engine = get_pubcontrol()
    control.gate.clear()
    engine.publish_http_stream("room", "a")
    ended = threading.Event()

    def wait():
        engine.wait_all_sent()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    control.wait(1)
    assert not ended.is_set()
    control.gate.set()
    assert ended.wait(20)
    engine.wait_all_sent()


def test_close_sends_what_waits_and_a_later_publish_starts_afresh(control):
    engine = get_pubcontrol()
    for number in numbers(0, 10):
        engine.publish_http_stream("room", number)
    engine.close()
    assert control.text == "".join(numbers(0, 10))
    engine.close()
    engine.publish_http_stream("room", "again", blocking=True)
    assert control.contents[-1] == "again"


def test_what_no_proxy_would_take_raises_at_once(control):
    engine = get_pubcontrol()
    with pytest.raises(ValueError, match="channel"):
        engine.publish_http_stream("a b", "x")
    with pytest.raises(TypeError, match="format"):
        engine.publish("room", Item(["x"]))
