"""Refresh: clients are told that there is something new, and nothing of what it is."""

import json
import re

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import transaction

from django_grip.contrib.eventlog import records
from django_grip.contrib.eventlog.models import LoggedEvent
from django_grip.contrib.realtime import (
    channel_for,
    publish_changes,
    publish_event,
    realtime,
)
from django_grip.contrib.realtime.streams import ModelStream, registry
from django_grip.contrib.realtime.test import assert_published, capture_events
from tests.contrib.eventlog.history_fixtures import (
    at,
    frames,
    last_seq,
    nothing_published,  # noqa: F401
    relay,
)
from tests.contrib.rest_framework.test_scopes_of_views import SHORT, refusal, stream
from tests.shop import serializers, views
from tests.shop.models import Customer, Item, Order, Project, Shipment, Tenant
from tests.shop.reading import configurator, events, told

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.urls("tests.contrib.rest_framework.projects"),
]

ANN = {"HTTP_X_USER": "ann"}


@pytest.fixture
def tenant():
    """Ann's."""
    tenant = Tenant.objects.create(name="ann's")
    tenant.members.add(User.objects.create(username="ann"))
    return tenant


@pytest.fixture
def configure():
    with configurator() as configure:
        yield configure


def refreshes(published):
    """The channels that were told of news, and closed, in order."""
    return [line for line in told(published) if "~as.refresh" in line]


# What is published.


def test_a_change_is_told_without_content_on_channels_of_its_own(published, tenant):
    project = Project.objects.create(tenant=tenant, name="n4711", region="south")
    told_events = [e for e in events(published) if e["op"] == "refresh"]
    assert [event["channel"] for event in told_events] == [
        "shop.project~as.refresh",
        f"shop.project.{project.pk}~as.refresh",
        "shop.project~region.south~as.refresh",
        f"shop.project~tenant.{tenant.pk}~as.refresh",
    ]
    for event in told_events:
        assert event.keys() == {"id", "channel", "op", "ts"}
        assert re.fullmatch(r"[0-9a-f]{32}", event["id"])
    assert len({event["id"] for event in told_events}) == 4
    # The events with content go where they went.
    assert "create shop.project" in told(published)


def test_s42_nothing_of_the_row_is_in_a_refresh(published, tenant):
    project = Project.objects.create(tenant=tenant, name="n4711")
    project.name = "n4712"
    project.save(update_fields=["name"])
    text = json.dumps([e for e in events(published) if e["op"] == "refresh"])
    for secret in ("n4711", "n4712", "name", "pk", "data", "changed", "model"):
        assert f'"{secret}' not in text


def test_with_the_log_a_refresh_has_its_place_in_the_order(tenant, log):
    project = Project.objects.create(tenant=tenant, name="one")
    project.save()
    relay()
    kept = LoggedEvent.objects.filter(channel="shop.project~as.refresh")
    envelopes = [json.loads(text) for text in kept.values_list("text", flat=True)]
    assert [envelope.keys() for envelope in envelopes] == [
        {"id", "channel", "op", "seq", "prev", "ts"}
    ] * 2
    assert envelopes[1]["prev"] == envelopes[0]["seq"]


def write_much(tenant, first):
    """One transaction of many changes; what becomes of it is on these channels."""
    with transaction.atomic():
        for name in ("a", "b", "c"):
            Project.objects.create(tenant=tenant, name=name)
        first.save()
        Project.objects.filter(tenant=tenant).update(name="d")
        publish_changes(Project.objects.all())
    own = [f"shop.project.{p.pk}~as.refresh" for p in Project.objects.order_by("pk")]
    return {
        *own,
        "shop.project~as.refresh",
        "shop.project~region.north~as.refresh",
        f"shop.project~tenant.{tenant.pk}~as.refresh",
    }


def test_what_one_transaction_does_is_one_refresh_on_each_channel(published, tenant):
    first = Project.objects.create(tenant=tenant, name="first")
    published.clear()
    channels = write_much(tenant, first)
    assert sorted(refreshes(published)) == sorted(f"refresh {c}" for c in channels)


def test_with_the_log_it_is_one_as_well(tenant, log):
    first = Project.objects.create(tenant=tenant, name="first")
    relay()
    before = last_seq()
    channels = write_much(tenant, first)
    relay()
    logged = LoggedEvent.objects.filter(seq__gt=before, op="refresh")
    assert sorted(logged.values_list("channel", flat=True)) == sorted(channels)


