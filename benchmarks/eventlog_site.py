"""The Django project of eventlog.py, for ours and for django-eventstream: see there.

    python -I eventlog_site.py ROLE SPEC

SPEC is JSON: which package, database, proxy and relay. The roles are `setup`, which
makes the tables; `origin`, the site behind the proxy; `relay`, `manage.py grip_relay`;
and `worker`, which does the jobs of standard input, a line of JSON each, and answers in
kind. Times are those of time.monotonic(), which is one clock for the machine.
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from decimal import Decimal
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.apps import AppConfig
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connection, models, transaction
from django.db.models.signals import post_save
from django.utils import timezone

TABLE = "benchmarks_order"
FIELDS = ("id", "status", "total", "placed_at", "note")
NOTE = "Please ring twice. " * 8
ROWS = 10
"""Rows that a run of saves writes in turn."""
CHANNEL = "benchmarks.thin"
DEADLINE = 120.0
"""Seconds in which what was committed has to be published."""

Model = type[models.Model]
MODELS: dict[str, Any] = {}
urlpatterns: list[Any] = []


class Benchmarks(AppConfig):
    """The app of the models, which are made when all apps are there."""

    name = __name__
    label = "benchmarks"
    default_auto_field = "django.db.models.BigAutoField"


class Undone(Exception):
    """Rolls a transaction back."""


def configure(spec: dict[str, Any]) -> None:
    """The settings and the models."""
    is_ours = spec["package"] == "ours"
    apps = ["django.contrib.contenttypes", "django.contrib.auth"]
    options: dict[str, Any] = {}
    if is_ours:
        apps += ["django_grip", "django_grip.contrib.realtime"]
        apps += ["django_grip.contrib.eventlog"] * spec["log"]
        options["GRIP_URL"] = spec["grip_url"]
        options["GRIP_REALTIME"] = {"RELAY": spec["relay"]}
        if spec["interval"] is not None:
            options["GRIP_PUBLISH_INTERVAL"] = spec["interval"]
    else:
        apps += ["django_eventstream"]
        # Without the key: with one in base64, its publish() raises TypeError.
        options["GRIP_PROXIES"] = [{"control_uri": spec["grip_url"].partition("?")[0]}]
        options["EVENTSTREAM_STORAGE_CLASS"] = (
            "django_eventstream.storage.DjangoModelStorage"
        )
    settings.configure(
        SECRET_KEY="a-key-of-the-benchmarks-of-32-bytes-or-more",
        USE_TZ=True,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["django_grip.GripMiddleware"],
        DATABASES={"default": spec["database"]},
        INSTALLED_APPS=[*apps, f"{__name__}.{Benchmarks.__name__}"],
        **options,
    )
    django.setup()
    for name in ("bare", "thin", "rich"):
        MODELS[name] = order_model(name.title(), is_ours)
    if is_ours:
        from django_grip.contrib.realtime import realtime

        realtime(MODELS["thin"])
        realtime(fields=FIELDS)(MODELS["rich"])
        if spec["log"] and not spec["notify"]:
            from django_grip.contrib.eventlog import relays, wakeups

            relays.can_notify = wakeups.can_notify = lambda connection: False
    else:
        from django_eventstream import send_event

        def tell(instance: Any, created: bool, **kwargs: Any) -> None:
            op = "create" if created else "update"
            send_event("orders", op, {"pk": instance.pk})

        post_save.connect(tell, sender=MODELS["thin"], weak=False)


def order_model(name: str, is_ours: bool) -> Model:
    """A model of the one table: they differ by what hears of them."""
    fields = {
        "status": models.CharField(max_length=20, default="new"),
        "total": models.DecimalField(max_digits=10, decimal_places=2, default=1),
        "placed_at": models.DateTimeField(default=timezone.now),
        "note": models.TextField(default=NOTE),
        "__module__": __name__,
        "Meta": type("Meta", (), {"db_table": TABLE}),
    }
    if is_ours and name != "Bare":
        from django_grip.contrib.realtime import RealtimeManager

        fields["objects"] = RealtimeManager()
    return type(name, (models.Model,), fields)


def setup(spec: dict[str, Any]) -> None:
    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(MODELS["bare"])
    if spec["package"] == "peer":
        from django_eventstream.models import EventCounter

        # Two writers that both make it break the transaction of one of them.
        EventCounter.objects.create(name="orders")


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 200


class Silent(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def origin(spec: dict[str, Any]) -> None:
    from django.urls import include, path

    if spec["package"] == "ours":
        from django_grip.contrib.realtime.answers import opening
        from django_grip.contrib.realtime.grants import Grant

        def stream(request: Any) -> Any:
            since = request.headers.get("Last-Event-ID")
            return opening(request, Grant(channel=CHANNEL), since)

        urlpatterns.append(path("stream/", stream))
    else:
        given = {"channels": ["orders"]}
        urlpatterns.append(path("stream/", include("django_eventstream.urls"), given))
    arguments = ("127.0.0.1", spec["origin_port"], get_wsgi_application())
    with make_server(*arguments, Server, Silent) as server:
        print(json.dumps("ready"), flush=True)
        server.serve_forever()


def relay(spec: dict[str, Any]) -> None:
    call_command("grip_relay")


# Jobs: writing.


def new(model: str) -> Any:
    return MODELS[model](total=Decimal(5))


def entry(row: Any, started: float) -> list[float]:
    """For the journal: which row, and when its save began and had been committed."""
    return [row.pk, started, time.monotonic()]


def saved(row: Any, journal: list[list[float]]) -> None:
    begun = time.monotonic()
    with transaction.atomic():
        row.save()
    journal.append([row.pk, begun, time.monotonic()])


def paced(
    model: str, rate: float, at: float, seconds: float | None = None
) -> list[list[float]]:
    """Save new rows evenly, for some seconds or until the next job comes.

    The journal has each row's key, and when its save began and was committed.
    """
    journal: list[list[float]] = []
    started = at + random.random() / rate
    turn = 0
    while True:
        due = started + (turn + random.uniform(-0.2, 0.2)) / rate
        if seconds is not None and due - at > seconds:
            return journal
        if seconds is None and has_job(due - time.monotonic()):
            return journal
        time.sleep(max(0.0, due - time.monotonic()))
        saved(new(model), journal)
        turn += 1


def has_job(wait: float) -> bool:
    return bool(select.select([sys.stdin], [], [], max(0.0, wait))[0])


def flood(model: str, number: int, at: float) -> list[list[float]]:
    """Save new rows as fast as it goes."""
    journal: list[list[float]] = []
    time.sleep(max(0.0, at - time.monotonic()))
    for _ in range(number):
        saved(new(model), journal)
    return journal


def halved(rate: float, number: int) -> dict[str, list[int]]:
    """Save new rows evenly, and roll back every other one."""
    keys: dict[str, list[int]] = {"committed": [], "gone": []}
    started = time.monotonic()
    for turn in range(number):
        time.sleep(max(0.0, started + turn / rate - time.monotonic()))
        row = new("thin")
        try:
            with transaction.atomic():
                row.save()
                if turn % 2:
                    raise Undone
        except Undone:
            keys["gone"].append(row.pk)
        else:
            keys["committed"].append(row.pk)
    return keys


def large(how: str, number: int) -> dict[str, Any]:
    """Write that many rows in one transaction."""
    begun = time.monotonic()
    with transaction.atomic():
        rows = [new("thin") for _ in range(number)]
        if how == "saves":
            for row in rows:
                row.save()
        else:
            MODELS["thin"].objects.bulk_create(rows)
    return {"begun": begun, "ended": time.monotonic(), "last": rows[-1].pk}


def idle(seconds: float) -> dict[str, Any]:
    """Save one row and keep its transaction open."""
    begun = time.monotonic()
    with transaction.atomic():
        row = new("thin")
        row.save()
        time.sleep(seconds)
    return {"begun": begun, "ended": time.monotonic(), "last": row.pk}


def settled(last: int) -> float:
    """When the row with that key is told, or the bulk that it came with: the time."""
    from django_grip.contrib.eventlog.models import Head, LoggedEvent, Target

    told = Head.objects.filter(channel=f"{CHANNEL}.{last}").values_list("seq")
    bulk = LoggedEvent.objects.filter(channel=CHANNEL, op="bulk").values_list("seq")
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        if (found := told.first() or bulk.first()) and Target.objects.filter(
            published__gte=found[0]
        ):
            return time.monotonic()
        time.sleep(0.05)
    raise SystemExit(f"Not published within {DEADLINE:g} s")


def cost(model: str, pairs: int) -> dict[str, list[float]]:
    """Milliseconds per save, once for each pair of runs: p50 without, p50 added, and
    added to the processor time of the thread.
    """
    bare = MODELS["bare"]
    if not bare.objects.exists():
        bare.objects.bulk_create([bare() for _ in range(ROWS)])
    rows = {
        one: list(MODELS[one].objects.order_by("pk")[:ROWS]) for one in ("bare", model)
    }
    found: dict[str, list[float]] = {"bare": [], "added": [], "cpu": []}
    for pair in range(pairs):
        p50, cpu = {}, {}
        for one in ("bare", model) if pair % 2 else (model, "bare"):
            p50[one], cpu[one] = run_of_saves(rows[one] * 2)
            if one != "bare":
                quiesce()
        found["bare"].append(p50["bare"])
        found["added"].append(p50[model] - p50["bare"])
        found["cpu"].append(cpu[model] - cpu["bare"])
    return found


def run_of_saves(rows: list[Any]) -> tuple[float, float]:
    """Milliseconds per save: p50, and the mean of the thread's processor time."""
    gc.collect()
    gc.disable()
    taken = []
    busy = time.thread_time()
    for row in rows:
        begun = time.perf_counter()
        with transaction.atomic():
            row.save()
        taken.append((time.perf_counter() - begun) * 1000)
    busy = time.thread_time() - busy
    gc.enable()
    return statistics.median(taken), busy / len(rows) * 1000


