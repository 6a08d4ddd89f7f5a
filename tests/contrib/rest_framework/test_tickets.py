"""Tickets: a stream is opened by its URL alone, soon, and by whom it was made for."""

import time

import pytest
from django.contrib.auth.models import Permission, User
from django.core import signing

from django_grip.contrib.rest_framework import seals, tickets
from django_grip.test import GripClient
from tests.contrib.rest_framework import over_time
from tests.shop.models import Project, Tag, Tenant

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("users_site")]


def ticket(client, url="/private/stream/", **extra):
    response = client.post(f"{url}ticket/", **extra)
    assert response.status_code == 200, response.content
    return response.json()["ticket"]


def opened(client, ticket, url="/private/stream/", **extra):
    return client.get(url, {"ticket": ticket}, **extra)


def bad(response):
    assert response.status_code == 401, response.content
    assert "Ask for another" in response.json()["detail"]
    assert response["WWW-Authenticate"] == "Ticket"
    assert "Grip-Hold" not in response
    return True


def test_a_ticket_opens_the_stream_of_its_user(browser, bare, ann):
    response = browser.post("/private/stream/ticket/")
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    said = response.json()
    assert said.keys() == {"ticket", "expires_in"}
    assert said["expires_in"] == 60
    response = opened(bare, said["ticket"])
    assert response["Grip-Channel"] == f"shop.tag, ~user.{ann.pk}"
    # As often as it takes: a browser may connect twice.
    assert opened(bare, said["ticket"]).status_code == 200


def test_a_ticket_is_asked_for_at_the_site_itself_as_well(browser):
    del browser.defaults["HTTP_GRIP_SIG"]
    assert ticket(browser)


def test_a_ticket_opens_the_stream_of_one_row(browser, bare):
    first, second = (Tag.objects.create(name=name) for name in "ab")
    url = f"/private/{first.pk}/stream/"
    given = ticket(browser, url)
    assert opened(bare, given, url).status_code == 200
    assert bad(opened(bare, given, f"/private/{second.pk}/stream/"))
    assert bad(opened(bare, given))


@pytest.mark.parametrize("url", ["/private/1/stream/", "/tags/stream/", "/own/stream/"])
def test_s38_a_ticket_is_for_its_path_only(browser, bare, url):
    assert bad(opened(bare, ticket(browser), url))


def test_s38_a_ticket_opens_nothing_but_streams(browser, bare):
    given = ticket(browser)
    assert bare.get("/private/", {"ticket": given}).status_code == 403
    assert bad(bare.post(f"/private/stream/ticket/?ticket={given}"))


def test_s38_a_ticket_is_good_for_a_minute(browser, bare, monkeypatch):
    given, now = ticket(browser), time.time()
    monkeypatch.setattr(tickets.time, "time", lambda: now + 58)
    assert opened(bare, given).status_code == 200
    monkeypatch.setattr(tickets.time, "time", lambda: now + 60)
    assert bad(opened(bare, given))


def test_how_long_it_is_good_is_a_setting(browser, bare, settings, monkeypatch):
    settings.GRIP_REALTIME = {"TICKET_TTL": 5}
    response = browser.post("/private/stream/ticket/")
    assert response.json()["expires_in"] == 5
    now = time.time()
    monkeypatch.setattr(tickets.time, "time", lambda: now + 5)
    assert bad(opened(bare, response.json()["ticket"]))


def test_s38_a_stream_is_resumed_with_a_ticket_that_is_good(browser, bare):
    given = ticket(browser)
    since = {"HTTP_LAST_EVENT_ID": "epoch.1"}
    assert opened(bare, given, **since).status_code == 200


def log_out(ann, browser):
    browser.logout()


def change_password(ann, browser):
    ann.set_password("another")
    ann.save()


def deactivate(ann, browser):
    User.objects.filter(pk=ann.pk).update(is_active=False)


def delete(ann, browser):
    ann.delete()


@pytest.mark.parametrize("cause", [log_out, change_password, deactivate, delete])
def test_s38_a_ticket_after(browser, bare, ann, cause):
    given = ticket(browser)
    cause(ann, browser)
    assert bad(opened(bare, given))


def test_s34_a_ticket_grants_nothing_itself(browser, bare, ann):
    permission = Permission.objects.get(codename="view_tag")
    url = "/permitted/stream/"
    assert browser.post(f"{url}ticket/").status_code == 403
    ann.user_permissions.add(permission)
    given = ticket(browser, url)
    assert opened(bare, given, url).status_code == 200
    ann.user_permissions.clear()
    assert opened(bare, given, url).status_code == 403


def test_the_question_is_that_of_the_stream(browser, bare, ann):
    tenant = Tenant.objects.create(name="a")
    project = Project.objects.create(tenant=tenant)
    for url in ("/own/stream/", f"/own/{project.pk}/stream/"):
        asked = browser.get(url)
        answer = browser.post(f"{url}ticket/")
        assert answer.status_code == asked.status_code in (403, 404)
        assert answer.json() == asked.json()
    tenant.members.add(ann)
    response = opened(bare, ticket(browser, "/own/stream/"), "/own/stream/")
    assert response["Grip-Channel"].startswith(f"shop.project~tenant.{tenant.pk}")
    assert browser.post("/own/stream/ticket/?status=new").status_code == 400


