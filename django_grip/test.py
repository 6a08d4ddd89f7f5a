"""Helpers for the tests of projects that publish."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.test import override_settings

from django_grip.items import Item
from django_grip.publishers import locmem


@contextmanager
def capture_published() -> Iterator[list[Item]]:
    """Collect what is published inside the block; nothing leaves the process.

    Yields the list of items, oldest first; `item.channel` includes GRIP_PREFIX. What
    is published on commit is there once the transaction has committed: in a TestCase
    use `captureOnCommitCallbacks(execute=True)` inside.
    """
    outer = locmem.outbox
    items: list[Item] = []
    with override_settings(GRIP_PUBLISHER="django_grip.publishers.locmem.Publisher"):
        locmem.outbox = items
        try:
            yield items
        finally:
            locmem.outbox = outer
