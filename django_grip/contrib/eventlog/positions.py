"""Positions: where in the order of events a client stands. Pure.

`k3f9….1842` is event 1842 of the log whose epoch is `k3f9…`. Numbers of another epoch
say nothing: that log was another one, or a backup has been restored since.
"""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_POSITION = re.compile(r"([0-9a-z]{1,16})\.(0|[1-9][0-9]{0,17})", re.ASCII)


class Position(NamedTuple):
    """An epoch, and the seq of an event in it; 0 is before the first."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.seq}"


def parse(text: str) -> Position | None:
    """What a client says; None for what no log of ours has ever given out."""
    found = _POSITION.fullmatch(text) if len(text) < 40 else None
    return None if found is None else Position(found[1], int(found[2]))


def new_epoch() -> str:
    """A name that no log has had."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(12))
