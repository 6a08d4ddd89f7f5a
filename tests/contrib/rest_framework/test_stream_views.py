import json

import pytest
from django.core.exceptions import ImproperlyConfigured
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import viewsets
from rest_framework.filters import OrderingFilter, SearchFilter
from rest_framework.test import APIRequestFactory
from rest_framework.throttling import SimpleRateThrottle

from django_grip import GripMiddleware
from django_grip.contrib.rest_framework import StreamModelMixin
from tests.shop import models, serializers, views

pytestmark = pytest.mark.django_db

SSE = {"HTTP_ACCEPT": "text/event-stream"}


def stream(view_class, grip_sig, pk=None, method="get", **headers):
    """Ask a viewset for a stream as the router would, below the middleware."""
    name = "stream_collection" if pk is None else "stream_object"
    view = view_class.as_view({"get": name})
    request = getattr(APIRequestFactory(), method)(
        "/x/stream/", HTTP_GRIP_SIG=grip_sig, **SSE, **headers
    )
    kwargs = {} if pk is None else {"pk": pk}

    def get_response(request):
        response = view(request, **kwargs)
        return response.render() if response.status_code >= 400 else response

    return GripMiddleware(get_response)(request)


def detail(response):
    return json.loads(response.content)["detail"]


def test_the_collection_is_held_on_its_channel(through_proxy):
    response = through_proxy.get("/orders/stream/", **SSE)
    assert response.status_code == 200
    assert response["Content-Type"] == "text/event-stream"
    assert response["Cache-Control"] == "no-cache, no-transform"
    assert response["X-Accel-Buffering"] == "no"
    assert response["Grip-Hold"] == "stream"
    assert response["Grip-Channel"] == "shop.order"
    assert response["Grip-Keep-Alive"] == ":\\n\\n; format=cstring; timeout=25"
    retry, ready = response.content.decode().split("\n\n", 1)
    assert 1000 <= int(retry.removeprefix("retry: ")) <= 5000
    assert ready == 'event: ready\ndata: {"channel":"shop.order","gapless":false}\n\n'


def test_one_object_is_held_on_its_channel(through_proxy, settings):
    settings.GRIP_PREFIX = "p-"
    order = models.Order.objects.create()
    response = through_proxy.get(f"/orders/{order.pk}/stream/", **SSE)
    assert response["Grip-Channel"] == f"p-shop.order.{order.pk}"


def test_keep_alive_and_retry_are_settings(through_proxy, settings):
    settings.GRIP_REALTIME = {"KEEP_ALIVE": 7, "RETRY": (2, 2)}
    response = through_proxy.get("/orders/stream/")
    assert response["Grip-Keep-Alive"].endswith("timeout=7")
    assert response.content.startswith(b"retry: 2000\n\n")


