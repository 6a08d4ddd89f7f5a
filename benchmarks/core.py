"""The core: what GripMiddleware adds to a request, beside django-grip 3.5.2.

    .venv/bin/python benchmarks/core.py

Both packages are called `django_grip`, so each lives in a virtualenv of its own below
`.benchmarks/`: made on the first run and kept; ours is installed anew on every run,
from a copy of the working tree. This file is also the worker that runs in each.

Every figure is added time in microseconds per request: a run of requests with the
middleware minus a run without, the two alternating, each request a fresh object built
before the clock starts. The table gives the median and, in brackets, the quartiles.

bare   `middleware(request)` around a get_response that does nothing. THE TARGETS SPEAK
       OF THIS FIGURE: below a microsecond, everything else is noise of the handler.
chain  get_response of WSGIHandler or ASGIHandler, with a view of the same kind. It
       includes the wrapper that Django puts around any middleware and, for the peer,
       a third thread hop (process_view), which the bare call does not make.

plain     no Grip-Sig: a request that came directly
reused    plain, but one request object for all: the attributes are there already. The
          0.75 us that the target takes from the peer shows up here, not in "plain".
verified  a valid HS256 Grip-Sig, the same for all requests, as a proxy sends it
fresh     a valid Grip-Sig that was never seen before
hold      verified, and the view calls set_hold_stream: one channel, keep-alive

Async requests run in a ThreadSensitiveContext each, as ASGIHandler has it. Hops are
counted: jobs handed to any thread pool per request, in the chain.

Both get GRIP_PROXIES and no GRIP_URL: the peer would append the URL to the list of the
settings at each signed request, a list that never stops growing.
"""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import django
import jwt
from asgiref.sync import ThreadSensitiveContext
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpResponse
from django.urls import re_path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("django_grip", "django-grip 3.5.2")
DJANGO = "Django>=5.2,<5.3"
ROUNDS = 2
"""Times each package's worker runs, in turn with the other's."""
REPETITIONS = 9
"""Pairs of runs, with and without, in one worker."""
RUN_SECONDS = 0.02
"""About the length of one run; it decides the number of requests, within limits.

More than a thousand in memory and the figure is that of fetching new pages.
"""

KEY = b"a-key-of-the-benchmarks-32-bytes"
GRIP = "django_grip.GripMiddleware"
HELD = "/hold/"
CASES = ("plain", "reused", "verified", "fresh", "hold")
UNSIGNED = ("plain", "reused")
TARGETS = {
    "bare WSGI plain": 0.75,
    "bare WSGI reused": 0.75,
    "bare ASGI plain": 5,
    "bare WSGI verified": 15,
    "bare ASGI verified": 15,
}

Call = Callable[[Any], Any]
_serial = count()


# The worker: measures the one django_grip of its virtualenv.


def sign() -> str:
    """A Grip-Sig that was never seen before: each expires a second later."""
    claims = {"iss": "pushpin", "exp": int(time.time()) + 3600 + next(_serial)}
    return jwt.encode(claims, KEY, algorithm="HS256")


def requests(protocol: str, case: str, number: int, token: str) -> list[Any]:
    """Fresh requests: of a held view for the case "hold", signed if not "plain"."""
    url = HELD if case == "hold" else "/"
    environ: dict[str, Any] = {"PATH_INFO": url}
    setup_testing_defaults(environ)
    built = []
    for _ in range(number):
        signature = sign() if case == "fresh" else token
        if protocol == "WSGI":
            signed = {} if case in UNSIGNED else {"HTTP_GRIP_SIG": signature}
            built.append(WSGIRequest({**environ, **signed}))
        else:
            headers = [] if case in UNSIGNED else [(b"grip-sig", signature.encode())]
            headers.append((b"host", b"127.0.0.1"))
            scope = {"method": "GET", "path": url, "headers": headers}
            built.append(ASGIRequest(scope, BytesIO()))
    return built[:1] * number if case == "reused" else built


def timed(call: Call, sent: list[Any]) -> float:
    """Microseconds per request."""
    started = time.perf_counter_ns()
    for request in sent:
        call(request)
    return (time.perf_counter_ns() - started) / 1000 / len(sent)


async def atimed(call: Call, sent: list[Any]) -> float:
    """See timed()."""
    started = time.perf_counter_ns()
    for request in sent:
        async with ThreadSensitiveContext():
            await call(request)
    return (time.perf_counter_ns() - started) / 1000 / len(sent)


def run(protocol: str, call: Call, sent: list[Any]) -> float:
    gc.collect()
    gc.disable()
    try:
        if protocol == "WSGI":
            return timed(call, sent)
        return asyncio.run(atimed(call, sent))
    finally:
        gc.enable()


def added(protocol: str, case: str, with_it: Call, without: Call) -> list[float]:
    """Microseconds that the middleware adds, once for each pair of runs."""
    token = sign()
    first = requests(protocol, case, 100, token)
    number = int(RUN_SECONDS * 1e6 / run(protocol, with_it, first))
    number = min(max(number, 50), 1000)
    if any(request.grip.signed == (case in UNSIGNED) for request in first):
        raise SystemExit(f"{case}: not verified as expected, nothing to compare")
    if any(bool(request.grip.instruct) != (case == "hold") for request in first):
        raise SystemExit(f"{case}: not held as expected, nothing to compare")
    found = []
    for _ in range(REPETITIONS):
        base = run(protocol, without, requests(protocol, case, number, token))
        full = run(protocol, with_it, requests(protocol, case, number, token))
        found.append(full - base)
    return found


