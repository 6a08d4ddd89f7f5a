"""The app of the REST framework layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import register
from django.db import models

from django_grip.contrib.realtime.management.answers import Answer, askers


class RestFrameworkConfig(AppConfig):
    """Registers the checks of stream views, what asks them, and what describes them."""

    name = "django_grip.contrib.rest_framework"
    label = "grip_rest_framework"
    verbose_name = "GRIP REST framework"

    def ready(self) -> None:
        """Wire the checks, the asker, private links, accounts and the schema."""
        from django_grip import links
        from django_grip.contrib.rest_framework import checks

        links.urlconfs[links.PRIVATE] = (
            "django_grip.contrib.rest_framework.private_links"
        )
        if apps.is_installed("django.contrib.auth"):
            from django_grip.contrib.rest_framework import accounts

            accounts.connect()
        register(checks.check_views)
        if _ask not in askers:  # Tests may change INSTALLED_APPS.
            askers.append(_ask)
        if apps.is_installed("drf_spectacular"):
            from django_grip.contrib.rest_framework import schema

            schema.describe()


def _ask(row: models.Model, user: Any) -> Iterable[Answer]:
    # It needs Django's test client, which a server does not load.
    from django_grip.contrib.rest_framework.answers import answers

    return answers(row, user)