def test_s20_no_other_origin_is_let_in(through_proxy):
    response = through_proxy.get(
        "/orders/stream/", HTTP_ORIGIN="https://evil.example", HTTP_REFERER="https://x/"
    )
    assert not [name for name in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", "application/json", ""])
def test_any_accept_header_gets_the_event_stream(through_proxy, accept):
    response = through_proxy.get("/orders/stream/", HTTP_ACCEPT=accept)
    assert response["Content-Type"] == "text/event-stream"


def test_other_routes_negotiate_as_before(client):
    assert client.get("/orders/", HTTP_ACCEPT="text/event-stream").status_code == 406
    assert client.get("/orders/", HTTP_ACCEPT="text/html").status_code == 200


def test_head_is_never_held(through_proxy):
    response = through_proxy.head("/orders/stream/")
    assert response.status_code == 200
    assert "Grip-Hold" not in response


def test_streams_are_get_only(through_proxy):
    assert through_proxy.post("/orders/stream/").status_code == 405


def test_a_direct_request_is_501_with_a_reason(client):
    response = client.get("/orders/stream/", **SSE)
    assert response.status_code == 501
    assert "GRIP proxy" in response.json()["detail"]
    assert "Grip-Hold" not in response


@pytest.mark.parametrize("query", ["status=new", "search=x", "page=2", "format=json"])
def test_filter_parameters_are_400(through_proxy, query):
    response = through_proxy.get(f"/orders/stream/?{query}", **SSE)
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json()["detail"]


def test_s25_refusals_are_those_of_get(through_proxy):
    order = models.Order.objects.create()
    for pk, badge, status in [
        (order.pk, "yes", 200),
        (order.pk, "no", 403),
        (999, "yes", 404),
        ("x", "yes", 404),
    ]:
        got = through_proxy.get(f"/guarded/{pk}/", HTTP_X_BADGE=badge)
        streamed = through_proxy.get(
            f"/guarded/{pk}/stream/", HTTP_X_BADGE=badge, **SSE
        )
        assert streamed.status_code == got.status_code == status
        if status != 200:
            assert streamed.content == got.content


def test_an_object_outside_the_views_queryset_is_404(through_proxy):
    hidden = models.Order.objects.create(status="paid")
    assert through_proxy.get(f"/open/{hidden.pk}/stream/").status_code == 404


def test_permissions_throttles_and_serializers_see_list_and_retrieve(grip_sig):
    seen = []

    class Throttle(SimpleRateThrottle):
        rate = "1000/s"

        def get_cache_key(self, request, view):
            seen.append(("throttle", view.action, view.streaming))

    class View(views.OrderViewSet):
        throttle_classes = (Throttle,)

        def get_permissions(self):
            seen.append(("permissions", self.action, self.streaming))
            return super().get_permissions()

        def get_serializer_class(self):
            seen.append(("serializer", self.action, self.streaming))
            return super().get_serializer_class()

    order = models.Order.objects.create()
    assert stream(View, grip_sig).status_code == 200
    assert seen == [
        ("permissions", "list", True),
        ("throttle", "list", True),
        ("serializer", "list", True),
    ]
    seen.clear()
    assert stream(View, grip_sig, order.pk).status_code == 200
    assert {action for _, action, _ in seen} == {"retrieve"}


@pytest.mark.parametrize(
    ("url", "channel"),
    [
        ("/items/stream/", "shop.item~as.public"),
        ("/staff-items/stream/", "shop.item~as.staff"),
    ],
)
def test_s42_a_view_streams_the_audience_of_its_own_serializer(
    through_proxy, url, channel
):
    assert through_proxy.get(url)["Grip-Channel"] == channel


@pytest.mark.parametrize(
    ("queryset", "serializer", "reason"),
    [
        (
            models.Order.objects.all(),
            serializers.OrderAdminSerializer,
            "OrderSerializer",
        ),
        (models.Line.objects.all(), serializers.NarrowLineSerializer, "order, weight"),
        (models.Item.objects.all(), serializers.OrderSerializer, "StaffItemSerializer"),
    ],
)
def test_s40_a_serializer_that_is_not_the_streams_is_403(
    grip_sig, settings, queryset, serializer, reason
):
    settings.DEBUG = True

    class View(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
        pass

    View.queryset, View.serializer_class = queryset, serializer
    response = stream(View, grip_sig)
    assert response.status_code == 403
    assert reason in detail(response)
    assert "Grip-Hold" not in response


def test_stream_audience_declares_another(grip_sig, settings):
    settings.DEBUG = True

    class Declared(views.ItemViewSet):
        stream_audience = "staff"

    class Only(views.OrderViewSet):
        serializer_class = serializers.OrderAdminSerializer
        stream_audience = ""

    class Wrong(views.ItemViewSet):
        stream_audience = "boss"

    assert stream(Declared, grip_sig)["Grip-Channel"] == "shop.item~as.staff"
    assert stream(Only, grip_sig)["Grip-Channel"] == "shop.order"
    assert "'boss'" in detail(stream(Wrong, grip_sig))


def test_thin_streams_fit_every_view(grip_sig):
    class View(views.TagViewSet):
        serializer_class = None

    assert stream(View, grip_sig)["Grip-Channel"] == "shop.tag"


@pytest.mark.parametrize("backend", [SearchFilter, OrderingFilter, DjangoFilterBackend])
def test_filters_that_clients_ask_for_hide_nothing_by_themselves(grip_sig, backend):
    class View(views.OrderViewSet):
        filter_backends = (backend,)

    assert stream(View, grip_sig).status_code == 200


def test_a_model_without_a_stream_is_the_programmers_mistake(grip_sig):
    class View(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
        queryset = models.Customer.objects.all()
        serializer_class = serializers.TagSerializer

    with pytest.raises(ImproperlyConfigured, match="@realtime"):
        stream(View, grip_sig)


def test_options_describes_the_route(client):
    assert client.options("/orders/stream/").status_code == 200
