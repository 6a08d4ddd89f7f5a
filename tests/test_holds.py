import pytest
from asgiref.sync import SyncToAsync, async_to_sync, markcoroutinefunction
from django.http import HttpResponse, HttpResponseNotModified
from django.test import RequestFactory
from gripcontrol import Channel
from hypothesis import given
from hypothesis import strategies as st

from django_grip import GripMiddleware, headers, set_hold_longpoll, set_hold_stream
from django_grip.contrib.localproxy.instructions import parse_instruction


@pytest.fixture
def request_(grip_sig):
    request = RequestFactory().get("/", HTTP_GRIP_SIG=grip_sig)
    GripMiddleware(lambda request: HttpResponse()).process_request(request)
    return request


def answer(request, response=None):
    return GripMiddleware(lambda request: None).process_response(
        request, response or HttpResponse("x")
    )


@pytest.fixture(params=["sync", "async"])
def get(request, client, async_client):
    if request.param == "sync":
        return client.get
    return async_to_sync(async_client.get)


@pytest.mark.parametrize("url", ["/hold/", "/ahold/"])
def test_hold_names_prefixed_channels(get, settings, grip_sig, url):
    settings.GRIP_PREFIX = "shop-"
    response = get(url, headers={"grip-sig": grip_sig})
    assert response["Grip-Hold"] == "stream"
    assert response["Grip-Channel"] == "shop-room"


@pytest.mark.parametrize("url", ["/hold/", "/ahold/"])
def test_a_direct_request_gets_no_instruction(get, url):
    response = get(url)
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("Grip-")]


def test_without_any_proxy_instructions_are_answered_to_everyone(client, settings):
    settings.GRIP_URL = None
    assert client.get("/hold/")["Grip-Hold"] == "stream"


def test_proxy_required_answers_direct_holds_with_501(client, settings, grip_sig):
    settings.GRIP_PROXY_REQUIRED = True
    assert client.get("/hold/").status_code == 501
    assert client.get("/plain/").status_code == 200
    assert client.get("/hold/", HTTP_GRIP_SIG=grip_sig).status_code == 200


def test_request_grip_says_what_the_proxy_said(grip_sig):
    request = RequestFactory().get(
        "/",
        HTTP_GRIP_SIG=grip_sig,
        HTTP_GRIP_FEATURE="status, link:next",
        HTTP_GRIP_LAST="a; last-id=7",
    )
    GripMiddleware(lambda request: HttpResponse()).process_request(request)
    assert request.grip.proxied
    assert request.grip.signed
    assert request.grip.features == {"status", "link:next"}
    assert request.grip.last == {"a": "7"}
    assert request.grip_proxied
    assert request.grip_signed


def test_s1_grip_headers_of_a_direct_client_are_ignored():
    request = RequestFactory().get(
        "/", HTTP_GRIP_LAST="a; last-id=7", HTTP_GRIP_FEATURE="status"
    )
    GripMiddleware(lambda request: HttpResponse()).process_request(request)
    assert request.grip.last == {}
    assert request.grip.features == set()


def test_stream_with_keep_alive(request_):
    set_hold_stream(request_, "a", keep_alive_data=":\n\n", keep_alive_timeout=20)
    response = answer(request_)
    assert response["Grip-Hold"] == "stream"
    assert response["Grip-Keep-Alive"] == ":\\n\\n; format=cstring; timeout=20"


def test_longpoll_with_timeout_and_several_channels(request_):
    set_hold_longpoll(request_, ["a", Channel("b", "7")], timeout=30)
    response = answer(request_)
    assert response["Grip-Hold"] == "response"
    assert response["Grip-Channel"] == "a, b; prev-id=7"
    assert response["Grip-Timeout"] == "30"


def test_prefix_does_not_change_the_callers_channel(request_, settings):
    settings.GRIP_PREFIX = "p-"
    channel = Channel("a")
    set_hold_stream(request_, channel)
    assert answer(request_)["Grip-Channel"] == "p-a"
    assert answer(request_)["Grip-Channel"] == "p-a"
    assert channel.name == "a"


def test_meta_and_next_link(request_):
    set_hold_stream(request_, "a")
    request_.grip.instruct.meta["user"] = "7"
    request_.grip.instruct.set_next_link("/next/", timeout=60)
    response = answer(request_)
    assert response["Grip-Set-Meta"] == 'user="7"'
    assert response["Grip-Link"] == "</next/>; rel=next; timeout=60"


def test_a_held_304_carries_its_status_in_a_header(request_):
    set_hold_longpoll(request_, "a")
    response = answer(request_, HttpResponseNotModified())
    assert response.status_code == 200
    assert response["Grip-Status"] == "304"


def test_a_request_is_held_once(request_):
    set_hold_stream(request_, "a")
    with pytest.raises(ValueError, match="instruction already"):
        set_hold_stream(request_, "b")


def test_keep_alive_arguments_go_together(request_):
    with pytest.raises(ValueError, match="go together"):
        set_hold_stream(request_, "a", keep_alive_data=":\n\n")


def test_bad_channels_fail_at_the_call(request_):
    with pytest.raises(ValueError, match="channel name"):
        set_hold_stream(request_, "a,b")
    with pytest.raises(TypeError, match="str or gripcontrol"):
        request_.grip.instruct.add_channel(5)


def test_holding_without_the_middleware_names_the_cure():
    with pytest.raises(TypeError, match="MIDDLEWARE"):
        set_hold_stream(RequestFactory().get("/"), "a")


