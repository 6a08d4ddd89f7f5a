"""Streams of the tests of sockets: views that refuse, limit or fail, each its way."""

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import include, path
from rest_framework import viewsets
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.routers import DefaultRouter
from rest_framework.throttling import SimpleRateThrottle

from django_grip.contrib.rest_framework import RealtimeSocket, StreamModelMixin
from tests.shop import models, serializers, views


class ByName(BaseAuthentication):
    """Who asks says so in the header X-User."""

    def authenticate(self, request):
        name = request.headers.get("X-User")
        user = User.objects.filter(username=name, is_active=True).first()
        return None if user is None else (user, None)

    def authenticate_header(self, request):
        return "X-User"


class IsAllowed(BasePermission):
    """Refuses the users of this name."""

    refused = set()

    def has_permission(self, request, view):
        return request.user.username not in self.refused


class FewAMinute(SimpleRateThrottle):
    rate = "2/m"

    def get_cache_key(self, request, view):
        return "few"


class PersonalTags(views.TagViewSet):
    authentication_classes = (ByName,)
    permission_classes = (IsAuthenticated, IsAllowed)


class SessionTags(views.TagViewSet):
    authentication_classes = (SessionAuthentication,)
    permission_classes = (IsAuthenticated,)


class PublicSessionTags(views.TagViewSet):
    """Everybody may, and the view knows who it is."""

    authentication_classes = (SessionAuthentication,)


class ThrottledTags(views.TagViewSet):
    throttle_classes = (FewAMinute,)


class FailingTags(views.TagViewSet):
    def check_permissions(self, request):
        raise RuntimeError("the secret of a view")


class OtherTags(views.TagViewSet):
    """Streams nothing."""

    def dispatch(self, request, *args, **kwargs):
        return HttpResponse("something else")


class RowsTags(views.TagViewSet):
    stream_snapshot = True
    queryset = models.Tag.objects.order_by("id")


class Words(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = models.Word.objects.all()
    serializer_class = serializers.TagSerializer


router = DefaultRouter()
router.register("tags", views.TagViewSet, basename="tag")
router.register("orders", views.OrderViewSet, basename="order")
router.register("guarded", views.GuardedOrderViewSet, basename="guarded")
router.register("lines", views.LineViewSet, basename="line")
router.register("items", views.ItemViewSet, basename="item")
router.register("personal", PersonalTags, basename="personal")
router.register("session", SessionTags, basename="session")
router.register("public", PublicSessionTags, basename="public")
router.register("throttled", ThrottledTags, basename="throttled")
router.register("failing", FailingTags, basename="failing")
router.register("other", OtherTags, basename="other")
router.register("rows", RowsTags, basename="rows")
router.register("words", Words, basename="word")

urlpatterns = [
    path("", include(router.urls)),
    path("realtime/", RealtimeSocket.as_view()),
    path("hold/", views.hold),
]
