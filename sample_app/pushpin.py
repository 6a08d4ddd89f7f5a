"""A private Pushpin: own ports, own sockets, own zurl, gone without a trace on stop."""

import configparser
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self
from urllib.parse import quote

PROGRAMS = ("pushpin", "condure", "zurl")
INSTALLED_CONFIG = Path("/etc/pushpin/pushpin.conf")
INTERNAL_CONFIG = Path("/usr/lib/pushpin/internal.conf")


class PushpinError(RuntimeError):
    """Pushpin is not installed, or did not start."""


class Pushpin:
    """Run Pushpin in front of one upstream, everything on loopback.

    `upstream` is `host:port`. A port left at None is chosen when the instance starts.
    `key` is written as Pushpin writes it (`base64:...`) and signs the requests that
    reach the upstream; None makes a new one. `settings` overrides keys of the
    installed pushpin.conf, each in the section it has there: `{"message_rate": "0"}`.
    `over_http` asks the upstream about WebSockets by plain HTTP requests.

    Configuration and log are written to `directory`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        upstream: str = "127.0.0.1:8000",
        http_port: int | None = None,
        control_port: int | None = None,
        key: str | None = None,
        settings: Mapping[str, str] | None = None,
        over_http: bool = True,
    ) -> None:
        self.directory = Path(directory).resolve()
        self.upstream = upstream
        self.http_port = http_port or free_port()
        self.control_port = control_port or free_port()
        self.key = key or f"base64:{secrets.token_hex(32)}"
        self.settings = dict(settings or {})
        self.over_http = over_http
        self.process: subprocess.Popen[bytes] | None = None
        self.rundir: Path | None = None

    @classmethod
    def missing(cls) -> list[str]:
        """Name the programs of Pushpin that are not installed."""
        return [program for program in PROGRAMS if not shutil.which(program)]

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def control_url(self) -> str:
        """The address for publishers."""
        return f"http://127.0.0.1:{self.control_port}"

    @property
    def grip_url(self) -> str:
        """The value of GRIP_URL for Django projects behind this instance."""
        return f"{self.control_url}?key={quote(self.key, safe=':')}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self, timeout: float = 15) -> None:
        """Start, and return once clients and publishers are answered.

        Raises PushpinError, with the end of the log, if that takes over `timeout`
        seconds or a process ends.
        """
        if self.process:
            raise PushpinError("Expected a stopped Pushpin; this one runs already.")
        if missing := self.missing():
            raise PushpinError(f"Pushpin needs {', '.join(missing)}: not installed.")
        # A socket's path may have 107 bytes, so the sockets live in a short directory
        # of their own, wherever `directory` is.
        self.rundir = Path(tempfile.mkdtemp(prefix="pushpin-"))
        try:
            config = self._write_config(self.rundir)
            with self._log_path.open("wb") as log:
                self.process = subprocess.Popen(
                    ["pushpin", f"--config={config}", "--merge-output"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._wait_until_ready(self.process, self.rundir, timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self, timeout: float = 5) -> None:
        """End every process of this instance; after `timeout` seconds by SIGKILL."""
        if self.process:
            end_session(self.process, timeout)
            self.process = None
        if self.rundir:
            shutil.rmtree(self.rundir, ignore_errors=True)
            self.rundir = None

    def log(self) -> str:
        """Return what all processes of this instance logged since the last start."""
        if not self._log_path.exists():
            return ""
        return self._log_path.read_text(errors="replace")

    @property
    def _log_path(self) -> Path:
        return self.directory / "pushpin.log"

    def _write_config(self, rundir: Path) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        internal_path = self.directory / "internal.conf"
        with edited(INTERNAL_CONFIG, internal_path) as internal:
            # Debian's file names the sockets of a zurl that runs as a system service.
            internal["proxy"] |= {
                "zurl_out_specs": f"ipc://{rundir}/zurl-in",
                "zurl_out_stream_specs": f"ipc://{rundir}/zurl-in-stream",
                "zurl_in_specs": f"ipc://{rundir}/zurl-out",
            }
        path = self.directory / "pushpin.conf"
        with edited(INSTALLED_CONFIG, path) as config:
            config["global"] |= {
                "include": str(internal_path),
                "rundir": str(rundir),
                "ipc_prefix": "",
            }
            config["runner"] |= {
                "services": "condure,zurl,pushpin-proxy,pushpin-handler",
                "http_port": f"127.0.0.1:{self.http_port}",
                "logdir": str(self.directory),
            }
            config["proxy"] |= {"sig_iss": "pushpin", "sig_key": self.key}
            config["handler"] |= {
                "push_in_http_addr": "127.0.0.1",
                "push_in_http_port": str(self.control_port),
                "push_in_spec": f"ipc://{rundir}/push-in",
                "push_in_sub_specs": f"ipc://{rundir}/push-in-sub",
                "command_spec": f"ipc://{rundir}/command",
            }
            for name, value in self.settings.items():
                section_with(config, name)[name] = str(value)
        target = f"{self.upstream},over_http" if self.over_http else self.upstream
        (self.directory / "routes").write_text(f"* {target}\n")
        return path

    def _wait_until_ready(
        self, process: subprocess.Popen[bytes], rundir: Path, timeout: float
    ) -> None:
        deadline = time.monotonic() + timeout
        sockets = [rundir / name for name in ("condure-out", "zurl-out", "accept")]
        while not (
            all(path.exists() for path in sockets)
            and accepts(self.http_port)
            and answers(self.control_url)
        ):
            if process.poll() is not None:
                reason = f"ended with code {process.returncode}"
            elif time.monotonic() > deadline:
                reason = f"did not answer within {timeout:g} s"
            else:
                time.sleep(0.05)
                continue
            tail = "\n".join(self.log().splitlines()[-20:])
            raise PushpinError(f"Pushpin {reason}. Its log ends:\n{tail}")
        # Who looked for another's socket too early tries again within 0.2 s (ZeroMQ);
        # until then requests and holds fail, though both ports answer.
        time.sleep(0.3)


@contextlib.contextmanager
def edited(source: Path, target: Path) -> Iterator[dict[str, dict[str, str]]]:
    """Yield the sections of the configuration `source`; then write them to `target`."""
    parser = configparser.ConfigParser(interpolation=None)
    with source.open() as file:
        parser.read_file(file)
    sections = {name: dict(parser[name]) for name in parser.sections()}
    yield sections
    parser.read_dict(sections)
    with target.open("w") as file:
        parser.write(file, space_around_delimiters=False)


def section_with(config: dict[str, dict[str, str]], name: str) -> dict[str, str]:
    for section in config.values():
        if name in section:
            return section
    raise ValueError(
        f"settings: expected keys of {INSTALLED_CONFIG}; found {name!r}, which has no "
        "line there."
    )


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_free(port: int) -> bool:
    """Tell whether this TCP port of 127.0.0.1 could be listened on."""
    with socket.socket() as probe:
        # As servers do: connections of the last run that still close do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def answers(url: str) -> bool:
    """Tell whether a GET of `url` succeeds."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True


def end_session(leader: subprocess.Popen[bytes], timeout: float = 5) -> None:
    """Ask the leader of a session to end; then kill whoever is left in the session.

    The leader has `timeout` seconds. The session is what its processes share for sure:
    Pushpin gives each service a process group of its own, and leaves them all behind
    when it is killed itself.
    """
    leader.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        leader.wait(timeout)
    while members := session_members(leader.pid):
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    leader.wait()


def session_members(session: int) -> list[int]:
    """Return the ids of the running processes of a session (Linux: from /proc)."""
    members = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # "pid (command) state parent group session ...": the command may hold
            # spaces and parentheses.
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            members.append(int(entry.parent.name))
    return members
