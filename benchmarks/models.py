"""The model layer: what a registered model adds to its writes, beside two peers.

    .venv/bin/python benchmarks/models.py [--short]

3.5.2  what its users write by hand: post_save and post_delete receivers that serialise
       with DRF, if at all, and publish() in on_commit
DCRF   djangochannelsrestframework: @model_observer in a consumer, in-memory layer

The first has our name, so each package lives in a virtualenv of its own below
`.benchmarks/`: made on the first run and kept; ours is installed anew on every run,
from a copy of the working tree. This file is also the worker that runs in each.

Every figure is added time: a short run of writes to a registered model minus one to
its unregistered twin, the two alternating, on the same rows of one table; each write is
in `with transaction.atomic()`, unless the row says otherwise. Given are the median, in
brackets the quartiles, and the median with over the median without. Database: a private
PostgreSQL on loopback with fsync off, so a commit does not wait for the disk; then
SQLite in memory.

Only the writer's thread is measured. Publishing discards: ours hands its items to a
publisher that counts them, 3.5.2 its requests to a queue that counts them, DCRF sends
to groups that nobody has joined. The rows "over HTTP" have the real publishers instead,
as installed, and a sink that answers 200; each thread that sends competes with the
writer for the interpreter.

"without" is that of our worker; each ratio is to its own package's. "cpu" is what ours
adds to the processor time of the writer's thread, which says more where the machine is
busy. "st." are statements that ours adds to each write, BEGIN and SAVEPOINT among them.
"ev." are items that one write hands over: ours tells the collection and the object, and
each scope; the peers are given one channel, or with a scope two. Reads are most of what
a scope or a payload costs ours: they buy the leave and the row as it was stored. 3.5.2
sends what is in memory and knows no leave; DCRF compares with what was in memory.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import django
from django.apps import AppConfig
from django.conf import settings
from django.db import connection, models, transaction
from django.db.models.signals import post_delete, post_save
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"ours": "ours", "grip": "3.5.2", "observer": "DCRF"}
COMMON = ("Django>=5.2,<5.3", "djangorestframework>=3.16,<4", "psycopg[binary]>=3.2")
PEERS = {
    "ours": (),
    "grip": ("django-grip==3.5.2",),
    "observer": ("djangochannelsrestframework==1.3.0", "channels>=4.2,<5"),
}
COMPARED = ("Django", "djangorestframework", "psycopg", "asgiref")

RUN = 10
"""Writes of one run."""
LOADED = 10_000
"""Instances of one load."""
FIELDS = ("id", "tenant", "status", "total", "placed_at", "note")
TABLE = "benchmarks_order"

Model = type[models.Model]
Call = Callable[[Any], Any]


@dataclass(frozen=True)
class Case:
    """One row of the first table: an operation on a model registered as `kind`."""

    name: str
    kind: str
    operation: str = "save"
    packages: Sequence[str] = ("ours",)
    target: float | None = None
    """Microseconds."""
    is_sent: bool = False
    """Whether it is published over HTTP."""


ALL = ("ours", "grip", "observer")
CASES = (
    Case("save(), unregistered: noise", "none"),
    Case("save(), thin", "thin", packages=ALL, target=150),
    Case("  called without atomic()", "thin", "alone", target=150),
    Case("  both without atomic()", "thin", "autocommit", packages=ALL),
    Case("save(), fields=", "fields"),
    Case("save(), serializer", "serializer", packages=ALL),
    Case("save(), scope", "scope", packages=ALL),
    Case("  update_fields without it", "scope", "other", packages=ALL),
    Case("  the row moves", "scope", "move", packages=ALL),
    Case("save(), scope, serializer", "both", packages=ALL),
    Case("create, thin", "thin", "create", packages=ALL, target=150),
    Case("create, serializer", "serializer", "create", packages=ALL),
    Case("create, scope", "scope", "create", packages=ALL),
    Case("delete(), thin", "thin", "delete", packages=ALL),
    Case("delete(), serializer", "serializer", "delete", packages=ALL),
    Case("delete(), scope", "scope", "delete", packages=ALL),
    Case("save(), thin, over HTTP", "thin", packages=ALL[:2], is_sent=True),
    Case("save(), serializer, over HTTP", "serializer", packages=ALL[:2], is_sent=True),
)
BULK_KINDS = ("thin", "serializer", "scope")
BULK = {
    "100 rows, each told": (100, 100),
    "100 rows, above limit": (100, 10),
    "2,000 rows, above limit": (2_000, 100),
    "2,000 rows, each told": (2_000, 10_000),
}
"""How many rows, and the bulk_limit."""
BULK_OPERATIONS = ("bulk_create", "update", "bulk_update", "delete")
LOAD_NOISE = 1.03
"""Loading costs nothing more: what the ratio may be by chance, at most. Missed only if
three of four pairs say so too."""


# The worker: measures the one package of its virtualenv.


class Benchmarks(AppConfig):
    """The app of the models, which are made when all apps are there."""

    name = __name__
    label = "benchmarks"
    default_auto_field = "django.db.models.BigAutoField"


class Discard:
    """The GRIP_PUBLISHER of ours: it counts."""

    handed = 0

    def enqueue(self, items: Sequence[Any], callback: object = None) -> None:
        """See BasePublisher.enqueue()."""
        Discard.handed += len(items)

    def close(self) -> None:
        """See BasePublisher.close()."""


def configure(package: str, sink: str) -> None:
    """The settings, which every package gets alike as far as it can."""
    apps = ["django.contrib.contenttypes", "django.contrib.auth", "rest_framework"]
    if package == "ours":
        apps += ["django_grip", "django_grip.contrib.realtime"]
    database: dict[str, Any] = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": ":memory:",
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
    }
    if os.environ.get("TEST_DATABASE") == "postgresql":
        database = {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "HOST": os.environ["DATABASE_HOST"],
            "PORT": os.environ["DATABASE_PORT"],
            "USER": os.environ["DATABASE_USER"],
        }
    settings.configure(
        SECRET_KEY="benchmarks",
        USE_TZ=True,
        DATABASES={"default": database},
        INSTALLED_APPS=[*apps, f"{__name__}.{Benchmarks.__name__}"],
        GRIP_PROXIES=[{"control_uri": sink}],
        GRIP_PUBLISHER=f"{__name__}.{Discard.__name__}",
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    )
    django.setup()


def order_model(name: str, tenant: Model, manager: models.Manager[Any]) -> Model:
    """A model of the one table: they differ by what hears of them."""
    fields = {
        "tenant": models.ForeignKey(tenant, models.CASCADE, related_name="+"),
        "status": models.CharField(max_length=20, default="new"),
        "total": models.DecimalField(max_digits=10, decimal_places=2),
        "placed_at": models.DateTimeField(default=timezone.now),
        "note": models.TextField(default="Please ring twice."),
        "objects": manager,
        "__module__": __name__,
        "Meta": type("Meta", (), {"db_table": TABLE}),
    }
    return type(name, (models.Model,), fields)


def serializer(model: Model) -> Any:
    from rest_framework.serializers import ModelSerializer

    meta = type("Meta", (), {"model": model, "fields": FIELDS})
    return type("OrderSerializer", (ModelSerializer,), {"Meta": meta})


def register_ours(model: Model, kind: str, bulk_limit: int = 100) -> None:
    from django_grip.contrib.realtime import realtime

    options: dict[str, Any] = {"bulk_limit": bulk_limit}
    if kind == "fields":
        options["fields"] = FIELDS
    if kind in ("serializer", "both"):
        options["serializer_class"] = serializer(model)
    if kind in ("scope", "both"):
        options["scopes"] = {"tenant": "tenant_id"}
    realtime(**options)(model)


def register_grip(model: Model, kind: str) -> None:
    """What its users write: their own receivers, one publish() for each channel."""
    from gripcontrol import HttpStreamFormat
    from rest_framework.utils.encoders import JSONEncoder

    from django_grip import publish

    serializer_class = serializer(model) if kind in ("serializer", "both") else None

    def tell(instance: Any, op: str) -> None:
        event: dict[str, Any] = {"op": op, "pk": instance.pk}
        if serializer_class is not None and op != "delete":
            event["data"] = serializer_class(instance).data
        text = f"event: {op}\ndata: {json.dumps(event, cls=JSONEncoder)}\n\n"
        channels = ["orders"]
        if kind in ("scope", "both"):
            channels.append(f"orders-{instance.tenant_id}")

        def send() -> None:
            for channel in channels:
                publish(channel, HttpStreamFormat(text))

        transaction.on_commit(send)

    def saved(instance: Any, created: bool, **kwargs: Any) -> None:
        tell(instance, "create" if created else "update")

    def deleted(instance: Any, **kwargs: Any) -> None:
        tell(instance, "delete")

    post_save.connect(saved, sender=model, weak=False)
    post_delete.connect(deleted, sender=model, weak=False)


def register_observer(model: Model, kind: str) -> None:
    """What its documentation has; defining the consumer connects the signals."""
    from djangochannelsrestframework.generics import GenericAsyncAPIConsumer
    from djangochannelsrestframework.observer import model_observer

    # It says so in every delete(), whose own block is not even a savepoint.
    warnings.filterwarnings("ignore", "Model observation with save points")
    chosen = serializer(model) if kind in ("serializer", "both") else None

    class Consumer(GenericAsyncAPIConsumer):
        queryset = model._default_manager.all()
        serializer_class = chosen

        @model_observer(model, serializer_class=chosen)
        async def activity(self, message: Any, **kwargs: Any) -> None:
            await self.send_json(message)

        if kind in ("scope", "both"):

            @activity.groups_for_signal
            def activity(self, instance: Any, **kwargs: Any) -> Any:
                yield "-all"
                yield f"-tenant__{instance.tenant_id}"

    CONSUMERS.append(Consumer)


CONSUMERS: list[Any] = []
"""Signals hold them weakly."""

REGISTER = {
    "ours": register_ours,
    "grip": register_grip,
    "observer": register_observer,
}


def discard_requests() -> Callable[[], None]:
    """Have 3.5.2 count requests instead of queueing them; returns what ends that."""
    from pubcontrol.pubcontrolclient import PubControlClient

    queue, start = PubControlClient._queue_req, PubControlClient._ensure_thread

    def count(self: Any, request: Any) -> None:
        Discard.handed += 1

    PubControlClient._queue_req = count
    PubControlClient._ensure_thread = lambda self: None

    def restore() -> None:
        PubControlClient._queue_req = queue
        PubControlClient._ensure_thread = start

    return restore


def count_group_sends() -> Callable[[], None]:
    """Have DCRF's layer count; returns what ends that."""
    from channels.layers import get_channel_layer

    layer = get_channel_layer()
    send = layer.group_send

    async def counting(group: str, message: Any) -> None:
        Discard.handed += 1
        await send(group, message)

    layer.group_send = counting
    return lambda: layer.__dict__.pop("group_send")


