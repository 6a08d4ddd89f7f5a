"""Private links: the proxy asks at a path of the user's own, and the view is asked."""

import time

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.cache import SessionStore
from django.urls import clear_script_prefix, reverse, set_script_prefix

from django_grip.contrib.eventlog import history
from django_grip.contrib.realtime import publish_event
from django_grip.contrib.rest_framework import private_paths, seals
from django_grip.test import GripClient
from tests.contrib.eventlog.history_fixtures import (
    at,
    frames,
    nothing_published,  # noqa: F401
    relay,
)
from tests.contrib.rest_framework import over_time
from tests.shop.models import Project, Tag, Tenant

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log", "users_site")]


def written(count=1):
    for _ in range(count):
        publish_event(Tag, "said")
    relay()


def channels(response):
    return response["Grip-Channel"].split(", ") if "Grip-Channel" in response else []


def link(response):
    assert response.status_code == 200, response.content
    return response["Grip-Link"].partition(">")[0].removeprefix("<")


def last(position, channel="shop.tag"):
    return {"HTTP_GRIP_LAST": f"{channel}; last-id={position}"}


def ended(response):
    """The proxy ends the stream, and nobody reads anything."""
    assert response.status_code == 200
    assert response.content == b""
    assert not any(name.startswith("Grip-") for name in response.headers)
    return True


def refused(response):
    assert response.status_code == 403
    assert not any(name.startswith("Grip-") for name in response.headers)
    assert b"shop" not in response.content
    return True


# What is held.


def test_a_private_stream_is_held_on_its_channel_and_on_its_users(browser, ann):
    response = browser.get("/private/stream/")
    assert channels(response) == [f"shop.tag; prev-id={at(0)}", f"~user.{ann.pk}"]
    assert link(response).startswith("/grip/private/")
    assert frames(response).data("ready")["gapless"] is True


def test_the_path_says_nothing_to_those_who_read_it(browser, ann):
    path = link(browser.get("/private/stream/"))
    for word in ("ann", "private/stream", "shop.tag", browser.session.session_key):
        assert word not in path.removeprefix("/grip/private/")
    assert len(path) < 400


def test_two_tabs_of_a_user_have_one_path(browser):
    first, second = (link(browser.get("/private/stream/")) for _ in "ab")
    assert first == second


def test_another_session_stream_or_user_has_another_path(browser, ann):
    other = GripClient()
    other.force_login(ann)
    bob = GripClient()
    bob.force_login(User.objects.create_user("bob"))
    tag = Tag.objects.create(name="a")
    paths = {
        link(browser.get("/private/stream/")),
        link(browser.get(f"/private/{tag.pk}/stream/")),
        link(other.get("/private/stream/")),
        link(bob.get("/private/stream/")),
    }
    assert len(paths) == 4


def test_the_view_is_asked_again_and_answers_for_the_user(browser, bare, ann):
    opened = browser.get("/private/stream/")
    written()
    response = bare.get(link(opened), **last(at(0)))
    assert frames(response).ids == [at(1)]
    assert channels(response) == [f"shop.tag; prev-id={at(1)}", f"~user.{ann.pk}"]
    assert response["Grip-Link"] == f"<{link(opened)}>; rel=next; timeout=60"
    assert frames(response).names == ["said"]
    # And so on, from its own answer.
    written()
    again = bare.get(link(response), **last(at(1)))
    assert frames(again).ids == [at(2)]
    assert link(again) == link(opened)


def test_parameters_of_the_beginning_are_not_repeated(browser, bare):
    opened = browser.get(f"/private/stream/?since={at(0)}&client=me")
    assert link(opened) == link(browser.get("/private/stream/"))
    written()
    assert frames(bare.get(link(opened), **last(at(0)))).names == ["said"]


@pytest.fixture
def script_prefix():
    set_script_prefix("/api/")
    yield
    clear_script_prefix()


@pytest.mark.usefixtures("script_prefix")
def test_a_site_below_a_prefix_has_its_links_there(browser, bare):
    opened = browser.get("/private/stream/", SCRIPT_NAME="/api")
    assert link(opened).startswith("/api/grip/private/")
    path = link(opened).removeprefix("/api")
    response = bare.get(path, SCRIPT_NAME="/api", **last(at(0)))
    assert link(response) == link(opened)


