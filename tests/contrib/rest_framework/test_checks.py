import types

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.urls import include, path
from rest_framework import mixins, viewsets
from rest_framework.routers import DefaultRouter, SimpleRouter

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


class NoViewSet(StreamModelMixin, viewsets.ViewSet):
    """There is no queryset to speak of."""

    def list(self, request):
        """Lists nothing."""


class OwnTicket(views.OrderViewSet):
    def _stream(self, request):
        """The user's own method of that name."""


class Scoped(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = models.Project.objects.filter(region="north")
    serializer_class = serializers.ProjectSerializer
    stream_scope = "tenant"

    def get_stream_scope(self):
        return 7


class Unscoped(Scoped):
    stream_scope = "owner"


class ScopedByQueryset(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    """Its model is that of its serializer."""

    serializer_class = serializers.ProjectSerializer
    stream_scope = "owner"

    def get_queryset(self):
        return models.Project.objects.all()

    def get_stream_scope(self):
        return 7


class WithoutValue(views.OrderViewSet):
    stream_scope = "status"


class WithoutScope(views.OrderViewSet):
    def get_stream_scope(self):
        return 7


class Open(WithoutScope):
    """Its base defines the value for those that name a scope."""

    stream_all_rows = True


class Moody(views.OrderViewSet):
    stream_mode = "refreshed"


class NotRefreshed(Restricted):
    stream_mode = "refresh"


class Refreshed(Scoped):
    stream_scope = None
    stream_mode = "refresh"
    get_stream_scope = StreamModelMixin.get_stream_scope
    serializer_class = serializers.OrderAdminSerializer


class Snapshotless(Refreshed):
    stream_snapshot = True


class Unlimited(views.OrderViewSet):
    stream_snapshot_limit = None


class Unlinked(views.OrderViewSet):
    stream_link = "own"


class ObjectsOnly(Restricted):
    stream_collection = None


class Unlisted(StreamModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    queryset = models.Order.objects.filter(status="new")
    serializer_class = serializers.OrderSerializer


@pytest.fixture
def route(settings):
    def route(view, prefix="x", router_class=SimpleRouter):
        router = router_class()
        router.register(prefix, view, basename="x")
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
        (OwnTicket, "E001", "hides _stream of StreamModelMixin"),
        (NoViewSet, "E001", "stream_response"),
        (Unscoped, "E006", "Name one of its scopes"),
        (ScopedByQueryset, "E006", "'tenant', 'region', 'public'"),
        (WithoutValue, "E007", "Define get_stream_scope"),
        (WithoutScope, "E007", "Name the scope"),
        (Moody, "E008", "'events', 'refresh'"),
        (NotRefreshed, "E008", "@realtime(refresh=True)"),
        (Snapshotless, "E009", "Remove stream_snapshot"),
        (Unlimited, "E009", "how many rows"),
        (Unlinked, "E010", "'private'"),
    ],
)
def test_views_that_cannot_stream_are_told_with_the_cure(route, view, id, cure):
    route(view)
    with pytest.raises(SystemCheckError) as caught:
        call_command("check")
    assert f"grip_rest_framework.{id}" in str(caught.value)
    assert cure in str(caught.value)


@pytest.mark.parametrize("view", [Scoped, Refreshed, ObjectsOnly, Unlisted, Open])
def test_views_that_declare_whom_they_stream_to_pass(route, view):
    route(view)
    call_command("check")


def test_a_mistake_is_told_once(route):
    route(NotRefreshed)
    with pytest.raises(SystemCheckError) as caught:
        call_command("check")
    assert str(caught.value).count("grip_rest_framework.") == 1


@pytest.mark.parametrize(
    "prefix", [r"tenants/(?P<tenant_pk>[^/.]+)/x", r"(?P<version>v1)/x"]
)
def test_parameters_of_a_nested_list_have_to_be_declared(route, prefix):
    route(views.OrderViewSet, prefix, DefaultRouter)
    with pytest.raises(SystemCheckError, match=r"grip_rest_framework\.E003") as caught:
        call_command("check")
    assert "names a part of the rows" in str(caught.value)
    route(Scoped, prefix, DefaultRouter)
    call_command("check")


def test_a_parameter_of_an_included_url_counts(settings):
    router = SimpleRouter()
    router.register("x", views.OrderViewSet, basename="x")
    urls = types.ModuleType("urls")
    urls.urlpatterns = [path("<slug:tenant>/", include(router.urls))]
    settings.ROOT_URLCONF = urls
    with pytest.raises(SystemCheckError, match=r"part of the rows \(tenant\)"):
        call_command("check")


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