def publish_over_http() -> None:
    """Have ours publish as installed."""
    from django_grip.publishers import close_publisher

    close_publisher()
    del settings.GRIP_PUBLISHER


def drain(package: str) -> None:
    """Wait until all that was published over HTTP is sent."""
    if package == "ours":
        from django_grip.publishers import get_publisher

        get_publisher().wait_all_sent()
    else:
        from django_grip import get_pubcontrol

        for client in get_pubcontrol().clients:
            client.wait_all_sent()


def clock(call: Callable[..., Any], *given: Any) -> tuple[float, float]:
    """Microseconds of `call(*given)`: on the wall, and of this thread's processor."""
    gc.collect()
    gc.disable()
    try:
        busy = time.thread_time_ns()
        started = time.perf_counter_ns()
        call(*given)
        wall = time.perf_counter_ns() - started
        return wall / 1000, (time.thread_time_ns() - busy) / 1000
    finally:
        gc.enable()


def save(row: Any) -> None:
    row.save()


def save_status(row: Any) -> None:
    row.save(update_fields=["status"])


def move(row: Any) -> None:
    row.tenant_id = 3 - row.tenant_id
    row.save()


def delete(row: Any) -> None:
    row.delete()


OPERATIONS: dict[str, Call] = {
    "save": save,
    "alone": save,
    "autocommit": save,
    "other": save_status,
    "move": move,
    "create": save,
    "delete": delete,
}