def test_below_another_middleware_the_async_path_stays_async(grip_sig):
    from asgiref.sync import iscoroutinefunction

    async def get_response(request):
        return HttpResponse()

    assert iscoroutinefunction(GripMiddleware(get_response))
    assert not iscoroutinefunction(GripMiddleware(lambda request: HttpResponse()))


def test_keep_alive_by_interval_and_links_and_status_and_exposed_headers(request_):
    set_hold_stream(request_, "a")
    instruct = request_.grip.instruct
    instruct.set_keep_alive("x", 20, mode="interval")
    instruct.set_next_link("/next/")
    instruct.set_gone_link("/gone/")
    instruct.set_status(201, "Made")
    instruct.expose_headers += ["X-A", "X-B"]
    response = answer(request_)
    assert response["Grip-Keep-Alive"] == (
        "x; format=cstring; timeout=20; mode=interval"
    )
    assert response["Grip-Link"] == "</next/>; rel=next, </gone/>; rel=gone"
    assert response["Grip-Status"] == "201 Made"
    assert response["Grip-Expose-Headers"] == "X-A, X-B"


def test_what_would_break_the_instruction_raises_at_the_call(request_):
    set_hold_stream(request_, "a")
    instruct = request_.grip.instruct
    with pytest.raises(ValueError, match="idle or interval"):
        instruct.set_keep_alive("x", 20, mode="often")
    with pytest.raises(ValueError, match="100-999"):
        instruct.set_status(99)
    with pytest.raises(ValueError, match="printable ASCII"):
        instruct.set_status(200, "a\r\nb")
    with pytest.raises(ValueError, match="link"):
        instruct.set_gone_link("/a,b")
    instruct.add_channels(f"c{number}" for number in range(19))
    with pytest.raises(ValueError, match="takes 20 channels"):
        instruct.add_channel("one-too-many")


def test_channels_with_filters(request_):
    channel = Channel("a", "7")
    channel.filters = ["skip-self"]
    set_hold_stream(request_, channel)
    assert answer(request_)["Grip-Channel"] == "a; prev-id=7; filter=skip-self"


def test_streams_tell_the_boxes_between_to_keep_their_hands_off(request_):
    set_hold_stream(request_, "a")
    response = answer(request_, HttpResponse(headers={"Cache-Control": "private"}))
    assert response["Cache-Control"] == "private"
    assert response["X-Accel-Buffering"] == "no"


GZIP = "django.middleware.gzip.GZipMiddleware"
GRIP = "django_grip.GripMiddleware"


@pytest.mark.parametrize("middleware", [[GZIP, GRIP], [GRIP, GZIP]])
def test_a_held_response_is_never_compressed(client, settings, grip_sig, middleware):
    settings.MIDDLEWARE = middleware
    headers = {"accept-encoding": "gzip"}
    plain = client.get("/large/", headers=headers)
    assert plain["Content-Encoding"] == "gzip"
    held = client.get("/large/", headers={**headers, "grip-sig": grip_sig})
    assert held["Grip-Hold"] == "stream"
    assert "Content-Encoding" not in held


class Outer:
    """An async middleware above ours, as many projects have."""

    sync_capable, async_capable = False, True

    def __init__(self, get_response):
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request):
        return await self.get_response(request)


@pytest.mark.parametrize(
    "middleware", [[GRIP], ["test_holds.Outer", GRIP], [GRIP, "test_holds.Outer"]]
)
def test_an_async_request_never_leaves_its_thread(
    async_client, settings, grip_sig, monkeypatch, middleware
):
    hops = []
    call = SyncToAsync.__call__

    async def counted(self, *args, **kwargs):
        hops.append(self.func)
        return await call(self, *args, **kwargs)

    settings.MIDDLEWARE = middleware
    monkeypatch.setattr(SyncToAsync, "__call__", counted)
    headers = {"grip-sig": grip_sig}
    response = async_to_sync(async_client.get)("/ahold/", headers=headers)
    assert response["Grip-Hold"] == "stream"
    # Django's handler and test client hop for themselves; none may be for us.
    assert not [hop for hop in hops if "grip" in str(hop).lower()]


def test_a_request_needs_only_method_meta_and_body(grip_sig):
    class Request:
        method = "GET"
        META = {"HTTP_GRIP_SIG": grip_sig}
        body = b""

    request = Request()
    GripMiddleware(lambda request: None).process_request(request)
    set_hold_stream(request, "a")
    assert answer(request)["Grip-Hold"] == "stream"


NAMES = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF), max_size=30)


@given(st.lists(NAMES, max_size=5, unique=True), st.none() | NAMES)
def test_channels_survive_the_wire_or_raise_the_documented_error(names, prev_id):
    try:
        header = headers.channel_header([(name, prev_id, ()) for name in names])
    except ValueError:
        return
    parsed = parse_instruction([("Grip-Hold", "stream"), ("Grip-Channel", header)])
    assert [(each.name, each.prev_id) for each in parsed.channels] == [
        (name, prev_id) for name in names
    ]


@given(st.binary(max_size=50), st.sampled_from(["idle", "interval"]))
def test_keep_alive_survives_the_wire_or_raises_the_documented_error(data, mode):
    try:
        header = headers.keep_alive_header(data, 20, mode)
    except ValueError:
        assert not data
        return
    parsed = parse_instruction([("Grip-Hold", "stream"), ("Grip-Keep-Alive", header)])
    assert parsed.keep_alive.content == data
    assert (parsed.keep_alive.timeout, parsed.keep_alive.mode) == (20, mode)


@given(st.text(max_size=100))
def test_whatever_the_proxy_says_raises_nothing(value):
    headers.parse_features(value)
    for channel, last in headers.parse_last(value).items():
        assert channel
        assert last
