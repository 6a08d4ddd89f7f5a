"""A site whose rows are written on request, and whose link answers can be made to wait.

SITE_JOURNAL is a file with two lines for each link request; while the file SITE_WAIT is
there, the answer to it waits.
"""

import json
import os
import time
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from rest_framework import serializers, viewsets
from rest_framework.routers import DefaultRouter

from django_grip.contrib.realtime.streams import registry
from django_grip.contrib.rest_framework import StreamModelMixin
from django_grip.publishers import endpoint
from tests.shop.models import Shipment

# A transaction of 10,000 rows is told row by row.
registry._streams[Shipment] = type(
    "EachRow", (type(registry.get(Shipment)),), {"bulk_limit": 20_000}
)(Shipment)

# A control port that says nothing is given up sooner.
endpoint.TIMEOUT = 1.0


class Links:
    """Notes link requests, and has them wait."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request: HttpRequest):
        if not request.path_info.startswith("/grip/"):
            return self.get_response(request)
        self.note("asked", request)
        response = self.get_response(request)
        while Path(os.environ["SITE_WAIT"]).exists():
            time.sleep(0.02)
        self.note("answered", request)
        return response

    def note(self, what, request):
        last = request.headers.get("Grip-Last", "")
        with Path(os.environ["SITE_JOURNAL"]).open("a") as journal:
            journal.write(f"{what} {request.path_info} {last}\n")


class ShipmentSerializer(serializers.ModelSerializer):
    class Meta:
        model = Shipment
        fields = ("id", "tenant", "status", "note")


class ShipmentViewSet(StreamModelMixin, viewsets.ModelViewSet):
    """Rows to read, to stream and, from the test, to write."""

    queryset = Shipment.objects.order_by("id")
    serializer_class = ShipmentSerializer


def bulk(request):
    """Create this many rows in one transaction."""
    count = json.loads(request.body)["count"]
    with transaction.atomic():
        Shipment.objects.bulk_create(Shipment(tenant=9) for _ in range(count))
    return JsonResponse({})


def configure(request):
    """Change GRIP_REALTIME; null takes a key out."""
    for key, value in json.loads(request.body).items():
        settings.GRIP_REALTIME.pop(key, None)
        if value is not None:
            settings.GRIP_REALTIME[key] = value
    return JsonResponse({})


router = DefaultRouter()
router.register("shipments", ShipmentViewSet)

urlpatterns = [
    path("", include(router.urls)),
    path("bulk/", bulk),
    path("configure/", configure),
]
