"""What a scenario plays on: one proxy, one origin, and clients on real sockets."""

import base64
import contextlib
import http.client
import json
import os
import secrets
import socket
import struct
import time
from contextlib import contextmanager

from origin import DEADLINE, Answer, Origin

from django_grip.contrib.localproxy.addresses import Address
from django_grip.contrib.localproxy.server import LocalProxy
from pushpin import Pushpin

VOLATILE = {"date", "server", "connection", "keep-alive", "sec-websocket-accept"}


class Stage:
    """A proxy with an origin, and names that no other scenario uses.

    Everything named by `path` and `channel` has a prefix, which `clean` takes away.
    """

    def __init__(self, origin, port, control_port):
        self.origin = origin
        self.port = port
        self.control_port = control_port
        self.prefix = f"s{secrets.token_hex(4)}-"
        self._opened = []

    def fresh(self):
        return Stage(self.origin, self.port, self.control_port)

    def close(self):
        for client in self._opened:
            client.close()

    def path(self, name):
        return f"/{self.prefix}{name}"

    def channel(self, name):
        return self.prefix + name

    def clean(self, transcript):
        """The transcript without what is different in each run."""
        text = json.dumps(transcript).replace(self.prefix, "")
        return json.loads(text.replace(f"127.0.0.1:{self.port}", "proxy"))

    def script(self, name, answer):
        self.origin.script(self.path(name), answer)

    def hold(self, name, *headers, body=b"ready\n", status=200, channels=None):
        """Script a stream hold; `channels` is the Grip-Channel value, by own names."""
        channels = self.channel(name) if channels is None else channels
        held = [("Grip-Hold", "stream"), ("Grip-Channel", channels)]
        self.script(name, Answer([*TEXT, *held, *headers], body, status))

    def link(self, name, options=""):
        return ("Grip-Link", f"<{self.path(name)}>; rel=next{options}")

    def asked(self, name, count=1):
        return self.origin.wait(self.path(name), count)

    def request(self, name, method="GET", headers=(), body=None):
        """A client that has sent its request and reads by itself."""
        client = Client(self.port, method, self.path(name), dict(headers), body)
        self._opened.append(client)
        return client

    def open(self, name, **options):
        """A client of a held stream whose first line has come."""
        client = self.request(name, **options)
        client.until("ready\n")
        return client

    def websocket(self, name, **options):
        client = WebSocket(self.port, self.path(name), **options)
        self._opened.append(client)
        return client

    def publish(self, *items):
        """Publish (channel, text) pairs or whole items; return status and text."""
        batch = [
            stream_item(*item) if isinstance(item, tuple) else dict(item)
            for item in items
        ]
        for item in batch:
            if "channel" in item:
                item["channel"] = self.channel(item["channel"])
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.control_port, timeout=DEADLINE
        )
        connection.request("POST", "/publish/", json.dumps({"items": batch}))
        response = connection.getresponse()
        found = [response.status, response.read().decode()]
        connection.close()
        return found

    def publish_until(self, item, condition):
        """Publish again and again, for who gives no sign that it is subscribed."""
        give_up = time.monotonic() + DEADLINE
        while not condition(0.1):
            assert time.monotonic() < give_up, "it never came"
            self.publish(item)


TEXT = [("Content-Type", "text/plain")]


def stream_item(channel, text, item_id=None, prev_id=None, **fields):
    item = {"channel": channel, "formats": {"http-stream": {"content": text}}, **fields}
    if item_id is not None:
        item["id"] = item_id
    if prev_id is not None:
        item["prev-id"] = prev_id
    return item


def message(channel, **fields):
    return {"channel": channel, "formats": {"ws-message": fields}}


def kept(headers):
    """The headers that are the same each time, in lower case and in order."""
    return sorted(
        f"{name.lower()}: {value}"
        for name, value in headers
        if name.lower() not in VOLATILE
    )


