"""Answers of the stream routes: each view is asked, as the proxy's request would be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

from django.conf import settings
from django.contrib.admindocs.views import simplify_regex
from django.db import models, transaction
from django.test import RequestFactory
from django.urls import Resolver404, ResolverMatch, get_resolver, resolve
from rest_framework.test import force_authenticate

from django_grip.contrib.realtime.management.answers import Answer
from django_grip.contrib.realtime.streams import registry
from django_grip.contrib.rest_framework.routes import stream_routes
from django_grip.holds import GripData

_PARAMETER = re.compile(r"<(?:[^<>:]+:)?(\w+)>")


def answers(row: models.Model, user: Any) -> Iterator[Answer]:
    """Ask every stream route that may be of this row, as this user (None: nobody).

    Middleware is not asked, and what a view writes to the row's database is rolled
    back.
    """
    for route, callback in stream_routes(get_resolver().url_patterns):
        action = getattr(callback, "actions", {}).get("get")
        if action not in ("stream_collection", "stream_object"):
            continue
        path = _PARAMETER.sub(r"<\1>", simplify_regex(route))
        names = re.findall(r"<(\w+)>", path)
        if "format" in names or not _may_stream(callback.cls, row):
            continue
        lookup = callback.cls.lookup_field
        kwargs = {}
        if action == "stream_object":
            kwargs[callback.cls.lookup_url_kwarg or lookup] = str(_along(row, lookup))
        for name, value in kwargs.items():
            path = path.replace(f"<{name}>", quote(value))
        if unknown := [name for name in names if name not in kwargs]:
            reason = f"not asked: the row does not tell its {', '.join(unknown)}"
            yield Answer(url=path, reason=reason)
        elif (match := _resolved(path)) is None or match.func is not callback:
            reason = "404 another route" if match else "404 no route"
            yield Answer(url=path, reason=f"{reason} answers for this value")
        else:
            yield _ask(path, match, row, user)


def _may_stream(view: Any, row: models.Model) -> bool:
    """Whether a view is of the row's model or of a parent, as far as it says."""
    model = getattr(getattr(view.serializer_class, "Meta", None), "model", None)
    if view.queryset is not None:
        model = view.queryset.model
    if model is None:
        return True
    return registry.get(model) is not None and isinstance(
        row, model._meta.concrete_model
    )


def _resolved(path: str) -> ResolverMatch | None:
    try:
        return resolve(unquote(path))
    except Resolver404:
        return None


def _ask(path: str, match: ResolverMatch, row: models.Model, user: Any) -> Answer:
    request = _request(path, user)
    request.resolver_match = match
    try:
        with transaction.atomic(using=row._state.db):
            response = match.func(request, *match.args, **match.kwargs)
            transaction.set_rollback(True, using=row._state.db)
    except Exception as exc:
        # A boundary: the view is the user's, and what it raises is the answer.
        return Answer(url=path, reason=f"500 {exc!r}")
    instruct = request.grip.instruct
    if instruct is not None:
        return Answer(url=path, channel=instruct.channels[0].name)
    if refused := getattr(request, "stream_refusal", None):
        return Answer(url=path, reason=f"{response.status_code} {refused}")
    data = getattr(response, "data", None)
    detail = data.get("detail", data) if isinstance(data, dict) else data
    return Answer(url=path, reason=f"{response.status_code} {detail}")


def _request(path: str, user: Any) -> Any:
    """A request as a proxy sends it, from this user."""
    hosts = [host for host in settings.ALLOWED_HOSTS if host[:1] not in (".", "*")]
    factory = RequestFactory(SERVER_NAME=hosts[0] if hosts else "localhost")
    request: Any = factory.get(path, headers={"accept": "text/event-stream"})
    request.grip = GripData(proxied=True, signed=True)
    request.grip_proxied = request.grip_signed = True
    request.wscontext = None
    if user is not None:
        request.user = user
        force_authenticate(request, user)
    return request


def _along(row: Any, path: str) -> Any:
    for name in path.split("__"):
        row = getattr(row, name, None)
    return row
