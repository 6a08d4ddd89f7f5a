"""Snapshots, and the position that a GET carries: rows first, and nothing missed."""

import json

import pytest
from django.contrib.auth.models import User
from rest_framework import serializers as drf
from rest_framework import viewsets
from rest_framework.pagination import PageNumberPagination
from rest_framework.test import APIRequestFactory

from django_grip.contrib.realtime import durable
from django_grip.contrib.rest_framework import StreamModelMixin
from tests.contrib.eventlog.history_fixtures import (
    Reads,
    at,
    frames,
    last_seq,
    nothing_published,  # noqa: F401
    published_until,
    relay,
)
from tests.contrib.rest_framework.projects import (
    OwnProjects,
    ProjectViewSet,
)
from tests.contrib.rest_framework.test_scopes_of_views import refusal, stream
from tests.shop import models, serializers, views
from tests.shop.models import Order, Project, Tag, Tenant

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.urls("tests.contrib.rest_framework.projects"),
]

ANN = {"HTTP_X_USER": "ann"}


@pytest.fixture
def tenant():
    """Ann's."""
    tenant = Tenant.objects.create(name="ann's")
    tenant.members.add(User.objects.create(username="ann"))
    return tenant


def projects(tenant, *names):
    return [Project.objects.create(tenant=tenant, name=name) for name in names]


def rows(response):
    """The rows of the snapshot; they end with `done`, and `ready` stands before."""
    found = frames(response)
    assert found.names[0] == "ready"
    parts = [data for name, _, data in found.events if name == "snapshot"]
    assert [part["done"] for part in parts] == [False] * (len(parts) - 1) + [True]
    assert {part["channel"] for part in parts} == {found.data("ready")["channel"]}
    return [row for part in parts for row in part["rows"]]


# What a stream begins with.


def test_a_snapshot_has_the_rows_of_the_list_of_this_caller(through_proxy, tenant):
    projects(tenant, "one", "two")
    projects(Tenant.objects.create(name="another's"), "hidden")
    response = through_proxy.get("/projects/stream/?snapshot=1", **ANN)
    assert rows(response) == through_proxy.get("/projects/", **ANN).json()
    assert [row["name"] for row in rows(response)] == ["one", "two"]
    assert response["Grip-Channel"] == f"shop.project~tenant.{tenant.pk}"


def test_a_snapshot_of_an_object_is_its_row(through_proxy, tenant):
    project, _ = projects(tenant, "one", "two")
    path = f"/projects/{project.pk}/"
    response = through_proxy.get(f"{path}stream/?snapshot=1", **ANN)
    assert rows(response) == [through_proxy.get(path, **ANN).json()]


def test_a_view_may_have_one_always_and_a_client_do_without(through_proxy):
    Project.objects.create(name="open", is_public=True)
    Project.objects.create(name="secret")
    response = through_proxy.get("/public/stream/")
    assert [row["name"] for row in rows(response)] == ["open"]
    for no in ("0", "false"):
        response = through_proxy.get(f"/public/stream/?snapshot={no}")
        assert frames(response).names == ["ready"]


def test_without_asking_there_is_none(through_proxy, tenant):
    projects(tenant, "one")
    assert frames(through_proxy.get("/projects/stream/", **ANN)).names == ["ready"]


@pytest.mark.parametrize("value", ["", "2", "yes", "x" * 5_000])
def test_another_value_of_the_parameter_is_400(through_proxy, tenant, value):
    response = through_proxy.get(f"/projects/stream/?snapshot={value}", **ANN)
    assert response.status_code == 400
    assert "snapshot=1 or snapshot=0" in response.json()["detail"]
    assert len(response.content) < 200


def test_a_view_without_rows_begins_with_none(through_proxy, tenant):
    assert rows(through_proxy.get("/projects/stream/?snapshot=1", **ANN)) == []


class TimedSerializer(drf.ModelSerializer):
    url = drf.SerializerMethodField()
    moment = drf.ReadOnlyField(source="placed_at")

    class Meta:
        model = Order
        fields = ("id", "total", "placed_at", "url", "moment")

    def get_url(self, order):
        return self.context["request"].build_absolute_uri(f"/orders/{order.pk}/")


class TimedViewSet(views.OrderViewSet):
    serializer_class = TimedSerializer
    stream_audience = ""


def test_rows_are_written_as_get_writes_them(grip_sig):
    Order.objects.create(total="1.50")
    response = stream(TimedViewSet, grip_sig, "/x/stream/?snapshot=1")
    [row] = rows(response)
    listing = TimedViewSet.as_view({"get": "list"})
    listed = listing(APIRequestFactory().get("/x/")).render()
    assert [row] == json.loads(listed.content)
    # Microseconds and all: Django's own encoder would leave them out.
    assert len(row["moment"]) == len("2026-11-21T12:00:00.123456Z")
    assert row["url"] == f"http://testserver/orders/{row['id']}/"