def test_with_a_prefix_of_channels_the_link_is_the_same(browser, bare, settings):
    settings.GRIP_PREFIX = "p-"
    opened = browser.get("/private/stream/")
    response = bare.get(link(opened), **last(at(0), "p-shop.tag"))
    assert link(response) == link(opened)
    assert refused(bare.get(link(opened), **last(at(0))))


def test_what_does_not_fit_one_answer_comes_by_the_same_path(
    browser, bare, monkeypatch
):
    monkeypatch.setattr(history, "PAGE", 2)
    written(5)
    response = browser.get("/private/stream/", HTTP_LAST_EVENT_ID=at(0))
    came = frames(response).ids[:]
    path = link(response)
    for seq in (2, 4):
        assert f"prev-id={at(seq)}" in channels(response)[0]
        assert response["Grip-Link"] == f"<{path}>; rel=next; timeout=1"
        response = bare.get(path, **last(at(seq)))
        came += frames(response).ids
    assert [id for id in came if id] == [at(seq) for seq in range(1, 6)]
    assert response["Grip-Link"] == f"<{path}>; rel=next; timeout=60"


def test_without_a_key_there_is_no_link_but_the_users_channel(
    browser, ann, settings, monkeypatch
):
    settings.GRIP_URL = "http://127.0.0.1:9"
    browser.defaults["HTTP_GRIP_SIG"] = "any"
    response = browser.get("/private/stream/")
    assert channels(response) == ["shop.tag", f"~user.{ann.pk}"]
    assert "Grip-Link" not in response
    assert frames(response).data("ready")["gapless"] is False
    monkeypatch.setattr(history, "PAGE", 2)
    written(3)
    response = browser.get("/private/stream/", HTTP_LAST_EVENT_ID=at(0))
    # What is left out could not be asked for.
    assert frames(response).data("reset")["reason"] == "overflow"
    assert frames(response).last_id == at(3)
    assert channels(response) == ["shop.tag", f"~user.{ann.pk}"]


def test_without_an_event_log_it_ends_with_its_user_all_the_same(
    browser, ann, monkeypatch
):
    monkeypatch.setattr("django_grip.contrib.realtime.durable.log", None)
    response = browser.get("/private/stream/")
    assert channels(response) == ["shop.tag", f"~user.{ann.pk}"]
    assert "Grip-Link" not in response


def test_a_stream_without_a_link_is_held_without_a_position(browser, ann, monkeypatch):
    response = browser.get("/unlinked/stream/")
    assert channels(response) == ["shop.tag"]
    assert "Grip-Link" not in response
    assert frames(response).data("ready")["gapless"] is False
    monkeypatch.setattr(history, "PAGE", 2)
    written(3)
    response = browser.get("/unlinked/stream/", HTTP_LAST_EVENT_ID=at(0))
    assert frames(response).data("reset")["reason"] == "overflow"
    assert channels(response) == ["shop.tag"]


def test_nobody_has_no_stream_of_his_own(bare):
    for url in ("/private/stream/", "/open-private/stream/"):
        response = bare.get(url)
        assert response.status_code in (401, 403)
        assert "Grip-Hold" not in response
    assert "a user's own" in response.json()["detail"]


def test_who_came_without_a_session_is_asked_for_by_the_password_alone(bare, ann):
    opened = bare.get("/private/stream/", headers={"X-User": "ann"})
    assert link(bare.get(link(opened), **last(at(0)))) == link(opened)
    ann.set_password("another")
    ann.save()
    assert ended(bare.get(link(opened), **last(at(0))))


def test_a_value_that_is_no_link_is_the_programmers_mistake(browser, monkeypatch):
    monkeypatch.setattr(over_time.TagViewSet, "stream_link", "public")
    with pytest.raises(Exception, match="'shared', 'private' or None; got 'public'"):
        browser.get("/tags/stream/")


# When it ends.


def log_out(ann, browser):
    browser.logout()


def change_password(ann, browser):
    ann.set_password("another")
    ann.save()


def deactivate(ann, browser):
    User.objects.filter(pk=ann.pk).update(is_active=False)


def delete(ann, browser):
    User.objects.filter(pk=ann.pk).delete()


def lose_the_session(ann, browser):
    SessionStore(browser.session.session_key).delete()


def hand_over_the_session(ann, browser):
    session = browser.session
    session[SESSION_KEY] = str(User.objects.create_user("bob").pk)
    session.save()


