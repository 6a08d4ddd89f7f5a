"""The order of commits: `id > cursor` loses rows, a gate of xmin reverses them.

    .venv/bin/python benchmarks/order.py [--short] [--database postgresql|mariadb]

Writers run transactions that overlap: each updates one or two of a few rows, writes a
row of an outbox after each update, and pauses between the two and before the commit. A
tenth rolls back. Every row has a version, which a writer raises under the row's lock;
so the versions of one row are in the order of its commits, and a reader that has
version 5 after 6 shows old for new.

Read at the same time, each by a process of its own:

id > cursor      SELECT … WHERE id > the last id seen ORDER BY id
xmin gate        only transactions older than any that is open, ordered by
                 (transaction id, id): PostgreSQL alone has such numbers
event log        sequences.sequence(), as the relay calls it

committed   changes of transactions whose COMMIT returned
lost        of these, changes the reader has not had when all is over
phantom     changes it has had that were not committed
inversions  changes of a row that came after a later version of it

The database is a private one. The event log has to have zeros, or the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "sample_app")]

from tests.databases import SERVERS, settings_from  # noqa: E402

ROWS = 5
"""Rows that are written to: the fewer, the more often writers wait for each other."""

PAUSE = 0.01
"""Seconds of a writer's longest pause."""

READERS = {"id": "id > cursor", "xmin": "xmin gate", "log": "event log"}

SCHEMA = {
    "postgresql": (
        "CREATE TABLE hot (id int PRIMARY KEY, version bigint NOT NULL)",
        "CREATE TABLE told (id bigserial PRIMARY KEY, row_id int NOT NULL, "
        "version bigint NOT NULL, xid xid8 NOT NULL DEFAULT pg_current_xact_id())",
    ),
    "mariadb": (
        "CREATE TABLE hot (id int PRIMARY KEY, version bigint NOT NULL)",
        "CREATE TABLE told (id bigint AUTO_INCREMENT PRIMARY KEY, "
        "row_id int NOT NULL, version bigint NOT NULL)",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=tuple(SERVERS), default="postgresql")
    parser.add_argument("--short", action="store_true", help="a few seconds")
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    server = SERVERS[options.database]()
    if server.missing():
        print(f"{options.database} is not installed: make system")
        return 1
    seconds = 3 if options.short else 30
    with server, tempfile.TemporaryDirectory() as directory:
        environment = {**os.environ, **server.environment()}
        environment["ORDER_DIRECTORY"] = directory
        return run(Path(directory), environment, options, seconds)


def run(
    directory: Path,
    environment: dict[str, str],
    options: argparse.Namespace,
    seconds: float,
) -> int:
    def start(*role: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, __file__, *map(str, role)]
        return subprocess.Popen(command, env={**environment, "ORDER_ROLE": "1"})

    if start("prepare").wait():
        return 1
    names = [
        name for name in READERS if name != "xmin" or options.database == "postgresql"
    ]
    readers = [start("read", name) for name in names]
    writers = [
        start("write", number, options.seed + number, seconds)
        for number in range(options.writers)
    ]
    failed = [process.wait() for process in writers]
    (directory / "over").touch()
    failed += [process.wait() for process in readers]
    if any(failed):
        return 1
    return report(directory, names, options)


def report(directory: Path, names: list[str], options: argparse.Namespace) -> int:
    committed = {
        change
        for number in range(options.writers)
        for change in lines(directory / f"committed.{number}")
    }
    print(
        f"{options.database}, {options.writers} writers, {ROWS} rows, "
        f"seed {options.seed}"
    )
    print(f"{'':12} {'committed':>9} {'lost':>8} {'phantom':>8} {'inversions':>11}")
    figures = {}
    for name in names:
        seen = list(lines(directory / f"seen.{name}"))
        figures[name] = (
            len(committed - set(seen)),
            len(set(seen) - committed),
            inversions(seen),
        )
        lost, phantom, reversed_ = figures[name]
        print(
            f"{READERS[name]:12} {len(committed):9,} {lost:8,} {phantom:8,} "
            f"{reversed_:11,}"
        )
    return 1 if any(figures["log"]) or not committed else 0


def inversions(seen: Iterable[tuple[int, int]]) -> int:
    """How many versions came after a later one of their row."""
    count = 0
    latest: dict[int, int] = {}
    for row, version in seen:
        count += version < latest.get(row, 0)
        latest[row] = max(version, latest.get(row, 0))
    return count


def lines(path: Path) -> Iterator[tuple[int, int]]:
    for line in path.read_text().splitlines():
        row, version = line.split()
        yield int(row), int(version)


# What runs in the processes.


def role(name: str, *arguments: str) -> None:
    import django
    from django.conf import settings

    settings.configure(
        DATABASES={"default": settings_from(os.environ)},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django_grip",
            "django_grip.contrib.realtime",
            "django_grip.contrib.eventlog",
        ],
        GRIP_REALTIME={"RELAY": "daemon"},
        USE_TZ=True,
    )
    django.setup()
    directory = Path(os.environ["ORDER_DIRECTORY"])
    if name == "prepare":
        prepare()
    elif name == "write":
        number, seed, seconds = arguments
        write(directory / f"committed.{number}", int(seed), float(seconds))
    else:
        read(arguments[0], directory)


