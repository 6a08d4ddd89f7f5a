from django.http import HttpResponse
from rest_framework import viewsets
from rest_framework.permissions import BasePermission

from django_grip import set_hold_stream
from django_grip.contrib.rest_framework import StreamModelMixin
from tests.shop import models, serializers


class HasBadge(BasePermission):
    """Lists for all, objects for those who show a badge; sees action and user."""

    def has_permission(self, request, view):
        return view.action in ("list", "retrieve")

    def has_object_permission(self, request, view, obj):
        return request.headers.get("X-Badge") == "yes"


class OrderViewSet(StreamModelMixin, viewsets.ModelViewSet):
    queryset = models.Order.objects.order_by("id")
    serializer_class = serializers.OrderSerializer


class GuardedOrderViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = models.Order.objects.all()
    serializer_class = serializers.OrderSerializer
    permission_classes = (HasBadge,)


class OpenOrderViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    """Its list hides rows; an object outside it is 404."""

    queryset = models.Order.objects.filter(status="new")
    serializer_class = serializers.OrderSerializer
    stream_all_rows = True


class LineViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = models.Line.objects.all()
    serializer_class = serializers.LineSerializer


class TagViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = models.Tag.objects.all()
    serializer_class = serializers.TagSerializer


class ItemViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    queryset = models.Item.objects.all()
    serializer_class = serializers.ItemSerializer


class StaffItemViewSet(ItemViewSet):
    serializer_class = serializers.StaffItemSerializer


def hold(request):
    """A plain view that holds, as users of django-grip write it."""
    response = HttpResponse("[stream open]\n")
    set_hold_stream(request, "room")
    return response


async def ahold(request):
    return hold(request)


def plain(request):
    return HttpResponse("plain")


def large(request):
    """An answer that GZipMiddleware would compress."""
    response = HttpResponse("x" * 1000)
    set_hold_stream(request, "room")
    return response
