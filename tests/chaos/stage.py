"""Stage: all processes of a run, and how each of them is killed."""

import os
import signal
import sys
import time
from collections import Counter, deque
from contextlib import contextmanager, suppress
from pathlib import Path

from databases import SERVERS
from pushpin import Pushpin, PushpinError, free_port, session_members
from servers import MANAGE, ROOT, Process, answers, wait_until
from tests.chaos.journals import Cell
from tests.chaos.writer import COMMITTING, INSIDE, PAUSE, RUN, STOP

WRITER_POINTS = ("capture.after_outbox_insert", "capture.before_kick")
RELAY_POINTS = (
    "relay.before_seq_commit",
    "relay.after_seq_commit",
    "relay.mid_publish",
    "relay.after_publish",
    "relay.lease",
)
TRIM_POINTS = ("retention.after_floor", "retention.mid_delete")
POINTS = (*WRITER_POINTS, *RELAY_POINTS, *TRIM_POINTS)

BESIDE = {
    "pushpin",
    "gunicorn",
    "database",
    "writer at capture.before_kick",
    "relay at relay.lease",
}
"""Kills that do not need an open transaction or batch, counted by themselves."""


class Stage:
    """Starts and kills. Whatever has a choice asks `rng`."""

    def __init__(self, database, directory, rng, writers, rate, history):
        self.database = database
        self.directory = Path(directory)
        self.rng = rng
        self.rate = rate
        self.history = history
        self.kills = Counter()
        self.hits = Counter()
        self.troubles = []
        self.names = 0
        self.server = None
        self.pushpin = None
        self.gunicorn = None
        self.followers = None
        self.trim = None
        self.writers = [None] * writers
        self.relays = [None, None]
        self.points = deque()
        self.is_open = True
        self.control = Cell(self.directory / "control")
        self.port = free_port()
        self.env = {
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "sample_app"))),
            "CHAOS_SQLITE": str(self.directory / "db.sqlite3"),
        }

    # Begin and end.

    def begin(self):
        """Start the database and the proxy: what the settings need to know."""
        if self.database != "sqlite":
            self.server = SERVERS[self.database](durable=True)
            self.server.__enter__()
            self.env |= self.server.environment()
        self.pushpin = Pushpin(
            self.directory / "pushpin",
            upstream=f"127.0.0.1:{self.port}",
            settings={"message_wait": "500"},
        )
        self.pushpin.start()
        self.env["GRIP_URL"] = self.pushpin.grip_url

    def end(self):
        """End whatever runs."""
        for actor in (*self.writers, *self.relays, self.trim):
            if actor is not None:
                actor.process.kill()
        for process in (self.followers, self.gunicorn):
            if process is not None:
                kill_session(process.popen)
        if self.pushpin is not None:
            self.pushpin.stop()
        if self.server is not None:
            self.server.__exit__()

    def start_gunicorn(self):
        self.gunicorn = Process(
            [
                *(sys.executable, "-m", "gunicorn", "--workers=2"),
                *("--no-control-socket", "--log-level=warning"),
                *(f"--bind=127.0.0.1:{self.port}", "tests.chaos.wsgi"),
            ],
            self.directory / "gunicorn.log",
            self.env,
        )

    def wait_for_gunicorn(self):
        url = f"http://127.0.0.1:{self.port}/rows/snapshot/"
        wait_until(lambda: answers(url), "gunicorn answers", 60)

    def start_followers(self, seed, paths):
        self.followers = Process(
            [
                *(sys.executable, "-m", "tests.chaos.follower", self.pushpin.url),
                *(str(seed), str(self.directory), *paths),
            ],
            self.directory / "followers.log",
            self.env,
        )

    # Supervision.

    def supervise(self):
        """Note who died, and start the next."""
        for number, writer in enumerate(self.writers):
            if writer is None or self.is_dead(writer, "writer"):
                self.writers[number] = self.new_writer()
        for number, relay in enumerate(self.relays):
            if relay is None or self.is_dead(relay, "relay"):
                self.relays[number] = self.new_relay(is_armed=number == 0)
        if self.trim is not None and self.is_dead(self.trim, "trim"):
            self.trim = None

    def is_dead(self, actor, kind):
        code = actor.process.popen.poll()
        if code is None:
            return False
        hits = actor.hits()
        if code == -signal.SIGKILL and hits:
            self.hits.update(hits)
            self.kills[f"{kind} at {hits[0]}"] += 1
        elif code not in actor.expected:
            tail = actor.process.log.read_text()[-1500:]
            self.troubles.append(f"{kind} ended with code {code}:\n{tail}")
        return True

    def new_writer(self, point=None):
        self.names += 1
        if point is None and self.rng.random() < 0.5:
            point = self.rng.choice(WRITER_POINTS)
        spec = point and f"{point}:kill@{self.rng.randint(5, 80)}"
        name = str(self.names)
        command = ["-m", "tests.chaos.writer", name, str(self.rng.getrandbits(32))]
        command += [str(self.directory), str(self.rate / len(self.writers))]
        actor = self.actor([sys.executable, *command], spec)
        actor.cell = Cell(self.directory / f"writer-{name}.cell")
        return actor

    def new_relay(self, is_armed):
        """One of two relays dies at a failpoint; the other has no lease, mostly.

        A lease outlives its holder for ten seconds.
        """
        self.names += 1
        if is_armed:
            if not self.points:
                self.points += self.rng.sample(RELAY_POINTS, len(RELAY_POINTS))
            point = self.points.popleft()
            # A relay that stands by passes there as well, 80 times in 10 s.
            least = 120 if point == "relay.lease" else 1
            spec = f"{point}:kill@{self.rng.randint(least, least + 10)}"
        elif self.rng.random() < 0.8:
            spec = "relay.lease:skip"
        else:
            spec = None
        return self.actor([*MANAGE, "grip_relay"], spec)

    def actor(self, command, spec, env=None):
        return Actor(self.directory, self.names, command, spec, self.env | (env or {}))

    # Kills. Each returns whether it came to it.

    def kill_writer(self):
        """SIGKILL while the writer is between BEGIN and the answer of COMMIT."""
        writer = self.rng.choice(self.writers)
        if writer is None or writer.spec:
            return False
        wanted = self.rng.choice(((INSIDE, COMMITTING), (COMMITTING,)))
        for _ in range(200):
            with stopped(writer.process.popen) as is_stopped:
                if not is_stopped:
                    return False
                place = writer.cell.value
                if place in wanted:
                    writer.kill()
                    what = "in COMMIT" if place == COMMITTING else "in its transaction"
                    self.kills[f"writer {what}"] += 1
                    return True
            time.sleep(self.rng.uniform(0.0005, 0.01))
        return False

    def kill_relay(self):
        """SIGKILL while events are sequenced and not published, or wait for that."""
        relay = self.relays[1]
        if relay is None:
            return False
        for _ in range(100):
            with stopped(relay.process.popen) as is_stopped:
                if not is_stopped:
                    return False
                if has_open_batch(None if relay.spec else relay.process.popen.pid):
                    relay.kill()
                    lease = "without lease" if relay.spec else "with lease"
                    self.kills[f"relay {lease} in a batch"] += 1
                    return True
            time.sleep(self.rng.uniform(0.0005, 0.01))
        return False

    def kill_trim(self):
        """Have one die, if there is enough to trim."""
        fewest = min(self.hits[point] for point in TRIM_POINTS)
        points = [point for point in TRIM_POINTS if self.hits[point] == fewest]
        return self.trim_all(f"{self.rng.choice(points)}:kill")

    def trim_all(self, spec=None):
        """Followers that were away for long are reset after that."""
        if self.trim is not None:
            return False
        self.names += 1
        env = {"CHAOS_HISTORY_ROWS": str(self.history)}
        self.trim = self.actor([*MANAGE, "grip_trim"], spec, env)
        return True

    def kill_pushpin(self):
        for pid in session_members(self.pushpin.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.pushpin.stop()
        self.kills["pushpin"] += 1
        time.sleep(self.rng.choice((0, 0, 1)))
        self.start_pushpin()
        return True

    def start_pushpin(self):
        for attempt in range(5):
            try:
                self.pushpin.start(60)
            except PushpinError:
                if attempt == 4:
                    raise
            else:
                return

    def kill_gunicorn(self):
        kill_session(self.gunicorn.popen)
        self.kills["gunicorn"] += 1
        self.start_gunicorn()
        return True

    def kill_database(self):
        if self.server is None:
            return False
        from django.db import connection

        postmaster = self.server.process.pid
        backends = children(postmaster)
        self.server.kill()
        for pid in backends:
            # They have groups of their own, and the next server waits for their end.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, backends)), "the server's children")
        self.kills["database"] += 1
        for actor in (*self.relays, self.trim):
            if actor is not None:
                # Neither waits for a server when it begins; grip_trim never does.
                actor.expected.add(1)
        self.server.start()
        connection.close()
        return True

    # The end.

    def pause(self, is_paused):
        self.control.value = PAUSE if is_paused else RUN

    def settle(self):
        """Stop the writers; one relay without lease and without failpoint remains."""
        self.is_open = False
        self.control.value = STOP
        for writer in self.writers:
            wait_until(lambda w=writer: self.is_dead(w, "writer"), "writers end", 60)
        for relay in self.relays:
            # A failpoint may still be quicker.
            relay.terminate()
            wait_until(lambda r=relay: self.is_dead(r, "relay"), "relays end", 30)
        if self.trim is not None:
            wait_until(lambda: self.is_dead(self.trim, "trim"), "grip_trim ends", 60)
            self.trim = None
        self.writers = []
        self.names += 1
        last = self.actor([*MANAGE, "grip_relay"], "relay.lease:skip")
        self.relays = [last]


class Actor:
    """A process with or without a failpoint."""

    def __init__(self, directory, number, command, spec, env):
        self.spec = spec
        self.expected = {0}
        self.journal = directory / f"failpoint-{number}.log"
        env = env | {"GRIP_FAILPOINT": spec or ""}
        if spec and ":kill" in spec:
            env["GRIP_FAILPOINT_LOG"] = str(self.journal)
        self.process = Process(command, directory / f"actor-{number}.log", env)

    def hits(self):
        if not self.journal.exists():
            return []
        return self.journal.read_text().split()

    def kill(self):
        self.expected.add(-signal.SIGKILL)
        self.process.popen.kill()

    def terminate(self):
        """It may be too young to have a handler."""
        self.expected.add(-signal.SIGTERM)
        self.process.popen.terminate()


@contextmanager
def stopped(popen):
    """Have a process stand still; yields whether it lives."""
    with suppress(ProcessLookupError):
        os.kill(popen.pid, signal.SIGSTOP)
    flags = os.WSTOPPED | os.WEXITED | os.WNOWAIT
    if popen.poll() is not None:
        yield False
        return
    state = os.waitid(os.P_PID, popen.pid, flags)
    try:
        yield state.si_code == os.CLD_STOPPED
    finally:
        with suppress(ProcessLookupError):
            os.kill(popen.pid, signal.SIGCONT)


def has_open_batch(pid):
    """Whether events are on their way; with `pid`, those of the lease's holder."""
    from django.db import Error, connection

    from django_grip.contrib.eventlog.models import Sequence, Target

    try:
        sequence, target = Sequence.objects.get(), Target.objects.get()
    except (Error, Sequence.DoesNotExist, Target.DoesNotExist):
        connection.close()
        return False
    if pid is not None and f":{pid}:" not in sequence.lease_owner:
        return False
    return target.published < sequence.last_seq


def kill_session(popen):
    for pid in session_members(popen.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    popen.wait()


def children(parent):
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(entry.parent.name))
    return found


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