def test_another_transaction_is_another_refresh(published, tenant):
    project = Project.objects.create(tenant=tenant)
    published.clear()
    project.save()
    project.save()
    channels = [line for line in refreshes(published) if "project~as" in line]
    assert channels == ["refresh shop.project~as.refresh"] * 2


def test_many_rows_at_once_are_one_refresh(published, tenant, configure):
    configure(Project, bulk_limit=5)
    Project.objects.bulk_create(Project(tenant=tenant) for _ in range(20))
    assert refreshes(published) == [
        "refresh shop.project~as.refresh",
        "refresh shop.project~region.north~as.refresh",
        f"refresh shop.project~tenant.{tenant.pk}~as.refresh",
    ]
    published.clear()
    Project.objects.update(name="x")
    assert len(refreshes(published)) == 3 + 20


def test_a_row_that_leaves_a_scope_is_news_there_and_its_clients_are_asked_again(
    published, tenant
):
    project = Project.objects.create(tenant=tenant)
    other = Tenant.objects.create()
    published.clear()
    project.tenant = other
    project.save()
    assert sorted(refreshes(published)) == sorted(
        [
            "refresh shop.project~as.refresh",
            f"refresh shop.project.{project.pk}~as.refresh",
            f"close shop.project.{project.pk}~as.refresh",
            "refresh shop.project~region.north~as.refresh",
            f"refresh shop.project~tenant.{tenant.pk}~as.refresh",
            f"refresh shop.project~tenant.{other.pk}~as.refresh",
        ]
    )


def test_what_is_not_told_is_no_news(published, configure):
    configure(Project, watch=("name",), events=("update", "delete"))
    project = Project.objects.create(name="one")
    assert refreshes(published) == []
    project.save()
    assert refreshes(published) == []
    project.name = "two"
    project.save()
    assert len(refreshes(published)) == 3


def test_a_stream_without_the_option_tells_none(published):
    Order.objects.create()
    assert refreshes(published) == []


def test_a_thin_stream_may_have_refreshes_and_costs_no_more(
    published, configure, django_assert_num_queries
):
    configure(Shipment, fields=None, refresh=True)
    # The transaction's begin and end, and the insert.
    with django_assert_num_queries(3):
        shipment = Shipment.objects.create()
    assert refreshes(published) == [
        "refresh shop.shipment~as.refresh",
        f"refresh shop.shipment.{shipment.pk}~as.refresh",
    ]


def test_audiences_and_refreshes_go_together(published, configure):
    configure(Item, refresh=True)
    Item.objects.create(pk=1, name="vase")
    assert told(published) == [
        f"{op} shop.item{pk}~as.{audience}"
        for audience, op in [
            ("public", "create"),
            ("staff", "create"),
            ("refresh", "refresh"),
        ]
        for pk in ("", ".1")
    ]


def test_an_event_of_your_own_is_news_too_and_its_content_is_not(published):
    project = Project.objects.create(name="one")
    published.clear()
    publish_event(project, "shipped", {"by": "n4711"})
    found = {event["channel"]: event for event in events(published)}
    assert found["shop.project"]["data"] == {"by": "n4711"}
    for channel in ("shop.project", f"shop.project.{project.pk}"):
        refresh = found[f"{channel}~as.refresh"]
        assert refresh.keys() == {"id", "channel", "op", "ts"}
    published.clear()
    publish_event(Project, "refresh", {"kept": True})
    publish_event(Project, "refresh", {"kept": True})
    assert told(published).count("refresh shop.project") == 2


def test_a_record_of_the_log_keeps_that_refreshes_are_told():
    topic = registry.get(Project).topic("default")
    assert topic.refresh
    assert records._load_topic(json.loads(json.dumps(records._topic(topic)))) == topic
    old = {"label": "shop.order", "audiences": [None], "events": ["create"]}
    assert records._load_topic(old).refresh is False


def test_channel_for_and_the_helpers_of_tests_know_the_audience():
    assert channel_for(Project, audience="refresh") == "shop.project~as.refresh"
    place = channel_for(Project, "tenant", 7, audience="refresh")
    assert place == "shop.project~tenant.7~as.refresh"
    with pytest.raises(ValueError, match="no audiences"):
        channel_for(Order, audience="refresh")
    with capture_events():
        Project.objects.create(name="one")
    assert assert_published(Project, "refresh").channel == "shop.project~as.refresh"


