"""Streams: what each transport costs and gives, from Django to clients behind Pushpin.

    .venv/bin/python benchmarks/streams.py [--only PART] [--short]

The site of the tests with its event log on PostgreSQL (SQLite where that is not
installed), gunicorn with four workers that each open a connection for each request,
grip_relay, Pushpin, one writer and the clients are processes of their own on this
machine. A commit waits for the disk. "installed" is Pushpin as Debian installs it,
"operator" with the settings of docs/how-to/pushpin.md. The parts:

latency     from before a save until its event is at a client, 50 saves/s, over
            server-sent events, long-poll (`?wait=25&since=…`) and a WebSocket at the
            stream's own URL
open        1,000 clients of one list, of which 50 at a time open their streams: how
            long that takes all of them, and one; statements and milliseconds of Django,
            beside those of a plain GET of a row. Medians of three rounds
held        5,000 clients by server-sent events and 1,000 by WebSockets, on ten
            channels: memory, threads and open files of Django's workers before, with
            the clients idle, while 20 events/s go to 600 of them, and after. What
            Django is asked meanwhile: "links" are what Pushpin asks for streams that
            are silent, and "sockets" what it asks for WebSockets. Memory of Pushpin
collection  collection() of realtime.js in Node, opened while a list of 200 rows is
            created, changed and deleted 50 times a second, for 30 s; then again with
            Pushpin killed (SIGKILL) and started in between. In the end all have the
            same rows, by the hash of their JSON

Clients keep the rule for clients: "lost" is what never came to one of them, "gaps",
"cuts" and the like are what they mended. A target says MISSED where it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "sample_app"), str(ROOT)]

from benchmarks.eventlog import (  # noqa: E402
    Process,
    bound,
    family,
    quantile,
    quantiles,
    show,
)
from pushpin import Pushpin, session_members  # noqa: E402
from tests.clients import request  # noqa: E402
from tests.contrib.eventlog.pushpin_shop import OPERATOR  # noqa: E402
from tests.databases import PostgreSQL  # noqa: E402
from tests.servers import KEY, MANAGE, Site, answers, wait_until  # noqa: E402
from tests.servers import Process as Daemon  # noqa: E402

HERE = Path(__file__).resolve().parent
SETTINGS = {"installed": {}, "operator": OPERATOR}
INTERVALS = {"installed": "0.03", "operator": "0.005"}
"""GRIP_PUBLISH_INTERVAL."""
LIST = "/shipments/stream/"
RATE = 50
"""Saves/s."""
AT_ONCE = 50
"""Streams that are opened at the same time: Pushpin 1.36 leaves out some of more."""
PATIENCE = 60.0
CHECKED = 25.0
"""Seconds until a WebSocket was asked for the first time (20), and a stream (2)."""
CHANNELS = 10
HELD = {"sse": 5_000, "websocket": 1_000}
NODE = ("node", "--experimental-websocket", HERE / "collection_client.mjs")
ROWS, PAGE = 200, 50
WRITES = ("create", "update", "delete")
FLOW = 20
"""Events/s."""
FAULTS = ("gaps", "cuts", "resets", "refused", "unanswered")
BEGIN = ("GET", "OPEN")
"""What a stream begins with: see streams_site.About."""

Found = dict[str, Any]


class Request(NamedTuple):
    """A line of gunicorn's access log; see About for `what`."""

    path: str
    what: str
    queries: int
    ms: float


