"""The browsable API with a panel of the page's stream; in a browser, behind a proxy."""

import json
import re
from urllib.parse import quote

import pytest
from django.apps import apps
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path
from rest_framework import renderers, versioning, viewsets
from rest_framework.decorators import action
from rest_framework.response import Response
from rest_framework.routers import DefaultRouter
from rest_framework.test import APIRequestFactory
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from django_grip.contrib.rest_framework import StreamModelMixin
from tests.clients import EventStream, request
from tests.contrib.rest_framework.drf_page import shown
from tests.servers import Site
from tests.shop import models, serializers, views

HTML = {"HTTP_ACCEPT": "text/html"}


class TagViewSet(views.TagViewSet):
    lookup_field = "name"

    @action(detail=False)
    def summary(self, request):
        return Response({})


class AdminViewSet(views.OrderViewSet):
    """It shows what no stream sends: that is found out by a request."""

    def get_serializer_class(self):
        return serializers.OrderAdminSerializer


class VersionedViewSet(views.OrderViewSet):
    class versioning_class(versioning.QueryParameterVersioning):
        default_version = "v1"


class PlainViewSet(viewsets.ModelViewSet):
    queryset = models.Item.objects.order_by("id")
    serializer_class = serializers.ItemSerializer


class StreamedViewSet(StreamModelMixin, PlainViewSet):
    pass


OWN = {"renderer_classes": (shown("shop/renderers.py")["ShopRenderer"],)}

router = DefaultRouter()
router.register("own", type("View", (views.OrderViewSet,), OWN), basename="own")
router.register("plain", type("View", (PlainViewSet,), OWN), basename="plain")
router.register("orders", views.OrderViewSet, basename="order")
router.register("items", StreamedViewSet, basename="item")
router.register("tags", TagViewSet)
router.register("admin", AdminViewSet, basename="admin")
router.register("versioned", VersionedViewSet, basename="versioned")
bare = DefaultRouter(trailing_slash=False)
bare.register("orders", views.OrderViewSet, basename="order")
urlpatterns = [
    path("", include(router.urls)),
    path("inner/", include((bare.urls, "inner"))),
    path("by-hand/", views.OrderViewSet.as_view({"get": "list"})),
    *staticfiles_urlpatterns(),
]


def strict(get_response):
    """Middleware: nothing inline runs on a page, and none of it has a style."""

    def respond(request):
        response = get_response(request)
        response["Content-Security-Policy"] = "default-src 'self'"
        return response

    return respond


@pytest.fixture
def page(db, client):
    """`page(url)`: the HTML of a page of the browsable API."""

    def page(url, status=200):
        response = client.get(url, **HTML)
        assert response.status_code == status
        assert response["Content-Type"] == "text/html; charset=utf-8"
        return response.content.decode()

    return page


def stream_url(html):
    """The URL that the panel of a page connects to; None without a panel."""
    found = re.search('data-stream-url="([^"]*)"', html)
    assert ("panel.js" in html) == ("panel.css" in html) == (found is not None)
    return found and found[1]


@pytest.mark.urls(__name__)
@pytest.mark.parametrize(
    ("url", "stream"),
    [
        ("/orders/", "/orders/stream/"),
        ("/orders/?format=api&ordering=id", "/orders/stream/"),
        ("/orders.api", "/orders/stream/"),
        ("/orders/42/", "/orders/42/stream/"),
        ("/orders/42.api", "/orders/42/stream/"),
        ("/tags/new/", "/tags/new/stream/"),
        ("/inner/orders", "/inner/orders/stream"),
        ("/inner/orders/42", "/inner/orders/42/stream"),
        ("/versioned/", "/versioned/stream/?version=v1"),
        ("/versioned/42/?version=v2", "/versioned/42/stream/?version=v2"),
        ("/own/", "/own/stream/"),
        ("/plain/", None),
        ("/", None),
        ("/tags/summary/", None),
        ("/by-hand/", None),
    ],
)
def test_the_pages_of_lists_and_objects_have_the_panel(page, url, stream):
    models.Order.objects.create(pk=42)
    models.Tag.objects.create(name="new")
    assert stream_url(page(url)) == stream


@pytest.mark.urls(__name__)
def test_a_page_that_says_no_has_none(page):
    assert stream_url(page("/orders/7/", status=404)) is None


@pytest.mark.urls(__name__)
def test_s45_what_is_in_a_url_is_no_markup(page):
    name = '"><b onclick=x>'
    models.Tag.objects.create(name=name)
    url = stream_url(page(f"/tags/{quote(name)}/"))
    assert url == "/tags/%22%3E%3Cb%20onclick=x%3E/stream/"


@pytest.mark.urls(__name__)
def test_a_project_may_have_a_page_of_its_own(page, settings):
    own = (
        "{% extends 'rest_framework/base.html' %}"
        "{% block branding %}OUR SHOP{% endblock %}"
        "{% block script %}{{ block.super }}<script src=/own.js></script>{% endblock %}"
    )
    loaders = [
        (
            "django.template.loaders.locmem.Loader",
            {"rest_framework/api.html": own},
        ),
        "django.template.loaders.app_directories.Loader",
    ]
    settings.TEMPLATES = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {"loaders": loaders},
        }
    ]
    html = page("/orders/")
    assert stream_url(html) == "/orders/stream/"
    assert "OUR SHOP" in html
    assert "/own.js" in html


