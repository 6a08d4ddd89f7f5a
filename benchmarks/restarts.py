"""The long run: publish for minutes while Pushpin is restarted again and again.

    .venv/bin/python benchmarks/restarts.py [--minutes 10] [--rate 500] [--every 60]

One process publishes SSE events of 100 bytes at an even pace, with a callback each and
receivers of `published` and `publish_failed`. One subscriber reconnects at once when it
loses its stream. Pushpin is as installed; it is stopped every `--every` seconds and is
down for `--down` seconds, on the same ports.

A proxy takes its held streams with it when it ends. So what it accepts before the
subscriber is back, or shortly before its end, reaches nobody: without the event log
that is expected, and has a line of its own. What the publisher drops must be reported
alike by callback, signal, counters and log.

The exit code is 1 if published is not accepted + dropped, event by event; if the
reports disagree; if an event that was accepted while the subscriber had its stream was
not delivered; or if one came out of order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import resource
import sys
import tempfile
import time
from array import array
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "sample_app")]

from publish import EVENT_BYTES, Origin, Subscriber, event, quiet  # noqa: E402

from pushpin import Pushpin  # noqa: E402

CHANNEL = "restarts"
SETTLING = 20.0
"""Seconds in which the last callbacks must come."""
BEFORE, AFTER = 0.5, 0.1
"""Seconds before the end of a stream, and after its beginning, in which what is
accepted may miss it: Pushpin delivers some ten milliseconds after it accepts."""
SAMPLES = 20
"""Samples of the memory in one run, or one every 30 s."""
FLAT = 2.0
"""Megabytes by which the peak of the second half may exceed that of the first: what
waits in an outage makes the heap larger, but each time the same."""


# The worker: publishes, and notes what it is told.


class Book(logging.Handler):
    """What each way of reporting said of each event.

    Of its full size from the start, so that the memory of the process is the
    publisher's. It handles the log of the publisher.
    """

    def __init__(self, total: int) -> None:
        super().__init__()
        self.called = {True: bytearray(total), False: bytearray(total)}
        self.signalled = {True: bytearray(total), False: bytearray(total)}
        self.accepted_at = array("d", bytes(8 * total))
        self.logged = Counter({"dropped": 0, "beginnings": 0, "ends": 0})
        self.reasons: Counter[str] = Counter()

    def call(self, number: int, ok: bool, message: str) -> None:
        self.called[ok][number] += 1
        if ok:
            self.accepted_at[number] = time.monotonic()

    def published(self, items: list[Any], **named: object) -> None:
        self._signal(True, items)

    def failed(self, items: list[Any], reason: str, **named: object) -> None:
        self._signal(False, items)
        self.reasons[reason] += len(items)

    def _signal(self, ok: bool, items: list[Any]) -> None:
        for item in items:
            content = item.formats["http-stream"]["content"]
            self.signalled[ok][int(content.split()[2])] += 1

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.logged["beginnings"] += "It is tried again" in text
        self.logged["ends"] += "works again" in text
        if found := re.search(r"(\d+) items (were not delivered|for )", text):
            self.logged["dropped"] += int(found[1])

    @property
    def is_complete(self) -> bool:
        return sum(self.called[True]) + sum(self.called[False]) >= len(self.accepted_at)

    def report(self) -> dict[str, Any]:
        callbacks = list(zip(self.called[True], self.called[False], strict=True))
        signals = zip(self.signalled[True], self.signalled[False], strict=True)
        return {
            "callback": [sum(self.called[True]), sum(self.called[False])],
            "signal": [sum(self.signalled[True]), sum(self.signalled[False])],
            "not_once": sum(ok + failed != 1 for ok, failed in callbacks),
            "differently": sum(
                told != signalled
                for told, signalled in zip(callbacks, signals, strict=True)
            ),
            "logged": self.logged,
            "reasons": self.reasons,
            "accepted_at": list(self.accepted_at),
        }


def worker(control_uri: str, rate: float, total: int) -> None:
    """Publish `total` events, and print what was told as JSON."""
    import django
    from django.conf import settings

    settings.configure(SECRET_KEY="benchmarks", GRIP_URL=control_uri)
    django.setup()
    from gripcontrol import HttpStreamFormat

    from django_grip import publish
    from django_grip.publishers import get_publisher
    from django_grip.signals import publish_failed, published

    book = Book(total)
    published.connect(book.published)
    publish_failed.connect(book.failed)
    logging.getLogger("django_grip.publishers").addHandler(book)
    print("ready", flush=True)
    memory = []
    between = max(1, int(min(30 * rate, total / SAMPLES)))
    started = time.monotonic()
    for number in range(total):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        content = HttpStreamFormat(event(0, number))
        publish(CHANNEL, content, callback=partial(book.call, number))
        if not number % between:
            memory.append(megabytes())
    until = time.monotonic() + SETTLING
    while not book.is_complete and time.monotonic() < until:
        time.sleep(0.05)
    memory.append(megabytes())
    counters = get_publisher().counters().values()
    totals = {
        name: sum(found[name] for found in counters)
        for name in ("sent", "dropped", "merged", "retried", "queued")
    }
    print(json.dumps({**book.report(), "memory": memory, "counters": totals}))


def megabytes() -> float:
    """The resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


