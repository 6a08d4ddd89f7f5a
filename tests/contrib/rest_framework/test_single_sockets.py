"""The WebSocket on a stream's own URL: the view decides, the protocol is the same."""

import json
import logging
import time

import pytest
from django.contrib.auth.models import User
from django.urls import path

from django_grip.contrib.realtime import conf
from django_grip.contrib.rest_framework.responses import stream_response
from django_grip.test import GripClient
from tests.contrib.eventlog.history_fixtures import (
    at,
    nothing_published,  # noqa: F401
    relay,
)
from tests.contrib.rest_framework.socket_urls import IsAllowed
from tests.contrib.rest_framework.wires import Wire, brief, problem
from tests.shop.models import Order, Tag

URLS = "tests.contrib.rest_framework.socket_urls"
pytestmark = [pytest.mark.django_db, pytest.mark.urls(URLS)]

TAGS = "/tags/stream/"


def opened(path, **headers):
    wire = Wire(path, **headers)
    assert wire.open() == 200, wire.response.content
    return wire


def subscribed(channel, **position):
    gapless = bool(position)
    return {"type": "subscribed", "channel": channel, "gapless": gapless, **position}


def tag(name):
    row = Tag.objects.create(name=name)
    relay()
    return row


@pytest.fixture
def user():
    return User.objects.create_user("ann")


@pytest.fixture
def refused():
    yield IsAllowed.refused
    IsAllowed.refused.clear()


def test_it_begins_with_the_connection():
    wire = opened(TAGS)
    assert wire.told == [subscribed("shop.tag")]
    assert wire.channels == ["shop.tag"]
    assert wire.interval == 20
    order = Order.objects.create()
    assert opened(f"/orders/{order.pk}/stream/").channels == [f"shop.order.{order.pk}"]


def test_s25_a_refused_handshake_is_the_views_answer_to_get():
    order = Order.objects.create()
    client = GripClient()
    for path_, badge, status in [
        (f"/guarded/{order.pk}/", "no", 403),
        ("/guarded/999/", "yes", 404),
        ("/personal/", "", 401),
        (f"/guarded/{order.pk}/", "yes", 200),
    ]:
        got = client.get(path_, HTTP_X_BADGE=badge)
        wire = Wire(f"{path_}stream/", HTTP_X_BADGE=badge)
        assert wire.open() == got.status_code == status
        if status != 200:
            assert wire.response.content == got.content
            assert wire.channels == []


def test_s14_a_foreign_page_with_cookies_is_refused():
    wire = Wire(TAGS, HTTP_COOKIE="sessionid=x", HTTP_ORIGIN="https://evil.example")
    assert wire.open() == 403
    assert wire.channels == []


def test_s19_an_ordinary_post_is_no_stream(through_proxy):
    assert through_proxy.post(TAGS).status_code == 405


def test_a_filter_is_400():
    assert Wire(f"{TAGS}?name=x").open() == 400


def test_only_resume_and_ping_are_asked_for():
    wire = opened(TAGS)
    assert wire.send({"type": "ping"}) == [{"type": "pong"}]
    found = wire.send(
        {"type": "subscribe", "id": "b", "url": "/lines/stream/"},
        {"type": "unsubscribe", "id": "b"},
    )
    assert brief(found) == [problem(400)] * 2
    assert wire.channels == ["shop.tag"]


def test_it_begins_where_since_says_and_resumes(log):
    for name in "abc":
        tag(name)
    wire = opened(f"{TAGS}?since={at(1)}")
    assert wire.told[0] == subscribed("shop.tag", position=at(1))
    assert [each["seq"] for each in wire.told[1:-1]] == [3, 5]
    assert wire.told[-1] == {"type": "resumed", "position": at(5)}
    tag("d")
    [event, end] = wire.resume(at(5))
    assert (event["seq"], end["position"]) == (7, at(7))
    assert wire.poll() == []


def test_a_poll_repeats_the_newest(log):
    wire = opened(TAGS)
    tag("a")
    tag("b")
    [newest] = wire.poll()
    assert (newest["seq"], newest["prev"]) == (3, 1)
    assert wire.poll() == []
    assert wire.interval == conf.link_timeout()


