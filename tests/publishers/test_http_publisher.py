"""What the HTTP publisher sends, and how it says what became of it."""

import json
import threading

import pytest
from asgiref.sync import async_to_sync
from control_port import Answer
from gripcontrol import HttpResponseFormat, WebSocketMessageFormat
from sending import counters, numbers, text

from django_grip import apublish, publish
from django_grip.exceptions import PublishError
from django_grip.items import make_item
from django_grip.publishers import get_publisher
from servers import wait_until


def test_item_arrives_as_the_control_port_takes_it(control, settings):
    settings.GRIP_PREFIX = "p-"
    publish(
        "room",
        [text("é\n"), WebSocketMessageFormat(b"\x00", binary=True)],
        id="8",
        prev_id="7",
        blocking=True,
        meta={"sender": "a"},
    )
    (post,) = control.posts
    assert post.target == "/publish/"
    assert post.headers["Content-Type"] == "application/json"
    assert "Authorization" not in post.headers
    assert json.loads(post.raw) == {
        "items": [
            {
                "channel": "p-room",
                "id": "8",
                "prev-id": "7",
                "meta": {"sender": "a"},
                "formats": {
                    "http-stream": {"content": "é\n"},
                    "ws-message": {"content-bin": "AA=="},
                },
            }
        ]
    }


def test_items_leave_in_order_and_what_waits_leaves_together(control):
    control.gate.clear()
    publish("room", text("0,"))
    control.wait(1)
    for number in numbers(1, 50):
        publish("room", text(number))
    publish("other", text("other"))
    control.gate.set()
    publish("room", text("50,"), blocking=True)
    assert len(control.posts) <= 3
    assert control.posts[1].contents[:2] == ["".join(numbers(1, 50)), "other"]
    assert control.text.replace("other", "") == "".join(numbers(0, 51))


def test_a_blocking_item_keeps_its_place_among_the_others_and_is_not_joined(control):
    control.gate.clear()
    publish("room", text("0,"))
    control.wait(1)
    publish("room", text("1,"))
    blocking = threading.Thread(
        target=publish, args=("room", text("2,")), kwargs={"blocking": True}
    )
    blocking.start()
    wait_until(lambda: counters(control)["queued"] == 3, "the item waits")
    publish("room", text("3,"))
    control.gate.set()
    blocking.join(20)
    get_publisher().wait_all_sent()
    assert control.contents == ["0,", "1,", "2,", "3,"]


def test_large_deliveries_are_split_below_a_million_bytes(control):
    for _ in range(3):
        publish("room", text("x" * 400_000))
    publish("room", text("end"), blocking=True)
    assert len(control.contents) == 4
    assert all(len(post.raw) < 1_000_000 for post in control.posts)


def test_control_characters_that_json_makes_longer_count_as_they_are_sent(control):
    for number in range(3):
        # Six bytes each as \u0001.
        publish(f"room-{number}", text("\x01" * 140_000))
    publish("room", text("end"), blocking=True)
    assert len(control.contents) == 4
    assert all(len(post.raw) < 1_000_000 for post in control.posts)


def test_an_item_no_proxy_would_take_fails_alone(control):
    with pytest.raises(PublishError, match=r"an item of 1,\d{3},\d{3} bytes"):
        publish("room", text("x" * 1_000_000), blocking=True)
    publish("room", text("next"), blocking=True)
    assert control.contents == ["next"]


def test_an_item_no_proxy_would_take_does_not_take_its_companions_along(
    control, caplog
):
    items = [make_item("room", text(content)) for content in ("a", "x" * 10**6, "b")]
    with pytest.raises(PublishError, match="for channel room"):
        get_publisher().publish(items)
    assert control.contents == ["a", "b"]
    (record,) = caplog.records
    assert "Not published" in record.getMessage()
    assert "xxx" not in record.getMessage()


def test_half_a_character_fails_alone(control):
    items = [make_item("room", text(content)) for content in ("a", "\ud800", "b")]
    with pytest.raises(PublishError, match="surrogates"):
        get_publisher().publish(items)
    assert control.contents == ["a", "b"]


