"""WebSockets behind the real proxies: what the proxy and the client make of it."""

import json

import pytest
import websocket

from tests.clients import request
from tests.contrib.eventlog.pushpin_shop import Shop, lose
from tests.contrib.rest_framework.socket_clients import SocketClient
from tests.servers import wait_until

ALL = "/shipments/stream/"

on_pushpin = pytest.mark.parametrize(
    "proxy", [pytest.param("pushpin", marks=pytest.mark.pushpin)], indirect=True
)


class SocketShop(Shop):
    settings = "tests.contrib.rest_framework.socket_site"

    def log_in(self, name):
        """The cookie of a new user."""
        answer = request(f"{self.url}/login/", "POST", {"name": name})
        assert answer.status == 200, answer.body
        return answer.headers["Set-Cookie"].partition(";")[0]

    def tell(self, path, cookie="", **values):
        url, headers = f"{self.origin}/{path}/", {"Cookie": cookie}
        answer = request(url, "POST", values, headers=headers)
        assert answer.status == 200, answer.body


@pytest.fixture(scope="module")
def shop(proxy, tmp_path_factory):
    env = {"SITE_REALTIME": '{"MAX_PAYLOAD": 400000, "KEEP_ALIVE": 1}'}
    with SocketShop(tmp_path_factory.mktemp("shop"), proxy, env) as shop:
        yield shop


@pytest.fixture
def row(shop):
    """The pk of a row of the test's own."""
    pk = shop.create()
    shop.settle()
    return pk


def connect(shop, path="/realtime/", **options):
    return SocketClient(shop.url + path, **options)


def notes(objects):
    return [each["data"]["note"] for each in objects if "data" in each]


def hears(client, shop, pk):
    """Wait until a client of a row hears of its changes; returns the last one.

    The proxy subscribes a moment after the client was told.
    """

    def heard():
        shop.save(pk, "probe")
        shop.settle()
        found = client.ping()
        return found and found[-1]

    return wait_until(heard, "the proxy has subscribed")


def test_events_come_to_every_subscriber_by_both_ways(shop, row):
    own = f"/shipments/{row}/stream/"
    with connect(shop) as many, connect(shop) as other, connect(shop, own) as single:
        assert many.subscribe(own)["channel"] == f"shop.shipment.{row}"
        assert other.subscribe(own)["type"] == "subscribed"
        assert single.next()["gapless"] is True
        for client in (many, other, single):
            hears(client, shop, row)
        shop.save(row, "last")
        for client in (many, other, single):
            while (event := client.next())["data"]["note"] != "last":
                pass
            assert event["op"] == "update"


def test_two_subscriptions_of_a_channel_end_one_by_one(shop, row):
    own = f"/shipments/{row}/stream/"
    with connect(shop) as client:
        client.subscribe(own, "a")
        client.subscribe(own, "b")
        hears(client, shop, row)
        client.send(type="unsubscribe", id="a")
        client.until("unsubscribed")
        hears(client, shop, row)
        client.send(type="unsubscribe", id="b")
        client.until("unsubscribed")
        client.subscribe(ALL, "c")
        last = hears(client, shop, row)
        assert last["channel"] == "shop.shipment"
        channels = {each["channel"] for each in client.ping()}
        assert channels <= {"shop.shipment"}


def test_what_is_refused_is_told_and_the_rest_goes_on(shop, row):
    with connect(shop) as client:
        assert client.subscribe("/shipments/999999/stream/")["status"] == 404
        assert client.subscribe("/nowhere/")["status"] == 404
        assert client.subscribe("/mine/stream/")["status"] == 403
        assert client.subscribe(ALL)["type"] == "subscribed"


def test_a_refused_handshake_has_the_views_status_and_words(shop, row):
    for path in ("/mine/stream/", "/shipments/999999/stream/"):
        with pytest.raises(websocket.WebSocketBadStatusException) as caught:
            connect(shop, path)
        got = request(shop.url + path.removesuffix("stream/"))
        assert caught.value.status_code == got.status
        assert json.loads(caught.value.resp_body) == got.json()


def test_s14_a_foreign_page_with_cookies_is_refused(shop):
    for path in ("/realtime/", ALL):
        with pytest.raises(websocket.WebSocketBadStatusException) as caught:
            connect(shop, path, cookie="a=b", origin="https://evil.example")
        assert caught.value.status_code == 403


def test_f20_what_is_lost_on_the_way_shows_in_the_next_event_and_is_resumed(shop, row):
    with connect(shop) as client:
        client.subscribe(f"/shipments/{row}/stream/")
        last = hears(client, shop, row)
        shop.meddler.faults.append(lose)
        shop.save(row, "lost")
        shop.settle()
        shop.save(row, "next")
        event = client.next()
        assert event["data"]["note"] == "next"
        assert event["prev"] > last["seq"]
        epoch = client_position(client, row).partition(".")[0]
        client.send(type="resume", id="a", since=f"{epoch}.{last['seq']}")
        assert notes(client.until("resumed")) == ["lost", "next"]


