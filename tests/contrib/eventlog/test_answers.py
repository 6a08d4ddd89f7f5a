"""Answers: what opens and resumes a stream, through the view that authorises it."""

import time

import jwt
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.db import close_old_connections
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import clear_script_prefix

from django_grip.contrib.eventlog import history, sequences
from django_grip.contrib.eventlog.models import Held, LoggedEvent, Sequence
from django_grip.contrib.realtime import publish_event
from tests.contrib.eventlog.history_fixtures import (
    at,
    frames,
    instruction,
    nothing_published,  # noqa: F401
    publish,
    published_until,
    relay,
    seqs,
)
from tests.contrib.eventlog.test_history import CHANNELS, fill
from tests.contrib.eventlog.test_positions import HOSTILE
from tests.shop.models import Order, Tag

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log")]


@pytest.fixture
def tags():
    """Three tags: events 1, 3 and 5 of the collection, and one each of their own."""
    for name in "abc":
        Tag.objects.create(name=name)
        relay()
    assert seqs() == [1, 3, 5]


def resume(client, since, path="/tags/stream/", **extra):
    return client.get(path, HTTP_LAST_EVENT_ID=since, **extra)


# The opening answer.


def test_a_stream_begins_with_its_position_and_is_held_behind_it(through_proxy, tags):
    response = through_proxy.get("/tags/stream/")
    found = frames(response)
    assert found.events == [
        ("ready", at(5), {"channel": "shop.tag", "position": at(5), "gapless": True})
    ]
    held = instruction(response)
    assert (held.hold, held.channel, held.prev_id) == ("stream", "shop.tag", at(5))
    assert (held.link, held.timeout) == ("/grip/next/", 2)
    assert response["Grip-Keep-Alive"] == ":\\n\\n; format=cstring; timeout=25"


def test_a_new_stream_is_asked_for_soon_and_then_as_the_setting_says(
    through_proxy, settings
):
    settings.GRIP_REALTIME = {"LINK_TIMEOUT": 7}
    opened = instruction(through_proxy.get("/tags/stream/"))
    last = f"shop.tag; last-id={opened.prev_id}"
    healed = instruction(through_proxy.get(opened.link, HTTP_GRIP_LAST=last))
    assert (opened.timeout, healed.timeout) == (2, 7)


def test_a_stream_of_an_object_has_the_objects_own_position(through_proxy, tags):
    tag = Tag.objects.first()
    response = through_proxy.get(f"/tags/{tag.pk}/stream/")
    assert instruction(response).channel == f"shop.tag.{tag.pk}"
    assert frames(response).data("ready")["position"] == at(2)


def test_the_first_stream_of_a_site_begins_at_zero(through_proxy):
    response = through_proxy.get("/tags/stream/")
    assert frames(response).data("ready")["position"] == at(0)
    assert instruction(response).prev_id == at(0)


# Resume.


def test_a_client_that_comes_back_gets_what_it_missed(through_proxy, tags):
    response = resume(through_proxy, at(1))
    found = frames(response)
    assert found.names == ["ready", "create", "create"]
    assert found.ids == [None, at(3), at(5)]
    assert [data["seq"] for _, _, data in found.events[1:]] == [3, 5]
    assert [data["prev"] for _, _, data in found.events[1:]] == [1, 3]
    assert found.data("ready")["position"] == at(5)
    assert instruction(response).prev_id == at(5)


def test_a_client_that_missed_nothing_gets_nothing_and_keeps_its_id(
    through_proxy, tags
):
    found = frames(resume(through_proxy, at(5)))
    assert (found.names, found.last_id) == (["ready"], None)


def test_since_is_for_clients_that_set_no_header(through_proxy, tags):
    response = through_proxy.get("/tags/stream/", {"since": at(3)})
    assert frames(response).ids == [None, at(5)]


def test_the_header_wins_over_since(through_proxy, tags):
    """An EventSource comes back with the URL it was opened with."""
    response = resume(through_proxy, at(3), f"/tags/stream/?since={at(0)}")
    assert frames(response).ids == [None, at(5)]


def test_an_empty_header_says_nothing(through_proxy, tags):
    response = resume(through_proxy, "", f"/tags/stream/?since={at(3)}")
    assert frames(response).ids == [None, at(5)]
    response = resume(through_proxy, "", "/tags/stream/?since=")
    assert frames(response).ids == [at(5)]


def test_what_a_client_says_in_grip_last_counts_for_nothing(through_proxy, tags):
    response = through_proxy.get(
        "/tags/stream/", HTTP_GRIP_LAST=f"shop.tag; last-id={at(0)}"
    )
    assert frames(response).names == ["ready"]