def test_a_paginated_list_is_sent_whole(grip_sig):
    class Pagination(PageNumberPagination):
        page_size = 2

    class View(views.OrderViewSet):
        pagination_class = Pagination

    for _ in range(5):
        Order.objects.create()
    assert len(rows(stream(View, grip_sig, "/x/stream/?snapshot=1"))) == 5


def test_a_snapshot_comes_in_parts_that_a_websocket_carries(grip_sig):
    Tag.objects.bulk_create(Tag(name="ü" * 50) for _ in range(500))
    response = stream(views.TagViewSet, grip_sig, "/x/stream/?snapshot=1")
    parts = [data for name, _, data in frames(response).events if name == "snapshot"]
    assert len(parts) > 1
    assert len(rows(response)) == 500


# Its bounds.


def limited(limit):
    class View(views.OrderViewSet):
        stream_snapshot_limit = limit

    return View


@pytest.mark.parametrize(("limit", "status"), [(3, 200), (2, 413)])
def test_a_list_that_is_too_long_is_413_and_says_what_to_do(grip_sig, limit, status):
    for _ in range(3):
        Order.objects.create()
    response = stream(limited(limit), grip_sig, "/x/stream/?snapshot=1")
    assert response.status_code == status
    if status == 413:
        assert "Grip-Hold" not in response
        assert "at most 2 rows" in json.loads(response.content)["detail"]
        assert "Realtime-Position" in json.loads(response.content)["detail"]


def test_no_more_rows_are_read_than_the_limit_says(grip_sig):
    for _ in range(5):
        Order.objects.create()
    with Reads() as reads:
        assert stream(limited(2), grip_sig, "/x/stream/?snapshot=1").status_code == 413
    [(sql, _)] = [each for each in reads.statements if "shop_order" in each[0]]
    assert sql.endswith("LIMIT 3")


def test_who_resumes_gets_what_was_missed_and_no_snapshot(through_proxy, tenant, log):
    projects(tenant, "one")
    relay()
    path = "/projects/stream/?snapshot=1"
    since = frames(through_proxy.get(path, **ANN)).last_id
    projects(tenant, "two")
    relay()
    found = frames(through_proxy.get(path, HTTP_LAST_EVENT_ID=since, **ANN))
    assert found.names == ["ready", "create"]
    found = frames(through_proxy.get(path, HTTP_LAST_EVENT_ID="x.1", **ANN))
    assert found.names == ["ready", "reset", "snapshot"]


def test_a_stream_of_refreshes_has_none(through_proxy, tenant):
    response = through_proxy.get("/refreshed/stream/?snapshot=1", **ANN)
    assert response.status_code == 400
    assert "GET the rows" in response.json()["detail"]
    response = through_proxy.get("/refreshed/stream/?snapshot=0", **ANN)
    assert response.status_code == 200


class Listed(ProjectViewSet):
    """Its own code decides what its list and its objects show."""

    authentication_classes = ()

    def get_queryset(self):
        return Project.objects.all()

    def get_stream_scope(self):
        return 7

    def list(self, request):
        self.queryset = Project.objects.none()
        return super().list(request)

    def retrieve(self, request, pk):
        return super().retrieve(request, pk)


@pytest.mark.parametrize("of_object", [False, True])
def test_s40_nobody_knows_what_an_overridden_list_hides_so_no_rows_are_sent(
    grip_sig, settings, of_object
):
    project = Project.objects.create(tenant=None, name="hidden")
    pk = project.pk if of_object else None
    assert stream(Listed, grip_sig, pk=pk).status_code == 200
    response = stream(Listed, grip_sig, "/x/stream/?snapshot=1", pk=pk)
    assert refusal(response) == "This cannot be streamed."
    assert b"hidden" not in response.content
    settings.DEBUG = True
    response = stream(Listed, grip_sig, "/x/stream/?snapshot=1", pk=pk)
    what = "retrieve" if of_object else "list"
    assert f"Listed overrides {what}(), which may hide" in refusal(response)


# A write between.


def test_what_is_written_between_the_position_and_the_rows_comes_in_the_stream(
    grip_sig, log
):
    """The rows have it already: it comes twice at worst."""

    class View(views.OrderViewSet):
        stream_all_rows = True
        written = ()

        def filter_queryset(self, queryset):
            if not self.written:
                type(self).written = [Order.objects.create(status="between").pk]
                relay()
            return super().filter_queryset(queryset)

    Order.objects.create(status="before")
    relay()
    position = at(last_seq() - 1)
    response = stream(View, grip_sig, "/x/stream/?snapshot=1")
    assert frames(response).last_id == position
    assert [row["status"] for row in rows(response)] == ["before", "between"]
    missed = frames(stream(View, grip_sig, f"/x/stream/?since={position}"))
    [(name, id, event)] = missed.events[1:]
    assert (name, event["pk"], event["data"]["status"]) == (
        "create",
        View.written[0],
        "between",
    )
    # From there on nothing is left.
    assert frames(stream(View, grip_sig, f"/x/stream/?since={id}")).names == ["ready"]


