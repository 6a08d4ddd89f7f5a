"""The app of the core."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register

from django_grip import checks


class DjangoGripConfig(AppConfig):
    """Registers the checks; the core has no models."""

    name = "django_grip"
    label = "django_grip"
    verbose_name = "GRIP"

    def ready(self) -> None:
        """Wire the checks."""
        register(checks.check_middleware)
        register(checks.check_proxies)
        register(checks.check_clear_text)
        register(checks.check_publisher)
        register(checks.check_visible_key, deploy=True)
