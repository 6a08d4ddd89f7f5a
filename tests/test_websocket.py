import json

import pytest
from asgiref.sync import async_to_sync
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.test import RequestFactory, override_settings

from django_grip import GripMiddleware, websocket_only
from django_grip.test import AsyncGripClient, GripClient, grip_sig
from django_grip.websocket import MESSAGE_MAX
from django_grip.websocket_events import (
    CONTENT_TYPE,
    WebSocketEvent,
    close_content,
    decode,
    encode,
)

OPEN = WebSocketEvent("OPEN")


def text(content):
    return WebSocketEvent("TEXT", content.encode())


def control(kind, **options):
    return {"type": kind, **options}


def ask(view, *events, body=None, **headers):
    """What the middleware answers to a request of the proxy with these events."""
    headers.setdefault("HTTP_GRIP_SIG", grip_sig())
    headers.setdefault("content_type", CONTENT_TYPE)
    body = encode(events) if body is None else body
    request = RequestFactory().post("/ws/", body, **headers)
    request.META["CONTENT_TYPE"] = headers["content_type"]  # left out without a body
    return GripMiddleware(view)(request)


def accept(request):
    request.wscontext.accept()
    return HttpResponse()


def answered(response):
    """The events of an answer; control messages as dicts, without their prefix."""
    assert response.status_code == 200
    assert response["Content-Type"] == CONTENT_TYPE
    found = []
    for event in decode(response.content):
        if event.content is not None and event.content.startswith(b"c:"):
            found.append(json.loads(event.content[2:]))
        else:
            found.append(event)
    return found


def message(content, kind="TEXT"):
    return WebSocketEvent(kind, b"m:" + content)


def test_the_handshake_is_accepted_with_the_grip_extension():
    response = ask(accept, OPEN)
    assert answered(response) == [OPEN]
    assert response["Sec-WebSocket-Extensions"] == "grip"
    assert response["Content-Length"] == str(len(response.content))


def test_a_view_that_does_not_accept_refuses_the_handshake():
    response = ask(lambda request: HttpResponse(), OPEN)
    assert response.status_code == 403
    assert b"did not accept" in response.content


def test_a_refusal_of_the_view_is_relayed_as_it_is():
    response = ask(lambda request: HttpResponse("no\n", status=401), OPEN)
    assert (response.status_code, response.content) == (401, b"no\n")


def test_messages_are_received_in_order_and_echoed():
    got = []

    def view(request):
        ws = request.wscontext
        while ws.can_recv():
            got.append(ws.recv())
            ws.send("echo")
        return HttpResponse()

    response = ask(view, text("é"), WebSocketEvent("BINARY", b"\x00"), text(""))
    assert got == ["é", b"\x00", ""]
    assert answered(response) == [message(b"echo")] * 3


def test_recv_without_a_message_raises():
    def view(request):
        assert not request.wscontext.can_recv()
        with pytest.raises(IndexError):
            request.wscontext.recv()
        return HttpResponse()

    assert answered(ask(view)) == []


def test_pings_are_answered_with_their_content_and_pongs_are_not():
    def view(request):
        assert request.wscontext.recv() == "a"
        assert not request.wscontext.can_recv()
        return HttpResponse()

    ping, pong = WebSocketEvent("PING", b"1"), WebSocketEvent("PONG", b"2")
    response = ask(view, ping, text("a"), pong, ping)
    assert answered(response) == [WebSocketEvent("PONG", b"1")] * 2


def test_a_close_of_the_client_has_code_and_reason():
    def view(request):
        ws = request.wscontext
        assert ws.recv() is None
        assert (ws.close_code, ws.close_reason) == (4000, "cya")
        ws.close(ws.close_code)
        return HttpResponse()

    close = WebSocketEvent("CLOSE", close_content(4000, "cya"))
    assert answered(ask(view, close)) == [
        WebSocketEvent("CLOSE", close_content(4000)),
    ]


def test_a_lost_client_raises_os_error():
    def view(request):
        with pytest.raises(OSError, match="disconnected"):
            request.wscontext.recv()
        return HttpResponse()

    assert answered(ask(view, WebSocketEvent("DISCONNECT"))) == []


def test_close_comes_last_with_code_1000_unless_told():
    def view(request):
        request.wscontext.close()
        request.wscontext.send("bye")
        return HttpResponse()

    assert answered(ask(view, text("x"))) == [
        message(b"bye"),
        WebSocketEvent("CLOSE", close_content(1000)),
    ]


def test_s23_a_close_no_endpoint_may_send_raises_at_the_call():
    def view(request):
        with pytest.raises(ValueError, match="close code"):
            request.wscontext.close(0)
        with pytest.raises(ValueError, match="123 bytes"):
            request.wscontext.close(1000, "x" * 124)
        return HttpResponse()

    ask(view, text("x"))