def prepare() -> None:
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        for statement in SCHEMA[os.environ["TEST_DATABASE"]]:
            cursor.execute(statement)
        for row in range(ROWS):
            cursor.execute("INSERT INTO hot VALUES (%s, 0)", [row])


class RolledBack(Exception):
    """What a writer gives up."""


def write(journal: Path, seed: int, seconds: float) -> None:
    from django.db import connection, transaction

    from django_grip.contrib.realtime import publish_event

    rng = random.Random(seed)

    def pause() -> None:
        time.sleep(rng.uniform(0, PAUSE) if rng.random() < 0.7 else 0)

    def change(row: int) -> tuple[int, int]:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE hot SET version = version + 1 WHERE id = %s", [row])
            cursor.execute("SELECT version FROM hot WHERE id = %s", [row])
            [version] = cursor.fetchone()
            cursor.execute(
                "INSERT INTO told (row_id, version) VALUES (%s, %s)", [row, version]
            )
        publish_event(f"hot.{row}", "update", version)
        return row, version

    until = time.monotonic() + seconds
    with journal.open("w") as committed:
        while time.monotonic() < until:
            # In one order, or writers would wait for each other in a circle.
            rows = sorted(rng.sample(range(ROWS), rng.choice((1, 1, 2))))
            changes = []
            try:
                with transaction.atomic():
                    if rng.random() < 0.3:
                        number_early(connection)
                        pause()
                    for row in rows:
                        changes.append(change(row))
                        pause()
                    if rng.random() < 0.1:
                        raise RolledBack
            except RolledBack:
                continue
            for row, version in changes:
                committed.write(f"{row} {version}\n")


def number_early(connection) -> None:
    """Have the transaction get its number before it waits for a row, as any earlier
    write of it would.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_xact_id()")


def read(name: str, directory: Path) -> None:
    from django.db import connection

    take = {"id": by_id, "xmin": by_xmin, "log": by_log}[name](connection)
    with (directory / f"seen.{name}").open("w") as seen:
        while True:
            # Asked before: what is committed when the last writer ends is read after.
            is_over = (directory / "over").exists()
            found = take()
            for row, version in found:
                seen.write(f"{row} {version}\n")
            if not found:
                if is_over:
                    return
                time.sleep(0.002)


Take = Callable[[], list[tuple[int, int]]]


def by_id(connection) -> Take:
    cursor_ = 0

    def take() -> list[tuple[int, int]]:
        nonlocal cursor_
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id, row_id, version FROM told WHERE id > %s ORDER BY id",
                [cursor_],
            )
            rows = cursor.fetchall()
        if rows:
            cursor_ = rows[-1][0]
        return [row[1:] for row in rows]

    return take


def by_xmin(connection) -> Take:
    after = ("0", 0)

    def take() -> list[tuple[int, int]]:
        nonlocal after
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT xid::text, id, row_id, version FROM told "
                "WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) "
                "AND (xid, id) > (%s::text::xid8, %s) ORDER BY xid, id",
                after,
            )
            rows = cursor.fetchall()
        if rows:
            after = rows[-1][:2]
        return [row[2:] for row in rows]

    return take


def by_log(connection) -> Take:
    from django_grip.contrib.eventlog import sequences

    def take() -> list[tuple[int, int]]:
        return [
            (int(event.channel.removeprefix("hot.")), json.loads(event.text)["data"])
            for event in sequences.sequence("default")
        ]

    return take


if __name__ == "__main__":
    if os.environ.get("ORDER_ROLE"):
        role(*sys.argv[1:])
    else:
        sys.exit(main())
