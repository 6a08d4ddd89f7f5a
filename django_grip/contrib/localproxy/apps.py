"""The app that gives `runserver` a GRIP proxy, and the command `grip_proxy`."""

from django.apps import AppConfig
from django.core.checks import register

from django_grip.contrib.localproxy.checks import check_runserver_order


class LocalProxyConfig(AppConfig):
    """Wiring of django_grip.contrib.localproxy."""

    name = "django_grip.contrib.localproxy"
    label = "grip_localproxy"
    verbose_name = "GRIP local proxy"

    def ready(self) -> None:
        register(check_runserver_order)
