"""Streams of views with versions: which serializer, and so which audience."""

import pytest
from django.urls import include, path, re_path
from rest_framework import versioning, viewsets
from rest_framework.routers import DefaultRouter

from django_grip.contrib.rest_framework import StreamModelMixin
from django_grip.contrib.rest_framework.answers import answers
from tests.shop import models, serializers

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

PUBLIC, STAFF = "shop.item~as.public", "shop.item~as.staff"


class Versioned(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    """Its version 2 shows more, by the serializer of another audience."""

    queryset = models.Item.objects.all()

    def get_serializer_class(self):
        if self.request.version in (None, "v1"):
            return serializers.ItemSerializer
        return serializers.StaffItemSerializer


def of(base, **attributes):
    """A viewset whose versions are v1, the default, and v2."""
    versions = {"default_version": "v1", "allowed_versions": ("v1", "v2")}
    scheme = type(base.__name__, (base,), versions | attributes)
    return type("View", (Versioned,), {"versioning_class": scheme})


def routed(view):
    router = DefaultRouter()
    router.register("items", view, basename="item")
    return router.urls


urlpatterns = [
    re_path(
        r"^path/(?P<version>v\d+)/", include(routed(of(versioning.URLPathVersioning)))
    ),
    path(
        "space/1/",
        include((routed(of(versioning.NamespaceVersioning)), "items"), namespace="v1"),
    ),
    path(
        "space/2/",
        include((routed(of(versioning.NamespaceVersioning)), "items"), namespace="v2"),
    ),
    path(
        "space/3/",
        include((routed(of(versioning.NamespaceVersioning)), "items"), namespace="v3"),
    ),
    path("accept/", include(routed(of(versioning.AcceptHeaderVersioning)))),
    path("host/", include(routed(of(versioning.HostNameVersioning)))),
    path("query/", include(routed(of(versioning.QueryParameterVersioning)))),
    path(
        "named/",
        include(routed(of(versioning.QueryParameterVersioning, version_param="api"))),
    ),
    path("none/", include(routed(Versioned))),
]


@pytest.mark.parametrize(
    ("url", "channel"),
    [
        ("/path/v1/items/stream/", PUBLIC),
        ("/path/v2/items/stream/", STAFF),
        ("/space/1/items/stream/", PUBLIC),
        ("/space/2/items/stream/", STAFF),
        ("/accept/items/stream/", PUBLIC),
        ("/host/items/stream/", PUBLIC),
        ("/query/items/stream/", PUBLIC),
        ("/query/items/stream/?version=v2", STAFF),
        ("/named/items/stream/?api=v2", STAFF),
        ("/none/items/stream/", PUBLIC),
    ],
)
def test_a_version_streams_the_audience_of_its_serializer(through_proxy, url, channel):
    response = through_proxy.get(url, HTTP_ACCEPT="text/event-stream")
    assert response.status_code == 200, response.content
    assert response["Grip-Channel"].split(";")[0] == channel


def test_an_object_too(through_proxy):
    item = models.Item.objects.create()
    response = through_proxy.get(f"/path/v2/items/{item.pk}/stream/")
    assert response["Grip-Channel"] == f"shop.item.{item.pk}~as.staff"


def test_the_host_says_the_version(through_proxy, settings):
    settings.ALLOWED_HOSTS = [".example.com"]
    for host, channel in [("v2.example.com", STAFF), ("example.com", PUBLIC)]:
        response = through_proxy.get("/host/items/stream/", HTTP_HOST=host)
        assert response["Grip-Channel"] == channel


@pytest.mark.parametrize(
    "url",
    ["/path/v9/items/", "/space/3/items/", "/query/items/?version=v9"],
)
def test_an_unknown_version_is_refused_as_get_refuses_it(through_proxy, url):
    page, _, query = url.partition("?")
    got = through_proxy.get(url)
    streamed = through_proxy.get(f"{page}stream/?{query}")
    assert (streamed.status_code, streamed.content) == (got.status_code, got.content)
    assert streamed.status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        "/none/items/stream/?version=v2",
        "/path/v2/items/stream/?version=v2",
        "/query/items/stream/?version=v2&page=2",
        "/named/items/stream/?version=v2",
        "/query/items/stream/?format=json",
    ],
)
def test_other_parameters_stay_400(through_proxy, url):
    response = through_proxy.get(url)
    assert response.status_code == 400
    assert "A stream takes no parameter" in response.json()["detail"]


@pytest.mark.parametrize("override", [None, "as"])
def test_no_parameter_chooses_the_format_whatever_its_name(
    through_proxy, settings, override
):
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "URL_FORMAT_OVERRIDE": override,
    }
    for name in ("format", "as"):
        response = through_proxy.get(f"/none/items/stream/?{name}=json")
        assert response.status_code == 400


def test_explain_asks_each_version_that_a_url_tells():
    item = models.Item.objects.create(pk=7)
    found = {answer.url: answer for answer in answers(item, None)}
    assert found["/space/1/items/7/stream/"].channel == "shop.item.7~as.public"
    assert found["/space/2/items/7/stream/"].channel == "shop.item.7~as.staff"
    assert found["/space/3/items/7/stream/"].reason.startswith("404")
    assert "version" in found["/path/<version>/items/7/stream/"].reason