@pytest.mark.parametrize(
    ("since", "reason"), [("another.4", "epoch"), ("nonsense", "bad-id")]
)
def test_a_client_that_history_cannot_answer_is_told_to_fetch(
    through_proxy, tags, since, reason
):
    response = resume(through_proxy, since)
    found = frames(response)
    assert found.names == ["ready", "reset"]
    assert found.data("reset") == {"channel": "shop.tag", "reason": reason}
    assert found.last_id == at(5)
    held = instruction(response)
    assert (held.hold, held.prev_id) == ("stream", at(5))


@pytest.mark.parametrize("since", [text for text in HOSTILE if text])
def test_s39_whatever_a_client_says_it_is_answered(through_proxy, tags, since):
    for response in (
        resume(through_proxy, since.encode("utf-8").decode("latin-1")),
        through_proxy.get("/tags/stream/", {"since": since}),
    ):
        found = frames(response)
        assert found.data("reset")["reason"] == "bad-id"
        assert since not in response.content.decode() or len(since) < 5
        assert instruction(response).prev_id == at(5)


def test_s39_a_position_of_a_channel_that_is_not_the_views_reveals_nothing_of_it(
    through_proxy, tags
):
    publish_event("secret", "said", "hush")
    [seq] = relay()
    assert "hush" not in resume(through_proxy, at(seq - 1)).content.decode()


def test_s34_who_may_not_see_the_object_any_more_gets_no_history(through_proxy):
    order = Order.objects.create()
    relay()
    path = f"/guarded/{order.pk}/stream/"
    assert frames(resume(through_proxy, at(0), path, HTTP_X_BADGE="yes")).events
    response = resume(through_proxy, at(0), path, HTTP_X_BADGE="no")
    assert response.status_code == 403
    assert "Grip-Hold" not in response


def test_a_direct_request_gets_no_history(client, tags):
    response = resume(client, at(0))
    assert response.status_code == 501
    assert b"create" not in response.content


def test_retry_stands_in_opening_answers_only(through_proxy, tags, settings):
    settings.GRIP_REALTIME = {"RETRY": (2, 2)}
    assert frames(through_proxy.get("/tags/stream/")).retry == 2000
    assert frames(resume(through_proxy, at(1))).retry == 2000
    link = through_proxy.get("/grip/next/", HTTP_GRIP_LAST=f"shop.tag; last-id={at(1)}")
    assert frames(link).names == ["create", "create"]
    assert frames(link).retry is None


def test_head_gets_the_headers_is_not_held_and_notes_nothing(through_proxy, tags):
    response = through_proxy.head("/tags/stream/")
    assert response.status_code == 200
    assert not any(name.startswith("Grip-") for name in response.headers)
    assert not Held.objects.exists()


# What was published.


def test_target_an_answer_ends_at_what_was_published(through_proxy, tags):
    Tag.objects.create(name="d")
    sequences.sequence("default")
    assert seqs() == [1, 3, 5, 7]
    for response in (
        through_proxy.get("/tags/stream/"),
        resume(through_proxy, at(3)),
        resume(through_proxy, "another.1"),
    ):
        assert instruction(response).prev_id == at(5)
        assert frames(response).last_id == at(5)
    publish()
    assert instruction(resume(through_proxy, at(3))).prev_id == at(7)


def test_events_that_are_not_published_come_when_they_are(
    through_proxy, tags, published
):
    """The item follows the position that the hold was given."""
    Tag.objects.create(name="d")
    sequences.sequence("default")
    prev_id = instruction(through_proxy.get("/tags/stream/")).prev_id
    publish()
    [item] = [item for item in published if item.channel == "shop.tag"]
    assert item.prev_id == prev_id


TWO = [
    {
        "control_uri": f"http://127.0.0.1:{port}",
        "key": f"the-key-of-proxy-{port}-32-bytes-or-more",
    }
    for port in (8, 9)
]


def test_with_two_proxies_the_streams_of_both_are_resumed(client, tags, settings):
    settings.GRIP_URL = None
    settings.GRIP_PROXIES = TWO
    settings.GRIP_PUBLISHER = "django_grip.publishers.http.Publisher"
    first, second = (proxy["control_uri"] for proxy in TWO)
    published_until(3, first)
    published_until(5, second)
    for proxy in TWO:
        claims = {"iss": "pushpin", "exp": int(time.time()) + 60}
        signature = jwt.encode(claims, proxy["key"], algorithm="HS256")
        response = resume(client, at(1), HTTP_GRIP_SIG=signature)
        assert frames(response).ids == [None, at(3), at(5)]
        assert instruction(response).prev_id == at(5)
        response = client.get(
            "/grip/next/",
            HTTP_GRIP_SIG=signature,
            HTTP_GRIP_LAST=f"shop.tag; last-id={at(3)}",
        )
        assert frames(response).ids == [at(5)]


# Without a key; with a prefix; below a path.


