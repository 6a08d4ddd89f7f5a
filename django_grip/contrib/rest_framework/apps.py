"""The app of the REST framework layer."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register


class RestFrameworkConfig(AppConfig):
    """Registers the checks of stream views."""

    name = "django_grip.contrib.rest_framework"
    label = "grip_rest_framework"
    verbose_name = "GRIP REST framework"

    def ready(self) -> None:
        """Wire the checks."""
        from django_grip.contrib.rest_framework import checks

        register(checks.check_views)
