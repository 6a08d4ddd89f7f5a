"""Private database servers, each gone without a trace.

    python tests/databases.py postgresql|mariadb COMMAND [ARGUMENT...]

runs a command against one, which it finds by the environment: TEST_DATABASE names the
kind, DATABASE_HOST, DATABASE_PORT and DATABASE_USER the server. It holds an empty
database `django_grip`. Without the server's programs on the machine this says so and
succeeds; with CI set it fails.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "sample_app"))
from pushpin import free_port

USER = "grip"
NAME = "django_grip"


def main(kind: str, command: list[str]) -> int:
    server = SERVERS[kind]()
    if server.missing():
        print(f"Not run: the suite on {kind}, which is not installed: make system")
        return 1 if os.environ.get("CI") else 0
    with server:
        environment = {**os.environ, **server.environment()}
        return subprocess.run(command, env=environment).returncode


class Server:
    """A database server of its own; a context manager.

    With `durable` what is committed survives a crash of the machine, else only one of
    the server. `connections` is how many clients there may be.
    """

    kind: str
    engine: str
    owner: str

    def __init__(self, *, durable: bool = False, connections: int = 100) -> None:
        self.durable = durable
        self.connections = connections
        self.port = free_port()

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.kind}-"))
        if os.getuid() == 0:
            # Neither of them runs as root.
            shutil.chown(self.directory, self.owner, self.owner)
        try:
            self.install()
            self.start()
            self.create()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info):
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        return {
            "TEST_DATABASE": self.kind,
            "DATABASE_HOST": "127.0.0.1",
            "DATABASE_PORT": str(self.port),
            "DATABASE_USER": USER,
        }

    def run(self, program: Path | str, *arguments: str) -> None:
        done = subprocess.run(
            [*self.as_owner(), str(program), *arguments],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}")

    def as_owner(self) -> list[str]:
        if os.getuid():
            return []
        # Not `su`: the process that is started is the one that is signalled.
        user = pwd.getpwnam(self.owner)
        return [
            "setpriv",
            f"--reuid={user.pw_uid}",
            f"--regid={user.pw_gid}",
            "--clear-groups",
        ]

    def spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                [*self.as_owner(), *command],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """SIGKILL to all of it, as when the machine's memory is exhausted."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.quick)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def wait(self, is_ready) -> None:
        deadline = time.monotonic() + 60
        while not is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.directory / "log").read_text()[-3000:]
                raise RuntimeError(f"{self.kind} did not start:\n{log}")
            time.sleep(0.05)


class PostgreSQL(Server):
    kind = "postgresql"
    engine = "django.db.backends.postgresql"
    owner = "postgres"
    quick = signal.SIGINT

    def program(self, name: str) -> str | None:
        """Debian keeps the server's programs off PATH."""
        versions = sorted(
            glob(f"/usr/lib/postgresql/*/bin/{name}"),
            key=lambda path: int(path.split("/")[4]),
        )
        return versions[-1] if versions else shutil.which(name)

    def missing(self) -> bool:
        return self.program("initdb") is None

    def install(self) -> None:
        self.run(
            self.program("initdb"),
            *("-D", str(self.directory / "data"), "-U", USER, "-A", "trust"),
            *("-E", "UTF8", "--no-sync"),
        )

    def start(self) -> None:
        fsync = "on" if self.durable else "off"
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "max_connections": self.connections,
            "fsync": fsync,
        }
        self.process = self.spawn(
            [
                self.program("postgres"),
                *("-D", str(self.directory / "data")),
                *(f"--{name}={value}" for name, value in options.items()),
            ]
        )
        arguments = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        ready = [self.program("pg_isready"), "-q", *arguments]
        self.wait(lambda: subprocess.run(ready).returncode == 0)

    def create(self) -> None:
        self.sql(f"CREATE DATABASE {NAME}", database="postgres")

    def sql(self, statement: str, database: str = NAME) -> None:
        """Run a statement as the superuser."""
        self.run(
            self.program("psql"),
            *("-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-q", "-X"),
            *("-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement),
        )


class MariaDB(Server):
    kind = "mariadb"
    engine = "django.db.backends.mysql"
    owner = "mysql"
    quick = signal.SIGTERM

    def missing(self) -> bool:
        return not shutil.which("mariadbd") or not shutil.which("mariadb-install-db")

    def install(self) -> None:
        self.run(
            "mariadb-install-db",
            *("--no-defaults", f"--datadir={self.directory / 'data'}"),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )

    def start(self) -> None:
        options = {
            "datadir": self.directory / "data",
            "socket": self.directory / "socket",
            "pid-file": self.directory / "pid",
            "port": self.port,
            "bind-address": "127.0.0.1",
            "max-connections": self.connections,
            "character-set-server": "utf8mb4",
            "innodb-flush-log-at-trx-commit": 1 if self.durable else 2,
        }
        self.process = self.spawn(
            [
                *("mariadbd", "--no-defaults", "--skip-name-resolve"),
                *(f"--{name}={value}" for name, value in options.items()),
            ]
        )
        ping = ["mariadb-admin", "--no-defaults", "-uroot", "ping", "--silent"]
        ping.append(f"--socket={self.directory / 'socket'}")
        self.wait(lambda: subprocess.run(ping, stderr=-3, stdout=-3).returncode == 0)

    def create(self) -> None:
        self.sql(f"CREATE DATABASE {NAME}", database="mysql")
        # Of all databases: Django makes one of its own for the tests.
        self.sql(f"CREATE USER {USER}; GRANT ALL ON *.* TO {USER}")

    def sql(self, statement: str, database: str = NAME) -> None:
        """Run a statement as the superuser."""
        self.run(
            "mariadb",
            *("--no-defaults", "-uroot", f"--socket={self.directory / 'socket'}"),
            *(database, "-e", statement),
        )


SERVERS = {server.kind: server for server in (PostgreSQL, MariaDB)}


def settings_from(environment, name: str = NAME) -> dict[str, object] | None:
    """The entry of DATABASES for what `environment()` says; None: it says nothing."""
    kind = environment.get("TEST_DATABASE")
    if kind not in SERVERS:
        return None
    return {
        "ENGINE": SERVERS[kind].engine,
        "NAME": name,
        "HOST": environment["DATABASE_HOST"],
        "PORT": environment["DATABASE_PORT"],
        "USER": environment["DATABASE_USER"],
    }


@contextmanager
def server(kind: str, **options) -> Iterator[Server]:
    """A server of a kind, running."""
    with SERVERS[kind](**options) as running:
        yield running


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
