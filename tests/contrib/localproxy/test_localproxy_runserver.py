"""`grip_proxy` and `runserver`, started as a developer does."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
START = 20.0

SETTINGS = """
DEBUG = True
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "django_grip.contrib.localproxy",
    "django.contrib.staticfiles",
]
STATIC_URL = "static/"
ROOT_URLCONF = "urls"
GRIP_URL = "http://127.0.0.1:{control}?key=a-secret-of-more-than-thirty-two-bytes"
"""

URLS = """
import os
import jwt
from django.http import HttpResponse
from django.urls import path

VERSION = "one"


def version(request):
    claims = jwt.decode(
        request.headers["Grip-Sig"],
        "a-secret-of-more-than-thirty-two-bytes",
        algorithms=["HS256"],
    )
    return HttpResponse(f"{VERSION} {claims['iss']} {request.get_host()} {os.getpid()}")


def stream(request):
    return HttpResponse(
        "ready\\n", headers={"Grip-Hold": "stream", "Grip-Channel": "a"}
    )


urlpatterns = [path("version", version), path("stream", stream)]
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Command:
    """A running `manage.py` command, its output, and the processes it made."""

    def __init__(self, project, *arguments):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(project), str(ROOT)]),
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "settings",
        }
        environment.pop("RUN_MAIN", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "django", *arguments],
            cwd=project,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self.grown = threading.Condition()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self.grown:
                self.output += line
                self.grown.notify_all()

    def until(self, text):
        with self.grown:
            found = self.grown.wait_for(lambda: text in self.output, START)
        assert found, f"{text!r} is not in:\n{self.output}"

    def finished(self):
        """The exit code, when the command and all that it started are gone."""
        code = self.process.wait(START)
        self.reader.join(START)
        assert not self.reader.is_alive(), "some process still holds the output"
        return code

    def kill_all(self):
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()


@pytest.fixture
def project(tmp_path):
    control = free_port()
    (tmp_path / "settings.py").write_text(SETTINGS.format(control=control))
    (tmp_path / "urls.py").write_text(URLS)
    (tmp_path / "static").mkdir()
    return tmp_path


@pytest.fixture
def start(project):
    # A test run in the background ignores SIGINT, and its children would, too.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    commands = []

    def start(*arguments):
        commands.append(Command(project, *arguments))
        return commands[-1]

    yield start
    for command in commands:
        command.kill_all()
    signal.signal(signal.SIGINT, previous)


def get(port, path, host="127.0.0.1"):
    """The body of an answer; tries again while nothing listens there yet."""
    give_up = time.monotonic() + START
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=START)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < give_up
            time.sleep(0.02)
    with connection:
        head = f"GET {path} HTTP/1.0\r\nHost: shop.example\r\n\r\n"
        connection.sendall(head.encode())
        answer = b""
        while data := connection.recv(65536):
            answer += data
    return answer.partition(b"\r\n\r\n")[2].decode()