def handler(protocol: str, *middleware: str) -> Call:
    """The handler chain of Django with these middlewares."""
    settings.MIDDLEWARE = middleware
    if protocol == "WSGI":
        return WSGIHandler().get_response
    return ASGIHandler().get_response_async


def passing(get_response: Call) -> Call:
    """An async middleware that does nothing, to stand above GripMiddleware."""

    async def middleware(request: Any) -> Any:
        return await get_response(request)

    return middleware


passing.async_capable = True  # type: ignore[attr-defined]
passing.sync_capable = False  # type: ignore[attr-defined]


def hops(*middleware: str) -> float:
    """Jobs handed to a thread pool per verified async request."""
    submitted = []
    submit = ThreadPoolExecutor.submit

    def counting(*args: Any, **kwargs: Any) -> Any:
        submitted.append(args)
        return submit(*args, **kwargs)

    sent = requests("ASGI", "verified", 20, sign())
    call = handler("ASGI", *middleware)
    ThreadPoolExecutor.submit = counting  # type: ignore[method-assign]
    try:
        asyncio.run(atimed(call, sent))
    finally:
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]
    return len(submitted) / len(sent)


def worker() -> None:
    """Measure, and print JSON."""
    settings.configure(
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="benchmarks",
        GRIP_PROXIES=[{"control_uri": "http://127.0.0.1:5561", "key": KEY}],
    )
    django.setup()
    # Only now: at import, the peer reads the settings.
    from django_grip import GripMiddleware, set_hold_stream

    answer = HttpResponse()

    def trivial(request: Any) -> HttpResponse:
        if request.path == HELD and hasattr(request, "grip"):
            set_hold_stream(
                request, "room", keep_alive_data="\n", keep_alive_timeout=20
            )
        return answer

    async def atrivial(request: Any) -> HttpResponse:
        return trivial(request)

    def view(request: Any) -> HttpResponse:
        trivial(request)
        return HttpResponse()

    async def aview(request: Any) -> HttpResponse:
        return view(request)

    samples = {}
    for protocol, get_response, a_view in (
        ("WSGI", trivial, view),
        ("ASGI", atrivial, aview),
    ):
        settings.ROOT_URLCONF = (re_path("", a_view),)
        bare = GripMiddleware(get_response), get_response
        chain = handler(protocol, GRIP), handler(protocol)
        for case in CASES:
            samples[f"bare {protocol} {case}"] = added(protocol, case, *bare)
            samples[f"chain {protocol} {case}"] = added(protocol, case, *chain)
    found = {
        "version": version("django-grip"),
        "with": [f"{name} {version(name)}" for name in ("Django", "PyJWT", "asgiref")],
        "samples": samples,
        "hops": {
            "hops ASGI outermost": hops(GRIP),
            "hops ASGI below another": hops(f"{__name__}.passing", GRIP),
        },
    }
    json.dump(found, sys.stdout)


# The command: prepares the virtualenvs, runs the workers, prints the table.


def python(name: str) -> str:
    """The interpreter of the virtualenv `name`, made if there is none."""
    directory = ROOT / ".benchmarks" / name
    found = str(directory / "bin" / "python")
    if not (directory / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", directory], check=True)
        peer = [] if name == "core-ours" else ["django-grip==3.5.2"]
        install(found, DJANGO, *peer)
    if name == "core-ours":
        with tempfile.TemporaryDirectory() as copy:
            for part in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / part, copy)
            shutil.copytree(ROOT / "django_grip", Path(copy, "django_grip"))
            install(found, copy)
    (directory / "ready").touch()
    return found


def install(interpreter: str, *what: str) -> None:
    pip = [interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, *what], check=True)


def measure(interpreter: str) -> dict[str, Any]:
    """What one worker found. -I: no package may come from anywhere else."""
    command = [interpreter, "-I", __file__, "--worker"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def shown(samples: list[float]) -> str:
    low, _, high = statistics.quantiles(samples, n=4)
    return f"{statistics.median(samples):.2f} ({low:.2f}-{high:.2f})"


def main() -> None:
    interpreters = [python("core-ours"), python("core-peer")]
    rounds = [[measure(found) for found in interpreters] for _ in range(ROUNDS)]
    for name, found in zip(PACKAGES, rounds[0], strict=True):
        print(f"{name}: {found['version']} with {', '.join(found['with'])}")
        if found["with"] != rounds[0][0]["with"]:
            raise SystemExit("Not the same versions: remove .benchmarks/core-*")
    row = "{:<23} {:>20} {:>24} {:>6}  {}"
    print(row.format("added, us per request", *PACKAGES, "ratio", "target"))
    for name in sorted(rounds[0][0]["samples"], key=lambda name: name.split()[0]):
        ours, peer = (
            [sample for pair in rounds for sample in pair[which]["samples"][name]]
            for which in (0, 1)
        )
        middle = statistics.median(ours)
        ratio = f"{statistics.median(peer) / middle:.1f}"
        target = TARGETS.get(name)
        verdict = "" if target is None else f"<= {target:<5}"
        if target is not None and middle > target:
            verdict += "MISSED"
        print(row.format(name, shown(ours), shown(peer), ratio, verdict))
    for name, hopped in rounds[0][0]["hops"].items():
        print(row.format(name, hopped, rounds[0][1]["hops"][name], "", "0"))


if __name__ == "__main__":
    worker() if "--worker" in sys.argv else main()
