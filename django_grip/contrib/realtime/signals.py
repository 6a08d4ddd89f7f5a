"""Signals of the realtime layer.

`payload_failed(sender, change, exception)`: a stream's serializer raised, so the event
goes out thin to the audiences that had no payload yet. `sender` is the stream's class.
"""

from __future__ import annotations

from django.dispatch import Signal

payload_failed = Signal()
