"""A stream is one request for the throttles of its view, when it is opened."""

import re

import pytest
from django.urls import include, path
from rest_framework import viewsets
from rest_framework.routers import DefaultRouter
from rest_framework.throttling import AnonRateThrottle, ScopedRateThrottle

from django_grip.contrib.rest_framework import StreamModelMixin
from tests.contrib.rest_framework.drf_page import shown
from tests.shop import models
from tests.shop.serializers import OrderSerializer

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


class TwoADay(AnonRateThrottle):
    rate = "2/day"
    scope = "all"


class TwoStreamsADay(shown("shop/throttles.py")["StreamThrottle"]):
    rate = "2/day"


class Scoped(ScopedRateThrottle):
    THROTTLE_RATES = {"streams": "2/day", "orders": "3/day"}


class OrderViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = models.Order.objects.order_by("id")
    serializer_class = OrderSerializer
    throttle_classes = (TwoADay,)


class FewStreamsViewSet(OrderViewSet):
    throttle_classes = (TwoStreamsADay,)


class ScopedViewSet(OrderViewSet):
    throttle_classes = (Scoped,)

    @property
    def throttle_scope(self):
        return "streams" if self.streaming else "orders"


router = DefaultRouter()
router.register("orders", OrderViewSet, basename="order")
router.register("few", FewStreamsViewSet, basename="few")
router.register("scoped", ScopedViewSet, basename="scoped")
urlpatterns = [path("", include(router.urls))]


def statuses(client, *urls):
    return [client.get(url).status_code for url in urls]


def test_s51_a_stream_and_a_get_are_counted_alike(through_proxy):
    urls = ["/orders/stream/", "/orders/", "/orders/stream/", "/orders/"]
    assert statuses(through_proxy, *urls) == [200, 200, 429, 429]


def test_s51_a_throttled_stream_says_when_to_come_back(through_proxy):
    statuses(through_proxy, "/orders/", "/orders/")
    response = through_proxy.get("/orders/stream/", HTTP_ACCEPT="text/event-stream")
    assert response.status_code == 429
    assert response["Content-Type"] == "application/json"
    assert 86_300 < int(response["Retry-After"]) <= 86_400
    assert "throttled" in response.json()["detail"]
    assert "Grip-Hold" not in response


@pytest.mark.parametrize("prefix", ["few", "scoped"])
def test_s51_the_streams_alone_can_be_limited(through_proxy, prefix):
    models.Order.objects.create(pk=1)
    urls = [f"/{prefix}/stream/", f"/{prefix}/1/stream/", f"/{prefix}/stream/"]
    assert statuses(through_proxy, *urls) == [200, 200, 429]
    assert statuses(through_proxy, f"/{prefix}/", f"/{prefix}/1/") == [200, 200]


def test_what_the_proxy_asks_for_a_stream_is_not_counted(through_proxy, log):
    opened = through_proxy.get("/orders/stream/")
    position = re.search(r"\nid: (\S+)\n", opened.content.decode())[1]
    link = re.search("<([^>]+)>; rel=next", opened["Grip-Link"])[1]
    last = {"HTTP_GRIP_LAST": f"shop.order; last-id={position}"}
    for _ in range(5):
        response = through_proxy.get(link, **last)
        assert response.status_code == 200
        assert response["Grip-Hold"] == "stream"
    assert statuses(through_proxy, "/orders/stream/", "/orders/") == [200, 429]


def test_a_poll_is_a_request_like_any_other(through_proxy, log):
    urls = ["/orders/stream/?wait=1"] * 3
    assert statuses(through_proxy, *urls) == [200, 200, 429]
