"""PubControl: the engine under the names that django-grip 3.5.2 gave it."""

from __future__ import annotations

import pubcontrol
from gripcontrol import HttpResponseFormat, HttpStreamFormat

from django_grip.items import make_item
from django_grip.publishers import close_publisher, get_publisher
from django_grip.publishers.base import Callback
from django_grip.publishing import send


class PubControl:
    """Publishes to all configured servers. Channels are taken as they are given:
    GRIP_PREFIX is not put before them.
    """

    def publish(
        self,
        channel: str,
        item: pubcontrol.Item,
        blocking: bool = False,
        callback: Callback | None = None,
    ) -> None:
        """Publish an item of the `pubcontrol` package. See django_grip.publish()."""
        made = make_item(
            channel, item.formats, id=item.id, prev_id=item.prev_id, meta=item.meta
        )
        send(made, blocking=blocking, callback=callback)

    def publish_http_stream(
        self,
        channel: str,
        http_stream: HttpStreamFormat | str | bytes,
        id: str | None = None,
        prev_id: str | None = None,
        blocking: bool = False,
        callback: Callback | None = None,
    ) -> None:
        """Publish to held streams: a format, or the content of one."""
        if isinstance(http_stream, str | bytes):
            http_stream = HttpStreamFormat(http_stream)
        item = pubcontrol.Item(http_stream, id, prev_id)
        self.publish(channel, item, blocking, callback)

    def publish_http_response(
        self,
        channel: str,
        http_response: HttpResponseFormat | str | bytes,
        id: str | None = None,
        prev_id: str | None = None,
        blocking: bool = False,
        callback: Callback | None = None,
    ) -> None:
        """Publish to held responses: a format, or the body of one."""
        if isinstance(http_response, str | bytes):
            http_response = HttpResponseFormat(body=http_response)
        item = pubcontrol.Item(http_response, id, prev_id)
        self.publish(channel, item, blocking, callback)

    def wait_all_sent(self) -> None:
        """Return when nothing waits and nothing is on its way."""
        get_publisher().wait_all_sent()

    def close(self) -> None:
        """Send what waits, for at most 5 s. A later publish starts afresh."""
        close_publisher()


def get_pubcontrol() -> PubControl:
    """The engine that `publish` uses, as an object."""
    return PubControl()
