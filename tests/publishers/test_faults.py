"""Control ports that fail, each on a real socket, and what becomes of the items."""

import itertools
import json
import logging
import socket
import time

import pytest
from control_port import Answer, ControlPort, Drip, close, hang, raw, reset
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sending import counters, numbers, text

from django_grip import publish
from django_grip.exceptions import PublishError
from django_grip.proxies import Proxy
from django_grip.publishers.endpoint import Endpoint
from servers import wait_until

# An outage, from its beginning to its end.


def test_what_waits_in_an_outage_arrives_in_order_when_it_ends(control_down, reports):
    for number in numbers(0, 20):
        publish("room", text(number), callback=reports.callback(number))
    wait_until(lambda: counters(control_down)["retried"] >= 2, "two repetitions")
    assert counters(control_down)["queued"] == 20
    control_down.up()
    publish("room", text("end"), blocking=True)
    assert control_down.text == "".join(numbers(0, 20)) + "end"
    assert reports.told == [(number, True, "") for number in numbers(0, 20)]
    assert not reports.failed
    assert counters(control_down)["dropped"] == 0


def test_each_outage_is_logged_once_with_its_end(control, caplog):
    caplog.set_level(logging.INFO, "django_grip")
    for outage in (1, 2):
        control.down()
        repeated = outage * 3
        publish("room", text("a"))
        wait_until(lambda n=repeated: counters(control)["retried"] >= n, "repetitions")
        control.up()
        publish("room", text("b"), blocking=True)
    levels = [record.levelname for record in caplog.records]
    messages = [record.getMessage() for record in caplog.records]
    assert levels == ["ERROR", "WARNING"] * 2, messages
    for begin, end in (messages[:2], messages[2:]):
        assert control.url in begin
        assert "refused" in begin
        assert control.url in end
        assert "works again" in end


def test_the_end_of_an_outage_says_how_many_items_were_dropped(
    control_down, reports, caplog, tuned
):
    tuned(RETRY_FOR=0.3)
    for number in numbers(0, 3):
        publish("room", text(number))
    wait_until(lambda: len(reports.failed) == 3, "the items are given up")
    tuned(RETRY_FOR=60.0)
    control_down.up()
    publish("room", text("after"), blocking=True)
    begin, end = caplog.records
    assert begin.levelname == "ERROR"
    assert end.levelname == "WARNING"
    assert "3 items" in end.getMessage()
    assert control_down.contents == ["after"]


def test_items_are_given_up_when_they_are_too_old_and_say_the_last_error(
    control, reports, tuned
):
    tuned(RETRY_FOR=0.3)
    control.behaviour = Answer(503, "Busy\n")
    publish("room", text("old"), callback=reports.callback("old"))
    wait_until(lambda: reports.told, "the item is given up")
    ((_, ok, message),) = reports.told
    assert not ok
    assert message.startswith(control.url)
    assert "HTTP 503: Busy" in message
    assert reports.contents_failed == ["old"]
    assert counters(control)["dropped"] == 1
    assert counters(control)["queued"] == 0
    assert len(control.posts) > 1
    control.behaviour = Answer()
    publish("room", text("new"), blocking=True)
    assert control.contents == ["new"]


def test_each_item_has_a_time_of_its_own(control, reports, tuned):
    tuned(BACK_OFF=(0.05, 0.05))
    control.behaviour = Answer(500)
    begin = time.monotonic()
    publish("room", text("old"), callback=reports.callback("old"))
    wait_until(lambda: time.monotonic() - begin > 1.0, "the old item is old")
    publish("room", text("young"), callback=reports.callback("young"))
    tuned(RETRY_FOR=0.9)
    wait_until(lambda: reports.told, "the old item is given up")
    control.behaviour = Answer()
    wait_until(lambda: len(reports.told) == 2, "the young item is settled")
    assert reports.told[1] == ("young", True, "")
    assert control.contents == ["young"]


# Answers after which the same bytes may be taken.

