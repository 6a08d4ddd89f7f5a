"""Streams for realtime.js, and what a test tells the site to do."""

import json
import os
from pathlib import Path

from django.contrib import auth
from django.contrib.auth.models import User
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.http import HttpResponse, JsonResponse
from django.template import Context, Template
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt, ensure_csrf_cookie
from django.views.static import serve
from rest_framework import viewsets
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.pagination import CursorPagination, PageNumberPagination
from rest_framework.permissions import IsAuthenticated
from rest_framework.routers import DefaultRouter

from django_grip.contrib.rest_framework import RealtimeSocket, StreamModelMixin
from tests.contrib.eventlog.pushpin_urls import ShipmentSerializer
from tests.shop.models import Shipment, Tag
from tests.shop.serializers import TagSerializer


class Badge(BaseAuthentication):
    """By a header, which neither EventSource nor WebSocket can send."""

    def authenticate(self, request):
        """Whoever is named, if there is such a user."""
        kind, _, name = request.headers.get("Authorization", "").partition(" ")
        if kind != "Badge":
            return None
        user = User.objects.filter(username=name).first()
        if user is None:
            raise AuthenticationFailed("No such badge.")
        return user, None

    def authenticate_header(self, request):
        return "Badge"


class ShipmentViewSet(StreamModelMixin, viewsets.ModelViewSet):
    """Rows for all to read, to stream and to write."""

    queryset = Shipment.objects.order_by("id")
    serializer_class = ShipmentSerializer
    authentication_classes = ()


class InPages(PageNumberPagination):
    page_size = 20


class ByCursor(CursorPagination):
    page_size = 20
    ordering = "id"


class PagedViewSet(ShipmentViewSet):
    pagination_class = InPages


class CursorViewSet(ShipmentViewSet):
    pagination_class = ByCursor


class TagViewSet(StreamModelMixin, viewsets.ModelViewSet):
    """Its events are thin."""

    queryset = Tag.objects.order_by("id")
    serializer_class = TagSerializer
    authentication_classes = ()


class MineViewSet(ShipmentViewSet):
    """For those who are logged in."""

    authentication_classes = (SessionAuthentication,)
    permission_classes = (IsAuthenticated,)
    stream_link = "private"


class BadgedViewSet(MineViewSet):
    """For those who show a badge."""

    authentication_classes = (Badge,)


@csrf_exempt
def log_in(request):
    """Log in as whoever is named, who is made if need be."""
    user, _ = User.objects.get_or_create(username=json.loads(request.body)["name"])
    auth.login(request, user)
    return JsonResponse({})


@csrf_exempt
def log_out(request):
    auth.logout(request)
    return JsonResponse({})


@ensure_csrf_cookie
def page(request):
    """A page for a test to fill."""
    return HttpResponse('<!doctype html><meta charset="utf-8"><title>Empty</title>')


def rows(request):
    """The template of the page on htmx, with all shipments."""
    template = Template(Path(os.environ["SITE_FILES"], "rows.html").read_text())
    context = {"orders": Shipment.objects.order_by("id")}
    return HttpResponse(template.render(Context(context)))


router = DefaultRouter()
router.register("shipments", ShipmentViewSet)
router.register("orders", ShipmentViewSet, basename="order")  # As the docs call them.
router.register("paged", PagedViewSet, basename="paged")
router.register("cursor", CursorViewSet, basename="cursor")
router.register("tags", TagViewSet)
router.register("mine", MineViewSet, basename="mine")
router.register("badged", BadgedViewSet, basename="badged")

urlpatterns = [
    path("", include(router.urls)),
    path("realtime/", RealtimeSocket.as_view()),
    path("login/", log_in),
    path("logout/", log_out),
    path("page/", page),
    path("rows/", rows),
    path("files/<path:path>", serve, {"document_root": os.environ["SITE_FILES"]}),
    *staticfiles_urlpatterns(),
]