def test_who_may_read_only_gets_a_ticket_though_it_is_a_post(
    browser, bare, monkeypatch
):
    """Permissions see the `GET` that the ticket is for, and the action of it."""
    seen = []

    def see(self):
        seen.append((self.request.method, self.action, self.streaming))
        return []

    given = ticket(bare, "/tags/stream/")
    assert opened(bare, given, "/tags/stream/").status_code == 200
    monkeypatch.setattr(over_time.TagViewSet, "get_permissions", see)
    ticket(browser, "/tags/stream/")
    assert seen == [("GET", "list", True)]


def test_nobody_gets_a_ticket_where_nobody_may_stream_and_one_where_all_may(bare):
    assert bare.post("/private/stream/ticket/").status_code in (401, 403)
    given = ticket(bare, "/tags/stream/")
    response = opened(bare, given, "/tags/stream/")
    assert response["Grip-Channel"] == "shop.tag"


def test_a_ticket_of_nobody_does_not_make_a_user_of_who_has_one(browser, bare):
    given = ticket(bare, "/tags/stream/")
    assert opened(browser, given, "/tags/stream/").status_code == 200
    grant = opened(browser, given, "/private/stream/")
    assert bad(grant)


def test_a_ticket_goes_before_a_cookie(browser, bare, ann):
    bob = User.objects.create_user("bob")
    other = GripClient()
    other.force_login(bob)
    response = opened(other, ticket(browser))
    assert response["Grip-Channel"].endswith(f"~user.{ann.pk}")


def test_the_ticket_needs_a_csrf_token_where_a_session_gives_it(ann):
    client = GripClient(enforce_csrf_checks=True)
    client.force_login(ann)
    response = client.post("/private/stream/ticket/")
    assert response.status_code == 403
    assert "CSRF" in response.json()["detail"]
    token = "a" * 32
    client.cookies["csrftoken"] = token
    assert ticket(client, HTTP_X_CSRFTOKEN=token)
    # Who shows no cookie is asked for none.
    assert ticket(GripClient(enforce_csrf_checks=True), HTTP_X_USER="ann")


def test_the_ticket_is_a_post(browser):
    for method in ("get", "put", "patch", "delete"):
        assert getattr(browser, method)("/private/stream/ticket/").status_code == 405
    assert browser.options("/private/stream/ticket/").status_code == 200


def test_s38_a_forged_ticket_is_refused(browser, bare, ann):
    given = ticket(browser)
    value = [[str(ann.pk), "", None], int(time.time()) + 60]
    for forged in (
        "",
        "x",
        given[:-1],
        given + "A",
        given + "=",
        given[1:],
        given.swapcase(),
        "é",
        "\0",
        "x" * 10_000,
        signing.dumps(value),
        seals.seal("private link", value, "/private/stream"),
        seals.seal("ticket", value, "/private/stream/"),
    ):
        assert bad(opened(bare, forged))


def test_s13_a_ticket_is_no_private_link(browser, bare):
    given = ticket(browser)
    last = {"HTTP_GRIP_LAST": "shop.tag; last-id=e.1"}
    assert bare.get(f"/grip/private/{given}/", **last).status_code == 403


def test_s38_a_ticket_says_nothing_to_those_who_read_it(browser, ann):
    given = ticket(browser)
    for word in ("ann", "private", browser.session.session_key):
        assert word not in given
    assert len(given) < 300


def test_a_private_stream_that_was_opened_by_a_ticket_ends_with_the_session(
    browser, bare, log
):
    response = opened(bare, ticket(browser))
    link = response["Grip-Link"].partition(">")[0].removeprefix("<")
    [last] = [
        part.partition("prev-id=")[2]
        for part in response["Grip-Channel"].split(", ")
        if "prev-id" in part
    ]
    asked = {"HTTP_GRIP_LAST": f"shop.tag; last-id={last}"}
    again = bare.get(link, **asked)
    assert again["Grip-Link"].startswith(f"<{link}>")
    browser.logout()
    assert "Grip-Hold" not in bare.get(link, **asked)


def test_a_view_without_a_stream_has_no_tickets_for_it(settings):
    class ObjectsOnly(over_time.TagViewSet):
        stream_collection = None

    names = {each.__name__ for each in ObjectsOnly.get_extra_actions()}
    assert "stream_collection_ticket" not in names
    assert "stream_object_ticket" in names


def test_tickets_are_throttled_like_streams(browser, monkeypatch):
    class Throttle:
        asked = []

        def allow_request(self, request, view):
            self.asked.append((request.method, view.action))
            return len(self.asked) == 1

        def wait(self):
            return 10

    monkeypatch.setattr(
        over_time.TagViewSet, "throttle_classes", (Throttle,), raising=False
    )
    ticket(browser)
    response = browser.post("/private/stream/ticket/")
    assert response.status_code == 429
    assert response["Retry-After"] == "10"
    assert Throttle.asked == [("GET", "list")] * 2
