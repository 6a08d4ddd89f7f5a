"""A WebSocket's proxy, reduced to what it sends and keeps: requests in one process."""

import json
from functools import cache
from pathlib import Path
from uuid import uuid4

from jsonschema import Draft202012Validator

from django_grip.test import GripClient
from django_grip.websocket_events import CONTENT_TYPE, decode, parse_close

SCHEMA = Path(__file__).parents[3] / "docs/reference/websocket-protocol.schema.json"


@cache
def schema(part):
    """The validator of what a `client` or a `server` sends."""
    whole = json.loads(SCHEMA.read_text())
    return Draft202012Validator(
        {"$defs": whole["$defs"], "$ref": f"#/$defs/{part}"},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


class Wire:
    """One connection. What the server tells is valid, or the test fails.

    `told` are all objects that came; `channels` what the proxy is subscribed to; `meta`
    what it keeps; `closed` is (code, reason) once the server has closed.
    """

    def __init__(self, path, client=None, **headers):
        self.path = path
        self.client = client or GripClient()
        self.headers = {"HTTP_CONNECTION_ID": str(uuid4()), **headers}
        self.meta = {}
        self.channels = []
        self.told = []
        self.sizes = []
        self.interval = None
        self.keep_alive = None
        self.closed = None
        self.response = None

    def open(self):
        """The status of the handshake."""
        return self.ask(("OPEN", None)).status_code

    def send(self, *operations):
        """What these objects, each in a text of one request, are answered with."""
        before = len(self.told)
        self.ask(*(("TEXT", _text(each)) for each in operations))
        return self.told[before:]

    def poll(self):
        """What comes when the proxy asks because the client was silent."""
        before = len(self.told)
        self.ask()
        return self.told[before:]

    def subscribe(self, url, id="a", **fields):
        return self.send({"type": "subscribe", "id": id, "url": url, **fields})

    def resume(self, since, **fields):
        return self.send({"type": "resume", "since": since, **fields})

    def ask(self, *events):
        meta = {f"HTTP_META_{name.upper()}": value for name, value in self.meta.items()}
        self.response = response = self.client.websocket(
            self.path, *events, CONTENT_TYPE=CONTENT_TYPE, **self.headers, **meta
        )
        self.sizes.append(len(response.content))
        if response.status_code == 200:
            self._take(response)
        return response

    def _take(self, response):
        for name, value in response.headers.items():
            if name.startswith("Set-Meta-"):
                self.meta[name.removeprefix("Set-Meta-")] = value
        if "Keep-Alive-Interval" in response:
            self.interval = int(response["Keep-Alive-Interval"])
        for event in decode(response.content):
            if event.type == "CLOSE":
                self.closed = parse_close(event.content)
            elif event.type == "TEXT" and event.content.startswith(b"c:"):
                self._control(json.loads(event.content[2:]))
            elif event.type == "TEXT":
                assert event.content.startswith(b"m:")
                assert len(event.content) <= 32_768
                objects = json.loads(event.content[2:])
                schema("server").validate(objects)
                self.told += objects

    def _control(self, message):
        match message["type"]:
            case "subscribe":
                assert message["channel"] not in self.channels
                self.channels.append(message["channel"])
            case "unsubscribe":
                self.channels.remove(message["channel"])
            case "keep-alive":
                self.keep_alive = message


def _text(operation):
    return operation if isinstance(operation, str) else json.dumps(operation)


def problem(status, reason=None, **id):
    """A problem, or without a reason what a problem has but for its reason."""
    found = {"type": "problem", **id, "status": status}
    return found if reason is None else {**found, "reason": reason}


def brief(objects):
    """Objects without reasons and texts, for what is about the rest."""
    return [
        {name: value for name, value in each.items() if name != "reason"}
        for each in objects
    ]
