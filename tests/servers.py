"""The real parts of the end-to-end tests, each on ports of its own."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from pushpin import Pushpin, accepts, free_port

ROOT = Path(__file__).parent.parent
MANAGE = [sys.executable, "-m", "django"]
KEY = "base64:YS1rZXktb2YtdGhlLXRlc3RzLW9mLTMyLWJ5dGVzLW9yLW1vcmU="


def wait_until(condition, what, timeout=20):
    """Return the first true value of `condition()`, polled; fail after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"Not within {timeout} s: {what}")
        time.sleep(0.02)


def answers(url):
    """Whether `url` gives any HTTP answer below 500."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError as exc:
        exc.close()
        return exc.code < 500
    except OSError:
        return False
    return True


def environment(changes=None):
    """The environment of a child: not with the settings of this process."""
    own = {key: value for key, value in os.environ.items() if key not in INHERITED_NOT}
    return own | (changes or {})


INHERITED_NOT = {"DJANGO_SETTINGS_MODULE", "TEST_DATABASE"}


class Process:
    """A child process in a session of its own, with its output in a file."""

    def __init__(self, command, log, env=None, cwd=ROOT):
        self.log = Path(log)
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(env),
                cwd=cwd,
                start_new_session=True,
            )

    def stop(self, timeout=10):
        """End it by SIGTERM and return its exit code; SIGKILL is a failure."""
        if self.popen.poll() is None:
            self.popen.terminate()
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(
                f"{self.popen.args} did not end within {timeout} s of SIGTERM.\n"
                + self.log.read_text()
            ) from None

    def kill(self):
        self.popen.kill()
        self.popen.wait()


class Site:
    """The sample app: gunicorn with two WSGI workers, behind a proxy.

    `proxy` is "localproxy" or "pushpin"; both are real processes.
    """

    project = ROOT / "sample_app"
    settings = "config.settings"
    wsgi = "config.wsgi"
    probe = "/api/lots/"

    def __init__(self, directory, proxy):
        self.directory = Path(directory)
        self.proxy = proxy
        self.django_port = free_port()
        self.port = free_port()
        self.control_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.env = {
            "GRIP_URL": f"http://127.0.0.1:{self.control_port}?key={KEY}",
            "SAMPLE_DB": str(self.directory / "db.sqlite3"),
            "DJANGO_SETTINGS_MODULE": self.settings,
            "PYTHONPATH": f"{self.project}{os.pathsep}{ROOT}",
        }
        self._django = None
        self._proxy = None

    def prepare(self):
        self.manage("migrate", "--verbosity=0")
        self.manage("seed_lots")

    def __enter__(self):
        self.prepare()
        try:
            self.start_django()
            self.start_proxy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info):
        if self._proxy is not None:
            self.stop_proxy()
        self.stop_django()

    def start_proxy(self):
        upstream = f"127.0.0.1:{self.django_port}"
        if self.proxy == "pushpin":
            self._proxy = Pushpin(
                self.directory / "pushpin",
                upstream=upstream,
                http_port=self.port,
                control_port=self.control_port,
                key=KEY,
            )
            self._proxy.start()
        else:
            self._proxy = Process(
                [
                    *MANAGE,
                    "grip_proxy",
                    f"--listen=127.0.0.1:{self.port}",
                    f"--upstream=http://{upstream}",
                    f"--control=127.0.0.1:{self.control_port}",
                ],
                self.directory / "proxy.log",
                self.env,
            )
        wait_until(lambda: accepts(self.port), "the proxy listens")

    def stop_proxy(self):
        self._proxy.stop()
        self._proxy = None

    def start_django(self):
        self._django = Process(
            [
                *(sys.executable, "-m", "gunicorn", "--workers=2"),
                f"--bind=127.0.0.1:{self.django_port}",
                "--no-control-socket",
                self.wsgi,
            ],
            self.directory / "django.log",
            self.env,
        )
        wait_until(
            lambda: answers(f"http://127.0.0.1:{self.django_port}{self.probe}"),
            "gunicorn answers",
        )

    def stop_django(self):
        self._django.stop()

    def manage(self, *arguments, stdin=None):
        """Run a management command to its end and return its output."""
        done = subprocess.run(
            [*MANAGE, *arguments],
            env=environment(self.env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


class SeedSite(Site):
    """The project of the README of 2017, without a database."""

    project = ROOT / "tests" / "seed_site"
    settings = "seed_settings"
    wsgi = "seed_wsgi"
    probe = "/"

    def prepare(self):
        pass
