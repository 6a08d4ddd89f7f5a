"""WebSockets: each client's connection becomes a series of requests to the origin.

See https://pushpin.org/docs/protocols/websocket-over-http/
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMessage, WSMsgType, web
from multidict import CIMultiDict, CIMultiDictProxy

from django_grip.contrib.localproxy.handshakes import (
    handshake_headers,
    message_prefix,
)
from django_grip.contrib.localproxy.headers import to_client
from django_grip.contrib.localproxy.hub import Hub, Session
from django_grip.contrib.localproxy.instructions import CHANNELS_MAX, Channel
from django_grip.contrib.localproxy.items import MessageContent
from django_grip.contrib.localproxy.origin import (
    Origin,
    OriginError,
    target_of,
    whole,
)
from django_grip.websocket_events import (
    CONTENT_TYPE,
    WebSocketEvent,
    decode,
    encode,
)

logger = logging.getLogger(__name__)

MESSAGE_MAX = 200_000
"""Bytes of a client's message; a longer one ends the connection, as in Pushpin."""

CLOSE_SECONDS = 5.0
"""How long a client that is closed may take to answer."""

ANSWER_MAX = 1_000_000
KEEP_ALIVE_MIN = 20

_NOT_OF_HANDSHAKE = frozenset(
    (
        "connection-id",
        "content-length",
        "content-type",
        "keep-alive-interval",
        "sec-websocket-accept",
        "sec-websocket-extensions",
        "sec-websocket-protocol",
    )
)

_FRAMES = {
    "text": WSMsgType.TEXT,
    "binary": WSMsgType.BINARY,
    "ping": WSMsgType.PING,
    "pong": WSMsgType.PONG,
}


class AnswerError(Exception):
    """The origin's answer is none to a WebSocket; the client has to be dropped."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the origin said to some events."""

    status: int
    reason: str
    headers: CIMultiDictProxy[str]
    body: bytes

    def events(self) -> list[WebSocketEvent]:
        """Return its events. Raises AnswerError if it has none by its form."""
        content_type = self.headers.get("Content-Type", "")
        if self.status != 200 or content_type.strip().lower() != CONTENT_TYPE:
            raise AnswerError(
                f"Django answered WebSocket events with {self.status} and Content-Type "
                f"{content_type!r}; expected 200 and {CONTENT_TYPE}."
            )
        try:
            return decode(self.body)
        except ValueError as exc:
            raise AnswerError(str(exc)) from exc


@dataclass(frozen=True, kw_only=True)
class MessageKeepAlive:
    """What is sent to an idle client. `timeout` is in seconds."""

    type: str
    content: bytes
    timeout: int
    mode: str


