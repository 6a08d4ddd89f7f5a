"""The app of the REST framework layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import AppConfig
from django.core.checks import register
from django.db import models

from django_grip.contrib.realtime.management.answers import Answer, askers


class RestFrameworkConfig(AppConfig):
    """Registers the checks of stream views, and what asks them."""

    name = "django_grip.contrib.rest_framework"
    label = "grip_rest_framework"
    verbose_name = "GRIP REST framework"

    def ready(self) -> None:
        """Wire the checks and the asker."""
        from django_grip.contrib.rest_framework import checks

        register(checks.check_views)
        if _ask not in askers:  # Tests may change INSTALLED_APPS.
            askers.append(_ask)


def _ask(row: models.Model, user: Any) -> Iterable[Answer]:
    # It needs Django's test client, which a server does not load.
    from django_grip.contrib.rest_framework.answers import answers

    return answers(row, user)
