"""A control port on a real socket that does what it is told, good or bad.

What a POST gets is a *behaviour*: a status, an Answer, or a function that is given the
connection and the Post and does as it likes with the socket.
"""

import contextlib
import json
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field

DEADLINE = 20.0
"""Seconds after which a test that waits has failed."""


@dataclass
class Post:
    """One POST as it arrived; `answered` is when it was answered, or None."""

    target: str
    headers: dict
    raw: bytes
    arrived: float
    answered: float | None = None
    status: int | None = None

    @property
    def items(self):
        return json.loads(self.raw)["items"]

    @property
    def contents(self):
        return [item["formats"]["http-stream"]["content"] for item in self.items]


@dataclass(frozen=True)
class Answer:
    status: int = 200
    text: str = "Published\n"
    headers: dict = field(default_factory=dict)

    def __call__(self, connection, post):
        post.status, post.answered = self.status, time.monotonic()
        connection.socket.sendall(self.encode(connection.is_kept))

    def encode(self, is_kept=False):
        body = self.text.encode()
        headers = {"Content-Length": len(body), **self.headers}
        headers["Connection"] = "keep-alive" if is_kept else "close"
        head = f"HTTP/1.1 {self.status} Any\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        return head.encode() + b"\r\n" + body


PUBLISHED = Answer()


def close(connection, post):
    """Close the connection without an answer."""
    connection.is_kept = False


def hang(connection, post):
    """Never answer."""
    connection.is_kept = False
    connection.control.is_closed.wait()


def raw(data):
    """Send these bytes and close."""

    def behave(connection, post):
        connection.is_kept = False
        connection.socket.sendall(data)

    return behave


def reset(after=b""):
    """Reset the connection after the first bytes of an answer."""

    def behave(connection, post):
        connection.is_kept = False
        connection.socket.sendall(after)
        linger = struct.pack("ii", 1, 0)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    return behave


class Drip:
    """Answer byte by byte, one each `pause` seconds; `ended` once the peer has enough.

    Of the answer the first `skip` bytes come at once.
    """

    def __init__(self, pause, answer=None, skip=0):
        self.pause = pause
        self.answer = (answer or PUBLISHED).encode()
        self.skip = skip
        self.sent = 0
        self.ended = threading.Event()

    def __call__(self, connection, post):
        connection.is_kept = False
        rest = self.answer[self.skip :]
        try:
            connection.socket.sendall(self.answer[: self.skip])
            for byte in rest:
                if connection.control.is_closed.wait(self.pause):
                    return
                if self.sent == len(rest) - 1:
                    post.status = 200
                connection.socket.sendall(bytes([byte]))
                self.sent += 1
        except OSError:
            pass
        finally:
            self.ended.set()


class ControlPort:
    """Listens, keeps what comes, and answers as `script` and `behaviour` say.

    `script` is what the next POSTs get, one entry each; then `behaviour` holds. While
    `gate` is cleared, POSTs arrive and their answers are held. With `is_up=False`
    the port is ours but connections are refused, until `up()`; with
    `is_reading=False` they are accepted and nothing is read.
    """

    def __init__(self, *, keep_alive=False, is_up=True, is_reading=True):
        self.behaviour = PUBLISHED
        self.script = deque()
        self.gate = threading.Event()
        self.gate.set()
        self.posts = []
        self.connections = 0
        self.is_remembering = True
        self.is_closed = threading.Event()
        self.is_reading = is_reading
        self._keep_alive = keep_alive
        self._arrived = threading.Condition()
        self._open = set()
        self._listener = self._bound(0)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        if is_up:
            self.up()

    @property
    def accepted(self):
        """The POSTs that were answered 2xx, in the order of their arrival."""
        return [post for post in self.posts if post.status and post.status // 100 == 2]

    @property
    def contents(self):
        """The stream contents of what was accepted, item by item."""
        return [content for post in self.accepted for content in post.contents]

    @property
    def text(self):
        """The stream contents of what was accepted, however it was joined."""
        return "".join(self.contents)

    def wait(self, count, timeout=DEADLINE):
        """Return the POSTs once `count` of them have arrived."""
        with self._arrived:
            came = self._arrived.wait_for(lambda: len(self.posts) >= count, timeout)
            assert came, f"{len(self.posts)} of {count} POSTs within {timeout} s"
            return list(self.posts)

    def up(self):
        """Accept connections."""
        self._listener.listen(256)
        threading.Thread(
            target=self._accept, args=(self._listener,), daemon=True
        ).start()

    def down(self):
        """Refuse connections and reset those there are; the port stays ours."""
        self._stop()
        self._listener = self._bound(self.port)

    def close(self):
        self.is_closed.set()
        self.gate.set()
        self._stop()

    def _stop(self):
        # Closing alone would not wake the thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            connection.cut()

    def _bound(self, port):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not self.is_reading:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", port))
        return listener

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            connection = _Connection(self, sock, self._keep_alive)
            self._open.add(connection)
            threading.Thread(
                target=self._serve, args=(connection,), daemon=True
            ).start()

    def _serve(self, connection):
        try:
            if not self.is_reading:
                self.is_closed.wait()
                return
            while (post := connection.read()) is not None:
                with self._arrived:
                    if self.is_remembering:
                        self.posts.append(post)
                    behave = self.script.popleft() if self.script else self.behaviour
                    self._arrived.notify_all()
                self.gate.wait()
                if isinstance(behave, int):
                    behave = Answer(behave)
                behave(connection, post)
                if not connection.is_kept:
                    return
        except OSError:
            pass  # The peer, or the test, has closed it.
        finally:
            self._open.discard(connection)
            connection.socket.close()


class _Connection:
    def __init__(self, control, sock, is_kept):
        self.control = control
        self.socket = sock
        self.is_kept = is_kept
        self._buffer = b""

    def cut(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def read(self):
        """The next POST, or None when the peer has closed."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if not self._receive():
                return None
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        self._buffer = self._buffer[end + 4 :]
        length = int(headers["Content-Length"])
        while len(self._buffer) < length:
            if not self._receive():
                return None
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Post(lines[0].split(" ")[1], headers, body, time.monotonic())

    def _receive(self):
        data = self.socket.recv(65536)
        self._buffer += data
        return data
