"""Publishers: how items reach the proxies. One is active, named by GRIP_PUBLISHER."""

from __future__ import annotations

import os
from functools import cache

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.module_loading import import_string

from django_grip import conf
from django_grip.publishers.base import BasePublisher


@cache
def get_publisher() -> BasePublisher:
    """The active publisher; built at the first call in each process."""
    path = conf.publisher()
    try:
        publisher_class: type[BasePublisher] = import_string(path)
    except ImportError as exc:
        raise ImproperlyConfigured(
            f"GRIP_PUBLISHER is {path!r}, which cannot be imported: {exc}"
        ) from exc
    return publisher_class()


@receiver(setting_changed, dispatch_uid="django_grip.publishers")
def _forget(*, setting: str, **kwargs: object) -> None:
    if setting.startswith(("GRIP_", "PUBLISH_")):
        if get_publisher.cache_info().currsize:
            get_publisher().close()
        get_publisher.cache_clear()


# A forked child has the parent's queues but not its threads: it starts afresh.
os.register_at_fork(after_in_child=get_publisher.cache_clear)
