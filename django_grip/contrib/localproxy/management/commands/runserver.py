"""`manage.py runserver` with the local proxy in front.

The proxy lives in the autoreloader's parent process, so that streams it holds survive
a code reload. Django, in the child, serves on a private loopback port.
"""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV

from django_grip.contrib.localproxy import defaults
from django_grip.contrib.localproxy.addresses import Address
from django_grip.contrib.localproxy.server import (
    BindError,
    LocalProxy,
    raise_file_limit,
)

PRIVATE_PORT_ENV = "DJANGO_GRIP_RUNSERVER_PORT"
"""Names the port, on 127.0.0.1, where the autoreloader's child serves Django."""


def next_runserver() -> type[BaseCommand]:
    """The runserver that would be there without this app (staticfiles', daphne's)."""
    names = [config.name for config in apps.get_app_configs()]
    ours = "django_grip.contrib.localproxy"
    after = names[names.index(ours) + 1 :] if ours in names else []
    for name in [*after, "django.core"]:
        path = f"{name}.management.commands.runserver"
        try:
            command: type[BaseCommand] = import_module(path).Command
        except ModuleNotFoundError as exc:
            # Only the absence of the command itself is expected here.
            if exc.name is None or not path.startswith(exc.name):
                raise
            continue
        return command
    raise CommandError("Django has no runserver command.")


if TYPE_CHECKING:
    from django.core.management.commands.runserver import Command as NextRunserver
else:
    NextRunserver = next_runserver()


class Command(NextRunserver):
    """The next app's runserver, behind a GRIP proxy on the address the user gave."""

    addr: str
    port: str
    use_ipv6: bool
    _raw_ipv6: bool

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--no-proxy",
            action="store_false",
            dest="use_grip_proxy",
            help="Tells django_grip to NOT put its GRIP proxy in front.",
        )

    def run(self, **options: Any) -> None:
        """Start the proxy, or serve behind it, depending on the process."""
        self._public: tuple[str, str, bool] | None = None
        if not options.get("use_grip_proxy", True):
            super().run(**options)
            return
        in_child = os.environ.get(DJANGO_AUTORELOAD_ENV) == "true"
        private = os.environ.get(PRIVATE_PORT_ENV)
        if in_child and private is not None:
            self._serve_privately(int(private))
            super().run(**options)
            return

        # Without autoreload, or if the code was too broken for this command to be
        # found when the parent started, proxy and Django share one process.
        port = _free_port()
        proxy = self._start_proxy(port)
        try:
            if in_child or not options["use_reloader"]:
                self._serve_privately(port)
            else:
                os.environ[PRIVATE_PORT_ENV] = str(port)
            super().run(**options)
        finally:
            os.environ.pop(PRIVATE_PORT_ENV, None)
            proxy.stop()

    def on_bind(self, server_port: int) -> None:
        """Announce the public address, not the private one."""
        if self._public is None:
            super().on_bind(server_port)
            return
        private = self.addr, self.port, self._raw_ipv6
        self.addr, self.port, self._raw_ipv6 = self._public
        super().on_bind(int(self.port))
        self.addr, self.port, self._raw_ipv6 = private

    def _serve_privately(self, port: int) -> None:
        self._public = (self.addr, self.port, self._raw_ipv6)
        self.addr, self.port = "127.0.0.1", str(port)
        self.use_ipv6 = self._raw_ipv6 = False

    def _start_proxy(self, port: int) -> LocalProxy:
        raise_file_limit()
        try:
            project = defaults.from_settings()
            proxy = LocalProxy(
                upstream=f"http://127.0.0.1:{port}",
                listen=Address(self._public_host(), int(self.port)),
                control=project.control,
                key=project.key,
                iss=project.iss,
            )
            proxy.start()
        except BindError as exc:
            raise CommandError(exc.strerror) from exc
        except (ImproperlyConfigured, ValueError) as exc:
            raise CommandError(str(exc)) from exc
        self.stdout.write(
            f"GRIP proxy at {proxy.url}; publish to {proxy.control_url}. "
            "(--no-proxy turns it off.)"
        )
        return proxy

    def _public_host(self) -> str:
        if not self.use_ipv6 or self._raw_ipv6:
            return self.addr
        # A name with --ipv6: the proxy tells the family by the address.
        try:
            found = socket.getaddrinfo(self.addr, None, socket.AF_INET6)
        except OSError as exc:
            raise CommandError(f"{self.addr} has no IPv6 address: {exc}.") from exc
        return str(found[0][4][0])


def _free_port() -> int:
    """A free loopback port below the range from which connections get theirs.

    A port of that range could be taken, while Django reloads, by any outgoing
    connection, even by one of the proxy to that very port.
    """
    for port in random.sample(range(20000, 32000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise CommandError("No free port for Django between 20000 and 32000 on 127.0.0.1.")
