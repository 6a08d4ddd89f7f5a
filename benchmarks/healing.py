"""Healing: how soon streams are current again, and what that costs Django.

    python benchmarks/healing.py [--clients 1000] [--only lost|fresh|killed]

The site of the tests with its event log on PostgreSQL (SQLite where that is not
installed), gunicorn with four workers that each open a connection for each request,
Pushpin with the settings for operators of docs/how-to/pushpin.md, and the clients, all
on one machine. The clients are one asyncio process; at most 50 open their streams at
once, as Pushpin 1.36 leaves some of more without an answer.

lost     all clients on one channel, whose next event never reaches Pushpin, though it
         was accepted; another one follows. Until all have both
fresh    100 clients, each on a channel of its own that nobody held before; 0.6 s after
         a client has its stream its row is saved. From the POST to Pushpin, and from
         the answer to the save, until the client has the event
killed   all clients on one channel; Pushpin is killed (SIGKILL) and started again, and
         20 events are committed meanwhile. Clients wait as EventSource does, as long
         as RETRY said: 1 to 5 s. Until all have all; the requests that Django answered
         in the busiest second, and the most connections that PostgreSQL had
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "sample_app")]

from pushpin import Pushpin  # noqa: E402
from tests.contrib.eventlog.pushpin_shop import Shop, lose  # noqa: E402
from tests.databases import NAME, USER, PostgreSQL  # noqa: E402

PATIENCE = 120.0
"""Seconds after which clients that are not current are given up."""

REQUESTS, SECONDS, FRESH = 30, 2.5, 0.2
"""The targets: link requests and seconds to heal; seconds to a first event."""

_NOTE = re.compile(rb'"note":"([0-9]+)"')
_ID = re.compile(rb"^id: ([0-9a-z]+\.[0-9]+)$", re.MULTILINE)
_RETRY = re.compile(rb"^retry: ([0-9]+)$", re.MULTILINE)


class Bench(Shop):
    """The site as an operator runs it, with a log of its requests."""

    gunicorn = ("--workers=4",)

    def __init__(self, directory: str, env: dict[str, str]) -> None:
        super().__init__(directory, "pushpin", {**env, "SITE_REALTIME": "{}"})
        self.requests = self.directory / "requests"
        self.gunicorn = (
            *Bench.gunicorn,
            f"--access-logfile={self.requests}",
            "--access-logformat=%(t)s %(m)s %(U)s",
        )

    def busiest(self, since: int) -> tuple[int, int]:
        """The most requests in one second after the first `since`; and all of them."""
        lines = self.requests.read_text().splitlines()[since:]
        asked = [line for line in lines if "/stream/" in line or "/grip/" in line]
        seconds = Counter(line.partition("]")[0] for line in asked)
        return max(seconds.values(), default=0), len(asked)


class Stream:
    """A client as EventSource is one; `notes` has what came, and when."""

    def __init__(self, shop: Bench, path: str, opening: asyncio.Semaphore) -> None:
        self._shop = shop
        self._path = path
        self._opening = opening
        self._last: bytes | None = None
        self._retry = 1.0
        self.connections = 0
        self.notes: dict[int, float] = {}
        self.opened = asyncio.Event()
        self.changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def leave(self) -> None:
        self._task.cancel()

    async def has(self, *notes: int) -> None:
        """Return when these have come."""
        while not self.notes.keys() >= set(notes):
            self.changed.clear()
            await self.changed.wait()

    async def _run(self) -> None:
        while True:
            with suppress(OSError, EOFError, TimeoutError):
                await self._follow()
            await asyncio.sleep(self._retry)

    async def _follow(self) -> None:
        # HTTP/1.0: no chunks between the lines.
        async with self._opening:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._shop.port)
            last = b"" if self._last is None else b"Last-Event-ID: " + self._last
            writer.write(
                f"GET {self._path} HTTP/1.0\r\nHost: localhost\r\n".encode()
                + (last + b"\r\n" if last else b"")
                + b"\r\n"
            )
            try:
                # Pushpin as it starts may leave a request without an answer.
                async with asyncio.timeout(20):
                    head = await reader.readuntil(b"\r\n\r\n")
                    if b" 200 " not in head.partition(b"\r\n")[0]:
                        raise EOFError
                    text = await reader.readuntil(b"event: ready\n")
            except BaseException:
                writer.close()
                raise
        try:
            self.connections += 1
            while True:
                self._note(text)
                text = await reader.readuntil(b"\n\n")
        finally:
            writer.close()

    def _note(self, text: bytes) -> None:
        now = time.perf_counter()
        if found := _ID.findall(text):
            self._last = found[-1]
            self.opened.set()
        if found := _RETRY.findall(text):
            self._retry = int(found[-1]) / 1000
        for note in _NOTE.findall(text):
            self.notes[int(note)] = now
            self.changed.set()


async def opened(shop: Bench, paths: list[str]) -> list[Stream]:
    """Clients that all have their streams, and what that causes is over."""
    limit = asyncio.Semaphore(50)
    streams = [Stream(shop, path, limit) for path in paths]
    await all_of(stream.opened.wait() for stream in streams)
    return streams


async def all_of(waits: Iterator[Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*waits)


async def lost(shop: Bench, count: int) -> None:
    pk = await asyncio.to_thread(shop.create)
    began = time.perf_counter()
    streams = await opened(shop, [f"/shipments/{pk}/stream/"] * count)
    opening = time.perf_counter() - began
    await asyncio.sleep(2)
    await asyncio.to_thread(shop.save, pk, 1)
    await all_of(stream.has(1) for stream in streams)
    before = len(shop.links(pk))
    shop.meddler.faults.append(lose)
    await asyncio.to_thread(shop.save, pk, 2)
    while shop.meddler.faults:
        await asyncio.sleep(0.01)
    began = time.perf_counter()
    await asyncio.to_thread(shop.save, pk, 3)
    await all_of(stream.has(1, 2, 3) for stream in streams)
    took = max(stream.notes[3] for stream in streams) - began
    first = min(stream.notes[3] for stream in streams) - began
    again = sum(stream.connections for stream in streams) - count
    links = len(shop.links(pk)) - before
    say("lost", f"{count} streams opened in {opening:.1f} s; {before} link requests")
    say(
        "",
        f"{links} link requests until all were current (target {REQUESTS}), "
        f"{took:.2f} s after the next save (target {SECONDS}); the first after "
        f"{first:.2f} s; {again} reconnected",
        missed=links > REQUESTS or took > SECONDS,
    )
    await leave(streams)


async def fresh(shop: Bench, count: int = 100) -> None:
    pks = [await asyncio.to_thread(shop.create) for _ in range(count)]
    limit = asyncio.Semaphore(50)
    streams = [Stream(shop, f"/shipments/{pk}/stream/", limit) for pk in pks]
    posted: dict[int, float] = {}
    answered: dict[int, float] = {}
    pass_on = shop.meddler.pass_on

    def note_and_pass_on(body: bytes) -> Any:
        now = time.perf_counter()
        for item in json.loads(body)["items"]:
            pk = item["channel"].rpartition(".")[2]
            if (
                pk.isdigit()
                and '"note":"1"' in item["formats"]["http-stream"]["content"]
            ):
                posted[int(pk)] = now
        return pass_on(body)

    shop.meddler.pass_on = note_and_pass_on

    async def first(stream: Stream, pk: int) -> None:
        await stream.opened.wait()
        await asyncio.sleep(0.6)
        await asyncio.to_thread(shop.save, pk, 1)
        answered[pk] = time.perf_counter()
        await stream.has(1)

    await all_of(first(*pair) for pair in zip(streams, pks, strict=True))
    shop.meddler.pass_on = pass_on
    for name, since in [("POST to Pushpin", posted), ("answer to save", answered)]:
        times = [
            stream.notes[1] - since[pk] for stream, pk in zip(streams, pks, strict=True)
        ]
        say(
            "fresh" if since is posted else "",
            f"{count} fresh channels, from the {name} to the event: p50 "
            f"{statistics.median(times) * 1000:.0f}, max {max(times) * 1000:.0f} ms "
            f"(target {FRESH * 1000:.0f})",
            missed=max(times) > FRESH,
        )
    links = [line for pk in pks for line in shop.links(pk)]
    say("", f"{len(links)} link requests")
    await leave(streams)


async def killed(shop: Bench, count: int, connected: Callable[[], int]) -> None:
    pk = await asyncio.to_thread(shop.create)
    streams = await opened(shop, [f"/shipments/{pk}/stream/"] * count)
    await asyncio.sleep(2)
    await asyncio.to_thread(shop.save, pk, 1)
    await all_of(stream.has(1) for stream in streams)
    asked = len(shop.requests.read_text().splitlines())
    with most(connected) as peak:
        began = time.perf_counter()
        await asyncio.to_thread(shop.kill_proxy)
        for number in range(2, 12):
            await asyncio.to_thread(shop.save, pk, number)
        await asyncio.to_thread(shop.stop_proxy)
        await asyncio.to_thread(shop.start_proxy)
        up = time.perf_counter()
        for number in range(12, 22):
            await asyncio.to_thread(shop.save, pk, number)
        try:
            await all_of(stream.has(*range(1, 22)) for stream in streams)
        except TimeoutError:
            late = sum(not s.notes.keys() >= set(range(1, 22)) for s in streams)
            say("killed", f"{late} of {count} were not current in time", missed=True)
            return
    ends = sorted(max(stream.notes.values()) for stream in streams)
    busiest, requests = shop.busiest(asked)
    say(
        "killed",
        f"{count} clients, Pushpin back after {up - began:.1f} s: all current "
        f"{ends[-1] - began:.1f} s after the kill, half after "
        f"{ends[len(ends) // 2] - began:.1f} s",
    )
    most_connected = peak[0] if peak[0] else "not counted (SQLite)"
    say(
        "",
        f"{requests} requests of streams and links, {busiest} in the busiest second; "
        f"database connections at most {most_connected}",
    )
    await leave(streams)


async def leave(streams: list[Stream]) -> None:
    for stream in streams:
        stream.leave()
    await asyncio.sleep(1)


@contextmanager
def most(count: Callable[[], int]) -> Iterator[list[int]]:
    """The most that `count` says until the end, asked every 20 ms."""
    peak, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            peak[0] = max(peak[0], count())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def say(name: str, text: str, *, missed: bool = False) -> None:
    print(f"{name:<8}{text}{'  MISSED' if missed else ''}", flush=True)


async def measure(shop: Bench, given: Any, connected: Callable[[], int]) -> None:
    if given.only in (None, "lost"):
        await lost(shop, given.clients)
    if given.only in (None, "fresh"):
        await fresh(shop)
    if given.only in (None, "killed"):
        await killed(shop, given.clients, connected)


@contextmanager
def site(directory: str) -> Iterator[tuple[Bench, Callable[[], int]]]:
    server = PostgreSQL()
    if server.missing():
        with Bench(directory, {}) as shop:
            yield shop, lambda: 0
        return
    import psycopg

    with (
        server,
        Bench(directory, server.environment()) as shop,
        psycopg.connect(
            host="127.0.0.1", port=server.port, user=USER, dbname=NAME, autocommit=True
        ) as connection,
    ):

        def connected() -> int:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE datname = %s AND pid <> pg_backend_pid()",
                [NAME],
            ).fetchone()
            return int(row[0]) if row else 0

        yield shop, connected


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--only", choices=("lost", "fresh", "killed"))
    given = parser.parse_args()
    if missing := Pushpin.missing():
        raise SystemExit(
            f"Expected Pushpin; missing: {', '.join(missing)} (make system)"
        )
    # Pushpin inherits it.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory, site(directory) as (shop, counts):
        asyncio.run(measure(shop, given, counts))


if __name__ == "__main__":
    main()
