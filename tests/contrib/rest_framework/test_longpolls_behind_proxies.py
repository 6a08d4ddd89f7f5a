"""Long-polls behind a real proxy: what comes at the wrong moment is not lost."""

import threading
from contextlib import contextmanager
from itertools import islice

import pytest

from tests.clients import request
from tests.contrib.eventlog.pushpin_shop import Shop, lose
from tests.servers import wait_until
from tests.test_docs import blocks


class PolledShop(Shop):
    settings = "tests.contrib.rest_framework.longpoll_site"

    def asked(self, pk, what="asked", path="shipments"):
        """The requests for a row's stream: `Grip-Last` of each, empty at first."""
        lines = self.journal.read_text().splitlines()
        begin = f"{what} /{path}/{pk}/stream/ "
        return [line.removeprefix(begin) for line in lines if line.startswith(begin)]


@pytest.fixture(scope="module")
def shop(proxy, tmp_path_factory):
    with PolledShop(tmp_path_factory.mktemp("shop"), proxy) as shop:
        yield shop


@pytest.fixture
def row(shop):
    """The pk of a row of the test's own."""
    pk = shop.create()
    shop.settle()
    return pk


class Poll:
    """A request that may be held, in a thread; `answer()` waits for its end."""

    def __init__(self, shop, path, since=None, wait=25, **headers):
        query = f"?wait={wait}" + (f"&since={since}" if since else "")
        self._url = f"{shop.url}/{path}/stream/{query}"
        self._headers = headers
        self._answer = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        self._answer = request(self._url, headers=self._headers, timeout=40)

    @property
    def is_open(self):
        return self._thread.is_alive()

    def answer(self):
        self._thread.join(20)
        assert self._answer is not None, f"{self._url} is not answered"
        return self._answer

    def body(self):
        answer = self.answer()
        assert answer.status == 200, answer.body
        return answer.json()


def notes(body):
    return [event["data"]["note"] for event in body["events"]]


def begun(shop, pk):
    """The position of a row's stream."""
    body = Poll(shop, f"shipments/{pk}").body()
    assert body["events"] == []
    return body["position"]


@contextmanager
def held(shop, pk, since, **headers):
    """A poll that is held, and that the proxy has asked for a second time, as it does
    a second after the first of a channel.
    """
    before = len(shop.asked(pk, "read"))
    poll = Poll(shop, f"shipments/{pk}", since, **headers)
    wait_until(lambda: len(shop.asked(pk, "read")) >= before + 2, "it was asked again")
    assert poll.is_open
    yield poll


def test_an_event_answers_all_who_wait_with_one_publish(shop, row):
    since = begun(shop, row)
    with held(shop, row, since) as one:
        other = Poll(shop, f"shipments/{row}", since)
        wait_until(lambda: len(shop.asked(row, "read")) == 4, "the other has asked")
        shop.save(row, 1)
        bodies = [one.body(), other.body()]
    assert bodies[0] == bodies[1]
    assert notes(bodies[0]) == ["1"]
    # Whoever goes on from there misses nothing.
    shop.save(row, 2)
    shop.settle()
    assert notes(Poll(shop, f"shipments/{row}", bodies[0]["position"]).body()) == ["2"]


def test_what_comes_while_nobody_asks_is_the_next_answer(shop, row):
    since = begun(shop, row)
    shop.save(row, 1)
    shop.save(row, 2)
    shop.settle()
    body = Poll(shop, f"shipments/{row}", since).body()
    assert notes(body) == ["1", "2"]
    assert [event["seq"] for event in body["events"]][-1:] == [
        int(body["position"].partition(".")[2])
    ]


def test_what_comes_between_an_answer_and_its_hold_is_not_lost(shop, row):
    since = begun(shop, row)
    for number in (1, 2):
        before = len(shop.asked(row, "read"))
        shop.wait.touch()
        try:
            poll = Poll(shop, f"shipments/{row}", since)
            wait_until(
                lambda: len(shop.asked(row, "read")) == before + 1,  # noqa: B023
                "the answer is made",
            )
            shop.save(row, number)
            shop.settle()
            assert poll.is_open
        finally:
            shop.wait.unlink()
        body = poll.body()
        assert notes(body) == [str(number)]
        # The proxy has asked again, and said what it saw.
        assert shop.asked(row)[-1] == f"shop.shipment.{row}; last-id={since}"
        since = body["position"]