class Bench(Site):
    """The site as an operator runs it."""

    settings = "benchmarks.streams_site"
    probe = "/shipments/"

    def __init__(self, directory: str, configuration: str, env: dict[str, str]) -> None:
        super().__init__(directory, "pushpin")
        self.configuration = configuration
        self.requests = self.directory / "requests"
        self.origin = f"http://127.0.0.1:{self.django_port}"
        self.env |= {
            "SITE_DB": str(self.directory / "db.sqlite3"),
            "SITE_JOURNAL": os.devnull,
            "SITE_WAIT": str(self.directory / "wait"),
            "SITE_INTERVAL": INTERVALS[configuration],
            **env,
        }
        self._processes = ExitStack()

    def prepare(self) -> None:
        self.manage("migrate", "--run-syncdb", "--verbosity=0")

    def __enter__(self) -> Bench:
        super().__enter__()
        relay = Daemon([*MANAGE, "grip_relay"], self.directory / "relay.log", self.env)
        self._processes.callback(relay.stop)
        self.writer = self.process(HERE / "streams_writer.py", json.dumps(self.env))
        self.clients = self.process(HERE / "streams_clients.py", self.port)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._processes.close()
        super().__exit__(*exc_info)

    def process(self, *command: object) -> Process:
        """A process that takes jobs, until the end."""
        interpreter = [] if command[0] == "node" else [sys.executable]
        process = Process(*interpreter, *map(str, command))
        self._processes.callback(process.end)
        process.answer()
        return process

    def start_proxy(self) -> None:
        self._proxy = Pushpin(
            self.directory / "pushpin",
            upstream=f"127.0.0.1:{self.django_port}",
            http_port=self.port,
            control_port=self.control_port,
            key=KEY,
            settings=SETTINGS[self.configuration],
        )
        self._proxy.start()

    def start_django(self) -> None:
        self._django = Daemon(
            [
                *(sys.executable, "-m", "gunicorn", "--workers=4"),
                f"--bind=127.0.0.1:{self.django_port}",
                "--no-control-socket",
                f"--access-logfile={self.requests}",
                "--access-logformat=%(U)s %({x-about}o)s %(D)s",
                "django.core.wsgi:get_wsgi_application()",
            ],
            self.directory / "django.log",
            self.env,
        )
        wait_until(lambda: answers(self.origin + self.probe), "gunicorn answers")

    def workers(self) -> list[int]:
        return family(self._django.popen.pid)[1:]

    def proxies(self) -> list[int]:
        return session_members(self._proxy.process.pid)

    def kill_proxy(self) -> None:
        for pid in self.proxies():
            os.kill(pid, signal.SIGKILL)

    def asked(self, since: int = 0) -> list[Request]:
        """The requests that Django answered after the first `since`."""
        lines = self.requests.read_text().splitlines()[since:]
        rows = (line.split() for line in lines)
        return [
            Request(path, what, int(queries), int(us) / 1000)
            for path, what, queries, us in rows
        ]


class Machine:
    """What the parts share."""

    def __init__(self, stack: ExitStack, is_short: bool) -> None:
        self.is_short = is_short
        server = PostgreSQL(durable=True)
        self._server = None if server.missing() else stack.enter_context(server)

    @contextmanager
    def site(self, configuration: str) -> Iterator[Bench]:
        """A site of its own, with an empty database."""
        env = {}
        if self._server is not None:
            self._server.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
            env = self._server.environment()
        with (
            tempfile.TemporaryDirectory() as directory,
            Bench(directory, configuration, env) as site,
        ):
            yield site


# Latency.


def part_latency(machine: Machine) -> None:
    row = "{:<30} {:>16} {:>6}  {:<18} {}"
    show(row, "save -> client", "p50 / p99 ms", "lost", "", "targets")
    seconds = 3 if machine.is_short else 20
    for configuration in SETTINGS:
        with machine.site(configuration) as site:
            [pk] = site.writer.ask("create", number=1)
            for kind in ("sse", "long-poll", "websocket"):
                opened(site.clients, kind, [LIST])
                time.sleep(3)
                site.writer.ask("paced", pks=[pk], rate=RATE, seconds=1, first=1)
                time.sleep(0.5)
                found = told(site, [pk], RATE, seconds, 1)
                goals = []
                if kind == "sse" and configuration == "operator":
                    goals = [bound(quantile(found["ms"], 0.5), "p50", most=10)]
                elif kind == "sse":
                    goals = [
                        bound(quantile(found["ms"], 0.5), "p50", most=25),
                        bound(quantile(found["ms"], 0.99), "p99", most=40),
                    ]
                show(
                    row,
                    f"{configuration}, {kind}",
                    quantiles(found["ms"]),
                    found["lost"],
                    mended(found),
                    ", ".join([*goals, bound(found["lost"], "lost", most=0)]),
                )
                site.clients.ask("leave")


