import pytest
from asgiref.sync import async_to_sync
from django.http import HttpResponse, HttpResponseNotModified
from django.test import RequestFactory
from gripcontrol import Channel

from django_grip import GripMiddleware, set_hold_longpoll, set_hold_stream


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