def test_a_snapshot_follows_the_position(log):
    tag("a")
    wire = opened("/rows/stream/")
    assert wire.told[0] == subscribed("shop.tag", position=at(1))
    assert [row["name"] for row in wire.told[1]["rows"]] == ["a"]


def test_a_snapshot_of_too_many_rows_refuses_the_handshake(monkeypatch):
    monkeypatch.setattr(f"{URLS}.RowsTags.stream_snapshot_limit", 1)
    Tag.objects.bulk_create([Tag(name="a"), Tag(name="b")])
    wire = Wire("/rows/stream/")
    assert wire.open() == 413
    assert wire.channels == []


def test_s32_a_refusal_later_on_closes_it_with_a_code_of_its_own(user, refused):
    wire = opened("/personal/stream/", HTTP_X_USER="ann")
    assert wire.channels == ["shop.tag", f"~user.{user.pk}"]
    wire.poll()
    assert wire.closed is None
    refused.add("ann")
    wire.poll()
    assert wire.closed[0] == 4403
    assert "permission" in wire.closed[1]


def test_s34_a_resume_is_authorised_before_anything_is_read(log, user, refused):
    wire = opened("/personal/stream/", HTTP_X_USER="ann")
    tag("hidden")
    refused.add("ann")
    wire.resume(at(1))
    assert wire.closed[0] == 4403
    assert "hidden" not in json.dumps(wire.told)


def test_s32_a_row_that_is_gone_closes_its_stream():
    row = Tag.objects.create(name="t")
    wire = opened(f"/tags/{row.pk}/stream/")
    row.delete()
    wire.poll()
    assert wire.closed[0] == 4404


def test_s32_another_user_than_at_first_closes_it(user):
    User.objects.create_user("bob")
    wire = opened("/personal/stream/", HTTP_X_USER="ann")
    wire.headers["HTTP_X_USER"] = "bob"
    wire.poll()
    assert wire.closed[0] == 4401


def test_s51_a_throttle_counts_handshakes_and_nothing_after_them():
    wires = [opened("/throttled/stream/") for _ in range(2)]
    for _ in range(5):
        assert wires[0].send({"type": "ping"}) == [{"type": "pong"}]
        wires[0].poll()
    refused = Wire("/throttled/stream/")
    assert refused.open() == 429
    assert int(refused.response["Retry-After"]) > 0
    assert wires[0].closed is None


def test_a_client_that_closes_is_answered():
    wire = opened(TAGS)
    wire.ask(("CLOSE", b"\x03\xe8"))
    assert wire.closed[0] == 1000


def test_permissions_see_a_get_and_list_or_retrieve(monkeypatch):
    seen = []

    def has_permission(self, request, view):
        seen.append((request.method, request.data, view.action, view.streaming))
        return True

    monkeypatch.setattr(f"{URLS}.IsAllowed.has_permission", has_permission)
    User.objects.create_user("ann")
    wire = opened("/personal/stream/", HTTP_X_USER="ann")
    wire.send({"type": "ping"})
    row = Tag.objects.create(name="t")
    opened(f"/personal/{row.pk}/stream/", HTTP_X_USER="ann")
    assert seen == [("GET", {}, "list", True)] * 2 + [("GET", {}, "retrieve", True)]


# Tickets.


def ticket_of(client, path_, **headers):
    response = client.post(f"{path_}ticket/", **headers)
    assert response.status_code == 200, response.content
    return response.json()["ticket"]


@pytest.fixture
def late(monkeypatch):
    """Let tickets become too old."""

    def late():
        clock = "django_grip.contrib.rest_framework.tickets.time.time"
        now = time.time() + conf.ticket_ttl() + 1
        monkeypatch.setattr(clock, lambda: now)

    return late


def by_ticket(user):
    """The two ways to open a stream with a ticket: (wire, the sign of the user)."""
    url = "/personal/stream/"
    client = GripClient()
    ticket = ticket_of(client, url, HTTP_X_USER=user.username)
    single = opened(f"{url}?ticket={ticket}")
    multiplexed = opened("/realtime/")
    multiplexed.subscribe(f"{url}?ticket={ticket}")
    return [single, multiplexed]


