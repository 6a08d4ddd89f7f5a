"""Scopes of views: each caller holds the channel of one value, or none."""

import json
import logging

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.http import Http404
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject
from django.views.decorators.cache import never_cache
from django_filters.rest_framework import DjangoFilterBackend
from rest_framework import mixins, viewsets
from rest_framework.exceptions import PermissionDenied
from rest_framework.filters import SearchFilter
from rest_framework.test import APIRequestFactory
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.versioning import URLPathVersioning

from django_grip import GripMiddleware
from django_grip.contrib.rest_framework import StreamModelMixin
from tests.contrib.eventlog.history_fixtures import at, frames, last_seq, relay
from tests.contrib.rest_framework.projects import ProjectViewSet
from tests.shop import models, serializers, views
from tests.shop.models import Project, Tenant
from tests.shop.reading import configurator

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.urls("tests.contrib.rest_framework.projects"),
]


def as_user(name):
    return {"HTTP_X_USER": name}


@pytest.fixture
def tenants():
    """Ann is of the first tenant, Bob of the second, Eve of none."""
    made = []
    for name in ("ann", "bob", "eve"):
        user = User.objects.create(username=name)
        if name != "eve":
            made.append(Tenant.objects.create(name=f"tenant of {name}"))
            made[-1].members.add(user)
    return made


def stream(view_class, grip_sig, path="/x/stream/", pk=None, **kwargs):
    """Ask a viewset for a stream as the router would, below the middleware."""
    name = "stream_collection" if pk is None else "stream_object"
    view = view_class.as_view({"get": name})
    request = APIRequestFactory().get(path, HTTP_GRIP_SIG=grip_sig)
    kwargs |= {} if pk is None else {"pk": pk}

    def get_response(request):
        response = view(request, **kwargs)
        return response.render() if response.status_code >= 400 else response

    return GripMiddleware(get_response)(request)


def refusal(response):
    """What a client that gets no stream is told."""
    assert response.status_code == 403, response.content
    assert "Grip-Hold" not in response
    return json.loads(response.content)["detail"]


NOTHING = "There is nothing here that you may stream."
SHORT = "This cannot be streamed."

# Who holds what.


def test_each_caller_holds_the_channel_of_its_own_value(through_proxy, tenants):
    for name, tenant in zip(("ann", "bob"), tenants, strict=True):
        response = through_proxy.get("/projects/stream/", **as_user(name))
        assert response["Grip-Hold"] == "stream"
        assert response["Grip-Channel"] == f"shop.project~tenant.{tenant.pk}"
        ready = {"channel": f"shop.project~tenant.{tenant.pk}", "gapless": False}
        assert frames(response).data("ready") == ready


def test_s25_who_has_no_value_holds_nothing(through_proxy, tenants):
    Project.objects.create(tenant=None, name="of nobody")
    for name in ("eve", "nobody"):
        response = through_proxy.get("/projects/stream/", **as_user(name))
        assert refusal(response) == NOTHING


def test_s25_the_url_of_anothers_tenant_answers_as_that_of_none(through_proxy, tenants):
    own, other = tenants
    path = "/tenants/{}/projects/stream/"
    response = through_proxy.get(path.format(own.pk), **as_user("ann"))
    assert response["Grip-Channel"] == f"shop.project~tenant.{own.pk}"
    refused = [
        through_proxy.get(path.format(pk), **as_user("ann")) for pk in (other.pk, 999)
    ]
    assert [response.status_code for response in refused] == [404, 404]
    assert refused[0].content == refused[1].content
    assert not any("Grip-Hold" in response for response in refused)


def test_an_objects_stream_is_the_objects_own_however_the_list_is_scoped(
    through_proxy, tenants
):
    project = Project.objects.create(tenant=tenants[0], name="p")
    path = f"/projects/{project.pk}/stream/"
    response = through_proxy.get(path, **as_user("ann"))
    assert response["Grip-Channel"] == f"shop.project.{project.pk}"
    assert through_proxy.get(path, **as_user("bob")).status_code == 404


def test_a_scope_of_true_is_the_channel_true(through_proxy):
    response = through_proxy.get("/public/stream/")
    assert response["Grip-Channel"] == "shop.project~public.true"


