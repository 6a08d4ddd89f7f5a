"""Round trip: how `manage.py grip_check` and GripMiddleware recognise each other.

The command sends a request through the proxy, with a signed header that names a
channel. The middleware answers what it saw of the request, and has it held on that
channel. Only who knows SECRET_KEY can make the header. No I/O here.
"""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

import jwt
from django.core import signing

from django_grip.proxies import LEEWAY

HEADER = "X-Django-Grip-Check"
"""No name that begins with Grip-: a proxy removes those from what clients send."""

META_KEY = "HTTP_X_DJANGO_GRIP_CHECK"
"""HEADER as it stands in `request.META`."""

MAX_AGE = 60
"""Seconds a header is good for."""

LIFETIME = 3600
"""Seconds from Pushpin's clock to the `exp` of its Grip-Sig."""

DEFAULT_KEY = b"changeme"
"""The sig_key of Pushpin as installed."""

_SALT = "django_grip.roundtrip"


def make_token(channel: str) -> str:
    """The value of HEADER that asks to be held on `channel` (without GRIP_PREFIX)."""
    return signing.dumps(channel, salt=_SALT)


def read_token(token: str) -> str | None:
    """The channel a token names; None for one that is forged or too old."""
    try:
        channel: str = signing.loads(token, salt=_SALT, max_age=MAX_AGE)
    except signing.BadSignature:
        return None
    return channel


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What Django saw of a request of `grip_check`.

    `channel` is the one it asks to be held on, with Django's GRIP_PREFIX. `refusals`
    has the name of PyJWT's error for each key that did not verify the Grip-Sig. `skew`
    is how many seconds the proxy's clock is ahead of Django's, provided that its
    Grip-Sig lives for an hour as Pushpin's does; None without a usable `exp`.
    """

    channel: str
    proxied: bool
    signed: bool
    refusals: list[str]
    is_default_key: bool
    issuer: str
    skew: float | None
    features: list[str]

    def line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """What a line of JSON says; None if it is anything else."""
        try:
            found = cls(**json.loads(line))
        except (ValueError, TypeError):
            return None
        return found if isinstance(found.channel, str) else None


def see(
    channel: str,
    grip_sig: str,
    *,
    trust: tuple[bool, bool],
    verifiers: Iterable[tuple[str | bytes, str, str | None]],
    features: Iterable[str],
) -> Sighting:
    """What there is to say of a request that carries the Grip-Sig `grip_sig`.

    `trust` is what `proxies.trust` says of it; `verifiers` are triples of key,
    algorithm and issuer.
    """
    proxied, signed = trust
    claims = _unverified(grip_sig)
    return Sighting(
        channel=channel,
        proxied=proxied,
        signed=signed,
        refusals=[] if signed else list(_refusals(grip_sig, verifiers)),
        is_default_key=_is_signed_with(DEFAULT_KEY, grip_sig),
        issuer=str(claims.get("iss", ""))[:100],
        skew=_skew(claims),
        features=sorted(features),
    )


def _unverified(grip_sig: str) -> dict[str, Any]:
    try:
        return jwt.decode(grip_sig, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError):
        return {}


def _skew(claims: dict[str, Any]) -> float | None:
    try:
        return round(float(claims["exp"]) - LIFETIME - time.time(), 1)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _refusals(
    grip_sig: str, verifiers: Iterable[tuple[str | bytes, str, str | None]]
) -> Iterator[str]:
    for key, algorithm, issuer in verifiers:
        try:
            jwt.decode(
                grip_sig,
                key,
                algorithms=[algorithm],
                issuer=issuer,
                leeway=LEEWAY,
                options={"require": ["exp"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as exc:
            yield type(exc).__name__


def _is_signed_with(key: bytes, grip_sig: str) -> bool:
    # By hand: PyJWT warns of a key as short as Pushpin's default.
    signed, _, signature = grip_sig.encode(errors="replace").rpartition(b".")
    made = hmac.digest(key, signed, "sha256")
    try:
        return hmac.compare_digest(made, urlsafe_b64decode(signature + b"=="))
    except ValueError:
        return False
