"""Failpoints: places where a test has the process fail, off unless the test says so.

GRIP_FAILPOINT names one: `relay.before_seq_commit:kill`. The action is `kill`
(SIGKILL), `raise`, `sleep=SECONDS` or `skip`; `:kill@3` acts at the third passage. A
journal of those that acted is kept in the file named by GRIP_FAILPOINT_LOG.
"""

from __future__ import annotations

import os
import signal
import time

_spec = os.environ.get("GRIP_FAILPOINT", "")
_passages: dict[str, int] = {}


class Failed(Exception):
    """What the action `raise` raises."""


def failpoint(name: str) -> bool:
    """Fail here, if this is the place. Returns whether to skip what follows."""
    if not _spec:
        return False
    place, _, action = _spec.partition(":")
    if place != name:
        return False
    action, _, number = action.partition("@")
    _passages[name] = _passages.get(name, 0) + 1
    if number and _passages[name] != int(number):
        return False
    _note(name)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise Failed(name)
    elif action.startswith("sleep="):
        time.sleep(float(action.removeprefix("sleep=")))
    return action == "skip"


def _note(name: str) -> None:
    path = os.environ.get("GRIP_FAILPOINT_LOG")
    if path:
        with open(path, "a") as journal:
            journal.write(f"{name}\n")
