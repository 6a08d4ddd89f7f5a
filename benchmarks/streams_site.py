"""The settings of the site of streams.py: rows to read and to stream, and an event log.

The environment names the proxy (GRIP_URL), the pause between two publishes
(SITE_INTERVAL) and, as tests/settings.py reads it, the database; without one it is the
SQLite file SITE_DB.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from django.db import connection
from django.http import HttpRequest, HttpResponse

from tests.contrib.eventlog.pushpin_site import *  # noqa: F403

ROOT_URLCONF = "tests.contrib.eventlog.pushpin_urls"
MIDDLEWARE = ["benchmarks.streams_site.About", "django_grip.GripMiddleware"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PAGINATION_CLASS": "benchmarks.streams_pages.Pages",
}
GRIP_PUBLISH_INTERVAL = float(os.environ["SITE_INTERVAL"])
GRIP_REALTIME = {"RELAY": "daemon"}


class About:
    """Says in each answer what was asked and how many statements that took, for the
    access log.

    Of a WebSocket it is the first event, and `POLL` if there is none.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        count = 0

        def counted(execute: Any, *arguments: Any) -> Any:
            nonlocal count
            count += 1
            return execute(*arguments)

        what = request.method
        if request.content_type == "application/websocket-events":
            what = (request.body.split() or [b"POLL"])[0].decode()
        with connection.execute_wrapper(counted):
            response = self.get_response(request)
        response["X-About"] = f"{what} {count}"
        return response
