"""A scripted origin on a real socket: each path is answered as a scenario says."""

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DEADLINE = 8


@dataclass(frozen=True)
class Request:
    """What the origin was asked; `number` counts the requests of the path from 1."""

    method: str
    target: str
    headers: object
    body: bytes
    number: int


@dataclass(frozen=True)
class Answer:
    """`body` is bytes, or a list of chunks to send with Transfer-Encoding."""

    headers: list = field(default_factory=list)
    body: object = b""
    status: int = 200


class Origin(ThreadingHTTPServer):
    """`script(path, answer)` says what a path gives: an Answer or a function of one
    Request. `requests(path)` is what came so far, `wait(path, count)` waits for it."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self._answers = {}
        self._requests = defaultdict(list)
        self._changed = threading.Condition()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def script(self, path, answer):
        self._answers[path] = answer

    def requests(self, path):
        with self._changed:
            return list(self._requests[path])

    def wait(self, path, count):
        with self._changed:
            came = self._changed.wait_for(
                lambda: len(self._requests[path]) >= count, DEADLINE
            )
            assert came, f"{path}: {len(self._requests[path])} of {count} requests"
            return list(self._requests[path])

    def answer(self, method, target, headers, body):
        path = target.partition("?")[0]
        with self._changed:
            number = len(self._requests[path]) + 1
            request = Request(method, target, headers, body, number)
            self._requests[path].append(request)
            self._changed.notify_all()
        answer = self._answers.get(path, Answer(status=404))
        return answer(request) if callable(answer) else answer

    def handle_error(self, request, client_address):
        """Clients that vanish are part of the scenarios."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = self.server.answer(self.command, self.path, self.headers, body)
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if isinstance(answer.body, list):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in answer.body:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_POST = handle_any

    def log_message(self, *args):
        pass
