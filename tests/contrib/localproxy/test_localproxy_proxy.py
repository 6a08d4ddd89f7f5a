import base64
import json
import logging
import socket
import threading
import time

import jwt
import pytest

from django_grip.contrib.localproxy.addresses import Address, parse_address
from django_grip.contrib.localproxy.server import BindError, LocalProxy

KEY = "a-shared-secret-of-the-local-proxy-tests"


def asked(origin):
    """The one request the origin got: method, path, headers, body."""
    (request,) = origin.requests
    return request


def values(headers, name):
    return [value for key, value in headers if key.lower() == name.lower()]


# Forwarding


@pytest.mark.parametrize(
    "path",
    [
        "/a%2Fb/%7e/caf%C3%A9;v=1",
        "//double/../dots/./x",
        "/q?x=%20+&&=y&z=a%26b&u=http://x/?y",
        "/weird?{}|^[]'",
    ],
)
def test_path_and_query_arrive_byte_for_byte(proxied, origin, path):
    proxied.connect().send(path, headers=[("Connection", "close")]).rest()
    assert asked(origin)[1] == path


def test_absolute_form_becomes_a_path(proxied, origin):
    proxied.connect().send("http://shop.example:81/a%2Fb?c").head()
    assert asked(origin)[1] == "/a%2Fb?c"


def test_end_to_end_headers_are_repeated_as_they_are(proxied, origin):
    proxied.connect().send(
        "/x",
        headers=[
            ("X-Two", "one"),
            ("X-Two", "two, three"),
            ("Cookie", "a=1; b=%20"),
            ("X-Forwarded-For", "10.0.0.9"),
            ("Connection", "X-Private"),
            ("X-Private", "yes"),
            ("Accept-Encoding", "gzip"),
            ("X-Forwarded-Proto", "https"),
            ("TE", "trailers"),
        ],
    ).head()
    headers = asked(origin)[2]
    assert values(headers, "Host") == ["shop.example:81"]
    assert values(headers, "X-Two") == ["one", "two, three"]
    assert values(headers, "Cookie") == ["a=1; b=%20"]
    assert values(headers, "X-Forwarded-For") == ["10.0.0.9"]
    names = {name.lower() for name, _ in headers}
    assert names == {
        "host",
        "x-two",
        "cookie",
        "x-forwarded-for",
        "grip-sig",
        "grip-feature",
        "connection",
    }
    assert values(headers, "Connection") == ["close"]


def test_answer_headers_are_repeated_and_nothing_is_added(proxied, origin):
    sent = [
        ("Set-Cookie", "a=1; Path=/"),
        ("Set-Cookie", "b=2; Expires=Wed, 21 Oct 2026 07:28:00 GMT"),
        ("X-Name", "Zoë"),
        ("Grip-Set-Meta", "user=bob"),
    ]
    origin.answers["/x"] = (203, sent, b"body")
    client = proxied.connect().send("/x")
    status, headers = client.head()
    assert (status, client.until(b"body")) == (203, b"body")
    assert client.has("Set-Cookie") == [value for _, value in sent[:2]]
    assert client.has("X-Name")[0].encode("latin-1").decode() == "Zoë"
    assert {name.lower() for name, _ in headers} == {
        "set-cookie",
        "x-name",
        "content-length",
    }


def test_cookies_of_one_client_do_not_reach_another(proxied, origin):
    origin.answers["/x"] = (200, [("Set-Cookie", "session=secret")], b"")
    proxied.get("/x")
    proxied.get("/x")
    assert values(origin.requests[1][2], "Cookie") == []


def test_redirect_is_not_followed(proxied, origin):
    origin.answers["/x"] = (302, [("Location", "/elsewhere?a=%2F")], b"")
    response = proxied.get("/x")
    assert (response.status, response.getheader("Location")) == (
        302,
        "/elsewhere?a=%2F",
    )
    assert len(origin.requests) == 1


def test_compressed_answer_passes_untouched(proxied, origin):
    origin.answers["/x"] = (200, [("Content-Encoding", "gzip")], b"\x1f\x8bnot really")
    response = proxied.get("/x")
    assert response.getheader("Content-Encoding") == "gzip"
    assert response.content == b"\x1f\x8bnot really"


