"""The port clients talk to: requests go on to the origin, its holds are kept here."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from django_grip.contrib.localproxy.headers import Headers, merged, to_client, to_origin
from django_grip.contrib.localproxy.hub import Hub, Session
from django_grip.contrib.localproxy.instructions import (
    Instruction,
    InstructionError,
    KeepAlive,
    parse_instruction,
    reason_phrase,
)
from django_grip.contrib.localproxy.items import ResponseContent, StreamContent
from django_grip.contrib.localproxy.notices import Notices
from django_grip.contrib.localproxy.signing import Signer

logger = logging.getLogger(__name__)

FEATURES = "status"
"""Grip-Feature: what the origin may rely on. Links and filters are not among it."""

RESTART_SECONDS = 2.0
"""How long a refused connection to the origin is tried again."""

CONNECT_SECONDS = 10.0

ASKING_MAX = 64
"""Requests that may wait for the origin's headers at once; held streams do not count.

`runserver` lets ten connections queue and the system drops more: when hundreds of
streams reconnect together, without this limit some hang for many seconds.
"""

HELD_BODY_MAX = 100_000
"""Bytes of the answer that a response hold may have, as in Pushpin."""

_WITHOUT_BODY = (204, 304)

# What aiohttp's client would add of its own accord.
_AUTO_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class OriginError(Exception):
    """The origin cannot be reached, or broke off. The message is for the client."""


class _Relayed(web.StreamResponse):
    """An answer whose headers are the origin's; aiohttp would add some of its own."""

    def __init__(self, status: int, reason: str | None, headers: Headers) -> None:
        super().__init__(status=status, reason=reason, headers=CIMultiDict(headers))
        sent = {name.lower() for name, _ in headers}
        self.added = {"content-type", "date", "server"} - sent


