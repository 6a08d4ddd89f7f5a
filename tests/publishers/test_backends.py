"""The publishers that send nothing: console, locmem, and one of the user's."""

import json

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from sending import content_of, text

from django_grip import apublish, publish
from django_grip.exceptions import PublishError
from django_grip.publishers import get_publisher, locmem
from django_grip.publishers.base import BasePublisher
from servers import wait_until


def test_console_prints_a_line_of_json_for_each_item(settings, capsys, reports):
    settings.GRIP_PUBLISHER = "django_grip.publishers.console.Publisher"
    settings.GRIP_PREFIX = "p-"
    publish("room", text("é\n"), id="1", meta={"k": "v"})
    publish("room", text("b"), blocking=True)
    async_to_sync(apublish)("room", text("c"))
    first, *rest = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "channel": "p-room",
        "id": "1",
        "meta": {"k": "v"},
        "formats": {"http-stream": {"content": "é\n"}},
    }
    assert [item["formats"]["http-stream"]["content"] for item in rest] == ["b", "c"]


def test_console_tells_the_callback(settings, capsys, reports):
    settings.GRIP_PUBLISHER = "django_grip.publishers.console.Publisher"
    publish("room", text("a"), callback=reports.callback("a"))
    publish("room", text("b"), blocking=True, callback=reports.callback("b"))
    assert reports.told == [("a", True, ""), ("b", True, "")]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_console_has_the_whole_contract(settings):
    settings.GRIP_PUBLISHER = "django_grip.publishers.console.Publisher"
    publisher = get_publisher()
    assert publisher.counters() == {}
    publisher.wait_all_sent()
    publisher.close()


def test_locmem_keeps_items_in_their_order(settings, monkeypatch, reports):
    settings.GRIP_PUBLISHER = "django_grip.publishers.locmem.Publisher"
    monkeypatch.setattr(locmem, "outbox", [])
    publish("room", text("a"), callback=reports.callback("a"))
    publish("room", text("b"), blocking=True)
    async_to_sync(apublish)("room", text("c"))
    assert [content_of(item) for item in locmem.outbox] == ["a", "b", "c"]
    assert reports.told == [("a", True, "")]


class Failing(BasePublisher):
    """A publisher of the user's that gets rid of nothing."""

    def publish(self, items):
        raise PublishError({"http://a": "no"})


def test_a_publisher_of_the_users_needs_only_publish(settings, reports, caplog):
    settings.GRIP_PUBLISHER = f"{__name__}.Failing"
    publish("room", text("a"), callback=reports.callback("a"))
    assert reports.told == [("a", False, "http://a: no")]
    assert [reason for _, _, reason in reports.failed] == ["no"]
    assert "http://a" in caplog.text
    with pytest.raises(PublishError):
        publish("room", text("b"), blocking=True)
    with pytest.raises(PublishError):
        async_to_sync(apublish)("room", text("c"))


def test_a_publisher_that_cannot_be_imported_is_named(settings):
    settings.GRIP_PUBLISHER = "nowhere.Publisher"
    with pytest.raises(ImproperlyConfigured, match=r"nowhere\.Publisher"):
        publish("room", text("a"))


def test_a_change_of_settings_is_a_new_publisher_and_the_old_one_ends(
    control, control_port, settings
):
    publish("room", text("a"))
    old = get_publisher()
    other = control_port()
    settings.GRIP_URL = other.url
    publish("room", text("b"), blocking=True)
    assert get_publisher() is not old
    wait_until(lambda: control.contents == ["a"], "the old one has sent its item")
    assert other.contents == ["b"]
