"""A minute of chaos in a few seconds; the long form is tests/chaos/run.py."""

import subprocess
import sys

import pytest

from servers import ROOT, environment


@pytest.mark.pushpin
def test_nothing_is_lost_while_all_parts_are_killed():
    command = [sys.executable, ROOT / "tests" / "chaos" / "run.py"]
    command += ["--database=sqlite", "--seed=6", "--kills=10", "--changes=1000"]
    command += ["--seconds=120", "--every=0.5", "--points=0"]
    done = subprocess.run(
        command,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
