"""The benchmarks run; of the long run, a short form with everything in it."""

import subprocess
import sys

import pytest

from servers import ROOT, environment


def run(*command):
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_publish_explains_itself():
    done = run("benchmarks/publish.py", "--help")

    assert done.returncode == 0, done.stderr
    assert "--only" in done.stdout


def test_streams_explains_itself():
    done = run("benchmarks/streams.py", "--help")

    assert done.returncode == 0, done.stderr
    assert "--only" in done.stdout


@pytest.mark.pushpin
@pytest.mark.node
def test_a_live_list_equals_the_list_that_changes_meanwhile():
    done = run("benchmarks/streams.py", "--short", "--only=collection")

    assert done.returncode == 0, done.stdout + done.stderr
    rows = done.stdout.splitlines()[-6:]
    assert [row.split()[-1] for row in rows] == ["equal"] * 6, done.stdout


@pytest.mark.postgresql
def test_only_the_log_keeps_every_commit_in_order():
    done = run("benchmarks/order.py", "--short", "--writers=4")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.pushpin
def test_publishing_over_restarts_accounts_for_every_event():
    done = run("benchmarks/restarts.py", "--minutes=0.15", "--every=3", "--down=1")

    assert done.returncode == 0, done.stdout + done.stderr
    account = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert account["restarts"].startswith("2 of 1 s")
    assert account["published"] == "4,500 events"
    assert account["accepted"] == ("4,500 by callback; signal 4,500, counters 4,500")
    assert account["dropped"] == "0 by callback; signal 0, counters 0, log 0"
    assert account["delivered"].endswith("in 3 streams")
    assert account["twice"] == "0"
    assert account["account"] == "adds up"
    assert account.keys() >= {"not", "out", "outages", "memory"}
