import json
import logging
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from asgiref.sync import async_to_sync
from gripcontrol import HttpStreamFormat, WebSocketMessageFormat

from django_grip import apublish, publish
from django_grip.exceptions import PublishError
from django_grip.items import make_item
from django_grip.publishers import get_publisher
from django_grip.signals import publish_failed, published
from servers import ROOT, free_port, wait_until


class ControlPort:
    """A control port on a real socket that answers as it is told."""

    def __init__(self, port=0):
        self.posts = []
        self.times = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        control = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                control.times.append(time.monotonic())
                body = self.rfile.read(int(self.headers["Content-Length"]))
                control.gate.wait(10)
                control.posts.append((self.path, dict(self.headers), json.loads(body)))
                self.send_response(control.status)
                self.end_headers()
                self.wfile.write(b"Published\n")

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def contents(self):
        return [
            item["formats"]["http-stream"]["content"]
            for _, _, body in self.posts
            for item in body["items"]
        ]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def control(settings):
    port = ControlPort()
    settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
    settings.GRIP_URL = port.url
    yield port
    settings.GRIP_URL = None  # closes the publisher
    port.close()


def text(content):
    return HttpStreamFormat(content)


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
    path, headers, body = control.posts[0]
    assert path == "/publish/"
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers
    assert body == {
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


def test_fault_28_an_id_of_zero_is_an_id(control):
    publish("room", text("a"), id="0", prev_id="0", blocking=True)
    item = control.posts[0][2]["items"][0]
    assert (item["id"], item["prev-id"]) == ("0", "0")


def test_items_leave_in_order_and_what_waits_leaves_together(control):
    control.gate.clear()
    publish("room", text("0"))
    wait_until(lambda: control.times, "the first POST arrives")
    for number in range(1, 50):
        publish("room", text(str(number)))
    control.gate.set()
    publish("room", text("50"), blocking=True)
    assert control.contents == [str(number) for number in range(51)]
    assert len(control.posts) == 2


def test_posts_keep_the_interval_from_the_answer(control, settings):
    settings.GRIP_PUBLISH_INTERVAL = 0.05
    for number in range(4):
        publish("room", text(str(number)), blocking=True)
    gaps = [b - a for a, b in zip(control.times, control.times[1:], strict=False)]
    assert min(gaps) >= 0.05


def test_the_posts_of_one_large_delivery_keep_the_interval_too(control, settings):
    settings.GRIP_PUBLISH_INTERVAL = 0.05
    items = [make_item("room", text("x" * 400_000)) for _ in range(6)]
    get_publisher().publish(items)
    assert len(control.posts) == 3
    gaps = [b - a for a, b in zip(control.times, control.times[1:], strict=False)]
    assert min(gaps) >= 0.05


def test_large_deliveries_are_split_below_a_million_bytes(control):
    for _ in range(3):
        publish("room", text("x" * 400_000))
    publish("room", text("end"), blocking=True)
    assert len(control.contents) == 4
    assert all(len(json.dumps(body)) < 1_000_000 for _, _, body in control.posts)


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


def test_what_is_on_its_way_when_time_is_up_is_reported_once(control):
    told = []
    control.gate.clear()
    publish("room", text("a"), callback=lambda ok, message: told.append(message))
    wait_until(lambda: control.times, "the POST arrives")
    publish("room", text("b"), callback=lambda ok, message: told.append(message))
    publisher = get_publisher()
    publisher.close(timeout=0.1)
    assert told == [f"{control.url}: not sent before the process ended"] * 2
    control.gate.set()
    publisher._senders[0]._thread.join(5)
    assert len(told) == 2


def test_apublish_returns_when_accepted(control):
    async_to_sync(apublish)("room", text("a"))
    assert control.contents == ["a"]


def test_refusal_is_told_by_error_callback_and_signal(control):
    control.status = 400
    told, signalled = [], []
    done = threading.Event()

    def receiver(items, address, reason, **kwargs):
        signalled.append((items[0].channel, address, reason))

    publish_failed.connect(receiver)
    try:
        with pytest.raises(PublishError) as caught:
            publish("room", text("a"), blocking=True)
        publish(
            "room",
            text("b"),
            callback=lambda ok, message: (told.append((ok, message)), done.set()),
        )
        assert done.wait(5)
    finally:
        publish_failed.disconnect(receiver)
    assert caught.value.failures == {control.url: "HTTP 400: Published"}
    assert told == [(False, f"{control.url}: HTTP 400: Published")]
    assert signalled == [("room", control.url, "HTTP 400: Published")] * 2


def test_acceptance_is_told_by_callback_and_signal(control):
    told, signalled = [], []

    def receiver(items, address, **kwargs):
        signalled.append((items[0].channel, address))

    published.connect(receiver)
    try:
        publish(
            "room",
            text("a"),
            blocking=True,
            callback=lambda ok, message: told.append((ok, message)),
        )
    finally:
        published.disconnect(receiver)
    assert told == [(True, "")]
    assert signalled == [("room", control.url)]


def test_an_outage_is_logged_once_with_its_address_and_its_end(settings, caplog):
    port = free_port()
    settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
    settings.GRIP_URL = f"http://127.0.0.1:{port}?key=a-secret-token"
    caplog.set_level(logging.INFO, "django_grip")
    for _ in range(3):
        with pytest.raises(PublishError, match="refused"):
            publish("room", text("a"), blocking=True)
    control = ControlPort(port)
    try:
        publish("room", text("b"), blocking=True)
    finally:
        settings.GRIP_URL = None
        control.close()
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert f"http://127.0.0.1:{port} failed" in messages[0]
    assert "works again; 3 items were not delivered" in messages[1]
    # S47: no key in a log.
    assert "a-secret-token" not in caplog.text


def test_a_dead_proxy_is_named_and_the_other_gets_the_item(control, settings):
    dead = f"http://127.0.0.1:{free_port()}"
    settings.GRIP_PROXIES = [{"control_uri": dead}]
    with pytest.raises(PublishError) as caught:
        publish("room", text("a"), blocking=True)
    assert list(caught.value.failures) == [dead]
    assert control.contents == ["a"]


@pytest.mark.parametrize(
    ("query", "authorization"),
    [("?key=token", "Bearer token"), ("?iss=me&key=" + "s" * 32, "Bearer ey")],
)
def test_a_key_authorizes_the_publish(control, settings, query, authorization):
    settings.GRIP_URL = control.url + "/realm/x/" + query
    publish("room", text("a"), blocking=True)
    path, headers, _ = control.posts[0]
    assert path == "/realm/x/publish/"
    assert headers["Authorization"].startswith(authorization)


def test_basic_authorization_and_foreign_query_parameters(control, settings):
    settings.GRIP_URL = f"http://u:p@127.0.0.1:{control.port}/x?foo=1"
    publish("room", text("a"), blocking=True)
    path, headers, _ = control.posts[0]
    assert path == "/x/publish/?foo=1"
    assert headers["Authorization"] == "Basic dTpw"


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


PROGRAM = """
import os, sys
from django.conf import settings
settings.configure(GRIP_URL=sys.argv[1], INSTALLED_APPS=["django_grip"])
import threading, django
django.setup()
assert threading.active_count() == 1, "a thread at import"
from gripcontrol import HttpStreamFormat
from django_grip import publish
"""


def run(code, url):
    subprocess.run(
        [sys.executable, "-c", PROGRAM + code, url], check=True, cwd=ROOT, timeout=30
    )


def test_a_program_that_exits_at_once_loses_nothing(control):
    run("for n in range(100): publish('room', HttpStreamFormat(str(n)))", control.url)
    assert control.contents == [str(number) for number in range(100)]


def test_a_forked_child_publishes_with_a_sender_of_its_own(control):
    run(
        """
publish('room', HttpStreamFormat('parent'), blocking=True)
pid = os.fork()
if pid == 0:
    publish('room', HttpStreamFormat('child'), blocking=True)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
""",
        control.url,
    )
    assert control.contents == ["parent", "child"]
