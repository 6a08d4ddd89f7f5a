"""Followers: clients of one stream, one for each transport, and all used in one way.

Each follows the rule for clients: what it has is dropped. That something is missing is
the proxy's to find where it keeps the order, and the client's on a WebSocket.
"""

import http.client
import json
import queue
import threading
from collections import deque
from contextlib import suppress
from operator import itemgetter
from urllib.parse import urlencode, urlsplit

import websocket

from tests.clients import EventStream
from tests.contrib.rest_framework.socket_clients import SocketClient

PATIENCE = 20
"""Seconds until something that has to come is given up."""


class Follower:
    """Follows the stream at `path` from `since` on.

    `user` has a `cookie`; `pause` is sent as X-Pause. `status` is the view's: 200, or
    that with which it refused. `position` is that of the last event that was read.
    """

    def __init__(self, site, path, user=None, since=None, snapshot=False, pause=None):
        self.site = site
        self.path = path
        self.headers = {}
        if user is not None:
            self.headers["Cookie"] = user.cookie
        if pause is not None:
            self.headers["X-Pause"] = pause.name
        self.query = {"snapshot": 1} if snapshot else {}
        self.position = since
        self._open(since)

    def next(self):
        """The next event, or what came instead of one; each once, in their order."""
        while True:
            if (each := self._next()) is not None and self._is_new(each):
                return each

    def read(self, count):
        """The names of the rows of the next events."""
        return [self.next()["data"]["name"] for _ in range(count)]

    def end(self):
        """Wait until the server has sent the client away."""
        assert self._ended.wait(PATIENCE), f"{self.path} is open still"

    @property
    def is_open(self):
        return not self._ended.is_set()

    def _is_new(self, each):
        if "seq" not in each:
            return True
        last = _seq(self.position)
        if each["seq"] <= last:
            return False
        is_missing = each["prev"] > max(last, self._answered)
        assert not is_missing, f"something before {each} is missing"
        self.position = f"{self.position.rpartition('.')[0]}.{each['seq']}"
        return True

    _answered = 0
    """What the present answer goes up to without a gap: closes are not in it."""


def _seq(position):
    return int(position.rpartition(".")[2])


class ServerSentEvents(Follower):
    def _open(self, since):
        headers = dict(self.headers)
        if since is not None:
            headers["Last-Event-ID"] = since
        url = f"{self.site.url}{self.path}?{urlencode(self.query)}"
        self._stream = EventStream(url, headers)
        self._ended = self._stream.ended
        self.status = self._stream.status
        if self.status == 200:
            ready = self._next()
            assert ready["op"] == "ready"
            assert ready["gapless"] is True
            self.position = since or ready["position"]
            self._answered = _seq(ready["position"])

    def _next(self):
        event = self._stream.next(PATIENCE)
        return {"op": event.event, **event.envelope}

    def close(self):
        self._stream.close()


class LongPolls(Follower):
    """Asks again and again in a thread, until it is answered with nothing."""

    def _open(self, since):
        self._objects = queue.Queue()
        self._is_answered = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._connection = None
        self._has_left = False
        threading.Thread(target=self._run, args=[since], daemon=True).start()
        if since is None:
            assert self._is_answered.wait(PATIENCE), f"{self.path} is not answered"

    @property
    def status(self):
        assert self._is_answered.wait(PATIENCE), f"{self.path} is not answered"
        return self._status

    def _next(self):
        try:
            each, self._answered = self._objects.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"Nothing came within {PATIENCE} s.") from None
        return each

    def close(self):
        with self._lock:
            self._has_left = True
            if self._connection is not None and self._connection.sock is not None:
                # It may just have been answered.
                with suppress(OSError):
                    self._connection.sock.shutdown(2)
        assert self._ended.wait(PATIENCE)

    def _run(self, since):
        try:
            while self._goes_on(since):
                since = self._at
        except (OSError, http.client.HTTPException):
            assert self._has_left
        finally:
            self._ended.set()

    def _goes_on(self, since):
        query = {"wait": 25, **({"since": since} if since else self.query)}
        response = self._ask(f"{self.path}?{urlencode(query)}")
        if response is None:
            return False
        self._status, body = response
        answer = json.loads(body)
        self._at = answer.get("position", since)
        if self.position is None:
            self.position = self._at
        self._is_answered.set()
        for each in answer.get("events", ()):
            self._objects.put((each, _seq(self._at)))
        if self._status != 200:
            self._objects.put(({"op": "refused", "status": self._status}, 0))
            return False
        # Nothing in its time stands at the same position; other nothing is a close.
        is_silent = answer.get("position") == since
        return bool(answer["events"]) or since is None or is_silent

    def _ask(self, path):
        parts = urlsplit(self.site.url)
        with self._lock:
            if self._has_left:
                return None
            self._connection = http.client.HTTPConnection(
                parts.hostname, parts.port, timeout=60
            )
            self._connection.connect()
        try:
            self._connection.request("GET", path, headers=self.headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        finally:
            with self._lock:
                self._connection.close()


class Socket(Follower):
    """At the stream's own URL."""

    def _open(self, since):
        self._kept = []
        self._ready = deque()
        self._asks = False
        self._client = self._timer = None
        try:
            started = self._start(since)
        except websocket.WebSocketBadStatusException as exc:
            self.status = exc.status_code
            return
        self._ended = self._client._ended
        self.status = started.get("status", 200)
        if self.status == 200:
            assert started["type"] == "subscribed"
            assert started["gapless"] is True
            self.position = started["position"]
            # The answer to a position ends with `resumed`.
            self._asks = since is not None
            # What came between the answer and the proxy's subscribing.
            self._timer = threading.Timer(1, self._resume)
            self._timer.daemon = True
            self._timer.start()

    def _start(self, since):
        query = self.query | ({"since": since} if since else {})
        self._connect(f"{self.path}?{urlencode(query)}")
        return self._client.next()

    def _connect(self, path):
        headers = dict(self.headers)
        options = {"cookie": headers.pop("Cookie", None), "header": headers}
        self._client = SocketClient(
            self.site.url + path, origin=self.site.url, **options
        )

    def close(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
        if self._client is not None:
            client, self._client = self._client, None
            client.__exit__()

    def _next(self):
        if self._ready:
            return self._ready.popleft()
        each = self._client.next(PATIENCE)
        if each.get("type") == "resumed":
            self._asks = False
            self._answered = _seq(each["position"])
            self._ready.extend(sorted(self._kept, key=itemgetter("seq")))
            self._kept = []
        if "op" not in each:
            return None
        if each.get("prev", 0) > max(_seq(self.position), self._answered):
            self._kept.append(each)
            if not self._asks:
                self._asks = True
                self._resume()
            return None
        return each

    def _resume(self):
        # It may have been closed meanwhile.
        with suppress(OSError, websocket.WebSocketException):
            self._client.send(type="resume", since=self.position, **self._id)

    _id = {}


class SharedSocket(Socket):
    """Over RealtimeSocket."""

    _id = {"id": "a"}

    def _start(self, since):
        self._connect("/realtime/")
        url = f"{self.path}?{urlencode(self.query)}"
        options = {"since": since} if since else {}
        return self._client.subscribe(url, **options)


FOLLOWERS = {
    "sse": ServerSentEvents,
    "long-poll": LongPolls,
    "websocket": Socket,
    "realtime-socket": SharedSocket,
}
