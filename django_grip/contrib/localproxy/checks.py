"""What `manage.py check` says about the local proxy."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.core.checks import CheckMessage, Warning

STATICFILES = "django.contrib.staticfiles"


def check_runserver_order(
    app_configs: Sequence[AppConfig] | None, **kwargs: Any
) -> list[CheckMessage]:
    """Warn if staticfiles is listed first: its runserver then hides ours."""
    names = [config.name for config in apps.get_app_configs()]
    ours = "django_grip.contrib.localproxy"
    if STATICFILES not in names or names.index(ours) < names.index(STATICFILES):
        return []
    return [
        Warning(
            f"{ours} is listed below {STATICFILES}, so runserver starts no GRIP proxy.",
            hint=f"Move {ours!r} above {STATICFILES!r} in INSTALLED_APPS.",
            id="grip_localproxy.W001",
        )
    ]
