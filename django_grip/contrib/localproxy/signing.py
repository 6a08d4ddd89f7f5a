"""Grip-Sig: the token by which the origin knows that a request came through us."""

from __future__ import annotations

import time
from collections.abc import Callable

import jwt

LIFETIME = 3600
"""Seconds a token is valid, as Pushpin's are."""

REUSE = 30
"""Seconds one token is sent with every request before a new one is made."""


class Signer:
    """Makes Grip-Sig tokens with a shared secret.

    `clock` returns seconds since the epoch. Raises ValueError for a key that cannot
    sign with HS256.
    """

    def __init__(
        self, key: str | bytes, iss: str, clock: Callable[[], float] = time.time
    ) -> None:
        text = key if isinstance(key, str) else key.decode("latin-1")
        if text.lstrip().startswith("-----BEGIN"):
            raise ValueError(
                "The local proxy signs with a shared secret (HS256); the configured "
                "key is PEM. For development use a plain secret, for example "
                "GRIP_URL = 'http://127.0.0.1:5561?key=some-long-random-secret'."
            )
        self._key = key
        self._iss = iss
        self._clock = clock
        self._token = ""
        self._made = float("-inf")

    def token(self) -> str:
        """Return a token that is valid for about an hour."""
        now = self._clock()
        if not 0 <= now - self._made < REUSE:
            self._token = self._sign(now)
            self._made = now
        return self._token

    def _sign(self, now: float) -> str:
        claims = {"exp": int(now) + LIFETIME, "iss": self._iss}
        return jwt.encode(claims, self._key, algorithm="HS256")
