"""`manage.py grip_proxy`: the local proxy alone, in front of any Django."""

from __future__ import annotations

from argparse import ArgumentTypeError
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_grip.contrib.localproxy import defaults
from django_grip.contrib.localproxy.addresses import Address, parse_address
from django_grip.contrib.localproxy.server import (
    BindError,
    LocalProxy,
    raise_file_limit,
)


class Command(BaseCommand):
    """Runs a LocalProxy until it is told to stop."""

    help = (
        "Runs a GRIP proxy in Python: for development, tests, demos and one small "
        "machine. Beyond that use Pushpin or Fastly Fanout; Django does not notice "
        "the difference. Stop it with CONTROL-C."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--listen",
            type=_address,
            default=Address("127.0.0.1", 7999),
            help="Where clients connect: host:port, or :port for every interface. "
            "Default: 127.0.0.1:7999.",
        )
        parser.add_argument(
            "--upstream",
            type=_upstream,
            default="http://127.0.0.1:8000",
            help="Where Django answers. Default: http://127.0.0.1:8000.",
        )
        parser.add_argument(
            "--control",
            type=_address,
            help="Where Django publishes. Default: the address in GRIP_URL or "
            "GRIP_PROXIES if it is on this machine, else 127.0.0.1:5561.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        raise_file_limit()
        try:
            project = defaults.from_settings()
            proxy = LocalProxy(
                upstream=options["upstream"],
                listen=options["listen"],
                control=options["control"] or project.control,
                key=project.key,
                iss=project.iss,
            )
            proxy.run(on_start=lambda: self._announce(proxy, project))
        except BindError as exc:
            raise CommandError(exc.strerror) from exc
        except (ImproperlyConfigured, ValueError) as exc:
            raise CommandError(str(exc)) from exc

    def _announce(self, proxy: LocalProxy, project: defaults.Defaults) -> None:
        self.stdout.write(
            f"GRIP proxy at {proxy.url} in front of {proxy.upstream}; "
            f"publish to {proxy.control_url}."
        )
        if project.key is None:
            self.stdout.write("No key is configured, so requests are not signed.")
        self.stdout.flush()


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as exc:
        raise ArgumentTypeError(str(exc)) from exc


def _upstream(text: str) -> str:
    parts = urlsplit(text)
    is_base = parts.scheme in ("http", "https") and parts.netloc
    if not is_base or parts.path.strip("/") or parts.query:
        raise ArgumentTypeError(
            f"The upstream is http://host:port without a path; got {text!r}. "
            "Example: http://127.0.0.1:8000."
        )
    return text.rstrip("/")