def test_a_scope_goes_with_the_audience(grip_sig):
    class View(views.StaffItemViewSet):
        stream_scope = "reserve"

        def get_stream_scope(self):
            return 100

    with configurator() as configure:
        configure(models.Item, scopes={"reserve": "reserve"})
        held = stream(View, grip_sig)["Grip-Channel"]
    assert held == "shop.item~reserve.100~as.staff"


# What a scope's value may be.


def valued(value):
    class View(ProjectViewSet):
        authentication_classes = ()

        def get_stream_scope(self):
            return value() if callable(value) else value

    return View


@pytest.mark.parametrize(
    ("value", "channel"),
    [
        (7, "7"),
        (0, "0"),
        ("north-east", "north-east"),
        ("a.b~c d", "a%2Eb%7Ec%20d"),
        (True, "true"),
        (Tenant(pk=7), "7"),
        (SimpleLazyObject(lambda: User(pk=8)), "8"),
        ("7\r\nGrip-Hold: response", "7%0D%0AGrip-Hold%3A%20response"),
    ],
)
def test_a_value_is_text_as_the_models_scope_writes_it(grip_sig, value, channel):
    response = stream(valued(value), grip_sig)
    assert response["Grip-Channel"] == f"shop.project~tenant.{channel}"
    assert response["Grip-Hold"] == "stream"


@pytest.mark.parametrize(
    "value",
    [
        None,
        False,
        "",
        Tenant(),
        AnonymousUser(),
        SimpleLazyObject(lambda: User()),
        SimpleLazyObject(AnonymousUser),
    ],
)
def test_no_value_refuses_the_stream(grip_sig, value):
    assert refusal(stream(valued(value), grip_sig)) == NOTHING


@pytest.mark.parametrize(
    "value", [[7], [], (7, 8), {7}, range(10_000), Tenant.objects.all(), {"tenant": 7}]
)
def test_s29_several_values_are_the_programmers_mistake(grip_sig, value):
    with pytest.raises(ImproperlyConfigured, match="expected one value"):
        stream(valued(lambda: value), grip_sig)


def test_s29_what_a_client_asks_for_never_becomes_a_channel(through_proxy, tenants):
    many = "&".join(f"channel=shop.project.{n}" for n in range(900))
    response = through_proxy.get(f"/projects/stream/?{many}", **as_user("ann"))
    assert response.status_code == 400
    more = "&".join(f"channel={n}" for n in range(10_000))
    response = through_proxy.get(f"/projects/stream/?{more}", **as_user("ann"))
    assert response.status_code == 400
    assert "Grip-Hold" not in response
    assert through_proxy.get("/projects/stream/?tenant=2", **as_user("ann")).json() == {
        "detail": "A stream takes no parameter tenant: it is not filtered. Filter the "
        "events in the client."
    }


@pytest.mark.parametrize(
    ("raised", "status"), [(PermissionDenied("No."), 403), (Http404("No."), 404)]
)
def test_what_get_stream_scope_raises_is_the_answer(grip_sig, raised, status):
    class View(ProjectViewSet):
        def get_stream_scope(self):
            raise raised

    response = stream(View, grip_sig)
    assert response.status_code == status
    assert "Grip-Hold" not in response


def test_a_view_without_users_streams(grip_sig):
    class View(views.OrderViewSet):
        def perform_authentication(self, request):
            request._not_authenticated()
            request.user = None

    assert stream(View, grip_sig)["Grip-Channel"] == "shop.order"


# Mistakes of the programmer.


def test_a_scope_without_get_stream_scope_says_what_is_missing(grip_sig):
    class View(views.OrderViewSet):
        queryset = Project.objects.all()
        serializer_class = serializers.ProjectSerializer
        stream_scope = "tenant"

    with pytest.raises(ImproperlyConfigured, match=r"Define it: it returns the value"):
        stream(View, grip_sig)


def test_a_scope_that_the_stream_does_not_have_is_403(grip_sig, settings):
    class View(ProjectViewSet):
        stream_scope = "owner"

    assert refusal(stream(View, grip_sig)) == SHORT
    settings.DEBUG = True
    text = refusal(stream(View, grip_sig))
    assert "'owner'" in text
    assert "'tenant', 'region', 'public'" in text


