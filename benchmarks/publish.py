"""Publishing: django_grip beside django-grip 3.5.2, with 1 and with 4 processes.

    .venv/bin/python benchmarks/publish.py [--only SUBSTRING] [--short]

The two packages and their virtualenvs are those of core.py; this file is also the
worker that runs in each. Every pair of package and number of processes gets a Pushpin
of its own, on the same machine, twice:

installed   as Debian installs it; ours with its default interval
operator    message_rate=0, message_wait=500, client_buffer_size=131072; ours with
            GRIP_PUBLISH_INTERVAL = 0.005. message_hwm stays at 25,000: it still
            bounds what one POST may cause (items x subscribers), far more than here

Each item is one SSE event of 100 bytes, numbered by process and sequence, with the time
of the call of publish() in it. The subscribers are one asyncio process.

background   items/s accepted: publish() of many, until the last callback. No subscriber
blocking     items/s accepted one by one; ours with GRIP_PUBLISH_INTERVAL = 0
flood        events/s that reach every subscriber, publishing as fast as it goes for
             some seconds, but never with more than WINDOW items that are not accepted
burst        20,000 events at once, to 50 subscribers: seconds until the last arrived
latency      publish() to client, p50 / p99 in ms, evenly paced with a jitter of +-20 %;
             the rate is that of all processes together

"Pushpin alone" is what it accepts at that moment: items/s of bodies made beforehand,
with 1 and with 500 items, one POST after the other. Where that is low, the machine is
busy with something else, and the targets mean little.

"lost" is the share of deliveries (published events x subscribers) that never came,
"disordered" counts those that came after a later one of the same process, "twice" those
that came again. A run that takes less than a few seconds is repeated; rates are then
medians, and what went wrong is that of the worst round. The ratio says how many times
better ours is: by rate, for latency by p50, if both delivered everything.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from itertools import count, groupby, product
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "sample_app")]

from core import PACKAGES, python  # noqa: E402

from pushpin import Pushpin  # noqa: E402

OURS, PEER = PACKAGES
CONFIGURATIONS: dict[str, dict[str, str]] = {
    "installed": {},
    "operator": {
        "message_rate": "0",
        "message_wait": "500",
        "client_buffer_size": "131072",
    },
}
INTERVALS = {"operator": 0.005}
"""GRIP_PUBLISH_INTERVAL; installed: the default."""
PROCESSES = (1, 4)

EVENT_BYTES = 100
READY = b"event: ready\ndata: {}\n\n"
BACKGROUND = {OURS: 50_000, PEER: 10_000}
"""Items of a run: about two seconds for each package."""
BURST = 20_000
WINDOW = 5_000
"""Items of all processes that may wait for their callback in a flood."""
RATES = (10, 50, 200, 1000)
ROUNDS = 3
ENOUGH = 3.0
"""Seconds after which a case is not repeated."""
PATIENCE = 20.0
"""Seconds for which a run waits for callbacks, and then for deliveries."""
QUIET = 1.0
"""Seconds without any byte at any subscriber after which no more is expected."""

ROW = "{:<41} {:<29} {:<43} {:>6}  {}"

Result = dict[str, float]
WORST = {"lost", "disordered", "twice"}
"""Metrics of which the worst round counts, not the median."""


class Case(NamedTuple):
    """`job` is what the workers do, `subscribers` hold the channel meanwhile."""

    name: str
    job: dict[str, Any]
    subscribers: int = 0
    interval: float | None = None


class Target(NamedTuple):
    """`metric` of ours, where the name of a case has `part` in it."""

    part: str
    metric: str
    least: float = float("-inf")
    most: float = float("inf")


TARGETS = (
    Target("background", "rate", least=25_000),
    Target("blocking", "rate", least=2_000),
    Target("operator 1p flood, 50", "rate", least=20_000),
    Target("operator 4p flood, 50", "rate", least=20_000),
    Target("operator 1p flood, 50", "lost", most=0),
    Target("operator 4p flood, 50", "lost", most=0),
    Target("installed 1p burst", "lost", most=0),
    Target("installed 4p burst", "lost", most=0),
    Target("installed 1p latency, 50/s", "p50", most=25),
    Target("installed 1p latency, 50/s", "p99", most=40),
    Target("installed 4p latency, 50/s", "p99", most=150),
    Target("operator 1p latency, 50/s", "p50", most=3),
    Target("operator 4p latency, 50/s", "p50", most=3),
    Target("", "disordered", most=0),
)


# The worker: publishes with the one django_grip of its virtualenv.


def event(process: int, number: int) -> str:
    """EVENT_BYTES that end as an SSE event does."""
    head = f"data: {process:02} {number:08} {time.monotonic_ns():020} "
    return head.ljust(EVENT_BYTES - 2, "x") + "\n\n"


class Run:
    """Publishes numbered events of one process and notes every callback."""

    def __init__(self, process: int, channels: list[str]) -> None:
        # Only now: at import, the peer reads the settings.
        from gripcontrol import HttpStreamFormat

        from django_grip import publish

        self.published = 0
        self.outcomes: list[bool] = []
        self._publish = publish
        self._format = HttpStreamFormat
        self._process = process
        self._channels = channels

    def one(self, *, blocking: bool = False) -> None:
        number = self.published
        self.published += 1
        self._publish(
            self._channels[number % len(self._channels)],
            self._format(event(self._process, number)),
            blocking=blocking,
            callback=None if blocking else self._told,
        )

    def _told(self, ok: bool, message: str) -> None:
        self.outcomes.append(ok)

    @property
    def waiting(self) -> int:
        return self.published - len(self.outcomes)


def background(run: Run, number: int) -> None:
    for _ in range(number):
        run.one()


def blocking(run: Run, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        run.one(blocking=True)
        run.outcomes.append(True)


def flood(run: Run, seconds: float, window: int) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if run.waiting < window:
            run.one()
        else:
            time.sleep(0.001)


def paced(run: Run, rate: float, seconds: float) -> None:
    started = time.monotonic() + random.random() / rate
    for turn in range(int(rate * seconds)):
        at = started + (turn + random.uniform(-0.2, 0.2)) / rate
        time.sleep(max(0.0, at - time.monotonic()))
        run.one()


JOBS: dict[str, Callable[..., None]] = {
    "background": background,
    "blocking": blocking,
    "flood": flood,
    "paced": paced,
}


def worker(control_uri: str, interval: float | None) -> None:
    """Do the jobs of standard input, a line of JSON each, and answer in kind."""
    import django
    from django.conf import settings

    own = {} if interval is None else {"GRIP_PUBLISH_INTERVAL": interval}
    settings.configure(
        SECRET_KEY="benchmarks", GRIP_PROXIES=[{"control_uri": control_uri}], **own
    )
    django.setup()
    print(json.dumps(version("django-grip")), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        name, at = job.pop("name"), job.pop("at")
        run = Run(job.pop("process"), job.pop("channels"))
        time.sleep(max(0.0, at - time.monotonic()))
        JOBS[name](run, **job)
        until = time.monotonic() + PATIENCE
        while run.waiting and time.monotonic() < until:
            time.sleep(0.002)
        ended = time.monotonic()
        outcome = {
            "published": run.published,
            "accepted": sum(run.outcomes),
            "seconds": ended - at,
        }
        print(json.dumps(outcome), flush=True)


# The subscribers and the origin: one asyncio process, the command's own.


class Origin(asyncio.Protocol):
    """Holds every request as a stream of the channel that its path is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = b""

    def data_received(self, data: bytes) -> None:
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        for head in heads:
            channel = head.split()[1][1:]
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Grip-Hold: stream\r\nGrip-Channel: %s\r\nContent-Length: %d\r\n\r\n%s"
                % (channel, len(READY), READY)
            )