class Tunnels:
    """Serves the WebSockets of clients."""

    def __init__(self, hub: Hub, origin: Origin) -> None:
        self._hub = hub
        self._origin = origin
        self._farewells: set[asyncio.Task[None]] = set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until its connection ends. Raises OriginError."""
        if not web.WebSocketResponse().can_prepare(request).ok:
            return web.Response(status=400, text="This is no WebSocket handshake.\n")
        tunnel = Tunnel(self._hub, self._origin, request)
        try:
            return await tunnel.run()
        finally:
            if tunnel.vanished:
                # Not awaited here: this handler is cancelled when the client is gone,
                # be it after a proper close.
                task = asyncio.create_task(tunnel.say_farewell())
                self._farewells.add(task)
                task.add_done_callback(self._farewells.discard)

    async def close(self) -> None:
        """Wait, but not for long, until the origin has heard of those who left."""
        if self._farewells:
            await asyncio.wait(self._farewells, timeout=0.2)


class Tunnel:
    """One client's WebSocket. `run` once.

    `vanished` is true while the origin knows of the connection and not of its end.
    """

    def __init__(self, hub: Hub, origin: Origin, request: web.Request) -> None:
        self.vanished = False
        self._hub = hub
        self._origin = origin
        self._request = request
        self._headers = handshake_headers(request.headers.items())
        self._meta: dict[str, tuple[str, str]] = {}
        self._prefix: bytes | None = None
        self._interval: int | None = None
        self._keep_alive: MessageKeepAlive | None = None
        self._incoming: list[WebSocketEvent] = []
        self._arrived = asyncio.Event()
        self._published = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._farewell = WebSocketEvent("DISCONNECT")
        self._is_open = True
        self._is_detached = False
        self._socket = web.WebSocketResponse()
        self._session = Session(
            (),
            MessageContent,
            on_change=self._published.set,
            on_overflow=self._abort,
        )

    async def run(self) -> web.StreamResponse:
        """Serve the client to the end. Raises OriginError before it is accepted."""
        answer = await self._ask([WebSocketEvent("OPEN")])
        if answer.status != 200:
            headers = to_client(answer.headers.items(), held=True)
            return web.Response(
                status=answer.status,
                reason=answer.reason,
                headers=CIMultiDict(headers),
                body=answer.body,
            )
        try:
            events = answer.events()
        except AnswerError as exc:
            raise OriginError(str(exc)) from exc
        if not events and not answer.headers.get("Keep-Alive-Interval"):
            raise OriginError("Django did not accept the WebSocket: no OPEN came.")
        if events and events[0].type != "OPEN":
            raise OriginError(f"Expected OPEN first; got {events[0].type}.")
        await self._accept(answer)
        helpers = [
            asyncio.create_task(self._read()),
            asyncio.create_task(self._write()),
        ]
        try:
            with self._hub.subscription(self._session):
                await self._apply(answer, events[1:])
                await self._converse()
        except (AnswerError, OriginError) as exc:
            logger.warning("WebSocket %s: %s", self._request.path, exc)
            self.vanished = False
            self._abort()
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
        return self._socket

    async def say_farewell(self) -> None:
        """Tell the origin of the end. It is no matter if that fails."""
        try:
            await self._ask([*self._incoming, self._farewell])
        except OriginError as exc:
            logger.warning("Django did not hear of a WebSocket's end: %s", exc)

    async def _accept(self, answer: Answer) -> None:
        protocol = answer.headers.get("Sec-WebSocket-Protocol")
        self._socket = web.WebSocketResponse(
            protocols=(protocol,) if protocol else (),
            autoclose=False,
            autoping=False,
            compress=False,
            max_msg_size=MESSAGE_MAX,
        )
        for name, value in to_client(answer.headers.items()):
            is_meta = name.lower().startswith("set-meta-")
            if name.lower() not in _NOT_OF_HANDSHAKE and not is_meta:
                self._socket.headers.add(name, value)
        self._prefix = message_prefix(
            answer.headers.get("Sec-WebSocket-Extensions", "")
        )
        await self._socket.prepare(self._request)
        self.vanished = True

    async def _ask(self, events: list[WebSocketEvent]) -> Answer:
        body = encode(events)
        headers = [*self._headers, *self._meta.values()]
        answer = await self._origin.ask(
            "POST",
            target_of(self._request),
            [*headers, ("Content-Length", str(len(body)))],
            lambda: body,
        )
        content = await whole(answer)
        if len(content) > ANSWER_MAX:
            raise OriginError(f"Django answered over {ANSWER_MAX} bytes of events.")
        self._remember(answer.headers)
        return Answer(
            status=answer.status,
            reason=answer.reason or "",
            headers=answer.headers,
            body=content,
        )

    def _remember(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            if name.lower().startswith("set-meta-"):
                meta = name[len("Set-") :]
                self._meta.pop(meta.lower(), None)
                if value:
                    self._meta[meta.lower()] = (meta, value)
        interval = headers.get("Keep-Alive-Interval")
        if interval is not None:
            is_number = interval.isascii() and interval.isdigit() and int(interval) > 0
            self._interval = max(int(interval), KEEP_ALIVE_MIN) if is_number else None

    async def _converse(self) -> None:
        """Ask the origin, one request at a time, until the connection ends."""
        while self._is_open or self._incoming:
            try:
                async with asyncio.timeout(self._interval):
                    await self._arrived.wait()
            except TimeoutError:
                logger.debug("Asking about an idle WebSocket.")
            self._arrived.clear()
            events, self._incoming = self._incoming, []
            closing = next((each for each in events if each.type == "CLOSE"), None)
            if self._is_detached:
                if closing is not None:
                    await self._close(closing.content or b"")
                continue
            if not events and not self._is_open:
                return
            answer = await self._ask(events)
            if closing is not None:
                self.vanished = False
            await self._apply(answer, answer.events())
            if self._is_detached and self.vanished:
                await self._ask([WebSocketEvent("CLOSE")])
                self.vanished = False
            if closing is not None and self._is_open:
                # The origin did not close, so the client gets no proper end either.
                self._abort()

    async def _apply(self, answer: Answer, events: Iterable[WebSocketEvent]) -> None:
        """Do what the origin said."""
        for event in events:
            match event.type:
                case "TEXT" | "BINARY":
                    await self._relay(event)
                case "PING" | "PONG":
                    await self._send(event.type.lower(), event.content or b"")
                case "CLOSE":
                    await self._close(event.content or b"")
                case "DISCONNECT":
                    self.vanished = False
                    self._abort()

    async def _relay(self, event: WebSocketEvent) -> None:
        content = event.content or b""
        if self._prefix is not None:
            if event.type == "TEXT" and content.startswith(b"c:"):
                self._control(content[2:])
                return
            if not content.startswith(self._prefix):
                return
            content = content[len(self._prefix) :]
        await self._send(event.type.lower(), content)

    def _control(self, text: bytes) -> None:
        """Do what a control message says; ignore one that makes no sense."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            logger.debug("Not a control message: %r", text)
            return
        channel = message.get("channel")
        match message.get("type"):
            case "subscribe" if isinstance(channel, str):
                filters = message.get("filters", [])
                self._subscribe(Channel(name=channel, filters=tuple(map(str, filters))))
            case "unsubscribe" if isinstance(channel, str):
                self._unsubscribe(channel)
            case "set-meta" if isinstance(message.get("name"), str):
                self._set_meta(message["name"], message.get("value"))
            case "keep-alive":
                self._keep_alive = message_keep_alive(message)
                self._published.set()
            case "detach":
                self._is_detached = True
                self._arrived.set()
            case kind:
                logger.debug("The control message %r is not known.", kind)

    def _subscribe(self, channel: Channel) -> None:
        channels = dict(self._session.channels)
        if channel.name in channels or len(channels) < CHANNELS_MAX:
            channels[channel.name] = channel
        self._hub.resubscribe(self._session, channels.values(), self._session.meta)

    def _unsubscribe(self, name: str) -> None:
        channels = dict(self._session.channels)
        channels.pop(name, None)
        self._hub.resubscribe(self._session, channels.values(), self._session.meta)

    def _set_meta(self, name: str, value: Any) -> None:
        self._session.meta.pop(name, None)
        if isinstance(value, str):
            self._session.meta[name] = value

    async def _read(self) -> None:
        """Collect what the client sends until its connection ends."""
        while True:
            event = event_of(await self._socket.receive())
            if event is None:
                self._is_open = False
            elif self._is_open:
                self._incoming.append(event)
            elif event.type == "CLOSE" and self._farewell.type != "CLOSE":
                self._farewell = event
            if event is None or event.type == "CLOSE":
                self._has_ended.set()
                self._arrived.set()
                return
            self._arrived.set()

    async def _write(self) -> None:
        """Send what is published, and what shall come while nothing is."""
        keep_alive: MessageKeepAlive | None = None
        due: float | None = None
        while True:
            if keep_alive is not self._keep_alive:
                keep_alive = self._keep_alive
                due = _next_time(keep_alive)
            try:
                async with asyncio.timeout_at(due):
                    await self._published.wait()
            except TimeoutError:
                if keep_alive is not None:
                    await self._send(keep_alive.type, keep_alive.content)
                due = _next_time(keep_alive)
                continue
            self._published.clear()
            was_sent = await self._send_published()
            if was_sent and keep_alive is not None and keep_alive.mode == "idle":
                due = _next_time(keep_alive)

    async def _send_published(self) -> bool:
        """Send what waits. True if there was anything."""
        if self._session.ended:
            await self._close(close_bytes(1001))
        contents = self._session.take()
        for content in contents:
            if isinstance(content, MessageContent):
                if content.type == "close":
                    # As in Pushpin, the origin does not hear of the code.
                    self._farewell = WebSocketEvent("CLOSE")
                    await self._close(close_bytes(content.code, content.content))
                else:
                    await self._send(content.type, content.content)
        return bool(contents)

    async def _send(self, kind: str, content: bytes) -> None:
        if not self._is_open:
            return
        with contextlib.suppress(ConnectionError):
            await self._socket.send_frame(content, _FRAMES[kind])

    async def _close(self, content: bytes) -> None:
        """Close the client's side and give it time to say the same."""
        if not self._is_open:
            return
        self._is_open = False
        # Not by close(): with a read under way that one waits for no answer.
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self._socket.send_frame(content, WSMsgType.CLOSE)
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._has_ended.wait()
        if self._request.transport is not None:
            self._request.transport.close()
        self._arrived.set()

    def _abort(self) -> None:
        self._is_open = False
        if self._request.transport is not None:
            self._request.transport.abort()
        self._arrived.set()


