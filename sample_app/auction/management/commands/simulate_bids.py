"""Bid as five restless bidders, through the HTTP API like anybody else."""

import json
import random
import signal
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from django.core.management.base import BaseCommand

BIDDERS = [f"paddle-{number}" for number in range(1, 6)]


class Command(BaseCommand):
    help = "Place a bid on a random lot every few moments, until interrupted."
    # The bidders know the site by its address alone: nothing of this project is used.
    requires_system_checks = ()

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument(
            "--url", default="http://127.0.0.1:7999", help="the site (%(default)s)"
        )
        parser.add_argument(
            "--interval",
            type=float,
            default=1.5,
            help="seconds between two bids (%(default)s)",
        )

    def handle(self, *args: Any, url: str, interval: float, **options: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
        outage = False
        while True:
            try:
                place_random_bid(url.rstrip("/"))
            except (OSError, ValueError) as exc:
                if not outage:
                    self.stderr.write(f"No bids for now: {url} fails ({exc}).")
                outage = True
            else:
                outage = False
            time.sleep(interval)


def place_random_bid(url: str) -> None:
    """Offer what the site suggests on one of the open lots.

    Raises OSError or ValueError if the site does not answer as an auction does. A
    refused bid is none of these: somebody else was faster.
    """
    lots = [lot for lot in call(f"{url}/api/lots/") if lot["status"] == "open"]
    if not lots:
        return
    lot = random.choice(lots)
    bid = {"bidder": random.choice(BIDDERS), "amount": lot["next_bid"]}
    try:
        call(f"{url}/api/lots/{lot['id']}/bid/", bid)
    except urllib.error.HTTPError as exc:
        if exc.code not in (400, 404):
            raise


def call(url: str, body: object = None) -> Any:
    """GET `url`, or POST `body` to it, and return the decoded JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)
