"""Links: the proxy asks here what its streams have missed, and nobody else."""

import sys
from types import ModuleType

import pytest
from asgiref.sync import async_to_sync
from django.core import signing
from django.http import HttpResponse
from django.urls import path

from django_grip.contrib.eventlog import history
from django_grip.contrib.realtime import publish_event
from django_grip.test import AsyncGripClient, GripClient
from tests.contrib.eventlog.history_fixtures import (
    at,
    frames,
    instruction,
    nothing_published,  # noqa: F401
    published_until,
    relay,
)
from tests.contrib.eventlog.test_positions import HOSTILE

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("log")]


def last(*positions):
    """Grip-Last as it arrives: several headers are one, joined by commas."""
    said = (f"{channel}; last-id={id}" for channel, id in positions)
    return {"HTTP_GRIP_LAST": ", ".join(said)}


@pytest.fixture
def room():
    """Events 1, 3 and 5 of `room`, and 2 and 4 of `hall`."""
    for channel in ("room", "hall", "room", "hall", "room"):
        publish_event(channel, "said", {"in": channel})
    relay()


def test_a_stream_goes_on_behind_what_its_proxy_saw(through_proxy, room):
    response = through_proxy.get("/grip/next/", **last(("room", at(1))))
    assert response["Content-Type"] == "text/event-stream"
    assert frames(response).ids == [at(3), at(5)]
    held = instruction(response)
    assert (held.hold, held.channel, held.prev_id) == ("stream", "room", at(5))
    assert (held.link, held.timeout) == ("/grip/next/", 60)
    assert response["Grip-Keep-Alive"] == ":\\n\\n; format=cstring; timeout=25"


def test_a_stream_that_missed_nothing_is_held_again_without_a_word(through_proxy, room):
    response = through_proxy.get("/grip/next/", **last(("hall", at(4))))
    assert response.content == b""
    held = instruction(response)
    assert (held.hold, held.prev_id, held.link) == ("stream", at(4), "/grip/next/")


def test_a_stream_is_asked_for_soon_where_its_event_is_just_being_published(
    through_proxy, room
):
    """The proxy may have passed it by, before anybody notes that it has it."""
    published_until(4)
    response = through_proxy.get("/grip/next/", **last(("room", at(3))))
    held = instruction(response)
    assert (response.content, held.prev_id, held.timeout) == (b"", at(3), 2)


def test_a_stream_that_history_cannot_heal_is_told_so(through_proxy, room):
    response = through_proxy.get("/grip/next/", **last(("room", "another.1")))
    assert frames(response).data("reset") == {"channel": "room", "reason": "epoch"}
    assert instruction(response).prev_id == at(5)


def test_f33_only_a_proxy_shows_that_a_backup_was_restored(through_proxy, room):
    old = at(9)
    response = through_proxy.get("/grip/next/", **last(("room", old)))
    assert frames(response).data("reset")["reason"] == "future"
    assert at(9) != old
    assert frames(response).last_id == at(5)


def test_two_requests_for_one_place_are_answered_alike(through_proxy, client, room):
    """The proxy gives one answer to all streams that ask for it."""
    answers = [
        through_proxy.get("/grip/next/", **last(("room", at(1))), **extra)
        for extra in ({}, {"HTTP_COOKIE": "sessionid=x"}, {"HTTP_AUTHORIZATION": "x"})
    ]
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(sorted(answer.items())) for answer in answers}) == 1


def test_an_answer_has_the_events_of_its_channel_only(through_proxy, room):
    for channel in ("room", "hall"):
        response = through_proxy.get("/grip/next/", **last((channel, at(0))))
        told = {data["channel"] for _, _, data in frames(response).events}
        assert told == {channel}


def test_a_long_way_goes_by_pages(through_proxy, room, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    response = through_proxy.get("/grip/next/", **last(("room", at(0))))
    assert frames(response).ids == [at(1), at(3)]
    page = instruction(response)
    assert (page.hold, page.channel, page.timeout) == (None, None, None)
    response = through_proxy.get(page.link)
    assert frames(response).ids == [at(5)]
    assert instruction(response).prev_id == at(5)
    assert instruction(response).link == "/grip/next/"


# Who may ask.


def refused(response):
    assert response.status_code == 403
    assert not any(name.startswith("Grip-") for name in response.headers)
    assert b"room" not in response.content
    return True


def test_s37_a_request_without_a_position_is_refused(through_proxy, room):
    assert refused(through_proxy.get("/grip/next/"))
    assert refused(through_proxy.get("/grip/next/", HTTP_GRIP_LAST="room"))
    assert refused(through_proxy.get("/grip/next/", HTTP_GRIP_LAST="room; last-id="))
    assert refused(through_proxy.get("/grip/next/", HTTP_GRIP_LAST=""))


def test_s37_positions_in_the_query_count_for_nothing(through_proxy, room):
    assert refused(through_proxy.get(f"/grip/next/?channel=room&since={at(0)}"))


def test_two_channels_are_refused(through_proxy, room):
    both = last(("room", at(0)), ("hall", at(0)))
    assert refused(through_proxy.get("/grip/next/", **both))


def test_a_channel_without_the_prefix_is_refused(through_proxy, room, settings):
    settings.GRIP_PREFIX = "p-"
    assert refused(through_proxy.get("/grip/next/", **last(("room", at(0)))))


def test_s37_who_is_not_known_by_a_key_is_refused(client, room, settings):
    settings.GRIP_URL = "http://127.0.0.1:9"
    response = client.get(
        "/grip/next/", HTTP_GRIP_SIG="anything", **last(("room", at(0)))
    )
    assert refused(response)


@pytest.mark.parametrize("signature", [None, "forged", "a.b.c"])
def test_s37_who_came_through_no_proxy_finds_nothing(client, room, signature):
    extra = {} if signature is None else {"HTTP_GRIP_SIG": signature}
    for url in ("/grip/next/", "/grip/page/x/"):
        response = client.get(url, **extra, **last(("room", at(0))))
        assert response.status_code == 404


@pytest.mark.parametrize("said", HOSTILE)
def test_s39_whatever_stands_in_grip_last_is_reset_or_refused(
    through_proxy, room, said
):
    said = said.encode().decode("latin-1")
    response = through_proxy.get("/grip/next/", HTTP_GRIP_LAST=f"room; last-id={said}")
    if response.status_code != 403:
        assert frames(response).data("reset")["reason"] in ("bad-id", "epoch")
        assert instruction(response).prev_id == at(5)


@pytest.mark.parametrize(
    "name", ["r" * 10_000, "é", "a b", '"', "\0", "*", "../", "%", "' OR 1=1 --"]
)
def test_s39_a_channel_that_is_not_held_is_answered_or_refused(
    through_proxy, room, name
):
    response = through_proxy.get(
        "/grip/next/", HTTP_GRIP_LAST=f"{name}; last-id={at(0)}"
    )
    assert response.status_code == 403 or frames(response).events == []


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a:b:c",
        "%00",
        "é",
        "x" * 10_000,
        signing.dumps(("room", "e.1"), salt="another"),
    ],
)
def test_s36_a_forged_page_is_refused(through_proxy, room, token):
    assert refused(through_proxy.get(f"/grip/page/{token}/"))


