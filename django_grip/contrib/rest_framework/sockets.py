"""Sockets: streams over a WebSocket, one request at a time.

The proxy posts what a client sends, and asks by itself after silence. What the client
is subscribed to is with the proxy (see connections.py); each answer says what changes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse, QueryDict
from django.http.response import HttpResponseBase

from django_grip.contrib.realtime import conf, durable
from django_grip.contrib.realtime.answers import snapshots
from django_grip.contrib.realtime.channels import pk_text
from django_grip.contrib.realtime.durable import EventLog, Page
from django_grip.contrib.realtime.grants import Grant
from django_grip.contrib.rest_framework.connections import (
    SUBSCRIPTIONS_MAX,
    Connection,
    Subscription,
)
from django_grip.contrib.rest_framework.copies import as_get
from django_grip.contrib.rest_framework.messages import Messages, fitting
from django_grip.contrib.rest_framework.operations import (
    Operation,
    Problem,
    is_too_long,
    parse,
)
from django_grip.contrib.rest_framework.sessions import Owner, user_of
from django_grip.websocket import WebSocketContext

FIRST_CHECK = 20
"""Seconds of silence after which the proxy asks about a new subscription: what was
published between our answer and the proxy's subscribing has gone past the client.
Pushpin takes no less.
"""

OPERATIONS_MAX = 100
"""Operations in one request: Pushpin collects what comes while it waits for us."""

REASON_MAX = 500

_ONCE = frozenset({"since", "snapshot", "ticket", "wait"})
"""Query parameters of a stream's URL that speak of its beginning."""


class Denied(Exception):
    """A view does not grant a stream: `status` and `reason` are those of its answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason[:REASON_MAX]


class Ask(Protocol):
    """Asks the view at `url`; if it grants the stream, `transport` is called.

    `again`: it has granted it before. `user` is who is asked for, None: whom the
    request's headers name. Raises Denied.
    """

    def __call__(
        self,
        url: str,
        transport: Callable[[HttpRequest, Grant], HttpResponseBase],
        *,
        again: bool,
        user: Any,
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a subscription begins. `page` is None without an event log."""

    grant: Grant
    owner: Owner | None
    page: Page | None
    rows: list[str]


def single(request: HttpRequest, grant: Grant) -> HttpResponseBase:
    """The WebSocket of one stream, at the stream's own URL: see transports.Transport.

    The view was asked for this request, as it is for each one of the connection.
    """

    def ask(url: str, transport: Any, *, again: bool, user: Any) -> None:
        transport(request, grant)

    first = Operation(
        kind="subscribe",
        url=request.get_full_path(),
        since=request.GET.get("since") or None,
    )
    return converse(request, ask, first)


def presented(request: HttpRequest) -> HttpRequest:
    """The GET that a WebSocket's request stands for, to the view of one stream.

    Who opened the connection with a ticket is still its user.
    """
    context: WebSocketContext = request.wscontext  # type: ignore[attr-defined]
    asked = as_get(request)
    asked.stream_again = not context.is_opening()
    connection = Connection.of(context, request.path)
    if connection is not None and None in connection.subscriptions:
        owner = connection.subscriptions[None].owner
        user = None if owner is None else user_of(owner)
        if user is not None:
            asked.user = asked._force_auth_user = user
    return asked  # type: ignore[no-any-return]


def refused(context: WebSocketContext, response: HttpResponseBase) -> HttpResponseBase:
    """What the client of one stream gets when its view refuses: at first the answer
    itself, and then a close that stands for it.
    """
    if context.is_opening():
        return response
    _close(context, response.status_code, reason_of(response))
    return HttpResponse()


def reason_of(response: HttpResponseBase) -> str:
    """Why a view refused, in its own words."""
    data = getattr(response, "data", None)
    if isinstance(data, dict) and "detail" in data:
        return str(data["detail"])
    return response.reason_phrase if data is None else json.dumps(data, default=str)


def converse(
    request: HttpRequest, ask: Ask, first: Operation | None = None
) -> HttpResponse:
    """The answer to one request of a WebSocket.

    With `first` the socket has one subscription, which this begins.
    """
    context: WebSocketContext = request.wscontext  # type: ignore[attr-defined]
    if _has_left(context):
        return HttpResponse()
    connection = Connection.of(context, request.path)
    if connection is None:
        context.close(1012, "This connection is not known here: open another.")
        return HttpResponse()
    conversation = Conversation(context, connection, ask)
    if context.is_opening():
        context.accept()
        context.set_keep_alive("[]", conf.keep_alive())
        if first is not None:
            conversation.open(first)
    conversation.take(is_single=first is not None)
    conversation.end()
    return HttpResponse()


