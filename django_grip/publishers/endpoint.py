"""Endpoint: one control port, to which batches are POSTed."""

from __future__ import annotations

import io
import socket
import time
from base64 import b64encode
from collections.abc import Iterable
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
)
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import jwt
from django.core.exceptions import ImproperlyConfigured

from django_grip.proxies import Proxy

TIMEOUT = 5.0
"""Seconds for one POST from connecting to the last byte of the answer."""

TOKEN_LIFE = 3600
"""Seconds a token for publishing is good for; a new one is made when half is over."""

_TEXT_MAX = 1000
_BAD_BATCH = {400, 413, 422}
_TRY_AGAIN = {408, 425, 429}


class Answer(NamedTuple):
    """What a control port said; status 0: nothing, and `text` is the error."""

    status: int
    text: str

    @property
    def is_accepted(self) -> bool:
        """Every item of the batch was taken."""
        return 200 <= self.status < 300

    @property
    def is_bad_batch(self) -> bool:
        """Some item is wrong, and nothing of the batch was taken."""
        return self.status in _BAD_BATCH

    @property
    def is_transient(self) -> bool:
        """The same bytes may be taken later."""
        return not self.status or self.status in _TRY_AGAIN or 500 <= self.status <= 599

    @property
    def reason(self) -> str:
        """The answer in a line, for people."""
        return f"HTTP {self.status}: {self.text}" if self.status else self.text


class Endpoint:
    """Where to POST, and with what authorization. For one thread.

    The connection is kept where the server keeps it; Pushpin closes it every time.
    """

    def __init__(self, proxy: Proxy) -> None:
        url = urlsplit(proxy.control_uri or "")
        if not url.hostname:
            raise ImproperlyConfigured(
                "The control URI of a GRIP proxy names no host: "
                f"{url.scheme}://{url.path}. Example: GRIP_URL = "
                "'http://localhost:5561'."
            )
        path = url.path.rstrip("/")
        self.address = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{path}"
        """The control URI without what may be secret, for logs and errors."""
        self._class = HTTPSConnection if url.scheme == "https" else HTTPConnection
        self._host = url.hostname
        self._port = url.port
        self._target = f"{path}/publish/" + (f"?{url.query}" if url.query else "")
        self._proxy = proxy
        self._basic = None
        if "@" in url.netloc:
            user = f"{unquote(url.username or '')}:{unquote(url.password or '')}"
            self._basic = f"Basic {b64encode(user.encode()).decode()}"
        key = proxy.key.encode() if isinstance(proxy.key, str) else proxy.key
        known = (key, unquote(url.password or "").encode(), url.query.encode())
        self._secrets = [secret for secret in known if secret]
        self._token: tuple[str, float] = ("", 0.0)
        self._connection: HTTPConnection | None = None

    def post(self, body: bytes) -> Answer:
        """Send one batch; the answer is there within TIMEOUT, or an error is."""
        deadline = time.monotonic() + TIMEOUT
        if self._connection is not None:
            try:
                return self._exchange(self._connection, body, deadline)
            except (OSError, HTTPException):
                # The server has closed it meanwhile, most likely: once more.
                self.close()
        try:
            # A name may have several addresses, and each is tried.
            self._connection = self._class(self._host, self._port, timeout=TIMEOUT / 2)
            return self._exchange(self._connection, body, deadline)
        except OSError as exc:
            self.close()
            return Answer(0, _printable(str(exc) or type(exc).__name__))
        except Exception as exc:
            # A boundary: the bytes come from anybody, and the texts of http.client
            # repeat them. A setting that no request can carry ends here as well.
            self.close()
            return Answer(0, f"no HTTP exchange: {type(exc).__name__}")

    def close(self) -> None:
        """Close the connection, if one was kept."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _exchange(
        self, connection: HTTPConnection, body: bytes, deadline: float
    ) -> Answer:
        if connection.sock is None:
            connection.connect()
        sock = connection.sock
        sock.settimeout(_remaining(deadline))
        connection.response_class = _answers_until(deadline)  # type: ignore[assignment]
        authorization = self._authorization()
        headers = {"Content-Type": "application/json", **authorization}
        connection.request("POST", self._target, body, headers)
        with connection.getresponse() as response:
            text = response.read(_TEXT_MAX)
            if response.will_close or not response.isclosed():
                self.close()
        if response.status == 200:
            return Answer(200, "")
        sent = [self._target, *authorization.values()]
        said = body + "\n".join(sent).encode()
        return Answer(response.status, _readable(text, said, self._secrets))

    def _authorization(self) -> dict[str, str]:
        key = self._proxy.key
        if self._basic is not None:
            return {"Authorization": self._basic}
        if key is None:
            return {}
        if not self._proxy.control_iss:
            token = key if isinstance(key, str) else b64encode(key).decode()
            return {"Authorization": f"Bearer {token}"}
        token, renew_at = self._token
        if time.time() >= renew_at:
            now = time.time()
            claims = {"iss": self._proxy.control_iss, "exp": int(now) + TOKEN_LIFE}
            token = jwt.encode(claims, key, algorithm="HS256")
            self._token = (token, now + TOKEN_LIFE / 2)
        return {"Authorization": f"Bearer {token}"}


def _readable(text: bytes, sent: bytes, secrets: Iterable[bytes]) -> str:
    """The first line of an answer, for logs. One that repeats what was sent is left
    out: it may be a payload or a key.
    """
    line = text.strip().partition(b"\n")[0][:200]
    if any(secret in text for secret in secrets) or any(
        line[at : at + 12] in sent for at in range(len(line) - 11)
    ):
        return "(the answer repeats the request)"
    return _printable(line.decode("utf-8", "replace"))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError(f"no complete answer within {TIMEOUT:g} s")
    return remaining


def _answers_until(deadline: float) -> object:
    """HTTPResponse as the connection makes it, its socket read until `deadline`."""

    def make(sock: socket.socket, *args: object, **named: object) -> HTTPResponse:
        return HTTPResponse(_TimedSocket(sock, deadline), *args, **named)  # type: ignore[arg-type]

    return make


class _TimedSocket(io.RawIOBase):
    """Reads a socket with one deadline for all reads: each alone could go on for ever
    with a byte a second.
    """

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        self._sock.settimeout(_remaining(self._deadline))
        try:
            return self._raw.readinto(buffer)
        except TimeoutError:
            _remaining(self._deadline)
            raise

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
