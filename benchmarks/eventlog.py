"""The event log: what it costs and what it gives, beside django-eventstream.

    .venv/bin/python benchmarks/eventlog.py [--only PART] [--short]

Ours is django_grip with `contrib.eventlog`; the peer is django-eventstream with its
DjangoModelStorage, and send_event() in a post_save receiver. Each lives in a virtualenv
of its own below `.benchmarks/`: made on the first run and kept; ours is installed anew
on every run, from a copy of the working tree. eventlog_site.py is the Django project of
both, eventlog_streams.py the clients. Writers, relay, origin, clients, database and
Pushpin are processes of their own on this machine.

PostgreSQL and MariaDB are private servers on loopback with the durability they are
installed with: a commit waits for the disk. SQLite is a file in WAL mode, `synchronous`
NORMAL. Every save is one row in `with transaction.atomic()`; the model is thin and has
no scopes, so each change is two events: one on the collection's channel, one on the
object's. "bare" is the same save of an unregistered model of the same table. Pushpin is
as Debian installs it, or, "operator", with message_rate=0, message_wait=500,
client_buffer_size=131072 and GRIP_PUBLISH_INTERVAL = 0.005.

Relays: "notify" is grip_relay, woken by NOTIFY; "polling" is grip_relay that hears of
nothing and looks (on PostgreSQL, so that nothing else differs); "inline" a thread in
each writing process. The parts:

cost      milliseconds added to a save: p50 of 20 saves minus p50 of 20 bare ones, the
          two alternating; the median of all pairs, in brackets the quartiles; "cpu" is
          what is added to the processor time of the writer's thread. The target speaks
          of the writer alone: one that never pauses, and a relay at work at the same
          moment, are in each other's way where there are two processors
relay     events/s through the sequence, and through sequence and publisher to a control
          port that accepts at once; the changes were captured before. "300 B" has a
          payload; "cpu us" is the processor time of the relay's process for each event
resume    history.read() on a log of a million events
latency   from before a save until its event is at a client, 50 saves/s in all
flood     saves as fast as they go, to 50 clients: saves/s of the writers, as a share of
          the bare ones, and saves/s up to the last arrival at the last client; then
          where the processor time of a save goes
rollback  saves of which every other one is rolled back, evenly paced: what comes
large     other writers at 50 saves/s while one transaction writes 10,000 rows
idle      the same while one transaction holds an early id of the outbox, and waits

"lost" counts committed rows a client never heard of, "phantoms" rows that were rolled
back and announced; both of the client that has most. A target says MISSED where it is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "sample_app")]

from databases import SERVERS, USER, Server  # noqa: E402
from pushpin import Pushpin, free_port, session_members  # noqa: E402

SITE = str(ROOT / "benchmarks" / "eventlog_site.py")
STREAMS = str(ROOT / "benchmarks" / "eventlog_streams.py")
COMMON = ("Django>=5.2,<5.3", "psycopg[binary]>=3.2")
PACKAGES = {
    "ours": ("mysqlclient>=2.2",),
    "peer": ("django-eventstream==5.3.4",),
}
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
DATABASES = {"postgresql": "PostgreSQL", "mariadb": "MariaDB", "sqlite": "SQLite"}
RATE = 50
HALVED_RATE = 30
"""Saves/s: below what stalls the limiter of Pushpin, so that the peer's events come."""
SUBSCRIBERS = 50
PATIENCE = 120.0
WAIT = 150.0
"""Milliseconds: the p99 of several writing processes, as Pushpin is installed."""

Found = dict[str, Any]


# Processes.


