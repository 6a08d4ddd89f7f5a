"""System checks of the core: a misconfigured project hears of it from `check`."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_grip import conf, proxies
from django_grip.middleware import GripMiddleware
from django_grip.publishers.base import BasePublisher


def check_middleware(**kwargs: Any) -> list[CheckMessage]:
    """E001: without the middleware no request can be held."""
    for path in settings.MIDDLEWARE:
        try:
            middleware = import_string(path)
        except ImportError:
            continue
        if isinstance(middleware, type) and issubclass(middleware, GripMiddleware):
            return []
    return [
        Error(
            "GripMiddleware is not in MIDDLEWARE, so no request can be held.",
            hint="Add 'django_grip.GripMiddleware' at the top of MIDDLEWARE.",
            id="django_grip.E001",
        )
    ]


def check_proxies(**kwargs: Any) -> list[CheckMessage]:
    """E002: proxies that are not understood. W001: none at all."""
    try:
        configured = proxies.configured()
        proxies.publish_servers()
    except ImproperlyConfigured as exc:
        return [Error(str(exc), id="django_grip.E002")]
    if configured:
        return []
    return [
        Warning(
            "No GRIP proxy is configured: nothing can be published, and holds are "
            "answered to everyone.",
            hint="Set GRIP_URL, e.g. GRIP_URL = 'http://localhost:5561?key=…'.",
            id="django_grip.W001",
        )
    ]


def check_visible_key(**kwargs: Any) -> list[CheckMessage]:
    """W002, with --deploy: error reports show GRIP_URL, and the key in it."""
    if not any(name in (conf.grip_url() or "") for name in ("key=", "@")):
        return []
    return [
        Warning(
            "GRIP_URL holds a key. Django's error reports hide settings by their "
            "names, and show this one.",
            hint="Use GRIP_PROXIES = [{'control_uri': …, 'key': …}]: its keys are "
            "hidden.",
            id="django_grip.W002",
        )
    ]


def check_clear_text(**kwargs: Any) -> list[CheckMessage]:
    """W003: publishing across the internet without TLS."""
    try:
        servers = (*proxies.configured(), *proxies.publish_servers())
    except ImproperlyConfigured:
        return []  # E002 says so.
    hosts = {
        urlsplit(server.control_uri).hostname or ""
        for server in servers
        if server.control_uri and server.control_uri.startswith("http://")
    }
    return [
        Warning(
            f"Publishes go to {host} by http://, and that is a public address: anyone "
            "on the way can read them, take the key and publish to everybody.",
            hint="Use https://, or an address on loopback or a private network; "
            "there, let only Django reach the control port (5561).",
            id="django_grip.W003",
        )
        for host in sorted(hosts)
        if _is_public(host)
    ]


def _is_public(host: str) -> bool:
    try:
        return ip_address(host).is_global
    except ValueError:
        return False  # A name: grip_check looks it up, a check must not.


def check_publisher(**kwargs: Any) -> list[CheckMessage]:
    """E003: GRIP_PUBLISHER names nothing that can publish."""
    path = conf.publisher()
    try:
        publisher_class = import_string(path)
    except ImportError as exc:
        return [
            Error(
                f"GRIP_PUBLISHER is {path!r}, which cannot be imported: {exc}",
                id="django_grip.E003",
            )
        ]
    if isinstance(publisher_class, type) and issubclass(publisher_class, BasePublisher):
        return []
    return [
        Error(
            f"GRIP_PUBLISHER is {path!r}, which is no subclass of "
            "django_grip.publishers.base.BasePublisher.",
            id="django_grip.E003",
        )
    ]