def quiesce() -> None:
    """Wait until what was written is published, where somebody does that."""
    if SPEC["package"] != "ours":
        from django_grip import get_pubcontrol

        for client in get_pubcontrol().clients:
            client.wait_all_sent()
    elif not SPEC["log"]:
        from django_grip.publishers import get_publisher

        get_publisher().wait_all_sent()
    elif SPEC["has_relay"]:
        from django_grip.contrib.eventlog.models import Outbox, Sequence, Target

        until = time.monotonic() + DEADLINE
        while time.monotonic() < until:
            last = Sequence.objects.values_list("last_seq", flat=True).first() or 0
            ahead = Target.objects.filter(published__gte=last)
            if not Outbox.objects.exists() and ahead.exists():
                return
            time.sleep(0.005)


# Jobs: the relay.


def fill_outbox(model: str, number: int) -> int:
    """Have that many changes wait, each in a transaction of its own.

    They are copies of one that was captured, of a thousand rows. Returns the bytes of
    its record.
    """
    from django_grip.contrib.eventlog.models import Outbox

    with transaction.atomic():
        row = new(model)
        row.save()
        row.save()
        body = Outbox.objects.latest("pk").body
    Outbox.objects.all().delete()
    record = json.loads(body)
    now = timezone.now()
    waiting = []
    for turn in range(number):
        record["notice"]["pk"] = 1 + turn % 1000
        text = json.dumps(record, separators=(",", ":"))
        number_ = random.getrandbits(62)
        waiting.append(Outbox(transaction=number_, body=text, created_at=now))
    Outbox.objects.bulk_create(waiting, batch_size=1000)
    return len(body)


