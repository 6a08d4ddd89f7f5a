"""Links: paths that only a proxy asks for, answered beside the project's URLconf."""

from __future__ import annotations

from django.http import HttpRequest

NEXT = "grip/next/"
PAGE = "grip/page/"
PRIVATE = "grip/private/"
"""What these paths begin with, behind the script's name."""

urlconfs: dict[str, str] = {}
"""The URLconf of each of these paths, set by the app that answers it."""


def route(request: HttpRequest) -> None:
    """Have a request that is verified resolved by ours, if it asks for a link."""
    path = request.META.get("PATH_INFO", "")
    for link, urlconf in urlconfs.items():
        if path.startswith(f"/{link}"):
            request.urlconf = urlconf