def hold(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=START)
    connection.sendall(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    read_until(connection, b"ready\n")
    return connection


def read_until(connection, wanted):
    received = b""
    while wanted not in received:
        data = connection.recv(65536)
        assert data, f"ended after {received!r}"
        received += data


def publish(project, text):
    control = int(re.search(r":(\d+)\?", (project / "settings.py").read_text())[1])
    body = '{"items": [{"channel": "a", "http-stream": {"content": "%s"}}]}' % text  # noqa: UP031
    with socket.create_connection(("127.0.0.1", control), timeout=START) as connection:
        connection.sendall(
            f"POST /publish/ HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
            f"\r\n\r\n{body}".encode()
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_runserver_keeps_streams_over_a_reload_and_leaves_no_process(project, start):
    port = free_port()
    command = start("runserver", str(port))
    command.until(f"GRIP proxy at http://127.0.0.1:{port}")
    command.until(f"development server at http://127.0.0.1:{port}/")
    version, iss, host, child = get(port, "/version").split()
    assert (version, iss, host) == ("one", "pushpin", "shop.example")
    assert int(child) != command.process.pid

    with hold(port) as stream:
        publish(project, "before")
        read_until(stream, b"before")
        source = project / "urls.py"
        source.write_text(URLS.replace('"one"', '"two"'))
        # Again and again: what changes before the reloader's first look is not seen.
        later = time.time()
        while "urls.py changed, reloading" not in command.output:
            later += 1
            os.utime(source, (later, later))
            assert command.process.poll() is None
            time.sleep(0.1)
        publish(project, "during")
        read_until(stream, b"during")
        give_up = time.monotonic() + START
        while not (answer := get(port, "/version")).startswith("two"):
            assert time.monotonic() < give_up, answer
        publish(project, "after")
        read_until(stream, b"after")

        os.killpg(command.process.pid, signal.SIGINT)  # as CONTROL-C does
        command.finished()
        assert stream.recv(65536) == b"0\r\n\r\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=START)
    assert "Traceback" not in command.output


def test_runserver_ends_on_sigterm_to_the_parent_alone(start):
    port = free_port()
    command = start("runserver", f"0.0.0.0:{port}", "--skip-checks")
    command.until(f"development server at http://0.0.0.0:{port}/")
    assert get(port, "/version").startswith("one")
    command.process.terminate()
    command.finished()


def test_runserver_without_reload_is_one_process(project, start):
    port = free_port()
    command = start("runserver", f"127.0.0.1:{port}", "--noreload", "--nostatic")
    command.until(f"development server at http://127.0.0.1:{port}/")
    assert get(port, "/version").split()[-1] == str(command.process.pid)
    with hold(port) as stream:
        publish(project, "news")
        read_until(stream, b"news")
        command.process.send_signal(signal.SIGINT)
        assert command.finished() == 0


def test_runserver_serves_static_files_behind_the_proxy(project, start):
    (project / "app").mkdir()
    (project / "app" / "__init__.py").touch()
    (project / "app" / "static").mkdir()
    (project / "app" / "static" / "x.txt").write_text("static content")
    settings = project / "settings.py"
    settings.write_text(settings.read_text() + "\nINSTALLED_APPS += ['app']\n")
    port = free_port()
    start("runserver", str(port), "--noreload")
    assert get(port, "/static/x.txt") == "static content"


def test_runserver_no_proxy_is_plain_runserver(start):
    port = free_port()
    command = start("runserver", str(port), "--noreload", "--no-proxy")
    command.until(f"development server at http://127.0.0.1:{port}/")
    assert "GRIP" not in command.output
    assert get(port, "/stream") == "ready\n"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_runserver_listens_on_ipv6(start):
    port = free_port()
    command = start("runserver", f"[::1]:{port}", "--noreload")
    command.until(f"development server at http://[::1]:{port}/")
    assert get(port, "/version", "::1").startswith("one")


@pytest.mark.parametrize("arguments", [(), ("--noreload",)])
def test_runserver_on_a_port_in_use_says_so_in_one_line(start, arguments):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = start("runserver", str(port), *arguments)
        assert command.finished() == 1
    (line,) = command.output.splitlines()
    assert f"127.0.0.1:{port}" in line


def test_check_warns_if_staticfiles_hides_our_runserver(project, start):
    settings = project / "settings.py"
    settings.write_text(settings.read_text() + "\nINSTALLED_APPS.reverse()\n")
    command = start("check")
    assert command.finished() == 0
    assert "grip_localproxy.W001" in command.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_grip_proxy_ends_cleanly_on_a_signal(project, start, origin, number):
    origin.hold("/stream", ("Grip-Hold", "stream"), ("Grip-Channel", "a"))
    port = free_port()
    command = start("grip_proxy", "--listen", f":{port}", "--upstream", origin.url)
    command.until(f"GRIP proxy at http://127.0.0.1:{port} in front of {origin.url}")
    with hold(port) as stream:
        publish(project, "news")
        read_until(stream, b"news")
        started = time.monotonic()
        command.process.send_signal(number)
        assert command.finished() == 0
        assert time.monotonic() - started < 1.5
        assert stream.recv(65536) == b"0\r\n\r\n"
    assert "Traceback" not in command.output


def test_grip_proxy_on_a_port_in_use_says_so_in_one_line(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = start("grip_proxy", "--listen", f"127.0.0.1:{port}")
        assert command.finished() == 1
    (line,) = command.output.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "--listen" in line


@pytest.mark.parametrize("command", ["grip_proxy", "runserver"])
def test_key_that_cannot_sign_is_said_in_one_line(project, start, command):
    pem = """
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives import serialization as s
key = ec.generate_private_key(ec.SECP256R1()).public_key()
pem = key.public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
GRIP_PROXIES = [{"control_uri": "http://127.0.0.1:1", "verify_key": pem.decode()}]
GRIP_URL = None
"""
    settings = project / "settings.py"
    settings.write_text(settings.read_text() + pem)
    running = start(command)
    assert running.finished() == 1
    (line,) = running.output.splitlines()
    assert "plain secret" in line


def test_grip_proxy_help_says_what_it_is_for(start):
    command = start("grip_proxy", "--help")
    assert command.finished() == 0
    assert "development, tests, demos" in command.output
    assert "Pushpin" in command.output


@pytest.mark.parametrize(
    "arguments", [("--listen", "nowhere"), ("--upstream", "127.0.0.1:8000")]
)
def test_grip_proxy_refuses_what_is_no_address(start, arguments):
    command = start("grip_proxy", *arguments)
    assert command.finished() == 2
    assert "Example" in command.output
