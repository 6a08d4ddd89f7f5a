"""The event log behind a real proxy: what fails on the way to clients heals."""

import os
import signal
import socket
import statistics
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest

from pushpin import Pushpin, free_port
from tests.contrib.eventlog import pushpin_shop
from tests.contrib.eventlog.pushpin_shop import OPERATOR, Client, Shop, grip_url, lose
from tests.servers import KEY, MANAGE, Process, wait_until

on_pushpin = pytest.mark.parametrize(
    "proxy", [pytest.param("pushpin", marks=pytest.mark.pushpin)], indirect=True
)


@pytest.fixture(scope="module")
def shop(proxy, tmp_path_factory):
    with Shop(tmp_path_factory.mktemp("shop"), proxy) as shop:
        yield shop


@pytest.fixture
def row(shop):
    """The pk of a row of the test's own."""
    pk = shop.create()
    shop.settle()
    return pk


@contextmanager
def following(shop, pk):
    """A client of a row, when the proxy has asked for the first time, as it does a
    second after the first subscription.
    """
    with Client(f"{shop.url}/shipments/{pk}/stream/") as client:
        wait_until(lambda: shop.links(pk, "answered"), "the proxy has asked once")
        yield client


@contextmanager
def configured(shop, **values):
    """GRIP_REALTIME of the site is another one."""
    shop.post("configure", **values)
    try:
        yield
    finally:
        shop.post("configure", **dict.fromkeys(values))


# One publish.


def test_f20_what_is_lost_on_the_way_comes_before_the_next(shop, row):
    with following(shop, row) as client:
        shop.save(row, 1)
        client.has(1)
        shop.meddler.faults.append(lose)
        shop.save(row, 2)
        shop.settle()
        shop.save(row, 3)
        client.has(1, 2, 3)
        assert len(shop.links(row)) == 2
        shop.save(row, 4)
        client.has(1, 2, 3, 4)
        assert (client.connections, client.gaps, client.repeats) == (1, 0, 0)


def test_f20_the_last_one_that_is_lost_comes_when_the_link_is_due(shop, row):
    with configured(shop, LINK_TIMEOUT=2), following(shop, row) as client:
        shop.meddler.faults.append(lose)
        shop.save(row, 1)
        client.has(1)
        assert (client.connections, client.gaps, client.repeats) == (1, 0, 0)


@on_pushpin
def test_f19_a_publish_that_fails_is_repeated_and_nothing_passes_it(shop, row):
    faults = [
        pushpin_shop.refuse,
        pushpin_shop.take_and_reset,
        pushpin_shop.fail,
        pushpin_shop.take_and_answer_half,
        pushpin_shop.say_nothing,
        pushpin_shop.take_and_dribble,
    ]
    with following(shop, row) as client:
        for number, fault in enumerate(faults):
            shop.meddler.faults += [fault, fault]
            shop.save(row, 2 * number)
            shop.save(row, 2 * number + 1)
            client.has(*range(2 * number + 2))
            shop.settle()
            assert not shop.meddler.faults
        # Nothing had to be healed.
        assert len(shop.links(row)) == 1
        assert (client.connections, client.gaps, client.repeats) == (1, 0, 0)


@on_pushpin
@pytest.mark.parametrize("fault", ["come_late", "come_twice"])
def test_f21_out_of_order_on_the_wire_is_in_order_at_the_client(shop, row, fault):
    with following(shop, row) as client:
        shop.save(row, 1)
        client.has(1)
        shop.meddler.faults.append(getattr(pushpin_shop, fault))
        shop.save(row, 2)
        shop.settle()
        shop.save(row, 3)
        client.has(1, 2, 3)
        # The sequencer of the proxy did it.
        assert len(shop.links(row)) == 1
        assert (client.connections, client.gaps, client.repeats) == (1, 0, 0)


@on_pushpin
def test_f22_a_repetition_after_the_ids_are_forgotten_is_not_shown(shop, row):
    with following(shop, row) as client:
        shop.save(row, 1)
        client.has(1)
        again = shop.meddler.last
        shop.save(row, 2)
        client.has(1, 2)
        time.sleep(int(OPERATOR["id_cache_ttl"]) + 1)
        shop.meddler.pass_on(again)
        wait_until(lambda: len(shop.links(row)) == 2, "the proxy has asked")
        shop.save(row, 3)
        client.has(1, 2, 3)
        assert len(shop.links(row)) == 2
        assert (client.connections, client.gaps, client.repeats) == (1, 0, 0)