class Subscriber(asyncio.Protocol):
    """Keeps what it receives and when; it is taken apart after the run."""

    def __init__(self, channel: str) -> None:
        self.ready = asyncio.get_running_loop().create_future()
        self.last_at = 0.0
        self._channel = channel
        self._received: list[bytes] = []
        self._times: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        request = f"GET /{self._channel} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        transport.write(request.encode())

    def data_received(self, data: bytes) -> None:
        self.last_at = time.monotonic()
        self._received.append(data)
        self._times.append(self.last_at)
        if not self.ready.done() and READY in b"".join(self._received):
            self.ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("no stream was opened"))

    def events(self) -> tuple[bytes, list[tuple[int, float]]]:
        """The events, without the chunks around them, and when they had come.

        An element of the list says: so many bytes of events were there at that time.
        """
        raw = b"".join(self._received)
        arrived = []
        total = 0
        for data in self._received:
            total += len(data)
            arrived.append(total)
        at = raw.index(b"\r\n\r\n") + 4
        pieces = []
        times = []
        total = -len(READY)
        while (end := raw.find(b"\r\n", at)) > 0:
            size = int(raw[at:end], 16)
            at = end + 2 + size
            if not size or at > len(raw):
                break
            pieces.append(raw[end + 2 : at])
            total += size
            times.append((total, self._times[bisect_left(arrived, at)]))
            at += 2
        return b"".join(pieces)[len(READY) :], times


