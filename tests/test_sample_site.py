"""The sample app on real parts: gunicorn, a proxy, sockets. Each test runs twice."""

import json
import threading

import pytest

from clients import EventStream, request
from servers import wait_until


@pytest.fixture
def lot(site):
    """A lot of its own for each test, so that the tests may run in any order."""
    output = site.manage("shell", "--verbosity=0", "--command", NEW_LOT)
    return json.loads(output.splitlines()[-1])


NEW_LOT = """
import json
from datetime import timedelta
from django.utils import timezone
from auction.models import Lot
lot = Lot.objects.create(
    title="Clock", category="Clocks", starting_price="100.00",
    closes_at=timezone.now() + timedelta(days=1),
)
print(json.dumps({"id": lot.pk}))
"""


def bid(site, lot, amount, bidder="paddle-7"):
    return request(
        f"{site.url}/api/lots/{lot['id']}/bid/",
        "POST",
        {"bidder": bidder, "amount": amount},
    )


def open_stream(site, path, headers=None):
    stream = EventStream(site.url + path, headers)
    assert stream.status == 200
    assert stream.next().event == "ready"
    return stream


def test_a_bid_reaches_the_collection_and_its_lot_and_no_other(site, lot):
    other = json.loads(
        site.manage("shell", "--verbosity=0", "--command", NEW_LOT).splitlines()[-1]
    )
    with (
        open_stream(site, "/api/lots/stream/") as everything,
        open_stream(site, f"/api/lots/{lot['id']}/stream/") as single,
        open_stream(site, f"/api/lots/{other['id']}/stream/") as elsewhere,
    ):
        assert bid(site, lot, "120.00").status == 201
        for stream in (everything, single):
            event = stream.next()
            assert event.event == "update"
            assert event.envelope["op"] == "update"
            assert event.envelope["pk"] == lot["id"]
            assert event.envelope["data"]["current_price"] == "120.00"
        # What was published later has arrived, so what was not for this stream has
        # had its time.
        assert bid(site, other, "150.00").status == 201
        assert elsewhere.next().envelope["pk"] == other["id"]
        assert single.waiting() == 0


def test_data_is_what_get_returns(site, lot):
    with open_stream(site, f"/api/lots/{lot['id']}/stream/") as stream:
        bid(site, lot, "120.00")
        data = stream.next().envelope["data"]
    assert data == request(f"{site.url}/api/lots/{lot['id']}/").json()


def test_the_stream_looks_like_one_to_every_box_between(site):
    with open_stream(site, "/api/lots/stream/") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert stream.headers["Cache-Control"] == "no-cache, no-transform"
        assert stream.headers["X-Accel-Buffering"] == "no"
        assert stream.headers["Content-Encoding"] is None
        assert not [name for name in stream.headers if name.startswith("Grip-")]


def test_a_client_that_offers_gzip_gets_a_plain_stream(site, lot):
    headers = {"Accept-Encoding": "gzip, deflate, br"}
    with open_stream(site, f"/api/lots/{lot['id']}/stream/", headers) as stream:
        bid(site, lot, "120.00")
        assert stream.next().event == "update"


def test_a_rolled_back_bid_sends_nothing_and_a_deleted_lot_its_pk(site, lot):
    code = f"""
from django.db import transaction
from auction.bidding import place_bid
from auction.models import Lot
try:
    with transaction.atomic():
        place_bid({lot["id"]}, "paddle-1", 500)
        raise RuntimeError
except RuntimeError:
    pass
Lot.objects.get(pk={lot["id"]}).delete()
"""
    with (
        open_stream(site, "/api/lots/stream/") as everything,
        open_stream(site, f"/api/lots/{lot['id']}/stream/") as single,
    ):
        site.manage("shell", "--verbosity=0", "--command", code)
        for stream in (everything, single):
            event = stream.next()
            assert event.event == "delete"
            assert event.envelope["pk"] == lot["id"]
            assert "data" not in event.envelope
            assert stream.waiting() == 0


def test_a_command_and_a_shell_that_exit_at_once_are_heard(site, lot):
    with open_stream(site, f"/api/lots/{lot['id']}/stream/") as stream:
        site.manage(
            "shell",
            "--verbosity=0",
            "--command",
            f"from auction.bidding import place_bid; place_bid({lot['id']}, 'a', 110)",
        )
        assert stream.next().envelope["data"]["current_price"] == "110.00"
        site.manage("close_lots", str(lot["id"]))
        assert stream.next().envelope["data"]["status"] == "closed"