class Client:
    """One HTTP request; `seen` is the body so far."""

    def __init__(self, port, method, path, headers, body):
        self._connection = http.client.HTTPConnection(
            "127.0.0.1", port, timeout=DEADLINE
        )
        self._connection.request(method, path, body, headers)
        self._socket = self._connection.sock
        self._response = None
        self.seen = ""

    @property
    def response(self):
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    def is_answered(self, timeout):
        """Whether anything came within `timeout` seconds."""
        self._socket.settimeout(timeout)
        try:
            assert self._socket.recv(1, socket.MSG_PEEK), "the connection ended"
            return True
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(DEADLINE)

    def head(self):
        return [
            f"{self.response.status} {self.response.reason}",
            *kept(self.response.getheaders()),
        ]

    def until(self, wanted):
        while wanted not in self.seen:
            data = self.response.read1(65536)
            assert data, f"ended after {self.seen!r}"
            self.seen += data.decode()
        return self.seen

    def rest(self):
        """Everything to the end; `<cut>` at it if that is not a proper one."""
        try:
            while data := self.response.read1(65536):
                self.seen += data.decode()
        except (http.client.IncompleteRead, ConnectionError):
            self.seen += "<cut>"
        return self.seen

    def whole(self):
        return [*self.head(), self.rest()]

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.close()
        self._connection.close()


OPCODES = {1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}


class WebSocket:
    """A WebSocket client that hides nothing: `next` is one frame as a list."""

    def __init__(self, port, path, headers=()):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in headers),
        ]
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._file = self._socket.makefile("rb", buffering=0)
        self.status = self._file.readline().decode().split(" ", 1)[1].rstrip()
        self._headers = http.client.parse_headers(self._file)

    def head(self):
        return [self.status.split(" ")[0], *kept(self._headers.items())]

    def body(self):
        return self._exactly(int(self._headers["Content-Length"])).decode()

    def send(self, kind, content=b""):
        (opcode,) = (code for code, name in OPCODES.items() if name == kind)
        mask = os.urandom(4)
        data = content.encode() if isinstance(content, str) else content
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
        assert len(data) < 126
        self._socket.sendall(bytes([0x80 | opcode, 0x80 | len(data)]) + mask + masked)

    def send_close(self, code, reason=""):
        self.send("close", struct.pack("!H", code) + reason.encode())

    def next(self):
        """`[type, text]`, `["close", code, reason]` or `["end"]`; no probes."""
        while (frame := self._frame()) == ["ping", "probe"]:
            pass
        return frame

    def _frame(self):
        try:
            head = self._exactly(2)
            length = head[1] & 127
            if length == 126:
                (length,) = struct.unpack("!H", self._exactly(2))
            content = self._exactly(length)
        except (ConnectionError, EOFError):
            return ["end"]
        kind = OPCODES[head[0] & 15]
        if kind == "close":
            code = struct.unpack("!H", content[:2])[0] if content else None
            return ["close", code, content[2:].decode()]
        return [kind, content.decode("latin-1")]

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            piece = self._file.read(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def subscribed(self, stage, channel):
        """Publish pings until one arrives, so that what follows will arrive too."""
        ping = message(channel, type="ping", content="probe")
        stage.publish_until(ping, self._has_data)
        assert self._frame() == ["ping", "probe"]

    def _has_data(self, timeout):
        self._socket.settimeout(timeout)
        try:
            assert self._socket.recv(1, socket.MSG_PEEK), "the connection ended"
            return True
        except TimeoutError:
            return False
        finally:
            self._socket.settimeout(DEADLINE)

    def close(self):
        self._file.close()
        self._socket.close()


@contextmanager
def running(proxy, directory):
    """A Stage on the named proxy: "localproxy" or "pushpin"."""
    origin = Origin()
    try:
        if proxy == "pushpin":
            upstream = f"127.0.0.1:{origin.server_port}"
            settings = {"message_wait": "500"}
            with Pushpin(directory, upstream=upstream, settings=settings) as running:
                yield Stage(origin, running.http_port, running.control_port)
            return
        running = LocalProxy(
            upstream=f"http://127.0.0.1:{origin.server_port}",
            listen=Address("127.0.0.1", 0),
            control=Address("127.0.0.1", 0),
            key="a-shared-secret-of-the-scenarios-of-the-proxies",
            message_wait=0.5,
        )
        running.start()
        try:
            yield Stage(origin, running.listen.port, running.control.port)
        finally:
            running.stop()
    finally:
        origin.shutdown()
        origin.server_close()