@pytest.mark.urls(__name__)
def test_all_else_of_a_page_stays_as_it_was(page, monkeypatch):
    with_panel = iter(page("/orders/").splitlines())
    # The app is not in INSTALLED_APPS: its templates are not found.
    monkeypatch.setattr(apps, "is_installed", lambda name: False)
    without = page("/orders/")
    assert stream_url(without) is None
    # Each of its lines, in this order; the token is another one each time.
    lines = [line for line in without.splitlines() if line.strip()]
    assert [
        line for line in lines if "csrf" not in line and line not in with_panel
    ] == []


class OwnBrowsableAPIRenderer(renderers.BrowsableAPIRenderer):
    """A project's own: it may have any template."""


RENDERERS = [
    renderers.JSONRenderer,
    OwnBrowsableAPIRenderer,
    renderers.AdminRenderer,
]


def answer(view, renderer, method, **kwargs):
    """What a view answers with one renderer: status, headers and bytes."""
    named = type("ItemViewSet", (view,), {"renderer_classes": (renderer,)})
    actions = {"get": "retrieve" if kwargs else "list", "post": "create"}
    asked = getattr(APIRequestFactory(), method)("/items/", HTTP_ACCEPT="*/*")
    response = named.as_view(actions)(asked, **kwargs).render()
    # The token of a form is another one each time.
    content = re.sub(rb'"csrfToken": "\w*"|value="\w{64}"', b"", response.content)
    return response.status_code, dict(response.headers), content


@pytest.mark.django_db
@pytest.mark.parametrize("renderer", RENDERERS)
@pytest.mark.parametrize(
    ("method", "status"), [("get", 200), ("options", 200), ("post", 400)]
)
def test_every_other_renderer_is_untouched(renderer, method, status):
    item = models.Item.objects.create(name="an item")
    for kwargs in ({}, {"pk": item.pk}):
        streamed = answer(StreamedViewSet, renderer, method, **kwargs)
        assert streamed == answer(PlainViewSet, renderer, method, **kwargs)
        assert streamed[0] == status


class BrowsedSite(Site):
    """The URLs of this module: gunicorn behind a proxy."""

    settings = "tests.contrib.rest_framework.panel_settings"
    wsgi = "django.core.wsgi:get_wsgi_application()"
    probe = "/items/"

    def prepare(self):
        self.manage("migrate", "--run-syncdb", "--verbosity=0")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with BrowsedSite(tmp_path_factory.mktemp("browsed"), "localproxy") as site:
        yield site


class Panel:
    """The panel of a page in the browser."""

    def __init__(self, driver, url):
        self.driver = driver
        driver.get(url)
        self.element = driver.find_element(By.CSS_SELECTOR, "[data-stream-url]")

    def click(self, state):
        """Connect or disconnect, and wait until it says this state."""
        self.element.find_element(By.TAG_NAME, "button").click()
        self.until(lambda: self.element.get_attribute("data-stream-state") == state)

    def until(self, condition):
        WebDriverWait(self.driver, 20, 0.05).until(lambda driver: condition())

    def said(self):
        return self.element.find_element(By.CSS_SELECTOR, "[role=status]").text

    def events(self):
        """The events that it shows, newest first: name and data."""
        items = self.element.find_elements(By.TAG_NAME, "li")
        return [
            (
                item.find_element(By.TAG_NAME, "strong").text,
                json.loads(item.find_element(By.TAG_NAME, "pre").text),
            )
            for item in items
        ]


@pytest.mark.chromium
def test_a_page_shows_what_is_saved_as_it_is_saved(site, driver):
    items = f"{site.url}/items/"
    panel = Panel(driver, items)
    assert panel.said() == "closed"
    panel.click("open")
    panel.until(lambda: panel.events())
    assert panel.events()[0][0] == "ready"
    markup = "<b onclick=x>a</b>"
    assert request(items, "POST", {"name": markup}).status == 201
    panel.until(lambda: len(panel.events()) == 2)
    name, event = panel.events()[0]
    assert (name, event["data"]["name"]) == ("create", markup)
    assert not panel.element.find_elements(By.CSS_SELECTOR, "[onclick]")
    panel.click("closed")
    # It goes on from where it was, behind what others got meanwhile.
    with EventStream(f"{items}stream/") as other:
        assert other.next(20).event == "ready"
        assert request(items, "POST", {"name": "missed"}).status == 201
        assert other.next(20).event == "create"
    panel.click("open")
    panel.until(lambda: len(panel.events()) == 4)
    names = [name for name, event in panel.events()]
    assert names == ["create", "ready", "create", "ready"]
    assert panel.events()[0][1]["data"]["name"] == "missed"


@pytest.mark.chromium
def test_a_page_says_why_its_stream_is_refused(site, driver):
    panel = Panel(driver, f"{site.url}/admin/")
    panel.click("refused")
    assert "403" in panel.said()
    assert "OrderAdminSerializer is not a serializer of the stream" in panel.said()
    panel = Panel(driver, f"http://127.0.0.1:{site.django_port}/items/")
    panel.click("refused")
    assert "501" in panel.said()
    assert "GRIP proxy" in panel.said()