def sequence() -> dict[str, float]:
    """Give all that waits its places."""
    from django_grip.contrib.eventlog import sequences

    events = 0
    begun = time.monotonic()
    while logged := sequences.sequence("default"):
        events += len(logged)
    return {"events": events, "seconds": time.monotonic() - begun}


def publish() -> dict[str, float]:
    """The same, and publish it."""
    from django_grip.contrib.eventlog.relays import Relay
    from django_grip.contrib.eventlog.sequences import state

    before = state("default").last_seq
    running = Relay("default")
    running.leave()
    begun = time.monotonic()
    running.run()
    seconds = time.monotonic() - begun
    return {"events": state("default").last_seq - before, "seconds": seconds}


def profiled(what: str, number: int = 25, **given: Any) -> str:
    """Do another job under the profiler: where its time goes."""
    import cProfile
    import io
    import pstats

    profile = cProfile.Profile()
    profile.runcall(JOBS[what], **given)
    text = io.StringIO()
    pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(number)
    pstats.Stats(profile, stream=text).sort_stats("cumtime").print_stats(number)
    return text.getvalue()


# Jobs: history.


SERIES = {
    "postgresql": "generate_series(1, {rows}) AS series(n)",
    "mysql": "(SELECT seq AS n FROM seq_1_to_{rows}) AS series",
    "sqlite": "(WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 "
    "FROM series WHERE n < {rows}) SELECT n FROM series) AS series",
}


