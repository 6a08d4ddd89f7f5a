"""Which items a subscriber is spared. Pure.

`session` is what the origin said of the subscriber (Grip-Set-Meta), `item` the
publisher's `meta`. Unknown filters let everything pass, as in Pushpin.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

FILTERS = ("skip-self", "skip-users", "require-sub")

Meta = Mapping[str, str]


def passes(
    filters: Collection[str], session: Meta, item: Meta, channels: Collection[str]
) -> bool:
    """Whether the item may go to a session that is subscribed to `channels`."""
    user = session.get("user", "")
    if "skip-self" in filters and user and user == item.get("sender"):
        return False
    skipped = [name.strip() for name in item.get("skip_users", "").split(",")]
    if "skip-users" in filters and user and user in skipped:
        return False
    required = item.get("require_sub")
    return not ("require-sub" in filters and required and required not in channels)
