"""Scopes, refreshes and snapshots as clients of a real proxy see them."""

import json
from contextlib import contextmanager
from threading import Thread

import pytest

from tests.clients import EventStream, request
from tests.contrib.eventlog.pushpin_shop import Shop
from tests.servers import wait_until

SEED = """
from django.contrib.auth.models import User
from tests.shop.models import Tenant
for name in ("ann", "bob"):
    tenant = Tenant.objects.create(name=name)
    tenant.members.add(User.objects.create(username=name))
"""


class ProjectSite(Shop):
    settings = "tests.contrib.rest_framework.projects_site"
    probe = "/public/"

    def prepare(self):
        super().prepare()
        self.manage("shell", "-c", SEED)

    def new(self, name):
        """A project of Ann's, when everybody has been told of it."""
        pk = self.ask("POST", "/projects/", tenant=1, name=name).json()["id"]
        self.settle()
        return pk

    def ask(self, method, path, user="ann", **body):
        """Ask the site itself, as somebody."""
        url, body = f"{self.origin}{path}", json.dumps(body) if body else None
        headers = {"X-User": user, "Content-Type": "application/json"}
        answer = request(url, method, body=body, headers=headers)
        assert answer.status < 400, answer.body
        return answer

    def open(self, path, user="ann", **headers):
        return EventStream(f"{self.url}{path}", {"X-User": user, **headers})

    def poll(self, path, user="ann"):
        return request(f"{self.url}{path}", headers={"X-User": user}, timeout=30)


@pytest.fixture(scope="module")
def site(proxy, tmp_path_factory):
    with ProjectSite(tmp_path_factory.mktemp("projects"), proxy) as site:
        yield site


def ready(stream):
    """The position of a stream that has just begun."""
    event = stream.next()
    assert event.event == "ready"
    return event.envelope["position"]


def test_s33_a_row_that_leaves_ends_its_stream_and_who_comes_back_is_refused(site):
    pk = site.new("plan")
    paths = [f"/projects/{pk}/stream/", f"/refreshed/{pk}/stream/"]
    with site.open(paths[0]) as object_, site.open(paths[1]) as refreshed:
        since = ready(object_)
        ready(refreshed)
        # A row that changes and stays.
        site.ask("PATCH", f"/projects/{pk}/", name="plan B")
        assert object_.next().envelope["data"]["name"] == "plan B"
        assert refreshed.next().envelope.keys() == {
            *("id", "channel", "op", "seq", "prev", "ts")
        }
        site.ask("PATCH", f"/projects/{pk}/", tenant=2, name="of bob now")
        left = object_.next()
        assert (left.event, left.envelope["reason"]) == ("delete", "leave")
        assert refreshed.next().event == "refresh"
        for stream in (object_, refreshed):
            assert stream.ended.wait(20)
            assert "of bob now" not in "\n".join(stream._lines)
    for path in paths:
        for headers in ({}, {"Last-Event-ID": since}):
            with site.open(path, **headers) as again:
                assert again.status == 404
                assert again.ended.wait(20)
                assert not again.lines_seen("event: delete")
        with site.open(path, user="bob") as of_bob:
            assert of_bob.status == 200


def test_s33_each_tenant_hears_of_the_move_as_it_may(site):
    pk = site.new("plan")
    with (
        site.open("/projects/stream/") as ann,
        site.open("/projects/stream/", user="bob") as bob,
        site.open("/tenants/1/projects/stream/") as nested,
        site.open("/refreshed/stream/") as refreshed,
    ):
        for stream in (ann, bob, nested, refreshed):
            ready(stream)
        site.ask("PATCH", f"/projects/{pk}/", tenant=2, name="of bob now")
        for stream in (ann, nested):
            event = stream.next()
            assert (event.event, event.envelope["pk"]) == ("delete", pk)
            assert event.envelope["channel"] == "shop.project~tenant.1"
        event = bob.next()
        assert (event.event, event.envelope["reason"]) == ("create", "enter")
        assert event.envelope["data"]["name"] == "of bob now"
        assert refreshed.next().event == "refresh"
        for stream in (ann, nested, refreshed):
            assert "of bob now" not in "\n".join(stream._lines)


def test_s25_no_transport_opens_the_tenant_of_another(site):
    for query in ("", "?wait=1", "?since=x.1", "?snapshot=1", "?wait=1&since=x.1"):
        paths = [f"/tenants/{pk}/projects/stream/{query}" for pk in (2, 999)]
        other, none = (site.poll(path) for path in paths)
        assert (other.status, none.status) == (404, 404)
        assert other.body == none.body
        refused = site.poll(f"/projects/stream/{query}", user="nobody")
        assert refused.status == 403


def test_s33_a_long_poll_is_answered_when_the_row_leaves_and_then_refused(site):
    pk = site.new("plan")
    path = f"/projects/{pk}/stream/?wait=20"
    since = site.poll(path).json()["position"]
    answers = []
    poll = Thread(target=lambda: answers.append(site.poll(f"{path}&since={since}")))
    poll.start()
    site.ask("PATCH", f"/projects/{pk}/", tenant=2, name="of bob now")
    poll.join(20)
    [answer] = answers
    if answer.status == 200:
        # It was held; else the view was asked after the write.
        [event] = [e for e in answer.json()["events"] if e["op"] == "delete"]
        assert event["reason"] == "leave"
        assert b"of bob now" not in answer.body
    else:
        assert answer.status == 404
    assert site.poll(f"{path}&since={since}").status == 404


# A write between position and rows.


@contextmanager
def waiting(site):
    """`/slow/` waits before it reads its rows; what is started comes to that."""
    site.new("before")
    reached = site.wait.with_suffix(".reached")
    reached.unlink(missing_ok=True)
    site.wait.touch()
    try:
        yield lambda: wait_until(reached.exists, "the view waits")
    finally:
        site.wait.unlink(missing_ok=True)


def in_thread(call):
    results = []
    thread = Thread(target=lambda: results.append(call()))
    thread.start()

    def result():
        thread.join(30)
        return results[0]

    return result


def test_a_write_between_position_and_snapshot_comes_once_more(site):
    with waiting(site) as until_it_waits:
        opened = in_thread(lambda: site.open("/slow/stream/?snapshot=1"))
        until_it_waits()
        pk = site.new("between")
    with opened() as stream:
        since = ready(stream)
        snapshot = stream.next()
        assert snapshot.event == "snapshot"
        assert pk in [row["id"] for row in snapshot.envelope["rows"]]
        # Published before the proxy held: it asks for what it has missed.
        event = stream.next(timeout=20)
        assert (event.event, event.envelope["pk"]) == ("create", pk)
        assert event.envelope["prev"] == int(since.partition(".")[2])
        site.ask("PATCH", f"/projects/{pk}/", name="later")
        event = stream.next()
        assert (event.event, event.envelope["data"]["name"]) == ("update", "later")


def test_a_write_between_the_position_of_a_get_and_its_rows_is_streamed(site):
    with waiting(site) as until_it_waits:
        listed = in_thread(lambda: site.ask("GET", "/slow/"))
        until_it_waits()
        pk = site.new("between")
    answer = listed()
    assert pk in [row["id"] for row in answer.json()]
    since = answer.headers["Realtime-Position"]
    with site.open(f"/projects/stream/?since={since}") as stream:
        ready(stream)
        event = stream.next()
        assert (event.event, event.envelope["pk"]) == ("create", pk)
        assert event.envelope["seq"] > int(since.partition(".")[2])