def opened(clients: Process, kind: str, paths: list[str]) -> Found:
    """Open a stream at each path."""
    found: Found = clients.ask(
        "open", kind=kind, paths=paths, at_once=AT_ONCE, patience=20.0
    )
    if found["failed"] or mended(found):
        text = (
            f"  {len(paths):,} {kind}: {found['failed']} are not open; {mended(found)}"
        )
        print(text, flush=True)
    return found


def told(site: Bench, pks: list[int], rate: float, seconds: float, each: int) -> Found:
    """Save rows; what came to the `each` clients that each of the events is for."""
    begun = dict(
        site.writer.ask("paced", pks=pks, rate=rate, seconds=seconds, first=1000)
    )
    found: Found = site.clients.ask(
        "collect", last=max(begun), clients=each, patience=PATIENCE
    )
    came = {number: times for number, times in found["came"] if number in begun}
    found["ms"] = [
        (at - begun[number]) * 1000 for number, times in came.items() for at in times
    ]
    found["lost"] = len(begun) * each - len(found["ms"])
    return found


def mended(found: Found) -> str:
    return ", ".join(f"{found[name]:,} {name}" for name in FAULTS if found[name])


# Opening.


def part_open(machine: Machine) -> None:
    number = 100 if machine.is_short else 1000
    rounds = 1 if machine.is_short else 3
    row = "{:<16} {:>7} {:>8} {:>17} {:>10} {:>4} {:>9}"
    titles = ("seconds", "opens/s", "p50 / p99 ms", "Django ms", "SQL", "requests")
    show(row, f"{number:,} clients", *titles)
    with machine.site("operator") as site:
        [pk] = site.writer.ask("create", number=1)
        kinds = {"get": f"/shipments/{pk}/", "sse": LIST, "websocket": LIST}
        figures: dict[str, list[Found]] = {kind: [] for kind in kinds}
        for turn in range(rounds + 1):
            for kind, path in kinds.items():
                # The first time is to warm up.
                found = opening(site, kind, [path] * (number if turn else AT_ONCE))
                figures[kind] += [found] * bool(turn)
    names = {"get": "a row, by GET", "sse": "sse", "websocket": "websocket"}
    for kind, rows in figures.items():
        cells = {
            name: statistics.median(found[name] for found in rows) for name in rows[0]
        }
        show(
            row,
            names[kind],
            f"{cells['seconds']:.1f}",
            f"{number / cells['seconds']:,.0f}",
            f"{cells['p50']:,.1f} / {cells['p99']:,.1f}",
            f"{cells['Django']:.1f}",
            f"{cells['statements']:g}",
            f"{cells['requests']:,g}",
        )


def opening(site: Bench, kind: str, paths: list[str]) -> dict[str, float]:
    """Open streams and end them: what that took."""
    before = len(site.asked())
    found = opened(site.clients, kind, paths)
    # Pushpin asks two seconds after a stream's beginning, WebSockets' clients sooner.
    time.sleep(3.5)
    asked = site.asked(before)
    site.clients.ask("leave")
    time.sleep(1)
    first = [one for one in asked if one.path == paths[0] and one.what in BEGIN]
    return {
        "seconds": found["seconds"],
        "p50": quantile(found["ms"], 0.5),
        "p99": quantile(found["ms"], 0.99),
        "Django": statistics.median(one.ms for one in first),
        "statements": statistics.median(one.queries for one in first),
        "requests": len(asked),
    }


