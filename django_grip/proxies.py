"""The configured GRIP proxies, and whether a request came through one of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from gripcontrol import parse_grip_uri

from django_grip import conf

logger = logging.getLogger("django_grip.proxies")

LEEWAY = 60
"""Seconds by which the clocks of proxy and origin may differ."""

VERIFIED_MAX = 1000
"""Tokens remembered as verified: a proxy sends one many times a second."""

_verified: dict[str, float] = {}
"""Verified tokens, and when they end (seconds since the epoch)."""

_KEYS = ("control_uri", "control_iss", "key", "verify_key", "verify_iss")


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """One proxy: where to publish, and how to know its requests.

    `key` authorises publishing; `verify_key` (default: GRIP_VERIFY_KEY, then `key`)
    verifies Grip-Sig: a shared secret, or the public key of an EC or RSA pair as PEM.
    """

    control_uri: str | None = None
    control_iss: str | None = None
    key: str | bytes | None = field(default=None, repr=False)
    verify_key: str | bytes | None = field(default=None, repr=False)
    verify_iss: str | None = None


@cache
def configured() -> tuple[Proxy, ...]:
    """The proxies of GRIP_PROXIES and GRIP_URL.

    Raises ImproperlyConfigured for entries that are not understood. The answer is
    kept until a GRIP setting changes.
    """
    entries: list[Any] = list(conf.grip_proxies())
    if url := conf.grip_url():
        entries.append(parse_grip_uri(url))
    return tuple(_proxy(entry) for entry in entries)


def publish_servers() -> tuple[Proxy, ...]:
    """Whom to publish to besides the proxies: the servers of PUBLISH_SERVERS.

    Raises ImproperlyConfigured for entries that are not understood.
    """
    servers = []
    for entry in conf.publish_servers():
        _check_entry("PUBLISH_SERVERS", entry, ("uri", "iss", "key"))
        _check_uri(entry.get("uri"))
        servers.append(
            Proxy(
                control_uri=entry.get("uri"),
                control_iss=entry.get("iss"),
                key=entry.get("key"),
            )
        )
    return tuple(servers)


def _check_entry(setting: str, entry: Any, keys: Iterable[str]) -> None:
    if not isinstance(entry, dict):
        raise ImproperlyConfigured(
            f"An entry of {setting} is a dict; got {type(entry).__name__}. "
            "Example: GRIP_PROXIES = [{'control_uri': 'http://localhost:5561'}]."
        )
    if unknown := sorted(set(entry) - set(keys)):
        raise ImproperlyConfigured(
            f"Unknown keys in an entry of {setting}: {', '.join(unknown)}. "
            f"Known are {', '.join(keys)}."
        )


def _check_uri(uri: Any) -> None:
    if uri is not None and not str(uri).startswith(("http://", "https://")):
        raise ImproperlyConfigured(
            "The control URI of a GRIP proxy begins with http:// or https://; "
            f"got scheme {str(uri).partition(':')[0]!r}. "
            "Example: GRIP_URL = 'http://localhost:5561'."
        )


def _proxy(entry: Any) -> Proxy:
    _check_entry("GRIP_PROXIES", entry, _KEYS)
    _check_uri(entry.get("control_uri"))
    verify_key = entry.get("verify_key") or conf.verify_key() or entry.get("key")
    if verify_key is not None:
        _algorithm(verify_key)
    return Proxy(**{**entry, "verify_key": verify_key})


@cache
def verifiers() -> tuple[tuple[str | bytes, str, str | None], ...]:
    """(key, algorithm, issuer) of everything that may have signed a request."""
    found = [
        (proxy.verify_key, _algorithm(proxy.verify_key), proxy.verify_iss)
        for proxy in configured()
        if proxy.verify_key is not None
    ]
    key = conf.verify_key()
    if key is not None and not found:
        found.append((key, _algorithm(key), None))
    return tuple(found)


def _algorithm(key: str | bytes) -> str:
    """The one JWT algorithm a key is good for: a key never serves two families."""
    pem = key.encode() if isinstance(key, str) else key
    if not pem.lstrip().startswith(b"-----BEGIN"):
        return "HS256"
    try:
        public_key = load_pem_public_key(pem)
    except ValueError as exc:
        raise ImproperlyConfigured(
            "A verify key of GRIP_PROXIES looks like PEM but is not a public key. "
            "Expected '-----BEGIN PUBLIC KEY-----' with an EC P-256 or RSA key."
        ) from exc
    if isinstance(public_key, EllipticCurvePublicKey):
        return "ES256"
    if isinstance(public_key, RSAPublicKey):
        return "RS256"
    raise ImproperlyConfigured(
        f"A verify key is of type {type(public_key).__name__}; GRIP proxies sign with "
        "a shared secret, EC P-256 or RSA."
    )


@cache
def is_expected() -> bool:
    """Whether any proxy or verify key is configured.

    If not, holds are answered to everyone, as django-grip 3.5.2 does.
    """
    return bool(configured()) or bool(verifiers())


def trust(token: str | None) -> tuple[bool, bool]:
    """(proxied, signed) of a request with this Grip-Sig header.

    As soon as one key is configured, only a signature that verifies counts. With
    proxies that have no key, any Grip-Sig counts as proxied: then nothing but the
    network keeps clients from forging it.
    """
    if not token:
        return False, False
    known = verifiers()
    if not known:
        return bool(configured()), False
    signed = _is_signed(token, known)
    return signed, signed


def _is_signed(
    token: str, known: tuple[tuple[str | bytes, str, str | None], ...]
) -> bool:
    until = _verified.get(token)
    if until is not None and time.time() < until:
        return True
    reasons = []
    for key, algorithm, issuer in known:
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=issuer,
                leeway=LEEWAY,
                options={"require": ["exp"]},
            )
            until = float(claims["exp"]) + LEEWAY
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as exc:
            reasons.append(f"{type(exc).__name__}: {exc}")
            continue
        if len(_verified) >= VERIFIED_MAX:
            _verified.clear()
        _verified[token] = until
        return True
    logger.warning("A Grip-Sig was refused: %s", "; ".join(reasons))
    return False


@receiver(setting_changed, dispatch_uid="django_grip.proxies")
def _forget(*, setting: str, **kwargs: object) -> None:
    if setting.startswith("GRIP_"):
        configured.cache_clear()
        is_expected.cache_clear()
        verifiers.cache_clear()
        _verified.clear()
