"""What is never logged: what lets somebody in."""

import logging

import pytest

from django_grip.test import GripClient
from tests.contrib.eventlog.history_fixtures import relay
from tests.contrib.rest_framework import over_time
from tests.shop.models import Tag

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("users_site", "log")]


def test_s47_nothing_that_lets_in_is_logged(browser, ann, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG)
    secret = {"HTTP_AUTHORIZATION": "Bearer secret-of-authorization"}
    proxy = GripClient()
    session = browser.session.session_key
    sig = browser.defaults["HTTP_GRIP_SIG"]

    # Opened, by a session and by a ticket.
    opened = browser.get("/private/stream/", **secret)
    path = opened["Grip-Link"].partition(">")[0].removeprefix("<")
    position = opened["Grip-Channel"].partition("prev-id=")[2].partition(",")[0]
    last = {"HTTP_GRIP_LAST": f"shop.tag; last-id={position}"}
    ticket = browser.post("/private/stream/ticket/").json()["ticket"]
    assert proxy.get("/private/stream/", {"ticket": ticket}).status_code == 200
    # Refused: a bad ticket, a parameter, a permission, a position.
    bad = ticket[:-1]
    assert proxy.get("/private/stream/", {"ticket": bad}, **secret).status_code == 401
    assert proxy.get("/private/1/stream/", {"ticket": ticket}).status_code == 401
    url = "/private/stream/"
    given = {"ticket": ticket, "filter": "x"}
    assert browser.get(url, given, **secret).status_code == 400
    assert browser.get("/permitted/stream/", **secret).status_code == 403
    assert browser.get(url, HTTP_LAST_EVENT_ID="no position").status_code == 200
    # Continued, repeated by a client, changed.
    Tag.objects.create(name="a")
    relay()
    assert proxy.get(path, **last, **secret).status_code == 200
    assert browser.get(path).status_code == 403
    token = path.removeprefix("/grip/private/").rstrip("/")
    assert proxy.get(f"/grip/private/{token[:-1]}/", **last).status_code == 403
    # Ended, by a view that fails and by a logout.
    monkeypatch.setattr(over_time.PrivateTagViewSet, "permission_classes", (None,))
    proxy.raise_request_exception = False
    browser.logout()
    assert proxy.get(path, **last).status_code == 200

    assert caplog.records
    logged = "\n".join(map(written, caplog.records))
    for word in (ticket, bad, token, token[:-1], session, sig, "secret-of"):
        assert word not in logged


def written(record):
    """What a handler writes of a record; of our own all that it could.

    Django gives its own the request.
    """
    text = logging.Formatter().format(record)
    is_ours = record.name.startswith("django_grip")
    return text + repr(vars(record)) if is_ours else text


def test_s46_s47_refusals_repeat_nothing_of_what_was_shown(browser):
    for answer in (
        browser.get("/private/stream/", {"ticket": "the-ticket"}),
        browser.get("/private/stream/", {"ticket": "the-ticket", "filter": "x"}),
        browser.post("/private/stream/ticket/?ticket=the-ticket"),
        browser.get("/grip/private/the-ticket/", HTTP_GRIP_LAST="a; last-id=e.1"),
    ):
        assert answer.status_code in (400, 401, 403)
        assert b"the-ticket" not in answer.content