class Process:
    """A child that takes jobs and gives answers, a line of JSON each."""

    def __init__(self, *command: str | Path) -> None:
        self.name = " ".join(map(str, command[:5]))[:150]
        self._popen = subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def send(self, job: str, **given: Any) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps({"job": job, **given}) + "\n")
        self._popen.stdin.flush()

    def answer(self) -> Any:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise SystemExit(f"It has ended, nothing to compare: {self.name}")
        return json.loads(line)

    def ask(self, job: str, **given: Any) -> Any:
        self.send(job, **given)
        return self.answer()

    def end(self, *, gently: bool = True) -> None:
        """Close its standard input, or else terminate it."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.close()
        except OSError:
            gently = False
        if not gently:
            self._popen.terminate()
        try:
            self._popen.wait(20)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


class Machine:
    """What the parts share: database servers, each started when it is asked for."""

    def __init__(self, stack: ExitStack, is_short: bool) -> None:
        self.is_short = is_short
        self._stack = stack
        self.servers: dict[str, Server] = {}
        self._serial = 0

    def database(self, kind: str) -> dict[str, Any]:
        """A new, empty database: an entry of DATABASES."""
        self._serial += 1
        name = f"benchmark_{self._serial}"
        if kind == "sqlite":
            directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
            pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
            return {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(Path(self._stack.enter_context(directory), name)),
                "OPTIONS": {
                    "transaction_mode": "IMMEDIATE",
                    "timeout": 20,
                    "init_command": pragmas,
                },
            }
        if kind not in self.servers:
            server = SERVERS[kind](durable=True)
            if server.missing():
                raise SystemExit(f"Expected {kind} (make system)")
            self.servers[kind] = self._stack.enter_context(server)
        server = self.servers[kind]
        maintenance = "postgres" if kind == "postgresql" else "mysql"
        server.sql(f"CREATE DATABASE {name}", database=maintenance)
        return {
            "ENGINE": server.engine,
            "NAME": name,
            "HOST": "127.0.0.1",
            "PORT": str(server.port),
            "USER": USER,
        }


class Setting:
    """One package with its database, its Pushpin, its origin and its relay."""

    def __init__(
        self, spec: dict[str, Any], proxy: Pushpin | None, server: Server | None
    ) -> None:
        self.spec = spec
        self.proxy = proxy
        self.running: dict[str, list[Process]] = {}
        self._server = server

    def busy(self) -> dict[str, dict[int, float]]:
        """Processor seconds until now, by kind of process and id."""
        pids = {
            name: [process.pid for process in processes]
            for name, processes in self.running.items()
        }
        if self.proxy is not None and self.proxy.process is not None:
            pids["Pushpin"] = session_members(self.proxy.process.pid)
        if self._server is not None and self._server.process is not None:
            pids["database"] = family(self._server.process.pid)
        return {name: dict(busy_seconds(found)) for name, found in pids.items()}

    def start(self, role: str) -> Process:
        interpreter = directory(self.spec["package"]) / "bin" / "python"
        process = Process(interpreter, "-I", SITE, role, json.dumps(self.spec))
        if role != "relay":
            process.answer()
        self.running.setdefault(role, []).append(process)
        return process

    @contextmanager
    def workers(self, number: int) -> Iterator[list[Process]]:
        started: list[Process] = []
        try:
            for _ in range(number):
                started.append(self.start("worker"))
            yield started
        finally:
            for process in started:
                self.running["worker"].remove(process)
                process.end()

    @contextmanager
    def clients(self, number: int) -> Iterator[Process]:
        """A process with that many streams of the collection."""
        assert self.proxy is not None
        process = Process(sys.executable, "-I", STREAMS, "streams")
        try:
            process.answer()
            process.ask("open", port=self.proxy.http_port, number=number)
            self.running["clients"] = [process]
            yield process
        finally:
            self.running.pop("clients", None)
            process.end()


def family(parent: int) -> list[int]:
    """A process and its children (Linux: from /proc)."""
    found = [parent]
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.parent.name))
    return found


def busy_seconds(pids: Sequence[int]) -> Iterator[tuple[int, float]]:
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        yield pid, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spent(
    before: dict[str, dict[int, float]], after: dict[str, dict[int, float]]
) -> dict[str, float]:
    """Processor seconds in between, by kind of process."""
    return {
        name: sum(at - before.get(name, {}).get(pid, 0.0) for pid, at in found.items())
        for name, found in after.items()
    }


@contextmanager
def setting(
    machine: Machine,
    package: str = "ours",
    relay: str = "none",
    configuration: str | None = None,
    kind: str = "postgresql",
    log: bool = True,
) -> Iterator[Setting]:
    """With a Pushpin of this configuration, or a control port that accepts at once."""
    with ExitStack() as stack:
        spec: dict[str, Any] = {
            "package": package,
            "database": machine.database(kind),
            "relay": "inline" if relay == "inline" else "daemon",
            "has_relay": relay != "none",
            "notify": relay != "polling",
            "log": log,
            "interval": INTERVALS.get(configuration or ""),
            "origin_port": free_port(),
        }
        proxy = None
        if configuration is None:
            port = free_port()
            process = Process(sys.executable, "-I", STREAMS, "sink", str(port))
            stack.callback(process.end, gently=False)
            process.answer()
            spec["grip_url"] = f"http://127.0.0.1:{port}"
        else:
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            upstream = f"127.0.0.1:{spec['origin_port']}"
            proxy = Pushpin(directory, upstream, settings=CONFIGURATIONS[configuration])
            spec["grip_url"] = proxy.grip_url
        found = Setting(spec, proxy, machine.servers.get(kind))
        run_setup(found)
        if proxy is not None:
            process = found.start("origin")
            stack.callback(process.end, gently=False)
            stack.enter_context(proxy)
        if relay in ("notify", "polling"):
            process = found.start("relay")
            stack.callback(process.end, gently=False)
        yield found


def run_setup(found: Setting) -> None:
    interpreter = directory(found.spec["package"]) / "bin" / "python"
    command = [interpreter, "-I", SITE, "setup", json.dumps(found.spec)]
    subprocess.run([*map(str, command)], check=True)


def directory(package: str) -> Path:
    return ROOT / ".benchmarks" / f"eventlog-{package}"


def prepare(package: str) -> None:
    """Make the virtualenv if there is none, and install ours anew."""
    found = directory(package)
    if not (found / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", found], check=True)
        install(package, *COMMON, *PACKAGES[package])
    if package == "ours":
        with tempfile.TemporaryDirectory() as copy:
            for part in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / part, copy)
            shutil.copytree(ROOT / "django_grip", Path(copy, "django_grip"))
            install(package, copy)
    (found / "ready").touch()


def install(package: str, *what: str) -> None:
    interpreter = directory(package) / "bin" / "python"
    pip = [interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *what], check=True)


# Figures.


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def quantiles(values: Sequence[float]) -> str:
    """p50 / p99 of milliseconds."""
    if not values:
        return "-"
    return f"{quantile(values, 0.5):,.1f} / {quantile(values, 0.99):,.1f}"


def bound(
    value: float, name: str = "", *, most: float = 0.0, least: float | None = None
) -> str:
    """A target, and whether it is missed."""
    if least is not None:
        text, is_met = f">= {least:,.10g}", value >= least
    else:
        text, is_met = f"<= {most:,.10g}", value <= most
    return f"{name} {text}{'' if is_met else ' MISSED'}".strip()


def show(row: str, *cells: object) -> None:
    print(row.format(*cells).rstrip(), flush=True)


# Parts: cost, relay, resume.


def part_cost(machine: Machine) -> None:
    cases = {
        # Name: package, relay, log, database.
        "no event log": ("ours", "none", False, "postgresql"),
        "event log, writer alone": ("ours", "none", True, "postgresql"),
        "event log, grip_relay": ("ours", "notify", True, "postgresql"),
        "event log, inline": ("ours", "inline", True, "postgresql"),
        "django-eventstream": ("peer", "none", False, "postgresql"),
        "MariaDB: no event log": ("ours", "none", False, "mariadb"),
        "MariaDB: event log, writer alone": ("ours", "none", True, "mariadb"),
        "MariaDB: event log, grip_relay": ("ours", "notify", True, "mariadb"),
        "SQLite: no event log": ("ours", "none", False, "sqlite"),
        "SQLite: event log, writer alone": ("ours", "none", True, "sqlite"),
        "SQLite: event log, grip_relay": ("ours", "notify", True, "sqlite"),
    }
    row = "{:<31} {:>7} {:>24} {:>6} {:>6}  {}"
    show(row, "ms added to each save", "bare", "added", "cpu", "ratio", "target")
    rounds, pairs = (2, 6) if machine.is_short else (4, 10)
    with ExitStack() as stack:
        workers = {}
        for name, (package, relay, log, kind) in cases.items():
            found = stack.enter_context(
                setting(machine, package, relay, "installed", kind, log)
            )
            [workers[name]] = stack.enter_context(found.workers(1))
        figures: dict[str, dict[str, list[float]]] = {}
        for turn in range(rounds + 1):
            for name, worker in workers.items():
                # The first time is to warm up.
                answer = worker.ask("cost", model="thin", pairs=pairs if turn else 2)
                figure = figures.setdefault(name, {})
                for key, values in answer.items() if turn else ():
                    figure.setdefault(key, []).extend(values)
    for name, figure in figures.items():
        low, middle, high = statistics.quantiles(figure["added"], n=4)
        bare = statistics.median(figure["bare"])
        show(
            row,
            name,
            f"{bare:.2f}",
            f"{middle:.2f} ({low:.2f}..{high:.2f})",
            f"{statistics.median(figure['cpu']):.2f}",
            f"x{(bare + middle) / bare:.1f}",
            bound(middle, most=0.4) if name == "event log, writer alone" else "",
        )


def part_relay(machine: Machine) -> None:
    row = "{:<34} {:>10} {:>10} {:>6}  {}"
    titles = ("changes/s", "events/s", "cpu us", "target for events/s")
    show(row, "relay", *titles)
    number = 5_000 if machine.is_short else 20_000
    rounds = 1 if machine.is_short else 3
    for kind, database in DATABASES.items():
        with (
            setting(machine, kind=kind) as found,
            found.workers(1) as [worker],
        ):
            for model in ("thin", "rich"):
                size = worker.ask("fill_outbox", model=model, number=500)
                worker.ask("publish")
                rates: dict[str, list[float]] = {"sequence": [], "publish": []}
                busy: dict[str, list[float]] = {"sequence": [], "publish": []}
                for _ in range(rounds):
                    for job, taken in rates.items():
                        worker.ask("fill_outbox", model=model, number=number)
                        before = found.busy()
                        answer = worker.ask(job)
                        cost = spent(before, found.busy())["worker"]
                        taken.append(answer["events"] / answer["seconds"])
                        busy[job].append(cost / answer["events"] * 1e6)
                        if job == "sequence":
                            # The cursor goes over what was not published.
                            worker.ask("publish")
                for job, taken in rates.items():
                    what = "sequence" if job == "sequence" else "sequence, publish"
                    payload = "thin" if model == "thin" else "300 B"
                    rate = statistics.median(taken)
                    show(
                        row,
                        f"{database}: {what}, {payload}",
                        f"{rate / 2:,.0f}",
                        f"{rate:,.0f}",
                        f"{statistics.median(busy[job]):.0f}",
                        bound(rate, least=5_000),
                    )
            print(f"  record of {size} bytes with a payload, two events for each")


def part_resume(machine: Machine) -> None:
    rows = 100_000 if machine.is_short else 1_000_000
    row = "{:<47} {:>15} {:>7}  {:<9} {}"
    head = f"history.read(), {rows:,} events in the log"
    show(row, head, "p50 / p99 ms", "events", "reset", "target for p50")
    for kind, database in DATABASES.items():
        with (
            setting(machine, kind=kind) as found,
            found.workers(1) as [worker],
        ):
            for channels in (1, 100, rows // 10):
                worker.ask("fill_log", rows=rows, channels=channels)
                for name, (job, given) in resumptions(rows, channels).items():
                    answer = worker.ask(job, **given, times=200)
                    p50 = quantile(answer["ms"], 0.5)
                    show(
                        row,
                        f"{database}, {channels:,} channels: {name}",
                        f"{p50:.2f} / {quantile(answer['ms'], 0.99):.2f}",
                        answer["events"],
                        answer["reset"] or "-",
                        bound(p50, most=5) if name == "missed 100" else "",
                    )


def resumptions(rows: int, channels: int) -> dict[str, tuple[str, Found]]:
    """Who asks, and with what job; each channel has as many events as the others."""
    each = rows // channels
    found: dict[str, tuple[str, Found]] = {
        f"missed {behind}": ("resume", {"behind": behind})
        for behind in (0, 5, 100, 3000)
        if behind < each
    }
    found["comes new"] = ("resume", {"behind": None})
    if each > 5_000:
        found["ancient"] = ("resume", {"behind": each - 1})
    gone = {"behind": each - 1, "floor": rows // 2}
    found["history is gone"] = ("resume", gone)
    for _, given in found.values():
        given["channels"] = channels
    found["long quiet"] = ("quiet", {})
    return found


# Parts: what arrives.


def journal_of(answers: list[Any]) -> dict[int, tuple[float, float]]:
    return {int(pk): (begun, ended) for one in answers for pk, begun, ended in one}


def collected(
    clients: Process, committed: Sequence[int], gone: Sequence[int] = ()
) -> Found:
    found: Found = clients.ask(
        "collect", committed=list(committed), gone=list(gone), patience=PATIENCE
    )
    found["first"] = dict(found["first"])
    return found


def faults(found: Found, among: int) -> str:
    texts = [f"{found['lost']:,} of {among:,} lost"] if found["lost"] else []
    for name in ("phantoms", "twice", "disordered", "resets", "cuts"):
        if found[name]:
            texts.append(f"{found[name]:,} {name}")
    return ", ".join(texts) or "0 lost"


def part_latency(machine: Machine) -> None:
    row = "{:<38} {:>17} {:>15}  {:<24} {}"
    titles = ("save -> client", "p50 / p99 ms", "save, ms", "", "targets")
    show(row, f"{titles[0]}, {RATE} saves/s", *titles[1:])
    seconds = 5 if machine.is_short else 20
    kinds = [
        ("ours", "notify", "postgresql"),
        ("ours", "polling", "postgresql"),
        ("ours", "inline", "postgresql"),
        ("ours", "polling", "mariadb"),
        ("ours", "inline", "mariadb"),
        ("peer", "none", "postgresql"),
    ]
    for configuration in CONFIGURATIONS:
        for package, relay, kind in kinds:
            name = relay if package == "ours" else "django-eventstream"
            if kind != "postgresql":
                name = f"{DATABASES[kind]} {name}"
            with setting(machine, package, relay, configuration, kind) as found:
                for processes in (1, 4):
                    waited, saving, wrong = latencies(found, processes, seconds)
                    goals = ""
                    if package == "ours":
                        goals = latency_goals(waited, configuration, processes)
                    show(
                        row,
                        f"{configuration} {processes}p {name}",
                        quantiles(waited),
                        quantiles(saving),
                        wrong,
                        goals,
                    )


def latency_goals(waited: Sequence[float], configuration: str, processes: int) -> str:
    p50, p99 = quantile(waited, 0.5), quantile(waited, 0.99)
    if configuration == "operator":
        return bound(p50, "p50", most=10)
    if processes == 1:
        return f"{bound(p50, 'p50', most=25)}, {bound(p99, 'p99', most=40)}"
    return bound(p99, "p99", most=150)


def latencies(
    found: Setting, processes: int, seconds: float
) -> tuple[list[float], list[float], str]:
    """Milliseconds from a save to its client, those of the save itself, and faults."""
    with found.workers(processes) as workers, found.clients(1) as clients:
        given = {"model": "thin", "rate": RATE / processes}
        run_all(workers, "paced", **given, seconds=1.5)
        time.sleep(0.5)
        journal = journal_of(run_all(workers, "paced", **given, seconds=seconds))
        result = collected(clients, list(journal))
    first = result["first"]
    waited = [(at - journal[pk][0]) * 1000 for pk, at in first.items()]
    saving = [(ended - begun) * 1000 for begun, ended in journal.values()]
    return waited, saving, faults(result, len(journal))


def run_all(workers: list[Process], job: str, **given: Any) -> list[Any]:
    at = time.monotonic() + 0.1
    for worker in workers:
        worker.send(job, at=at, **given)
    return [worker.answer() for worker in workers]


def part_flood(machine: Machine) -> None:
    row = "{:<30} {:>8} {:>8} {:>6} {:>9}  {:<26} {}"
    titles = ("bare/s", "saves/s", "share", "arrived/s", "", "targets")
    show(row, f"{SUBSCRIBERS} clients", *titles)
    number = 2_000 if machine.is_short else 5_000
    rounds = 1 if machine.is_short else 3
    for configuration in CONFIGURATIONS:
        for processes in (1, 4):
            for package, relay in (
                ("ours", "notify"),
                ("ours", "inline"),
                ("peer", "none"),
            ):
                with setting(machine, package, relay, configuration) as found:
                    # The peer takes a minute for what takes ours seconds.
                    each = number if package == "ours" else number // 5
                    runs = [
                        flooded(found, processes, each)
                        for _ in range(rounds if package == "ours" else 1)
                    ]
                bare, saves, events = (
                    statistics.median(run[which] for run in runs)
                    for which in ("bare", "saves", "events")
                )
                share = statistics.median(run["saves"] / run["bare"] for run in runs)
                lost = max(run["lost"] for run in runs)
                goals = []
                if package == "ours":
                    goals = [bound(lost, "lost", most=0)]
                    if configuration == "operator":
                        goals.append(bound(saves, "saves/s", least=800))
                    else:
                        goals.append(bound(share, "share", least=0.8))
                show(
                    row,
                    f"{configuration} {processes}p "
                    + (relay if package == "ours" else "django-eventstream"),
                    f"{bare:,.0f}",
                    f"{saves:,.0f}",
                    f"{share:.0%}",
                    f"{events:,.0f}",
                    max((run["faults"] for run in runs), key=len),
                    ", ".join(goals),
                )
                show_busy(runs)


def flooded(found: Setting, processes: int, number: int) -> Found:
    """One round: bare saves, then the same of the model that is registered."""
    each = number // processes
    with (
        found.workers(processes) as workers,
        found.clients(SUBSCRIBERS) as clients,
    ):
        run_all(workers, "flood", model="bare", number=100)
        before = found.busy()
        bare = journal_of(run_all(workers, "flood", model="bare", number=each))
        between = found.busy()
        journal = journal_of(run_all(workers, "flood", model="thin", number=each))
        result = collected(clients, list(journal))
        costs = [spent(before, between), spent(between, found.busy())]
    begun = min(begun for begun, _ in journal.values())
    came = len(journal) - result["all_lost"] / SUBSCRIBERS
    return {
        "bare": len(bare) / duration(bare),
        "saves": len(journal) / duration(journal),
        "events": came / max(result["last_at"] - begun, 0.001),
        "lost": result["lost"],
        "faults": faults(result, len(journal)),
        "busy": [
            {name: seconds / len(journal) * 1000 for name, seconds in cost.items()}
            for cost in costs
        ],
    }


def show_busy(runs: Sequence[Found]) -> None:
    """Where the processor time of a save goes; the clients' is that of looking, too."""
    for which, what in enumerate(("bare", "saves")):
        names = runs[0]["busy"][which]
        parts = {
            name: statistics.median(run["busy"][which].get(name, 0.0) for run in runs)
            for name in names
        }
        texts = [f"{name} {ms:.2f}" for name, ms in parts.items() if ms >= 0.01]
        print(f"    cpu ms per save, {what}: {', '.join(texts)}", flush=True)