@pytest.fixture
def keyless(client, settings):
    """A proxy that has no key, and what comes through it."""
    settings.GRIP_URL = "http://127.0.0.1:9"
    client.defaults["HTTP_GRIP_SIG"] = "anything"
    return client


def test_without_a_key_nothing_is_promised(keyless, tags):
    response = keyless.get("/tags/stream/")
    held = instruction(response)
    assert (held.hold, held.channel) == ("stream", "shop.tag")
    assert (held.prev_id, held.link) == (None, None)
    ready = frames(response).data("ready")
    assert (ready["gapless"], ready["position"]) == (False, at(5))


def test_without_a_key_clients_resume_all_the_same(keyless, tags):
    response = resume(keyless, at(1))
    assert frames(response).ids == [None, at(3), at(5)]
    held = instruction(response)
    assert (held.hold, held.prev_id, held.link) == ("stream", None, None)


def test_without_a_key_pages_are_followed_to_a_hold(keyless, tags, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    response = resume(keyless, at(0))
    page = instruction(response)
    assert (page.hold, page.link.startswith("/grip/page/")) == (None, True)
    response = keyless.get(page.link)
    assert frames(response).ids == [at(5)]
    assert instruction(response).hold == "stream"
    assert instruction(response).link is None


def test_the_prefix_stands_before_the_channel_and_nowhere_else(
    through_proxy, tags, settings
):
    settings.GRIP_PREFIX = "p-"
    response = resume(through_proxy, at(3))
    assert instruction(response).channel == "p-shop.tag"
    assert "p-" not in response.content.decode()
    response = through_proxy.get(
        "/grip/next/", HTTP_GRIP_LAST=f"p-shop.tag; last-id={at(3)}"
    )
    assert frames(response).ids == [at(5)]
    assert instruction(response).channel == "p-shop.tag"
    assert instruction(response).prev_id == at(5)


@pytest.fixture
def served(grip_sig):
    """`served(path, **environ)`: the answer of a WSGI server through the proxy."""

    # It would take the connection of the test's transaction.
    request_started.disconnect(close_old_connections)

    def served(path, **environ):
        started = []
        body = WSGIHandler()(
            RequestFactory()._base_environ(
                PATH_INFO=path, HTTP_GRIP_SIG=grip_sig, **environ
            ),
            lambda *values: started.extend(values),
        )
        status, headers = started
        content = b"".join(body)
        return HttpResponse(content, status=int(status[:3]), headers=dict(headers))

    yield served
    request_started.connect(close_old_connections)
    clear_script_prefix()


@pytest.mark.parametrize("how", ["setting", "server"])
def test_links_stand_below_the_scripts_name(tags, served, settings, monkeypatch, how):
    environ = {"SCRIPT_NAME": "/app"}
    if how == "setting":
        settings.FORCE_SCRIPT_NAME, environ = "/app", {}
    response = served("/tags/stream/", HTTP_LAST_EVENT_ID=at(1), **environ)
    assert instruction(response).link == "/app/grip/next/"
    last = f"shop.tag; last-id={at(1)}"
    response = served("/grip/next/", HTTP_GRIP_LAST=last, **environ)
    assert frames(response).ids == [at(3), at(5)]
    assert instruction(response).link == "/app/grip/next/"
    monkeypatch.setattr(history, "PAGE", 1)
    response = served("/tags/stream/", HTTP_LAST_EVENT_ID=at(1), **environ)
    link = instruction(response).link
    assert link.startswith("/app/grip/page/")
    response = served(link.removeprefix("/app"), **environ)
    assert frames(response).ids == [at(5)]
    assert instruction(response).link == "/app/grip/next/"


# F30: a long resume.


def follow(client, response):
    """Yield an answer and those of the pages after it, as the proxy asks for them."""
    for _ in range(10):
        yield response
        page = instruction(response)
        if page.hold:
            return
        response = client.get(page.link)


def test_f30_a_long_resume_is_pages_until_the_hold(through_proxy, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 3)
    for number in range(8):
        Tag.objects.create(name=str(number))
        relay()
    answers = list(follow(through_proxy, resume(through_proxy, at(0))))
    assert [frames(answer).names.count("create") for answer in answers] == [3, 3, 2]
    ids = [id for answer in answers for id in frames(answer).ids if id]
    assert ids == [at(seq) for seq in seqs()]
    for answer in answers[:-1]:
        assert "Grip-Channel" not in answer
        assert instruction(answer).timeout is None
    last = instruction(answers[-1])
    assert (last.hold, last.prev_id, last.link) == ("stream", ids[-1], "/grip/next/")
    assert [frames(answer).retry is None for answer in answers] == [False, True, True]


def test_f30_a_client_dropped_after_any_page_continues_there(
    through_proxy, monkeypatch
):
    monkeypatch.setattr(history, "PAGE", 3)
    for number in range(10):
        Tag.objects.create(name=str(number))
        relay()
    received, position = [], at(0)
    for _ in range(4):
        response = resume(through_proxy, position)
        found = frames(response)
        received += [id for id in found.ids if id]
        position = found.last_id
    assert received == [at(seq) for seq in seqs()]
    assert instruction(response).hold == "stream"


def test_f30_ten_thousand_events_arrive_in_order_whenever_the_client_drops(
    through_proxy, monkeypatch
):
    """The socket closes after 200 events, again and again."""
    monkeypatch.setattr(history, "OVERFLOW", 20_000)
    epoch = fill(10_000)
    LoggedEvent.objects.update(channel="shop.tag", text='{"op":"said"}')
    for row in LoggedEvent.objects.filter(seq__lte=CHANNELS + 1).order_by("seq"):
        LoggedEvent.objects.filter(pk=row.pk).update(prev=row.seq - 1)
    received, position = [], f"{epoch}.0"
    for _ in range(50):
        found = frames(resume(through_proxy, position))
        ids = [id for id in found.ids if id]
        assert len(ids) == 200
        received += ids
        position = ids[-1]
    assert received == [f"{epoch}.{seq}" for seq in range(1, 10_001)]


# F32: too late.


def test_f32_a_client_that_was_away_too_long_fetches_and_goes_on(through_proxy, tags):
    late = at(1)
    Sequence.objects.update(floor=4)
    LoggedEvent.objects.filter(seq__lte=4).delete()
    response = resume(through_proxy, late)
    found = frames(response)
    assert found.data("reset") == {"channel": "shop.tag", "reason": "expired"}
    shown = {row["id"] for row in through_proxy.get("/tags/").json()}
    assert shown == set(Tag.objects.values_list("pk", flat=True))
    tag = Tag.objects.create(name="d")
    relay()
    [(_, _, event)] = frames(resume(through_proxy, found.last_id)).events[1:]
    assert event["pk"] == tag.pk


# F37 and F38: what happens in between.


def applied(rows, events):
    """What a client shows that fetched rows, and then hears events."""
    shown = dict(rows)
    for name, _, event in events:
        if name in ("create", "update"):
            shown[event["pk"]] = event["data"]["status"]
        elif name == "delete":
            shown.pop(event["pk"], None)
    return shown


def fetched(client):
    return {row["id"]: row["status"] for row in client.get("/orders/").json()}


def test_f37_a_write_between_the_position_and_the_rows_does_no_harm(through_proxy):
    kept, gone = Order.objects.create(), Order.objects.create()
    relay()
    ready = frames(through_proxy.get("/orders/stream/")).data("ready")
    kept.status = "paid"
    kept.save()
    gone.delete()
    new = Order.objects.create()
    relay()
    rows = fetched(through_proxy)
    new.status = "paid"
    new.save()
    relay()
    events = frames(resume(through_proxy, ready["position"], "/orders/stream/")).events
    assert applied(rows, events) == fetched(through_proxy)
    assert fetched(through_proxy) == {kept.pk: "paid", new.pk: "paid"}


def test_f37_a_position_read_behind_the_rows_would_lose_the_write(through_proxy):
    """Why the position is first."""
    kept = Order.objects.create()
    relay()
    rows = fetched(through_proxy)
    kept.status = "paid"
    kept.save()
    relay()
    ready = frames(through_proxy.get("/orders/stream/")).data("ready")
    events = frames(resume(through_proxy, ready["position"], "/orders/stream/")).events
    assert applied(rows, events) != fetched(through_proxy)


def test_f38_what_is_published_before_the_hold_is_asked_for_by_the_proxy(
    through_proxy, tags
):
    """The proxy knows another last id than that of the hold, and asks."""
    opened = instruction(through_proxy.get("/tags/stream/"))
    Tag.objects.create(name="d")
    relay()
    response = through_proxy.get(
        opened.link, HTTP_GRIP_LAST=f"{opened.channel}; last-id={opened.prev_id}"
    )
    assert frames(response).ids == [at(7)]
    assert instruction(response).prev_id == at(7)


def test_f38_what_is_published_while_the_log_is_read_is_not_passed_over(
    through_proxy, tags, published, monkeypatch
):
    """Whether it is in the answer or not, the hold fits it."""
    original = history.trimming.published
    written = []

    def publish_and_read(using):
        until = original(using)
        if not written:
            written.append(Tag.objects.create(name="d"))
            relay()
        return until

    monkeypatch.setattr(history.trimming, "published", publish_and_read)
    response = resume(through_proxy, at(5))
    [item] = [item for item in published if item.channel == "shop.tag"]
    assert instruction(response).prev_id == at(5) == item.prev_id
    assert frames(response).names == ["ready"]
