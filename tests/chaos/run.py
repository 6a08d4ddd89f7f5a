"""The chaos runner of the event log.

    .venv/bin/python tests/chaos/run.py [--database postgresql|mariadb|sqlite]
        [--seed N] [--kills N] [--changes N] [--seconds N]

Writers, relays, Pushpin, a Django site and followers (SSE clients) run as processes of
their own, on a database of their own. A killer whose choices come from the seed ends
them by SIGKILL while they work: writers in their transactions, relays in their batches,
all of them at failpoints too. In the end the database and the journals of the writers
say what was committed, and the log and the followers are judged by that.

`--kills` counts those in an open transaction or batch, `--changes` net changes of rows,
both for each database; the run ends when there are as many, and fails if that takes
longer than `--seconds`. It fails as well if anything was lost, told without a commit,
told twice or in the wrong order. Without `--database` all three run in turn.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "sample_app"))
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from servers import wait_until
from tests.chaos import judge
from tests.chaos.journals import read
from tests.chaos.stage import BESIDE, POINTS, Stage
from tests.chaos.writer import ANCHORS

DATABASES = ("postgresql", "mariadb", "sqlite")
FOLLOWED = (
    *("rows", "rows", "rows", "marks", "marks"),
    *("rows/tenant/a", "rows/tenant/b", "rows/tenant/c", "rows/1", "rows/2"),
)
CHANNELS = {"rows": "chaos.row", "marks": "chaos.mark"}
UNSURE = 1_500
"""Events of a batch, that a server may have shown before they were on its disk."""

BACKLOG = 3_000
"""Rows of the outbox above which the writers pause."""


class Auditor(threading.Thread):
    """Reads the log as it grows: in the end retention has taken most of it."""

    def __init__(self, is_server):
        super().__init__(daemon=True)
        self.log = []
        self.changes = 0
        self.is_server = is_server
        self.backlog = 0
        self.holes = []
        self.finished = threading.Event()
        self.failure = None

    def run(self):
        from django.db import Error, connection

        is_lost = False
        while not self.finished.wait(0.1):
            try:
                connection.ensure_connection()
                if is_lost and self.is_server:
                    # A killed one may come back with less than it has shown.
                    del self.log[-UNSURE:]
                    self.changes = sum(map(is_change, self.log))
                is_lost = False
                while self.look():
                    pass
            except Error:
                is_lost = True
                connection.close()
            except Exception as exc:
                self.failure = exc
                return
        connection.close()

    def look(self):
        from django_grip.contrib.eventlog.models import LoggedEvent, Outbox

        self.backlog = Outbox.objects.count()
        last = self.log[-1].seq if self.log else 0
        rows = LoggedEvent.objects.filter(seq__gt=last).order_by("seq")[:2_000]
        for row in rows:
            if row.seq != last + 1:
                self.holes.append((last, row.seq))
            last = row.seq
            told = json.loads(row.text) if row.text else {}
            self.log.append(
                judge.Logged(
                    row.seq,
                    row.prev,
                    row.channel,
                    # A close has no text, and its op says why: "age".
                    row.op if told else "close",
                    told.get("pk"),
                    told.get("data", {}).get("version"),
                    told.get("reason"),
                )
            )
            self.changes += is_change(self.log[-1])
        return len(rows) == 2_000


def is_change(event):
    return event.op != "close" and event.channel in CHANNELS.values()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=DATABASES)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--kills", type=int, default=70)
    parser.add_argument("--changes", type=int, default=34_000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--every", type=float, default=3.5, help=argparse.SUPPRESS)
    parser.add_argument("--points", type=int, default=2, help=argparse.SUPPRESS)
    parser.add_argument("--report", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10**6)
    if options.database:
        return run(options)
    return run_all(options)


def run_all(options):
    """Each database in a process of its own, and the total."""
    code, total = 0, Counter()
    with tempfile.TemporaryDirectory() as directory:
        for database in DATABASES:
            report = Path(directory) / database
            command = [sys.executable, __file__, "--database", database]
            for name in ("seed", "kills", "changes", "seconds", "every", "points"):
                command += [f"--{name}", str(getattr(options, name))]
            code |= subprocess.run([*command, "--report", report]).returncode
            if report.exists():
                total.update(json.loads(report.read_text()))
    missed = [point for point in POINTS if total[f"failpoint {point}"] < 5]
    print_report(f"total, seed {options.seed}", total)
    if missed:
        print(f"  FAILED: hit less than 5 times: {', '.join(missed)}")
    return 1 if code or missed else 0


def run(options):
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    stage = Stage(
        options.database,
        directory,
        random.Random(f"{options.seed} {options.database}"),
        writers=3,
        # Half is rolled back, and there are pauses.
        rate=4 * options.changes / (options.kills * options.every),
        history=2_000,
    )
    try:
        figures, verdict = play(stage, options)
    finally:
        stage.end()
    print_report(f"{options.database}, seed {options.seed}", figures)
    for line in verdict.examples:
        print(f"  {line}")
    if options.report:
        Path(options.report).write_text(json.dumps(figures))
    if verdict.faults:
        print(f"  FAILED; see {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


def play(stage, options):
    """One run on one database; returns figures and the verdict."""
    stage.begin()
    os.environ.update(stage.env)
    import django

    django.setup()
    prepare()
    auditor = Auditor(stage.server is not None)
    auditor.start()
    stage.start_gunicorn()
    stage.wait_for_gunicorn()
    stage.start_followers(stage.rng.getrandbits(32), FOLLOWED)
    verdict = judge.Verdict()
    began = time.monotonic()
    stop_at = began + options.seconds
    try:
        chaos(stage, auditor, options, stop_at)
        took = time.monotonic() - began
        stage.settle()
        heads = catch_up(stage, auditor)
    except AssertionError as exc:
        verdict.fault("harness", f"not settled: {exc}")
        heads = {}
        took = time.monotonic() - began
    auditor.finished.set()
    auditor.join()
    if auditor.failure is not None:
        raise auditor.failure
    changes = sentence(stage, auditor, heads, verdict)
    opened = sum(n for kind, n in stage.kills.items() if kind not in BESIDE)
    if opened < options.kills:
        verdict.fault("harness", f"{opened} kills, of {options.kills}")
    if len(changes) < options.changes:
        verdict.fault("harness", f"{len(changes)} changes, of {options.changes}")
    for trouble in stage.troubles:
        verdict.fault("harness", trouble)
    figures = {
        "seconds": round(took),
        "committed changes": len(changes),
        "log rows": len(auditor.log),
        "kills in an open transaction or batch": opened,
        "kills beside": stage.kills.total() - opened,
        "resets": total(verdict.seen, "reset"),
        "reconnects": total(verdict.seen, "cut"),
    }
    figures |= {f"kill: {kind}": n for kind, n in sorted(stage.kills.items())}
    figures |= {f"failpoint {point}": stage.hits[point] for point in POINTS}
    figures |= dict(sorted(verdict.seen.items()))
    figures |= {f"= {kind}": verdict.faults[kind] for kind in judge.FAULTS}
    return figures, verdict


def total(counter, beginning):
    return sum(n for name, n in counter.items() if name.startswith(beginning))


def prepare():
    from django.core.management import call_command

    from tests.chaos.models import TENANTS, Row

    call_command("migrate", run_syncdb=True, verbosity=0)
    for number in range(ANCHORS):
        Row.objects.create(tenant=TENANTS[number % len(TENANTS)])


def chaos(stage, auditor, options, stop_at):
    """Kill until there is enough of everything."""
    actions = ["kill_writer"] * 8 + ["kill_relay"] * 3 + ["kill_trim"] * 3
    actions += ["trim_all"] * 2 + ["kill_pushpin", "kill_gunicorn", "kill_database"]
    bag = []
    began = time.monotonic()
    stage.pause(False)
    kill_at = began + 2
    while time.monotonic() < stop_at:
        stage.supervise()
        stage.pause(auditor.backlog > BACKLOG)
        opened = sum(n for kind, n in stage.kills.items() if kind not in BESIDE)
        if (
            opened >= options.kills
            and auditor.changes >= options.changes
            and all(stage.hits[point] >= options.points for point in POINTS)
        ):
            return
        if time.monotonic() >= kill_at:
            if not bag:
                bag = stage.rng.sample(actions, len(actions))
            getattr(stage, bag.pop())()
            kill_at = time.monotonic() + options.every * stage.rng.uniform(0.3, 1.7)
        time.sleep(0.02)


def catch_up(stage, auditor):
    """Wait until all is told; returns the last event of each channel."""
    from django.db import connection

    from django_grip.contrib.eventlog.models import Head, Outbox, Sequence, Target

    wait_until(lambda: not Outbox.objects.exists(), "the outbox is empty", 60)
    last = Sequence.objects.get().last_seq
    wait_until(
        lambda: Target.objects.get().published >= last, "everything is published", 60
    )
    heads = dict(Head.objects.values_list("channel", "seq"))
    connection.close()

    def late():
        path = stage.directory / "followers.json"
        stands = json.loads(path.read_text())
        return {
            name: (stands[name], heads.get(channel, 0))
            for name, channel in followers()
            if stands[name] < heads.get(channel, 0)
        }

    try:
        wait_until(lambda: not late(), "followers have caught up", 60)
    except AssertionError:
        print(f"  late: {late()}")
    wait_until(lambda: auditor.log[-1].seq >= last, "the log is read", 60)
    stage.followers.stop(20)
    return heads


def followers():
    """Name and channel of each."""
    for number, path in enumerate(FOLLOWED):
        kind, *place = path.split("/")
        channel = CHANNELS[kind]
        if len(place) == 2:
            channel += f"~tenant.{place[1]}"
        elif place:
            channel += f".{place[0]}"
        yield f"{number}-{path.replace('/', '-')}", channel


def sentence(stage, auditor, heads, verdict):
    """Judge; returns the committed changes."""
    from tests.chaos.models import Done, Mark, Row

    done = set(Done.objects.values_list("token", flat=True))

    def autocommitted(token, op, pk):
        row = Row.objects.filter(token=token).first()
        if op == "delete":
            return None if Row.objects.filter(pk=pk).exists() else ("row", op, pk, None)
        return None if row is None else ("row", op, row.pk, row.version)

    paths = sorted(stage.directory.glob("writer-*.journal"))
    changes = judge.committed(
        map(read, paths), done.__contains__, autocommitted, verdict
    )
    # The rows of prepare().
    changes += [("row", "create", pk, 1) for pk in range(1, ANCHORS + 1)]
    shown = {
        "row": {r.pk: (r.version, r.tenant) for r in Row.objects.all()},
        "mark": {m.pk: (m.version, "") for m in Mark.objects.all()},
    }
    for hole in auditor.holes:
        verdict.fault("gap", f"in the log between {hole}")
    judge.judge_log(auditor.log, changes, shown, verdict)
    path = stage.directory / "followers-end.json"
    ends = json.loads(path.read_text()) if path.exists() else {}
    for name, channel in followers():
        log = [event for event in auditor.log if event.channel == channel]
        lines = read(stage.directory / f"follower-{name}.journal")
        judge.judge_follower(name, lines, log, heads.get(channel, 0), verdict)
        if name not in ends:
            continue
        path, rows = ends[name]
        kind = "row" if path.startswith("rows") else "mark"
        stored = {
            pk: version
            for pk, (version, tenant) in shown[kind].items()
            if path == f"{kind}s"
            or path in (f"{kind}s/tenant/{tenant}", f"{kind}s/{pk}")
        }
        judge.judge_state(f"follower {name}", kind, dict(rows), stored, verdict)
    return changes


def print_report(title, figures):
    print(f"{title}:")
    for name, value in figures.items():
        print(f"  {name:<42} {value:>9,}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