@pytest.mark.parametrize(
    "cause",
    [
        log_out,
        change_password,
        deactivate,
        delete,
        lose_the_session,
        hand_over_the_session,
    ],
)
def test_s32_s36_a_link_after(browser, bare, ann, cause):
    path = link(browser.get("/private/stream/"))
    written()
    assert frames(bare.get(path, **last(at(0)))).ids == [at(1)]
    cause(ann, browser)
    assert ended(bare.get(path, **last(at(0))))


def test_s34_s36_a_permission_that_is_gone_ends_the_stream(browser, bare, ann):
    permission = Permission.objects.get(codename="view_tag")
    ann.user_permissions.add(permission)
    path = link(browser.get("/permitted/stream/"))
    written()
    assert frames(bare.get(path, **last(at(0)))).ids == [at(1)]
    ann.user_permissions.remove(permission)
    assert ended(bare.get(path, **last(at(0))))
    response = browser.get("/permitted/stream/", HTTP_LAST_EVENT_ID=at(0))
    assert response.status_code == 403
    assert "Grip-Hold" not in response


def test_an_object_that_left_the_users_rows_ends_its_stream(browser, bare, ann):
    tenant = Tenant.objects.create(name="a")
    tenant.members.add(ann)
    project = Project.objects.create(tenant=tenant)
    path = link(browser.get(f"/own/{project.pk}/stream/"))
    where = last(at(0), f"shop.project.{project.pk}")
    assert link(bare.get(path, **where)) == path
    tenant.members.clear()
    assert ended(bare.get(path, **where))


def test_a_user_of_another_tenant_now_is_not_given_the_old_ones_events(
    browser, bare, ann
):
    first, second = (Tenant.objects.create(name=name) for name in "ab")
    first.members.add(ann)
    path = link(browser.get("/own/stream/"))
    where = last(at(0), f"shop.project~tenant.{first.pk}")
    assert link(bare.get(path, **where)) == path
    first.members.clear()
    second.members.add(ann)
    assert ended(bare.get(path, **where))


def test_a_view_that_is_not_private_any_more_ends_its_private_streams(
    browser, bare, monkeypatch
):
    path = link(browser.get("/private/stream/"))
    monkeypatch.setattr(over_time.PrivateTagViewSet, "stream_link", "shared")
    assert ended(bare.get(path, **last(at(0))))


def test_a_view_that_is_gone_ends_its_streams(browser, bare, settings):
    path = link(browser.get("/private/stream/"))
    settings.ROOT_URLCONF = "tests.urls"
    assert ended(bare.get(path, **last(at(0))))


def test_a_view_that_fails_is_asked_again(browser, bare, monkeypatch):
    path = link(browser.get("/private/stream/"))
    bare.raise_request_exception = False

    def fail(*args):
        raise RuntimeError

    monkeypatch.setattr(over_time.PrivateTagViewSet, "get_permissions", fail)
    response = bare.get(path, **last(at(0)))
    assert response.status_code == 500
    assert not any(name.startswith("Grip-") for name in response.headers)


def test_a_view_that_grants_and_then_fails_holds_nothing(browser, bare, monkeypatch):
    path = link(browser.get("/private/stream/"))
    answer = over_time.PrivateTagViewSet.finalize_response

    def refuse(self, request, response, *args, **kwargs):
        response.status_code = 403
        return answer(self, request, response, *args, **kwargs)

    monkeypatch.setattr(over_time.PrivateTagViewSet, "finalize_response", refuse)
    assert ended(bare.get(path, **last(at(0))))


# Who may ask.


@pytest.fixture
def path(browser):
    return link(browser.get("/private/stream/"))


def test_s36_a_path_that_a_client_repeats_is_refused(browser, bare, path):
    """Through the proxy, which signs; but it takes a position from no client."""
    written()
    assert refused(browser.get(path))
    assert refused(bare.get(path))
    assert refused(browser.get(path, HTTP_LAST_EVENT_ID=at(0)))


def test_s36_only_a_proxy_that_is_known_by_its_key_may_ask(
    path, bare, client, settings
):
    del client.defaults["HTTP_GRIP_SIG"]
    assert client.get(path, **last(at(0))).status_code == 404
    settings.GRIP_URL = "http://127.0.0.1:9"
    assert refused(client.get(path, HTTP_GRIP_SIG="any", **last(at(0))))


