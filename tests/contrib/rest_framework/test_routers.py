"""Stream routes as every kind of router makes them, and what realtime_explain says."""

import uuid

import pytest
from django.urls import include, path, re_path
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter, SimpleRouter

from django_grip.contrib.rest_framework import StreamModelMixin
from django_grip.contrib.rest_framework.answers import answers
from tests.shop import models, views
from tests.shop.serializers import ParcelSerializer, TagSerializer

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


class TagSlugViewSet(views.TagViewSet):
    """Its objects are looked up by another field."""

    lookup_field = "name"
    lookup_url_kwarg = "slug"


class NumberedViewSet(views.OrderViewSet):
    lookup_value_regex = "[0-9]+"


class GreedyViewSet(views.OrderViewSet):
    """Its lookup takes slashes, so the object's own route takes all below it."""

    lookup_value_regex = ".+"


class ConvertedViewSet(views.OrderViewSet):
    lookup_value_converter = "int"


class ParcelViewSet(StreamModelMixin, viewsets.ModelViewSet):
    queryset = models.Parcel.objects.all()
    serializer_class = ParcelSerializer


class WordSerializer(serializers.ModelSerializer):
    class Meta:
        model = models.Word
        fields = ("text",)


class WordViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    """A primary key may be `stream`."""

    queryset = models.Word.objects.all()
    serializer_class = WordSerializer


class SeatViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    """A composite primary key has no place in a route."""

    queryset = models.Seat.objects.all()
    serializer_class = TagSerializer
    stream_audience = ""


class ListedViewSet(StreamModelMixin, mixins.ListModelMixin, viewsets.GenericViewSet):
    queryset = models.Order.objects.all()
    serializer_class = views.OrderViewSet.serializer_class


class SingleViewSet(
    StreamModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet
):
    """Who knows a pk may see the row; nobody sees which there are."""

    queryset = models.Order.objects.all()
    serializer_class = views.OrderViewSet.serializer_class


class PostedViewSet(StreamModelMixin, mixins.CreateModelMixin, viewsets.GenericViewSet):
    """Rows come in, and never out."""

    queryset = models.Order.objects.all()
    serializer_class = views.OrderViewSet.serializer_class


class WriteOnlyViewSet(views.OrderViewSet):
    http_method_names = ("post",)


class ObjectsViewSet(views.OrderViewSet):
    """It has a list, and no stream of it."""

    stream_collection = None


class ActionViewSet(views.OrderViewSet):
    @action(detail=False)
    def summary(self, request):
        return Response({"action": self.action, "streaming": self.streaming})

    @action(detail=False, methods=["post"])
    def sell_ticket(self, request):
        return Response({"action": self.action, "streaming": self.streaming})


def routed(router, *viewsets):
    for prefix, viewset in viewsets:
        router.register(prefix, viewset, basename=prefix or "root")
    return router.urls


urlpatterns = [
    path(
        "default/",
        include(
            routed(
                DefaultRouter(),
                ("orders", views.OrderViewSet),
                ("words", WordViewSet),
                ("listed", ListedViewSet),
                ("single", SingleViewSet),
                ("posted", PostedViewSet),
                ("write-only", WriteOnlyViewSet),
                ("actions", ActionViewSet),
                ("objects", ObjectsViewSet),
            )
        ),
    ),
    path(
        "simple/",
        include(
            routed(
                SimpleRouter(),
                ("tags", TagSlugViewSet),
                ("orders", NumberedViewSet),
                ("parcels", ParcelViewSet),
                ("seats", SeatViewSet),
                ("greedy", GreedyViewSet),
            )
        ),
    ),
    path(
        "bare/",
        include(
            routed(
                DefaultRouter(trailing_slash=False),
                ("orders", views.OrderViewSet),
                ("tags", TagSlugViewSet),
            )
        ),
    ),
    path(
        "paths/",
        include(
            routed(
                DefaultRouter(use_regex_path=False),
                ("orders", ConvertedViewSet),
                ("tags", TagSlugViewSet),
            )
        ),
    ),
    path(
        "outer/",
        include(
            (
                [
                    path(
                        "",
                        include(
                            (
                                routed(DefaultRouter(), ("orders", views.OrderViewSet)),
                                "shop",
                            ),
                            namespace="inner",
                        ),
                    )
                ],
                "outer",
            ),
        ),
    ),
    path("root/", include(routed(SimpleRouter(), ("", NumberedViewSet)))),
    re_path(
        r"^by-hand/(?P<pk>\d+)/live$",
        views.OrderViewSet.as_view({"get": "stream_object"}, detail=True),
    ),
]


