"""The origin: where requests go on to, and what it means if nothing answers there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from django_grip.contrib.localproxy.headers import Headers
from django_grip.contrib.localproxy.signing import Signer

FEATURES = "status, link:next, filter:skip-self, filter:skip-users, filter:require-sub"
"""Grip-Feature: what the origin may rely on."""

RESTART_SECONDS = 2.0
"""How long a refused connection to the origin is tried again."""

CONNECT_SECONDS = 10.0

ASKING_MAX = 64
"""Requests that may wait for the origin's headers at once; held streams do not count.

`runserver` lets ten connections queue and the system drops more: when hundreds of
streams reconnect together, without this limit some hang for many seconds.
"""

# What aiohttp's client would add of its own accord.
_AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

Body = Callable[[], AsyncIterator[bytes] | bytes | None]


class OriginError(Exception):
    """The origin cannot be reached, or broke off. The message is for the client."""


class Origin:
    """Asks `upstream` (a base URL without path), in `opened()` only.

    Without `signer` the origin gets no Grip-Sig.
    """

    def __init__(self, upstream: str, signer: Signer | None = None) -> None:
        self.upstream = upstream.rstrip("/")
        self._signer = signer
        self._client: aiohttp.ClientSession | None = None
        self._asking = asyncio.Semaphore(ASKING_MAX)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Be able to ask for the length of an `async with` block."""
        # A connection each: one kept open would break when Django reloads, and hold
        # on to a thread of the development server until then.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
            auto_decompress=False,
            skip_auto_headers=_AUTO_HEADERS,
            max_line_size=65536,
            max_field_size=65536,
        ) as self._client:
            yield

    async def ask(
        self,
        method: str,
        target: str,
        headers: Headers,
        body: Body = lambda: None,
        *,
        last_ids: Mapping[str, str] | None = None,
        base: str | None = None,
    ) -> aiohttp.ClientResponse:
        """Send the request; return as soon as the headers of the answer are here.

        `headers` must be free of Grip-* headers; ours are added. `last_ids` (by
        channel) go along as Grip-Last, `base` is asked instead of the upstream. Raises
        OriginError.
        """
        if self._client is None:
            raise RuntimeError("The proxy is asked before its application was started.")
        upstream = base or self.upstream
        url = URL(upstream + target, encoded=True)
        sent = CIMultiDict(headers)
        sent["Grip-Feature"] = FEATURES
        if self._signer is not None:
            sent["Grip-Sig"] = self._signer.token()
        for channel, last_id in (last_ids or {}).items():
            sent.add("Grip-Last", f"{channel}; last-id={last_id}")

        # `runserver` refuses connections while it restarts. A refused connection has
        # carried nothing, so trying again is safe whatever the method.
        give_up = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                async with self._asking:
                    return await self._client.request(
                        method, url, headers=sent, data=body(), allow_redirects=False
                    )
            except aiohttp.ClientConnectorError as exc:
                if time.monotonic() >= give_up:
                    raise OriginError(
                        f"Nothing answers at {upstream}, where the local GRIP "
                        f"proxy expects Django: {exc.os_error.strerror or exc}. If it "
                        "stopped, its console says why; if it runs elsewhere, name "
                        "its address with grip_proxy --upstream."
                    ) from exc
            except (aiohttp.ClientError, TimeoutError) as exc:
                raise OriginError(
                    f"Django at {upstream} did not answer: "
                    f"{exc or type(exc).__name__}. Its log says why."
                ) from exc
            await asyncio.sleep(0.05)


def target_of(request: web.Request) -> str:
    """Return path and query, byte for byte as the client sent them."""
    if request.raw_path.startswith("/"):
        return request.raw_path
    # The absolute form, as sent to a forward proxy.
    return request.rel_url.raw_path_qs


async def chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The origin's body as it comes. Raises OriginError if it breaks off."""
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise OriginError(
            f"Django broke off its answer: {exc or type(exc).__name__}. "
            "Its log says why."
        ) from exc


async def whole(answer: aiohttp.ClientResponse) -> bytes:
    """All of the origin's body. Raises OriginError if it breaks off."""
    try:
        return b"".join([chunk async for chunk in chunks(answer)])
    finally:
        answer.close()