class Received(NamedTuple):
    """What one stream brought: distinct events, repetitions, and late ones."""

    events: int
    twice: int
    disordered: int


def tally(body: bytes) -> Received:
    seen: Counter[tuple[int, int]] = Counter()
    latest: dict[int, int] = {}
    disordered = 0
    for at in range(0, len(body) - EVENT_BYTES + 1, EVENT_BYTES):
        process, number = int(body[at + 6 : at + 8]), int(body[at + 9 : at + 17])
        seen[process, number] += 1
        if number < latest.get(process, -1):
            disordered += 1
        else:
            latest[process] = number
    return Received(len(seen), seen.total() - len(seen), disordered)


def delays(body: bytes, times: list[tuple[int, float]]) -> Iterator[float]:
    """Milliseconds from publish() to the client, for each event."""
    ends = [end for end, _ in times]
    for at in range(0, len(body) - EVENT_BYTES + 1, EVENT_BYTES):
        arrived = times[bisect_left(ends, at + EVENT_BYTES)][1]
        yield arrived * 1e3 - int(body[at + 18 : at + 38]) / 1e6


async def quiet(crowd: list[Subscriber]) -> None:
    """Return when nothing has arrived for QUIET seconds, or after PATIENCE."""
    started = time.monotonic()
    while (now := time.monotonic()) < started + PATIENCE:
        last = max([started, *(subscriber.last_at for subscriber in crowd)])
        if now > last + QUIET:
            return
        await asyncio.sleep(last + QUIET - now + 0.01)


# The command: runs Pushpin and the workers, prints the table.