def has_atomic(operation: str, model: Model, plain: Model) -> bool:
    """Whether writes to this one of the two models are in `with atomic()`."""
    return operation != "autocommit" and (operation != "alone" or model is plain)


def writer(operation: str, is_atomic: bool) -> Callable[[list[Any]], None]:
    """What writes rows, each in a transaction of its own."""
    act = OPERATIONS[operation]
    block: Any = transaction.atomic if is_atomic else nullcontext

    def write(rows: list[Any]) -> None:
        for row in rows:
            with block():
                act(row)

    return write


def values(number: int) -> dict[str, Any]:
    return {"tenant_id": 1 + number % 2, "total": Decimal(number)}


def empty() -> None:
    with connection.cursor() as cursor:
        verb = "TRUNCATE" if connection.vendor == "postgresql" else "DELETE FROM"
        cursor.execute(f"{verb} {TABLE}")


def fill(plain: Model, number: int) -> None:
    empty()
    objects = plain._default_manager
    objects.bulk_create([plain(**values(n)) for n in range(number)])


def rows_for(operation: str, model: Model, plain: Model) -> list[Any]:
    """What a run of the operation is given."""
    if operation == "create":
        empty()
        return [model(**values(number)) for number in range(RUN)]
    if operation == "delete":
        fill(plain, RUN)
    return list(model._default_manager.order_by("pk"))