def test_the_row_of_an_object_is_read_after_its_position(grip_sig, log):
    order = Order.objects.create(status="before")
    relay()

    class View(views.OrderViewSet):
        def get_object(self):
            # Between the authorisation and the position.
            row = super().get_object()
            if row.status == "before":
                Order.objects.filter(pk=row.pk).update(status="past us")
            return row

    response = stream(View, grip_sig, "/x/stream/?snapshot=1", pk=order.pk)
    assert [row["status"] for row in rows(response)] == ["past us"]


# The position of a GET.


def position(response):
    assert response.status_code == 200, response.content
    return response.headers.get("Realtime-Position")


def test_a_get_says_where_a_stream_of_its_rows_goes_on(through_proxy, tenant, log):
    project, _ = projects(tenant, "one", "two")
    relay()
    for path in ("/projects/", f"/projects/{project.pk}/"):
        since = position(through_proxy.get(path, **ANN))
        assert since == at(last_seq())
        opened = frames(through_proxy.get(f"{path}stream/?since={since}", **ANN))
        assert opened.names == ["ready"]
        Project.objects.filter(pk=project.pk).first().save()
        relay()
        opened = frames(through_proxy.get(f"{path}stream/?since={since}", **ANN))
        assert opened.names == ["ready", "update"]


def test_direct_requests_and_head_get_it_too(client, tenant, log):
    projects(tenant, "one")
    relay()
    assert position(client.get("/projects/", **ANN)) == at(last_seq())
    assert position(client.head("/projects/", **ANN)) == at(last_seq())


def test_it_is_not_ahead_of_what_was_published(client, tenant, log):
    projects(tenant, "one", "two", "three")
    relay()
    published_until(2)
    assert position(client.get("/projects/", **ANN)) == at(2)


def test_an_object_found_by_another_field_has_it_too(log):
    class View(views.TagViewSet):
        lookup_field = "name"

    Tag.objects.create(name="red")
    relay()
    request = APIRequestFactory().get("/x/")
    response = View.as_view({"get": "retrieve"})(request, name="red")
    assert position(response) == at(last_seq())


def test_a_write_after_the_position_and_before_the_rows_is_not_lost(grip_sig, log):
    """The header is read before the rows: a stream from there tells of it again."""
    written = []

    class View(views.OrderViewSet):
        stream_all_rows = True

        def filter_queryset(self, queryset):
            if not written:
                written.append(Order.objects.create(status="between"))
                relay()
            return queryset

    Order.objects.create(status="before")
    relay()
    request = APIRequestFactory().get("/x/")
    response = View.as_view({"get": "list"})(request)
    assert [row["status"] for row in response.data] == ["before", "between"]
    path = f"/x/stream/?since={position(response)}"
    missed = frames(stream(View, grip_sig, path))
    assert missed.names == ["ready", "create"]
    assert missed.data("create")["pk"] == written[0].pk


def test_it_costs_two_queries_and_none_without_the_log(
    client, tenant, log, monkeypatch
):
    projects(tenant, "one")
    relay()
    client.get("/projects/", **ANN)
    with Reads() as with_log:
        assert position(client.get("/projects/", **ANN))
    monkeypatch.setattr(durable, "log", None)
    with Reads() as without:
        assert position(client.get("/projects/", **ANN)) is None
    assert len(with_log) - len(without) == 2


def test_a_get_that_may_not_stream_answers_as_before(log):
    class Where(views.OrderViewSet):
        queryset = Order.objects.filter(status="new")

    class Unfitting(views.OrderViewSet):
        serializer_class = serializers.OrderAdminSerializer

    class Unregistered(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
        queryset = models.Customer.objects.all()
        serializer_class = serializers.TagSerializer

    class Unscoped(OwnProjects):
        stream_scope = "owner"

    class NotRefreshed(views.OrderViewSet):
        stream_mode = "refresh"

    for view in (Where, Unfitting, Unregistered, Unscoped, NotRefreshed):
        response = view.as_view({"get": "list"})(APIRequestFactory().get("/x/"))
        assert position(response) is None


def test_refusals_writes_and_streams_carry_none(through_proxy, tenant, log):
    answers = [
        through_proxy.get("/projects/999/", **ANN),
        through_proxy.post("/projects/", {"name": "new"}, **ANN),
        through_proxy.options("/projects/", **ANN),
        through_proxy.get("/projects/stream/", **ANN),
    ]
    assert [answer.status_code for answer in answers] == [404, 201, 200, 200]
    assert not any("Realtime-Position" in answer for answer in answers)