def test_body_with_length_arrives(proxied, origin):
    origin.answers["/x"] = (201, [], b"made")
    body = bytes(range(256)) * 4000
    headers = {"Content-Type": "application/octet-stream"}
    response = proxied.get("/x", "POST", body=body, headers=headers)
    assert (response.status, response.content) == (201, b"made")
    method, _, headers, received = asked(origin)
    assert (method, received) == ("POST", body)
    assert values(headers, "Content-Length") == [str(len(body))]
    assert values(headers, "Content-Type") == ["application/octet-stream"]


def test_chunked_body_arrives(proxied, origin):
    origin.answers["/x"] = (200, [], b"ok")
    response = proxied.get("/x", "PUT", body=iter([b"one ", b"two"]))
    assert response.content == b"ok"
    assert asked(origin)[3] == b"one two"


def test_compressed_request_body_is_not_unpacked(proxied, origin):
    origin.answers["/x"] = (200, [], b"ok")
    proxied.get("/x", "POST", body=b"\x1f\x8braw", headers={"Content-Encoding": "gzip"})
    assert asked(origin)[3] == b"\x1f\x8braw"


def test_head_and_304_have_no_body(proxied, origin):
    origin.answers["/x"] = (200, [("ETag", '"1"')], b"twelve bytes")
    response = proxied.get("/x", "HEAD")
    assert (response.getheader("Content-Length"), response.content) == ("12", b"")
    origin.answers["/y"] = (304, [("ETag", '"1"')], b"")
    response = proxied.get("/y", headers={"If-None-Match": '"1"'})
    assert (response.status, response.getheader("ETag")) == (304, '"1"')


