"""Echo: events say which client has made a change, as far as it has said so."""

import json

import pytest

from django_grip.contrib.realtime.contexts import current_origin
from tests.contrib.rest_framework import over_time
from tests.shop.models import Tag

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("users_site"),
]

JSON = {"content_type": "application/json"}


@pytest.fixture
def client(browser, published):
    published.clear()
    return browser


def origins(published):
    """What events say, once for each change; it is what filters are given as well."""
    found = []
    for item in published:
        event = json.loads(item.formats["ws-message"]["content"])[0]
        assert item.meta == ({"sender": event["origin"]} if "origin" in event else {})
        found.append(event.get("origin"))
    published.clear()
    # The collection and the object are told alike.
    assert found[::2] == found[1::2]
    return found[::2]


def test_all_that_a_client_changes_is_marked_with_its_name(client, published):
    name = {"headers": {"X-Realtime-Client": "tab 1"}}
    assert client.post("/tags/", {"name": "a"}, **JSON, **name).status_code == 201
    url = f"/tags/{Tag.objects.get().pk}/"
    assert client.put(url, {"name": "b"}, **JSON, **name).status_code == 200
    assert client.patch(url, {"name": "c"}, **JSON, **name).status_code == 200
    assert client.delete(url, **name).status_code == 204
    assert origins(published) == ["tab 1"] * 4


def test_the_parameter_is_for_clients_without_headers(client, published):
    client.post("/tags/?client=tab-1", {"name": "a"}, **JSON)
    headers = {"X-Realtime-Client": "tab 2"}
    client.post("/tags/?client=tab-1", {"name": "a"}, **JSON, headers=headers)
    assert origins(published) == ["tab-1", "tab 2"]


def test_who_says_nothing_is_not_named(client, published):
    client.post("/tags/", {"name": "a"}, **JSON)
    client.post("/tags/?client=", {"name": "a"}, **JSON)
    assert origins(published) == [None, None]
    assert current_origin() is None


@pytest.mark.parametrize("name", ["x" * 65, "é", "a\tb", "a\nb", "\0", "\x7f"])
def test_a_name_that_events_cannot_carry_is_400(client, published, name):
    for answer in (
        client.get("/tags/stream/", {"client": name}),
        client.post("/tags/stream/ticket/", query_params={"client": name}),
        client.post("/tags/", {"name": "a"}, **JSON, query_params={"client": name}),
    ):
        assert answer.status_code == 400
        assert "64 printable ASCII" in answer.json()["detail"]
        assert "Grip-Hold" not in answer
    assert not Tag.objects.exists()
    assert published == []
    # Elsewhere it may be a filter.
    assert client.get("/tags/", {"client": name}).status_code == 200


@pytest.mark.parametrize("name", ["x" * 65, "caf\xe9"])
def test_a_header_that_events_cannot_carry_is_400(client, published, name):
    named = {"headers": {"X-Realtime-Client": name}}
    for url in ("/tags/", "/tags/stream/"):
        assert client.get(url, **named).status_code == 400
    assert client.post("/tags/", {"name": "a"}, **JSON, **named).status_code == 400
    assert published == []


def test_the_longest_name_is_carried(client, published):
    name = "".join(chr(code) for code in range(32, 96)).strip()
    headers = {"X-Realtime-Client": name}
    client.post("/tags/", {"name": "a"}, **JSON, headers=headers)
    assert origins(published) == [name]


def test_streams_are_the_same_for_each_client(client):
    """One channel, one link: a client leaves out its own changes itself."""
    one, two = (
        client.get("/tags/stream/", {"client": name}) for name in ("tab-1", "tab-2")
    )
    for answer in (one, two):
        assert answer.status_code == 200
        assert answer["Grip-Channel"] == "shop.tag"
        assert "Grip-Set-Meta" not in answer


def test_a_view_that_fails_leaves_no_name_behind(client, published, monkeypatch):
    def fail(*args):
        raise RuntimeError

    monkeypatch.setattr(over_time.TagViewSet, "perform_create", fail)
    client.raise_request_exception = False
    named = {"headers": {"X-Realtime-Client": "tab"}}
    assert client.post("/tags/", {"name": "a"}, **JSON, **named).status_code == 500
    assert current_origin() is None
