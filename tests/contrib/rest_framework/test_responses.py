"""stream_response(): the same streams from plain views and from generics."""

import re
import sys
import types
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpResponseForbidden
from django.shortcuts import get_object_or_404
from django.test import AsyncClient
from django.urls import path
from rest_framework import generics
from rest_framework.views import APIView

from django_grip.contrib.realtime import publish_event
from django_grip.contrib.rest_framework import (
    StreamModelMixin,
    StreamNegotiation,
    astream_response,
    stream_response,
)
from django_grip.contrib.rest_framework.transports import PARAMETERS
from tests.contrib.eventlog.history_fixtures import at, frames, instruction, relay
from tests.shop import models
from tests.shop.models import Customer, Item, Order, Project, Tag
from tests.shop.serializers import OrderSerializer

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


def orders(request):
    if request.headers.get("X-Badge") != "yes":
        return HttpResponseForbidden("Show your badge.\n")
    return stream_response(request, Order)


def order(request, pk):
    return stream_response(request, get_object_or_404(Order, pk=pk))


def projects(request, tenant):
    return stream_response(request, Project, scope=("tenant", tenant))


def news(request):
    return stream_response(request, Project, audience="refresh")


def staff_items(request):
    return stream_response(request, Item, audience="staff")


def room(request):
    return stream_response(request, "room-7")


def unlinked(request):
    return stream_response(request, Order, link=None)


async def aorders(request):
    return await astream_response(request, Order)


class OrderView(generics.RetrieveAPIView):
    queryset = Order.objects.all()
    serializer_class = OrderSerializer


class OrderStreamView(generics.GenericAPIView):
    queryset = Order.objects.all()
    serializer_class = OrderSerializer
    content_negotiation_class = StreamNegotiation

    def get(self, request, pk):
        return stream_response(request, self.get_object())

    post = get


class NaiveView(APIView):
    def get(self, request):
        return stream_response(request, Order)


urlpatterns = [
    path("orders/", orders),
    path("aorders/", aorders),
    path("orders/<int:pk>/", order),
    path("projects/<int:tenant>/", projects),
    path("news/", news),
    path("staff/", staff_items),
    path("room/", room),
    path("unlinked/", unlinked),
    path("generic/<int:pk>/", OrderStreamView.as_view()),
    path("naive/", NaiveView.as_view()),
]

SSE = {"HTTP_ACCEPT": "text/event-stream"}


@pytest.mark.parametrize(
    ("url", "channel"),
    [
        ("/orders/1/", "shop.order.1"),
        ("/projects/7/", "shop.project~tenant.7"),
        ("/news/", "shop.project~as.refresh"),
        ("/staff/", "shop.item~as.staff"),
        ("/room/", "room-7"),
        ("/generic/1/", "shop.order.1"),
    ],
)
def test_a_view_holds_the_channel_of_what_it_names(through_proxy, url, channel):
    Order.objects.create(pk=1)
    response = through_proxy.get(url, **SSE)
    assert response["Content-Type"] == "text/event-stream"
    assert response["Grip-Channel"] == channel
    assert frames(response).data("ready")["channel"] == channel


def test_the_view_decides_who_may(through_proxy):
    assert through_proxy.get("/orders/", **SSE).status_code == 403
    allowed = through_proxy.get("/orders/", HTTP_X_BADGE="yes", **SSE)
    assert allowed["Grip-Channel"] == "shop.order"
    assert through_proxy.get("/orders/999/", **SSE).status_code == 404
    assert through_proxy.get("/generic/999/", **SSE).status_code == 404


def test_it_resumes_and_links_as_the_streams_of_viewsets_do(through_proxy, log):
    Order.objects.create(pk=1, status="missed")
    relay()
    response = through_proxy.get("/orders/1/", HTTP_LAST_EVENT_ID=at(0))
    assert frames(response).names == ["ready", "create"]
    assert instruction(response).link == "/grip/next/"


def test_a_channel_of_your_own_is_in_the_log(through_proxy, log):
    publish_event("room-7", "said", {"text": "hello"})
    relay()
    response = through_proxy.get("/room/", HTTP_LAST_EVENT_ID=at(0))
    assert frames(response).data("said")["data"] == {"text": "hello"}


def test_a_long_poll_is_answered_as_such(through_proxy):
    response = through_proxy.get("/room/?wait=5")
    assert response["Content-Type"] == "application/json"
    assert response["Grip-Hold"] == "response"
    assert response["Grip-Channel"] == "room-7"


