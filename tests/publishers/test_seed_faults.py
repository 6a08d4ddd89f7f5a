"""Faults 18 to 29 of django-grip 3.5.2 and the libraries under it, by number."""

import inspect
import os
import signal
import threading
import time

import jwt
import pytest
from control_port import hang
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from gripcontrol import WebSocketMessageFormat
from sending import text

from django_grip import apublish, get_pubcontrol, publish
from django_grip.exceptions import PublishError
from django_grip.items import make_item
from django_grip.publishers import get_publisher
from tests.shop.models import Order

SECRET = "s" * 32


@pytest.mark.parametrize("function", [publish, apublish, make_item])
def test_fault_18_no_default_can_be_changed(function):
    for parameter in inspect.signature(function).parameters.values():
        assert parameter.default in (parameter.empty, None, False)


def test_fault_18_meta_of_one_publish_is_not_that_of_the_next(control):
    meta = {"sender": "a"}
    control.gate.clear()
    publish("other", text("first"))
    control.wait(1)
    publish("room", text("a"), meta=meta)
    meta["sender"] = "changed while it waits"
    publish("room", text("b"))
    control.gate.set()
    get_publisher().wait_all_sent()
    _, with_meta, without = [item for post in control.posts for item in post.items]
    assert with_meta["meta"] == {"sender": "a"}
    assert "meta" not in without


def test_fault_18_a_web_socket_message_may_close(control):
    message = WebSocketMessageFormat(action="close", code=4001)
    publish("room", message, blocking=True)
    (item,) = control.posts[0].items
    assert item["formats"]["ws-message"] == {"action": "close", "code": 4001}


def test_fault_19_a_control_port_that_hangs_blocks_nobody_for_ever(control, tuned):
    tuned(PATIENCE=0.3, TIMEOUT=0.3)
    control.script.append(hang)
    with pytest.raises(PublishError):
        publish("room", text("a"), blocking=True)
    publish("room", text("b"), blocking=True)
    assert control.contents == ["b"]


def test_fault_19_a_post_is_repeated_until_it_is_taken_not_once(control):
    control.script += [500, 500, 500]
    publish("room", text("a"), id="1", blocking=True)
    assert len({post.raw for post in control.posts}) == 1
    assert len(control.posts) == 4


def test_fault_20_a_thousand_items_leave_in_one_post(control):
    control.gate.clear()
    publish("first", text("first"))
    control.wait(1)
    for number in range(1000):
        publish(f"room-{number}", text("x"))
    control.gate.set()
    get_publisher().wait_all_sent()
    assert [len(post.items) for post in control.posts] == [1, 1000]


def test_fault_20_threads_are_as_many_as_proxies_and_none_while_idle(
    control_port, settings
):
    ports = [control_port(), control_port()]
    settings.GRIP_PROXIES = [{"control_uri": port.url} for port in ports]
    get_publisher()
    assert not senders()
    for number in range(10):
        publish(f"room-{number}", text("x"))
    assert len(senders()) == 2
    get_publisher().close()
    assert not senders()


def senders():
    return [each for each in threading.enumerate() if "grip-sender" in each.name]


def test_fault_20_a_token_is_made_anew_before_it_expires(
    control, settings, monkeypatch
):
    settings.GRIP_URL = f"{control.url}?iss=me&key={SECRET}"
    begin, now = time.time(), time.time
    publish("room", text("a"), blocking=True)
    ages = [600, 3590, 3610, 100_000]
    for age in ages:
        monkeypatch.setattr(time, "time", lambda age=age: now() + age)
        publish("room", text("a"), blocking=True)
    monkeypatch.undo()
    for age, post in zip([0, *ages], control.posts, strict=True):
        scheme, token = post.headers["Authorization"].split()
        claims = jwt.decode(
            token, SECRET, algorithms=["HS256"], options={"verify_exp": False}
        )
        assert scheme == "Bearer"
        assert claims["iss"] == "me"
        # A minute for clocks that differ.
        assert claims["exp"] > begin + age + 60


def test_fault_20_an_item_that_waits_has_no_token_that_grows_old(
    control, settings, monkeypatch
):
    settings.GRIP_URL = f"{control.url}?iss=me&key={SECRET}"
    now = time.time
    control.gate.clear()
    control.script.append(503)
    publish("room", text("a"))
    control.wait(1)
    monkeypatch.setattr(time, "time", lambda: now() + 4000)
    control.gate.set()
    get_publisher().wait_all_sent()
    monkeypatch.undo()
    first, second = (post.headers["Authorization"] for post in control.posts)
    assert first != second


def test_fault_21_a_forked_child_publishes_though_its_parent_has(control):
    publish("room", text("parent,"), blocking=True)
    pid = os.fork()
    if pid == 0:
        # A child that stands still must not keep the test.
        signal.alarm(10)
        try:
            publish("room", text("child,"))
            get_publisher().wait_all_sent()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    publish("room", text("parent"), blocking=True)
    assert control.contents == ["parent,", "child,", "parent"]


