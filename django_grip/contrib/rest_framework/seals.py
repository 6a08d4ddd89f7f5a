"""Seals: values that go through clients, proxies and logs, and are ours alone to read.

A sealed text is the same for the same value, so that a proxy sees that two links are
one. AES-SIV, RFC 5297; the key comes from SECRET_KEY and a purpose, and what was sealed
with one of SECRET_KEY_FALLBACKS is read still.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from django.conf import settings
from django.utils.crypto import salted_hmac

_SALT = "django_grip.contrib.rest_framework.seals."


def seal(purpose: str, value: Any, place: str) -> str:
    """`value`, which is JSON, as text for a URL: to be read for this purpose, and at
    this place, only.
    """
    text = json.dumps(value, separators=(",", ":")).encode()
    sealed = _cipher(settings.SECRET_KEY, purpose).encrypt(text, [place.encode()])
    return urlsafe_b64encode(sealed).rstrip(b"=").decode()


def unseal(purpose: str, text: str, place: str) -> Any:
    """What seal() was given for this purpose and place; None for anything else."""
    try:
        sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    if urlsafe_b64encode(sealed).rstrip(b"=").decode() != text:
        return None  # What base64 passes over.
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        try:
            opened = _cipher(secret, purpose).decrypt(sealed, [place.encode()])
        except (InvalidTag, ValueError):
            continue
        return json.loads(opened)
    return None


@lru_cache(maxsize=32)
def _cipher(secret: str | bytes, purpose: str) -> AESSIV:
    key = salted_hmac(_SALT + purpose, b"key", secret=secret, algorithm="sha512")
    return AESSIV(key.digest())