TRANSIENT = {
    "HTTP 408": 408,
    "HTTP 425": 425,
    "HTTP 429": 429,
    "HTTP 500": 500,
    "HTTP 502": 502,
    "HTTP 503": 503,
    "HTTP 504": 504,
    "closed without an answer": close,
    "reset without an answer": reset(),
    "reset in the status line": reset(b"HTTP/1.1 20"),
    "reset in the headers": reset(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "reset in the body": reset(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nPub"),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "an endless header": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
    "too many headers": raw(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200 + b"\r\n"),
}


@pytest.mark.parametrize("behaviour", TRANSIENT.values(), ids=TRANSIENT)
def test_what_may_pass_is_sent_again_with_the_same_bytes(
    control, reports, tuned, behaviour
):
    tuned(BACK_OFF=(0.02, 0.02))
    control.script.append(behaviour)
    control.gate.clear()
    publish("room", text("a,"), id="7", prev_id="6")
    control.wait(1)
    publish("room", text("b,"), id="8", prev_id="7")
    control.gate.set()
    publish("room", text("c"), id="9", prev_id="8", blocking=True)
    first, second = control.posts[:2]
    assert first.items[0]["id"] == "7"
    # What came meanwhile may go along, behind what is repeated byte by byte.
    assert second.raw.startswith(first.raw.removesuffix(b"]}"))
    assert control.text == "a,b,c"
    assert not reports.failed
    assert counters(control)["retried"] == 1


def test_repetitions_come_at_growing_distances(control, tuned):
    control.behaviour = Answer(500)
    publish("room", text("a"))
    posts = control.wait(5)
    gaps = [b.arrived - a.arrived for a, b in itertools.pairwise(posts)]
    # 0.1, 0.2, 0.4, 0.8 s, of which jitter takes at most half.
    for gap, least in zip(gaps, (0.05, 0.1, 0.2, 0.4), strict=True):
        assert gap >= least * 0.9


# A control port that is slow, or says nothing.


def test_a_hanging_control_port_keeps_nobody_longer_than_patience(control, tuned):
    tuned(PATIENCE=0.3)
    control.behaviour = hang
    begin = time.monotonic()
    publish("room", text("a"))
    with pytest.raises(PublishError) as caught:
        publish("room", text("b"), blocking=True)
    assert time.monotonic() - begin < 3
    assert list(caught.value.failures) == [control.url]


def test_an_item_that_was_not_waited_for_to_the_end_does_not_arrive_later(
    control, tuned
):
    tuned(PATIENCE=0.3, TIMEOUT=1.0)
    control.gate.clear()
    publish("room", text("first,"))
    control.wait(1)
    with pytest.raises(PublishError):
        publish("room", text("withdrawn,"), blocking=True)
    assert counters(control)["dropped"] == 1
    control.gate.set()
    tuned(PATIENCE=5.0)
    publish("room", text("last"), blocking=True)
    assert control.text.replace("first,", "") == "last"
    assert all("withdrawn" not in post.raw.decode() for post in control.posts)


def test_an_item_that_was_withdrawn_on_its_way_is_not_sent_again(control, tuned):
    tuned(PATIENCE=0.3, TIMEOUT=1.0)
    control.script.append(hang)
    with pytest.raises(PublishError):
        publish("room", text("withdrawn"), blocking=True)
    tuned(PATIENCE=5.0)
    publish("room", text("next"), blocking=True)
    assert [post.contents for post in control.posts] == [["withdrawn"], ["next"]]


SLOW = {
    "status line": Drip(0.05),
    "headers": Drip(0.05, Answer(headers={"X": "x" * 1000}), skip=20),
    "body": Drip(0.05, Answer(text="x" * 900), skip=60),
    "rest of a header": Drip(0.05, Answer(200, headers={"Y": "y" * 900}), skip=60),
}


@pytest.mark.parametrize("part", SLOW)
def test_an_answer_of_a_byte_at_a_time_is_cut_and_the_item_sent_again(
    control, tuned, part
):
    tuned(TIMEOUT=0.4)
    control.script.append(SLOW[part])
    publish("room", text("a"), blocking=True)
    assert SLOW[part].ended.wait(5)
    # Every single byte came in time; the answer as a whole did not.
    assert SLOW[part].sent < len(SLOW[part].answer) - SLOW[part].skip
    assert len(control.posts) == 2
    assert control.posts[0].raw == control.posts[1].raw


def test_interim_answers_without_end_are_cut(control, tuned):
    tuned(TIMEOUT=0.4)
    interim = raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)

    def never_final(connection, post):
        while True:
            interim(connection, post)

    control.script.append(never_final)
    publish("room", text("a"), blocking=True)
    assert len(control.posts) == 2


def test_an_answer_without_end_is_not_read_to_its_end(control):
    def endless(connection, post):
        raw(b"HTTP/1.1 400 Bad\r\n\r\n")(connection, post)
        while True:
            connection.socket.sendall(b"x" * 65536)

    control.script.append(endless)
    with pytest.raises(PublishError, match="HTTP 400: x"):
        publish("room", text("a"), blocking=True)
    publish("room", text("b"), blocking=True)
    assert control.contents == ["b"]


def test_a_control_port_that_reads_nothing_is_given_up_in_time(
    control_port, settings, tuned
):
    tuned(TIMEOUT=0.4)
    control = control_port(is_reading=False)
    settings.GRIP_URL = control.url
    publish("room", text("x" * 800_000))
    wait_until(lambda: control.connections >= 2, "the item is sent again")


def test_a_host_that_does_not_answer_the_connect_is_given_up_in_time(settings, tuned):
    tuned(TIMEOUT=0.3, RETRY_FOR=0.5, BACK_OFF=(0.05, 0.05))
    settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = fill_backlog(full.getsockname())
        settings.GRIP_URL = f"http://127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(PublishError, match=r"timed out|within"):
            publish("room", text("a"), blocking=True)
        for client in waiting:
            client.close()
    settings.GRIP_URL = None


def fill_backlog(address):
    """Connect until connects are no longer answered."""
    clients = []
    while True:
        client = socket.socket()
        clients.append(client)
        client.settimeout(0.2)
        try:
            client.connect(address)
        except TimeoutError:
            return clients


# Answers that will not change.


@pytest.mark.parametrize("status", [401, 403, 404, 405, 411])
def test_a_final_refusal_fails_at_once_and_is_not_repeated(control, reports, status):
    control.script.append(Answer(status, "No\n"))
    with pytest.raises(PublishError) as caught:
        publish("room", text("a"), blocking=True)
    assert caught.value.failures == {control.url: f"HTTP {status}: No"}
    publish("room", text("b"), blocking=True)
    assert [post.contents for post in control.posts] == [["a"], ["b"]]
    assert reports.contents_failed == ["a"]
    assert reports.contents_published == ["b"]
    assert counters(control)["retried"] == 0


def test_the_log_of_a_final_refusal_does_not_say_that_it_is_tried_again(
    control, caplog
):
    control.behaviour = Answer(401, "No\n")
    with pytest.raises(PublishError):
        publish("room", text("a"), blocking=True)
    (record,) = caplog.records
    assert "HTTP 401: No" in record.getMessage()
    assert "tried again" not in record.getMessage()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(control_port, control, status):
    elsewhere = control_port()
    control.script.append(Answer(status, "", {"Location": elsewhere.url + "/publish/"}))
    with pytest.raises(PublishError, match=f"HTTP {status}"):
        publish("room", text("a"), blocking=True)
    publish("room", text("b"), blocking=True)
    assert not elsewhere.connections
    assert [post.contents for post in control.posts] == [["a"], ["b"]]


def refuse(*bad, status=400):
    """Refuses a POST that has any of these contents, as Pushpin does."""

    def behave(connection, post):
        if any(word in content for content in post.contents for word in bad):
            Answer(status, "Invalid content\n")(connection, post)
        else:
            Answer()(connection, post)

    return behave


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_item_among_a_hundred_fails_alone_with_its_reason(
    control, reports, status
):
    control.behaviour = refuse("<37>", status=status)
    control.gate.clear()
    publish("before", text("before"))
    control.wait(1)
    contents = [f"<{number}>" for number in range(100)]
    for number, content in enumerate(contents):
        publish(f"room-{number}", text(content), callback=reports.callback(content))
    control.gate.set()
    publish("after", text("after"), blocking=True)
    good = [content for content in contents if content != "<37>"]
    assert control.contents == ["before", *good, "after"]
    reason = f"HTTP {status}: Invalid content"
    told = {name: (ok, message) for name, ok, message in reports.told}
    assert len(reports.told) == 100
    assert told.pop("<37>") == (False, f"{control.url}: {reason}")
    assert set(told.values()) == {(True, "")}
    ((item, address, failed_because),) = reports.failed
    assert (item.channel, address, failed_because) == ("room-37", control.url, reason)
    assert len(control.posts) < 30
    assert counters(control)["sent"] == 101
    assert counters(control)["dropped"] == 1


def test_several_bad_items_fail_alone(control, reports):
    bad = ["<0>", "<24>", "<25>", "<49>"]
    control.behaviour = refuse(*bad)
    control.gate.clear()
    publish("before", text("before"))
    control.wait(1)
    contents = [f"<{number}>" for number in range(50)]
    for number, content in enumerate(contents):
        publish(f"room-{number}", text(content))
    control.gate.set()
    publish("after", text("after"), blocking=True)
    good = [content for content in contents if content not in bad]
    assert control.contents == ["before", *good, "after"]
    assert reports.contents_failed == bad


def test_a_bad_item_does_not_take_those_along_it_was_joined_with(control, reports):
    control.behaviour = refuse("<37>")
    control.gate.clear()
    publish("room", text("before"))
    control.wait(1)
    contents = [f"<{number}>" for number in range(100)]
    for content in contents:
        publish("room", text(content))
    control.gate.set()
    publish("room", text("after"), blocking=True)
    good = [content for content in contents if content != "<37>"]
    assert control.text == "before" + "".join(good) + "after"
    assert reports.contents_failed == ["<37>"]


def test_a_bad_item_in_an_outage_fails_alone_when_it_ends(control_down, reports):
    control_down.behaviour = refuse("<3>")
    for number in range(8):
        publish(f"room-{number}", text(f"<{number}>"))
    wait_until(lambda: counters(control_down)["retried"] >= 1, "a repetition")
    # Halves may fail for other reasons, too, and are then repeated.
    control_down.script += [Answer(400, "Invalid\n"), Answer(500), reset()]
    control_down.up()
    publish("after", text("after"), blocking=True)
    good = [f"<{number}>" for number in range(8) if number != 3]
    assert control_down.contents == [*good, "after"]
    assert reports.contents_failed == ["<3>"]


# Bytes nobody foresaw.


HOSTILE = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda status, headers, body: (
            b"HTTP/1.1 " + status + b"\r\n" + headers + b"\r\n\r\n" + body
        ),
        st.one_of(st.binary(max_size=8), st.integers(0, 999).map(b"%03d X".__mod__)),
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [
                    b"Transfer-Encoding: chunked",
                    b"Content-Length: 99",
                    b"Content-Length: -1",
                    b"Content-Length: x",
                    b"Connection: keep-alive",
                ]
            ),
        ),
        st.binary(max_size=50),
    ),
)