def handed(package: str, call: Callable[..., Any], *given: Any) -> int:
    """How many items the call hands to the publisher that discards."""
    restore = count_group_sends() if package == "observer" else lambda: None
    before = Discard.handed
    call(*given)
    restore()
    return Discard.handed - before


def measure_case(
    package: str, case: Case, plain: Model, model: Model, pairs: int
) -> dict[str, Any]:
    """Microseconds per write without it, and added, once for each pair of runs."""
    fill(plain, RUN)
    write = {
        one: writer(case.operation, has_atomic(case.operation, one, plain))
        for one in (plain, model)
    }
    statements = {}
    events = {}
    for one in write:
        write[one](rows_for(case.operation, one, plain))  # to warm up
        row, other, *_ = rows_for(case.operation, one, plain)
        with CaptureQueriesContext(connection) as captured:
            write[one]([row])
        statements[one] = len(captured)
        if not case.is_sent:
            events[one] = handed(package, write[one], [other])
    if not case.is_sent and (bool(events[model]) == (case.kind == "none")):
        raise SystemExit(f"{case.name}: {events[model]} items, nothing to compare")
    found: dict[str, Any] = {"base": [], "added": [], "cpu": []}
    for pair in range(pairs):
        times = {}
        for one in (plain, model) if pair % 2 else (model, plain):
            times[one] = clock(write[one], rows_for(case.operation, one, plain))
            if case.is_sent:
                drain(package)
        found["base"].append(times[plain][0] / RUN)
        found["added"].append((times[model][0] - times[plain][0]) / RUN)
        found["cpu"].append((times[model][1] - times[plain][1]) / RUN)
    found["statements"] = statements[model] - statements[plain]
    found["events"] = events.get(model)
    return found


def cycle(model: Model, plain: Model, number: int, is_ours: bool) -> dict[str, float]:
    """Microseconds per row of each bulk operation on that many rows.

    The peers hear of a delete alone. Columns of the scope are written, but no row
    moves.
    """
    empty()
    objects = model._default_manager
    rows = [model(**values(n)) for n in range(number)]
    calls: dict[str, Callable[[], Any]] = {
        "bulk_create": lambda: objects.bulk_create(rows),
        "update": lambda: objects.filter(pk__gt=0).update(
            status="paid", tenant_id=models.F("tenant_id")
        ),
        "bulk_update": lambda: objects.bulk_update(rows, ["status", "tenant"]),
        "delete": lambda: objects.all().delete(),
    }
    if not is_ours:
        fill(plain, number)
        calls = {"delete": calls["delete"]}
    times = {}
    for operation, call in calls.items():
        times[operation] = clock(transaction.atomic(call))[0] / number
    return times


