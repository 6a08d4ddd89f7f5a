import types

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.urls import include, path
from rest_framework import viewsets
from rest_framework.routers import SimpleRouter

from django_grip.contrib.rest_framework import StreamModelMixin
from tests.shop import models, serializers, views


class Backwards(viewsets.ReadOnlyModelViewSet, StreamModelMixin):
    queryset = models.Order.objects.all()
    serializer_class = serializers.OrderSerializer


class Shadowed(views.OrderViewSet):
    def stream_object(self):
        """The user's own method of that name."""


class Unregistered(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = models.Customer.objects.all()
    serializer_class = serializers.TagSerializer


class Restricted(views.OrderViewSet):
    queryset = models.Order.objects.filter(status="new")


class Unfitting(views.OrderViewSet):
    serializer_class = serializers.OrderAdminSerializer


@pytest.fixture
def route(settings):
    def route(view):
        router = SimpleRouter()
        router.register("x", view, basename="x")
        urls = types.ModuleType("urls")
        urls.urlpatterns = [path("api/", include(router.urls))]
        settings.ROOT_URLCONF = urls

    return route


def test_the_projects_own_views_pass():
    call_command("check")


@pytest.mark.parametrize(
    ("view", "id", "cure"),
    [
        (Shadowed, "E001", "give your own methods other names"),
        (Unregistered, "E002", "@realtime"),
        (Restricted, "E003", "stream_all_rows"),
        (Unfitting, "E004", "stream_audience"),
    ],
)
def test_views_that_cannot_stream_are_told_with_the_cure(route, view, id, cure):
    route(view)
    with pytest.raises(SystemCheckError) as caught:
        call_command("check")
    assert f"grip_rest_framework.{id}" in str(caught.value)
    assert cure in str(caught.value)


def test_a_mixin_after_the_viewset_is_told(route):
    route(Backwards)
    with pytest.raises(SystemCheckError, match=r"grip_rest_framework\.E001"):
        call_command("check")


def test_streams_without_a_proxy_are_told(settings):
    settings.GRIP_URL = None
    with pytest.raises(SystemCheckError, match=r"grip_rest_framework\.E005"):
        call_command("check")


@pytest.mark.parametrize(
    ("name", "value", "id"),
    [
        ("MIDDLEWARE", [], "E001"),
        ("GRIP_URL", "ftp://x", "E002"),
        ("GRIP_PUBLISHER", "nowhere.Publisher", "E003"),
        ("GRIP_PUBLISHER", "django.http.HttpResponse", "E003"),
    ],
)
def test_a_misconfigured_core_is_told(settings, name, value, id):
    setattr(settings, name, value)
    with pytest.raises(SystemCheckError, match=rf"django_grip\.{id}"):
        call_command("check")
