"""Tickets: what a client without headers shows instead of them, for a minute.

A ticket stands in a URL, and URLs are kept: so it opens the stream of one path only,
for whom it was made, and soon no more.
"""

from __future__ import annotations

import time
from typing import Any

from django.http import HttpRequest, JsonResponse
from rest_framework import status
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.request import Request

from django_grip.contrib.realtime import conf
from django_grip.contrib.realtime.grants import Grant
from django_grip.contrib.rest_framework import seals
from django_grip.contrib.rest_framework.sessions import Owner, owner_of, user_of

_PURPOSE = "ticket"


class BadTicket(APIException):
    """A ticket that opens nothing here, or nothing any more."""

    status_code = status.HTTP_401_UNAUTHORIZED
    default_detail = (
        "This ticket is not valid for this stream, or not any more. Ask for another."
    )
    default_code = "bad_ticket"
    auth_header = "Ticket"
    """What DRF puts into WWW-Authenticate, which a 401 has to have."""


class TicketAuthentication(BaseAuthentication):
    """Authenticates by the parameter `ticket` of a stream's URL."""

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        """The user that a ticket was made for; None for one made for nobody.

        Raises BadTicket.
        """
        owner = owner_by(request.query_params["ticket"], request.path)
        if owner is None:
            return None
        user = user_of(owner)
        if user is None:
            raise BadTicket
        request._request.stream_owner = owner  # type: ignore[attr-defined]
        return user, None


def issue(request: HttpRequest, grant: Grant) -> JsonResponse:
    """The ticket for a stream that was granted to a `POST` of its `ticket/`.

    See transports.Transport.
    """
    user: Any = getattr(request, "user", None)
    owner = owner_of(request, user)
    if owner is None and getattr(user, "pk", None) is not None:
        raise BadTicket("Tickets are for users that are stored, and for nobody.")
    ttl = conf.ticket_ttl()
    place = _place(request.path.rpartition("/ticket")[0])
    ticket = seals.seal(_PURPOSE, [owner, int(time.time()) + ttl], place)
    response = JsonResponse({"ticket": ticket, "expires_in": ttl})
    response["Cache-Control"] = "no-store"
    return response


def owner_by(ticket: str, path: str) -> Owner | None:
    """Who a ticket was made for, to open the stream at `path`; None: for nobody.

    Raises BadTicket.
    """
    found = seals.unseal(_PURPOSE, ticket, _place(path))
    if found is None or time.time() > found[1]:
        raise BadTicket
    return None if found[0] is None else Owner(*found[0])


def _place(path: str) -> str:
    return path.removesuffix("/")