# The command: restarts Pushpin, listens, and compares.


class Stream(Subscriber):
    """A subscriber that says when it had its stream, and when it has lost it."""

    def __init__(self) -> None:
        super().__init__(CHANNEL)
        self.lost = asyncio.get_running_loop().create_future()
        self.since = 0.0
        self.until = float("inf")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.until = time.monotonic()
        if not self.lost.done():
            self.lost.set_result(None)

    def numbers(self) -> list[int]:
        """The numbers of the events it has brought, in that order."""
        body, _ = self.events()
        starts = range(0, len(body) - EVENT_BYTES + 1, EVENT_BYTES)
        return [int(body[at + 9 : at + 17]) for at in starts]


async def listen(port: int, streams: list[Stream]) -> None:
    """Hold a stream, and open the next one as soon as it is lost."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, stream = await loop.create_connection(Stream, "127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        try:
            # Pushpin as it starts may leave a request without an answer.
            await asyncio.wait_for(stream.ready, 1)
        except (ConnectionError, TimeoutError):
            stream.transport.close()
            continue
        stream.since = time.monotonic()
        streams.append(stream)
        await stream.lost


async def restart(proxy: Pushpin, moments: list[float], down: float) -> None:
    """Stop the proxy at each moment, and start it `down` seconds later."""
    for moment in moments:
        await asyncio.sleep(moment - time.monotonic())
        await asyncio.to_thread(proxy.stop)
        await asyncio.sleep(down)
        await asyncio.to_thread(proxy.start)


async def run(minutes: float, rate: float, every: float, down: float) -> bool:
    """Do the run and print the account. Returns whether it adds up."""
    loop = asyncio.get_running_loop()
    origin = await loop.create_server(Origin, "127.0.0.1", 0)
    upstream = f"127.0.0.1:{origin.sockets[0].getsockname()[1]}"
    seconds = minutes * 60
    total = int(seconds * rate)
    streams: list[Stream] = []
    with (
        tempfile.TemporaryDirectory() as directory,
        Pushpin(directory, upstream) as proxy,
    ):
        listening = asyncio.create_task(listen(proxy.http_port, streams))
        while not streams:
            await asyncio.sleep(0.02)
        work = {"control_uri": proxy.control_url, "rate": rate, "total": total}
        publisher = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--worker", json.dumps(work)),
            stdout=asyncio.subprocess.PIPE,
        )
        assert publisher.stdout is not None
        await publisher.stdout.readline()
        started = time.monotonic()
        # The last time it must be back before the end, to take what waits.
        number = max(0, int((seconds - down - 1) / every))
        moments = [started + every * (turn + 1) for turn in range(number)]
        restarting = asyncio.create_task(restart(proxy, moments, down))
        output = await publisher.stdout.read()
        if await publisher.wait():
            raise SystemExit("The publishing process failed.")
        await restarting
        await quiet([*streams])
        listening.cancel()
    origin.close()
    print(f"{'restarts':<15}{number} of {down:g} s, one every {every:g} s")
    return account(total, json.loads(output), streams)


def account(total: int, told: dict[str, Any], streams: list[Stream]) -> bool:
    """Print what became of `total` events; return whether it adds up."""
    accepted, dropped = told["callback"]
    signalled, failed = told["signal"]
    counters, logged = told["counters"], told["logged"]
    brought = [stream.numbers() for stream in streams]
    times = Counter(number for numbers in brought for number in numbers)
    disordered = sum(
        after < before for numbers in brought for before, after in pairwise(numbers)
    )
    missing = [
        at
        for number, at in enumerate(told["accepted_at"])
        if at and number not in times
    ]
    lost = sum(
        stream.since + AFTER < at < stream.until - BEFORE
        for at in missing
        for stream in streams
    )
    memory = told["memory"]
    half = len(memory) // 2
    early, late = max(memory[:half]), max(memory[half:])
    lines = {
        "published": f"{total:,} events",
        "accepted": f"{accepted:,} by callback; signal {signalled:,}, "
        f"counters {counters['sent']:,}",
        "dropped": f"{dropped:,} by callback; signal {failed:,}, "
        f"counters {counters['dropped']:,}, log {logged['dropped']:,}",
        **{f"  {number:,}": reason for reason, number in told["reasons"].items()},
        "delivered": f"{len(times):,}, in {len(streams)} streams",
        "not delivered": f"{len(missing) - lost:,} accepted while the subscriber had "
        f"no stream (expected: it ends with the proxy), {lost:,} while it had one",
        "twice": f"{sum(number - 1 for number in times.values()):,}",
        "out of order": f"{disordered:,}",
        "outages": f"log {logged['beginnings']} beginnings, {logged['ends']} ends; "
        f"{counters['retried']:,} POSTs repeated",
        "memory": f"{memory[0]:.1f} MB at the start, at most {early:.1f} in the first "
        f"half and {late:.1f} in the second, {memory[-1]:.1f} at the end: "
        f"{'flat' if late - early < FLAT else 'GROWING'}",
    }
    for name, text in lines.items():
        print(f"{name:<15}{text}")
    faults = {
        f"{total - accepted - dropped:,} events neither accepted nor dropped": (
            total != accepted + dropped
        ),
        f"{told['not_once']:,} events not told exactly once": told["not_once"],
        f"{told['differently']:,} events told differently by callback and signal": (
            told["differently"]
        ),
        "the counters differ": (
            [counters["sent"], counters["dropped"]] != [accepted, dropped]
        ),
        "the log differs": logged["dropped"] != dropped,
        f"{lost:,} events lost on the way": lost,
        f"{disordered:,} events out of order": disordered,
    }
    found = [text for text, is_so in faults.items() if is_so]
    print(f"{'account':<15}{'WRONG: ' + '; '.join(found) if found else 'adds up'}")
    return not found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="length of the run")
    parser.add_argument("--rate", type=float, default=500, help="events a second")
    parser.add_argument(
        "--every", type=float, default=60, help="seconds from one stop to the next"
    )
    parser.add_argument(
        "--down", type=float, default=2, help="seconds without a proxy each time"
    )
    parser.add_argument("--worker", metavar="JSON", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(**json.loads(given.worker))
    elif missing := Pushpin.missing():
        raise SystemExit(
            f"Expected Pushpin; missing: {', '.join(missing)} (make system)"
        )
    elif not asyncio.run(run(given.minutes, given.rate, given.every, given.down)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