def test_what_is_on_its_way_when_time_is_up_is_reported_once(control, reports):
    control.gate.clear()
    publish("room", text("a"), callback=reports.callback("a"))
    control.wait(1)
    publish("room", text("b"), callback=reports.callback("b"))
    get_publisher().close(timeout=0.1)
    reason = "not sent before the publisher was closed"
    told = [(name, False, f"{control.url}: {reason}") for name in "ab"]
    assert reports.told == told
    control.gate.set()
    wait_until(
        lambda: not any("grip-sender" in t.name for t in threading.enumerate()),
        "the sender ends",
    )
    assert reports.told == told
    assert reports.contents_failed == ["a", "b"]
    assert not reports.published


def test_apublish_returns_when_accepted(control):
    async_to_sync(apublish)("room", text("a"))
    assert control.contents == ["a"]


def test_apublish_raises_what_publish_raises(control):
    control.behaviour = Answer(403, "Forbidden\n")
    with pytest.raises(PublishError) as caught:
        async_to_sync(apublish)("room", text("a"))
    assert caught.value.failures == {control.url: "HTTP 403: Forbidden"}


def test_apublish_waits_no_longer_than_patience(control, tuned):
    tuned(PATIENCE=0.3)
    control.gate.clear()
    with pytest.raises(PublishError) as caught:
        async_to_sync(apublish)("room", text("a"))
    assert list(caught.value.failures) == [control.url]


def test_refusal_is_told_by_error_callback_and_signal(control, reports):
    control.behaviour = Answer(400, "Bad\n")
    with pytest.raises(PublishError) as caught:
        publish("room", text("a"), blocking=True)
    publish("room", text("b"), callback=reports.callback("b"))
    wait_until(lambda: reports.told, "the callback is told")
    assert caught.value.failures == {control.url: "HTTP 400: Bad"}
    assert reports.told == [("b", False, f"{control.url}: HTTP 400: Bad")]
    assert [(item.channel, *rest) for item, *rest in reports.failed] == [
        ("room", control.url, "HTTP 400: Bad")
    ] * 2


def test_acceptance_is_told_by_callback_and_signal(control, reports):
    publish("room", text("a"), blocking=True, callback=reports.callback("a"))
    assert reports.told == [("a", True, "")]
    ((item, address),) = reports.published
    assert (item.channel, address) == ("room", control.url)


def test_a_publish_server_gets_the_items_too(control, control_port, settings):
    server = control_port()
    settings.PUBLISH_SERVERS = [{"uri": server.url, "key": "a-token"}]
    publish("room", text("a"), blocking=True)
    assert control.contents == server.contents == ["a"]
    assert server.posts[0].headers["Authorization"] == "Bearer a-token"


def test_without_any_server_a_publish_is_done_at_once(settings, reports):
    settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
    settings.GRIP_URL = None
    publish("room", text("a"), blocking=True)
    publish("room", text("b"), callback=reports.callback("b"))
    assert reports.told == [("b", True, "")]


@pytest.mark.parametrize(
    ("query", "authorization"),
    [("?key=token", "Bearer token"), ("?iss=me&key=" + "s" * 32, "Bearer ey")],
)
def test_a_key_authorizes_the_publish(control, settings, query, authorization):
    settings.GRIP_URL = control.url + "/realm/x/" + query
    publish("room", text("a"), blocking=True)
    (post,) = control.posts
    assert post.target == "/realm/x/publish/"
    assert post.headers["Authorization"].startswith(authorization)


@pytest.mark.parametrize(
    ("channel", "formats", "options", "error"),
    [
        ("a b", text("x"), {}, ValueError),
        ("a", [], {}, ValueError),
        ("a", [text("x"), text("y")], {}, ValueError),
        ("a", "x", {}, TypeError),
        ("a", text("x"), {"id": ""}, ValueError),
        ("a", text("x"), {"id": 5}, ValueError),
    ],
)
def test_what_no_proxy_would_take_raises_at_once(channel, formats, options, error):
    with pytest.raises(error):
        publish(channel, formats, **options)


def test_formats_of_every_kind_arrive(control):
    publish("room", HttpResponseFormat(body="a", headers={"X": "y"}), blocking=True)
    publish("room", WebSocketMessageFormat("b"), blocking=True)
    assert [post.items[0]["formats"] for post in control.posts] == [
        {"http-response": {"headers": {"X": "y"}, "body": "a"}},
        {"ws-message": {"content": "b"}},
    ]
