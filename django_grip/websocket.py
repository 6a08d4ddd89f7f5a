"""WebSockets over HTTP: what a view reads and writes, and the answer it makes.

The proxy holds the connection and posts what the client sent; the view's answer is
what the client gets. Between two requests Django keeps nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, Literal

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import is_same_domain

from django_grip.headers import check_channel, check_meta
from django_grip.websocket_events import (
    CONTENT_TYPE,
    WebSocketEvent,
    close_content,
    encode,
    parse_close,
)

logger = logging.getLogger("django_grip.websocket")

MESSAGE_MAX = 32_766
"""Bytes of one message in an answer.

Pushpin 1.36 takes 32,768 with the prefix `m:`; one byte more stops the connection for
good, without an error. Published messages have no such limit.
"""

_MESSAGES = ("TEXT", "BINARY", "CLOSE", "DISCONNECT")


class WebSocketContext:
    """`request.wscontext`: one request's share of a WebSocket connection.

    `id` names the connection. `meta` is a dict kept by the proxy for the connection:
    names in lower case, values latin-1; what you change there is sent back. Clients
    cannot write it through the proxy, but keep it small, and signed or opaque if it
    grants anything. `close_code` and `close_reason` are the client's, once `recv()`
    has returned None. `subprotocols` are those the client offers.
    """

    def __init__(
        self,
        id: str | None,
        meta: Mapping[str, str],
        in_events: list[WebSocketEvent],
        grip_prefix: str = "",
        subprotocols: Iterable[str] = (),
    ) -> None:
        self.id = id
        self.in_events = in_events
        self.read_index = 0
        self.accepted = False
        self.closed = False
        self.close_code: int | None = None
        self.close_reason = ""
        self.out_close_code: int | None = None
        self.out_close_reason = ""
        self.out_events: list[WebSocketEvent] = []
        self.orig_meta = dict(meta)
        self.meta = dict(meta)
        self.grip_prefix = grip_prefix
        self.subprotocols = list(subprotocols)
        self.subprotocol: str | None = None
        self.keep_alive_interval: int | None = None

    def is_opening(self) -> bool:
        """Whether the client is connecting: then `accept()` or refuse."""
        return bool(self.in_events) and self.in_events[0].type == "OPEN"

    def accept(self, subprotocol: str | None = None) -> None:
        """Accept the connection. Without it the handshake is refused with 403.

        Raises ValueError for a subprotocol the client did not offer.
        """
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise ValueError(
                f"The client offers the subprotocols {self.subprotocols}; "
                f"{subprotocol!r} is none of them, and it would hang up."
            )
        self.accepted = True
        self.subprotocol = subprotocol

    def close(self, code: int | None = None, reason: str = "") -> None:
        """Close the connection with `code` (1000) after what was sent.

        Raises ValueError for a code no endpoint may send or a reason over 123 bytes.
        """
        close_content(1000 if code is None else code, reason)
        self.closed = True
        self.out_close_code = 1000 if code is None else code
        self.out_close_reason = reason

    def can_recv(self) -> bool:
        """Whether `recv()` has something to return."""
        self._answer_pings()
        return any(
            event.type in _MESSAGES for event in self.in_events[self.read_index :]
        )

    def recv(self) -> str | bytes | None:
        """The next message: str, bytes, or None when the client closes.

        Raises IndexError if there is none (ask `can_recv()`), and OSError if the
        connection was lost without a close.
        """
        self._answer_pings()
        while self.read_index < len(self.in_events):
            event = self.in_events[self.read_index]
            self.read_index += 1
            if event.type == "TEXT":
                return (event.content or b"").decode()
            if event.type == "BINARY":
                return event.content or b""
            if event.type == "CLOSE":
                self.close_code, self.close_reason = parse_close(event.content)
                return None
            if event.type == "DISCONNECT":
                raise OSError("The client disconnected without closing.")
        raise IndexError("No message is left in this request: ask can_recv() first.")

    def send(self, message: str | bytes) -> None:
        """Send a text message. Raises ValueError above MESSAGE_MAX bytes."""
        self._send("TEXT", message)

    def send_binary(self, message: str | bytes) -> None:
        """Send a binary message. Raises ValueError above MESSAGE_MAX bytes."""
        self._send("BINARY", message)

    def send_control(self, message: str | bytes) -> None:
        """Send a GRIP control message, JSON, to the proxy."""
        content = message.encode() if isinstance(message, str) else message
        self.out_events.append(WebSocketEvent("TEXT", b"c:" + content))

    def subscribe(self, channel: str, filters: Iterable[str] = ()) -> None:
        """Send what is published to `channel` (without GRIP_PREFIX) to the client."""
        filters = list(filters)
        options = {"filters": filters} if filters else {}
        self._control("subscribe", channel=self._name(channel), **options)

    def unsubscribe(self, channel: str) -> None:
        """Undo `subscribe()`."""
        self._control("unsubscribe", channel=self._name(channel))

    def detach(self) -> None:
        """Leave the client to its subscriptions: no further request will come."""
        self._control("detach")

    def set_meta(self, name: str, value: str | None = None) -> None:
        """Set what the proxy's filters read (`user` for skip-self); None removes it.

        This is not `meta`, which comes back with each request and no filter reads.
        """
        options = {} if value is None else {"value": value}
        self._control("set-meta", name=name, **options)

    def set_keep_alive(
        self,
        content: str,
        timeout: float,
        message_type: Literal["text", "ping", "pong"] = "text",
        mode: Literal["idle", "interval"] = "idle",
    ) -> None:
        """Have the proxy send `content` after each `timeout` seconds of silence."""
        self._control(
            "keep-alive",
            content=content,
            timeout=int(timeout),
            **{"message-type": message_type, "mode": mode},
        )

    def set_keep_alive_interval(self, seconds: int) -> None:
        """Have the proxy ask again after `seconds` of silence (Pushpin: at least 20).

        The request has no events; it is the time to check whether the client may stay.
        """
        self.keep_alive_interval = seconds

    def _send(self, kind: str, message: str | bytes) -> None:
        content = message.encode() if isinstance(message, str) else bytes(message)
        if len(content) > MESSAGE_MAX:
            raise ValueError(
                f"A message in an answer has at most {MESSAGE_MAX} bytes; got "
                f"{len(content)}. Split it, or publish() it to a channel of its own."
            )
        self.out_events.append(WebSocketEvent(kind, b"m:" + content))

    def _control(self, kind: str, **options: Any) -> None:
        self.send_control(json.dumps({"type": kind, **options}))

    def _name(self, channel: str) -> str:
        return check_channel(self.grip_prefix + channel)

    def _answer_pings(self) -> None:
        while self.read_index < len(self.in_events):
            event = self.in_events[self.read_index]
            if event.type not in ("PING", "PONG"):
                return
            self.read_index += 1
            if event.type == "PING":
                self.out_events.append(WebSocketEvent("PONG", event.content))

    def response(self, response: HttpResponseBase) -> HttpResponseBase:
        """The answer to the proxy, from the one the view gave.

        Headers and cookies of the view's response stay. A refused handshake keeps the
        view's status and body; later on an error becomes a close, since any other
        status drops the client without a word.
        """
        content = b"" if response.streaming else getattr(response, "content", b"")
        is_empty = not response.streaming and not content
        if self.is_opening() and not (self.accepted and response.status_code == 200):
            return self._refusal(response)
        if response.status_code >= 500:
            self.close(1011)
        elif response.status_code != 200:
            self.close(1008)
        elif not is_empty:
            logger.error(
                "A view answered the WebSocket %s with a body, which nobody gets. "
                "Send messages with request.wscontext.send() and return an empty "
                "response.",
                self.id,
            )
            self.close(1011)
        return self._events(response)

    def _refusal(self, response: HttpResponseBase) -> HttpResponseBase:
        if response.status_code != 200:
            return response
        return HttpResponse(
            "This URL did not accept the WebSocket.\n",
            status=403,
            content_type="text/plain",
        )

    def _events(self, response: HttpResponseBase) -> HttpResponse:
        events = [WebSocketEvent("OPEN")] if self.accepted else []
        events += self.out_events
        if self.closed and self.out_close_code is not None:
            content = close_content(self.out_close_code, self.out_close_reason)
            events.append(WebSocketEvent("CLOSE", content))
        answer = HttpResponse(encode(events), headers=dict(response.headers))
        answer.cookies = response.cookies
        answer["Content-Type"] = CONTENT_TYPE
        answer["Content-Length"] = str(len(answer.content))
        if self.accepted:
            answer["Sec-WebSocket-Extensions"] = "grip"
        if self.subprotocol is not None:
            answer["Sec-WebSocket-Protocol"] = self.subprotocol
        if self.keep_alive_interval is not None:
            answer["Keep-Alive-Interval"] = str(self.keep_alive_interval)
        for name, value in self._changed_meta().items():
            answer[f"Set-Meta-{name}"] = value
        return answer

    def _changed_meta(self) -> dict[str, str]:
        """What to send back; an empty value removes the name."""
        now = {check_meta(name, value): value for name, value in self.meta.items()}
        gone = {name: "" for name in self.orig_meta if name not in now}
        return gone | {
            name: value
            for name, value in now.items()
            if self.orig_meta.get(name) != value
        }


def websocket_only(view_func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a view that takes WebSocket requests only, and needs return nothing.

    Others get 400. Works for sync and async views.
    """

    if iscoroutinefunction(view_func):

        @wraps(view_func)
        async def awrapped(*args: Any, **kwargs: Any) -> HttpResponseBase:
            response: HttpResponseBase | None = await view_func(*args, **kwargs)
            return HttpResponse() if response is None else response

        wrapped: Callable[..., Any] = awrapped
    else:

        @wraps(view_func)
        def swrapped(*args: Any, **kwargs: Any) -> HttpResponseBase:
            response: HttpResponseBase | None = view_func(*args, **kwargs)
            return HttpResponse() if response is None else response

        wrapped = swrapped
    wrapped.websocket_only = True  # type: ignore[attr-defined]
    return wrapped


def is_foreign(request: HttpRequest) -> bool:
    """Whether an opening request carries cookies from a page of another origin.

    Browsers send cookies with every WebSocket handshake and ask nobody; only Origin
    tells. It must be the site's own, or one of CSRF_TRUSTED_ORIGINS. Clients without
    cookies have nothing that another site could misuse.
    """
    if not request.META.get("HTTP_COOKIE"):
        return False
    origin = request.META.get("HTTP_ORIGIN", "")
    own = f"{'https' if request.is_secure() else 'http'}://{request.get_host()}"
    return origin != own and not _is_trusted(origin)


def _is_trusted(origin: str) -> bool:
    scheme, _, host = origin.partition("://")
    for trusted in settings.CSRF_TRUSTED_ORIGINS:
        trusted_scheme, _, trusted_host = trusted.partition("://")
        if "*" not in trusted:
            if origin == trusted:
                return True
        elif scheme == trusted_scheme and is_same_domain(host, trusted_host[1:]):
            return True
    return False
