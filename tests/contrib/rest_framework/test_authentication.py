"""Who asks for a stream, by each way of authenticating; and what permissions see."""

import base64
from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import include, path
from rest_framework import permissions, viewsets
from rest_framework.authentication import (
    BasicAuthentication,
    SessionAuthentication,
    TokenAuthentication,
)
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.routers import DefaultRouter
from rest_framework_simplejwt.authentication import (
    JWTAuthentication,
    JWTStatelessUserAuthentication,
)
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken

from django_grip.contrib.rest_framework import StreamModelMixin
from tests.contrib.rest_framework.drf_page import shown
from tests.shop import models
from tests.shop.serializers import OrderSerializer, TagSerializer

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

SSE = {"HTTP_ACCEPT": "text/event-stream"}


class NamedToken(TokenAuthentication):
    """The token is the name, which spares the tests a table."""

    def authenticate_credentials(self, key):
        user = User.objects.filter(username=key, is_active=True).first()
        if user is None:
            raise AuthenticationFailed("Invalid token.")
        return user, key


class OrderViewSet(StreamModelMixin, viewsets.ModelViewSet):
    queryset = models.Order.objects.order_by("id")
    serializer_class = OrderSerializer
    permission_classes = (permissions.IsAuthenticated,)


def of(authentication, *permission_classes):
    """A viewset of orders with this way of authenticating."""
    attributes = {"authentication_classes": (authentication,)}
    if permission_classes:
        attributes["permission_classes"] = permission_classes
    return type("View", (OrderViewSet,), attributes)


class Seen(permissions.BasePermission):
    """Lets everybody in, and notes what it was shown."""

    seen = []

    def has_permission(self, request, view):
        self.seen.append((request.method, view.action, view.detail, view.streaming))
        return True


class MayView(permissions.DjangoModelPermissions):
    perms_map = {
        **permissions.DjangoModelPermissions.perms_map,
        "GET": ["%(app_label)s.view_%(model_name)s"],
    }


class IsTheirs(permissions.BasePermission):
    """An order's owner is told by its status, for the tests."""

    def has_object_permission(self, request, view, order):
        return order.status == request.user.username


class ByActionViewSet(OrderViewSet):
    """The list is for staff, an object for everybody."""

    authentication_classes = (BasicAuthentication,)

    def get_permissions(self):
        if self.action == "list":
            return [permissions.IsAdminUser()]
        if self.action == "retrieve":
            return [permissions.AllowAny()]
        raise AssertionError(f"asked for {self.action}")


class TagViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = models.Tag.objects.all()
    serializer_class = TagSerializer


VIEWS = {
    "basic": of(BasicAuthentication),
    "token": of(NamedToken),
    "jwt": of(JWTAuthentication),
    "stateless": of(JWTStatelessUserAuthentication),
    "session": of(SessionAuthentication),
    "seen": of(BasicAuthentication, Seen),
    "model": of(BasicAuthentication, permissions.DjangoModelPermissions),
    "may-view": of(BasicAuthentication, MayView),
    "read-only": of(BasicAuthentication, permissions.IsAuthenticatedOrReadOnly),
    "theirs": of(BasicAuthentication, permissions.IsAuthenticated, IsTheirs),
    "by-action": ByActionViewSet,
    "no-streams": of(
        BasicAuthentication, shown("shop/permissions.py")["StreamsForUsers"]
    ),
    "tags": TagViewSet,
}
router = DefaultRouter()
for prefix, view in VIEWS.items():
    router.register(prefix, view, basename=prefix)
urlpatterns = [path("", include(router.urls))]


def create_user(name="ann", **values):
    return User.objects.create_user(name, password="a-password", **values)


