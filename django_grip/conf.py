"""The GRIP settings: one function each, read when asked.

Nothing here is remembered, so `override_settings` works, and what is read is never
changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings


def grip_url() -> str | None:
    """GRIP_URL: one proxy in a string, `http://host:5561?key=secret`."""
    return getattr(settings, "GRIP_URL", None)


def grip_proxies() -> Sequence[Mapping[str, Any]]:
    """GRIP_PROXIES: a list of dicts, one for each proxy.

    Keys of an entry: `control_uri`, `control_iss`, `key`, `verify_key`, `verify_iss`.
    GRIP_URL, if set as well, is one more proxy.
    """
    return getattr(settings, "GRIP_PROXIES", ())


def publish_servers() -> Sequence[Mapping[str, Any]]:
    """PUBLISH_SERVERS: servers that are published to and are no proxies.

    Keys of an entry: `uri`, `iss`, `key`.
    """
    return getattr(settings, "PUBLISH_SERVERS", ())


def verify_key() -> str | bytes | None:
    """GRIP_VERIFY_KEY: verifies Grip-Sig for proxies that have no `verify_key`."""
    return getattr(settings, "GRIP_VERIFY_KEY", None)


def prefix() -> str:
    """GRIP_PREFIX: put before every channel, once, when publishing and holding."""
    return getattr(settings, "GRIP_PREFIX", "")


def proxy_required() -> bool:
    """GRIP_PROXY_REQUIRED: a hold asked for by a direct request is answered 501."""
    return getattr(settings, "GRIP_PROXY_REQUIRED", False)


def publisher() -> str:
    """GRIP_PUBLISHER: dotted path of the publisher class."""
    return getattr(settings, "GRIP_PUBLISHER", "django_grip.publishers.http.Publisher")


def publish_interval() -> float:
    """GRIP_PUBLISH_INTERVAL: seconds between the answer of a POST and the next one.

    Pushpin 1.36-1.40 with any `message_rate` delivers nothing while publishes come
    less than 25 ms apart, so 0.03 is the least that suits it as installed; with
    `message_rate=0`, or from Pushpin 1.41, 0.005 gives lower delay.
    """
    return getattr(settings, "GRIP_PUBLISH_INTERVAL", 0.03)