def test_what_comes_between_the_answer_and_the_proxys_subscribing_is_resumed(shop, row):
    own = f"/shipments/{row}/stream/"
    with connect(shop) as client:
        shop.wait.touch()
        try:
            client.send(type="subscribe", id="a", url=own)
            wait_until(lambda: "waits" in shop.journal.read_text(), "it is answered")
            shop.save(row, "between")
            shop.settle()
        finally:
            shop.wait.unlink()
        subscribed = client.next()
        assert client.ping() == []
        client.send(type="resume", id="a", since=subscribed["position"])
        assert notes(client.until("resumed")) == ["between"]


def client_position(client, row):
    answer = client.subscribe(f"/shipments/{row}/stream/", "position")
    client.send(type="unsubscribe", id="position")
    client.until("unsubscribed")
    return answer["position"]


def test_a_client_that_comes_back_is_told_what_it_missed(shop, row):
    own = f"/shipments/{row}/stream/"
    with connect(shop) as client:
        position = client.subscribe(own)["position"]
    for note in "abc":
        shop.save(row, note)
    shop.settle()
    with connect(shop) as client:
        client.subscribe(own, since=position)
        assert notes(client.until("resumed")) == ["a", "b", "c"]
    with connect(shop, f"{own}?since={position}") as single:
        assert notes(single.until("resumed")) == ["a", "b", "c"]


def test_a_long_absence_comes_whole_in_answers_that_the_proxy_takes(shop, row):
    own = f"/shipments/{row}/stream/"
    with connect(shop) as client:
        position = client.subscribe(own)["position"]
        for number in range(40):
            shop.save(row, f"{number}-" + "x" * 30_000)
        shop.save(row, "y" * 50_000)
        shop.settle()
    with connect(shop) as client:
        client.subscribe(own, since=position)
        found = client.until("resumed")
        while found[-1].get("more"):
            client.send(type="resume", id="a", since=found[-1]["position"])
            found += client.until("resumed")
        got = [note.partition("-")[0] for note in notes(found)]
        assert got == [str(number) for number in range(40)]
        [truncated] = [each for each in found if each.get("truncated")]
        assert truncated["op"] == "update"
        # It is in use still.
        hears(client, shop, row)


def test_rows_come_first_where_they_are_asked_for(shop, row):
    with connect(shop) as client:
        client.subscribe(f"/shipments/{row}/stream/?snapshot=1")
        snapshot = client.next()
        assert [each["id"] for each in snapshot["rows"]] == [row]
        assert snapshot["done"] is True


def test_a_silent_connection_gives_signs_of_life(shop):
    with connect(shop) as client:
        wait_until(lambda: client.signs >= 2, "empty arrays come")


def test_s52_a_flood_of_operations_is_closed(shop):
    with connect(shop) as client:
        for number in range(300):
            client.send(type="subscribe", id=str(number), url="/nowhere/")
        assert client.end()[0] == 1008


def test_s22_a_text_that_is_too_long_is_closed(shop):
    with connect(shop) as client:
        client.send_text("[" * 70_000)
        assert client.end()[0] == 1009


def test_s22_nonsense_is_a_problem(shop):
    with connect(shop) as client:
        for text in ("[" * 60_000, "NaN", '{"type":"x"}'):
            client.send_text(text)
        assert {each["status"] for each in client.ping()} == {400}


def test_s32_a_revocation_closes_every_socket_of_the_user_at_once(shop, row):
    cookie = shop.log_in("revoked")
    options = {"cookie": cookie, "origin": shop.url}
    with (
        connect(shop, **options) as many,
        connect(shop, f"/mine/{row}/stream/", **options) as single,
        connect(shop) as nobody,
    ):
        many.subscribe(f"/mine/{row}/stream/")
        nobody.subscribe(f"/shipments/{row}/stream/")
        for client in (many, single, nobody):
            hears(client, shop, row)
        shop.tell("revoke", name="revoked")
        assert many.end()[0] == single.end()[0] == 4001
        hears(nobody, shop, row)


@on_pushpin
def test_s32_after_20_seconds_of_silence_views_are_asked_and_what_was_lost_is_told(
    shop, row
):
    """A plain client, which asks for nothing, and one whose session is deleted."""
    cookie = shop.log_in("gone")
    options = {"cookie": cookie, "origin": shop.url}
    own = f"/mine/{row}/stream/"
    with (
        connect(shop) as plain,
        connect(shop, **options) as many,
        connect(shop, own, **options) as single,
    ):
        plain.subscribe(f"/shipments/{row}/stream/")
        many.subscribe(own)
        single.next()
        hears(plain, shop, row)
        shop.meddler.faults.append(lose)
        shop.save(row, "lost")
        shop.settle()
        shop.tell("end-session", cookie)
        assert plain.next(timeout=40)["data"]["note"] == "lost"
        assert many.end(40)[0] == single.end(40)[0] == 4403