@override_settings(GRIP_PREFIX="p-")
def test_control_messages_are_those_of_the_protocol():
    def view(request):
        ws = request.wscontext
        ws.subscribe("a")
        ws.subscribe("b", filters=["skip-self"])
        ws.unsubscribe("a")
        ws.set_meta("user", "7")
        ws.set_meta("user")
        ws.set_keep_alive("{}", 25)
        ws.detach()
        return HttpResponse()

    assert answered(ask(view, text("x"))) == [
        control("subscribe", channel="p-a"),
        control("subscribe", channel="p-b", filters=["skip-self"]),
        control("unsubscribe", channel="p-a"),
        control("set-meta", name="user", value="7"),
        control("set-meta", name="user"),
        {
            "type": "keep-alive",
            "content": "{}",
            "timeout": 25,
            "message-type": "text",
            "mode": "idle",
        },
        control("detach"),
    ]


def test_s26_channels_that_the_wire_cannot_carry_raise():
    def view(request):
        with pytest.raises(ValueError, match="channel name"):
            request.wscontext.subscribe("a;b")
        return HttpResponse()

    ask(view, text("x"))


def test_a_message_that_would_stop_the_connection_raises():
    def view(request):
        request.wscontext.send("x" * MESSAGE_MAX)
        with pytest.raises(ValueError, match="32766 bytes; got 32767"):
            request.wscontext.send("x" * (MESSAGE_MAX + 1))
        return HttpResponse()

    assert len(answered(ask(view, text("x")))) == 1


def test_binary_messages_carry_the_prefix_too():
    def view(request):
        request.wscontext.send_binary(b"\x00")
        return HttpResponse()

    assert answered(ask(view, text("x"))) == [message(b"\x00", "BINARY")]


def test_meta_is_read_and_only_changes_are_sent_back():
    def view(request):
        ws = request.wscontext
        assert ws.meta == {"a": "1", "b": "2", "long-name": "3"}
        ws.meta["a"] = "9"
        ws.meta["New_Name"] = "x"
        del ws.meta["b"]
        return HttpResponse()

    response = ask(
        view, text("x"), HTTP_META_A="1", HTTP_META_B="2", HTTP_META_LONG_NAME="3"
    )
    meta = {
        name: value for name, value in response.items() if name.startswith("Set-Meta")
    }
    assert meta == {"Set-Meta-a": "9", "Set-Meta-b": "", "Set-Meta-new_name": "x"}


@pytest.mark.parametrize(
    "meta", [{"a": "x\r\nSet-Cookie: b=c"}, {"a": "日"}, {"a b": "c"}, {"a": 5}]
)
def test_s24_meta_that_a_header_cannot_carry_raises(meta):
    def view(request):
        request.wscontext.meta.update(meta)
        return HttpResponse()

    with pytest.raises(ValueError, match="Meta"):
        ask(view, text("x"))


def test_subprotocol_and_keep_alive_interval():
    def view(request):
        ws = request.wscontext
        assert ws.subprotocols == ["v2", "v1"]
        ws.accept(subprotocol="v1")
        ws.set_keep_alive_interval(30)
        return HttpResponse()

    response = ask(view, OPEN, HTTP_SEC_WEBSOCKET_PROTOCOL="v2, v1")
    assert response["Sec-WebSocket-Protocol"] == "v1"
    assert response["Keep-Alive-Interval"] == "30"


def test_a_subprotocol_that_was_not_offered_raises():
    def view(request):
        with pytest.raises(ValueError, match="offers the subprotocols"):
            request.wscontext.accept(subprotocol="v3")
        return HttpResponse(status=400)

    ask(view, OPEN)


def test_headers_and_cookies_of_the_view_are_kept():
    def view(request):
        request.wscontext.accept()
        response = HttpResponse(headers={"X-Kept": "yes"})
        response.set_cookie("a", "b")
        return response

    response = ask(view, OPEN)
    assert response["X-Kept"] == "yes"
    assert response.cookies["a"].value == "b"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda: HttpResponse("text"), 1011),
        (lambda: HttpResponse(status=500), 1011),
        (lambda: HttpResponse(status=403), 1008),
        (lambda: HttpResponseRedirect("/login/"), 1008),
        (lambda: StreamingHttpResponse(["x"]), 1011),
    ],
)
def test_after_the_handshake_every_other_answer_ends_in_a_clean_close(answer, code):
    response = ask(lambda request: answer(), text("x"))
    assert answered(response) == [WebSocketEvent("CLOSE", close_content(code))]


