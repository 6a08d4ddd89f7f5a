"""Streams of the projects of users' tenants, their URLs, and what happens there.

Who asks is known by a session. A request with the header X-Pause stops at the place it
names while a file of this name is beside SITE_WAIT: see sites.Pause.
"""

import json
import os
import time
from pathlib import Path

from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.http import JsonResponse
from django.urls import include, path
from rest_framework import viewsets
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.routers import DefaultRouter

from django_grip.contrib.realtime import revoke
from django_grip.contrib.rest_framework import RealtimeSocket, StreamModelMixin
from tests.shop.models import Project, Tenant
from tests.shop.serializers import ProjectSerializer


def pause(request, place):
    name = request.headers.get("X-Pause", "")
    if not name.startswith(place):
        return
    waits = Path(os.environ["SITE_WAIT"]).with_name(name)
    if waits.exists():
        waits.with_suffix(".reached").touch()
        while waits.exists():
            time.sleep(0.01)


class Pauses:
    """Stops at `answer`: a stream was granted, and its proxy does not know yet."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        is_stream = request.path_info.endswith("/stream/")
        if is_stream or b'"subscribed"' in response.content:
            pause(request, "answer")
        return response


class ProjectViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    """The projects of the user's tenant."""

    queryset = Project.objects.order_by("id")
    serializer_class = ProjectSerializer
    authentication_classes = (SessionAuthentication,)
    permission_classes = (IsAuthenticated,)
    stream_scope = "tenant"

    def get_queryset(self):
        return super().get_queryset().filter(tenant__members=self.request.user.pk)

    def get_stream_scope(self):
        return Tenant.objects.filter(members=self.request.user.pk).first()

    def filter_queryset(self, queryset):
        """Stops at `rows`: a snapshot's position was read, its rows were not."""
        pause(self.request._request, "rows")
        return super().filter_queryset(queryset)


class PrivateProjectViewSet(ProjectViewSet):
    stream_link = "private"


def user(request, name, tenant):
    """Make a user, a member of this tenant, and log it in."""
    made = User.objects.create_user(name)
    Tenant.objects.get_or_create(name=tenant)[0].members.add(made)
    login(request, made)
    return JsonResponse({})


def log_out(request):
    logout(request)
    return JsonResponse({})


def create(request, tenant):
    values = json.loads(request.body)
    row = Project.objects.create(tenant=Tenant.objects.get(name=tenant), **values)
    return JsonResponse({"pk": row.pk})


def save(request, pk):
    row = Project.objects.get(pk=pk)
    for name, value in json.loads(request.body).items():
        setattr(row, name, value)
    row.save()
    return JsonResponse({})


def move(request, pk, tenant):
    """To another tenant, with a name that is for nobody else."""
    row = Project.objects.get(pk=pk)
    row.tenant, row.name = Tenant.objects.get(name=tenant), f"of {tenant}"
    row.save()
    return JsonResponse({})


def expel(request, name):
    """From all tenants, of which nobody is told."""
    User.objects.get(username=name).tenants.clear()
    return JsonResponse({})


def revoke_user(request, name):
    revoke(user=User.objects.get(username=name))
    return JsonResponse({})


def revoke_row(request, pk):
    revoke(target=Project.objects.get(pk=pk))
    return JsonResponse({})


def revoke_model(request):
    revoke(target=Project)
    return JsonResponse({})


router = DefaultRouter()
router.register("projects", ProjectViewSet, basename="project")
router.register("private", PrivateProjectViewSet, basename="private")

urlpatterns = [
    path("", include(router.urls)),
    path("realtime/", RealtimeSocket.as_view()),
    path("user/<name>/<tenant>/", user),
    path("logout/", log_out),
    path("create/<tenant>/", create),
    path("save/<int:pk>/", save),
    path("move/<int:pk>/<tenant>/", move),
    path("expel/<name>/", expel),
    path("revoke/user/<name>/", revoke_user),
    path("revoke/row/<int:pk>/", revoke_row),
    path("revoke/model/", revoke_model),
]
