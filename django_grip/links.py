"""Links: paths that only a proxy asks for, answered beside the project's URLconf."""

from __future__ import annotations

from django.http import HttpRequest

NEXT = "grip/next/"
PAGE = "grip/page/"
"""What these paths begin with, behind the script's name."""

_PATHS = (f"/{NEXT}", f"/{PAGE}")

urlconf: str | None = None
"""The URLconf of these paths, set by the app that has some."""


def route(request: HttpRequest) -> None:
    """Have a request that is verified resolved by `urlconf`, if it asks for a link."""
    if urlconf is not None and request.META.get("PATH_INFO", "").startswith(_PATHS):
        request.urlconf = urlconf
