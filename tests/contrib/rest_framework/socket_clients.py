"""A WebSocket client on a real socket: what came is in a queue."""

import json
import queue
import socket
import threading
from contextlib import suppress

import websocket

from tests.contrib.rest_framework.wires import schema


class SocketClient:
    """Reads in a thread; all that comes is held against the schema.

    `closed` is (code, reason) once the connection has ended; `signs` counts the empty
    arrays.
    """

    def __init__(self, url, **options):
        self._socket = websocket.create_connection(
            url.replace("http", "ws", 1), timeout=20, **options
        )
        self._socket.settimeout(60)
        self._objects = queue.Queue()
        self.signs = 0
        self.sizes = []
        self.closed = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        # It wakes the reading thread; to close the socket does not.
        with suppress(OSError):
            self._socket.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._socket.shutdown()

    def send(self, **operation):
        self._socket.send(json.dumps(operation))

    def send_text(self, text):
        self._socket.send(text)

    def subscribe(self, url, id="a", **fields):
        """Subscribe, and return the answer's first object."""
        self.send(type="subscribe", id=id, url=url, **fields)
        return self.next()

    def next(self, timeout=20):
        """The next object; fails if none comes within `timeout` seconds."""
        try:
            return self._objects.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"Nothing came within {timeout} s.") from None

    def until(self, kind):
        """All objects up to the first of this type."""
        found = [self.next()]
        while found[-1].get("type") != kind:
            found.append(self.next())
        return found

    def ping(self):
        """What came before the answer to a ping."""
        self.send(type="ping")
        return self.until("pong")[:-1]

    def end(self, timeout=20):
        """(code, reason) with which the server closed."""
        assert self._ended.wait(timeout), "it is open still"
        return self.closed

    def _read(self):
        try:
            while True:
                opcode, data = self._socket.recv_data()
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    code = int.from_bytes(data[:2], "big")
                    self.closed = (code, data[2:].decode())
                    return
                self._take(data)
        except (OSError, websocket.WebSocketException) as exc:
            self.closed = (1006, repr(exc))
        finally:
            self._ended.set()

    def _take(self, data):
        objects = json.loads(data)
        schema("server").validate(objects)
        self.sizes.append(len(data))
        self.signs += not objects
        for each in objects:
            self._objects.put(each)
