"""The clients of streams.py: many streams in one process.

    python -I streams_clients.py PORT

Does the jobs of standard input, a line of JSON each, and answers in kind. Clients keep
the rule of docs/reference/websocket-protocol.md: what they have they drop, what is
missing they ask for, and a stream that is lost they open again.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import resource
import sys
import time
from array import array
from collections import defaultdict
from contextlib import suppress
from typing import Any

EVENT = re.compile(rb'"seq":(\d+),"prev":(\d+)[^}]*?"note":"(\w+)"')
ID = re.compile(rb"^id: (\w+\.)(\d+)$", re.MULTILINE)
POSITION = re.compile(rb'"position":"(\w+\.)(\d+)"')
LENGTH = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
RESUME = 1.5
"""Seconds after which a WebSocket's client asks for what came while it began."""
AGAIN = 1.0
"""Seconds until a stream that was lost is opened again."""


ATTEMPTS = 3
"""How often a client tries to open its stream, when there is no answer."""
FAULTS = ("gaps", "cuts", "resets", "refused", "unanswered")
"""What clients mend: of a stream, and of its opening."""


class Crowd:
    """The clients, and what came to them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.clients: list[Client] = []
        self.came: defaultdict[int, array[float]] = defaultdict(lambda: array("d"))
        self.faults = dict.fromkeys(FAULTS, 0)

    # Jobs.

    async def open(
        self, kind: str, paths: list[str], at_once: int, patience: float
    ) -> dict[str, Any]:
        """Open a stream at each path: how long that took, and each of them."""
        limit = asyncio.Semaphore(at_once)
        opened = [KINDS[kind](self, path) for path in paths]
        self.clients += opened

        async def one(client: Client) -> float | None:
            async with limit:
                begun = time.monotonic()
                await client.open()
                for _ in range(ATTEMPTS):
                    with suppress(TimeoutError):
                        await asyncio.wait_for(client.opened.wait(), patience)
                        return (time.monotonic() - begun) * 1000
                    self.faults["unanswered"] += 1
                    client.cut()
                return None

        begun = time.monotonic()
        took = await asyncio.gather(*map(one, opened))
        return {
            "seconds": time.monotonic() - begun,
            "ms": [ms for ms in took if ms is not None],
            "failed": took.count(None),
            **self.faults,
        }

    async def collect(self, last: int, clients: int, patience: float) -> dict[str, Any]:
        """What came to all, when the last number has come to as many clients."""
        until = time.monotonic() + patience
        while len(self.came[last]) < clients and time.monotonic() < until:
            await asyncio.sleep(0.02)
        # What one of them has missed may come later than the last.
        while time.monotonic() < until and any(c.is_behind for c in self.clients):
            await asyncio.sleep(0.02)
        came = {number: list(times) for number, times in self.came.items() if number}
        self.came.clear()
        return {"came": list(came.items()), **self.faults}

    async def leave(self) -> int:
        """End all streams: how many were open."""
        left = [client for client in self.clients if client.opened.is_set()]
        for client in self.clients:
            client.leave()
        self.clients.clear()
        self.faults = dict.fromkeys(FAULTS, 0)
        await asyncio.sleep(0.5)
        return len(left)


class Client(asyncio.Protocol):
    """One client; `last` is the number of the position that it has come to."""

    def __init__(self, crowd: Crowd, path: str) -> None:
        self.crowd = crowd
        self.path = path
        self.opened = asyncio.Event()
        self.is_behind = False
        self.epoch = b""
        self.last = -1
        self.has_left = False
        self.transport: asyncio.Transport | None = None

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        if not self.has_left:
            await loop.create_connection(lambda: self, "127.0.0.1", self.crowd.port)

    def leave(self) -> None:
        self.has_left = True
        self.opened.clear()
        self.cut()

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    @property
    def position(self) -> str:
        """Empty at the beginning."""
        return "" if self.last < 0 else f"{self.epoch.decode()}{self.last}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.received = bytearray()
        self.is_answered = self.is_behind = False
        self.ask()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.is_answered:
            head, end, rest = self.received.partition(b"\r\n\r\n")
            if not end:
                return
            if self.is_refused(head):
                return
            self.is_answered = True
            self.received = rest
        self.read()

    def is_refused(self, head: bytearray) -> bool:
        """Whether the answer is another than wanted; then it is asked for again."""
        status = bytes(head.split(b" ", 2)[1])
        if status in (b"101", b"200"):
            return False
        if status[0] == ord("4"):
            raise SystemExit(f"{self.path}: {self.received.decode()}")
        self.crowd.faults["refused"] += 1
        self.cut()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self.has_left:
            return
        if self.opened.is_set():
            self.crowd.faults["cuts"] += 1
        loop = asyncio.get_running_loop()
        loop.call_later(AGAIN, lambda: loop.create_task(self.open()))

    def is_at(self, epoch: bytes, seq: bytes) -> None:
        """The stream begins there, or all up to there was told."""
        self.epoch = bytes(epoch)
        self.last = max(self.last, int(seq))
        self.opened.set()

    def take(self, text: bytes) -> None:
        now = time.monotonic()
        for seq, prev, note in EVENT.findall(text):
            if int(prev) > self.last:
                self.crowd.faults["gaps"] += 1
                self.heal()
                return
            if int(seq) > self.last:
                self.last = int(seq)
                if note.isdigit():
                    self.crowd.came[int(note)].append(now)

    # For the kinds of clients.

    def ask(self) -> None:
        raise NotImplementedError

    def read(self) -> None:
        raise NotImplementedError

    def heal(self) -> None:
        raise NotImplementedError

    def send(self, *lines: str) -> None:
        assert self.transport is not None
        self.transport.write("\r\n".join([*lines, "", ""]).encode())


class Events(Client):
    """Server-sent events."""

    def ask(self) -> None:
        last = [f"Last-Event-ID: {self.position}"] if self.position else []
        # HTTP/1.0: no chunks between the lines.
        self.send(f"GET {self.path} HTTP/1.0", "Host: localhost", *last)

    def read(self) -> None:
        end = self.received.rfind(b"\n\n") + 2
        if end < 2:
            return
        text = bytes(self.received[:end])
        del self.received[:end]
        if b"event: reset\n" in text:
            self.crowd.faults["resets"] += 1
        if self.last < 0 and (found := ID.search(text)):
            self.is_at(*found.groups())
        self.take(text)
        for place in ID.findall(text)[-1:]:
            self.is_at(*place)

    def heal(self) -> None:
        # Lost and opened again, from where it is.
        self.cut()


class LongPoll(Client):
    """One request after the other, on one connection."""

    def ask(self) -> None:
        since = f"&since={self.position}" if self.position else ""
        self.send(f"GET {self.path}?wait=25{since} HTTP/1.1", "Host: localhost")

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if not end or self.is_refused(head):
            return
        length = LENGTH.search(head)
        if length and len(rest) < int(length[1]):
            return
        body = bytes(rest) if length else unchunked(rest)
        if body is None:
            return
        self.received.clear()
        if b'"op": "reset"' in body:
            self.crowd.faults["resets"] += 1
        self.take(body)
        for found in POSITION.findall(body)[-1:]:
            self.is_at(*found)
        self.ask()

    def heal(self) -> None:
        """The next request asks from where it is."""


class Socket(Client):
    """A WebSocket at the stream's own URL."""

    def ask(self) -> None:
        self.message = bytearray()
        since = f"?since={self.position}" if self.position else ""
        self.send(
            f"GET {self.path}{since} HTTP/1.1",
            "Host: localhost",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        )

    def read(self) -> None:
        # RFC 6455, 5.2: what a server sends is not masked.
        while len(self.received) >= 2:
            size, at = self.received[1], 2
            if size > 125:
                at = 4 if size == 126 else 10
                size = int.from_bytes(self.received[2:at], "big")
            if len(self.received) < at + size:
                return
            is_last, opcode = self.received[0] & 0x80, self.received[0] & 0x0F
            content = bytes(self.received[at : at + size])
            del self.received[: at + size]
            if opcode == 9:
                self.frame(10, content)
            elif opcode < 3:
                self.message += content
                if is_last:
                    self.told(bytes(self.message))
                    self.message.clear()

    def told(self, text: bytes) -> None:
        if b'"op":"reset"' in text:
            self.crowd.faults["resets"] += 1
        is_begun = b'"type":"subscribed"' in text
        if is_begun:
            self.is_at(*POSITION.findall(text)[0])
            asyncio.get_running_loop().call_later(RESUME, self.heal)
        self.take(text)
        if b'"type":"resumed"' in text:
            self.is_behind = False
            self.is_at(*POSITION.findall(text)[-1])

    def heal(self) -> None:
        if not self.is_behind and not self.has_left:
            self.is_behind = True
            self.frame(
                1, json.dumps({"type": "resume", "since": self.position}).encode()
            )

    def frame(self, opcode: int, content: bytes) -> None:
        # Masked with zeros.
        assert self.transport is not None
        head = bytes([0x80 | opcode, 0x80 | len(content), 0, 0, 0, 0])
        self.transport.write(head + content)


def unchunked(received: bytearray) -> bytes | None:
    """A body that came in chunks; None: there are more to come."""
    body, at = b"", 0
    while (end := received.find(b"\r\n", at)) > 0:
        size = int(received[at:end], 16)
        if not size:
            return body
        at = end + 2 + size
        body += received[end + 2 : at]
        at += 2
    return None


class Get(Client):
    """No stream: a GET and its answer, for comparison."""

    def ask(self) -> None:
        self.send(f"GET {self.path} HTTP/1.0", "Host: localhost")

    def read(self) -> None:
        """The whole answer."""

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_answered:
            self.opened.set()
        else:
            super().connection_lost(exc)


KINDS: dict[str, type[Client]] = {
    "get": Get,
    "sse": Events,
    "long-poll": LongPoll,
    "websocket": Socket,
}


async def main(port: int) -> None:
    crowd = Crowd(port)
    print(json.dumps("ready"), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        job = json.loads(line)
        answer = await getattr(crowd, job.pop("job"))(**job)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(int(sys.argv[1])))
