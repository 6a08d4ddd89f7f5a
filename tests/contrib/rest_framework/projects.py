"""Views of the projects of tenants, each with a stream of its own kind, and their URLs.

Who asks says so in the header X-User.
"""

from django.contrib.auth.models import User
from django.shortcuts import get_object_or_404
from django.urls import include, path
from rest_framework import viewsets
from rest_framework.authentication import BaseAuthentication
from rest_framework.routers import DefaultRouter

from django_grip.contrib.rest_framework import StreamModelMixin
from tests.shop.models import Project, Tenant
from tests.shop.serializers import ProjectSerializer


class ByName(BaseAuthentication):
    def authenticate(self, request):
        user = User.objects.filter(username=request.headers.get("X-User")).first()
        return None if user is None else (user, None)


class OwnProjects(StreamModelMixin, viewsets.ModelViewSet):
    queryset = Project.objects.order_by("id")
    serializer_class = ProjectSerializer
    authentication_classes = (ByName,)

    def get_queryset(self):
        return super().get_queryset().filter(tenant__members=self.request.user.pk)


class ProjectViewSet(OwnProjects):
    """The projects of the caller's tenant."""

    stream_scope = "tenant"

    def get_stream_scope(self):
        return Tenant.objects.filter(members=self.request.user.pk).first()


class NestedProjectViewSet(ProjectViewSet):
    """The projects of the tenant in the URL, for its members."""

    def get_queryset(self):
        return super().get_queryset().filter(tenant=self.kwargs["tenant_pk"])

    def get_stream_scope(self):
        members = Tenant.objects.filter(members=self.request.user.pk)
        return get_object_or_404(members, pk=self.kwargs["tenant_pk"])


class RefreshedProjectViewSet(OwnProjects):
    """Its rows are chosen one by one: its stream says only that there is news."""

    stream_mode = "refresh"


class RefreshedTenantViewSet(ProjectViewSet):
    """The same, of news of the caller's tenant only."""

    stream_mode = "refresh"


class PublicProjectViewSet(StreamModelMixin, viewsets.ReadOnlyModelViewSet):
    """A scope whose value is True."""

    queryset = Project.objects.filter(is_public=True).order_by("id")
    serializer_class = ProjectSerializer
    stream_scope = "public"
    stream_snapshot = True

    def get_stream_scope(self):
        return True


router = DefaultRouter()
router.register("projects", ProjectViewSet, basename="project")
router.register(
    r"tenants/(?P<tenant_pk>[^/.]+)/projects", NestedProjectViewSet, basename="nested"
)
router.register("refreshed", RefreshedProjectViewSet, basename="refreshed")
router.register("tenant-refreshed", RefreshedTenantViewSet, basename="of-tenant")
router.register("public", PublicProjectViewSet, basename="public")

urlpatterns = [path("", include(router.urls))]
