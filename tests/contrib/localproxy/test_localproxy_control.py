import json
import socket

import pytest

ITEM = {"channel": "a", "formats": {"http-stream": {"content": "news\n"}}}


@pytest.fixture
def client(proxied, origin):
    origin.hold("/s", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    return proxied.open("/s")


def raw(proxied, request):
    """The whole answer, as bytes, to a request sent as bytes."""
    address = (proxied.proxy.control.host, proxied.proxy.control.port)
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer


@pytest.mark.parametrize("path", ["/publish/", "/publish"])
def test_publish_is_answered_as_pushpin_does(proxied, client, path):
    response = proxied.control(json.dumps({"items": [ITEM]}), path)
    assert (response.status, response.content) == (200, b"Published\n")
    assert response.getheader("Content-Type") == "text/plain"
    assert response.getheader("Connection") == "close"
    client.until(b"news\n")


def test_publish_is_answered_in_json_on_request(proxied):
    response = proxied.control(
        json.dumps({"items": []}), headers={"Accept": "application/json"}
    )
    assert response.getheader("Content-Type").startswith("application/json")
    assert response.content == b'{"message":"Published"}'


def test_other_types_are_not_acceptable(proxied):
    response = proxied.control("{}", headers={"Accept": "text/html"})
    assert response.status == 406


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        json.dumps({"items": [ITEM, {"channel": "a"}]}).encode(),
        json.dumps({"items": [ITEM, {**ITEM, "id": None}]}).encode(),
        json.dumps({"items": [ITEM, {**ITEM, "prev-id": None}]}).encode(),
    ],
)
def test_malformed_batch_is_refused_and_nothing_of_it_published(proxied, client, body):
    response = proxied.control(body)
    assert response.status == 400
    assert response.getheader("Content-Type") == "text/plain"
    assert len(response.content) > 5
    proxied.publish(("a", "after"))
    assert b"news" not in client.until(b"after")


def test_repeated_id_is_dropped_silently(proxied, client):
    proxied.publish({**ITEM, "id": "7"})
    proxied.publish({**ITEM, "id": "7"})
    proxied.publish(("a", "after"))
    assert client.until(b"after").count(b"news\n") == 1


def test_body_without_length_is_411(proxied):
    chunked = (
        b"POST /publish/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\n"
    )
    assert raw(proxied, chunked).startswith(b"HTTP/1.1 411 ")
    assert raw(proxied, b"POST /publish/ HTTP/1.1\r\nHost: x\r\n\r\n").startswith(
        b"HTTP/1.1 411 "
    )


def test_body_limit_is_a_million_bytes(proxied):
    empty = json.dumps({"items": []})
    assert proxied.control(empty.ljust(1_000_000)).status == 200
    announced = b"POST /publish/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000001\r\n\r\n"
    answer = raw(proxied, announced)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\nRequest body too large.\n")


def test_other_methods_and_paths(proxied):
    response = proxied.control(None, method="GET")
    assert (response.status, response.getheader("Allow")) == (405, "POST")
    assert proxied.control("{}", "/publish/?x=1").status == 404
    assert proxied.control("{}", "/other").status == 404
    assert proxied.control(None, "/", "GET").status == 200


def test_expect_continue_is_handled(proxied):
    body = b'{"items": []}'
    request = (
        b"POST /publish/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    answer = raw(proxied, request + body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ")