# Fail closed: whatever narrows a list, and the three ways out.


class OwnFilter(SearchFilter):
    pass


class Overrides(views.OrderViewSet):
    def get_queryset(self):
        return super().get_queryset()


class OverridesFilter(views.OrderViewSet):
    def filter_queryset(self, queryset):
        return queryset.filter(status="new")


class OverridesList(views.OrderViewSet):
    def list(self, request):
        self.queryset = self.queryset.filter(status="new")
        return super().list(request)


class HasNoList(StreamModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    queryset = models.Order.objects.all()
    serializer_class = serializers.OrderSerializer


class Where(views.OrderViewSet):
    queryset = models.Order.objects.filter(status="new")


class Sliced(views.OrderViewSet):
    queryset = models.Order.objects.all()[:5]


class Filtered(views.OrderViewSet):
    filter_backends = (OwnFilter,)


NARROWED = [
    Overrides,
    OverridesFilter,
    OverridesList,
    HasNoList,
    Where,
    Sliced,
    Filtered,
]


@pytest.mark.parametrize("view", NARROWED)
def test_a_list_that_may_hide_rows_has_no_stream_and_the_cures_are_named(
    view, grip_sig, settings
):
    assert refusal(stream(view, grip_sig)) == SHORT
    settings.DEBUG = True
    text = refusal(stream(view, grip_sig))
    assert view.__name__ in text
    for cure in ("stream_scope =", "stream_all_rows = True", 'stream_mode = "refresh"'):
        assert cure in text


@pytest.mark.parametrize("view", NARROWED)
def test_each_of_the_three_ways_out_opens_it(view, grip_sig):
    with configurator() as configure:
        configure(models.Order, scopes={"status": "status"}, refresh=True)
        held = [
            stream(type("Declared", (view,), declared), grip_sig)["Grip-Channel"]
            for declared in (
                {"stream_all_rows": True},
                {"stream_scope": "status", "get_stream_scope": lambda self: "new"},
                {"stream_mode": "refresh"},
            )
        ]
    assert held == ["shop.order", "shop.order~status.new", "shop.order~as.refresh"]


@pytest.mark.parametrize("backend", [SearchFilter, DjangoFilterBackend])
def test_a_list_that_is_only_decorated_hides_nothing(grip_sig, backend):
    @method_decorator(never_cache, name="list")
    class View(views.OrderViewSet):
        filter_backends = (backend,)

    assert stream(View, grip_sig).status_code == 200


def test_parameters_of_the_lists_url_have_to_be_declared(grip_sig, settings):
    settings.DEBUG = True
    text = refusal(stream(views.OrderViewSet, grip_sig, customer_pk="7"))
    assert "The URL of OrderViewSet names a part of the rows (customer_pk)" in text

    class Declared(views.OrderViewSet):
        stream_all_rows = True

    assert stream(Declared, grip_sig, customer_pk="7").status_code == 200


def test_parameters_that_say_how_and_not_which_need_no_word(grip_sig):
    class Versioned(views.OrderViewSet):
        versioning_class = URLPathVersioning

    assert stream(Versioned, grip_sig, version="v1").status_code == 200
    assert stream(views.OrderViewSet, grip_sig, version="v1").status_code == 403


class NestedViewSetMixin:
    """As drf-nested-routers narrows a list, and says so to the view."""

    def initialize_request(self, request, *args, **kwargs):
        drf_request = super().initialize_request(request, *args, **kwargs)
        parameters = drf_request.query_params
        parameters._mutable = True
        parameters["status"] = kwargs["status_pk"]
        parameters._mutable = False
        return drf_request

    def get_queryset(self):
        return super().get_queryset().filter(status=self.kwargs["status_pk"])


def test_a_nested_list_is_refused_until_it_is_declared(grip_sig, settings):
    class Nested(NestedViewSetMixin, views.OrderViewSet):
        pass

    class Declared(Nested):
        stream_scope = "status"

        def get_stream_scope(self):
            return self.kwargs["status_pk"]

    settings.DEBUG = True
    text = refusal(stream(Nested, grip_sig, status_pk="new"))
    assert "Nested overrides get_queryset()" in text
    with configurator() as configure:
        configure(models.Order, scopes={"status": "status"})
        response = stream(Declared, grip_sig, status_pk="new")
        assert response["Grip-Channel"] == "shop.order~status.new"
        path = "/x/stream/?status=new"
        assert stream(Declared, grip_sig, path, status_pk="new").status_code == 400
    order = models.Order.objects.create(status="paid")
    assert stream(Nested, grip_sig, pk=order.pk, status_pk="new").status_code == 404


def test_an_objects_stream_asks_for_no_declaration(grip_sig):
    order = models.Order.objects.create()
    for view in NARROWED:
        if view is not Sliced:
            assert stream(view, grip_sig, pk=order.pk).status_code == 200


def test_a_view_may_have_no_stream_of_its_list():
    class View(Overrides):
        stream_collection = None

    routed = [extra.__name__ for extra in View.get_extra_actions()]
    assert "stream_object" in routed
    assert not any("collection" in name for name in routed)


# What clients are told.


def test_s46_refusals_name_nothing_of_the_programs(through_proxy, caplog, grip_sig):
    class Unfitting(views.OrderViewSet):
        serializer_class = serializers.OrderAdminSerializer

    class Wrong(views.ItemViewSet):
        stream_audience = "boss"

    class Unscoped(ProjectViewSet):
        stream_scope = "owner"

    class Moody(views.OrderViewSet):
        stream_mode = "refreshed"

    class Thin(views.OrderViewSet):
        stream_mode = "refresh"

    with caplog.at_level(logging.WARNING, "django_grip.rest_framework"):
        for view in (*NARROWED, Unfitting, Wrong, Unscoped, Moody, Thin):
            caplog.clear()
            response = stream(view, grip_sig)
            assert refusal(response) == SHORT
            told = response.content.decode() + str(response.headers)
            told = told.replace("application/json", "")
            for secret in ("Order", "Item", "Project", "shop", "SELECT", "/", "_"):
                assert secret not in told
            # The programmer finds the reason.
            assert "No stream at /x/stream/: " in caplog.text
            assert "stream" in caplog.text


@pytest.mark.parametrize("query", ["", "?wait=5", "?snapshot=1"])
def test_s46_an_error_of_the_view_tells_clients_nothing(
    through_proxy, tenants, monkeypatch, query
):
    def get_stream_scope(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT secret FROM nowhere")

    monkeypatch.setattr(ProjectViewSet, "get_stream_scope", get_stream_scope)
    through_proxy.raise_request_exception = False
    response = through_proxy.get(f"/projects/stream/{query}", **as_user("ann"))
    assert response.status_code == 500
    for secret in (b"SELECT", b"nowhere", b"Project", b".py", b"Traceback"):
        assert secret not in response.content
    assert "Grip-Hold" not in response


def test_s34_who_lost_the_right_gets_nothing_of_what_was_missed(
    through_proxy, tenants, log
):
    tenant, _ = tenants
    path = "/projects/stream/"
    project = Project.objects.create(tenant=tenant, name="seen")
    relay()
    position = frames(through_proxy.get(path, **as_user("ann"))).data("ready")
    Project.objects.filter(pk=project.pk).update(name="missed")
    relay()
    since = {"HTTP_LAST_EVENT_ID": position["position"]}
    assert "missed" in frames_text(through_proxy.get(path, **as_user("ann"), **since))
    tenant.members.clear()
    for extra in (since, {}):
        response = through_proxy.get(path, **as_user("ann"), **extra)
        assert refusal(response) == NOTHING
        assert b"missed" not in response.content
        missed = through_proxy.get(
            f"/projects/{project.pk}/stream/", **as_user("ann"), **extra
        )
        assert missed.status_code == 404
        assert b"missed" not in missed.content


def test_s35_who_is_granted_later_resumes_where_its_position_says(
    through_proxy, tenants, log
):
    """There is no rule of its own for what came before: who may see the stream may."""
    tenant, _ = tenants
    position = frames(through_proxy.get("/projects/stream/", **as_user("ann"))).data(
        "ready"
    )["position"]
    members = list(tenant.members.all())
    tenant.members.clear()
    Project.objects.create(tenant=tenant, name="before the grant")
    relay()
    since = {"HTTP_LAST_EVENT_ID": position}
    refused = through_proxy.get("/projects/stream/", **as_user("ann"), **since)
    assert refusal(refused) == NOTHING
    tenant.members.set(members)
    granted = through_proxy.get("/projects/stream/", **as_user("ann"), **since)
    assert "before the grant" in frames_text(granted)


def frames_text(response):
    return json.dumps(frames(response).events)


def test_s34_a_position_of_another_channel_opens_nothing_of_it(
    through_proxy, tenants, log
):
    Project.objects.create(tenant=tenants[1], name="of bob")
    relay()
    found = frames(
        through_proxy.get(
            "/projects/stream/", HTTP_LAST_EVENT_ID=at(0), **as_user("ann")
        )
    )
    assert found.names == ["ready"]


def test_s33_a_project_that_moves_is_told_to_each_tenant_as_it_may_know(
    through_proxy, tenants, log
):
    ann, bob = tenants
    project = Project.objects.create(tenant=ann, name="plan")
    relay()
    before = at(last_seq())
    project.tenant, project.name = bob, "the new name"
    project.save()
    relay()

    def missed(name):
        response = through_proxy.get(
            "/projects/stream/", HTTP_LAST_EVENT_ID=before, **as_user(name)
        )
        return frames(response).events[1:]

    [(name, _, left)] = missed("ann")
    assert (name, left["reason"], left["pk"]) == ("delete", "leave", project.pk)
    assert "the new name" not in json.dumps(left)
    [(name, _, entered)] = missed("bob")
    assert (name, entered["reason"]) == ("create", "enter")
    assert entered["data"]["name"] == "the new name"


def test_s51_a_throttle_ends_a_storm_with_429_and_says_for_how_long(grip_sig):
    class Throttle(SimpleRateThrottle):
        rate = "2/min"
        scope = "streams"

        def get_cache_key(self, request, view):
            return "one" if view.streaming else None

    class View(views.OrderViewSet):
        throttle_classes = (Throttle,)

    answers = [stream(View, grip_sig) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 0 < int(answers[-1]["Retry-After"]) <= 60
    assert "Grip-Hold" not in answers[-1]


# The same over the other transports.


def socket(client, path, **headers):
    """Open a WebSocket at a stream's URL, as the proxy posts it."""
    return client.post(
        path,
        b"OPEN\r\n",
        content_type="application/websocket-events",
        HTTP_CONNECTION_ID="c1",
        **headers,
    )


def test_a_websocket_holds_the_channel_of_its_callers_value(through_proxy, tenants):
    response = socket(through_proxy, "/projects/stream/", **as_user("ann"))
    assert response.status_code == 200
    assert f"shop.project~tenant.{tenants[0].pk}".encode() in response.content


@pytest.mark.parametrize("transport", ["sse", "long-poll", "websocket"])
@pytest.mark.parametrize(
    ("path", "user", "status"),
    [
        ("/projects/stream/", "eve", 403),
        ("/tenants/999/projects/stream/", "ann", 404),
        ("/projects/999/stream/", "ann", 404),
        ("/refreshed/999/stream/", "ann", 404),
        ("/projects/stream/?tenant=7", "ann", 400),
        ("/projects/stream/?snapshot=x", "ann", 400),
        ("/refreshed/stream/?snapshot=1", "ann", 400),
    ],
)
def test_each_transport_is_refused_alike(
    through_proxy, tenants, transport, path, user, status
):
    if transport == "websocket":
        response = socket(through_proxy, path, **as_user(user))
    else:
        sign = "&" if "?" in path else "?"
        path += f"{sign}wait=5" if transport == "long-poll" else ""
        response = through_proxy.get(path, **as_user(user))
    assert response.status_code == status
    assert "detail" in response.json()
    assert not [name for name in response.headers if name.startswith("Grip-")]


@pytest.mark.parametrize("query", ["", "?wait=5", "?snapshot=1"])
def test_a_direct_request_is_501_after_the_view_has_agreed(client, tenants, query):
    path = f"/projects/stream/{query}"
    assert client.get(path, **as_user("ann")).status_code == 501
    assert client.get(path, **as_user("eve")).status_code == 403
