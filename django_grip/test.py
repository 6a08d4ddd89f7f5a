"""Helpers for the tests of projects that publish, hold and take WebSockets."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import jwt
from django.core.exceptions import ImproperlyConfigured
from django.test import AsyncClient, Client, override_settings

from django_grip import conf, proxies
from django_grip.items import Item
from django_grip.publishers import locmem
from django_grip.websocket_events import CONTENT_TYPE, WebSocketEvent, encode


@contextmanager
def capture_published() -> Iterator[list[Item]]:
    """Collect what is published inside the block; nothing leaves the process.

    Yields the list of items, oldest first; `item.channel` includes GRIP_PREFIX. What
    is published on commit is there once the transaction has committed: in a TestCase
    use `captureOnCommitCallbacks(execute=True)` inside.
    """
    outer = locmem.outbox
    items: list[Item] = []
    with override_settings(GRIP_PUBLISHER="django_grip.publishers.locmem.Publisher"):
        locmem.outbox = items
        try:
            yield items
        finally:
            locmem.outbox = outer


def assert_held(
    response: Any,
    channels: Iterable[str],
    hold: Literal["stream", "response"] = "stream",
) -> None:
    """Assert that a response asks the proxy to hold it on exactly these channels.

    `channels` are named without GRIP_PREFIX; their order does not matter.
    """
    found = response.headers.get("Grip-Hold")
    assert found is not None, (
        f"Not held: the response has no Grip-Hold (status {response.status_code}). "
        "Does the request come through the proxy? GripClient sends such requests."
    )
    assert found == hold, f"Held as {found}, not as {hold}."
    elements = response.headers.get("Grip-Channel", "").split(",")
    held = sorted(element.partition(";")[0].strip() for element in elements)
    expected = sorted(conf.prefix() + channel for channel in channels)
    assert held == expected, f"Held on {held}, not on {expected}."


def grip_sig() -> str:
    """A Grip-Sig header as the first configured proxy signs it.

    Raises ImproperlyConfigured if that proxy's key is a public one, which can verify
    and not sign.
    """
    configured = proxies.configured()
    key = configured[0].verify_key if configured else conf.verify_key()
    if key is None:
        return "unsigned"
    issuer = configured[0].verify_iss if configured else None
    claims = {"iss": issuer or "pushpin", "exp": int(time.time()) + 3600}
    try:
        return jwt.encode(claims, key, algorithm="HS256")
    except jwt.InvalidKeyError as exc:
        raise ImproperlyConfigured(
            "The first GRIP proxy has a public key, with which nothing can be signed. "
            "In the settings of the tests use a shared secret: "
            "GRIP_URL = 'http://localhost:5561?key=a-secret-of-the-tests-of-32-bytes'."
        ) from exc


class GripClient(Client):
    """Django's test client; its requests come "through the proxy"."""

    def __init__(self, *args: Any, **defaults: Any) -> None:
        defaults.setdefault("HTTP_GRIP_SIG", grip_sig())
        super().__init__(*args, **defaults)

    def websocket(
        self, path: str, *events: tuple[str, str | bytes | None], **extra: Any
    ) -> Any:
        """Post WebSocket events, as the proxy does: `("OPEN", None)`, `("TEXT", "hi")`.
        None at all is what the proxy asks after a silence.

        Decode the answer with `django_grip.websocket_events.decode(response.content)`.
        """
        # Django's clients drop the type of an empty body.
        if not events:
            extra["CONTENT_TYPE"] = CONTENT_TYPE
        return self.generic("POST", path, *_body(events), **extra)


class AsyncGripClient(AsyncClient):
    """See GripClient."""

    async def request(self, **request: Any) -> Any:
        """Sign the request, and send it: AsyncClient knows no default headers."""
        signature = (b"grip-sig", grip_sig().encode())
        if all(name != signature[0] for name, _ in request["headers"]):
            request["headers"] = [*request["headers"], signature]
        return await super().request(**request)

    async def websocket(
        self, path: str, *events: tuple[str, str | bytes | None], **extra: Any
    ) -> Any:
        """See GripClient.websocket()."""
        if not events:
            extra["content-type"] = CONTENT_TYPE
        return await self.generic("POST", path, *_body(events), **extra)


def _body(events: Iterable[tuple[str, str | bytes | None]]) -> tuple[bytes, str]:
    body = encode(
        WebSocketEvent(kind, content.encode() if isinstance(content, str) else content)
        for kind, content in events
    )
    return body, CONTENT_TYPE
