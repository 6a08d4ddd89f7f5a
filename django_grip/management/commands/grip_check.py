"""`manage.py grip_check`: does a publish reach a client, and if not, why?"""

from __future__ import annotations

import secrets
import time
from argparse import ArgumentTypeError
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.module_loading import import_string
from gripcontrol import HttpStreamFormat

from django_grip import conf, proxies, roundtrip
from django_grip.exceptions import PublishError
from django_grip.management import findings, probes
from django_grip.management.findings import Finding, Level
from django_grip.proxies import Proxy
from django_grip.publishers.endpoint import Endpoint
from django_grip.publishers.http import Publisher
from django_grip.publishing import publish

CLIENT_PORT = 7999
"""Where Pushpin and the local proxy listen for clients, if their control port is
CONTROL_PORT."""

CONTROL_PORT = 5561

BURSTS = 2
"""A stall that is seen once is one; that there is none is asked twice."""

ARRIVAL_TIMES = (1.0, 4.0)
"""Seconds to wait for what was published; each wait begins with a publish."""

PUBLISH_TIME = 10.0
"""Seconds for a blocking publish, and a little more."""


class Command(BaseCommand):
    """Asks settings, control ports, and a stream of its own."""

    help = (
        "Checks the settings, the control port of each proxy, and the way from a "
        "client through the proxy to this Django and back. Says what was expected, "
        "what was found, and the cure. Exit code 1 if anything failed. Publishes "
        "less than 100 small items to a channel of its own."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--url",
            action="append",
            default=[],
            type=_url,
            help="Where clients reach the proxy, e.g. https://example.com/events/. "
            "Repeat it for several proxies, in the order of GRIP_PROXIES, GRIP_URL. "
            f"Default: the host of the control port, port {CLIENT_PORT}, if the "
            f"control port is {CONTROL_PORT}.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        failed = 0
        for finding in self._findings(options["url"]):
            style = {"OK": self.style.SUCCESS, "WARNING": self.style.WARNING}
            self.stdout.write(str(finding), style.get(finding.level, self.style.ERROR))
            self.stdout.flush()
            failed += finding.level == "FAILED"
        if failed:
            raise CommandError(f"{failed} of the checks above failed.")

    def _findings(self, urls: list[str]) -> Iterator[Finding]:
        try:
            configured = proxies.configured()
            servers = proxies.publish_servers()
            addresses = {
                proxy: Endpoint(proxy).address
                for proxy in (*configured, *servers)
                if proxy.control_uri
            }
        except (ImproperlyConfigured, ValueError) as exc:
            yield Finding("FAILED", "settings", str(exc))
            return
        if len(urls) > len(configured):
            raise CommandError(
                f"--url is given {len(urls)} times; the settings have "
                f"{len(configured)} proxies."
            )
        yield from self._settings(configured)
        for proxy, url in zip(
            configured, [*urls, *map(_client_url, configured[len(urls) :])], strict=True
        ):
            if proxy in addresses:
                yield from self._control(proxy, addresses[proxy])
            if url:
                yield from self._round_trip(proxy, url, addresses.get(proxy))
            else:
                yield findings.unasked(addresses.get(proxy, "a proxy"))
        for server in servers:
            if server in addresses:
                yield from self._control(server, addresses[server])

    def _settings(self, configured: tuple[Proxy, ...]) -> Iterator[Finding]:
        found = [*_system_checks(), *findings.keys(configured)]
        if not configured:
            found.append(
                Finding(
                    "FAILED",
                    "settings",
                    "expected GRIP_PROXIES or GRIP_URL; found neither.",
                    "GRIP_PROXIES = [{'control_uri': 'http://localhost:5561', "
                    "'key': …}]",
                )
            )
        elif not _is_http_publisher():
            found.append(
                Finding(
                    "WARNING",
                    "settings",
                    f"expected GRIP_PUBLISHER to be the HTTP one; found "
                    f"{conf.publisher()}, which may not publish to the proxies.",
                    "Remove GRIP_PUBLISHER from these settings.",
                )
            )
        yield from found or [
            Finding("OK", "settings", f"understood; proxies: {len(configured)}.")
        ]

    def _control(self, proxy: Proxy, address: str) -> Iterator[Finding]:
        answer = probes.control_port(proxy)
        yield findings.control_port(address, answer)
        if not answer.status:
            return
        url = urlsplit(proxy.control_uri or "")
        resolved = probes.addresses_of(url.hostname or "")
        if any(found.is_loopback for found in resolved):
            yield findings.exposure(address, probes.open_addresses(proxy))
        else:
            yield findings.remote_control(
                address,
                is_public=any(found.is_global for found in resolved),
                is_encrypted=url.scheme == "https",
            )

    def _round_trip(
        self, proxy: Proxy, url: str, address: str | None
    ) -> Iterator[Finding]:
        shown = _without_userinfo(url)
        channel = f"grip-check-{secrets.token_hex(16)}"
        headers = {roundtrip.HEADER: roundtrip.make_token(channel)}
        try:
            with probes.Stream(url, headers) as stream:
                yield from self._stream(proxy, shown, address, channel, stream)
        except (OSError, HTTPException, ValueError) as exc:
            reason = str(exc) or type(exc).__name__
            yield findings.unreachable(shown, reason)

    def _stream(
        self,
        proxy: Proxy,
        url: str,
        address: str | None,
        channel: str,
        stream: probes.Stream,
    ) -> Iterator[Finding]:
        held_channel = conf.prefix() + channel
        seen = roundtrip.Sighting.from_line(stream.first_line)
        if seen is None or not seen.channel.endswith(channel):
            if stream.status == 200 and not stream.first_line and not stream.has_ended:
                yield findings.buffered(url)
            else:
                yield findings.strange(url, stream.status, stream.location)
            return
        found = list(findings.sighting(url, seen, held_channel))
        yield from found
        if any(finding.level == "FAILED" for finding in found) or address is None:
            return
        if stream.has_ended:
            yield findings.unheld(url)
            return
        line = secrets.token_hex(8)
        delay, reason = self._publish(channel, line, address, stream)
        yield findings.arrival(url, delay, reason)
        if delay is None or _bills_by_message(address):
            return
        bursts = []
        for number in range(BURSTS):
            bursts.append(probes.burst(proxy, held_channel, stream, f"{line} {number}"))
            if bursts[-1].is_stalled:
                break
        yield findings.stall(url, bursts, conf.publish_interval())

    def _publish(
        self, channel: str, line: str, address: str, stream: probes.Stream
    ) -> tuple[float | None, str]:
        """Publish `line` as any code of the project would. (delay in seconds, reason)

        Once more if it does not come: a proxy of many machines takes its time until
        all of them know of a stream.
        """
        begin = time.monotonic()
        reason = ""
        for patience in ARRIVAL_TIMES:
            try:
                probes.within(PUBLISH_TIME, lambda: _publish_line(channel, line))
            except PublishError as exc:
                reason = exc.failures.get(address, "")
            except (TimeoutError, ImproperlyConfigured, ValueError) as exc:
                reason = str(exc)
            if moment := stream.wait_for({line}, patience).get(line):
                return moment - begin, ""
        return None, reason


def _publish_line(channel: str, line: str) -> None:
    publish(channel, HttpStreamFormat(f"{line}\n"), blocking=True)


def _is_http_publisher() -> bool:
    try:
        return issubclass(import_string(conf.publisher()), Publisher)
    except (ImportError, TypeError):
        return True  # E003 says so.


def _system_checks() -> Iterator[Finding]:
    """What `check --deploy` says of this package."""
    for message in checks.run_checks(include_deployment_checks=True):
        if str(message.id).startswith(_IDS) and message.id != "django_grip.W001":
            level: Level = "FAILED" if message.level >= checks.ERROR else "WARNING"
            yield Finding(level, str(message.id), message.msg, message.hint or "")


_IDS = ("django_grip.", "grip_")


def _client_url(proxy: Proxy) -> str:
    """Where clients reach a proxy that nobody has configured otherwise; else empty."""
    url = urlsplit(proxy.control_uri or "")
    if url.scheme != "http" or url.port != CONTROL_PORT:
        return ""
    host = url.hostname or ""
    return f"http://{f'[{host}]' if ':' in host else host}:{CLIENT_PORT}/"


def _bills_by_message(address: str) -> bool:
    return (urlsplit(address).hostname or "").endswith(".fastly.com")


def _without_userinfo(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path or '/'}"


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme in ("http", "https") and parts.hostname
        _ = parts.port
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ArgumentTypeError(
            f"--url is http://host:port/path or https://…; got {text!r}."
        )
    return text
