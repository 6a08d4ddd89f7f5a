"""`manage.py grip_publish CHANNEL DATA`: publish one item, and hear who took it."""

from __future__ import annotations

import sys
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from gripcontrol import HttpResponseFormat, HttpStreamFormat, WebSocketMessageFormat
from pubcontrol import Format

from django_grip import conf, proxies
from django_grip.exceptions import PublishError
from django_grip.publishing import publish
from django_grip.signals import published

FORMATS = ("http-stream", "http-response", "ws-message")


class Command(BaseCommand):
    """One blocking publish."""

    help = (
        "Publishes one item to a channel, at every proxy of the settings, and says "
        "which took it. GRIP_PREFIX is put before the channel. A stream gets DATA and "
        "a newline, a long-poll DATA as its answer, a WebSocket DATA as a message."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("channel", help="The channel, without GRIP_PREFIX.")
        parser.add_argument("data", help="What to publish; - reads it from stdin.")
        parser.add_argument(
            "--format",
            action="append",
            choices=FORMATS,
            dest="formats",
            help="Only for this kind of client; may be repeated. Default: all three.",
        )
        parser.add_argument(
            "--sse",
            nargs="?",
            const="",
            metavar="EVENT",
            help="Send streams a server-sent event (of the type EVENT), as EventSource "
            "expects it.",
        )
        parser.add_argument("--id", help="The id of the item.")
        parser.add_argument("--prev-id", help="The id of the item before it.")

    def handle(self, *args: Any, **options: Any) -> None:
        data = options["data"]
        if data == "-":
            data = sys.stdin.read().removesuffix("\n")
        kinds = options["formats"] or FORMATS
        if options["sse"] is not None and "http-stream" not in kinds:
            raise CommandError("--sse is for streams; expected --format http-stream.")
        accepted: list[str] = []

        def note(address: str, **kwargs: object) -> None:
            accepted.append(address)

        published.connect(note)
        try:
            _require_servers()
            publish(
                options["channel"],
                [_format(kind, data, options["sse"]) for kind in kinds],
                id=options["id"],
                prev_id=options["prev_id"],
                blocking=True,
            )
        except PublishError as exc:
            raise CommandError("\n".join(_failures(exc, accepted))) from exc
        except (ImproperlyConfigured, ValueError) as exc:
            raise CommandError(str(exc)) from exc
        finally:
            published.disconnect(note)
        for address in accepted:
            self.stdout.write(f"Accepted by {address}.")
        if not accepted:
            self.stdout.write(f"Taken by {conf.publisher()}; no proxy was asked.")


def _require_servers() -> None:
    if any(
        proxy.control_uri
        for proxy in (*proxies.configured(), *proxies.publish_servers())
    ):
        return
    raise CommandError(
        "No proxy to publish to: expected GRIP_PROXIES, GRIP_URL or PUBLISH_SERVERS "
        "in the settings; found none with an address. "
        "Example: GRIP_URL = 'http://localhost:5561'."
    )


def _format(kind: str, data: str, event: str | None) -> Format:
    if kind == "http-response":
        return HttpResponseFormat(body=data)
    if kind == "ws-message":
        return WebSocketMessageFormat(data)
    return HttpStreamFormat(f"{data}\n" if event is None else _frame(event, data))


def _frame(event: str, data: str) -> str:
    """A server-sent event. Raises ValueError for a type of more than one line."""
    if event.splitlines() not in ([], [event]):
        raise ValueError(f"The type of an event is one line; got {event!r}.")
    # Lines end as EventSource sees them, not as str.splitlines() does.
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    frame = "".join(f"data: {line}\n" for line in lines)
    return f"event: {event}\n{frame}\n" if event else f"{frame}\n"


def _failures(error: PublishError, accepted: list[str]) -> list[str]:
    failures = [
        f"Not accepted by {address}: {reason}"
        for address, reason in error.failures.items()
    ]
    return failures + [f"Accepted by {address}." for address in accepted]
