"""Followers: SSE clients that keep the client rule, each a thread of one process.

    python -m tests.chaos.follower URL SEED DIRECTORY PATH...

A path is that of a collection, a tenant or a row. Each follower has a journal: `start`
and `reset` with a position, `event` for what it applied, `gap`, `cut`. Where they all
stand is written to `followers.json` again and again. SIGTERM ends them; then
`followers-end.json` has what each shows.
"""

import http.client
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
from tests.chaos.journals import Cell, Journal
from tests.chaos.writer import STOP

SILENCE = 7.0
"""Seconds without a byte after which a stream is dead: over twice the keep-alive."""


class Cut(Exception):
    """The stream is over."""


class Follower(threading.Thread):
    def __init__(self, url, path, number, seed, directory):
        super().__init__(daemon=True)
        self.address = urlsplit(url).netloc
        self.path = path
        self.name = f"{number}-{path.replace('/', '-')}"
        self.journal = Journal(directory / f"follower-{self.name}.journal")
        self.rng = random.Random(seed)
        # Some hang up now and then; one in three for so long that history may be gone.
        self.hangs_up = number % 3 > 0
        self.away = (5, 20) if number % 3 == 2 else (0, 1)
        self.epoch = None
        self.last = 0
        self.stands = 0
        self.shown = {}
        self.control = Cell(directory / "control")

    def run(self):
        while True:
            why = "end"
            try:
                self.follow()
            except Cut as exc:
                why = str(exc)
            except (OSError, http.client.HTTPException, ValueError) as exc:
                why = type(exc).__name__
            self.journal.write("cut", why)
            away = self.away if why == "hung up" else (0.05, 0.3)
            until = time.monotonic() + self.rng.uniform(*away)
            while time.monotonic() < until and self.control.value != STOP:
                time.sleep(0.05)

    def follow(self):
        headers = {"Accept": "text/event-stream"}
        if self.epoch is not None:
            headers["Last-Event-ID"] = f"{self.epoch}.{self.last}"
        until = time.monotonic() + self.rng.uniform(4, 20)
        connection = http.client.HTTPConnection(self.address, timeout=SILENCE)
        try:
            connection.request("GET", f"/{self.path}/stream/", headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                raise Cut(f"status {response.status}")
            event, data, id = "", [], None
            while raw := response.readline():
                line = raw.decode().rstrip("\n")
                if not line:
                    self.dispatch(event, "\n".join(data), id)
                    event, data, id = "", [], None
                    is_over = time.monotonic() > until and self.hangs_up
                    if is_over and self.control.value != STOP:
                        raise Cut("hung up")
                    continue
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "event":
                    event = value
                elif name == "data":
                    data.append(value)
                elif name == "id":
                    id = value
        finally:
            connection.close()

    def dispatch(self, event, data, id):
        if event == "ready":
            if id is not None:
                self.begin("start", id)
        elif event == "reset":
            self.begin("reset", id, json.loads(data)["reason"])
        elif data:
            self.apply(json.loads(data))
        elif id is not None:
            # What closed the stream of others.
            self.last = max(self.last, int(id.partition(".")[2]))
        self.stands = self.last

    def begin(self, what, id, reason=None):
        self.journal.write(what, id, reason)
        epoch, _, seq = id.partition(".")
        self.epoch, self.last = epoch, int(seq)
        self.shown = self.fetch()

    def fetch(self):
        while True:
            connection = http.client.HTTPConnection(self.address, timeout=SILENCE)
            try:
                connection.request("GET", f"/{self.path}/snapshot/")
                response = connection.getresponse()
                if response.status == 200:
                    return dict(json.loads(response.read())["rows"])
            except (OSError, http.client.HTTPException, ValueError):
                pass
            finally:
                connection.close()
            time.sleep(0.2)

    def apply(self, envelope):
        """The client rule."""
        seq, prev = envelope["seq"], envelope["prev"]
        if seq <= self.last:
            self.journal.write("repeated", seq)
            return
        if prev > self.last:
            self.journal.write("gap", self.last, prev, seq)
            raise Cut("gap")
        self.last = seq
        op, pk = envelope["op"], envelope["pk"]
        version = envelope.get("data", {}).get("version")
        reason = envelope.get("reason")
        self.journal.write("event", seq, op, pk, version, reason)
        if op == "delete":
            self.shown.pop(pk, None)
            if reason == "leave" and envelope["channel"].endswith(f".{pk}"):
                # It may have lost the right to see the row: it asks again.
                self.shown = self.fetch()
        elif version is None or version > self.shown.get(pk, 0):
            # A snapshot may be ahead of the events.
            self.shown[pk] = version


def main(url, seed, directory, *paths):
    directory = Path(directory)
    rng = random.Random(int(seed))
    followers = [
        Follower(url, path, number, rng.random(), directory)
        for number, path in enumerate(paths)
    ]
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    for follower in followers:
        follower.start()
    while not ended.wait(0.1):
        write(directory / "followers.json", {f.name: f.stands for f in followers})
    shown = {f.name: [f.path, list(f.shown.items())] for f in followers}
    write(directory / "followers-end.json", shown)


def write(path, value):
    """Write a file in one piece."""
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