@pytest.fixture(scope="module")
def hostile():
    control = ControlPort()
    yield control
    control.close()


@given(HOSTILE)
@hypothesis_settings(deadline=None, max_examples=100)
def test_whatever_bytes_come_back_are_an_answer_or_an_error(hostile, data):
    hostile.behaviour = raw(data)
    endpoint = Endpoint(Proxy(control_uri=hostile.url))
    answer = endpoint.post(b'{"items":[]}')
    endpoint.close()
    assert answer.status or answer.text
    assert answer.reason.isprintable()


# Several proxies.


@pytest.fixture
def living(control_port):
    return control_port()


def use(settings, *controls):
    settings.GRIP_PROXIES = [{"control_uri": control.url} for control in controls]


def test_a_proxy_that_hangs_does_not_delay_the_other(
    control_port, living, settings, reports
):
    hanging = control_port()
    hanging.gate.clear()
    use(settings, hanging, living)
    for number in numbers(0, 200):
        publish("room", text(number), callback=reports.callback(number))
    wait_until(lambda: living.text == "".join(numbers(0, 200)), "all 200 arrive")
    wait_until(lambda: len(reports.published) == 200, "all 200 are signalled")
    assert not hanging.accepted
    assert not reports.told
    hanging.gate.set()
    wait_until(lambda: len(reports.told) == 200, "all callbacks are told")
    assert all(ok for _, ok, _ in reports.told)
    assert hanging.text == living.text


