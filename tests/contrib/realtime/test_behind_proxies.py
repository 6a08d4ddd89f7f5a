"""What clients of a real Pushpin receive when rows are written, to the byte."""

import json
import re
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Thread

import pytest
from django.db import connection

from django_grip.contrib.realtime import publish_event, suppress
from django_grip.publishers.http import Publisher
from pushpin import Pushpin
from tests.clients import EventStream
from tests.shop.models import Shipment
from tests.shop.reading import configurator

pytestmark = [pytest.mark.pushpin, pytest.mark.django_db(transaction=True)]

PATIENCE = 20
"""Seconds until a test of two writers is given up."""

READY = b"event: ready\ndata: {}\n\n"


class Origin(BaseHTTPRequestHandler):
    """Holds a stream of the channel that the path names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(READY)))
        self.send_header("Grip-Hold", "stream")
        self.send_header("Grip-Channel", self.path.removeprefix("/"))
        self.end_headers()
        self.wfile.write(READY)

    def log_message(self, *args):
        pass


class OriginServer(ThreadingHTTPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def pushpin(tmp_path_factory):
    with OriginServer(("127.0.0.1", 0), Origin) as origin:
        serving = Thread(target=origin.serve_forever, args=[0.05], daemon=True)
        serving.start()
        upstream = f"127.0.0.1:{origin.server_port}"
        with Pushpin(tmp_path_factory.mktemp("pushpin"), upstream=upstream) as pushpin:
            yield pushpin
        origin.shutdown()
        serving.join()


@pytest.fixture
def listen(pushpin, settings):
    """`listen(channel)`: a client of that channel; and events really leave."""
    settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
    settings.GRIP_URL = pushpin.grip_url
    with ExitStack() as clients:

        def listen(channel):
            client = EventStream(f"{pushpin.url}/{channel}")
            clients.enter_context(client)
            assert client.next().event == "ready"
            return client

        yield listen


@pytest.fixture
def configure():
    with configurator() as configure:
        yield configure


def given(count=1, **values):
    """Rows from pk 1 on that nobody was told of."""
    with suppress():
        Shipment.objects.bulk_create(
            Shipment(pk=pk, **values) for pk in range(1, count + 1)
        )


def received(client, channel):
    """The events a client got until now, the ready one left out."""
    publish_event(channel, "end")
    events = []
    while (event := client.next()).event != "end":
        events.append(event)
    return events


# Many rows.


@pytest.fixture
def sent(monkeypatch):
    """The ids of what is published on the collection, in order."""
    ids = []
    enqueue = Publisher.enqueue

    def note_and_enqueue(self, items, callback=None):
        ids.extend(item.id for item in items if item.channel == "shop.shipment")
        enqueue(self, items, callback)

    monkeypatch.setattr(Publisher, "enqueue", note_and_enqueue)
    return ids


def bulk_create(count):
    Shipment.objects.bulk_create(
        Shipment(pk=pk, tenant=7) for pk in range(1, count + 1)
    )


def update(count):
    assert Shipment.objects.update(tenant=8) == count


def bulk_update(count):
    rows = list(Shipment.objects.order_by("pk"))
    for row in rows:
        row.tenant = 8
    assert Shipment.objects.bulk_update(rows, ["tenant"]) == count


def delete(count):
    Shipment.objects.all().delete()


WRITES = [
    (bulk_create, "create"),
    (update, "update"),
    (bulk_update, "update"),
    (delete, "delete"),
]


@pytest.mark.parametrize("count", [20, 2_000])
@pytest.mark.parametrize(("write", "op"), WRITES)
def test_above_bulk_limit_a_client_gets_one_event(listen, write, op, count):
    client = listen("shop.shipment")
    if write is not bulk_create:
        given(count, tenant=7)
    write(count)
    events = received(client, "shop.shipment")
    envelopes = [event.envelope for event in events]
    if count == 20:
        assert [event.event for event in events] == [op] * count
        assert sorted(event["pk"] for event in envelopes) == list(range(1, 21))
        assert len({event["id"] for event in envelopes}) == count
        return
    assert [event.event for event in events] == ["bulk"]
    (bulk,) = envelopes
    assert (bulk["op"], bulk["action"], bulk["count"]) == ("bulk", op, count)
    assert bulk.keys().isdisjoint({"pk", "pks", "data"})


@pytest.mark.parametrize(("write", "op"), WRITES)
def test_no_single_event_of_many_is_lost_or_out_of_order(
    listen, configure, sent, write, op
):
    configure(Shipment, bulk_limit=5_000)
    client = listen("shop.shipment")
    if write is not bulk_create:
        given(2_000, tenant=7)
    write(2_000)
    events = received(client, "shop.shipment")
    assert {event.event for event in events} == {op}
    envelopes = [event.envelope for event in events]
    # `end` is the last one sent.
    assert [event["id"] for event in envelopes] == sent[:-1]
    pks = [event["pk"] for event in envelopes]
    if write in (bulk_create, bulk_update):
        assert pks == list(range(1, 2_001))
    assert sorted(pks) == list(range(1, 2_001))
    if op != "delete":
        tenants = {event["data"]["tenant"] for event in envelopes}
        assert tenants == {7 if op == "create" else 8}


# A row that moves.


CHANNELS = {
    "old": "shop.shipment~tenant.7",
    "new": "shop.shipment~tenant.8",
    "object": "shop.shipment.1",
    "collection": "shop.shipment",
    "stale": "shop.shipment~tenant.6",
    "newest": "shop.shipment~tenant.9",
}
MARK = {tenant: f"mark-of-{tenant}-c0ffee" for tenant in (7, 8, 9)}


@pytest.fixture
def clients(listen, configure):
    """A client of each channel; the row 1 is of tenant 7."""
    configure(Shipment, scopes={"tenant": "tenant"})
    given(tenant=7, note=MARK[7])
    return {name: listen(channel) for name, channel in CHANNELS.items()}


def frame(op, channel, changed=None, reason=None, tenant=None):
    """An event as it is received, with ID and TS for what differs each time."""
    values = {"id": "ID", "channel": channel, "op": op}
    values |= {"model": "shop.shipment", "pk": 1, "ts": "TS"}
    values |= {"changed": changed} if changed else {}
    values |= {"reason": reason} if reason else {}
    if tenant:
        data = {"id": 1, "tenant": tenant, "status": "open", "note": MARK[tenant]}
        values["data"] = data
    return f"event: {op}\ndata: {json.dumps(values, separators=(',', ':'))}\n\n"


def leave(name):
    return frame("delete", CHANNELS[name], reason="leave")


def enter(name, tenant):
    return frame("create", CHANNELS[name], reason="enter", tenant=tenant)


def whole(client, channel):
    """All a client got behind READY, byte for byte but for ids and times."""
    if channel == CHANNELS["object"]:
        assert client.ended.wait(PATIENCE)
    else:
        received(client, channel)
    text = "\n".join(client._lines) + "\n"
    text = text.removeprefix(READY.decode()).partition("event: end\n")[0]
    text = re.sub(r'"id":"[0-9a-f]{32}"', '"id":"ID"', text)
    return re.sub(r'"ts":"[-0-9]{10}T[0-9:]{8}\.[0-9]{3}Z"', '"ts":"TS"', text)


def save(row):
    row = Shipment.objects.get()
    row.tenant, row.note = 8, MARK[8]
    row.save()


def update_in_place(row):
    Shipment.objects.filter(tenant=7).update(tenant=8, note=MARK[8])


def save_a_stale_one(row):
    """Its tenant was 6 when it was loaded, in memory it still is."""
    row.tenant, row.note = 8, MARK[8]
    row.save()


@pytest.mark.parametrize(
    ("move", "changed"),
    [
        (save, None),
        (update_in_place, ["note", "tenant"]),
        (save_a_stale_one, None),
    ],
)
def test_s33_a_row_moves_and_each_client_gets_its_own_bytes(clients, move, changed):
    with suppress():
        Shipment.objects.update(tenant=6)
        stale = Shipment.objects.get()
        Shipment.objects.update(tenant=7)
    move(stale)
    got = {name: whole(clients[name], CHANNELS[name]) for name in CHANNELS}
    assert got == {
        "old": leave("old"),
        "new": enter("new", 8),
        "object": leave("object"),
        "collection": frame("update", "shop.shipment", changed, tenant=8),
        "stale": "",
        "newest": "",
    }
    for name in ("old", "object", "stale"):
        assert MARK[8] not in "\n".join(clients[name]._lines)
    # Everybody else's stream goes on.
    ended = {name for name, client in clients.items() if client.ended.is_set()}
    assert ended == {"object"}


@pytest.mark.parametrize("how", ["save", "update"])
def test_s33_two_writers_at_once_and_each_client_gets_its_own_bytes(clients, how):
    barrier = Barrier(2)
    failures = []

    def write(tenant):
        try:
            row = Shipment.objects.get()
            barrier.wait(PATIENCE)
            if how == "save":
                row.tenant, row.note = tenant, MARK[tenant]
                row.save()
            else:
                Shipment.objects.update(tenant=tenant, note=MARK[tenant])
        except BaseException as exc:
            failures.append(exc)
        finally:
            connection.close()

    writers = [Thread(target=write, args=[tenant]) for tenant in (8, 9)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(PATIENCE)
        assert not writer.is_alive()
    assert failures == []
    last = Shipment.objects.get().tenant
    first = 8 + 9 - last
    via, end = ("new", "newest") if first == 8 else ("newest", "new")
    got = {name: whole(clients[name], CHANNELS[name]) for name in CHANNELS}
    changed = ["note", "tenant"] if how == "update" else None
    seen = [frame("update", "shop.shipment", changed, tenant=t) for t in (first, last)]
    # The row is free before its events leave: those of either may come first.
    assert got.pop("collection") in {"".join(seen), "".join(reversed(seen))}
    seen = [enter(via, first), leave(via)]
    assert got.pop(via) in {"".join(seen), "".join(reversed(seen))}
    assert got == {
        "old": leave("old"),
        end: enter(end, last),
        "object": leave("object"),
        "stale": "",
    }
    for name in ("old", "object", "stale"):
        lines = "\n".join(clients[name]._lines)
        assert MARK[8] not in lines
        assert MARK[9] not in lines
    assert MARK[last] not in "\n".join(clients[via]._lines)
    assert MARK[first] not in "\n".join(clients[end]._lines)
