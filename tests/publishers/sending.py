"""What the tests of the publishers send, and what they are told of it."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

from gripcontrol import HttpStreamFormat

from django_grip.publishers import get_publisher
from servers import ROOT, environment


def text(content):
    return HttpStreamFormat(content)


def numbers(start, stop):
    """The contents that count from `start` to before `stop`."""
    return [f"{number}," for number in range(start, stop)]


def counters(control):
    return get_publisher().counters()[control.url]


class Reports:
    """What callbacks and signals said, in order.

    `told` has (name, ok, message), `published` (item, address) and `failed` (item,
    address, reason).
    """

    def __init__(self):
        self.told = []
        self.published = []
        self.failed = []

    def callback(self, name):
        """A callback that is known as `name`."""
        return lambda ok, message: self.told.append((name, ok, message))

    def on_published(self, items, address, **kwargs):
        self.published += [(item, address) for item in items]

    def on_failed(self, items, address, reason, **kwargs):
        self.failed += [(item, address, reason) for item in items]

    @property
    def contents_published(self):
        return [content_of(item) for item, _ in self.published]

    @property
    def contents_failed(self):
        return [content_of(item) for item, _, _ in self.failed]


def content_of(item):
    return item.formats["http-stream"]["content"]


SETUP = """
import json, os, sys, threading, time
from django.conf import settings
settings.configure(INSTALLED_APPS=["django_grip"], **json.loads(sys.argv[1]))
import django
django.setup()
assert threading.active_count() == 1, "a thread at import"
from gripcontrol import HttpStreamFormat
from django_grip import publish
from django_grip.publishers import get_publisher

def text(content):
    return HttpStreamFormat(content)

def say(*words):
    # One write, so lines of several processes stay whole.
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""


def program(code, directory, name="program.py"):
    """A file with a program that has Django, publish(), text() and say()."""
    path = directory / name
    path.write_text(SETUP + code)
    return path


def start(path, settings_json):
    """Run a program of `program` in a process of its own."""
    return subprocess.Popen(
        # From 3.12 on Python warns of every fork beside a thread.
        [
            *(sys.executable, "-W", "error", "-W", "ignore:This process"),
            *(str(path), settings_json),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment({"PYTHONPATH": str(ROOT)}),
        start_new_session=True,
    )


def end(child):
    """Kill a process and those it has forked."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