# The option.


def test_the_decorator_takes_the_option(monkeypatch):
    monkeypatch.setattr(registry, "_streams", dict(registry._streams))
    monkeypatch.setattr(registry, "_listener", None)
    realtime(refresh=True)(Customer)
    assert registry.get(Customer).told_audiences == (None, "refresh")
    assert registry.get(Order).told_audiences == (None,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"audiences": {"refresh": serializers.ItemSerializer}},
            "set refresh = True for these, or choose another name",
        ),
        ({"refresh": "yes"}, "refresh of .* is True or False; got 'yes'"),
    ],
)
def test_the_audience_of_refreshes_is_reserved(options, message):
    with pytest.raises(ImproperlyConfigured, match=message):
        type("Stream", (ModelStream,), options)(Customer)


def test_realtime_list_shows_it(capsys):
    call_command("realtime_list")
    text = re.sub(" +", " ", capsys.readouterr().out)
    project = text[text.index("shop.project\n") :]
    assert '\n refresh without content, for stream_mode = "refresh"\n' in project
    assert "\n channel shop.project~as.refresh\n" in project
    assert "\n channel shop.project~tenant.VALUE~as.refresh\n" in project
    assert "refresh" not in text[: text.index("shop.project\n")]


def test_realtime_explain_shows_it_and_which_urls_hold_it(capsys, tenant):
    project = Project.objects.create(tenant=tenant)
    call_command("realtime_explain", "shop.Project", str(project.pk), "--user", "ann")
    text = re.sub(" +", " ", capsys.readouterr().out)
    assert re.search(r" refresh shop\.project~as\.refresh \d+ bytes", text)
    assert "\n shop.project~as.refresh /refreshed/stream/\n" in text
    held = f"shop.project.{project.pk}~as.refresh"
    assert f"{held} /refreshed/{project.pk}/stream/" in text


# Views.


def test_a_view_in_refresh_mode_holds_the_channels_of_refreshes(through_proxy, tenant):
    project = Project.objects.create(tenant=tenant)
    for path, channel in [
        ("/refreshed/", "shop.project~as.refresh"),
        (f"/refreshed/{project.pk}/", f"shop.project.{project.pk}~as.refresh"),
        ("/tenant-refreshed/", f"shop.project~tenant.{tenant.pk}~as.refresh"),
    ]:
        response = through_proxy.get(f"{path}stream/", **ANN)
        assert response["Grip-Channel"] == channel
    other = Project.objects.create(tenant=None)
    path = f"/refreshed/{other.pk}/stream/"
    assert through_proxy.get(path, **ANN).status_code == 404


def test_it_needs_no_serializer_that_fits(grip_sig):
    class View(views.OrderViewSet):
        queryset = Project.objects.all()
        serializer_class = serializers.OrderAdminSerializer
        stream_mode = "refresh"

        def get_serializer_class(self):
            raise AssertionError("nothing is shown")

    assert stream(View, grip_sig)["Grip-Channel"] == "shop.project~as.refresh"


def test_what_was_missed_is_news_too(through_proxy, tenant, log):
    project = Project.objects.create(tenant=tenant)
    relay()
    since = frames(through_proxy.get("/refreshed/stream/", **ANN)).last_id
    project.name = "n4711"
    project.save()
    relay()
    response = through_proxy.get("/refreshed/stream/", HTTP_LAST_EVENT_ID=since, **ANN)
    found = frames(response)
    assert found.names == ["ready", "refresh"]
    assert found.ids[1] == at(found.data("refresh")["seq"])
    assert b"n4711" not in response.content


def test_a_stream_without_refreshes_refuses_the_mode_and_names_the_cure(
    grip_sig, settings
):
    class View(views.OrderViewSet):
        stream_mode = "refresh"

    assert refusal(stream(View, grip_sig)) == SHORT
    settings.DEBUG = True
    assert "@realtime(refresh=True)" in refusal(stream(View, grip_sig))
    order = Order.objects.create()
    assert "@realtime(refresh=True)" in refusal(stream(View, grip_sig, pk=order.pk))


def test_an_unknown_mode_is_refused(grip_sig, settings):
    class View(views.OrderViewSet):
        stream_mode = "refreshed"

    assert refusal(stream(View, grip_sig)) == SHORT
    settings.DEBUG = True
    assert "expected one of 'events', 'refresh'" in refusal(stream(View, grip_sig))