def test_what_is_lost_on_the_way_comes_with_the_next(shop, row):
    since = begun(shop, row)
    with held(shop, row, since) as poll:
        shop.meddler.faults.append(lose)
        shop.save(row, 1)
        shop.settle()
        assert poll.is_open
        shop.save(row, 2)
        body = poll.body()
    assert shop.asked(row)[-1] == f"shop.shipment.{row}; last-id={since}"
    came = notes(body)
    if len(came) == 1:
        # The proxy has asked before the relay had noted that the second is published.
        shop.settle()
        came += notes(Poll(shop, f"shipments/{row}", body["position"]).body())
    assert came == ["1", "2"]


def test_s34_a_close_ends_it_and_the_next_one_is_refused(shop, row):
    before = begun(shop, row)
    shop.save(row, "open")
    shop.settle()
    since = begun(shop, row)
    with held(shop, row, since) as poll:
        shop.post(f"hide/{row}")
        body = poll.body()
    assert body["events"] == []
    assert body["position"] != since
    # Also from a position that has a history.
    for position in (before, since, body["position"]):
        answer = Poll(shop, f"shipments/{row}", position).answer()
        assert answer.status == 403
        assert b"open" not in answer.body


def test_s32_a_user_who_is_one_no_more_is_sent_away_at_once(shop, row):
    name = f"zoe-{row}"
    shop.post(f"employ/{name}")
    since = begun(shop, row)
    path = f"private/{row}"
    poll = Poll(shop, path, since, **{"X-Name": name})
    wait_until(lambda: len(shop.asked(row, "read", "private")) >= 2, "it is held")
    assert poll.is_open
    shop.post(f"dismiss/{name}")
    # Of the user's channel, which knows of no position.
    assert poll.body() == {"events": []}
    assert Poll(shop, path, since, **{"X-Name": name}).answer().status == 403


def test_after_its_time_it_is_answered_with_its_position(shop, row):
    since = begun(shop, row)
    body = Poll(shop, f"shipments/{row}", since, wait=5).body()
    assert body == {"events": [], "position": since}


def test_what_is_published_has_the_headers_of_the_hold(shop, row):
    since = begun(shop, row)
    with held(shop, row, since, Origin="https://app.example") as poll:
        shop.save(row, 1)
        answer = poll.answer()
    assert notes(answer.json()) == ["1"]
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert answer.headers["Vary"] == "Origin"
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert not [name for name in answer.headers if name.lower().startswith("grip")]


def test_a_burst_comes_in_few_answers_and_each_goes_on_from_the_last(shop, row):
    body = Poll(shop, "shipments").body()
    writer = threading.Thread(target=shop.post, args=["bulk"], kwargs={"count": 1_000})
    writer.start()
    seqs, prevs, answers = [int(body["position"].partition(".")[2])], [], 0
    while len(seqs) < 1_001:
        body = Poll(shop, "shipments", body["position"]).body()
        seqs += [event["seq"] for event in body["events"]]
        prevs += [event["prev"] for event in body["events"]]
        answers += 1
    writer.join()
    assert prevs == seqs[:-1]
    assert answers < 50


def test_the_loop_of_the_reference_follows_a_stream(shop, row):
    [source] = blocks("docs/reference/events.md", "python")
    names = {}
    exec(source, names)
    found = []

    def follow():
        events = names["events"](f"{shop.url}/shipments/{row}/stream/")
        found.extend(islice(events, 20))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    wait_until(lambda: len(shop.asked(row, "read")) >= 2, "it knows its position")
    for number in range(20):
        shop.save(row, number)
    thread.join(20)
    assert notes({"events": found}) == [str(number) for number in range(20)]
