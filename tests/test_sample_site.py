"""The sample app on real parts: gunicorn, a proxy, sockets. Each test runs twice."""

import json
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clients import EventStream, request
from servers import free_port, wait_until


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
from django_grip.contrib.eventlog import inline
lot = Lot.objects.create(
    title="Clock", category="Clocks", starting_price="100.00",
    closes_at=timezone.now() + timedelta(days=1),
)
inline.drain()
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
            assert prices == [f"{200 + number}.00" for number in range(10)]
    finally:
        for stream in streams:
            stream.close()


def test_a_dead_control_port_fails_no_bid_and_its_event_comes_with_the_next(site, lot):
    kept = site.env
    site.env = {**kept, "GRIP_URL": "http://127.0.0.1:9?key=a-secret-of-the-proxy"}
    place = f"from auction.bidding import place_bid; place_bid({lot['id']}, 'a', 110)"
    with open_stream(site, f"/api/lots/{lot['id']}/stream/") as stream:
        try:
            output = site.manage("shell", "--verbosity=0", "--command", place)
        finally:
            site.env = kept
        assert "a-secret-of-the-proxy" not in output
        assert bid(site, lot, "120.00").status == 201
        prices = [stream.next().envelope["data"]["current_price"] for _ in range(2)]
    assert prices == ["110.00", "120.00"]


def test_a_stream_goes_on_where_the_last_one_ended(site, lot):
    path = f"/api/lots/{lot['id']}/stream/"
    with EventStream(site.url + path) as stream:
        ready = stream.next().envelope
        bid(site, lot, "110.00")
        first = stream.next().envelope
    assert ready["gapless"] is True
    epoch = ready["position"].partition(".")[0]
    here = f"{epoch}.{first['seq']}"
    assert stream.lines_seen(f"id: {here}")
    for amount in ("120.00", "130.00"):
        bid(site, lot, amount)
    # Until they are published they are not in the answer, but they come all the same.
    for headers, query in (({"Last-Event-ID": here}, ""), ({}, f"?since={here}")):
        with open_stream(site, path + query, headers) as stream:
            missed = [stream.next().envelope for _ in range(2)]
            assert [each["data"]["current_price"] for each in missed] == [
                "120.00",
                "130.00",
            ]
            assert [each["prev"] for each in missed] == [first["seq"], missed[0]["seq"]]


def test_a_position_of_another_log_is_answered_by_reset(site, lot):
    path = f"/api/lots/{lot['id']}/stream/?since=anotherepoch.1"
    with open_stream(site, path) as stream:
        reset = stream.next()
        assert (reset.event, reset.envelope["reason"]) == ("reset", "epoch")
        bid(site, lot, "110.00")
        assert stream.next().envelope["data"]["current_price"] == "110.00"


class LossyControl(ThreadingHTTPServer):
    """A control port that passes posts on, and loses as many as it is told."""

    daemon_threads = True

    def __init__(self, port, target):
        super().__init__(("127.0.0.1", port), LossyHandler)
        self.url = f"http://127.0.0.1:{target}/publish/"
        self.to_lose = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *exc_info):
        self.shutdown()
        super().__exit__(*exc_info)


class LossyHandler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.to_lose:
            self.server.to_lose -= 1
        else:
            urllib.request.urlopen(self.server.url, body).close()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"Published\n")

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("proxy", ["localproxy"], indirect=True)
def test_a_lost_publish_is_healed_by_the_link(site, lot):
    """The local proxy asks for it as Pushpin does."""
    site.stop_proxy()
    port, site.control_port = site.control_port, free_port()
    site.start_proxy()
    with (
        LossyControl(port, site.control_port) as control,
        open_stream(site, f"/api/lots/{lot['id']}/stream/") as stream,
    ):
        bid(site, lot, "100.00")
        events = [stream.next()]
        # The first by what is asked a second after the first subscription, the second
        # when the next item does not follow on what came.
        for lost, following in (("110.00", "120.00"), ("130.00", "140.00")):
            control.to_lose = 1
            bid(site, lot, lost)
            wait_until(lambda: not control.to_lose, "a publish is lost")
            bid(site, lot, following)
            events += [stream.next(20), stream.next(20)]
    site.stop_proxy()
    site.control_port = port
    site.start_proxy()
    seqs = [event.envelope["seq"] for event in events]
    assert [event.envelope["prev"] for event in events][1:] == seqs[:-1]
    prices = [event.envelope["data"]["current_price"] for event in events]
    assert prices == ["100.00", "110.00", "120.00", "130.00", "140.00"]


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
data |= {{"closes_at_0": "2099-01-01", "closes_at_1": "00:00", "reserve_price": 5}}
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
