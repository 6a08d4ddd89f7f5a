"""The port clients talk to: requests go on to the origin, its holds are kept here."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from django_grip.contrib.localproxy.documents import is_document, parse_document
from django_grip.contrib.localproxy.headers import Headers, merged, to_client, to_origin
from django_grip.contrib.localproxy.hub import Hub, Session
from django_grip.contrib.localproxy.instructions import (
    Instruction,
    InstructionError,
    parse_instruction,
    reason_phrase,
)
from django_grip.contrib.localproxy.items import ResponseContent, StreamContent
from django_grip.contrib.localproxy.links import Links
from django_grip.contrib.localproxy.notices import Notices
from django_grip.contrib.localproxy.origin import (
    Origin,
    OriginError,
    chunks,
    target_of,
    whole,
)
from django_grip.contrib.localproxy.signing import Signer
from django_grip.contrib.localproxy.streams import Stream
from django_grip.contrib.localproxy.tunnels import Tunnels
from django_grip.websocket_events import CONTENT_TYPE

logger = logging.getLogger(__name__)

FIRST_SECONDS = 1.0
"""When, after a channel got its first subscriber, the origin is asked again."""

HELD_BODY_MAX = 100_000
"""Bytes that a request, and the answer of a response hold, may have, as in Pushpin."""

_WITHOUT_BODY = (204, 304)


@dataclass(frozen=True)
class _Replay:
    """The request has to be made again, with what the client has seen last."""

    last_ids: dict[str, str]


class _RequestBody:
    """The client's body, kept while it passes, so that it can be sent again."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._is_there = request.can_read_body
        self._is_read = False
        self._kept = bytearray()

    @property
    def is_too_long(self) -> bool:
        """Whether it is too long to be kept."""
        return len(self._kept) > HELD_BODY_MAX

    def __call__(self) -> AsyncIterator[bytes] | bytes | None:
        """The body, from the client at first and from memory later."""
        if not self._is_there:
            return None
        return bytes(self._kept) if self._is_read else self._passing()

    async def _passing(self) -> AsyncIterator[bytes]:
        async for chunk in self._request.content.iter_any():
            if not self.is_too_long:
                self._kept += chunk
            yield chunk
        self._is_read = True


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
        self._origin = Origin(upstream, signer)
        self._links = Links(self._origin)
        self._tunnels = Tunnels(hub, self._origin)
        self._notices = Notices()
        self._release: asyncio.TimerHandle | None = None
        hub.on_first = self._refresh_later
        hub.on_parked = self._release_later

    def application(self) -> web.Application:
        """The aiohttp application. Serve it with `handler_cancellation=True`."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.on_response_prepare.append(_drop_added_headers)
        app.on_shutdown.append(self._end_sessions)
        app.cleanup_ctx.append(self._open_client)
        return app

    async def _open_client(self, app: web.Application) -> AsyncIterator[None]:
        async with self._origin.opened():
            yield
            await self._tunnels.close()

    async def _end_sessions(self, app: web.Application) -> None:
        self._hub.close()

    def _refresh_later(self, channel: str) -> None:
        # Something may have been published between the origin's answer and the hold.
        loop = asyncio.get_running_loop()
        loop.call_later(FIRST_SECONDS, self._hub.refresh, channel)

    def _release_later(self, due: float) -> None:
        if self._release is None:
            delay = max(due - time.monotonic(), 0.01)
            loop = asyncio.get_running_loop()
            self._release = loop.call_later(delay, self._release_parked)

    def _release_parked(self) -> None:
        self._release = None
        self._hub.release()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._tunnels.answer(request)
            if request.content_type == CONTENT_TYPE:
                # They are the proxy's word for what a client did: see Tunnels.
                return _text(403, f"Clients may not send {CONTENT_TYPE}.")
            body = _RequestBody(request)
            outcome: web.StreamResponse | _Replay = _Replay({})
            while isinstance(outcome, _Replay):
                outcome = await self._ask_and_relay(request, body, outcome)
            return outcome
        except OriginError as exc:
            logger.warning("%s", exc)
            return _text(502, str(exc))
        except InstructionError as exc:
            logger.warning("%s %s: %s", request.method, request.path, exc)
            return _text(502, str(exc))

    async def _ask_and_relay(
        self, request: web.Request, body: _RequestBody, replay: _Replay
    ) -> web.StreamResponse | _Replay:
        origin = await self._origin.ask(
            request.method,
            target_of(request),
            to_origin(request.headers.items()),
            body,
            last_ids=replay.last_ids,
        )
        try:
            if is_document(origin.headers):
                return await self._relay_document(request, origin)
            instruction = parse_instruction(origin.headers.items())
            if instruction.hold == "response" and body.is_too_long:
                return _text(400, f"At most {HELD_BODY_MAX} bytes can be held.")
            return await self._relay(request, origin, instruction)
        finally:
            origin.close()

    async def _relay_document(
        self, request: web.Request, origin: aiohttp.ClientResponse
    ) -> web.StreamResponse | _Replay:
        instruction = parse_document(
            origin.status, origin.headers.items(), await whole(origin)
        )
        return await self._relay(request, origin, instruction)

    async def _relay(
        self,
        request: web.Request,
        origin: aiohttp.ClientResponse,
        instruction: Instruction,
    ) -> web.StreamResponse | _Replay:
        """Give the client the origin's answer, at once or when the hold ends.

        Raises InstructionError, always before the first byte has left.
        """
        self._notices.ignored(instruction.ignored)
        if request.method == "HEAD":
            instruction = replace(instruction, hold=None, link=None)
        answer = _Answer(origin, instruction)
        if instruction.hold == "response":
            return await self._hold_response(request, answer, instruction)
        if answer.status in _WITHOUT_BODY:
            instruction = replace(instruction, hold=None, link=None)
        is_held = instruction.hold is not None or instruction.link is not None
        response = _Relayed(answer.status, answer.reason, answer.headers(held=is_held))
        if request.version < aiohttp.HttpVersion11:
            response.force_close()
        try:
            if is_held:
                await self._hold_stream(request, answer, response, instruction)
            else:
                await self._copy(request, answer, response)
        except ConnectionError:
            logger.debug("The client of %s went away.", request.path)
        return response

    async def _copy(
        self, request: web.Request, answer: _Answer, response: web.StreamResponse
    ) -> None:
        await response.prepare(request)
        try:
            async for chunk in answer.chunks():
                await response.write(chunk)
        except OriginError as exc:
            logger.warning("%s %s: %s", request.method, request.path, exc)
            # Cut, so that half an answer does not pass for a whole one.
            if request.transport is not None:
                request.transport.close()

    async def _hold_stream(
        self,
        request: web.Request,
        answer: _Answer,
        response: web.StreamResponse,
        instruction: Instruction,
    ) -> None:
        changed = asyncio.Event()
        session = Session(
            instruction.channels if instruction.hold else (),
            StreamContent,
            meta=instruction.meta,
            on_change=changed.set,
            on_overflow=_cut(request),
        )
        # Before the first byte: who has seen any of the answer misses nothing.
        with self._hub.subscription(session):
            await self._copy(request, answer, response)
            answer.close()
            stream = Stream(
                self._hub,
                self._links,
                response=response,
                session=session,
                changed=changed,
                url=f"{request.scheme}://{request.host}{target_of(request)}",
                instruction=instruction,
            )
            await stream.run()

    async def _hold_response(
        self, request: web.Request, answer: _Answer, instruction: Instruction
    ) -> web.StreamResponse | _Replay:
        changed = asyncio.Event()
        session = Session(
            instruction.channels,
            ResponseContent,
            meta=instruction.meta,
            on_change=changed.set,
            on_overflow=_cut(request),
        )
        with self._hub.subscription(session):
            body = b"".join([chunk async for chunk in answer.chunks()])
            answer.close()
            if len(body) > HELD_BODY_MAX:
                raise InstructionError(
                    f"The answer of a response hold has at most {HELD_BODY_MAX} "
                    f"bytes; got {len(body)}."
                )
            item = await _first_item(session, changed, instruction.timeout)
            if session.stale:
                return _Replay(session.last_ids)
        headers = answer.headers(held=True)
        if item is not None:
            reason = item.reason or reason_phrase(item.code)
            return _whole(item.code, reason, merged(headers, item.headers), item.body)
        return _whole(answer.status, answer.reason, headers, body)


class _Answer:
    """What the client gets if nothing else comes: the origin's, or a document's."""

    def __init__(
        self, origin: aiohttp.ClientResponse, instruction: Instruction
    ) -> None:
        self._origin = origin
        self._instruction = instruction
        self._replacement = instruction.replacement
        self.status, self.reason = origin.status, origin.reason or ""
        if self._replacement is not None:
            self.status = self._replacement.code
            self.reason = self._replacement.reason
        if instruction.status is not None:
            self.status, self.reason = instruction.status

    def headers(self, *, held: bool) -> Headers:
        """The headers for the client; those of a held answer have no length."""
        exposed = self._instruction.expose_headers
        if self._replacement is None:
            return to_client(self._origin.headers.items(), held=held, exposed=exposed)
        return to_client(self._replacement.headers, held=True, exposed=exposed)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises OriginError if it breaks off."""
        if self._replacement is not None:
            yield self._replacement.body
            return
        async for chunk in chunks(self._origin):
            yield chunk

    def close(self) -> None:
        """Let go of the connection to the origin."""
        self._origin.close()


async def _first_item(
    session: Session, changed: asyncio.Event, timeout: float
) -> ResponseContent | None:
    """Wait for an item; None if none came or the session became stale."""
    try:
        async with asyncio.timeout(timeout):
            while not session.stale and not session.ended:
                for content in session.take():
                    if isinstance(content, ResponseContent):
                        return content
                if not session.stale:
                    await changed.wait()
                    changed.clear()
    except TimeoutError:
        logger.debug("No item for a response hold within its timeout.")
    return None


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