def test_an_exception_of_the_view_ends_in_a_clean_close(settings):
    settings.ROOT_URLCONF = "tests.websocket_urls"
    response = GripClient(raise_request_exception=False).websocket(
        "/fails/", ("TEXT", "x")
    )
    assert answered(response) == [WebSocketEvent("CLOSE", close_content(1011))]
    refused = GripClient(raise_request_exception=False).websocket(
        "/fails/", ("OPEN", None)
    )
    assert refused.status_code == 500


def test_s17_unsigned_events_are_an_ordinary_post():
    def view(request):
        assert request.wscontext is None
        return HttpResponse("ordinary")

    forged = {"HTTP_CONNECTION_ID": "forged", "HTTP_META_USER": "admin"}
    response = ask(view, OPEN, HTTP_GRIP_SIG="forged", **forged)
    assert response.content == b"ordinary"
    assert "Sec-WebSocket-Extensions" not in response


def test_s18_events_of_another_content_type_are_no_websocket():
    def view(request):
        assert request.wscontext is None
        return HttpResponse("ordinary")

    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert ask(view, OPEN, content_type=content_type).content == b"ordinary"


@pytest.mark.parametrize("body", [b"TEXT 5\r\nhell", b"HELLO\r\n", b"\xff"])
def test_s21_malformed_events_are_400_without_detail(body):
    response = ask(accept, body=body)
    assert response.status_code == 400
    assert response.content == b"Error parsing WebSocket events.\n"


def test_s21_a_body_beyond_djangos_limit_is_400(settings):
    settings.ROOT_URLCONF = "tests.websocket_urls"
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    response = GripClient().websocket("/echo/", ("TEXT", "x" * 2000))
    assert response.status_code == 400


def test_s22_text_that_is_not_utf8_is_closed_with_1007():
    response = ask(accept, WebSocketEvent("TEXT", b"\xff"))
    (close,) = answered(response)
    assert close == WebSocketEvent("CLOSE", close_content(1007, "not UTF-8"))


def csrf(view):
    """The view below Django's own CSRF protection."""
    protect = CsrfViewMiddleware(view)

    def protected(request):
        rejected = protect.process_request(request)
        return rejected or protect.process_view(request, view, (), {}) or view(request)

    return protected


def test_s19_only_trusted_events_are_exempt_from_csrf():
    assert answered(ask(csrf(accept), OPEN)) == [OPEN]
    ordinary = ask(csrf(lambda request: HttpResponse("in")), HTTP_GRIP_SIG="forged")
    assert ordinary.status_code == 403
    form = ask(
        csrf(lambda request: HttpResponse("in")), body=b"a=b", content_type="text/plain"
    )
    assert form.status_code == 403


COOKIE = {"HTTP_COOKIE": "sessionid=1", "HTTP_HOST": "testserver"}


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "file://",
        "https://evil.example",
        "https://testserver",
        "http://testserver:8000",
        "http://testserver.evil.example",
        "http://t\u0435stserver",
        "http://evil.example/http://testserver",
    ],
)
def test_s14_s15_cookies_of_a_foreign_page_open_nothing(origin):
    headers = {} if origin is None else {"HTTP_ORIGIN": origin}
    response = ask(accept, OPEN, **COOKIE, **headers)
    assert response.status_code == 403
    assert b"Origin" in response.content


@override_settings(
    CSRF_TRUSTED_ORIGINS=["https://app.example", "https://*.good.example"]
)
@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://testserver", 200),
        ("https://app.example", 200),
        ("http://app.example", 403),
        ("https://app.example:8443", 403),
        ("https://a.good.example", 200),
        ("http://a.good.example", 403),
        ("https://evilgood.example", 403),
    ],
)
def test_s15_own_and_trusted_origins_open(origin, status):
    assert ask(accept, OPEN, **COOKIE, HTTP_ORIGIN=origin).status_code == status


def test_s16_without_cookies_no_origin_is_asked_for():
    assert ask(accept, OPEN, HTTP_AUTHORIZATION="Bearer x").status_code == 200


@pytest.mark.parametrize("asynchronous", [False, True])
def test_websocket_only_refuses_others_and_needs_no_response(settings, asynchronous):
    settings.ROOT_URLCONF = "tests.websocket_urls"
    url = "/aecho/" if asynchronous else "/echo/"
    events = [("OPEN", None), ("TEXT", "hi")]
    if asynchronous:
        client = AsyncGripClient()
        plain = async_to_sync(client.post)(url)
        response = async_to_sync(client.websocket)(url, *events)
    else:
        client = GripClient()
        plain = client.post(url)
        response = client.websocket(url, *events)
    assert plain.status_code == 400
    assert b"must contain WebSocket events" in plain.content
    assert answered(response) == [OPEN, message(b"hi")]


def test_websocket_only_keeps_name_and_doc_of_the_view():
    @websocket_only
    def view(request):
        """The doc."""

    assert (view.__name__, view.__doc__) == ("view", "The doc.")
