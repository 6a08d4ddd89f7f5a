"""S47: what no log and no error may say."""

import base64
import json
import logging

import pytest
from control_port import Answer, close, hang, raw, reset
from sending import text

from django_grip import publish
from django_grip.exceptions import PublishError
from django_grip.publishers import get_publisher
from servers import wait_until

KEY = "key-that-is-32-bytes-long-or-more"
PASSWORD = "pass-word-of-the-proxy"
QUERY = "query-ticket-of-the-proxy"
PAYLOAD = "payload-of-a-customer <b>4111 1111</b>"

AUTHORIZATIONS = {
    "a token": "http://{host}/?ticket=" + QUERY + "&key=" + KEY,
    "a JWT": "http://{host}/?ticket=" + QUERY + "&iss=me&key=" + KEY,
    "a password": "http://user:" + PASSWORD + "@{host}/?ticket=" + QUERY,
}


def request_of(post):
    headers = "".join(f"{name}: {value}\r\n" for name, value in post.headers.items())
    line = f"POST {post.target} HTTP/1.1\r\n"
    return line.encode() + headers.encode() + b"\r\n" + post.raw


def echo(status, *, of=request_of):
    """Answers with what was asked, as debug pages do."""

    def behave(connection, post):
        said = of(post).decode("latin-1")
        Answer(status, f"Bad request: {said}\n")(connection, post)

    return behave


def echo_lines(status):
    return echo(status, of=lambda post: request_of(post).replace(b"\r\n", b" "))


def echo_value(status):
    return echo(status, of=lambda post: post.contents[0].encode())


def echo_authorization(status):
    return echo(
        status, of=lambda post: post.headers.get("Authorization", "none").encode()
    )


def echo_raw(of):
    """Answers with what was asked in the place of HTTP."""

    def behave(connection, post):
        raw(of(post))(connection, post)

    return behave


def echo_in_header(connection, post):
    """Answers with the payload where http.client expects a header."""
    raw(b"HTTP/1.1 400 Bad\r\n" + post.raw + b"\r\n\r\n")(connection, post)


def echo_in_status_line(connection, post):
    raw(b"HTTP/1.1 " + post.raw + b"\r\n\r\n")(connection, post)


def echo_in_chunk_size(connection, post):
    head = b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw(head + post.raw + b"\r\n")(connection, post)


BEHAVIOURS = {
    "accepted": 200,
    "400": 400,
    "401": 401,
    "503": 503,
    "400 that echoes all": echo(400),
    "400 that echoes all in a line": echo_lines(400),
    "400 that echoes the body": echo(400, of=lambda post: post.raw),
    "400 that echoes the payload": echo_value(400),
    "403 that echoes the authorization": echo_authorization(403),
    "500 that echoes all in a line": echo_lines(500),
    "302 that echoes all": echo_lines(302),
    "the request instead of an answer": echo_raw(request_of),
    "the body instead of an answer": echo_raw(lambda post: post.raw),
    "the authorization instead of an answer": echo_raw(
        lambda post: post.headers.get("Authorization", "none").encode()
    ),
    "a status line of the body": echo_in_status_line,
    "a header of the body": echo_in_header,
    "a chunk size of the body": echo_in_chunk_size,
    "closed": close,
    "reset": reset(),
    "hangs": hang,
}


def secrets(control):
    """What nobody may read, of this configuration and as it was sent."""
    yield from (KEY, PASSWORD, QUERY)
    yield from (PAYLOAD, "4111", "payload-of", "customer")
    yield base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    for post in control.posts:
        if authorization := post.headers.get("Authorization"):
            yield authorization
            yield from authorization.split()[1:]
            # A JWT without its last character is as good as one.
            yield authorization[-20:]