def test_s38_a_ticket_opens_and_is_not_needed_again(user, late):
    wires = by_ticket(user)
    late()
    for wire in wires:
        assert wire.channels == ["shop.tag", f"~user.{user.pk}"]
        assert wire.poll() == []
        assert wire.send({"type": "ping"}) == [{"type": "pong"}]
        assert wire.closed is None
        assert wire.headers.keys().isdisjoint({"HTTP_X_USER"})


def test_s38_what_is_kept_for_a_ticket_is_of_no_use_at_another_path(user, late):
    [single, _] = by_ticket(user)
    late()
    row = Tag.objects.create(name="t")
    other = Wire(f"/personal/{row.pk}/stream/", **single.headers)
    other.meta = dict(single.meta)
    other.poll()
    assert other.closed[0] == 4401


def test_s38_a_ticket_that_is_too_old_opens_nothing(user, late):
    ticket = ticket_of(GripClient(), "/personal/stream/", HTTP_X_USER="ann")
    late()
    assert Wire(f"/personal/stream/?ticket={ticket}").open() == 401
    wire = opened("/realtime/")
    found = wire.subscribe(f"/personal/stream/?ticket={ticket}")
    assert brief(found) == [problem(401, id="a")]


@pytest.mark.parametrize("end", ["password", "inactive", "deleted"])
def test_s32_who_came_by_a_ticket_stays_no_longer_than_the_account(user, late, end):
    wires = by_ticket(user)
    late()
    if end == "password":
        user.password = "another"
        user.save()
    elif end == "inactive":
        User.objects.filter(pk=user.pk).update(is_active=False)
    else:
        user.delete()
    for wire in wires:
        wire.poll()
        assert wire.closed[0] == 4401


def test_s38_neither_ticket_nor_owner_is_to_be_read_where_the_proxy_keeps_it(user):
    for wire in by_ticket(user):
        kept = wire.meta["realtime"]
        assert user.get_session_auth_hash() not in kept
        assert "ticket" not in kept


def test_s47_no_ticket_header_or_payload_is_logged(log, user, caplog):
    caplog.set_level(logging.DEBUG)
    secrets = {"HTTP_AUTHORIZATION": "Bearer s3cret", "HTTP_COOKIE": "a=c00kie"}
    url = "/personal/stream/"
    client = GripClient()
    ticket = ticket_of(client, url, HTTP_X_USER="ann")
    for path_ in (f"{url}?ticket={ticket}", f"{url}?ticket=x{ticket}"):
        wire = Wire(path_, HTTP_ORIGIN="http://testserver", **secrets)
        wire.open()
        many = opened("/realtime/", HTTP_ORIGIN="http://testserver", **secrets)
        many.subscribe(path_)
        many.subscribe(f"/failing/stream/?ticket={ticket}", "b")
        tag("payl0ad")
        wire.poll()
        many.resume(at(0), id="a")
        many.send("nonsense-t3xt")
    records = [each for each in caplog.records if "django.db" not in each.name]
    logged = "\n".join(each.getMessage() for each in records)
    assert logged
    for secret in (ticket, "s3cret", "c00kie", "payl0ad", "nonsense-t3xt"):
        assert secret not in logged


def test_s13_a_ticket_is_not_what_a_connection_is_kept_by(user):
    ticket = ticket_of(GripClient(), "/personal/stream/", HTTP_X_USER="ann")
    wire = opened(TAGS)
    wire.meta["realtime"] = ticket
    wire.poll()
    assert wire.closed[0] == 1012


# Plain views.


def plain(request):
    return stream_response(request, Tag)


urlpatterns = [path("plain/", plain)]


@pytest.mark.urls(__name__)
def test_a_plain_view_may_answer_with_a_socket_too():
    wire = opened("/plain/")
    assert wire.told == [subscribed("shop.tag")]
    assert wire.poll() == []
    assert wire.send({"type": "ping"}) == [{"type": "pong"}]
