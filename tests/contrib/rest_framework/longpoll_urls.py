"""Long-polls that are noted, made to wait and refused, as a test wants it.

See pushpin_urls.py for SITE_JOURNAL and SITE_WAIT. A row with the note "secret" is for
nobody.
"""

import os
import time
from pathlib import Path

from django.contrib.auth import get_user_model
from django.http import JsonResponse
from django.urls import include, path
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.routers import DefaultRouter

from django_grip.contrib.eventlog import closing
from django_grip.contrib.realtime import suppress
from tests.contrib.eventlog import pushpin_urls
from tests.shop.models import Shipment


class Polls(pushpin_urls.Links):
    """Notes requests of streams; their answers wait while SITE_WAIT is there."""

    def __call__(self, request):
        if not request.path_info.endswith("/stream/"):
            return self.get_response(request)
        self.note("asked", request)
        response = self.get_response(request)
        self.note("read", request)
        while Path(os.environ["SITE_WAIT"]).exists():
            time.sleep(0.02)
        return response


class Cors:
    """What a package for CORS puts on answers."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        if origin := request.headers.get("Origin"):
            response["Access-Control-Allow-Origin"] = origin
            response["Access-Control-Allow-Credentials"] = "true"
            response["Vary"] = "Origin"
        return response


class NotSecret(BasePermission):
    def has_object_permission(self, request, view, obj):
        return obj.note != "secret"


class ShipmentViewSet(pushpin_urls.ShipmentViewSet):
    permission_classes = (NotSecret,)


class ByName(BaseAuthentication):
    """Takes a name for a user."""

    def authenticate(self, request):
        name = request.headers.get("X-Name")
        user = get_user_model().objects.filter(username=name, is_active=True).first()
        return None if user is None else (user, None)


class PrivateShipmentViewSet(pushpin_urls.ShipmentViewSet):
    authentication_classes = (ByName,)
    permission_classes = (IsAuthenticated,)
    stream_link = "private"


def employ(request, name):
    """Make a user."""
    get_user_model().objects.create(username=name)
    return JsonResponse({})


def dismiss(request, name):
    """Have a user be one no more."""
    user = get_user_model().objects.get(username=name)
    user.is_active = False
    user.save()
    return JsonResponse({})


def hide(request, pk):
    """Make a row secret and end its streams, without a word about the row itself."""
    with suppress():
        Shipment.objects.filter(pk=pk).update(note="secret")
    closing.close("default", [f"shop.shipment.{pk}"])
    return JsonResponse({})


router = DefaultRouter()
router.register("shipments", ShipmentViewSet)
router.register("private", PrivateShipmentViewSet, basename="private")

urlpatterns = [
    path("", include(router.urls)),
    path("bulk/", pushpin_urls.bulk),
    path("hide/<int:pk>/", hide),
    path("employ/<str:name>/", employ),
    path("dismiss/<str:name>/", dismiss),
]
