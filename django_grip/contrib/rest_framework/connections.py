"""Connections: what a WebSocket's proxy keeps for it between two requests.

Django keeps nothing. The proxy's meta has what the client has subscribed to. It is
sealed, as not every proxy keeps clients from writing there, and for one connection at
one path.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field

from django_grip.contrib.realtime.channels import user_channel
from django_grip.contrib.rest_framework.seals import seal, unseal
from django_grip.contrib.rest_framework.sessions import Owner
from django_grip.headers import CHANNELS_MAX
from django_grip.websocket import WebSocketContext

SUBSCRIPTIONS_MAX = 16
"""Subscriptions of one connection."""

BYTES_MAX = 4_000
"""Bytes of what the proxy keeps: a header of each request."""

PER_MINUTE = 240
"""Operations of one connection within a minute."""

_META = "realtime"
_PURPOSE = "connection"


@dataclass
class Subscription:
    """A stream that a view has granted to the client, who calls it `id`.

    `url` is where the view is asked again; `position` the last one that the client was
    told by us, None without an event log. `user` is the pk, as text, of whom the view
    was asked for; `owner` says more of one who came by a ticket, which is not valid
    again.
    """

    id: str | None
    url: str
    channel: str
    position: str | None
    user: str | None
    owner: Owner | None


@dataclass
class Connection:
    """What the client of one WebSocket is subscribed to.

    `place` is the proxy's name of it, and its path. `due` is when the views are asked
    again, in seconds since 1970. `operations` came in the minute `minute`.
    """

    place: str
    due: int = 0
    minute: int = 0
    operations: int = 0
    subscriptions: dict[str | None, Subscription] = field(default_factory=dict)

    @classmethod
    def of(cls, context: WebSocketContext, path: str) -> Connection | None:
        """The connection of a request; None if what was kept is not ours."""
        place = f"{context.id} {path}"
        if context.is_opening():
            return cls(place)
        kept = unseal(_PURPOSE, context.meta.get(_META, ""), place)
        if kept is None:
            return None
        due, minute, operations, owners, rows = kept
        found = {}
        for name, url, channel, position, user, at in rows:
            owner = None if at is None else Owner(*owners[at])
            found[name] = Subscription(name, url, channel, position, user, owner)
        return cls(place, due, minute, operations, found)

    def keep(self, context: WebSocketContext) -> None:
        """Have the proxy keep it."""
        context.meta[_META] = self._sealed()

    def _sealed(self) -> str:
        rows = [astuple(each) for each in self.subscriptions.values()]
        # One for all subscriptions, as a rule.
        owners = list(dict.fromkeys(owner for *_, owner in rows if owner is not None))
        rows = [
            (*values, None if owner is None else owners.index(owner))
            for *values, owner in rows
        ]
        kept = [self.due, self.minute, self.operations, owners, rows]
        return seal(_PURPOSE, kept, self.place)

    def is_over_full(self) -> bool:
        """Whether there is more than a proxy takes."""
        return len(self.channels()) > CHANNELS_MAX or len(self._sealed()) > BYTES_MAX

    def channels(self) -> list[str]:
        """Those that the proxy has to subscribe it to: of its streams and its users."""
        found = []
        for each in self.subscriptions.values():
            found.append(each.channel)
            if each.user is not None:
                found.append(user_channel(each.user))
        return list(dict.fromkeys(found))

    def spend(self, now: float) -> bool:
        """Count an operation: False if there were too many within this minute."""
        minute = int(now // 60)
        if minute != self.minute:
            self.minute, self.operations = minute, 0
        self.operations += 1
        return self.operations <= PER_MINUTE
