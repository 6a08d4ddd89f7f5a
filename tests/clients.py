"""Clients of the end-to-end tests, on real sockets."""

import contextlib
import http.client
import json
import queue
import threading
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    headers: object
    body: bytes

    def json(self):
        return json.loads(self.body)


def request(url, method="GET", json_body=None, body=None, headers=None, timeout=10):
    """One request and its whole answer."""
    parts = urlsplit(url)
    headers = dict(headers or {})
    if json_body is not None:
        body = json.dumps(json_body)
        headers["Content-Type"] = "application/json"
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


@dataclass(frozen=True)
class ServerEvent:
    event: str
    data: str

    @property
    def envelope(self):
        return json.loads(self.data)


class EventStream:
    """An SSE client in a thread: what came is in a queue, comments are counted."""

    def __init__(self, url, headers=None, timeout=30):
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname, parts.port, timeout=timeout
        )
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        self._connection.request(
            "GET", path, headers={"Accept": "text/event-stream", **(headers or {})}
        )
        self.response = self._connection.getresponse()
        self.status = self.response.status
        self.headers = self.response.headers
        self.comments = 0
        self.ended = threading.Event()
        self._lines = []
        self._events = queue.Queue()
        self._socket = self._connection.sock
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def close(self):
        sock = self.response.fp.raw._sock if self.response.fp else None
        if sock is not None:
            # shutdown wakes the reading thread, close alone does not.
            with contextlib.suppress(OSError):
                sock.shutdown(2)
        self.ended.wait(5)
        self._connection.close()

    def next(self, timeout=10):
        """The next event; fails if none comes within `timeout` seconds."""
        try:
            return self._events.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"No event within {timeout} s.") from None

    def waiting(self):
        """How many events came that were not asked for yet."""
        return self._events.qsize()

    def lines_seen(self, line):
        """Whether this line came."""
        return line in self._lines

    def _read(self):
        fields = {}
        try:
            for raw in self.response:
                line = raw.decode().rstrip("\n")
                self._lines.append(line)
                if not line:
                    if "event" in fields:
                        data = "\n".join(fields.get("data", []))
                        self._events.put(ServerEvent(fields["event"], data))
                    fields = {}
                elif line.startswith(":"):
                    self.comments += 1
                else:
                    name, _, value = line.partition(":")
                    value = value.removeprefix(" ")
                    if name == "data":
                        fields.setdefault("data", []).append(value)
                    else:
                        fields[name] = value
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass
        finally:
            self.response.close()
            self.ended.set()