def _has_left(context: WebSocketContext) -> bool:
    """Whether the client goes; then it gets no answer but to that."""
    if all(event.type not in ("CLOSE", "DISCONNECT") for event in context.in_events):
        return False
    try:
        while context.can_recv():
            if context.recv() is None:
                context.close(context.close_code)
                break
    except OSError:
        pass
    return True


class Conversation:
    """One request of a connection: what it asks for, and what its client is told."""

    def __init__(
        self, context: WebSocketContext, connection: Connection, ask: Ask
    ) -> None:
        self._context = context
        self._connection = connection
        self._ask = ask
        self._messages = Messages()
        self._before = connection.channels()
        self._now = time.time()

    def open(self, operation: Operation) -> None:
        """Begin the one subscription of a socket. Raises Denied."""
        self._subscribe(operation)

    def take(self, *, is_single: bool) -> None:
        """Do what the client asks for, and what is due."""
        context, connection = self._context, self._connection
        is_due = not context.in_events or self._now >= connection.due
        if is_due and connection.subscriptions:
            self._check()
        count = 0
        while not context.closed and context.can_recv():
            text = context.recv()
            count += 1
            if count > OPERATIONS_MAX or not connection.spend(self._now):
                context.close(1008, "Too many operations: send fewer, or more slowly.")
            elif not isinstance(text, str):
                context.close(1003, "Expected text, JSON.")
            elif is_too_long(text):
                context.close(1009, "Too long a message.")
            else:
                self._do(parse(text, is_single=is_single))

    def end(self) -> None:
        """Answer."""
        context, connection = self._context, self._connection
        if not context.closed:
            after = connection.channels()
            for channel in self._before:
                if channel not in after:
                    context.unsubscribe(channel)
            for channel in after:
                if channel not in self._before:
                    context.subscribe(channel)
            connection.keep(context)
        for text in self._messages.texts():
            context.send(text)

    def _do(self, operation: Operation | Problem) -> None:
        if isinstance(operation, Problem):
            self._tell_problem(operation.id, operation.status, operation.reason)
            return
        match operation.kind:
            case "ping":
                self._messages.tell(type="pong")
            case "subscribe":
                try:
                    self._subscribe(operation)
                except Denied as denied:
                    self._tell_problem(operation.id, denied.status, denied.reason)
            case "unsubscribe":
                if self._known(operation) is not None:
                    del self._connection.subscriptions[operation.id]
                    self._messages.tell(type="unsubscribed", id=operation.id)
            case "resume":
                subscription = self._known(operation)
                if subscription is not None and self._may_stay(subscription):
                    self._resume(subscription, operation.since)

    # Subscriptions.

    def _subscribe(self, operation: Operation) -> None:
        subscriptions = self._connection.subscriptions
        if operation.id in subscriptions:
            raise Denied(409, "There is a subscription with this id.")
        too_many = Denied(
            429,
            f"A connection has up to {SUBSCRIPTIONS_MAX} subscriptions, fewer where "
            "URLs are long. Unsubscribe, or open another connection.",
        )
        if len(subscriptions) == SUBSCRIPTIONS_MAX:
            raise too_many
        openings: list[Opening] = []

        def transport(request: HttpRequest, grant: Grant) -> HttpResponse:
            openings.append(_opening(request, grant, operation.since))
            return HttpResponse()

        self._ask(operation.url, transport, again=False, user=None)
        if not openings:
            raise Denied(500, "The view did not stream.")
        opening = openings[0]
        subscription = _subscription(operation, opening)
        subscriptions[operation.id] = subscription
        if self._connection.is_over_full():
            del subscriptions[operation.id]
            raise too_many
        self._begin(subscription, opening, operation.since)
        self._set_due(FIRST_CHECK, is_first=True)

    def _begin(
        self, subscription: Subscription, opening: Opening, since: str | None
    ) -> None:
        """Tell a client how its subscription begins."""
        page, channel = opening.page, subscription.channel
        is_new = page is None or since is None or page.reset is not None
        subscription.position = since
        if is_new:
            subscription.position = None if page is None else page.position
        self._messages.tell(
            type="subscribed",
            id=subscription.id,
            channel=channel,
            position=subscription.position,
            gapless=page is not None,
        )
        if page is not None and since is not None:
            self._tell_page(subscription, page)
        if is_new and not self._messages.add(*opening.rows):
            self._tell_reset(channel, "overflow", subscription.position)

    def _known(self, operation: Operation) -> Subscription | None:
        subscription = self._connection.subscriptions.get(operation.id)
        if subscription is None:
            self._tell_problem(operation.id, 404, "No subscription has this id.")
        return subscription

    def _resume(self, subscription: Subscription, since: str | None) -> None:
        log = durable.log
        if log is None:
            self._tell_reset(subscription.channel, "bad-id", None)
            self._messages.tell(type="resumed", id=subscription.id)
        else:
            subscription.position = since
            self._tell_page(subscription, log.read(subscription.channel, since))

    # Over time.

    def _check(self) -> None:
        """Ask each view again, and tell of what the client may have missed."""
        connection = self._connection
        for subscription in list(connection.subscriptions.values()):
            if self._may_stay(subscription):
                self._tell_newest(subscription)
            if self._context.closed:
                return
        self._set_due(conf.link_timeout())

    def _may_stay(self, subscription: Subscription) -> bool:
        """Ask the view again. False: the client was told that it ends."""
        try:
            grant = self._granted_again(subscription)
        except Denied as denied:
            del self._connection.subscriptions[subscription.id]
            self._tell_problem(subscription.id, denied.status, denied.reason)
            if not self._connection.subscriptions:
                _close(self._context, denied.status, denied.reason)
            return False
        if _user(grant) != subscription.user:
            _close(self._context, 401, "This is not the user who subscribed.")
            return False
        return True

    def _granted_again(self, subscription: Subscription) -> Grant:
        user = None
        if subscription.owner is not None:
            user = user_of(subscription.owner)
            if user is None:
                raise Denied(401, "This user may not stay.")
        grants: list[Grant] = []

        def transport(request: HttpRequest, grant: Grant) -> HttpResponse:
            grants.append(grant)
            if (log := durable.log) is not None:
                # It stays when its channel is closed for its age, and is forgotten.
                log.opened(grant.channel)
            return HttpResponse()

        self._ask(subscription.url, transport, again=True, user=user)
        if not grants or grants[0].channel != subscription.channel:
            raise Denied(409, "The stream of this URL is another one now: subscribe.")
        return grants[0]

    def _tell_newest(self, subscription: Subscription) -> None:
        log = durable.log
        if log is None:
            return
        page = log.newest(subscription.channel, subscription.position or "")
        if page.reset is not None:
            self._tell_reset(page.channel, page.reset, page.position)
        for event in page.events:
            if not self._messages.add(fitting(event.text)):
                return
        subscription.position = page.position

    def _set_due(self, seconds: int, *, is_first: bool = False) -> None:
        """When the views are asked again: by the proxy, if the client is silent."""
        connection, due = self._connection, int(self._now) + seconds
        is_sooner = is_first and len(connection.subscriptions) > 1
        connection.due = min(connection.due, due) if is_sooner else due
        self._context.set_keep_alive_interval(seconds)

    # What the client is told.

    def _tell_page(self, subscription: Subscription, page: Page) -> None:
        """Tell what came after a position, as far as it fits the answer."""
        has_more = False
        for each in _pages(durable.log, page):
            if each.reset is not None:
                self._tell_reset(each.channel, each.reset, each.position)
            for event in each.events:
                if event.text and not self._messages.add(fitting(event.text)):
                    has_more = True
                    break
                subscription.position = event.position
            if has_more:
                break
            subscription.position = each.position
        self._messages.tell(
            type="resumed",
            id=subscription.id,
            position=subscription.position,
            more=has_more or None,
        )

    def _tell_reset(self, channel: str, reason: str, position: str | None) -> None:
        self._messages.tell(
            op="reset", channel=channel, reason=reason, position=position
        )

    def _tell_problem(self, id: str | None, status: int, reason: str) -> None:
        self._messages.tell(type="problem", id=id, status=status, reason=reason)


