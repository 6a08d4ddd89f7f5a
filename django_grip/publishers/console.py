"""The publisher of development: prints items and sends nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from django_grip.items import Item
from django_grip.publishers.base import BasePublisher


class Publisher(BasePublisher):
    """Writes each item to standard output: a line of JSON, as a proxy would take it."""

    def publish(self, items: Sequence[Item]) -> None:
        """See BasePublisher.publish()."""
        for item in items:
            line = json.dumps(item.export(), ensure_ascii=False) + "\n"
            sys.stdout.write(line)
        sys.stdout.flush()
