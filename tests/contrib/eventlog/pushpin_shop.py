"""A site with the event log, a proxy, what meddles between them, and clients."""

import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import struct
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

from pushpin import Pushpin, session_members
from tests.clients import EventStream, request
from tests.servers import KEY, Process, Site, answers, wait_until

OPERATOR = {
    "message_rate": "0",
    "message_hwm": "500000",
    "message_wait": "500",
    "client_buffer_size": "131072",
    "id_cache_ttl": "2",
}
"""Pushpin's settings of docs/how-to/pushpin.md; it forgets ids sooner (F22)."""

AT_ONCE = threading.Semaphore(50)
"""Streams that are opened at the same time: Pushpin 1.36 leaves out some of more."""


# Between the relay and the control port.


class Meddler(ThreadingHTTPServer):
    """Passes what is published on to a control port; `faults` go before, one a POST."""

    daemon_threads = True

    def __init__(self, control_port):
        super().__init__(("127.0.0.1", 0), Post)
        self.control_port = control_port
        self.faults = deque()
        self.last = b""
        self.late = b""
        threading.Thread(target=self.serve_forever, args=[0.02], daemon=True).start()

    def pass_on(self, body):
        """The status of the control port, and what it said; 502 without it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/publish/", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 502, b"Nobody there"
        finally:
            connection.close()

    def handle_error(self, request, client_address):
        """The relay has gone meanwhile."""

    def close(self):
        self.shutdown()
        self.server_close()


class Post(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        faults = self.server.faults
        fault = faults.popleft() if faults else None
        if fault is None:
            self.server.last = body
            self.answer(*self.server.pass_on(body))
            if self.server.late:
                late, self.server.late = self.server.late, b""
                self.server.pass_on(late)
        else:
            fault(self, body)

    def answer(self, status=200, text=b"Published\n"):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def reset(self):
        self.connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.connection.close()

    def log_message(self, *args):
        pass


def lose(post, body):
    post.answer()


def come_late(post, body):
    """Behind the next one."""
    post.server.late = body
    post.answer()


def come_twice(post, body):
    post.server.pass_on(body)
    post.answer(*post.server.pass_on(body))


def refuse(post, body):
    post.reset()


def take_and_reset(post, body):
    post.server.pass_on(body)
    post.reset()


def fail(post, body):
    post.answer(500, b"Sorry\n")


def take_and_answer_half(post, body):
    post.server.pass_on(body)
    post.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nPubl")
    post.connection.shutdown(socket.SHUT_RDWR)


def say_nothing(post, body):
    # Until the relay gives up.
    post.rfile.read(1)


def take_and_dribble(post, body):
    post.server.pass_on(body)
    with suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nPublished\n":
            post.wfile.write(bytes([byte]))
            time.sleep(0.1)


# The site and its clients.


class Shop(Site):
    """The site of pushpin_site.py behind a proxy that a Meddler stands before."""

    settings = "tests.contrib.eventlog.pushpin_site"
    probe = "/shipments/"
    gunicorn = ("--threads=8",)

    def __init__(self, directory, proxy, env=None):
        super().__init__(directory, proxy)
        self.meddler = Meddler(self.control_port)
        self.origin = f"http://127.0.0.1:{self.django_port}"
        self.database = self.directory / "db.sqlite3"
        self.journal = self.directory / "links"
        self.wait = self.directory / "wait"
        self.journal.touch()
        self.env |= {
            "GRIP_URL": grip_url(self.meddler.server_port),
            "SITE_DB": str(self.database),
            "SITE_REALTIME": '{"MAX_PAYLOAD": 4000000, "RETRY": [0.05, 0.2]}',
            "SITE_JOURNAL": str(self.journal),
            "SITE_WAIT": str(self.wait),
            **(env or {}),
        }

    def prepare(self):
        self.manage("migrate", "--run-syncdb", "--verbosity=0")

    def __exit__(self, *exc_info):
        super().__exit__(*exc_info)
        self.meddler.close()

    def start_proxy(self):
        if self.proxy != "pushpin":
            super().start_proxy()
            return
        self._proxy = Pushpin(
            self.directory / "pushpin",
            upstream=f"127.0.0.1:{self.django_port}",
            http_port=self.port,
            control_port=self.control_port,
            key=KEY,
            settings=OPERATOR,
        )
        self._proxy.start()

    def start_django(self):
        self._django = Process(
            [
                *(sys.executable, "-m", "gunicorn", *self.gunicorn),
                f"--bind=127.0.0.1:{self.django_port}",
                "--no-control-socket",
                "django.core.wsgi:get_wsgi_application()",
            ],
            self.directory / "django.log",
            self.env,
        )
        wait_until(lambda: answers(self.origin + self.probe), "gunicorn answers")

    def processes(self):
        """The proxy's processes: {name: pid}."""
        popen = self._proxy.process if self.proxy == "pushpin" else self._proxy.popen
        names = {}
        for pid in session_members(popen.pid):
            with open(f"/proc/{pid}/comm") as comm:
                names[comm.read().strip()] = pid
        return names

    def kill_proxy(self, name=None):
        """SIGKILL to the process of this name; None: to all of them."""
        processes = self.processes()
        for pid in processes.values() if name is None else [processes[name]]:
            os.kill(pid, signal.SIGKILL)

    def proxy_log(self):
        """What Pushpin logged."""
        return self._proxy.log()

    # Rows, written past the proxy.

    def create(self):
        """The pk of a new row."""
        answer = request(f"{self.origin}/shipments/", "POST", {"note": "new"})
        assert answer.status == 201, answer.body
        return answer.json()["id"]

    def save(self, pk, note):
        url = f"{self.origin}/shipments/{pk}/"
        answer = request(url, "PATCH", {"note": str(note)}, timeout=30)
        assert answer.status == 200, answer.body

    def post(self, path, **values):
        answer = request(f"{self.origin}/{path}/", "POST", values, timeout=60)
        assert answer.status == 200, answer.body

    # What became of it.

    def query(self, statement):
        with sqlite3.connect(self.database, timeout=20) as connection:
            rows = connection.execute(statement).fetchall()
        connection.close()
        return rows

    def settle(self):
        """Wait until everything is published, or was said to be."""
        wait_until(self._is_settled, "all is published")

    def _is_settled(self):
        waiting = self.query("SELECT count(*) FROM grip_eventlog_outbox")
        last = self.query("SELECT last_seq FROM grip_eventlog_sequence")
        published = self.query("SELECT min(published) FROM grip_eventlog_target")
        return waiting == [(0,)] and last == published

    def links(self, pk, what="asked"):
        """The link requests for the streams of a row, asked or answered."""
        lines = self.journal.read_text().splitlines()
        wanted = f" shop.shipment.{pk};"
        return [line for line in lines if wanted in line and line.startswith(what)]