def duration(journal: dict[int, tuple[float, float]]) -> float:
    begun = min(begun for begun, _ in journal.values())
    return max(ended for _, ended in journal.values()) - begun


def part_rollback(machine: Machine) -> None:
    row = "{:<30} {:>10} {:>12} {:>7} {:>9}  {}"
    titles = ("committed", "rolled back", "lost", "phantoms", "targets")
    show(row, f"{HALVED_RATE} saves/s, half undone", *titles)
    number = 200 if machine.is_short else 1_000
    for package, relay in (("ours", "notify"), ("ours", "inline"), ("peer", "none")):
        with (
            setting(machine, package, relay, "installed") as found,
            found.workers(1) as [worker],
            found.clients(1) as clients,
        ):
            answer = worker.ask("halved", rate=HALVED_RATE, number=number)
            committed, gone = answer["committed"], answer["gone"]
            result = collected(clients, committed, gone)
        goals = [bound(result[name], name, most=0) for name in ("lost", "phantoms")]
        show(
            row,
            relay if package == "ours" else "django-eventstream",
            len(committed),
            len(gone),
            result["lost"],
            result["phantoms"],
            ", ".join(goals) if package == "ours" else "",
        )


# Parts: one transaction that others might wait for.


WINDOWS = ("before", "open", "relayed", "after")


