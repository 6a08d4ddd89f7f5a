"""The clients of eventlog.py, and the control port that accepts at once: see there.

    python -I eventlog_streams.py streams
    python -I eventlog_streams.py sink PORT

`streams` does the jobs of standard input, a line of JSON each, and answers in kind.
What a stream brings is kept as it came, with the time, and taken apart afterwards. One
that is lost is opened again with its Last-Event-ID, as EventSource does.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from bisect import bisect_left
from typing import Any

PK = re.compile(rb'"pk":\s?(\d+)')
ID = re.compile(rb"^id: (?:\w+[.:])(\d+)$", re.MULTILINE)
LAST_ID = re.compile(rb"^id: ([^\r\n]+)$", re.MULTILINE)
RESET = re.compile(rb"^event: (?:stream-)?reset$", re.MULTILINE)
OPENED = re.compile(rb"event: (?:ready|stream-open)\n")
HEALED = 9.0
"""Seconds without any byte after which nothing more is expected: Pushpin waits 5 s for
what is missing before an item, and then asks."""
AGAIN = 0.1
"""Seconds until a stream that was lost is opened again."""


class Connection(asyncio.Protocol):
    """One response, as it came."""

    def __init__(self, stream: Stream, last_id: str | None) -> None:
        self._stream = stream
        self._last_id = last_id
        self.received: list[bytes] = []
        self.times: list[float] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        position = f"Last-Event-ID: {self._last_id}\r\n" if self._last_id else ""
        request = (
            "GET /stream/ HTTP/1.1\r\nHost: localhost\r\n"
            f"Accept: text/event-stream\r\n{position}\r\n"
        )
        transport.write(request.encode())

    def data_received(self, data: bytes) -> None:
        self.received.append(data)
        self.times.append(time.monotonic())
        if not self._stream.opened.done() and OPENED.search(b"".join(self.received)):
            self._stream.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream.lost()

    def body(self) -> tuple[bytes, list[int], list[float]]:
        """The body without chunks; up to which of its bytes it was there at a time."""
        raw = b"".join(self.received)
        arrived = []
        total = 0
        for data in self.received:
            total += len(data)
            arrived.append(total)
        at = raw.find(b"\r\n\r\n") + 4
        if at < 4:
            return b"", [], []
        pieces: list[bytes] = []
        ends: list[int] = []
        times: list[float] = []
        total = 0
        while (end := raw.find(b"\r\n", at)) > 0:
            size = int(raw[at:end], 16)
            at = end + 2 + size
            if not size or at > len(raw):
                break
            pieces.append(raw[end + 2 : at])
            total += size
            ends.append(total)
            times.append(self.times[bisect_left(arrived, at)])
            at += 2
        return b"".join(pieces), ends, times


class Stream:
    """A client: one connection after the other."""

    def __init__(self, port: int) -> None:
        self.connections: list[Connection] = []
        self.opened = asyncio.get_running_loop().create_future()
        self.is_closed = False
        self._port = port

    async def connect(self) -> None:
        last_id = None
        for connection in reversed(self.connections):
            if found := LAST_ID.findall(connection.body()[0]):
                last_id = found[-1].decode()
                break
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: Connection(self, last_id), "127.0.0.1", self._port
        )
        self.connections.append(connection)

    def lost(self) -> None:
        loop = asyncio.get_running_loop()
        if not self.is_closed:
            loop.call_later(AGAIN, lambda: loop.create_task(self.connect()))

    def close(self) -> None:
        self.is_closed = True
        for connection in self.connections:
            connection.transport.close()

    @property
    def last_at(self) -> float:
        return max((c.times[-1] for c in self.connections if c.times), default=0.0)

    def account(self, committed: set[int], gone: set[int]) -> dict[str, Any]:
        """What it has brought of these rows, and when first."""
        first: dict[int, float] = {}
        twice = disordered = resets = 0
        last = -1
        for connection in self.connections:
            body, ends, times = connection.body()
            resets += len(RESET.findall(body))
            for found in PK.finditer(body):
                pk = int(found[1])
                if pk not in committed and pk not in gone:
                    continue
                twice += pk in first
                first.setdefault(pk, times[bisect_left(ends, found.end())])
            for place in map(int, ID.findall(body)):
                disordered += place < last
                last = max(last, place)
        return {
            "first": first,
            "lost": len(committed - first.keys()),
            "phantoms": len(gone & first.keys()),
            "twice": twice,
            "disordered": disordered,
            "resets": resets,
            "cuts": len(self.connections) - 1,
        }


class Crowd:
    """The jobs."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []

    async def open(self, port: int, number: int) -> int:
        for stream in self._streams:
            stream.close()
        self._streams = []
        for _ in range(number):
            stream = Stream(port)
            self._streams.append(stream)
            await stream.connect()
        async with asyncio.timeout(30):
            await asyncio.gather(*(stream.opened for stream in self._streams))
        # The last of them may have its stream before the handler knows of it.
        await asyncio.sleep(0.5)
        return len(self._streams)

    async def collect(
        self, committed: list[int], gone: list[int], patience: float
    ) -> dict[str, Any]:
        """What came, when everything has, or when nothing comes any more."""
        expected, undone = set(committed), set(gone)
        started = time.monotonic()
        looked_at = -1.0
        while True:
            now = time.monotonic()
            last_at = max([0.0, *(stream.last_at for stream in self._streams)])
            is_over = now > max(last_at, started) + HEALED or now > started + patience
            if is_over or (now > last_at + 0.4 and looked_at != last_at):
                looked_at = last_at
                found = [one.account(expected, undone) for one in self._streams]
                if is_over or not any(one["lost"] for one in found):
                    break
            await asyncio.sleep(0.05)
        worst = {
            name: max(one[name] for one in found)
            for name in ("lost", "phantoms", "twice", "disordered", "resets", "cuts")
        }
        times = [at for one in found for at in one["first"].values()]
        return {
            **worst,
            "all_lost": sum(one["lost"] for one in found),
            "last_at": max(times, default=0.0),
            "first": list(found[0]["first"].items()),
        }


async def streams() -> None:
    crowd = Crowd()
    print(json.dumps("ready"), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        answer = await getattr(crowd, job.pop("job"))(**job)
        print(json.dumps(answer), flush=True)


class Sink(asyncio.Protocol):
    """Accepts what is POSTed, on connections that are kept."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._head = b""
        self._missing = 0

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            found = re.search(rb"(?i)content-length: (\d+)", head)
            assert found is not None
            self._head = b""
            self._missing = int(found[1])
        self._missing -= len(data)
        if not self._missing:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def sink(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    print(json.dumps("ready"), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(sink(int(sys.argv[2])) if sys.argv[1] == "sink" else streams())
