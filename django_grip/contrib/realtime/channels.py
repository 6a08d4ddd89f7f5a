"""Channel names: model, pk, scope and audience to a name that no other input shares.

Pure. `shop.order` (all) · `shop.order.42` (one) · `shop.order~tenant.7` (scope) ·
suffix `~as.staff` (audience) · `~on.replica2` (alias) · `~user.9` (control).

Names are made of `A-Z a-z 0-9 - . _ ~ %`; in a value every other character, and `.`
and `~` too, is percent-encoded, so the separators are never part of a value.
GRIP_PREFIX is not part of these names: publish() and the hold put it before them.
"""

from __future__ import annotations

import json
from functools import lru_cache
from hashlib import sha256
from typing import Any
from urllib.parse import quote

RESERVED = frozenset({"as", "on", "user"})
"""What no scope may be called: these say something else after a `~`."""

NAME_MAX = 191
"""Bytes of a channel name: what an indexed utf8mb4 column holds on MySQL."""


def channel_name(
    label: str,
    pk: Any = None,
    *,
    place: tuple[str, str] | None = None,
    audience: str | None = None,
    using: str | None = None,
) -> str:
    """The channel of a model, of one object (`pk`) or of one scope value (`place`).

    `label` is the concrete model's `label_lower`. `pk` is a primary key's value; a
    tuple (CompositePrimaryKey) becomes a JSON array. `place` is a scope's name and the
    value as text. `using` is the database alias if it is not the model's own.
    """
    name = ".".join(encode(part) for part in label.split("."))
    suffix = ""
    if audience is not None:
        suffix += f"~as.{encode(audience)}"
    if using is not None:
        suffix += f"~on.{encode(using)}"
    if place is not None:
        name += f"~{encode(place[0])}"
        value = encode(place[1])
    elif pk is not None:
        value = encode(pk_text(pk))
    else:
        return name + suffix
    if len(name) + 1 + len(value) + len(suffix) > NAME_MAX:
        # An encoded value never begins with `~`, so no plain value meets a hash.
        value = "~" + sha256(value.encode()).hexdigest()
    return f"{name}.{value}{suffix}"


def user_channel(pk: Any) -> str:
    """The control channel of a user: what is said there concerns all of its streams."""
    return f"~user.{encode(pk_text(pk))}"


def pk_text(pk: Any) -> str:
    """A primary key as text: `str`, or a JSON array for a composite one."""
    if isinstance(pk, (tuple, list)):
        return json.dumps([part if isinstance(part, int) else str(part) for part in pk])
    return str(pk)


@lru_cache(maxsize=4096)
def encode(value: str) -> str:
    """Percent-encode all but letters, digits, `-` and `_`."""
    return quote(value, safe="").replace(".", "%2E").replace("~", "%7E")