class Proxy:
    """Forwards requests to `upstream` (a base URL without path) and keeps its holds.

    Without `signer` the origin gets no Grip-Sig. Use `application()` once.
    """

    def __init__(self, hub: Hub, upstream: str, signer: Signer | None = None) -> None:
        self._hub = hub
        self._upstream = upstream.rstrip("/")
        self._signer = signer
        self._client: aiohttp.ClientSession | None = None
        self._notices = Notices()
        self._asking = asyncio.Semaphore(ASKING_MAX)

    def application(self) -> web.Application:
        """The aiohttp application. Serve it with `handler_cancellation=True`."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.on_response_prepare.append(_drop_added_headers)
        app.on_shutdown.append(self._end_sessions)
        app.cleanup_ctx.append(self._open_client)
        return app

    async def _open_client(self, app: web.Application) -> AsyncIterator[None]:
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

    async def _end_sessions(self, app: web.Application) -> None:
        self._hub.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            self._notices.ignored(["WebSocket connections"])
            return _text(
                501,
                "The local GRIP proxy does not do WebSockets yet. Use Pushpin, or "
                "runserver --no-proxy if Django itself serves them.",
            )
        try:
            origin = await self._ask(request)
        except OriginError as exc:
            logger.warning("%s", exc)
            return _text(502, str(exc))
        try:
            return await self._relay(request, origin)
        except InstructionError as exc:
            logger.warning("%s %s: %s", request.method, request.path, exc)
            return _text(502, str(exc))
        finally:
            origin.close()

    async def _ask(self, request: web.Request) -> aiohttp.ClientResponse:
        """Send the request to the origin; return as soon as its headers are here."""
        if self._client is None:
            raise RuntimeError("The proxy is asked before its application was started.")
        target = request.raw_path
        if not target.startswith("/"):  # the absolute form, as sent to a forward proxy
            target = request.rel_url.raw_path_qs
        url = URL(self._upstream + target, encoded=True)
        headers = CIMultiDict(to_origin(request.headers.items()))
        headers["Grip-Feature"] = FEATURES
        if self._signer is not None:
            headers["Grip-Sig"] = self._signer.token()

        # `runserver` refuses connections while it restarts. A refused connection has
        # carried nothing, so trying again is safe whatever the method.
        give_up = time.monotonic() + RESTART_SECONDS
        while True:
            body = request.content.iter_any() if request.can_read_body else None
            try:
                async with self._asking:
                    return await self._client.request(
                        request.method,
                        url,
                        headers=headers,
                        data=body,
                        allow_redirects=False,
                    )
            except aiohttp.ClientConnectorError as exc:
                if time.monotonic() >= give_up:
                    raise OriginError(
                        f"Nothing answers at {self._upstream}, where the local GRIP "
                        f"proxy expects Django: {exc.os_error.strerror or exc}. If it "
                        "stopped, its console says why; if it runs elsewhere, name "
                        "its address with grip_proxy --upstream."
                    ) from exc
            except (aiohttp.ClientError, TimeoutError) as exc:
                raise OriginError(
                    f"Django at {self._upstream} did not answer: "
                    f"{exc or type(exc).__name__}. Its log says why."
                ) from exc
            await asyncio.sleep(0.05)

    async def _relay(
        self, request: web.Request, origin: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        """Give the client the origin's answer, at once or when the hold ends.

        Raises InstructionError, always before the first byte has left.
        """
        instruction = parse_instruction(origin.headers.items())
        self._notices.ignored(instruction.ignored)
        status, reason = origin.status, origin.reason
        hold = instruction.hold
        if request.method == "HEAD":
            hold = None
        if hold == "response":
            return await self._hold_response(request, origin, instruction)
        if instruction.status is not None:
            status, reason = instruction.status
        if status in _WITHOUT_BODY:
            hold = None
        headers = to_client(
            origin.headers.items(),
            held=hold is not None,
            exposed=instruction.expose_headers,
        )
        response = _Relayed(status, reason, headers)
        if request.version < aiohttp.HttpVersion11:
            response.force_close()
        try:
            if hold is None:
                await self._copy(request, origin, response)
            else:
                await self._hold_stream(request, origin, response, instruction)
        except ConnectionError:
            logger.debug("The client of %s went away.", request.path)
        return response

    async def _copy(
        self,
        request: web.Request,
        origin: aiohttp.ClientResponse,
        response: web.StreamResponse,
    ) -> None:
        await response.prepare(request)
        try:
            async for chunk in _chunks(origin):
                await response.write(chunk)
        except OriginError as exc:
            logger.warning("%s %s: %s", request.method, request.path, exc)
            # Cut, so that half an answer does not pass for a whole one.
            if request.transport is not None:
                request.transport.close()

    async def _hold_stream(
        self,
        request: web.Request,
        origin: aiohttp.ClientResponse,
        response: web.StreamResponse,
        instruction: Instruction,
    ) -> None:
        changed = asyncio.Event()
        session = Session(
            instruction.channels,
            StreamContent,
            on_change=changed.set,
            on_overflow=_cut(request),
        )
        # Before the first byte: who has seen any of the answer misses nothing.
        with self._hub.subscription(session):
            await self._copy(request, origin, response)
            origin.close()
            await _write_items(response, session, changed, instruction.keep_alive)

    async def _hold_response(
        self,
        request: web.Request,
        origin: aiohttp.ClientResponse,
        instruction: Instruction,
    ) -> web.StreamResponse:
        changed = asyncio.Event()
        session = Session(
            instruction.channels,
            ResponseContent,
            on_change=changed.set,
            on_overflow=_cut(request),
        )
        with self._hub.subscription(session):
            try:
                body = b"".join([chunk async for chunk in _chunks(origin)])
            except OriginError as exc:
                return _text(502, str(exc))
            origin.close()
            if len(body) > HELD_BODY_MAX:
                raise InstructionError(
                    f"The answer of a response hold has at most {HELD_BODY_MAX} "
                    f"bytes; got {len(body)}."
                )
            try:
                async with asyncio.timeout(instruction.timeout):
                    await changed.wait()
            except TimeoutError:
                logger.debug("No item for %s within the timeout.", request.path)
            contents = session.take()
        headers = to_client(
            origin.headers.items(), held=True, exposed=instruction.expose_headers
        )
        if contents and isinstance(contents[0], ResponseContent):
            item = contents[0]
            reason = item.reason or reason_phrase(item.code)
            return _whole(item.code, reason, merged(headers, item.headers), item.body)
        status = instruction.status or (origin.status, origin.reason or "")
        return _whole(*status, headers, body)


async def _write_items(
    response: web.StreamResponse,
    session: Session,
    changed: asyncio.Event,
    keep_alive: KeepAlive | None,
) -> None:
    """Write what the session gets until it ends or an item closes it."""
    loop = asyncio.get_running_loop()

    def next_keep_alive() -> float | None:
        # Up to a second early, as in Pushpin, so that not all streams fire together.
        if keep_alive is None:
            return None
        return loop.time() + keep_alive.timeout - random.random()

    due = next_keep_alive()
    while True:
        try:
            async with asyncio.timeout_at(due):
                await changed.wait()
        except TimeoutError:
            if keep_alive is not None:
                await response.write(keep_alive.content)
            due = next_keep_alive()
            continue
        changed.clear()
        contents = [each for each in session.take() if isinstance(each, StreamContent)]
        closing = False
        data = bytearray()
        for content in contents:
            if content.action == "close":
                closing = True
                break
            data += content.content
        if data:
            await response.write(data)
            if keep_alive is not None and keep_alive.mode == "idle":
                due = next_keep_alive()
        if closing or session.ended:
            return


async def _chunks(origin: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The origin's body as it comes. Raises OriginError if it breaks off."""
    try:
        async for chunk in origin.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise OriginError(
            f"Django broke off its answer: {exc or type(exc).__name__}. "
            "Its log says why."
        ) from exc


def _cut(request: web.Request) -> Callable[[], None]:
    """A function that ends the client's connection, sent or not."""

    def abort() -> None:
        if request.transport is not None:
            request.transport.abort()

    return abort


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=text + "\n")


def _whole(status: int, reason: str, headers: Headers, body: bytes) -> web.Response:
    """An answer with a body of known length."""
    return web.Response(
        status=status,
        reason=reason,
        headers=CIMultiDict(headers),
        body=None if status in _WITHOUT_BODY else body,
    )


async def _drop_added_headers(
    request: web.Request, response: web.StreamResponse
) -> None:
    """Take away what aiohttp adds to an answer that is not its own."""
    if isinstance(response, _Relayed):
        for name in response.added:
            response.headers.popall(name, None)