def grip_url(port):
    return f"http://127.0.0.1:{port}?key={quote(KEY, safe=':')}"


class Connection(EventStream):
    """A stream that is read by who has it."""

    def __init__(self, url, headers):
        try:
            # Pushpin as it starts may leave a request without an answer.
            super().__init__(url, headers, timeout=3)
        except BaseException:
            self._connection.close()
            raise
        # Two keep-alives.
        self._socket.settimeout(50)

    def _read(self):
        self.ended.set()

    def events(self):
        """(event, id, data), until the stream ends."""
        fields = {}
        for raw in self.response:
            line = raw.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(":")
                fields[name] = value.removeprefix(" ")
            else:
                yield fields.get("event"), fields.get("id"), fields.get("data")
                fields = {}


class Client:
    """Follows a stream as the rule for clients says, over as many connections as it
    takes: drops what it has, resumes when something is missing.
    """

    def __init__(self, url):
        self.url = url
        self.last = None
        self.seq = 0
        self.events = []
        self.connections = self.gaps = self.repeats = 0
        self.resets = []
        self._connection = None
        self._opened = threading.Event()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._opened.wait(20), "the stream is not open"
        return self

    def __exit__(self, *exc_info):
        self._left.set()
        if (connection := self._connection) is not None:
            connection.close()
        self._thread.join(20)

    @property
    def notes(self):
        return [event["data"]["note"] for event in self.events]

    def has(self, *notes):
        """Wait for these notes; they are all that came, in this order."""
        expected = [str(note) for note in notes]
        with suppress(AssertionError):
            wait_until(lambda: len(self.events) >= len(expected), "the events came")
        assert self.notes == expected, f"{self.notes}, {vars(self)}"

    def _run(self):
        while not self._left.is_set():
            with suppress(
                OSError, ValueError, AttributeError, http.client.HTTPException
            ):
                self._follow()
            self._left.wait(random.uniform(0.05, 0.2))

    def _follow(self):
        headers = {} if self.last is None else {"Last-Event-ID": self.last}
        with AT_ONCE:
            connection = Connection(self.url, headers)
        with connection:
            self._connection = connection
            if connection.status != 200:
                return
            self.connections += 1
            for event, id, data in connection.events():
                if not self._apply(event, id, data):
                    return

    def _apply(self, event, id, data):
        """False: something is missing."""
        if data is not None and event not in ("ready", "reset"):
            envelope = json.loads(data)
            if envelope["seq"] <= self.seq:
                self.repeats += 1
                return True
            if envelope["prev"] > self.seq:
                self.gaps += 1
                return False
            self.events.append(envelope)
        if event == "reset":
            self.resets.append(json.loads(data)["reason"])
        if id is not None:
            self.last = id
            self.seq = int(id.partition(".")[2])
        self._opened.set()
        return True
