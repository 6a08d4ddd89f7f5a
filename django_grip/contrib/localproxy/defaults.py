"""What the GRIP settings of a project mean for a local proxy in front of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from django_grip import proxies
from django_grip.contrib.localproxy.addresses import Address, is_loopback

CONTROL = Address("127.0.0.1", 5561)


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """Where Django will publish, and the key by which it verifies Grip-Sig."""

    control: Address = CONTROL
    key: str | bytes | None = field(default=None, repr=False)
    iss: str = "pushpin"


def from_settings() -> Defaults:
    """Return what the first configured proxy asks for.

    The control address is taken only if it is on this machine. Raises
    ImproperlyConfigured if the GRIP settings are not understood.
    """
    configured = proxies.configured()
    if not configured:
        return Defaults()
    first = configured[0]
    return Defaults(
        control=_control(first.control_uri),
        # What Django verifies with is what has to sign.
        key=first.key if first.verify_key is None else first.verify_key,
        iss=first.verify_iss or "pushpin",
    )


def _control(uri: str | None) -> Address:
    parts = urlsplit(uri or "")
    if parts.scheme != "http" or not parts.hostname or not is_loopback(parts.hostname):
        return CONTROL
    return Address(parts.hostname, parts.port or 80)