# The proxy is gone.


def test_f15_a_proxy_killed_in_traffic_and_nothing_is_lost(shop, row):
    with Client(f"{shop.url}/shipments/{row}/stream/") as client:
        shop.save(row, 0)
        client.has(0)
        victim = "pushpin-handler" if shop.proxy == "pushpin" else None
        shop.kill_proxy(victim)
        shop.save(row, 1)
        # It takes those that are left with it.
        shop.stop_proxy()
        shop.save(row, 2)
        shop.start_proxy()
        shop.save(row, 3)
        client.has(0, 1, 2, 3)
        assert client.connections == 2
        assert not client.resets


@on_pushpin
def test_f16_an_outage_is_caught_up_with_and_no_writer_waits_for_it(shop, row):
    def timed(number):
        began = time.perf_counter()
        shop.save(row, number)
        return time.perf_counter() - began

    with Client(f"{shop.url}/shipments/{row}/stream/") as client:
        before = [timed(number) for number in range(20)]
        client.has(*range(20))
        shop.stop_proxy()
        until = time.monotonic() + 2
        during = []
        while time.monotonic() < until:
            during.append(timed(20 + len(during)))
        [(published,)] = shop.query("SELECT published FROM grip_eventlog_target")
        [(last,)] = shop.query("SELECT last_seq FROM grip_eventlog_sequence")
        assert last - published >= len(during)
        shop.start_proxy()
        client.has(*range(20 + len(during)))
        assert not client.resets
    shop.settle()
    assert statistics.median(during) < 5 * statistics.median(before)


def test_f18_what_was_accepted_and_never_sent_is_fetched(shop, row):
    def take_and_die(post, body):
        if shop.proxy == "pushpin":
            # Nothing reaches a client any more.
            os.kill(shop.processes()["condure"], signal.SIGSTOP)
            answer = shop.meddler.pass_on(body)
            shop.kill_proxy()
        else:
            shop.kill_proxy()
            answer = 200, b"Published\n"
        post.answer(*answer)

    with Client(f"{shop.url}/shipments/{row}/stream/") as client:
        shop.save(row, 1)
        client.has(1)
        shop.meddler.faults.append(take_and_die)
        shop.save(row, 2)
        shop.settle()
        assert client.notes == ["1"]
        shop.stop_proxy()
        shop.start_proxy()
        client.has(1, 2)
        assert client.connections == 2


@on_pushpin
def test_f42_a_hundred_clients_come_back_at_once(shop, row):
    url = f"{shop.url}/shipments/{row}/stream/"
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(url)) for _ in range(100)]
        shop.save(row, 0)
        for client in clients:
            client.has(0)
        shop.kill_proxy()
        shop.save(row, 1)
        shop.stop_proxy()
        shop.start_proxy()
        # Streams that Django answered before this, and that Pushpin holds after it,
        # get it when their link is due.
        shop.save(row, 2)
        for client in clients:
            client.has(0, 1, 2)
            assert not client.resets


@pytest.fixture
def pair(tmp_path):
    """A site with two Pushpins, and a relay of its own."""
    port = free_port()
    env = {
        "SECOND_GRIP_URL": grip_url(port),
        "SITE_REALTIME": '{"RELAY": "daemon", "RETRY": [0.05, 0.2]}',
    }
    with Shop(tmp_path, "pushpin", env) as shop:
        second = Pushpin(
            tmp_path / "second",
            upstream=f"127.0.0.1:{shop.django_port}",
            control_port=port,
            key=KEY,
            settings=OPERATOR,
        )
        relay = Process([*MANAGE, "grip_relay"], tmp_path / "relay.log", shop.env)
        try:
            with second:
                yield shop, second
        finally:
            relay.stop()


@pytest.mark.pushpin
def test_f17_one_of_two_proxies_is_dead_and_the_other_does_not_notice(pair):
    shop, second = pair
    row = shop.create()
    shop.settle()
    path = f"/shipments/{row}/stream/"
    with Client(shop.url + path) as there, Client(second.url + path) as dead:

        def delay(number):
            began = time.perf_counter()
            shop.save(row, number)
            there.has(*range(number + 1))
            return time.perf_counter() - began

        before = [delay(number) for number in range(10)]
        dead.has(*range(10))
        second.stop()
        during = [delay(number) for number in range(10, 30)]
        assert statistics.median(during) < 5 * statistics.median(before)
        assert there.connections == 1
        second.start()
        dead.has(*range(30))
        assert not dead.resets
        shop.settle()


