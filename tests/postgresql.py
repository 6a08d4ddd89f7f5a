"""Run a command against a private PostgreSQL that lives as long as the command.

    python tests/postgresql.py COMMAND [ARGUMENT...]

The command finds the server by PGHOST, PGPORT and PGUSER, and TEST_DATABASE is set.
Without PostgreSQL on the machine this says so and succeeds; with CI set it fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from glob import glob
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "sample_app"))
from pushpin import free_port


def main(command: list[str]) -> int:
    programs = programs_directory()
    if programs is None:
        print("Not run: the suite on PostgreSQL, which is not installed: make system")
        return 1 if os.environ.get("CI") else 0
    directory = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        return run(programs, directory, command)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def programs_directory() -> Path | None:
    """Where `initdb` and `pg_ctl` are; Debian keeps them off PATH."""
    if found := shutil.which("pg_ctl"):
        return Path(found).parent
    versions = sorted(
        glob("/usr/lib/postgresql/*/bin/pg_ctl"),
        key=lambda path: int(path.split("/")[4]),
    )
    return Path(versions[-1]).parent if versions else None


def run(programs: Path, directory: Path, command: list[str]) -> int:
    as_server: list[str] = []
    if os.getuid() == 0:
        # PostgreSQL refuses to run as root.
        shutil.chown(directory, "postgres", "postgres")
        as_server = [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--clear-groups",
        ]
    port = str(free_port())
    data = str(directory / "data")

    def server(program: str, *arguments: str) -> None:
        subprocess.run(
            [*as_server, str(programs / program), *arguments],
            check=True,
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )

    server("initdb", "-D", data, "-U", "grip", "-A", "trust", "-E", "UTF8", "--no-sync")
    options = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off"
    log = str(directory / "log")
    server("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")
    try:
        environment = {
            **os.environ,
            "TEST_DATABASE": "postgresql",
            "PGHOST": "127.0.0.1",
            "PGPORT": port,
            "PGUSER": "grip",
        }
        return subprocess.run(command, env=environment).returncode
    finally:
        server("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