# Held streams.


def part_held(machine: Machine) -> None:
    counts = {"sse": 500, "websocket": 100} if machine.is_short else HELD
    for configuration in ("operator", "installed"):
        with machine.site(configuration) as site:
            held(site, counts, machine.is_short)


def held(site: Bench, counts: dict[str, int], is_short: bool) -> None:
    idle, flow = (20.0, 10.0) if is_short else (120.0, 60.0)
    number = sum(counts.values())
    print(
        f"{site.configuration}: " + ", ".join(f"{n:,} {k}" for k, n in counts.items())
    )
    pks = site.writer.ask("create", number=CHANNELS)
    paths = {
        kind: [f"/shipments/{pks[at % CHANNELS]}/stream/" for at in range(count)]
        for kind, count in counts.items()
    }
    # As many before, so that what is left of requests does not count.
    for kind in paths:
        opened(site.clients, kind, paths[kind])
    site.writer.ask("paced", pks=pks, rate=RATE, seconds=2, first=1)
    time.sleep(3)
    site.clients.ask("leave")
    time.sleep(3)
    marks = {"before": mark(site)}
    for kind in paths:
        opened(site.clients, kind, paths[kind])
    time.sleep(CHECKED)
    marks["held"] = mark(site)
    if site.configuration == "operator":
        since = len(site.asked())
        time.sleep(idle)
        show_asked("idle", site.asked(since), idle)
        marks["idle"] = mark(site)
        since = len(site.asked())
        each = sum(kind.count(paths["sse"][0]) for kind in paths.values())
        found = told(site, pks[:1], FLOW, flow, each)
        show_asked(f"{FLOW} events/s", site.asked(since), flow)
        marks["flowing"] = mark(site)
        show_told(found, each, number)
    site.clients.ask("leave")
    time.sleep(3)
    marks["left"] = mark(site)
    show_marks(marks, number)


def show_told(found: Found, each: int, number: int) -> None:
    print(
        f"  {FLOW} events/s to {each:,} of the {number:,}: p50 / p99 ms "
        f"{quantiles(found['ms'])}, {found['lost']:,} lost of "
        f"{found['lost'] + len(found['ms']):,} ({bound(found['lost'], most=0)}) "
        f"{mended(found)}".rstrip()
    )


class Mark(NamedTuple):
    """What processes have: memory in kB."""

    rss: int
    pss: int
    threads: int
    files: int


def mark(site: Bench) -> dict[str, Mark]:
    return {"Django": taken(site.workers()), "Pushpin": taken(site.proxies())}


def taken(pids: Sequence[int]) -> Mark:
    figures: Counter[str] = Counter()
    for pid in pids:
        process = Path(f"/proc/{pid}")
        for file in ("smaps_rollup", "status"):
            for line in (process / file).read_text().splitlines():
                name, _, value = line.partition(":")
                if name in ("Rss", "Pss", "Threads"):
                    figures[name] += int(value.split()[0])
        figures["files"] += len(list((process / "fd").iterdir()))
    return Mark(figures["Rss"], figures["Pss"], figures["Threads"], figures["files"])


def show_marks(marks: dict[str, dict[str, Mark]], number: int) -> None:
    row = "  {:<9} {:<8} {:>10} {:>10} {:>9} {:>8} {:>16}  {}"
    titles = ("RSS MB", "PSS MB", "threads", "files", "RSS kB a client", "target")
    show(row, "memory of", "", *titles)
    for name in ("Django", "Pushpin"):
        for moment, found in marks.items():
            one, before = found[name], marks["before"][name]
            growth = (one.rss - before.rss) / number
            # What the workers take anyway is some 100 kB: too much for few clients.
            is_bound = name == "Django" and moment != "before" and number > 5_000
            show(
                row,
                name,
                moment,
                f"{one.rss / 1024:,.1f}",
                f"{one.pss / 1024:,.1f}",
                one.threads,
                f"{one.files:,}",
                "" if moment == "before" else f"{growth:.2f}",
                bound(round(growth), most=0) if is_bound else "",
            )