class Setting:
    """One package, a number of its processes, one Pushpin."""

    def __init__(self, interpreter: str, processes: int, proxy: Pushpin) -> None:
        self.processes = processes
        self._interpreter = interpreter
        self._proxy = proxy
        self._workers: list[asyncio.subprocess.Process] = []
        self._serial = count()

    @asynccontextmanager
    async def publishers(self, interval: float | None) -> AsyncIterator[None]:
        """Have worker processes, ready for jobs."""
        given = json.dumps(
            {"control_uri": self._proxy.control_url, "interval": interval}
        )
        try:
            for _ in range(self.processes):
                process = await asyncio.create_subprocess_exec(
                    *(self._interpreter, "-I", __file__, "--worker", given),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
                self._workers.append(process)
            for process in self._workers:
                await answer_of(process)
            yield
        finally:
            for process in self._workers:
                assert process.stdin is not None
                process.stdin.close()
            while self._workers:
                await self._workers.pop().wait()

    async def crowd(self, channel: str, number: int) -> list[Subscriber]:
        loop = asyncio.get_running_loop()
        crowd = []
        for _ in range(number):
            _, subscriber = await loop.create_connection(
                lambda: Subscriber(channel), "127.0.0.1", self._proxy.http_port
            )
            crowd.append(subscriber)
        await asyncio.gather(*(subscriber.ready for subscriber in crowd))
        return crowd

    async def measure(self, case: Case) -> Result:
        """Run a case once."""
        channel = f"c{next(self._serial)}"
        job = dict(case.job)
        if spread := job.pop("spread", 1):
            job["channels"] = [channel] + [f"{channel}-{n}" for n in range(1, spread)]
        crowd = await self.crowd(channel, case.subscribers)
        # The last of the crowd may have its stream before the handler knows of it.
        await asyncio.sleep(0.3 if crowd else 0)
        at = time.monotonic() + 0.1
        for process, found in enumerate(self._workers):
            assert found.stdin is not None
            task = json.dumps({**job, "process": process, "at": at}) + "\n"
            found.stdin.write(task.encode())
        answers = [await answer_of(found) for found in self._workers]
        published = sum(found["published"] for found in answers)
        accepted = sum(found["accepted"] for found in answers)
        seconds = max(found["seconds"] for found in answers)
        if not crowd:
            lost = 1 - accepted / published
            return {"rate": accepted / seconds, "lost": lost}
        await quiet(crowd)
        return outcome(crowd, published, at, seconds)


async def answer_of(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise SystemExit("A worker has ended, nothing to compare")
    return json.loads(line)


def outcome(
    crowd: list[Subscriber], published: int, at: float, seconds: float
) -> Result:
    """Count what every subscriber has received of what was published from `at` on."""
    tallies: dict[bytes, Received] = {}
    received = twice = disordered = 0
    waited: list[float] = []
    for subscriber in crowd:
        subscriber.transport.close()
        body, times = subscriber.events()
        if body not in tallies:
            tallies[body] = tally(body)
        received += tallies[body].events
        twice += tallies[body].twice
        disordered += tallies[body].disordered
        if len(crowd) == 1:
            waited = sorted(delays(body, times))
    last_at = max(subscriber.last_at for subscriber in crowd)
    took = max(seconds, last_at - at)
    found = {
        "rate": received / len(crowd) / took,
        "seconds": last_at - at,
        "lost": 1 - received / (published * len(crowd)),
        "twice": twice,
        "disordered": disordered,
    }
    if waited:
        found["p50"] = waited[len(waited) // 2]
        found["p99"] = waited[len(waited) * 99 // 100]
    return found


def cases(configuration: str, package: str, processes: int, short: bool) -> list[Case]:
    """The cases of one setting; `short` ones take about a quarter of the time."""
    interval = INTERVALS.get(configuration)
    part = 4 if short else 1
    prefix = f"{configuration} {processes}p"
    number = BACKGROUND[package] // processes // part
    job: dict[str, Any] = {"name": "blocking", "seconds": 1.2 / part}
    found = [Case(f"{prefix} blocking", job, interval=0)]
    for spread in (1, 100):
        job = {"name": "background", "number": number, "spread": spread}
        name = f"{prefix} background, {spread} channel{'s' * (spread > 1)}"
        found.append(Case(name, job, interval=interval))
    for rate in RATES:
        job = {"name": "paced", "rate": rate / processes, "seconds": 8 / part}
        found.append(Case(f"{prefix} latency, {rate}/s", job, 1, interval))
    for subscribers in (1, 50):
        job = {"name": "flood", "seconds": 4 / part, "window": WINDOW // processes}
        name = f"{prefix} flood, {subscribers} subscriber{'s' * (subscribers > 1)}"
        found.append(Case(name, job, subscribers, interval))
    job = {"name": "background", "number": BURST // processes}
    found.append(Case(f"{prefix} burst, 50 subscribers", job, 50, interval))
    return found


def ceiling(proxy: Pushpin, batch: int) -> float:
    """Items/s of bodies of `batch` items made beforehand, POSTed one by one."""
    item = {"channel": "c", "formats": {"http-stream": {"content": event(0, 0)}}}
    body = json.dumps({"items": [item] * batch}).encode()
    started = time.monotonic()
    sent = 0
    while time.monotonic() < started + 0.5:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.control_port)
        connection.request("POST", "/publish/", body)
        if connection.getresponse().status != 200:
            raise SystemExit("Pushpin refused a POST, nothing to compare")
        connection.close()
        sent += batch
    return sent / (time.monotonic() - started)


def shown(name: str, found: Result) -> str:
    """A result in a cell of the table."""
    if "latency" in name:
        text = f"{found['p50']:,.1f} / {found['p99']:,.1f} ms"
    else:
        text = f"{found['rate']:,.0f}/s"
    if "burst" in name:
        text = f"{found['seconds']:.2f} s, {text}"
    if lost := found["lost"]:
        text += f", lost {lost:.1%}" if lost >= 0.001 else f", lost {lost:.1e}"
    for wrong in ("disordered", "twice"):
        if found.get(wrong):
            text += f", {found[wrong]:,.0f} {wrong}"
    return text


def ratio(name: str, ours: Result, peer: Result) -> str:
    if "latency" not in name:
        return f"{ours['rate'] / peer['rate']:.1f}"
    if ours["lost"] or peer["lost"]:
        return ""
    return f"{peer['p50'] / ours['p50']:.1f}"


def verdict(name: str, found: Result) -> str:
    """The targets of a case, each with MISSED where it is."""
    texts = []
    for part, metric, least, most in TARGETS:
        if part not in name or metric not in found:
            continue
        bound = f">= {least:,.0f}" if most == float("inf") else f"<= {most:,.0f}"
        if least <= found[metric] <= most:
            # That nothing is disordered goes without saying.
            texts += [f"{metric} {bound}"] if part else []
        else:
            texts.append(f"{metric} {bound} MISSED")
    return ", ".join(texts)


def line(name: str, ours: Result, peer: Result) -> str:
    """A row of the table."""
    cells = shown(name, ours), shown(name, peer)
    return ROW.format(
        name, *cells, ratio(name, ours, peer), verdict(name, ours)
    ).rstrip()


@contextmanager
def pushpin(upstream: str, settings: dict[str, str]) -> Iterator[Pushpin]:
    with (
        tempfile.TemporaryDirectory() as directory,
        Pushpin(directory, upstream, settings=settings) as proxy,
    ):
        yield proxy


async def rounds(pairs: list[tuple[Setting, Case]], most: int) -> list[Result]:
    """Run the same case of both packages in turn, and repeat it while it is short."""
    found: list[list[Result]] = [[] for _ in pairs]
    spent = [0.0 for _ in pairs]
    for _ in range(most):
        for which, (setting, case) in enumerate(pairs):
            if spent[which] < ENOUGH:
                started = time.monotonic()
                found[which].append(await setting.measure(case))
                spent[which] += time.monotonic() - started
    return [
        {
            metric: (max if metric in WORST else statistics.median)(
                [result[metric] for result in results]
            )
            for metric in results[0]
        }
        for results in found
    ]


async def compare(only: str, short: bool) -> None:
    """Run the cases with `only` in their names, and print the table."""
    interpreters = {OURS: python("core-ours"), PEER: python("core-peer")}
    loop = asyncio.get_running_loop()
    origin = await loop.create_server(Origin, "127.0.0.1", 0)
    upstream = f"127.0.0.1:{origin.sockets[0].getsockname()[1]}"
    print(ROW.format("", *PACKAGES, "ratio", "targets"), flush=True)
    for (configuration, settings), processes in product(
        CONFIGURATIONS.items(), PROCESSES
    ):
        chosen = [
            pair
            for pair in zip(
                *(cases(configuration, name, processes, short) for name in PACKAGES),
                strict=True,
            )
            if only in pair[0].name
        ]
        if not chosen:
            continue
        with pushpin(upstream, settings) as first, pushpin(upstream, settings) as other:
            alone = [f"{ceiling(first, batch):,.0f}/s by {batch}" for batch in (1, 500)]
            print(
                ROW.format(f"{configuration}, Pushpin alone", *alone, "", "").rstrip()
            )
            ours = Setting(interpreters[OURS], processes, first)
            peer = Setting(interpreters[PEER], processes, other)
            for interval, group in groupby(chosen, lambda pair: pair[0].interval):
                async with ours.publishers(interval), peer.publishers(interval):
                    for of_ours, of_peer in group:
                        found = await rounds(
                            [(ours, of_ours), (peer, of_peer)], 1 if short else ROUNDS
                        )
                        print(line(of_ours.name, *found), flush=True)
    origin.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", default="", metavar="SUBSTRING", help="cases with this in their name"
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="runs of a quarter of the length, none repeated",
    )
    parser.add_argument("--worker", metavar="JSON", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(**json.loads(given.worker))
    elif missing := Pushpin.missing():
        raise SystemExit(
            f"Expected Pushpin; missing: {', '.join(missing)} (make system)"
        )
    else:
        asyncio.run(compare(given.only, given.short))


if __name__ == "__main__":
    main()