@pytest.mark.parametrize("url", AUTHORIZATIONS.values(), ids=AUTHORIZATIONS)
@pytest.mark.parametrize("behaviour", BEHAVIOURS.values(), ids=BEHAVIOURS)
def test_s47_no_secret_and_no_payload_is_said(
    control, settings, reports, tuned, caplog, behaviour, url
):
    tuned(TIMEOUT=0.1, BACK_OFF=(0.02, 0.02))
    caplog.set_level(logging.DEBUG)
    settings.GRIP_PUBLISH_INTERVAL = 0
    settings.GRIP_URL = url.format(host=f"127.0.0.1:{control.port}")
    control.behaviour = behaviour
    said = []
    publish("room", text(PAYLOAD), callback=reports.callback("a"))
    control.wait(1)
    tuned(RETRY_FOR=0.0)
    wait_until(lambda: reports.told, "the callback is told")
    tuned(RETRY_FOR=60.0, PATIENCE=0.1)
    try:
        publish("room", text(PAYLOAD), blocking=True)
    except PublishError as exc:
        said += [str(exc), repr(exc), repr(exc.failures)]
    said += [message for _, _, message in reports.told]
    said += [reason for _, _, reason in reports.failed]
    said += get_publisher().counters()
    said += [
        logging.Formatter("%(message)s %(args)s").format(record)
        for record in caplog.records
    ]
    assert control.posts
    for line in said:
        for secret in secrets(control):
            assert secret not in line
        assert "\n" not in line.strip() or "Traceback" in line


def test_s47_a_refusal_that_echoes_nothing_is_said_as_it_is(control):
    control.behaviour = Answer(400, "Invalid channel name\nand more\n")
    with pytest.raises(PublishError, match=r"HTTP 400: Invalid channel name$"):
        publish("room", text(PAYLOAD), blocking=True)


@pytest.mark.parametrize("encode", [str, lambda s: json.dumps(s)[1:-1], ascii])
def test_s47_an_echo_that_is_written_otherwise_is_no_less_a_payload(control, encode):
    payload = "Müller <mueller@example.org> owes 500 €"
    control.behaviour = Answer(400, f"Bad content: {encode(payload)}\n")
    with pytest.raises(PublishError) as caught:
        publish("room", text(payload), blocking=True)
    assert "mueller@example.org" not in str(caught.value)


def test_s47_a_short_key_is_a_key(control, settings):
    settings.GRIP_URL = control.url + "?key=s3cret"
    control.behaviour = Answer(401, "No such key: s3cret\n")
    with pytest.raises(PublishError) as caught:
        publish("room", text("a"), blocking=True)
    assert "s3cret" not in str(caught.value)


def test_s47_control_characters_of_an_answer_do_not_reach_a_log(control, caplog):
    control.behaviour = raw(
        b"HTTP/1.1 403 No\r\n\r\n\x1b[2J\x00forged\x7f\xff\x85line\r\nERROR forged\r\n"
    )
    with pytest.raises(PublishError) as caught:
        publish("room", text("a"), blocking=True)
    messages = [record.getMessage() for record in caplog.records]
    assert messages
    for message in [str(caught.value), *messages]:
        assert message.isprintable()
        assert "ERROR forged" not in message


def test_s47_control_characters_instead_of_an_answer_do_not_either(
    control, reports, caplog, tuned
):
    tuned(RETRY_FOR=0.3)
    control.behaviour = raw(b"\x1b[2J\x00forged\r\n")
    publish("room", text("a"), callback=reports.callback("a"))
    wait_until(lambda: reports.told, "the callback is told")
    messages = [record.getMessage() for record in caplog.records]
    assert messages
    for message in [reports.told[0][2], *messages]:
        assert message.isprintable()


def test_s47_settings_that_are_wrong_are_said_without_their_key(settings):
    settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
    settings.GRIP_URL = f"tcp://user:{PASSWORD}@a?key={KEY}"
    with pytest.raises(Exception, match="http://") as caught:
        publish("room", text("a"))
    assert PASSWORD not in str(caught.value)
    assert KEY not in str(caught.value)
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = [{"control_uri": "http://a", "keys": KEY}]
    with pytest.raises(Exception, match="keys") as caught:
        publish("room", text("a"))
    assert KEY not in str(caught.value)
    settings.GRIP_PROXIES = []