def test_of_two_bids_at_the_same_instant_one_wins(site, lot):
    barrier = threading.Barrier(8)
    answers = []

    def place(number):
        barrier.wait()
        answers.append(bid(site, lot, "120.00", f"paddle-{number}"))

    threads = [threading.Thread(target=place, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [201] + [400] * 7
    loser = next(answer for answer in answers if answer.status == 400)
    assert "120.01" in loser.json()["detail"]
    assert request(f"{site.url}/api/lots/{lot['id']}/").json()["bid_count"] == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("{id}/bid/", b'{"bidder": "a", "amount": "1.00"}', 400),
        ("{id}/bid/", b'{"bidder": "a", "amount": "much"}', 400),
        ("{id}/bid/", b'{"bidder": "a", "amount": {}}', 400),
        ("{id}/bid/", b'{"bidder": "a", "amount": "NaN"}', 400),
        ("{id}/bid/", b'{"bidder": "a"}', 400),
        ("{id}/bid/", b'["a"]', 400),
        ("{id}/bid/", b'{"bidder": ', 400),
        ("{id}/bid/", b"\xff", 400),
        ("999999/bid/", b'{"bidder": "a", "amount": "120.00"}', 404),
        ("x/bid/", b'{"bidder": "a", "amount": "120.00"}', 404),
    ],
)
def test_bad_bids_get_a_reason_in_json(site, lot, path, body, status):
    answer = request(
        f"{site.url}/api/lots/" + path.format(id=lot["id"]),
        "POST",
        body=body,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()


def test_bids_on_a_closed_lot_are_refused_with_the_reason(site, lot):
    site.manage("close_lots", str(lot["id"]))
    answer = bid(site, lot, "120.00")
    assert answer.status == 400
    assert "closed" in answer.json()["detail"]


def test_a_stream_is_refused_as_get_is(site):
    streamed = request(f"{site.url}/api/lots/999999/stream/")
    got = request(f"{site.url}/api/lots/999999/")
    assert (streamed.status, streamed.body) == (404, got.body)
    assert request(f"{site.url}/api/lots/stream/?category=Clocks").status == 400


def test_without_the_proxy_a_stream_is_501(site):
    direct = f"http://127.0.0.1:{site.django_port}/api/lots/stream/"
    answer = request(direct, headers={"Grip-Sig": "forged"})
    assert answer.status == 501
    assert "GRIP proxy" in answer.json()["detail"]


def test_a_stream_outlives_a_restart_of_django(site, lot):
    with open_stream(site, f"/api/lots/{lot['id']}/stream/") as stream:
        site.stop_django()
        site.start_django()
        bid(site, lot, "120.00")
        assert stream.next().envelope["data"]["current_price"] == "120.00"


def test_bursts_arrive_in_order_and_complete(site, lot):
    code = f"""
from auction.models import Lot
lot = Lot.objects.get(pk={lot["id"]})
for number in range(300):
    lot.bid_count = number
    lot.save(update_fields=["bid_count"])
"""
    with open_stream(site, f"/api/lots/{lot['id']}/stream/") as stream:
        site.manage("shell", "--verbosity=0", "--command", code)
        counts = [stream.next().envelope["data"]["bid_count"] for _ in range(300)]
    assert counts == list(range(300))


def test_every_bid_of_many_clients_reaches_many_streams(site, lot):
    streams = [open_stream(site, f"/api/lots/{lot['id']}/stream/") for _ in range(20)]
    try:
        for number in range(10):
            assert bid(site, lot, f"{200 + number}.00").status == 201
        for stream in streams:
            prices = [
                stream.next().envelope["data"]["current_price"] for _ in range(10)
            ]
            # Two workers publish each for itself: all arrive, in no promised order.
            assert sorted(prices) == [f"{200 + number}.00" for number in range(10)]
    finally:
        for stream in streams:
            stream.close()


def test_a_dead_control_port_does_not_fail_a_bid(site, lot, tmp_path):
    env = {**site.env, "GRIP_URL": "http://127.0.0.1:9?key=a-secret-of-the-proxy"}
    site.env, kept = env, site.env
    try:
        output = site.manage(
            "shell",
            "--verbosity=0",
            "--command",
            f"from auction.bidding import place_bid; place_bid({lot['id']}, 'a', 110)",
        )
    finally:
        site.env = kept
    assert "Publishing to http://127.0.0.1:9 failed" in output
    assert "a-secret-of-the-proxy" not in output
    price = request(f"{site.url}/api/lots/{lot['id']}/").json()["current_price"]
    assert price == "110.00"


def test_the_admin_publishes_too(site, lot):
    code = f"""
from django.forms.models import model_to_dict
from django.test import Client
from django.contrib.auth.models import User
from auction.models import Lot
client = Client()
client.force_login(User.objects.get(username="admin"))
lot = Lot.objects.get(pk={lot["id"]})
url = f"/admin/auction/lot/{{lot.pk}}/change/"
data = model_to_dict(lot) | {{"title": "Renamed"}}
data |= {{"closes_at_0": "2099-01-01", "closes_at_1": "00:00"}}
answer = client.post(url, data, headers={{"host": "localhost"}})
assert answer.status_code == 302, answer.content
"""
    with open_stream(site, f"/api/lots/{lot['id']}/stream/") as stream:
        site.manage("shell", "--verbosity=0", "--command", code)
        assert stream.next().envelope["data"]["title"] == "Renamed"


def test_a_vanished_client_is_forgotten(site, lot):
    stream = open_stream(site, f"/api/lots/{lot['id']}/stream/")
    stream.close()
    with open_stream(site, f"/api/lots/{lot['id']}/stream/") as after:
        bid(site, lot, "120.00")
        assert after.next().event == "update"
    wait_until(stream.ended.is_set, "the closed stream ends")
