"""What a test tells the site of socket_site.py to do, and its streams."""

import json
import os
import time
from pathlib import Path

from django.contrib import auth
from django.contrib.auth.models import User
from django.http import JsonResponse
from django.urls import include, path
from rest_framework import viewsets
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.routers import DefaultRouter

from django_grip.contrib.realtime import revoke
from django_grip.contrib.rest_framework import RealtimeSocket, StreamModelMixin
from tests.contrib.eventlog.pushpin_urls import ShipmentSerializer
from tests.shop.models import Shipment


class Waits:
    """Answers of the socket wait while the file SITE_WAIT is there; a line is noted."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        wait = Path(os.environ["SITE_WAIT"])
        if request.path_info == "/realtime/" and wait.exists():
            with Path(os.environ["SITE_JOURNAL"]).open("a") as journal:
                journal.write("waits\n")
            while wait.exists():
                time.sleep(0.02)
        return response


class ShipmentViewSet(StreamModelMixin, viewsets.ModelViewSet):
    """Rows to read, to stream and, from the test, to write."""

    queryset = Shipment.objects.order_by("id")
    serializer_class = ShipmentSerializer


class MineViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    """The same for those who are logged in."""

    queryset = Shipment.objects.order_by("id")
    serializer_class = ShipmentSerializer
    authentication_classes = (SessionAuthentication,)
    permission_classes = (IsAuthenticated,)


def log_in(request):
    """Make a user and log it in."""
    user = User.objects.create_user(json.loads(request.body)["name"])
    auth.login(request, user)
    return JsonResponse({})


def end_session(request):
    """As when a session is deleted: nobody is told."""
    request.session.flush()
    return JsonResponse({})


def revoke_user(request):
    """Take the user's streams away."""
    revoke(user=User.objects.get(username=json.loads(request.body)["name"]))
    return JsonResponse({})


router = DefaultRouter()
router.register("shipments", ShipmentViewSet)
router.register("mine", MineViewSet, basename="mine")

urlpatterns = [
    path("", include(router.urls)),
    path("realtime/", RealtimeSocket.as_view()),
    path("login/", log_in),
    path("end-session/", end_session),
    path("revoke/", revoke_user),
]