def test_a_proxy_that_is_down_does_not_delay_the_other(
    control_port, living, settings, reports, tuned
):
    tuned(BACK_OFF=(0.1, 0.1))
    dead = control_port(is_up=False)
    use(settings, dead, living)
    for number in numbers(0, 200):
        publish("room", text(number), callback=reports.callback(number))
    wait_until(lambda: living.text == "".join(numbers(0, 200)), "all 200 arrive")
    assert not reports.told
    tuned(RETRY_FOR=0.0)
    wait_until(lambda: len(reports.told) == 200, "all callbacks are told")
    for _, ok, message in reports.told:
        assert not ok
        assert dead.url in message
        assert living.url not in message
    assert {address for _, address in reports.published} == {living.url}
    assert {address for _, address, _ in reports.failed} == {dead.url}


def test_a_blocking_publish_names_the_proxies_that_did_not_accept(
    control_port, living, settings, tuned
):
    tuned(PATIENCE=0.5)
    dead, refusing = control_port(is_up=False), control_port()
    refusing.behaviour = Answer(403, "Forbidden\n")
    use(settings, dead, refusing, living)
    with pytest.raises(PublishError) as caught:
        publish("room", text("a"), blocking=True)
    assert set(caught.value.failures) == {dead.url, refusing.url}
    assert caught.value.failures[refusing.url] == "HTTP 403: Forbidden"
    assert "refused" in caught.value.failures[dead.url]
    assert living.contents == ["a"]