def measure_bulk(
    package: str, plain: Model, told: dict[str, Model], number: int, repetitions: int
) -> dict[str, dict[str, Any]]:
    """Figures by `operation kind`; one cycle of each model in every repetition."""
    is_ours = package == "ours"
    for model in told.values():
        if handed(package, cycle, model, plain, number, is_ours) < number:
            raise SystemExit(f"{number} rows: not told, nothing to compare")
    cycle(plain, plain, number, is_ours)
    found: dict[str, dict[str, Any]] = {}
    for _ in range(repetitions):
        base = cycle(plain, plain, number, is_ours)
        for kind, model in told.items():
            for operation, taken in cycle(model, plain, number, is_ours).items():
                figure = found.setdefault(
                    f"{operation} {kind}", {"base": [], "added": []}
                )
                figure["base"].append(base[operation])
                figure["added"].append(taken - base[operation])
    return found


def measure_loading(plain: Model, model: Model, pairs: int) -> dict[str, Any]:
    """Microseconds per instance."""
    fill(plain, LOADED)
    found: dict[str, Any] = {"base": [], "added": []}
    for pair in range(pairs):
        times = {}
        for one in (plain, model) if pair % 2 else (model, plain):
            rows = one._default_manager.all()
            times[one] = clock(list, rows)[0] / LOADED
        found["base"].append(times[plain])
        found["added"].append(times[model] - times[plain])
    return found


def worker(package: str, sink: str, is_short: bool, has_bulk: bool) -> None:
    """Measure, and print JSON."""
    configure(package, sink)
    is_server = connection.vendor == "postgresql"
    restore = discard_requests() if package == "grip" else None
    manager: Any = models.Manager
    if package == "ours":
        from django_grip.contrib.realtime import RealtimeManager as manager

    tenant = type("Tenant", (models.Model,), {"__module__": __name__})
    plain = order_model("Plain", tenant, models.Manager())
    told = {"none": order_model("Twin", tenant, models.Manager())}
    for kind in ("thin", "fields", "serializer", "scope", "both"):
        told[kind] = order_model(kind.title(), tenant, manager())
        REGISTER[package](told[kind], kind)
    bulk: dict[str, dict[str, Model]] = {}
    for label, (_, limit) in BULK.items() if has_bulk else ():
        if package == "ours":
            bulk[label] = {
                kind: order_model(f"{kind}{len(bulk)}", tenant, manager())
                for kind in BULK_KINDS
            }
            for kind, model in bulk[label].items():
                register_ours(model, kind, limit)
        elif "each" in label:
            bulk[label] = {"serializer": told["serializer"]}
    with connection.schema_editor() as editor:
        editor.create_model(tenant)
        editor.create_model(plain)
    tenant._default_manager.bulk_create([tenant(id=1), tenant(id=2)])
    gc.collect()
    gc.freeze()

    found: dict[str, Any] = {"cases": {}, "bulk": {}}

    def measure_cases(is_sent: bool) -> None:
        for case in CASES:
            if package in case.packages and case.is_sent == is_sent:
                found["cases"][case.name] = measure_case(
                    package, case, plain, told[case.kind], 8 if is_short else 20
                )

    measure_cases(is_sent=False)
    for label, tellers in bulk.items():
        number = BULK[label][0]
        repetitions = 2 if is_short else 12 if number <= 100 else 4
        found["bulk"][label] = measure_bulk(
            package, plain, tellers, number, repetitions
        )
    if is_server:
        for name, model in (("noise", told["none"]), ("loading", told["both"])):
            found[name] = measure_loading(plain, model, 4 if is_short else 6)
        if restore is not None:
            restore()
        if package == "ours":
            publish_over_http()
        measure_cases(is_sent=True)
    with connection.schema_editor() as editor:
        editor.delete_model(plain)
        editor.delete_model(tenant)
    distribution = PEERS[package][0].split("==")[0] if PEERS[package] else "django-grip"
    found["version"] = f"{distribution} {version(distribution)}"
    found["with"] = [f"{name} {version(name)}" for name in COMPARED]
    found["database"] = "SQLite in memory"
    if is_server:
        found["database"] = f"PostgreSQL {connection.pg_version // 10_000}"
    json.dump(found, sys.stdout)