def test_big_answer_streams_before_it_is_complete(proxied, origin):
    go_on = threading.Event()

    def answer(handler):
        handler.send_response_only(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(b"first")
        assert go_on.wait(5)
        for _ in range(200):
            handler.wfile.write(b"x" * 65536)
        handler.close_connection = True

    origin.answers["/big"] = answer
    client = proxied.connect().send("/big", headers=[("Connection", "close")])
    client.head()
    client.until(b"first")
    go_on.set()
    assert client.rest().count(b"x") >= 200 * 65536


def test_answer_that_breaks_off_is_not_passed_off_as_whole(proxied, origin):
    def answer(handler):
        handler.send_response_only(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"4\r\nhalf\r\n")
        handler.close_connection = True

    origin.answers["/x"] = answer
    client = proxied.connect().send("/x")
    client.head()
    received = client.rest()
    assert b"half" in received
    assert b"0\r\n\r\n" not in received


def test_http_1_0_client_is_served(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    client = proxied.connect().send("/s", version="1.0")
    client.head()
    assert client.has("Transfer-Encoding") == []
    client.until(b"ready\n")
    proxied.publish(("a", "news\n"))
    assert client.until(b"news\n") == b"ready\nnews\n"


def test_origin_that_is_down_gives_502_with_the_cure(proxied, monkeypatch):
    monkeypatch.setattr("django_grip.contrib.localproxy.origin.RESTART_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    proxy = LocalProxy(
        upstream=f"http://127.0.0.1:{port}",
        listen=Address("127.0.0.1", 0),
        control=Address("127.0.0.1", 0),
    )
    proxy.start()
    proxied.proxy, original = proxy, proxied.proxy
    try:
        response = proxied.get("/x")
    finally:
        proxied.proxy = original
        proxy.stop()
    assert response.status == 502
    assert f"127.0.0.1:{port}".encode() in response.content
    assert b"--upstream" in response.content


def test_request_waits_for_an_origin_that_restarts(origin, proxied):
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    proxy = LocalProxy(
        upstream=f"http://127.0.0.1:{port}",
        listen=Address("127.0.0.1", 0),
        control=Address("127.0.0.1", 0),
    )
    proxy.start()
    proxied.proxy, original = proxy, proxied.proxy
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback"

    def restart():
        with socket.create_server(("127.0.0.1", port)) as server:
            server.settimeout(5)
            connection, _ = server.accept()
            with connection:
                assert connection.recv(65536).endswith(b"payload")
                connection.sendall(answer)

    thread = threading.Timer(0.3, restart)
    thread.start()
    try:
        response = proxied.get("/x", "POST", body=b"payload")
    finally:
        proxied.proxy = original
        proxy.stop()
        thread.join()
    assert (response.status, response.content) == (200, b"back")


def test_broken_websocket_handshake_is_refused(proxied, origin):
    client = proxied.connect().send(
        "/ws", headers=[("Upgrade", "websocket"), ("Connection", "Upgrade")]
    )
    assert client.head()[0] == 400
    assert origin.requests == []


# Trust


def test_forged_grip_headers_are_replaced_by_our_own(proxied, origin):
    proxied.connect().send(
        "/x",
        headers=[
            ("Grip-Sig", "forged"),
            ("grip-last", "a; last-id=1"),
            ("GRIP-FEATURE", "everything"),
            ("Grip_Sig", "forged"),
        ],
    ).head()
    headers = asked(origin)[2]
    grip = sorted(name for name, _ in headers if name.lower().startswith("grip"))
    assert grip == ["Grip-Feature", "Grip-Sig"]
    (token,) = values(headers, "Grip-Sig")
    claims = jwt.decode(token, KEY, algorithms=["HS256"], issuer="tests")
    assert set(claims) == {"exp", "iss"}
    assert 3500 < claims["exp"] - time.time() <= 3600
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert values(headers, "Grip-Feature") == [
        "status, link:next, filter:skip-self, filter:skip-users, filter:require-sub"
    ]


def test_without_key_requests_are_not_signed(proxied, origin):
    proxy = LocalProxy(
        upstream=origin.url,
        listen=Address("127.0.0.1", 0),
        control=Address("127.0.0.1", 0),
    )
    proxy.start()
    proxied.proxy, original = proxy, proxied.proxy
    try:
        proxied.get("/x", headers={"Grip-Sig": "forged"})
    finally:
        proxied.proxy = original
        proxy.stop()
    assert values(asked(origin)[2], "Grip-Sig") == []


def test_pem_key_is_refused_with_the_cure():
    with pytest.raises(ValueError, match="plain secret"):
        LocalProxy(upstream="http://127.0.0.1:1", key="-----BEGIN PUBLIC KEY-----\n")


# Stream holds


def test_held_stream_gets_what_is_published(proxied, origin):
    origin.hold(
        "/s",
        ("Grip-Hold", "stream"),
        ("Grip-Channel", "a"),
        ("Grip-Keep-Alive", ":\\n\\n; format=cstring; timeout=20"),
        ("X-Kept", "yes"),
    )
    client = proxied.connect().send("/s")
    status, headers = client.head()
    assert status == 200
    assert client.has("Transfer-Encoding") == ["chunked"]
    assert client.has("Content-Length") == []
    assert client.has("X-Kept") == ["yes"]
    assert not [name for name, _ in headers if name.lower().startswith("grip-")]
    client.until(b"ready\n")
    proxied.publish(("a", "data: ä\n\n"))
    encoded = base64.b64encode(b"\x00\xff").decode()
    binary = {"channel": "a", "formats": {"http-stream": {"content-bin": encoded}}}
    proxied.publish(("b", "not for us"), binary)
    assert client.until(b"\x00\xff\r\n") == (
        b"6\r\nready\n\r\n" + "a\r\ndata: ä\n\n\r\n".encode() + b"2\r\n\x00\xff\r\n"
    )


def test_two_channels_in_one_header(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a, b"))
    client = proxied.open("/s")
    proxied.publish(("c", "no"), ("b", "from b"), ("a", "from a"))
    assert b"no" not in client.until(b"from a")
    assert client.seen.index(b"from b") < client.seen.index(b"from a")


def test_subscription_is_there_before_the_first_byte(proxied, origin):
    """The origin sends its head, and no body until an item has been published."""
    published = threading.Event()

    def answer(handler):
        handler.send_response_only(200)
        handler.send_header("Grip-Hold", "stream")
        handler.send_header("Grip-Channel", "a")
        handler.send_header("Content-Length", "6")
        handler.end_headers()
        assert published.wait(5)
        handler.wfile.write(b"ready\n")

    origin.answers["/s"] = answer
    client = proxied.connect().send("/s")
    client.socket.recv(1)
    proxied.publish(("a", "news\n"))
    published.set()
    client.until(b"news\n")
    assert client.seen.index(b"ready\n") < client.seen.index(b"news\n")


def test_each_of_many_clients_misses_nothing_after_ready(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    for number in range(30):
        client = proxied.open("/s")
        proxied.publish(("a", f"item {number}\n"))
        client.until(f"item {number}\n".encode())
        client.close()


def test_keep_alive_comes_while_idle(proxied, origin):
    origin.hold(
        "/s",
        ("Grip-Hold", "stream"),
        ("Grip-Channel", "a"),
        ("Grip-Keep-Alive", "alive; timeout=1"),
    )
    client = proxied.open("/s")
    client.until(b"alive")
    client.seen = b""
    client.until(b"alive")


def test_items_put_off_an_idle_keep_alive_but_not_an_interval_one(proxied, origin):
    for mode in ("idle", "interval"):
        origin.hold(
            f"/{mode}",
            ("Grip-Hold", "stream"),
            ("Grip-Channel", "a"),
            ("Grip-Keep-Alive", f"alive; timeout=2; mode={mode}"),
        )
    idle, interval = proxied.open("/idle"), proxied.open("/interval")
    for _ in range(12):
        proxied.publish(("a", "x"))
        threading.Event().wait(0.2)
    proxied.publish(("a", "end"))
    assert b"alive" not in idle.until(b"end")
    assert b"alive" in interval.until(b"end")


def test_close_action_ends_the_stream_properly(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    client = proxied.open("/s")
    close = {"channel": "a", "formats": {"http-stream": {"action": "close"}}}
    proxied.publish(("a", "last"), close, ("a", "too late"))
    client.until(b"0\r\n\r\n")
    assert b"last" in client.seen
    assert b"too late" not in client.seen
    proxied.wait_for(lambda: proxied.proxy._hub.subscribers("a") == 0)


def test_stream_without_channel_is_held(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Keep-Alive", "x; timeout=1"))
    proxied.open("/s").until(b"x")


def test_vanished_client_is_unsubscribed_at_once(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    client, other = proxied.open("/s"), proxied.open("/s")
    assert proxied.proxy._hub.subscribers("a") == 2
    client.close()
    proxied.wait_for(lambda: proxied.proxy._hub.subscribers("a") == 1)
    proxied.publish(("a", "on\n"))
    other.until(b"on\n")


def test_stalled_client_is_cut_and_others_are_not(proxied, origin, caplog):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    stalled = proxied.connect(receive_buffer=4096).send("/s")
    reader = proxied.open("/s")
    proxied.wait_for(lambda: proxied.proxy._hub.subscribers("a") == 2)
    received = 0
    text = "x" * 99_990
    with caplog.at_level(logging.WARNING):
        for number in range(400):
            proxied.publish(("a", f"{text}<{number}>"))
            reader.until(f"<{number}>".encode())
            received += len(reader.seen)
            reader.seen = b""
            if proxied.proxy.counts.overflows:
                break
    assert proxied.proxy.counts.overflows == 1
    assert proxied.proxy._hub.subscribers("a") == 1
    assert "reads too slowly" in caplog.text
    assert b"\r\n0\r\n\r\n" not in stalled.rest()
    proxied.publish(("a", "still here"))
    reader.until(b"still here")


def test_burst_in_one_batch_does_not_overflow_a_client_that_reads(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    client = proxied.open("/s")
    proxied.publish(*[("a", f"<{number}>") for number in range(2000)])
    received = client.until(b"<1999>")
    assert all(f"<{number}>".encode() in received for number in range(2000))
    assert proxied.proxy.counts.overflows == 0


def test_head_is_never_held(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    response = proxied.get("/s", "HEAD")
    assert response.status == 200
    assert response.getheader("Grip-Hold") is None
    origin.hold("/p", ("Grip-Hold", "response"), ("Grip-Channel", "a"))
    assert proxied.get("/p", "HEAD").status == 200


def test_post_may_be_held(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    client = proxied.connect().send(
        "/s", "POST", headers=[("Content-Length", "2")], body=b"hi"
    )
    client.head()
    client.until(b"ready\n")
    proxied.publish(("a", "news"))
    client.until(b"news")


def test_error_page_may_be_held(proxied, origin):
    held = [("Grip-Hold", "stream"), ("Grip-Channel", "a")]
    origin.answers["/s"] = (500, held, b"ready\n")
    client = proxied.connect().send("/s")
    assert client.head()[0] == 500
    proxied.wait_for(lambda: proxied.proxy._hub.subscribers("a") == 1)


@pytest.mark.parametrize(
    "header",
    [("Grip-Hold", "Stream"), ("Grip-Timeout", "x"), ("Grip-Status", "9999")],
)
def test_malformed_instruction_gives_502_and_says_why(proxied, origin, header):
    origin.answers["/s"] = (200, [header], b"secret")
    response = proxied.get("/s")
    assert response.status == 502
    assert header[0].encode() in response.content
    assert b"secret" not in response.content


def test_status_and_exposed_headers_are_replaced(proxied, origin):
    origin.answers["/s"] = (
        200,
        [
            ("Grip-Status", "299 Fine"),
            ("Grip-Expose-Headers", "X-A, Content-Length"),
            ("X-A", "1"),
            ("X-B", "2"),
        ],
        b"body",
    )
    response = proxied.get("/s")
    assert (response.status, response.reason) == (299, "Fine")
    assert (response.getheader("X-A"), response.getheader("X-B")) == ("1", None)


def test_what_it_cannot_do_is_said_once(proxied, origin, caplog):
    origin.hold(
        "/s",
        ("Grip-Hold", "stream"),
        ("Grip-Channel", "a; filter=build-id"),
    )
    with caplog.at_level(logging.WARNING):
        proxied.open("/s")
        client = proxied.open("/s")
    assert caplog.text.count("build-id") == 1
    proxied.publish(("a", "news"))
    client.until(b"news")


# Response holds


def test_long_poll_is_answered_by_the_first_item(proxied, origin):
    origin.answers["/p"] = (
        200,
        [
            ("Grip-Hold", "response"),
            ("Grip-Channel", "a"),
            ("Content-Type", "application/json"),
            ("ETag", '"1"'),
            ("X-Held", "yes"),
        ],
        b"{}",
    )
    client = proxied.connect().send("/p")
    proxied.wait_for(lambda: proxied.proxy._hub.subscribers("a") == 1)
    published = {"code": 202, "headers": {"ETag": '"2"'}, "body": '{"n": 1}'}
    proxied.publish(
        {"channel": "a", "formats": {"http-response": published}},
        {"channel": "a", "formats": {"http-response": {"body": "late"}}},
    )
    status, _ = client.head()
    assert (status, client.reason, client.until(b"}")) == (
        202,
        "Accepted",
        b'{"n": 1}',
    )
    assert client.has("ETag") == ['"2"']
    assert client.has("X-Held") == ["yes"]
    assert client.has("Content-Type") == ["application/json"]
    assert client.has("Content-Length") == ["8"]


def test_long_poll_ends_with_the_held_answer(proxied, origin):
    origin.answers["/p"] = (
        200,
        [
            ("Grip-Hold", "response"),
            ("Grip-Channel", "a"),
            ("Grip-Timeout", "0"),
            ("Grip-Status", "304"),
        ],
        b"nothing new",
    )
    client = proxied.connect()
    client.socket.settimeout(8)
    started = time.monotonic()
    status, _ = client.send("/p", headers=[("Connection", "close")]).head()
    # A second more than the timeout: the first poll of a channel is made anew.
    assert 5.9 < time.monotonic() - started < 7
    assert (status, client.rest()) == (304, b"")


# The proxy as a whole


def test_stop_ends_streams_and_frees_the_ports_within_a_second(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    client = proxied.open("/s")
    stuck = threading.Event()
    origin.answers["/stuck"] = lambda handler: stuck.wait(5)
    proxied.connect().send("/stuck")
    proxied.wait_for(lambda: len(origin.requests) == 2)
    started = time.monotonic()
    proxied.proxy.stop()
    assert time.monotonic() - started < 1
    stuck.set()
    assert client.rest().endswith(b"0\r\n\r\n")
    for address in (proxied.proxy.listen, proxied.proxy.control):
        socket.create_server((address.host, address.port)).close()


def test_port_in_use_is_said_at_start_and_leaves_nothing(proxied):
    taken = proxied.proxy.control
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    second = LocalProxy(
        upstream="http://127.0.0.1:1", listen=Address("127.0.0.1", port), control=taken
    )
    with pytest.raises(BindError, match=f"{taken}.*--control"):
        second.start()
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (":7999", Address("", 7999)),
        ("7999", Address("127.0.0.1", 7999)),
        ("0.0.0.0:80", Address("0.0.0.0", 80)),
        ("[::1]:80", Address("::1", 80)),
        ("localhost:80", Address("localhost", 80)),
    ],
)
def test_address_is_read(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "::1:80", "host:", "host:70000", "h:²"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="host:port"):
        parse_address(text)


def test_publish_is_json_all_the_way(proxied, origin):
    """A smoke test of the fixture itself: the counts tell what the proxy saw."""
    proxied.control(json.dumps({"items": []}))
    assert proxied.proxy.counts.published == 0
    proxied.publish(("a", "x"))
    assert proxied.proxy.counts.published == 1
