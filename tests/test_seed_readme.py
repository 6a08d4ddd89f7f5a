"""What the README of django-grip said in 2017 still holds, on both proxies."""

import asyncio
from base64 import b64decode

import aiohttp
import pytest

from clients import EventStream, request
from django_grip import proxies
from django_grip.publishers.http import Publisher
from servers import SeedSite, wait_until


@pytest.fixture(scope="module")
def site(proxy, tmp_path_factory):
    with SeedSite(tmp_path_factory.mktemp("seed"), proxy) as site:
        yield site


def post(site, path, data):
    return request(
        site.url + path,
        "POST",
        body=f"data={data}",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )


def test_the_stream_view_holds_and_its_post_publishes(site):
    with EventStream(f"{site.url}/stream/") as stream:
        wait_until(lambda: stream.lines_seen("[stream open]"), "the stream opens")
        assert post(site, "/stream/", "hello").body == b"Ok\n"
        wait_until(lambda: stream.lines_seen("hello"), "the data arrives")
    assert request(f"{site.url}/stream/", "PUT").status == 405


def test_without_the_proxy_the_stream_view_answers_501(site):
    direct = f"http://127.0.0.1:{site.django_port}/stream/"
    assert request(direct).status == 501


def test_the_echo_view_echoes_and_the_broadcast_reaches_all(site):
    url = site.url.replace("http", "ws") + "/echo/"

    async def talk():
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url) as one,
            session.ws_connect(url) as two,
        ):
            await one.send_str("hi é")
            assert await one.receive_str(timeout=10) == "hi é"
            # The answer to two's first message also proves its subscription.
            await two.send_str("ho")
            assert await two.receive_str(timeout=10) == "ho"
            answer = await asyncio.to_thread(post, site, "/broadcast/", "all")
            assert answer.body == b"Ok\n"
            assert await one.receive_str(timeout=10) == "all"
            assert await two.receive_str(timeout=10) == "all"
            await one.close(code=4001)
            assert one.close_code == 1000

    asyncio.run(talk())


def test_the_echo_view_rejects_what_is_no_websocket(site):
    assert request(f"{site.url}/echo/").status == 400
    assert request(f"{site.url}/broadcast/").status == 405


FANOUT = {
    "key": b64decode("your-realm-key"),
    "control_uri": "http://api.fanout.io/realm/your-realm",
    "control_iss": "your-realm",
}


def test_every_form_of_its_settings_is_understood(settings):
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = [{"control_uri": "http://localhost:5561"}, FANOUT]
    pushpin, fanout = proxies.configured()
    assert pushpin.control_uri == "http://localhost:5561"
    assert fanout.control_iss == "your-realm"
    assert fanout.key == fanout.verify_key == b64decode("your-realm-key")
    settings.GRIP_PROXIES = []
    settings.GRIP_URL = (
        "http://api.fanout.io/realm/your-realm?iss=your-realm&key=base64:your-realm-key"
    )
    assert proxies.configured() == (fanout,)
    settings.PUBLISH_SERVERS = [
        {"uri": "http://example.com/base-uri", "iss": "your-iss", "key": "your-key"}
    ]
    addresses = [sender.address for sender in Publisher()._senders]
    assert addresses == [
        "http://api.fanout.io/realm/your-realm",
        "http://example.com/base-uri",
    ]