# The command: prepares the virtualenvs, runs the workers, prints the tables.


class Sink(BaseHTTPRequestHandler):
    """Accepts what is published."""

    protocol_version = "HTTP/1.1"
    posts = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Sink.posts += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def directory(package: str) -> Path:
    return ROOT / ".benchmarks" / f"models-{package}"


def prepare(package: str) -> None:
    """Make the virtualenv if there is none, and install ours anew."""
    found = directory(package)
    if not (found / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", found], check=True)
        install(package, *COMMON, *PEERS[package])
    if package == "ours":
        with tempfile.TemporaryDirectory() as copy:
            for part in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / part, copy)
            shutil.copytree(ROOT / "django_grip", Path(copy, "django_grip"))
            install(package, copy)
    (found / "ready").touch()


def install(package: str, *what: str) -> None:
    interpreter = directory(package) / "bin" / "python"
    pip = [interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *what], check=True)


def run_worker(package: str, sink: str, *options: str) -> dict[str, Any]:
    """What one worker found. -I: no package may come from anywhere else."""
    interpreter = directory(package) / "bin" / "python"
    command = [interpreter, "-I", __file__, "--worker", package, sink, *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def joined(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One figure of those of all rounds."""
    together = dict(figures[0])
    for samples in {"base", "added", "cpu"} & set(together):
        together[samples] = [one for figure in figures for one in figure[samples]]
    return together


def shown(figure: dict[str, Any] | None, digits: int = 0) -> str:
    """The median, the quartiles, and with over without."""
    if figure is None:
        return "-"
    low, middle, high = statistics.quantiles(figure["added"], n=4)
    return (
        f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f}) "
        f"x{ratio(figure):.2f}"
    )


def ratio(figure: dict[str, Any]) -> float:
    base = statistics.median(figure["base"])
    return (base + statistics.median(figure["added"])) / base


def measure(is_short: bool) -> None:
    """Measure on one database, that of the environment or SQLite, and print."""
    is_server = os.environ.get("TEST_DATABASE") == "postgresql"
    packages = ALL if is_server else ALL[:1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    Thread(target=server.serve_forever, daemon=True).start()
    sink = f"http://127.0.0.1:{server.server_port}"
    options = ["--short"] if is_short else []
    rounds = []
    for number in range(1 if is_short else 2):
        # Bulk writes take most of the time: in one round only.
        has_bulk = ["--bulk"] if is_server and number == 0 else []
        round_ = {}
        for package in packages:
            before = Sink.posts
            round_[package] = run_worker(package, sink, *options, *has_bulk)
            if is_server and package != "observer" and Sink.posts == before:
                raise SystemExit(f"{package}: nothing was published over HTTP")
        rounds.append(round_)
    first = rounds[0]
    if len({str(found["with"]) for found in first.values()}) > 1:
        raise SystemExit("Not the same versions: remove .benchmarks/models-*")

    def figure(package: str, *path: str) -> dict[str, Any] | None:
        found = []
        for round_ in rounds:
            inner: Any = round_.get(package, {})
            for key in path:
                inner = inner.get(key, {})
            if inner:
                found.append(inner)
        return joined(found) if found else None

    print(f"{first['ours']['database']}; {', '.join(first['ours']['with'])}")
    if is_server:
        print(", ".join(found["version"] for found in first.values()))
    print()
    print_cases(figure, is_server)
    if is_server:
        print_bulk(figure)
        print_loading(figure)


Figures = Callable[..., dict[str, Any] | None]


def print_cases(figure: Figures, is_server: bool) -> None:
    row = "{:<29} {:>7} {:>22} {:>5} {:>3} {:>3}" + " {:>23} {:>23}" * is_server
    names = list(PACKAGES.values())[1:] if is_server else []
    titles = ("us added to each", "without", "ours", "cpu", "st.", "ev.", *names)
    print(f"{row.format(*titles)}  target")
    for case in CASES:
        ours = figure("ours", "cases", case.name)
        if ours is None:
            continue
        peers = [figure(package, "cases", case.name) for package in ALL[1:]]
        line = row.format(
            case.name,
            f"{statistics.median(ours['base']):.0f}",
            shown(ours),
            f"{statistics.median(ours['cpu']):.0f}",
            f"{ours['statements']:+}",
            "" if ours["events"] is None else ours["events"],
            *map(shown, peers),
        )
        if case.target is not None:
            is_missed = statistics.median(ours["added"]) > case.target
            line += f"  <= {case.target}{' MISSED' if is_missed else ''}"
        print(line.rstrip())


def print_bulk(figure: Figures) -> None:
    row = "{:<20} {:>7} {:>25} {:>25} {:>25}"
    for label in BULK:
        print()
        print(row.format("us added per row", "without", *BULK_KINDS) + f"   {label}")
        for operation in BULK_OPERATIONS:
            found = [
                figure("ours", "bulk", label, f"{operation} {kind}")
                for kind in BULK_KINDS
            ]
            assert found[0] is not None
            base = f"{statistics.median(found[0]['base']):.1f}"
            print(row.format(operation, base, *(shown(one, 1) for one in found)))
        for package in ALL[1:]:
            peer = figure(package, "bulk", label, "delete serializer")
            if peer is not None:
                name = f"delete, {PACKAGES[package]}"
                base = f"{statistics.median(peer['base']):.1f}"
                print(row.format(name, base, "", shown(peer, 1), "").rstrip())
    print("The peers hear nothing of bulk_create, update and bulk_update.")


def print_loading(figure: Figures) -> None:
    print()
    row = "{:<29} {:>7} {:>22}"
    titles = (f"us per instance of {LOADED:,}", "without", "added")
    print(f"{row.format(*titles)}  target")
    lines = {"loading, unregistered: noise": ("ours", "noise")}
    lines |= {f"loading, {PACKAGES[one]}": (one, "loading") for one in ALL}
    for name, (package, key) in lines.items():
        found = figure(package, key)
        assert found is not None
        base = f"{statistics.median(found['base']):.2f}"
        line = row.format(name, base, shown(found, 2))
        if (package, key) == ("ours", "loading"):
            low = statistics.quantiles(found["added"], n=4)[0]
            is_missed = low > 0 and ratio(found) > LOAD_NOISE
            line += f"  <= x{LOAD_NOISE}{' MISSED' if is_missed else ''}"
        print(line)


def main(is_short: bool) -> None:
    for package in PACKAGES:
        prepare(package)
    load = (
        f", load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    )
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} processors{load}. The "
        "writer, the database and\nthe sink share them, perhaps with others: figures "
        "of different machines or runs do\nnot compare, their ratios do.",
        flush=True,
    )
    short = ["--short"] if is_short else []
    this = [sys.executable, __file__, "--measure", *short]
    on_server = [
        sys.executable,
        str(ROOT / "tests" / "databases.py"),
        "postgresql",
        *this,
    ]
    on_sqlite = {**os.environ, "TEST_DATABASE": ""}
    for command, environment in ((on_server, None), (this, on_sqlite)):
        print(flush=True)
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    if "--worker" in sys.argv:
        worker(*sys.argv[2:4], "--short" in sys.argv, "--bulk" in sys.argv)
    elif "--measure" in sys.argv:
        measure("--short" in sys.argv)
    else:
        main("--short" in sys.argv)