@pytest.fixture
def rows():
    models.Order.objects.create(pk=42)
    models.Tag.objects.create(pk=5, name="new")
    models.Parcel.objects.create(pk=uuid.UUID(int=7))
    models.Word.objects.create(pk="stream")


STREAMS = [
    ("/default/orders/stream/", "shop.order"),
    ("/default/orders/42/stream/", "shop.order.42"),
    ("/default/listed/stream/", "shop.order"),
    ("/default/single/42/stream/", "shop.order.42"),
    ("/default/words/stream/", "shop.word"),
    ("/default/words/stream/stream/", "shop.word.stream"),
    ("/simple/orders/42/stream/", "shop.order.42"),
    ("/simple/tags/stream/", "shop.tag"),
    ("/simple/tags/new/stream/", "shop.tag.5"),
    ("/simple/parcels/stream/", "shop.parcel"),
    (
        f"/simple/parcels/{uuid.UUID(int=7)}/stream/",
        "shop.parcel.00000000-0000-0000-0000-000000000007",
    ),
    ("/simple/seats/stream/", "shop.seat"),
    ("/simple/greedy/stream/", "shop.order"),
    ("/bare/orders/stream", "shop.order"),
    ("/bare/orders/42/stream", "shop.order.42"),
    ("/bare/tags/new/stream", "shop.tag.5"),
    ("/paths/orders/stream/", "shop.order"),
    ("/paths/orders/42/stream/", "shop.order.42"),
    ("/paths/tags/new/stream/", "shop.tag.5"),
    ("/outer/orders/stream/", "shop.order"),
    ("/outer/orders/42/stream/", "shop.order.42"),
    ("/root/stream/", "shop.order"),
    ("/root/42/stream/", "shop.order.42"),
    ("/by-hand/42/live", "shop.order.42"),
]


@pytest.mark.parametrize(("url", "channel"), STREAMS)
def test_every_router_makes_the_streams(through_proxy, rows, url, channel):
    response = through_proxy.get(url)
    assert response.status_code == 200, response.content
    assert response["Grip-Channel"].split(";")[0] == channel


@pytest.mark.parametrize(
    "url",
    [
        "/default/orders/stream",
        "/bare/orders/stream/",
        "/default/orders/stream.json",
        "/default/orders/stream.api/",
        "/default/orders/42/stream.json",
        "/bare/orders/stream.json",
        "/paths/orders/stream.json/",
        "/default/words/new/stream/",
        "/simple/orders/x/stream/",
        "/simple/parcels/7/stream/",
        "/simple/seats/1/stream/",
        # A lookup that takes slashes: this is the object `42/stream`.
        "/simple/greedy/42/stream/",
    ],
)
def test_what_is_no_stream_is_404(through_proxy, rows, url):
    response = through_proxy.get(url)
    assert response.status_code == 404
    assert "Grip-Hold" not in response


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/default/single/stream/", 404),
        ("/default/listed/42/stream/", 404),
        ("/default/posted/stream/", 404),
        ("/default/posted/42/stream/", 404),
        ("/default/objects/stream/", 404),
        ("/default/write-only/stream/", 405),
        ("/default/write-only/42/stream/", 405),
    ],
)
def test_what_nobody_may_get_nobody_may_stream(through_proxy, rows, url, status):
    response = through_proxy.get(url)
    assert response.status_code == status
    assert "Grip-Hold" not in response
    if status == 404:
        # `stream` may be a pk, whose stream could have a ticket.
        assert through_proxy.post(f"{url}ticket/").status_code == 404


