"""A scripted origin, a LocalProxy in front of it, and clients on real sockets."""

import http.client
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from django_grip.contrib.localproxy.addresses import Address
from django_grip.contrib.localproxy.server import LocalProxy

KEY = "a-shared-secret-of-the-local-proxy-tests"
DEADLINE = 5.0


class Origin(ThreadingHTTPServer):
    """Answers each path with what the test put there, and remembers what it was asked.

    `answers[path]` is (status, [(name, value), ...], body) or a function that gets the
    request handler and writes by itself.
    """

    daemon_threads = True
    request_queue_size = 2048

    def __init__(self):
        super().__init__(("127.0.0.1", 0), OriginHandler)
        self.answers = {}
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def hold(self, path, *headers, body=b"ready\n"):
        defaults = [("Content-Type", "text/event-stream")]
        self.answers[path] = (200, [*defaults, *headers], body)

    def handle_error(self, request, client_address):
        """Clients that vanish are part of the tests."""


class OriginHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        elif length := int(self.headers.get("Content-Length", 0)):
            body = self.rfile.read(length)
        # Not self.path: http.server takes a second slash at its start away.
        target = self.requestline.split(" ")[1]
        self.server.requests.append(
            (self.command, target, list(self.headers.items()), body)
        )
        answer = self.server.answers.get(self.path.partition("?")[0], (404, [], b""))
        if callable(answer):
            answer(self)
            return
        status, headers, content = answer
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer

    def log_message(self, *args):
        pass


class Client:
    """One connection to the proxy, read piece by piece."""

    def __init__(self, address, receive_buffer=None):
        self.socket = socket.socket()
        self.socket.settimeout(DEADLINE)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(address)
        self.seen = b""

    def send(self, path, method="GET", headers=(), body=b"", version="1.1"):
        head = [f"{method} {path} HTTP/{version}", "Host: shop.example:81"]
        head += [f"{name}: {value}" for name, value in headers]
        self.socket.sendall("\r\n".join([*head, "", ""]).encode() + body)
        return self

    def head(self):
        """The status, and the headers as pairs."""
        reader = self.socket.makefile("rb", buffering=0)
        lines = []
        while (line := reader.readline().decode("latin-1").rstrip("\r\n")) or not lines:
            lines.append(line)
        self.headers = [tuple(line.split(": ", 1)) for line in lines[1:]]
        self.status = int(lines[0].split(" ")[1])
        self.reason = lines[0].split(" ", 2)[2]
        return self.status, self.headers

    def has(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def until(self, wanted):
        """Read on until `wanted` has come; return all that came since the head."""
        while wanted not in self.seen:
            data = self.socket.recv(65536)
            assert data, f"connection ended after {self.seen!r}"
            self.seen += data
        return self.seen

    def rest(self):
        """Everything up to the end of the connection."""
        try:
            while data := self.socket.recv(65536):
                self.seen += data
        except ConnectionResetError:
            self.seen += b"<reset>"
        return self.seen

    def close(self):
        self.socket.close()


class Proxied:
    """The running proxy with an origin behind it."""

    def __init__(self, proxy, origin):
        self.proxy = proxy
        self.origin = origin
        self.clients = []

    def connect(self, **options):
        client = Client((self.proxy.listen.host, self.proxy.listen.port), **options)
        self.clients.append(client)
        return client

    def open(self, path):
        """A client of a held stream that has seen the answer's first line."""
        client = self.connect().send(path)
        client.head()
        client.until(b"ready\n")
        return client

    def get(self, path, method="GET", headers=None, body=None):
        connection = http.client.HTTPConnection(
            self.proxy.listen.host, self.proxy.listen.port, timeout=DEADLINE
        )
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        response.content = response.read()
        connection.close()
        return response

    def control(self, body, path="/publish/", method="POST", headers=None):
        address = self.proxy.control
        connection = http.client.HTTPConnection(
            address.host, address.port, timeout=DEADLINE
        )
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        response.content = response.read()
        connection.close()
        return response

    def publish(self, *items):
        """Publish (channel, text) pairs or whole items."""
        batch = [
            {"channel": item[0], "formats": {"http-stream": {"content": item[1]}}}
            if isinstance(item, tuple)
            else item
            for item in items
        ]
        response = self.control(json.dumps({"items": batch}))
        assert response.status == 200, response.content
        return response

    def wait_for(self, condition):
        """Poll what has no event to wait for, such as the proxy's inner count."""
        give_up = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < give_up, "it never happened"
            time.sleep(0.005)


def serve_origin():
    origin = Origin()
    thread = threading.Thread(target=origin.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    return origin, thread


@pytest.fixture(scope="session")
def origin_server():
    origin, thread = serve_origin()
    yield origin
    origin.shutdown()
    thread.join()
    origin.server_close()


@pytest.fixture
def origin(origin_server):
    origin_server.answers.clear()
    origin_server.requests.clear()
    return origin_server


@pytest.fixture
def proxied(origin):
    proxy = LocalProxy(
        upstream=origin.url,
        listen=Address("127.0.0.1", 0),
        control=Address("127.0.0.1", 0),
        key=KEY,
        iss="tests",
    )
    proxy.start()
    proxied = Proxied(proxy, origin)
    yield proxied
    for client in proxied.clients:
        client.close()
    proxy.stop()
