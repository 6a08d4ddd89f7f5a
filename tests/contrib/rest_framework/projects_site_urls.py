"""The URLs of projects_site.py."""

from rest_framework.routers import DefaultRouter

from tests.contrib.rest_framework import projects
from tests.contrib.rest_framework.projects_site import wait


class SlowProjectViewSet(projects.ProjectViewSet):
    """Somebody writes between its position and its rows."""

    def filter_queryset(self, queryset):
        wait()
        return super().filter_queryset(queryset)


router = DefaultRouter()
router.register("slow", SlowProjectViewSet, basename="slow")

urlpatterns = [*projects.urlpatterns, *router.urls]