@pytest.fixture
def client():
    return GripClient()


def test_s36_a_path_for_another_channel_is_refused(bare, path):
    written()
    for channel in ("shop.order", "shop.tag.1", "~user.1", "shop.tag~tenant.2"):
        assert refused(bare.get(path, **last(at(0), channel)))
    both = {"HTTP_GRIP_LAST": f"shop.tag; last-id={at(0)}, shop.order; last-id={at(0)}"}
    assert refused(bare.get(path, **both))


def test_s36_a_path_that_was_cut_short_or_changed_is_refused(bare, path):
    token = path.removeprefix("/grip/private/").rstrip("/")
    swapped = "B" if token[0] == "A" else "A"
    for changed in (
        token[:-1],
        token[1:],
        token[:20],
        token + "A",
        token + "=",
        swapped + token[1:],
        token[:-1] + ("B" if token[-1] == "A" else "A"),
        "x",
        "%00",
        "é",
        "x" * 10_000,
    ):
        assert refused(bare.get(f"/grip/private/{changed}/", **last(at(0))))


def test_s13_a_token_of_another_purpose_is_refused(bare, ann):
    value = ["/private/stream/", [str(ann.pk), "", None], int(time.time() // 3600)]
    for purpose in ("ticket", "", "private  link"):
        token = seals.seal(purpose, value, "shop.tag")
        assert refused(bare.get(f"/grip/private/{token}/", **last(at(0))))


def test_s36_a_path_is_good_for_two_ages_and_then_refused(bare, path, monkeypatch):
    now = time.time()
    monkeypatch.setattr(private_paths.time, "time", lambda: now + private_paths.AGE)
    response = bare.get(path, **last(at(0)))
    renewed = link(response)
    assert renewed != path
    now += private_paths.AGE
    assert refused(bare.get(path, **last(at(0))))
    assert link(bare.get(renewed, **last(at(0))))


def test_a_path_of_an_old_secret_key_is_good_as_long_as_it_falls_back(
    browser, bare, settings
):
    path = link(browser.get("/private/stream/", headers={"X-User": "ann"}))
    old = settings.SECRET_KEY
    settings.SECRET_KEY = "another-insecure-key"
    settings.SECRET_KEY_FALLBACKS = [old]
    assert link(bare.get(path, **last(at(0)))) != path
    settings.SECRET_KEY_FALLBACKS = []
    assert refused(bare.get(path, **last(at(0))))


def test_sessions_in_cookies_do_not_stop_a_stream(ann, bare, settings):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    browser = GripClient()
    browser.force_login(ann)
    path = link(browser.get("/private/stream/"))
    assert link(bare.get(path, **last(at(0)))) == path


def test_s37_two_users_of_one_channel_have_answers_of_their_own(browser, bare, ann):
    bob = User.objects.create_user("bob")
    other = GripClient()
    other.force_login(bob)
    paths = {
        each: link(c.get("/private/stream/"))
        for each, c in ((ann, browser), (bob, other))
    }
    assert len(set(paths.values())) == 2
    bob.is_active = False
    bob.save()
    assert f"~user.{ann.pk}" in channels(bare.get(paths[ann], **last(at(0))))
    assert ended(bare.get(paths[bob], **last(at(0))))


def test_s36_no_session_is_prolonged_by_a_link(browser, bare, path, settings):
    settings.SESSION_SAVE_EVERY_REQUEST = True
    response = bare.get(path, **last(at(0)))
    assert not response.cookies


def test_the_links_of_a_stream_are_not_throttled(browser, bare, path, monkeypatch):
    class Throttle:
        def allow_request(self, request, view):
            return False

        def wait(self):
            return 10

    monkeypatch.setattr(
        over_time.PrivateTagViewSet, "throttle_classes", (Throttle,), raising=False
    )
    assert browser.get("/private/stream/").status_code == 429
    assert link(bare.get(path, **last(at(0)))) == path


def test_names_of_urls_are_the_projects_own_while_a_view_is_asked(
    browser, bare, path, monkeypatch
):
    seen = []
    ask = over_time.PrivateTagViewSet.get_permissions

    def look(self):
        seen.append(reverse("private-stream"))
        return ask(self)

    monkeypatch.setattr(over_time.PrivateTagViewSet, "get_permissions", look)
    assert link(bare.get(path, **last(at(0)))) == path
    assert seen == ["/private/stream/"]
