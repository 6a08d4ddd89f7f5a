"""The whole demo with one command: a database, a proxy, Django, and five bidders.

    python sample_app/demo.py

Environment: DEMO_PORT (7999), DEMO_PROXY=pushpin (else the local proxy),
DEMO_SIMULATE=0 (no bidders), DEMO_DIR (.demo in the repository).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import django
from django.core.management import call_command

from config import DEMO_KEY
from pushpin import Pushpin, PushpinError, answers, end_session, free_port, is_free

HERE = Path(__file__).resolve().parent
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoError(Exception):
    """The demo cannot go on; the message is all that the terminal shows."""


class Demo:
    """The running demo: its children, and when to stop."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.port = int(environment.get("DEMO_PORT", "7999"))
        self.with_pushpin = environment.get("DEMO_PROXY") == "pushpin"
        self.simulate = environment.get("DEMO_SIMULATE") != "0"
        self.directory = Path(environment.get("DEMO_DIR", HERE.parent / ".demo"))
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped = threading.Event()

    def run(self) -> None:
        """Run until stopped. Raises DemoError if it cannot start or a child dies."""
        if not is_free(self.port):
            raise DemoError(
                f"Port {self.port} is in use. Choose another: DEMO_PORT=8080 make demo"
            )
        if self.with_pushpin and Pushpin.missing():
            raise DemoError(
                "DEMO_PROXY=pushpin needs the programs pushpin and zurl (and condure). "
                "Install them: make system"
            )
        self._prepare()
        with ExitStack() as cleanup:
            self._start_site(cleanup)
            if not self._wait_for_site():
                return
            call_command("seed_lots", verbosity=0)
            if self.simulate:
                self._start(cleanup, "simulate_bids", "--url", self.url)
            print(self._welcome(), flush=True)
            while not self.stopped.wait(0.2):
                self._check_processes()

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("SAMPLE_DB", str(self.directory / "db.sqlite3"))
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
        self.control_port = 5561 if is_free(5561) else free_port()
        self.grip_url = f"http://127.0.0.1:{self.control_port}?key={DEMO_KEY}"
        os.environ["GRIP_URL"] = self.grip_url
        django.setup()
        call_command("migrate", verbosity=0)

    def _start_site(self, cleanup: ExitStack) -> None:
        if not self.with_pushpin:
            self._start(cleanup, "runserver", f"127.0.0.1:{self.port}")
            return
        upstream = f"127.0.0.1:{free_port()}"
        proxy = Pushpin(
            self.directory / "pushpin",
            upstream=upstream,
            http_port=self.port,
            control_port=self.control_port,
            key=DEMO_KEY,
            settings={"message_rate": "0"},
        )
        self._start(cleanup, "runserver", upstream, "--no-proxy")
        cleanup.callback(proxy.stop)
        proxy.start()
        self.processes["pushpin"] = proxy.process

    def _start(self, cleanup: ExitStack, *arguments: str) -> None:
        """Run a management command for as long as the demo runs."""
        process = subprocess.Popen(
            [sys.executable, str(HERE / "manage.py"), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # Greetings; what goes wrong is on stderr.
            start_new_session=True,
        )
        cleanup.callback(end_session, process)
        self.processes[arguments[0]] = process

    def _wait_for_site(self) -> bool:
        """Return True once the site answers, False when told to stop before."""
        deadline = time.monotonic() + 60
        while not self.stopped.wait(0.1):
            self._check_processes()
            if answers(self.url):
                return True
            if time.monotonic() > deadline:
                raise DemoError(f"{self.url} did not answer within 60 s.")
        return False

    def _check_processes(self) -> None:
        for name, process in self.processes.items():
            code = process.poll()
            if code is not None:
                raise DemoError(f"{name} ended with exit code {code}.")

    def _welcome(self) -> str:
        return f"""
The auction room       {self.url}/
Administration         {self.url}/admin/   admin / admin
The stream of lots     curl -N {self.url}/api/lots/stream/
Another terminal       export GRIP_URL='{self.grip_url}'
Ctrl-C stops everything.
"""


def main() -> int:
    demo = Demo(os.environ)
    for number in SIGNALS:
        signal.signal(number, lambda *_: demo.stopped.set())
    try:
        demo.run()
    except (DemoError, PushpinError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
