"""Slot: the pace of all processes of this host that publish to one control URI.

Pushpin 1.36-1.40 restarts a timer of 25 ms with every publish, whoever it comes from,
and delivers only when it runs out. So the processes share, in a small locked file, when
they may speak: those that wait speak in one short window, and then all are quiet.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
import tempfile
import time
from hashlib import sha256
from io import FileIO
from pathlib import Path

from django.core.files import locks

logger = logging.getLogger("django_grip.publishers")

WINDOW = 0.01
"""Seconds from the first POST of a window in which other processes may join it."""

_STATE = struct.Struct("dd")
_NEVER = float("-inf")


class Slot:
    """`take` before a POST, `leave` after its answer.

    The file holds when the window began and when the last answer came, on the
    monotonic clock, which the processes of a host share. It is locked only while it is
    read and written, so a process that dies or stands still stops nobody. Where the
    file cannot be used, the pace is that of this process alone, and the log says so.
    """

    def __init__(self, uri: str, interval: float) -> None:
        owner = os.getuid() if hasattr(os, "getuid") else 0
        name = f"django-grip-{owner}-{sha256(uri.encode()).hexdigest()[:16]}.slot"
        self.path = Path(tempfile.gettempdir()) / name
        self._interval = interval
        self._file: FileIO | None = None
        self._is_shared = interval > 0
        self._own = (_NEVER, _NEVER)
        self._joined = _NEVER

    def take(self) -> float:
        """Seconds to wait before asking again; 0.0: the slot is ours."""
        if not self._interval:
            return 0.0
        file = self._locked()
        try:
            now = time.monotonic()
            window, last = self._read(file)
            if (pause := last + self._interval - now) <= 0:
                window = now
            elif now - window >= WINDOW or window == self._joined:
                return pause
            self._joined = window
            # Until the answer comes, the beginning of the POST stands for it.
            self._write(file, window, now)
            return 0.0
        finally:
            self._unlock(file)

    def leave(self) -> None:
        """The answer has come: the interval begins."""
        if not self._interval:
            return
        file = self._locked()
        try:
            window, _ = self._read(file)
            self._write(file, window, time.monotonic())
        finally:
            self._unlock(file)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _locked(self) -> FileIO | None:
        if not self._is_shared:
            return None
        try:
            if self._file is None:
                self._file = _open(self.path)
            # Never waiting for long: who was stopped while holding the lock must not
            # stop the others.
            for _ in range(10):
                if locks.lock(self._file, locks.LOCK_EX | locks.LOCK_NB):
                    return self._file
                time.sleep(0.0005)
        except OSError as exc:
            self._is_shared = False
            logger.warning(
                "Publishing is not paced together with other processes: %s. With "
                "Pushpin before 1.41 set message_rate=0, or make the temporary "
                "directory writable.",
                exc,
            )
        return None

    def _unlock(self, file: FileIO | None) -> None:
        if file is not None:
            locks.unlock(file)

    def _read(self, file: FileIO | None) -> tuple[float, float]:
        if file is None:
            return self._own
        try:
            file.seek(0)
            window, last = _STATE.unpack(file.read(_STATE.size))
        except (OSError, struct.error):
            return _NEVER, _NEVER
        now = time.monotonic()
        # Anything else is of before the last start of the machine, or garbage.
        if window <= last <= now:
            return window, last
        return _NEVER, _NEVER

    def _write(self, file: FileIO | None, window: float, last: float) -> None:
        self._own = (window, last)
        if file is not None:
            file.seek(0)
            file.write(_STATE.pack(window, last))


def _open(path: Path) -> FileIO:
    """Open the slot's file, or make it. Raises OSError if it is not a file of ours."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    file = FileIO(os.open(path, flags, 0o600), "r+b")
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or (
        hasattr(os, "getuid") and status.st_uid != os.getuid()
    ):
        file.close()
        raise OSError(f"{path} is not a file of this user")
    return file