@pytest.fixture(autouse=True)
def quick_passwords(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def user():
    return create_user()


def basic(name, password="a-password"):
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def bearer(user):
    return f"Bearer {AccessToken.for_user(user)}"


CREDENTIALS = [
    ("basic", lambda user: basic(user.username)),
    ("token", lambda user: f"Token {user.username}"),
    ("jwt", bearer),
    ("stateless", bearer),
]


@pytest.mark.parametrize(("prefix", "credentials"), CREDENTIALS)
def test_a_header_opens_a_stream(through_proxy, user, prefix, credentials):
    order = models.Order.objects.create()
    headers = {"HTTP_AUTHORIZATION": credentials(user), **SSE}
    for url, channel in [
        (f"/{prefix}/stream/", "shop.order"),
        (f"/{prefix}/{order.pk}/stream/", f"shop.order.{order.pk}"),
    ]:
        response = through_proxy.get(url, **headers)
        assert response.status_code == 200, response.content
        assert response["Content-Type"] == "text/event-stream"
        assert response["Grip-Channel"] == channel


@pytest.mark.parametrize(("prefix", "credentials"), CREDENTIALS[:3])
def test_a_header_gets_a_ticket_that_opens_one_stream(
    through_proxy, user, prefix, credentials
):
    url = f"/{prefix}/stream/"
    assert through_proxy.post(f"{url}ticket/").status_code == 401
    headers = {"HTTP_AUTHORIZATION": credentials(user)}
    ticket = through_proxy.post(f"{url}ticket/", **headers).json()["ticket"]
    opened = through_proxy.get(f"{url}?ticket={ticket}", **SSE)
    assert opened["Grip-Channel"] == "shop.order"
    other = through_proxy.get(f"/{prefix}/?ticket={ticket}")
    assert other.status_code == 401


@pytest.mark.parametrize(
    ("prefix", "status", "challenge"),
    [
        ("basic", 401, 'Basic realm="api"'),
        ("token", 401, "Token"),
        ("jwt", 401, 'Bearer realm="api"'),
        ("session", 403, None),
    ],
)
def test_nobody_is_refused_as_get_refuses(through_proxy, prefix, status, challenge):
    order = models.Order.objects.create()
    for url in (f"/{prefix}/", f"/{prefix}/{order.pk}/"):
        got = through_proxy.get(url)
        streamed = through_proxy.get(f"{url}stream/", **SSE)
        assert streamed.status_code == got.status_code == status
        assert streamed.content == got.content
        assert streamed.get("WWW-Authenticate") == challenge
        assert streamed["Content-Type"] == "application/json"
        assert "Grip-Hold" not in streamed


def expired(user):
    token = AccessToken.for_user(user)
    token.set_exp(lifetime=-timedelta(minutes=1))
    return f"Bearer {token}"


@pytest.mark.parametrize(
    ("prefix", "credentials"),
    [
        ("basic", lambda user: basic(user.username, "another")),
        ("token", lambda user: "Token nobody"),
        ("jwt", expired),
        ("jwt", lambda user: f"Bearer {RefreshToken.for_user(user)}"),
        ("jwt", lambda user: "Bearer x.y.z"),
    ],
)
def test_bad_credentials_are_401(through_proxy, user, prefix, credentials):
    headers = {"HTTP_AUTHORIZATION": credentials(user), **SSE}
    response = through_proxy.get(f"/{prefix}/stream/", **headers)
    assert response.status_code == 401
    assert "Grip-Hold" not in response


def test_who_is_no_longer_active_is_refused(through_proxy, user):
    headers = {"HTTP_AUTHORIZATION": bearer(user)}
    assert through_proxy.get("/jwt/stream/", **headers).status_code == 200
    User.objects.update(is_active=False)
    assert through_proxy.get("/jwt/stream/", **headers).status_code == 401


@pytest.fixture
def sessions(settings):
    """A site with sessions, all in the cookie, where every plain view needs a login."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    settings.MIDDLEWARE = [
        "django_grip.GripMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]


def test_a_session_opens_a_stream_until_logout(sessions, through_proxy, user):
    through_proxy.force_login(user)
    response = through_proxy.get("/session/stream/", **SSE)
    assert response["Grip-Channel"] == "shop.order"
    through_proxy.logout()
    assert through_proxy.get("/session/stream/", **SSE).status_code == 403


def test_a_session_gets_a_ticket_with_a_csrf_token(sessions, user, grip_sig):
    client = Client(enforce_csrf_checks=True, HTTP_GRIP_SIG=grip_sig)
    client.force_login(user)
    url = "/session/stream/ticket/"
    assert client.post(url).status_code == 403
    token = "a" * 32
    client.cookies["csrftoken"] = token
    given = client.post(url, HTTP_X_CSRFTOKEN=token)
    assert given.status_code == 200, given.content
    elsewhere = Client(HTTP_GRIP_SIG=grip_sig)
    opened = elsewhere.get("/session/stream/", {"ticket": given.json()["ticket"]})
    assert opened["Grip-Channel"].startswith("shop.order")


def test_where_every_view_needs_a_login_streams_are_as_the_api(sessions, through_proxy):
    for url in ("/session/", "/session/stream/"):
        assert through_proxy.get(url).status_code == 403
    for url in ("/tags/", "/tags/stream/"):
        assert through_proxy.get(url).status_code == 200


def test_permissions_see_a_get_of_the_list_or_the_object(through_proxy):
    order = models.Order.objects.create()
    Seen.seen.clear()
    through_proxy.get("/seen/stream/", **SSE)
    through_proxy.get(f"/seen/{order.pk}/stream/", **SSE)
    assert Seen.seen == [("GET", "list", False, True), ("GET", "retrieve", True, True)]


def test_permissions_by_action(through_proxy):
    order = models.Order.objects.create()
    staff = {"HTTP_AUTHORIZATION": basic(create_user(is_staff=True).username)}
    assert through_proxy.get("/by-action/stream/").status_code == 401
    assert through_proxy.get("/by-action/stream/", **staff).status_code == 200
    assert through_proxy.get(f"/by-action/{order.pk}/stream/").status_code == 200


def test_streams_may_have_permissions_of_their_own(through_proxy, user):
    headers = {"HTTP_AUTHORIZATION": basic(user.username)}
    assert through_proxy.get("/no-streams/").status_code == 200
    assert through_proxy.get("/no-streams/stream/").status_code == 401
    assert through_proxy.get("/no-streams/stream/", **headers).status_code == 200


def test_model_permissions(through_proxy, user):
    headers = {"HTTP_AUTHORIZATION": basic(user.username)}
    assert through_proxy.get("/model/stream/").status_code == 401
    assert through_proxy.get("/model/stream/", **headers).status_code == 200
    assert through_proxy.get("/may-view/stream/", **headers).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_order"))
    assert through_proxy.get("/may-view/stream/", **headers).status_code == 200


def test_who_may_only_read_may_stream(through_proxy):
    assert through_proxy.post("/read-only/", {}).status_code == 401
    assert through_proxy.get("/read-only/stream/").status_code == 200


def test_s25_another_users_object_is_refused_with_the_words_of_get(through_proxy, user):
    create_user("bob")
    order = models.Order.objects.create(status="ann")
    url = f"/theirs/{order.pk}/"
    for name, status in [("ann", 200), ("bob", 403)]:
        headers = {"HTTP_AUTHORIZATION": basic(name)}
        got = through_proxy.get(url, **headers)
        streamed = through_proxy.get(f"{url}stream/", **headers)
        assert streamed.status_code == got.status_code == status
    assert streamed.content == got.content


def test_a_site_without_users_streams(through_proxy, settings):
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "UNAUTHENTICATED_USER": None}
    assert through_proxy.get("/tags/stream/").status_code == 200
