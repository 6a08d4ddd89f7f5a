"""publish() and its async twin."""

from __future__ import annotations

from collections.abc import Mapping

from django_grip import conf
from django_grip.exceptions import PublishError
from django_grip.items import Formats, Item, make_item
from django_grip.publishers import get_publisher
from django_grip.publishers.base import Callback


def publish(
    channel: str,
    formats: Formats,
    id: str | None = None,
    prev_id: str | None = None,
    blocking: bool = False,
    callback: Callback | None = None,
    meta: Mapping[str, str] | None = None,
) -> None:
    """Publish to everyone who holds `channel`, at every configured proxy.

    GRIP_PREFIX is put before the channel. `formats` is one gripcontrol format or
    several of different kinds. Without `blocking` the item is queued and this returns
    at once; `callback(ok, message)` is told what became of it. With `blocking` this
    returns when every proxy accepted.

    Raises ValueError or TypeError for what no proxy would take, and with `blocking`
    PublishError naming the proxies that did not accept.
    """
    item = make_item(
        conf.prefix() + channel, formats, id=id, prev_id=prev_id, meta=meta
    )
    send(item, blocking=blocking, callback=callback)


def send(item: Item, *, blocking: bool, callback: Callback | None) -> None:
    """Publish an item that is made already. See publish()."""
    if not blocking:
        get_publisher().enqueue([item], callback)
        return
    try:
        get_publisher().publish([item])
    except PublishError as exc:
        if callback is not None:
            callback(False, str(exc))
        raise
    if callback is not None:
        callback(True, "")


async def apublish(
    channel: str,
    formats: Formats,
    id: str | None = None,
    prev_id: str | None = None,
    meta: Mapping[str, str] | None = None,
) -> None:
    """See publish(). Returns when every proxy accepted, or raises PublishError."""
    item = make_item(
        conf.prefix() + channel, formats, id=id, prev_id=prev_id, meta=meta
    )
    await get_publisher().apublish([item])
