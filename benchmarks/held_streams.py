"""Held streams: how long N of them take to open, and one publish to reach them all.

    python benchmarks/held_streams.py [N]

The origin, the clients and the proxy share the machine. The proxy is a process of its
own; memory and CPU are those of its processes. Prints the median of five publishes.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "sample_app")]

from pushpin import Pushpin, accepts, free_port  # noqa: E402

KEY = "base64:YS1rZXktb2YtdGhlLWJlbmNobWFya3Mtb2YtMzItYnl0ZXM="
READY = b"event: ready\ndata: {}\n\n"


class Origin(BaseHTTPRequestHandler):
    """Answers everything with a stream hold."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(READY)))
        self.send_header("Grip-Hold", "stream")
        self.send_header("Grip-Channel", "all")
        self.end_headers()
        self.wfile.write(READY)

    def log_message(self, *args: object) -> None:
        pass


class OriginServer(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


async def open_stream(port: int, limit: asyncio.Semaphore) -> asyncio.StreamReader:
    async with limit:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"event: ready\ndata: {}\n\n")
        WRITERS.append(writer)
        return reader


WRITERS: list[asyncio.StreamWriter] = []


def publish(control_port: int, text: str) -> None:
    item = {"channel": "all", "formats": {"http-stream": {"content": f"{text}\n\n"}}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{control_port}/publish/",
        json.dumps({"items": [item]}).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()


async def measure(name: str, count: int, port: int, control: int, session: int) -> None:
    before = usage(session)
    started = time.perf_counter()
    limit = asyncio.Semaphore(50)
    readers = await asyncio.gather(*(open_stream(port, limit) for _ in range(count)))
    opened = time.perf_counter() - started
    await asyncio.sleep(1.5)  # Pushpin asks again a second after a first subscription
    times = []
    for number in range(5):
        started = time.perf_counter()
        await asyncio.to_thread(publish, control, f"item-{number}")
        mark = f"item-{number}\n\n".encode()
        await asyncio.gather(*(reader.readuntil(mark) for reader in readers))
        times.append(time.perf_counter() - started)
        await asyncio.sleep(0.1)
    after = usage(session)
    await asyncio.sleep(5)
    idle = usage(session)[1] - after[1]
    print(
        f"{name}: {count} streams opened in {opened:.2f} s; one publish to all "
        f"{statistics.median(times) * 1000:.0f} ms (max {max(times) * 1000:.0f}); "
        f"{(after[0] - before[0]) / count:.1f} kB each; {idle:.2f} s CPU in 5 idle s"
    )
    for writer in WRITERS:
        writer.close()
    WRITERS.clear()


def usage(session: int) -> tuple[float, float]:
    """Resident kB and CPU seconds of the processes of a session."""
    kilobytes = seconds = 0.0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            kilobytes += int(fields[21]) * resource.getpagesize() / 1024
            seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return kilobytes, seconds


def local_proxy(count: int, origin: int) -> None:
    port, control = free_port(), free_port()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "GRIP_URL": f"http://127.0.0.1:{control}?key={KEY}",
    }
    process = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "sample_app" / "manage.py"), "grip_proxy"),
            f"--listen=127.0.0.1:{port}",
            f"--upstream=http://127.0.0.1:{origin}",
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while not accepts(port):
            time.sleep(0.05)
        asyncio.run(measure("local proxy", count, port, control, process.pid))
    finally:
        process.terminate()
        process.wait()


def pushpin(count: int, origin: int) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        Pushpin(directory, upstream=f"127.0.0.1:{origin}", key=KEY) as proxy,
    ):
        assert proxy.process is not None
        asyncio.run(
            measure(
                "Pushpin",
                count,
                proxy.http_port,
                proxy.control_port,
                proxy.process.pid,
            )
        )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    origin = OriginServer(("127.0.0.1", 0), Origin)
    Thread(target=origin.serve_forever, daemon=True).start()
    local_proxy(count, origin.server_port)
    if Pushpin.missing():
        print("Not measured: Pushpin (make system)")
    else:
        pushpin(count, origin.server_port)


if __name__ == "__main__":
    main()