def test_fault_22_closing_twice_is_harmless(control):
    engine = get_pubcontrol()
    engine.publish_http_stream("room", "a")
    engine.close()
    engine.close()
    publish("room", text("b"), blocking=True)
    assert control.contents == ["a", "b"]


def test_fault_22_a_callback_may_publish_while_all_is_waited_for(control):
    control.gate.clear()
    publish("room", text("a"), callback=lambda *told: publish("room", text("b")))
    control.wait(1)
    waiting = threading.Thread(target=get_publisher().wait_all_sent)
    waiting.start()
    control.gate.set()
    waiting.join(20)
    assert not waiting.is_alive()
    assert control.text == "ab"


@pytest.mark.parametrize(
    ("userinfo", "authorization"),
    [("u:p", "Basic dTpw"), ("u", "Basic dTo="), ("u%40x:p%3Ay", "Basic dUB4OnA6eQ==")],
)
def test_fault_23_basic_authorization_is_text(
    control, settings, userinfo, authorization
):
    settings.GRIP_URL = f"http://{userinfo}@127.0.0.1:{control.port}"
    publish("room", text("a"), blocking=True)
    assert control.posts[0].headers["Authorization"] == authorization


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("", "/publish/"),
        ("/", "/publish/"),
        ("/x?foo=1", "/x/publish/?foo=1"),
        ("/x/?foo=1&key=token&bar=2", "/x/publish/?foo=1&bar=2"),
    ],
)
def test_fault_24_the_query_of_the_url_stays_behind_the_path(
    control, settings, path, target
):
    settings.GRIP_URL = control.url + path
    publish("room", text("a"), blocking=True)
    assert control.posts[0].target == target


def test_fault_25_the_first_proxy_that_fails_does_not_keep_others_from_the_item(
    control_port, settings, tuned
):
    tuned(PATIENCE=0.5)
    dead, refusing, living = control_port(is_up=False), control_port(), control_port()
    refusing.behaviour = 403
    settings.GRIP_PROXIES = [
        {"control_uri": port.url} for port in (dead, refusing, living)
    ]
    with pytest.raises(PublishError) as caught:
        publish("room", text("a"), blocking=True)
    assert set(caught.value.failures) == {dead.url, refusing.url}
    assert living.contents == ["a"]


@pytest.mark.parametrize(
    "setting",
    [
        {"GRIP_PROXIES": [{"control_uri": "http://a", "require_subscribers": True}]},
        {"PUBLISH_SERVERS": [{"uri": "http://a", "require_subscribers": True}]},
        {"GRIP_PROXIES": [{"control_zmq_uri": "tcp://127.0.0.1:5563"}]},
        {"PUBLISH_SERVERS": [{"zmq_uri": "tcp://127.0.0.1:5563"}]},
        {"PUBLISH_SERVERS": [{"zmq_pub_uri": "tcp://127.0.0.1:5563"}]},
        {"PUBLISH_SERVERS": [{"zmq_push_uri": "tcp://127.0.0.1:5563"}]},
        {"GRIP_URL": "tcp://127.0.0.1:5563"},
    ],
)
def test_fault_26_27_what_would_not_work_is_refused_in_the_settings(settings, setting):
    settings.GRIP_URL = None
    settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
    for name, value in setting.items():
        setattr(settings, name, value)
    with pytest.raises(ImproperlyConfigured):
        publish("room", text("a"))


def test_fault_28_an_id_of_zero_is_an_id(control):
    publish("room", text("a"), id="0", prev_id="0", blocking=True)
    (item,) = control.posts[0].items
    assert (item["id"], item["prev-id"]) == ("0", "0")


@pytest.mark.parametrize("id", ["", 0, False, 5, b"5"])
def test_fault_28_what_is_no_id_raises_and_is_not_dropped_in_silence(control, id):
    with pytest.raises(ValueError, match="non-empty str"):
        publish("room", text("a"), id=id)
    with pytest.raises(ValueError, match="non-empty str"):
        publish("room", text("a"), prev_id=id)
    assert not control.posts


def sent_so_far(control):
    """Channels of what has been sent, all that was published before included."""
    publish("marker", text("marker"), blocking=True)
    return [item["channel"] for post in control.posts for item in post.items][:-1]


@pytest.mark.django_db(transaction=True)
def test_fault_29_a_change_is_published_when_it_is_committed(control):
    with transaction.atomic():
        order = Order.objects.create()
        assert sent_so_far(control) == []
    assert sent_so_far(control)[1:] == ["shop.order", f"shop.order.{order.pk}"]


@pytest.mark.django_db(transaction=True)
def test_fault_29_a_change_that_is_rolled_back_is_not_published(control):
    with pytest.raises(RuntimeError, match="no order"), transaction.atomic():
        Order.objects.create()
        raise RuntimeError("no order")
    assert sent_so_far(control) == []