@pytest.mark.parametrize("url", ["/room/", "/generic/1/"])
def test_a_wrong_parameter_is_400_in_json_and_no_hold(through_proxy, url):
    Order.objects.create(pk=1)
    response = through_proxy.get(f"{url}?wait=soon", **SSE)
    assert response.status_code == 400
    assert "whole number" in response.json()["detail"]
    assert "Grip-Hold" not in response


@pytest.mark.parametrize("url", ["/orders/1/", "/generic/1/", "/room/?wait=5"])
def test_a_direct_request_is_501_with_the_reason(client, url):
    Order.objects.create(pk=1)
    response = client.get(url, **SSE)
    assert response.status_code == 501
    assert "GRIP proxy" in response.json()["detail"]


@pytest.mark.parametrize("url", ["/room/", "/generic/1/"])
def test_a_websocket_to_the_view_is_accepted(through_proxy, url):
    Order.objects.create(pk=1)
    response = through_proxy.post(
        url,
        b"OPEN\r\n",
        content_type="application/websocket-events",
        HTTP_CONNECTION_ID="c1",
    )
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "application/websocket-events"
    assert response.content.startswith(b"OPEN\r\n")
    channel = b"room-7" if url == "/room/" else b"shop.order.1"
    assert b"subscribe" in response.content
    assert channel in response.content


def test_without_a_negotiation_of_its_own_drf_says_406(through_proxy):
    assert through_proxy.get("/naive/", **SSE).status_code == 406


def test_an_async_view_awaits_it(grip_sig):
    get = async_to_sync(AsyncClient().get)
    response = get("/aorders/", headers={"grip-sig": grip_sig})
    assert response["Grip-Channel"] == "shop.order"


def test_none_is_a_hold_that_is_not_healed(through_proxy, log):
    held = instruction(through_proxy.get("/unlinked/"))
    assert (held.hold, held.channel) == ("stream", "shop.order")
    assert (held.prev_id, held.link) == (None, None)


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        (Customer, {}, ImproperlyConfigured, "not registered"),
        (Order, {"scope": ("tenant", 7)}, ValueError, "has no scope 'tenant'"),
        (Project, {"scope": ("tenant", [7, 8])}, ValueError, "Expected one value"),
        (Project, {"scope": ("tenant", None)}, ValueError, "Expected one value"),
        (Item, {}, ValueError, "audiences public, staff"),
        (Item, {"audience": "boss"}, ValueError, "got 'boss'"),
        (Order, {"audience": "refresh"}, ValueError, "no audiences"),
        (Order(), {}, ValueError, "not stored"),
        ("a\r\nb", {}, ValueError, "channel"),
        ("room", {"audience": "staff"}, ValueError, "says all"),
        (Tag, {"link": "private"}, ValueError, "'shared' or None"),
    ],
)
def test_what_cannot_be_streamed_is_the_programmers_mistake(
    rf, target, options, error, message
):
    with pytest.raises(error, match=message):
        stream_response(rf.get("/"), target, **options)


def test_the_page_on_views_shows_a_view_that_runs(rf, monkeypatch):
    page = Path(__file__).parents[3] / "docs/reference/views.md"
    [block] = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.models", models)
    names = {}
    exec(block, names)
    order = Order.objects.create()
    request = rf.get("/")
    request.grip_proxied = True
    request.stream_transport = lambda request, grant: grant.channel
    request.user = User(is_active=True, is_superuser=True)
    assert names["order_stream"](request, order.pk) == f"shop.order.{order.pk}"
    request.user = AnonymousUser()
    with pytest.raises(PermissionDenied):
        names["order_stream"](request, order.pk)


def test_the_page_on_views_has_every_attribute_parameter_and_check():
    page = (Path(__file__).parents[3] / "docs/reference/views.md").read_text()
    attributes = [name for name in dir(StreamModelMixin) if name[:7] == "stream_"]
    own = [name for name in attributes if not callable(getattr(StreamModelMixin, name))]
    assert len(own) >= 7
    for name in (*own, *PARAMETERS, "get_stream_scope(self)"):
        assert f"| `{name}` |" in page, name


def test_the_user_is_known_to_the_grant(rf):
    seen = []
    request = rf.get("/")
    request.grip_proxied = True
    request.user = User(pk=9)
    request.stream_transport = lambda request, grant: seen.append(grant)
    stream_response(request, Tag)
    assert (seen[0].channel, seen[0].user, seen[0].link) == ("shop.tag", 9, "shared")
