"""The app of the realtime layer."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register
from django.utils.module_loading import autodiscover_modules


class RealtimeConfig(AppConfig):
    """Finds every `streams.py` and connects the signals."""

    name = "django_grip.contrib.realtime"
    label = "grip_realtime"
    verbose_name = "GRIP realtime"

    def ready(self) -> None:
        """Wire capture: every model exists from here on."""
        from django_grip.contrib.realtime import capture, checks
        from django_grip.contrib.realtime.streams import registry

        autodiscover_modules("streams")
        registry.listen(capture.connect)
        for check in (
            checks.check_settings,
            checks.check_serializers,
            checks.check_touch,
            checks.check_managers,
            checks.check_foreign_keys,
            checks.check_secrets,
        ):
            register(check)
