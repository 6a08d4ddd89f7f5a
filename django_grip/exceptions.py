"""The errors this library raises, drawn as a tree.

- GripError
  - PublishError     a proxy did not accept what was published
"""

from __future__ import annotations

from collections.abc import Mapping


class GripError(Exception):
    """Base of every error of this library that is not a programmer's mistake.

    Mistakes (a wrong argument, a wrong setting) raise `TypeError`, `ValueError` or
    `django.core.exceptions.ImproperlyConfigured` at once.
    """


class PublishError(GripError):
    """Some proxies did not accept a publish.

    `failures` maps the control address of each such proxy to the reason. Proxies
    that are not named accepted the items.
    """

    def __init__(self, failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        super().__init__(
            "; ".join(f"{address}: {reason}" for address, reason in failures.items())
        )