def fill_log(rows: int, channels: int) -> None:
    """A log of that many events, on so many channels in turn."""
    from django_grip.contrib.eventlog import sequences
    from django_grip.contrib.eventlog.models import Head, LoggedEvent, Sequence, Target
    from django_grip.publishers import get_publisher

    sequences.state("default")
    LoggedEvent.objects.all()._raw_delete("default")
    Head.objects.all()._raw_delete("default")
    series = SERIES[connection.vendor].format(rows=rows)
    name = f"concat('{CHANNEL}.', floor((n - 1) %% {channels}))"
    if connection.vendor != "mysql":
        name = f"'{CHANNEL}.' || ((n - 1) %% {channels})"
    prev = f"CASE WHEN n > {channels} THEN n - {channels} ELSE 0 END"
    text = json.dumps({"note": NOTE, "op": "update", "pk": 1})
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {LoggedEvent._meta.db_table} "
            "(seq, channel, prev, op, origin, text, created_at) "
            f"SELECT n, {name}, {prev}, 'update', NULL, %s, %s FROM {series}",
            [text, connection.ops.adapt_datetimefield_value(timezone.now())],
        )
        if connection.vendor != "mysql":
            cursor.execute("ANALYZE")
        else:
            cursor.execute(f"ANALYZE TABLE {LoggedEvent._meta.db_table}")
            cursor.fetchall()
    heads = (
        Head(channel=f"{CHANNEL}.{turn}", seq=rows - channels + 1 + turn)
        for turn in range(channels)
    )
    Head.objects.bulk_create(heads, batch_size=10_000)
    Head.objects.create(channel=f"{CHANNEL}.quiet", seq=7)
    Sequence.objects.update(last_seq=rows, floor=0)
    for server in get_publisher().servers:
        Target.objects.update_or_create(server=server, defaults={"published": rows})


def resume(behind: int | None, channels: int, times: int, floor: int = 0) -> Any:
    """Milliseconds of history.read() for who missed `behind` events, and the answer.

    None: who comes new. The channels are asked in turn.
    """
    from django_grip.contrib.eventlog import history, sequences
    from django_grip.contrib.eventlog.models import Sequence
    from django_grip.contrib.eventlog.positions import Position

    Sequence.objects.update(floor=floor)
    state = sequences.state("default")
    last = state.last_seq
    taken = []
    for turn in range(times):
        place = turn % channels
        since = None
        if behind is not None:
            head = last - channels + 1 + place
            since = str(Position(state.epoch, max(1, head - behind * channels)))
        begun = time.perf_counter()
        page = history.read(f"{CHANNEL}.{place}", since)
        taken.append((time.perf_counter() - begun) * 1000)
    return {"ms": taken, "events": len(page.events), "reset": page.reset}


def quiet(times: int) -> Any:
    """The same for a channel without anything new, whose last event is long gone."""
    from django_grip.contrib.eventlog import history, sequences
    from django_grip.contrib.eventlog.positions import Position

    since = str(Position(sequences.state("default").epoch, 7))
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        page = history.read(f"{CHANNEL}.quiet", since)
        taken.append((time.perf_counter() - begun) * 1000)
    return {"ms": taken, "events": len(page.events), "reset": page.reset}


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job
    for job in (
        *(paced, flood, halved, large, idle, settled, cost),
        *(fill_outbox, sequence, publish, profiled, fill_log, resume, quiet),
    )
}


def worker(spec: dict[str, Any]) -> None:
    connection.ensure_connection()
    print(json.dumps("ready"), flush=True)
    # Not `for line in`: paced() looks whether a line has come, and none may be read
    # ahead.
    while line := sys.stdin.readline():
        job = json.loads(line)
        try:
            answer = JOBS[job.pop("job")](**job)
        except BaseException:
            traceback.print_exc()
            # Not exit(): the peer may wait there for a lock that it has.
            os._exit(1)
        print(json.dumps(answer), flush=True)


ROLES = {"setup": setup, "origin": origin, "relay": relay, "worker": worker}

if __name__ == "__main__":
    SPEC = json.loads(sys.argv[2])
    configure(SPEC)
    ROLES[sys.argv[1]](SPEC)
