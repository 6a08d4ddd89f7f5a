"""The publisher of tests: keeps items in memory and sends nothing."""

from __future__ import annotations

from collections.abc import Sequence

from django_grip.items import Item
from django_grip.publishers.base import BasePublisher

outbox: list[Item] = []
"""Every item published since it was last cleared, oldest first."""


class Publisher(BasePublisher):
    """Appends to `outbox`."""

    def publish(self, items: Sequence[Item]) -> None:
        """See BasePublisher.publish()."""
        outbox.extend(items)
