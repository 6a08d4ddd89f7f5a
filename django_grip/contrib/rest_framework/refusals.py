"""Refusals: what is said to clients that get no stream, and what to programmers."""

from __future__ import annotations

import logging

from django.conf import settings
from rest_framework import status
from rest_framework.exceptions import APIException, PermissionDenied
from rest_framework.request import Request

logger = logging.getLogger("django_grip.rest_framework")


class Refused(Exception):
    """The view may not stream this; the text says why, and the cure.

    It is for programmers, and names what is theirs: see denial().
    """


class NothingToStream(PermissionDenied):
    """This caller has no value of the view's scope."""

    default_detail = "There is nothing here that you may stream."
    default_code = "nothing_to_stream"


class NotProxied(APIException):
    """The request came through no GRIP proxy, so nothing could hold it."""

    status_code = status.HTTP_501_NOT_IMPLEMENTED
    default_detail = (
        "Streams are served through a GRIP proxy, and this request came through none."
    )
    default_code = "not_proxied"


class TooLarge(APIException):
    """A list is too long to begin a stream with."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "snapshot_too_large"


def denial(request: Request, refused: Refused) -> PermissionDenied:
    """The 403 of a view that is not fit to stream.

    Clients are told why with DEBUG only: the reason names models, serializers and
    views. It is logged, and kept as `stream_refusal` of Django's request.
    """
    request._request.stream_refusal = str(refused)  # type: ignore[attr-defined]
    if settings.DEBUG:
        return PermissionDenied(str(refused))
    logger.warning("No stream at %s: %s", request.path, refused)
    return PermissionDenied("This cannot be streamed.")
