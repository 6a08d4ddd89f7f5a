"""Revocations: programs end streams, or have their clients fetch anew."""

import json

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from django_grip.contrib.eventlog import closing
from django_grip.contrib.eventlog.models import LoggedEvent
from django_grip.contrib.realtime import (
    areset,
    arevoke,
    channel_for,
    reset,
    revoke,
    suppress,
)
from tests.contrib.eventlog.history_fixtures import relay
from tests.shop.models import Customer, Item, Order, Project, Shipment, Tag

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ann():
    return User.objects.create(username="ann")


@pytest.fixture
def tag():
    with suppress():
        return Tag.objects.create(name="a")


def closes(published):
    """The channels whose streams end, over all transports."""
    for item in published:
        assert item.formats["http-stream"] == {"action": "close"}
        assert {"http-response", "ws-message"} < item.formats.keys()
    return [item.channel for item in published]


def logged(op):
    return [each.channel for each in LoggedEvent.objects.filter(op=op).order_by("seq")]


# Users.


def test_s32_a_users_streams_end_when_the_transaction_commits(published, ann):
    with transaction.atomic():
        revoke(user=ann)
        assert published == []
    assert closes(published) == [f"~user.{ann.pk}"]
    assert published[0].id is published[0].prev_id is None


def test_what_is_rolled_back_ends_nothing(published, ann):
    with pytest.raises(RuntimeError), transaction.atomic():
        revoke(user=ann)
        raise RuntimeError
    assert published == []


def test_s32_users_are_told_past_the_log(published, ann, log):
    revoke(user=ann)
    assert closes(published) == [f"~user.{ann.pk}"]
    assert relay() == []


def test_a_user_of_a_target_is_a_user(published, ann, tag, log):
    revoke(user=ann, target=tag)
    assert closes(published) == [f"~user.{ann.pk}"]
    assert relay() == []


def test_the_channel_of_a_user_has_the_prefix(published, ann, settings):
    settings.GRIP_PREFIX = "p-"
    revoke(user=ann)
    assert closes(published) == [f"p-~user.{ann.pk}"]


# Targets.


def test_one_row_a_collection_and_a_name(published, tag):
    revoke(target=tag)
    revoke(target=Tag)
    revoke(target="room.7")
    assert closes(published) == [f"shop.tag.{tag.pk}", "shop.tag", "room.7"]


def test_all_audiences_of_a_row_and_those_that_are_refreshed(published):
    with suppress():
        item = Item.objects.create()
        project = Project.objects.create()
    revoke(target=item)
    assert closes(published) == [
        f"shop.item.{item.pk}~as.public",
        f"shop.item.{item.pk}~as.staff",
    ]
    published.clear()
    revoke(target=project)
    assert closes(published) == [
        f"shop.project.{project.pk}",
        f"shop.project.{project.pk}~as.refresh",
    ]


def test_targets_end_with_the_transaction_too(published, tag):
    with pytest.raises(RuntimeError), transaction.atomic():
        revoke(target=tag)
        raise RuntimeError
    with transaction.atomic():
        revoke(target=tag)
        assert published == []
    assert closes(published) == [f"shop.tag.{tag.pk}"]


def test_with_the_log_a_close_has_its_place_behind_what_was_told(published, log, tag):
    tag.save()
    revoke(target=tag)
    tag.save()
    relay()
    rows = LoggedEvent.objects.filter(channel=f"shop.tag.{tag.pk}").order_by("seq")
    assert [row.op for row in rows] == ["update", "close", "update"]
    assert [row.prev for row in rows] == [0, rows[0].seq, rows[1].seq]
    close = next(i for i in published if i.formats["http-stream"].get("action"))
    assert close.id.endswith(f".{rows[1].seq}")
    assert close.prev_id.endswith(f".{rows[0].seq}")


def test_the_log_knows_where_the_scopes_of_a_model_are_streamed(published, log):
    scoped = channel_for(Project, "tenant", 7)
    for channel in (
        scoped,
        "shop.project~region.north~as.refresh",
        "shop.project.7",
        "shop.projects~tenant.7",
        "shop_project~tenant.7",
        "Shop.project~tenant.7",
        "shop.tag",
    ):
        closing.opened("default", channel)
    revoke(target=Project)
    relay()
    assert sorted(logged("close")) == [
        "shop.project",
        "shop.project~as.refresh",
        "shop.project~region.north~as.refresh",
        scoped,
    ]


def test_without_the_log_scopes_are_ended_by_their_names(published):
    revoke(target=Project)
    revoke(target=channel_for(Project, "tenant", 7))
    assert closes(published) == [
        "shop.project",
        "shop.project~as.refresh",
        "shop.project~tenant.7",
    ]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_row_of_another_alias_ends_there(published):
    with suppress():
        tag = Tag.objects.using("other").create(name="a")
    revoke(target=tag)
    assert closes(published) == [f"shop.tag.{tag.pk}~on.other"]


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, "got neither"),
        ({"user": User(username="new")}, ValueError, "stored"),
        ({"user": AnonymousUser()}, ValueError, "stored"),
        ({"user": 7}, ValueError, "stored"),
        ({"target": Tag()}, ValueError, "not stored"),
        ({"target": Customer}, ImproperlyConfigured, "@realtime"),
        ({"target": Customer(pk=1)}, ImproperlyConfigured, "@realtime"),
        ({"target": 7}, TypeError, "a model or a row of one; got 7"),
        ({"target": Tag.objects}, TypeError, "a model or a row of one"),
        ({"target": ""}, ValueError, "empty"),
        ({"target": "a,b"}, ValueError, "','"),
    ],
)
def test_a_programmers_mistake_raises_at_once(published, arguments, error, text):
    with pytest.raises(error, match=text):
        revoke(**arguments)
    if "target" in arguments:
        with pytest.raises(error, match=text):
            reset(**arguments)
    assert published == []


# Reset.


def event(item):
    name, _, data = item.formats["http-stream"]["content"].partition("\ndata: ")
    return name, json.loads(data)


def test_clients_are_told_to_fetch_anew(published, tag):
    reset(tag)
    name, said = event(published[0])
    assert name == "event: reset"
    assert (said["op"], said["reason"]) == ("reset", "asked")
    assert said["channel"] == f"shop.tag.{tag.pk}"
    assert len(published) == 1


def test_a_reset_has_its_place_in_the_log(published, log, tag):
    closing.opened("default", "shop.shipment~tenant.7")
    reset(Shipment)
    reset("room")
    relay()
    assert logged("reset") == ["shop.shipment", "shop.shipment~tenant.7", "room"]
    assert [item.channel for item in published] == logged("reset")
    text = json.loads(LoggedEvent.objects.get(seq=3).text)
    assert (text["seq"], text["prev"], text["reason"]) == (3, 0, "asked")


def test_both_have_async_twins(published, ann, tag):
    async_to_sync(arevoke)(user=ann)
    async_to_sync(arevoke)(target=tag)
    async_to_sync(areset)(Order)
    assert [item.channel for item in published] == [
        f"~user.{ann.pk}",
        f"shop.tag.{tag.pk}",
        "shop.order",
    ]