def _opening(request: HttpRequest, grant: Grant, since: str | None) -> Opening:
    """Read how a granted stream begins: the position first, the rows after it."""
    log = durable.log
    page = None
    if log is not None:
        page = log.read(grant.channel, since)
        log.opened(grant.channel)
    is_new = page is None or since is None or page.reset is not None
    return Opening(
        grant=grant,
        owner=getattr(request, "stream_owner", None),
        page=page,
        rows=list(snapshots(grant)) if is_new else [],
    )


def _subscription(operation: Operation, opening: Opening) -> Subscription:
    parts = urlsplit(operation.url)
    query = QueryDict(parts.query, mutable=True)
    for name in _ONCE:
        query.pop(name, None)
    url = f"{parts.path}?{query.urlencode()}" if query else parts.path
    return Subscription(
        id=operation.id,
        url="" if operation.id is None else url,
        channel=opening.grant.channel,
        position=None,
        user=_user(opening.grant),
        owner=opening.owner,
    )


def _user(grant: Grant) -> str | None:
    return None if grant.user is None else pk_text(grant.user)


def _pages(log: EventLog | None, page: Page) -> Iterator[Page]:
    yield page
    while log is not None and page.next_path is not None:
        page = log.read(page.channel, page.position)
        yield page


def _close(context: WebSocketContext, status: int, reason: str) -> None:
    """Close with the code that stands for a view's status: 4403 for 403."""
    text = reason.encode()[:123].decode(errors="ignore")
    context.close(4000 + status, text)
