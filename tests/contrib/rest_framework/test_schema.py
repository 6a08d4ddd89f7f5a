"""The OpenAPI schema of the stream routes, as `manage.py spectacular` writes it."""

import subprocess
import sys

import pytest
import yaml
from django.urls import include, path
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.filters import SearchFilter
from rest_framework.pagination import LimitOffsetPagination
from rest_framework.routers import DefaultRouter

from django_grip.contrib.rest_framework.transports import PARAMETERS
from tests.contrib.rest_framework.drf_page import shown
from tests.servers import MANAGE, ROOT, environment
from tests.shop import views


class PagedViewSet(views.OrderViewSet):
    filter_backends = (SearchFilter,)
    pagination_class = LimitOffsetPagination


@extend_schema(tags=["Words"])
@extend_schema_view(stream_object=extend_schema(summary="One word", operation_id="w"))
class WordedViewSet(views.TagViewSet):
    """Tags."""


router = DefaultRouter()
router.register("left-out", shown("shop/views.py")["OrderViewSet"], basename="left")
router.register("orders", views.OrderViewSet, basename="order")
router.register("paged", PagedViewSet, basename="paged")
router.register("tags", WordedViewSet)
bare = DefaultRouter(trailing_slash=False)
bare.register("lines", views.LineViewSet)
urlpatterns = [path("api/", include(router.urls)), path("api/", include(bare.urls))]

CHILD = {
    "DJANGO_SETTINGS_MODULE": "tests.contrib.rest_framework.schema_settings",
    "PYTHONPATH": f"{ROOT}:{ROOT / 'sample_app'}",
}


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    """What the command writes; it fails for a warning, and for what is no OpenAPI."""
    file = tmp_path_factory.mktemp("schema") / "schema.yml"
    done = subprocess.run(
        [*MANAGE, "spectacular", "--validate", "--fail-on-warn", f"--file={file}"],
        env=environment(CHILD),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return yaml.safe_load(file.read_text())


@pytest.mark.parametrize(
    ("url", "id"),
    [
        ("/api/orders/stream/", "orders_stream_list"),
        ("/api/orders/{id}/stream/", "orders_stream_retrieve"),
        ("/api/lines/stream", "lines_stream_list"),
        ("/api/lines/{id}/stream", "lines_stream_retrieve"),
    ],
)
def test_a_stream_is_described(schema, url, id):
    stream = schema["paths"][url]["get"]
    assert stream["operationId"] == id
    assert stream["description"].startswith("Stream the events of ")
    assert "requestBody" not in stream
    answers = {
        code: sorted(answer["content"]) for code, answer in stream["responses"].items()
    }
    assert answers.pop("200") == ["application/json", "text/event-stream"]
    assert answers.keys() == {"400", "401", "403", "404", "413", "501"}
    assert all(types == ["application/json"] for types in answers.values())


@pytest.mark.parametrize(
    ("url", "id"),
    [
        ("/api/orders/stream/ticket/", "orders_stream_ticket_list_create"),
        ("/api/orders/{id}/stream/ticket/", "orders_stream_ticket_create"),
        ("/api/lines/stream/ticket", "lines_stream_ticket_list_create"),
    ],
)
def test_a_ticket_is_described(schema, url, id):
    ticket = schema["paths"][url]["post"]
    assert ticket["operationId"] == id
    assert ticket["description"].startswith("Give a ticket for the stream of ")
    assert "requestBody" not in ticket
    assert [each["name"] for each in ticket.get("parameters", ())] == (
        ["id"] if "{id}" in url else []
    )
    assert ticket["responses"].keys() == {"200", "400", "401", "403", "404"}
    answer = ticket["responses"]["200"]["content"]["application/json"]["schema"]
    component = schema["components"]["schemas"][answer["$ref"].rpartition("/")[2]]
    assert component["required"] == ["expires_in", "ticket"]


@pytest.mark.parametrize(
    ("url", "others"),
    [
        ("/api/orders/{id}/stream/", {"id": "path"}),
        ("/api/paged/stream/", {}),
    ],
)
def test_the_parameters_are_those_that_a_stream_takes(schema, url, others):
    parameters = schema["paths"][url]["get"]["parameters"]
    places = {each["name"]: each["in"] for each in parameters}
    assert places == dict.fromkeys(PARAMETERS, "query") | others


def test_what_a_view_says_of_its_streams_goes_first(schema):
    listing, single = (
        schema["paths"][f"/api/tags/{each}"]["get"]
        for each in ("stream/", "{id}/stream/")
    )
    assert listing["tags"] == single["tags"] == ["Words"]
    assert (single["operationId"], single["summary"]) == ("w", "One word")
    assert listing["operationId"] == "tags_stream_list"
    assert listing["responses"] == single["responses"]


def test_the_streams_of_a_view_can_be_left_out(schema):
    urls = {url for url in schema["paths"] if "left-out" in url}
    assert urls == {"/api/left-out/", "/api/left-out/{id}/"}


def test_the_other_routes_are_described_as_before(schema):
    listing = schema["paths"]["/api/orders/"]["get"]
    assert listing["operationId"] == "orders_list"
    assert listing["responses"].keys() == {"200"}
    assert "description" not in listing


def test_where_it_is_not_installed_it_is_not_imported():
    code = (
        "import sys, django; django.setup(); import tests.urls;"
        "assert 'django_grip.contrib.rest_framework.mixins' in sys.modules;"
        "assert 'drf_spectacular' not in sys.modules"
    )
    env = environment(CHILD | {"DJANGO_SETTINGS_MODULE": "tests.settings"})
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=60)
