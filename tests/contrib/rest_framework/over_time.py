"""Views whose streams are users' own, their URLs, and what users do there.

Users log in by sessions, or name themselves in the header X-User.
"""

import json

from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpResponse, JsonResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from rest_framework import viewsets
from rest_framework.authentication import SessionAuthentication
from rest_framework.permissions import (
    BasePermission,
    IsAuthenticated,
    IsAuthenticatedOrReadOnly,
)
from rest_framework.routers import DefaultRouter

from django_grip.contrib.realtime import publish_event, reset, revoke
from django_grip.contrib.rest_framework import StreamModelMixin
from tests.contrib.rest_framework.projects import ByName
from tests.shop import models, serializers

MIDDLEWARE = [
    "django_grip.GripMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


class MayViewTags(BasePermission):
    def has_permission(self, request, view):
        return request.user.has_perm("shop.view_tag")


class TagViewSet(StreamModelMixin, viewsets.ModelViewSet):
    """Shared by all."""

    queryset = models.Tag.objects.order_by("id")
    serializer_class = serializers.TagSerializer
    authentication_classes = (SessionAuthentication, ByName)
    permission_classes = (IsAuthenticatedOrReadOnly,)


class PrivateTagViewSet(TagViewSet):
    """Everybody's tags, on a path of each user's own."""

    stream_link = "private"
    permission_classes = (IsAuthenticated,)


class OpenPrivateTagViewSet(PrivateTagViewSet):
    """It forgets to ask for users."""

    permission_classes = ()


class PermittedTagViewSet(PrivateTagViewSet):
    permission_classes = (MayViewTags,)


class UnlinkedTagViewSet(TagViewSet):
    stream_link = None


class OwnProjectViewSet(PrivateTagViewSet):
    """The projects of the user's tenant."""

    queryset = models.Project.objects.order_by("id")
    serializer_class = serializers.ProjectSerializer
    stream_scope = "tenant"

    def get_queryset(self):
        return super().get_queryset().filter(tenant__members=self.request.user.pk)

    def get_stream_scope(self):
        return models.Tenant.objects.filter(members=self.request.user.pk).first()


@csrf_exempt
def log_in(request):
    said = json.loads(request.body)
    login(request, authenticate(request, **said))
    return HttpResponse()


@csrf_exempt
def log_out(request):
    logout(request)
    return HttpResponse()


@csrf_exempt
def make_user(request):
    """Make a user, in a tenant of its own."""
    user = User.objects.create_user(**json.loads(request.body))
    models.Tenant.objects.create(name=user.username).members.add(user)
    return JsonResponse({"pk": user.pk})


def _tell(text, count=1):
    with transaction.atomic():
        for number in range(count):
            publish_event(models.Tag, "said", f"{text}{number}")


def _save(name, **values):
    user = User.objects.get(username=name)
    for field, value in values.items():
        setattr(user, field, value)
    user.save()


ACTS = {
    "deactivate unseen": lambda name: User.objects.filter(username=name).update(
        is_active=False
    ),
    "reset": lambda: reset(models.Tag),
    "revoke": lambda name: revoke(user=User.objects.get(username=name)),
    "revoke tags": lambda: revoke(target=models.Tag),
    "revoke projects": lambda: revoke(target=models.Project),
    "save": _save,
    "tell": _tell,
    "tell projects": lambda name: models.Project.objects.create(
        tenant=models.Tenant.objects.get(name=name)
    ),
}
"""What a program does at this moment."""


@csrf_exempt
def act(request):
    said = json.loads(request.body)
    ACTS[said.pop("act")](**said)
    return HttpResponse()


router = DefaultRouter()
router.register("tags", TagViewSet, basename="tag")
router.register("private", PrivateTagViewSet, basename="private")
router.register("open-private", OpenPrivateTagViewSet, basename="open-private")
router.register("permitted", PermittedTagViewSet, basename="permitted")
router.register("unlinked", UnlinkedTagViewSet, basename="unlinked")
router.register("own", OwnProjectViewSet, basename="own")

urlpatterns = [
    path("", include(router.urls)),
    path("login/", log_in),
    path("logout/", log_out),
    path("users/", make_user),
    path("act/", act),
]