def part_large(machine: Machine) -> None:
    for how in ("saves", "bulk_create"):
        disturbed(
            machine, f"10,000 rows, {how}", "large", how=how, number=10_000, after=6
        )


def part_idle(machine: Machine) -> None:
    seconds = 15 if machine.is_short else 60
    disturbed(machine, f"idle for {seconds} s", "idle", seconds=seconds, after=6)


def disturbed(
    machine: Machine, name: str, job: str, *, after: float, **given: Any
) -> None:
    """Others write 50 rows a second, before, during and after a job of another.

    "open" is until its commit, "relayed" until the last of its events is published.
    """
    row = "{:<30} {:<9} {:>7} {:>8} {:>17} {:>17}  {}"
    titles = ("", "seconds", "saves", "save, ms", "save -> client", "target")
    show(row, name, *titles)
    for relay in ("notify", "inline"):
        with (
            setting(machine, "ours", relay, "installed") as found,
            found.workers(3) as [disturber, *others],
            found.clients(1) as clients,
        ):
            rate = RATE / len(others)
            run_all(others, "paced", model="thin", rate=rate, seconds=2)
            for other in others:
                other.send("paced", model="thin", rate=rate, at=time.monotonic() + 0.1)
            time.sleep(after)
            answer = disturber.ask(job, **given)
            settled = disturber.ask("settled", last=answer["last"])
            time.sleep(after)
            for other in others:
                other.send("settled", last=answer["last"])
            journal = journal_of([other.answer() for other in others])
            for other in others:
                other.answer()
            result = collected(clients, list(journal))
        limits = [0.0, answer["begun"], answer["ended"], settled, float("inf")]
        first = result["first"]
        usual = 0.0
        for window, since, until in zip(WINDOWS, limits, limits[1:], strict=False):
            inside = [pk for pk, (at, _) in journal.items() if since <= at < until]
            saving = [(journal[pk][1] - journal[pk][0]) * 1000 for pk in inside]
            waited = [
                (first[pk] - journal[pk][0]) * 1000 for pk in inside if pk in first
            ]
            goal = ""
            if waited and window == "before":
                usual = quantile(waited, 0.99)
            elif waited and window != "after":
                goal = waiting_goal(quantile(waited, 0.99), usual)
            length = until - since if since > 0 and until < float("inf") else None
            show(
                row,
                f"  {relay}",
                window,
                "" if length is None else f"{length:.1f}",
                len(inside),
                quantiles(saving),
                quantiles(waited),
                goal,
            )
        if result["lost"]:
            print(f"  {faults(result, len(journal))}", flush=True)


def waiting_goal(p99: float, usual: float) -> str:
    """Nobody waits: a client no longer than otherwise, or no longer than usual here."""
    is_met = p99 <= WAIT or p99 <= 2 * usual
    text = f"client p99 <= {WAIT:.0f}, or x2; it is x{p99 / usual:.1f}"
    return text if is_met else f"{text} MISSED"


PARTS: dict[str, Callable[[Machine], None]] = {
    "cost": part_cost,
    "relay": part_relay,
    "resume": part_resume,
    "latency": part_latency,
    "flood": part_flood,
    "rollback": part_rollback,
    "large": part_large,
    "idle": part_idle,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="this part; may be repeated"
    )
    parser.add_argument(
        "--short", action="store_true", help="shorter runs, few repeated: an idea"
    )
    given = parser.parse_args()
    # Servers and Pushpin are ended by what SystemExit passes on its way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Terminated"))
    if missing := Pushpin.missing():
        raise SystemExit(
            f"Expected Pushpin; missing: {', '.join(missing)} (make system)"
        )
    for package in PACKAGES:
        prepare(package)
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