@pytest.fixture
def page_path(through_proxy, room, monkeypatch):
    monkeypatch.setattr(history, "PAGE", 2)
    response = through_proxy.get("/grip/next/", **last(("room", at(0))))
    return instruction(response).link


def test_s36_a_page_that_is_too_old_is_refused(through_proxy, page_path, monkeypatch):
    monkeypatch.setattr(history, "PAGE_AGE", -1)
    assert refused(through_proxy.get(page_path))


def test_s36_a_page_that_was_cut_short_or_changed_is_refused(through_proxy, page_path):
    assert refused(through_proxy.get(page_path[:-2] + "/"))
    changed = page_path.replace("/grip/page/", "/grip/page/W")
    assert refused(through_proxy.get(changed))


def test_s36_a_page_is_for_the_proxy_only(client, page_path):
    del client.defaults["HTTP_GRIP_SIG"]
    assert client.get(page_path).status_code == 404


def test_s36_a_page_carries_its_channel_and_position_itself(through_proxy, page_path):
    response = through_proxy.get(page_path, **last(("hall", at(0))))
    assert frames(response).ids == [at(5)]
    assert instruction(response).channel == "room"


# Beside the project's own URLs and middleware.


@pytest.fixture
def own_urls(settings):
    """A project that has paths below /grip/ itself."""
    module = ModuleType("own_urls")
    module.urlpatterns = [
        path("grip/next/", lambda request: HttpResponse("the project's own")),
        path("grip/help/", lambda request: HttpResponse("the project's own")),
    ]
    sys.modules["own_urls"] = module
    settings.ROOT_URLCONF = "own_urls"
    yield
    del sys.modules["own_urls"]


@pytest.mark.parametrize("url", ["/grip/next/", "/grip/help/"])
def test_a_project_with_such_paths_still_gets_direct_requests(client, own_urls, url):
    assert client.get(url).content == b"the project's own"


def test_the_proxy_gets_its_answer_whatever_the_project_has_there(
    through_proxy, room, own_urls
):
    response = through_proxy.get("/grip/next/", **last(("room", at(3))))
    assert frames(response).ids == [at(5)]


def test_other_paths_of_the_project_are_its_own_through_the_proxy_too(
    through_proxy, own_urls
):
    assert through_proxy.get("/grip/help/").content == b"the project's own"


def test_middleware_that_asks_everybody_to_log_in_lets_the_proxy_pass(
    page_path, settings
):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.MIDDLEWARE = [
        "django_grip.GripMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    proxy = GripClient()
    assert proxy.get("/plain/").status_code == 302
    response = proxy.get("/grip/next/", **last(("room", at(3))))
    assert frames(response).ids == [at(5)]
    assert frames(proxy.get(page_path)).ids == [at(5)]


def test_middleware_as_djangos_template_has_it_changes_no_answer(
    through_proxy, room, settings
):
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.MIDDLEWARE = [
        "django_grip.GripMiddleware",
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.gzip.GZipMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ]
    response = through_proxy.get(
        "/grip/next/", HTTP_ACCEPT_ENCODING="gzip", **last(("room", at(1)))
    )
    assert "Content-Encoding" not in response
    assert frames(response).ids == [at(3), at(5)]
    assert instruction(response).prev_id == at(5)
    assert not response.cookies


def test_the_middleware_may_stand_behind_others(through_proxy, room, settings):
    settings.MIDDLEWARE = [
        "django.middleware.common.CommonMiddleware",
        "django_grip.GripMiddleware",
    ]
    response = through_proxy.get("/grip/next/", **last(("room", at(3))))
    assert frames(response).ids == [at(5)]


def test_links_are_answered_under_asgi_too(room):
    client = AsyncGripClient()
    headers = {"grip-last": f"room; last-id={at(3)}"}
    response = async_to_sync(client.get)("/grip/next/", headers=headers)
    assert frames(response).ids == [at(5)]
