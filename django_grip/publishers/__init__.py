"""Publishers: how items reach the proxies. One is active, named by GRIP_PUBLISHER."""

from __future__ import annotations

import atexit
import os
import sys
import threading

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from django_grip import conf
from django_grip.publishers.base import BasePublisher

__all__ = ["BasePublisher", "close_publisher", "get_publisher"]

_active: BasePublisher | None = None
_lock = threading.Lock()


def get_publisher() -> BasePublisher:
    """The active publisher; built at the first call in each process."""
    publisher = _active
    return _build() if publisher is None else publisher


def close_publisher() -> None:
    """Have the active publisher send what waits, and forget it.

    It is called when the interpreter ends; call it yourself where a process ends
    without that, by `os._exit()`. The next call of `get_publisher` builds anew.
    """
    global _active
    with _lock:
        publisher, _active = _active, None
    if publisher is not None:
        publisher.close()


def _build() -> BasePublisher:
    global _active
    with _lock:
        if _active is not None:
            return _active
        path = conf.publisher()
        try:
            publisher_class: type[BasePublisher] = import_string(path)
        except ImportError as exc:
            raise ImproperlyConfigured(
                f"GRIP_PUBLISHER is {path!r}, which cannot be imported: {exc}"
            ) from exc
        _active = publisher_class()
        _close_in_child()
        return _active


def _close_in_child() -> None:
    """A child of multiprocessing skips atexit, and has this loaded."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, close_publisher, exitpriority=10)


# Here and not with the first publish: that may come from another function of atexit,
# and those that are registered meanwhile are not called.
atexit.register(close_publisher)


@receiver(setting_changed, dispatch_uid="django_grip.publishers")
def _forget(*, setting: str, **kwargs: object) -> None:
    if setting.startswith(("GRIP_", "PUBLISH_")):
        close_publisher()


def _start_afresh() -> None:
    """A forked child has the parent's queues, which are the parent's to send, and its
    locks as they happened to be, but none of its threads.
    """
    global _active, _lock
    _active = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_start_afresh)