def test_a_ticket_is_given_where_there_is_a_stream(through_proxy, rows):
    for url in ("/default/orders/stream/", "/default/objects/42/stream/"):
        given = through_proxy.post(f"{url}ticket/")
        assert given.status_code == 200, given.content
        opened = through_proxy.get(url, {"ticket": given.json()["ticket"]})
        assert "Grip-Hold" in opened


def test_the_collections_stream_hides_an_object_of_that_name(client, rows):
    response = client.get("/default/words/stream/", HTTP_ACCEPT="application/json")
    assert response.status_code == 501  # And not the word.


def test_options_describes_a_stream_and_is_not_held(through_proxy, rows):
    for url in ("/default/orders/stream/", "/default/orders/42/stream/"):
        response = through_proxy.options(url)
        assert response.status_code == 200
        assert response["Content-Type"] == "application/json"
        assert response["Allow"].startswith("GET")
        assert "Grip-Hold" not in response


def test_other_actions_stay_what_they_are(client):
    answer = {"action": "summary", "streaming": False}
    assert client.get("/default/actions/summary/").json() == answer
    answer["action"] = "sell_ticket"
    assert client.post("/default/actions/sell_ticket/").json() == answer


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            lambda: models.Order.objects.get(pk=42),
            {
                "/default/orders/stream/": "shop.order",
                "/default/orders/42/stream/": "shop.order.42",
                "/default/listed/stream/": "shop.order",
                "/default/single/42/stream/": "shop.order.42",
                "/default/write-only/stream/": None,
                "/default/write-only/42/stream/": None,
                "/default/actions/stream/": "shop.order",
                "/default/actions/42/stream/": "shop.order.42",
                "/default/objects/42/stream/": "shop.order.42",
                "/simple/orders/stream/": "shop.order",
                "/simple/orders/42/stream/": "shop.order.42",
                "/simple/greedy/stream/": "shop.order",
                "/simple/greedy/42/stream/": None,
                "/bare/orders/stream": "shop.order",
                "/bare/orders/42/stream": "shop.order.42",
                "/paths/orders/stream/": "shop.order",
                "/paths/orders/42/stream/": "shop.order.42",
                "/outer/orders/stream/": "shop.order",
                "/outer/orders/42/stream/": "shop.order.42",
                "/root/stream/": "shop.order",
                "/root/42/stream/": "shop.order.42",
                "/by-hand/42/live": "shop.order.42",
            },
        ),
        (
            lambda: models.Tag.objects.get(name="new"),
            {
                "/simple/tags/stream/": "shop.tag",
                "/simple/tags/new/stream/": "shop.tag.5",
                "/bare/tags/stream": "shop.tag",
                "/bare/tags/new/stream": "shop.tag.5",
                "/paths/tags/stream/": "shop.tag",
                "/paths/tags/new/stream/": "shop.tag.5",
            },
        ),
    ],
)
def test_explain_names_the_urls_as_clients_know_them(rows, row, told):
    found = {answer.url: answer for answer in answers(row(), None)}
    assert {url: answer.channel for url, answer in found.items()} == told


def test_explain_says_which_route_answers_instead(rows):
    order = models.Order.objects.get(pk=42)
    found = {answer.url: answer for answer in answers(order, None)}
    assert "another route" in found["/simple/greedy/42/stream/"].reason
    assert "405" in found["/default/write-only/42/stream/"].reason


def test_explain_encodes_a_value_as_a_url_does(rows):
    tag = models.Tag.objects.create(pk=6, name="für alle?")
    found = {answer.url: answer for answer in answers(tag, None)}
    assert found["/bare/tags/f%C3%BCr%20alle%3F/stream"].channel == "shop.tag.6"
    slashed = models.Tag.objects.create(pk=7, name="a/b")
    assert {answer.channel for answer in answers(slashed, None)} == {"shop.tag", None}