def test_in_a_long_outage_a_blocking_publish_is_refused_at_once(control_down, tuned):
    tuned(PATIENCE=1.0, BACK_OFF=(30.0, 30.0))
    with pytest.raises(PublishError):
        publish("room", text("a"), blocking=True)
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() - begin > 0.3, "the outage is a long one")
    with pytest.raises(PublishError) as caught:
        publish("room", text("b"), blocking=True)
    assert time.monotonic() - begin < 1.0
    assert "refused" in caught.value.failures[control_down.url]


# Names.


def test_a_name_that_does_not_resolve_is_the_reason(settings, control_port, tuned):
    tuned(PATIENCE=1.0)
    settings.GRIP_URL = "http://nosuch.invalid:5561"
    with pytest.raises(PublishError, match=r"not known|resolution|No address"):
        publish("room", text("a"), blocking=True)


@pytest.fixture
def hosts(monkeypatch):
    """A hosts file of the test: what is not in it goes to the real resolver."""
    names = {}
    resolve = socket.getaddrinfo

    def look_up(host, *args, **kwargs):
        return resolve(names.get(host, host), *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return names


def test_a_name_that_stops_resolving_is_an_outage(
    hosts, control, settings, reports, caplog
):
    settings.GRIP_URL = f"http://proxy.invalid:{control.port}"
    hosts["proxy.invalid"] = "127.0.0.1"
    publish("room", text("a,"), blocking=True)
    del hosts["proxy.invalid"]
    publish("room", text("b,"))
    wait_until(lambda: caplog.records, "the outage is logged")
    hosts["proxy.invalid"] = "127.0.0.1"
    publish("room", text("c"), blocking=True)
    assert control.text == "a,b,c"
    assert not reports.failed
    begin, end = (record.getMessage() for record in caplog.records)
    assert f"http://proxy.invalid:{control.port}" in begin
    assert "works again" in end


# Connections.


def test_a_kept_connection_is_used_again(control_port, settings):
    control = control_port(keep_alive=True)
    settings.GRIP_URL = control.url
    for number in numbers(0, 5):
        publish("room", text(number), blocking=True)
    assert control.text == "".join(numbers(0, 5))
    assert control.connections == 1


def test_a_connection_that_the_server_closes_is_not_kept(control):
    for number in numbers(0, 3):
        publish("room", text(number), blocking=True)
    assert control.connections == 3


def test_a_kept_connection_that_was_closed_meanwhile_is_no_outage(
    control_port, settings, caplog
):
    control = control_port(keep_alive=True)
    settings.GRIP_URL = control.url
    publish("room", text("a,"), blocking=True)
    control.down()
    control.up()
    publish("room", text("b"), blocking=True)
    assert control.text == "a,b"
    assert control.connections == 2
    assert not caplog.records


def test_what_is_published_is_json_without_a_trace_of_the_way(control):
    control.script += [500, close]
    publish("room", text("é\u2028"), blocking=True)
    assert len({post.raw for post in control.posts}) == 1
    assert json.loads(control.posts[0].raw)["items"][0]["channel"] == "room"


def test_in_a_long_outage_nobody_waits_longer_than_for_one_attempt(control, tuned):
    tuned(PATIENCE=1.0, TIMEOUT=0.2, BACK_OFF=(0.001, 0.001))
    control.behaviour = hang
    publish("room", text("a"))
    begin = time.monotonic()
    wait_until(lambda: time.monotonic() - begin > 1.4, "the outage is a long one")
    for _ in range(3):
        with pytest.raises(PublishError) as caught:
            publish("room", text("b"), blocking=True)
        assert "not accepted within" not in str(caught.value)