def _next_time(keep_alive: MessageKeepAlive | None) -> float | None:
    # Up to a second early, as in Pushpin, so that not all clients are sent to at once.
    if keep_alive is None:
        return None
    loop = asyncio.get_running_loop()
    return loop.time() + keep_alive.timeout - random.random()


def message_keep_alive(message: Mapping[str, Any]) -> MessageKeepAlive | None:
    """What a keep-alive control message asks for; None if for no keep-alive."""
    content = message.get("content")
    kind = message.get("message-type", "text")
    timeout = message.get("timeout", 55)
    if not isinstance(content, str) or kind not in _FRAMES:
        return None
    if not isinstance(timeout, int) or timeout < 1:
        return None
    return MessageKeepAlive(
        type=kind,
        content=content.encode("utf-8", "replace"),
        timeout=timeout,
        mode="interval" if message.get("mode") == "interval" else "idle",
    )


def event_of(message: WSMessage) -> WebSocketEvent | None:
    """What the origin is told of a client's message; None if the connection ended."""
    match message.type:
        case WSMsgType.TEXT:
            return WebSocketEvent("TEXT", message.data.encode())
        case WSMsgType.BINARY:
            return WebSocketEvent("BINARY", bytes(message.data))
        case WSMsgType.PING:
            return WebSocketEvent("PING", bytes(message.data) or None)
        case WSMsgType.PONG:
            return WebSocketEvent("PONG", bytes(message.data) or None)
        case WSMsgType.CLOSE:
            reason = (message.extra or "").encode()
            return WebSocketEvent("CLOSE", close_bytes(message.data, reason) or None)
    return None


def close_bytes(code: int | None, reason: bytes = b"") -> bytes:
    """The content of a CLOSE as it comes: the proxy judges no codes."""
    return code.to_bytes(2, "big") + reason if code else b""
