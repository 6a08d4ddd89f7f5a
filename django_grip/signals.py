"""Signals of the core. They are sent on the publisher's thread.

- `published(sender, items, address)`: the server at `address` accepted the items.
- `publish_failed(sender, items, address, reason)`: it did not, and will not get
  these items any more.

`sender` is the publisher's class, `items` a list of `django_grip.items.Item`.
A receiver that uses the database closes its connection itself
(`django.db.close_old_connections`).
"""

from __future__ import annotations

from django.dispatch import Signal

# With the cache a send takes no lock, which another thread could hold in a fork.
published = Signal(use_caching=True)
publish_failed = Signal(use_caching=True)