# Django is gone, or slow.


@on_pushpin
def test_f35_django_is_down_when_the_proxy_asks_and_nothing_is_lost(shop, row):
    with configured(shop, LINK_TIMEOUT=1), following(shop, row) as client:
        shop.meddler.faults.append(lose)
        shop.save(row, 1)
        shop.settle()
        shop.stop_django()
        failed = shop.proxy_log().count("/grip/next/")
        wait_until(
            lambda: shop.proxy_log().count("/grip/next/") > failed,
            "the proxy has asked in vain",
        )
        shop.start_django()
        shop.save(row, 2)
        client.has(1, 2)
        assert not client.resets


@on_pushpin
@pytest.mark.parametrize("count", [60, 160])
def test_f36_a_slow_answer_and_what_flows_meanwhile_comes_in_order(shop, row, count):
    with following(shop, row) as client:
        shop.wait.touch()
        try:
            shop.meddler.faults.append(lose)
            shop.save(row, 0)
            shop.settle()
            shop.save(row, 1)
            wait_until(lambda: len(shop.links(row)) == 2, "the proxy has asked")
            for number in range(2, count):
                shop.save(row, number)
            shop.settle()
            assert client.notes == []
        finally:
            shop.wait.unlink()
        # The proxy keeps a hundred; the next one shows that there were more.
        if count > 100:
            wait_until(lambda: client.events, "the answer has come")
            shop.save(row, count)
            count += 1
        client.has(*range(count))
        assert (client.connections, client.gaps, client.repeats) == (1, 0, 0)


# Much at once.


class SlowClient(Client):
    """Reads one event in 20 s, of 50 kB with little room on the way, until it is
    `awake`.
    """

    def __init__(self, url):
        super().__init__(url)
        self.awake = threading.Event()

    def _apply(self, event, id, data):
        if event == "update":
            room = socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536
            self._connection._socket.setsockopt(*room)
            self.awake.wait(20)
        return super()._apply(event, id, data)

    def hang_up(self):
        """Connect again, as who hears nothing for too long does."""
        self._connection.close()


@on_pushpin
def test_f39_an_event_that_no_proxy_takes_comes_by_the_link(shop, row):
    with following(shop, row) as client:
        shop.save(row, "x" * 1_500_000)
        shop.settle()
        shop.save(row, 1)
        client.has("x" * 1_500_000, 1)
        assert (client.connections, client.gaps, client.repeats) == (1, 0, 0)
    refused = shop.query("SELECT seq FROM grip_eventlog_setaside")
    assert (client.events[0]["seq"],) in refused


@on_pushpin
def test_f39_ten_thousand_rows_at_once_stop_no_other_channel(shop, row):
    with (
        Client(f"{shop.url}/shipments/stream/") as every,
        Client(f"{shop.url}/shipments/{row}/stream/") as other,
    ):
        began = len(every.events)
        writer = threading.Thread(
            target=shop.post, args=["bulk"], kwargs={"count": 10_000}
        )
        writer.start()
        for number in range(20):
            shop.save(row, number)
        writer.join()
        shop.save(row, 20)
        other.has(*range(21))
        wait_until(lambda: len(every.events) >= began + 10_021, "all have come")
        created = [event["pk"] for event in every.events if event["op"] == "create"]
        assert created == sorted(created)
        assert len(created) == len(set(created)) == 10_000
        assert (every.connections, other.connections) == (1, 1)


@on_pushpin
def test_f41_who_reads_slowly_delays_nobody_else_and_misses_nothing(shop, row):
    with (
        SlowClient(f"{shop.url}/shipments/{row}/stream/") as slow,
        following(shop, row) as client,
    ):
        # More than there is room for on the way.
        notes = [f"{number} {'x' * 50_000}" for number in range(120)]
        for note in notes:
            shop.save(row, note)
        client.has(*notes)
        assert client.connections == 1
        assert len(slow.events) < 2
        slow.awake.set()
        # Pushpin 1.36 takes most of a minute to go on.
        wait_until(lambda: len(slow.events) > 10, "what was on the way has come")
        slow.hang_up()
        slow.has(*notes)
        assert not slow.resets