def show_asked(name: str, asked: Sequence[Request], seconds: float) -> None:
    kinds = Counter(
        "links" if one.path.startswith("/grip/") else one.what for one in asked
    )
    text = ", ".join(f"{kind} {n * 60 / seconds:,.0f}" for kind, n in kinds.items())
    total = len(asked) * 60 / seconds
    print(f"  {name}: {total:,.0f} requests a minute; {text or 'none'}", flush=True)


# The client's list.


def part_collection(machine: Machine) -> None:
    seconds = 4 if machine.is_short else 30
    row = "{:<32} {:>7} {:>6} {:>9} {:>5} {:>6} {:>6}  {}"
    titles = ("writes", "told", "equal in", "rows", "loads", "stale", "target")
    show(row, f"{RATE} writes/s for {seconds} s", *titles)
    with machine.site("operator") as site:
        cases: dict[str, Found] = {
            "sse": {},
            f"sse, pages of {PAGE}": {
                "list": f"{site.url}/shipments/?page_size={PAGE}"
            },
            "websocket": {"transport": "websocket"},
        }
        site.writer.ask("create", number=ROWS)
        clients = {name: site.process(*NODE) for name in cases}
        for is_killed in (False, True):
            site.writer.send("churn", number=ROWS, rate=RATE, seconds=seconds)
            time.sleep(seconds / 4)
            for name, client in clients.items():
                client.send("open", url=site.url + LIST, **cases[name])
            for client in clients.values():
                client.answer()
            if is_killed:
                time.sleep(seconds / 4)
                site.kill_proxy()
                site.stop_proxy()
                site.start_proxy()
            written = site.writer.answer()
            server = hashed(site)
            for client in clients.values():
                client.send("compare", hash=server, patience=PATIENCE)
            for name, client in clients.items():
                found = client.answer()
                show(
                    row,
                    f"{name}{', Pushpin killed' * is_killed}",
                    f"{sum(written[op] for op in WRITES):,}",
                    f"{sum(found[op] for op in WRITES):,}",
                    f"{found['ms']:,.0f} ms" if found["isEqual"] else "never",
                    found["size"],
                    found["load"],
                    found["stale"],
                    "equal" if found["isEqual"] else f"equal MISSED: {found}",
                )
                client.ask("close")


def rows_of(site: Bench) -> list[Found]:
    """The list as the server has it, past the proxy."""
    found: list[Found] = request(f"{site.origin}/shipments/").json()
    return found


def hashed(site: Bench) -> str:
    """As collection_client.mjs does it."""
    rows = sorted(rows_of(site), key=lambda row: row["id"])
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


PARTS: dict[str, Callable[[Machine], None]] = {
    "latency": part_latency,
    "open": part_open,
    "held": part_held,
    "collection": part_collection,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="this part; may be repeated"
    )
    parser.add_argument(
        "--short", action="store_true", help="fewer clients and shorter runs: an idea"
    )
    given = parser.parse_args()
    # Servers and Pushpin are ended by what SystemExit passes on its way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Terminated"))
    if missing := Pushpin.missing():
        raise SystemExit(
            f"Expected Pushpin; missing: {', '.join(missing)} (make system)"
        )
    if not shutil.which("node"):
        raise SystemExit("Expected Node, 20 or later; there is no `node`.")
    # Pushpin and the clients inherit it.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} processors, load "
        f"{os.getloadavg()[0]:.1f} before. All processes share them: figures of "
        "different machines\nor runs do not compare, their ratios do. fsync is on."
    )
    for name in given.only or PARTS:
        print(flush=True)
        with ExitStack() as stack:
            PARTS[name](Machine(stack, given.short))


if __name__ == "__main__":
    main()
