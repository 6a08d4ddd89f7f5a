"""Holds: what a view asks the proxy to do with its request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from django.http import HttpRequest
from gripcontrol import Channel

from django_grip import headers

Channels: TypeAlias = str | Channel | Iterable[str | Channel]


class GripInstruct:
    """One instruction to the proxy: how to hold a request, and for which channels.

    What could not be carried by the wire raises ValueError when it is set.
    """

    def __init__(self) -> None:
        self.hold: Literal["", "response", "stream"] = ""
        self.channels: list[Channel] = []
        self.timeout = 0
        self.keep_alive: str | bytes = ""
        self.keep_alive_timeout = 0
        self.keep_alive_mode: headers.KeepAliveMode = "idle"
        self.next_link = ""
        self.next_link_timeout = 0
        self.gone_link = ""
        self.meta: dict[str, str] = {}
        self.status: tuple[int, str] | None = None
        self.expose_headers: list[str] = []

    def add_channel(self, channel: str | Channel) -> None:
        """Subscribe to a channel, named without GRIP_PREFIX."""
        if isinstance(channel, str):
            channel = Channel(channel)
        if not isinstance(channel, Channel):
            raise TypeError(
                f"A channel is a str or gripcontrol.Channel; got {channel!r}."
            )
        headers.channel_header([(channel.name, channel.prev_id, channel.filters)])
        if len(self.channels) == headers.CHANNELS_MAX:
            raise ValueError(
                f"A hold takes {headers.CHANNELS_MAX} channels; a proxy drops further "
                "ones in silence. Subscribe to fewer, broader channels."
            )
        self.channels.append(channel)

    def add_channels(self, channels: Channels) -> None:
        """Subscribe to one channel or to each of several."""
        if isinstance(channels, (str, Channel)):
            channels = [channels]
        for channel in channels:
            self.add_channel(channel)

    def set_hold_longpoll(self, timeout: float | None = None) -> None:
        """Hold until one item or `timeout` seconds (None: the proxy's, 55)."""
        self.hold = "response"
        if timeout:
            self.timeout = int(timeout)

    def set_hold_stream(self) -> None:
        """Hold open and send every item."""
        self.hold = "stream"

    def set_keep_alive(
        self, data: str | bytes, timeout: float, mode: headers.KeepAliveMode = "idle"
    ) -> None:
        """Send `data` whenever a stream was silent for `timeout` seconds.

        With mode `interval` it is sent every `timeout` seconds, silent or not.
        """
        headers.keep_alive_header(data, int(timeout), mode)
        self.keep_alive = data
        self.keep_alive_timeout = int(timeout)
        self.keep_alive_mode = mode

    def set_next_link(self, uri: str, timeout: float | None = None) -> None:
        """Have the proxy ask `uri` to heal or continue a stream.

        Overlapping requests for one path and one position are one request, whose
        answer goes to all: put whatever decides the answer into the path.
        """
        headers.link_header(uri)
        self.next_link = uri
        if timeout:
            self.next_link_timeout = int(timeout)

    def set_gone_link(self, uri: str) -> None:
        """Have the proxy POST to `uri` when the stream ends (Pushpin >= 1.41)."""
        headers.link_header(uri, rel="gone")
        self.gone_link = uri

    def set_status(self, code: int, reason: str = "") -> None:
        """The status the client gets, where the answer itself has to be 200."""
        if not 100 <= code <= 999 or not reason.isprintable() or not reason.isascii():
            raise ValueError(
                f"A status is 100-999 and printable ASCII; got {code} {reason!r}."
            )
        self.status = (code, reason)

    def headers(self, prefix: str = "") -> dict[str, str]:
        """The Grip-* headers of this instruction, `prefix` before each channel."""
        found = {}
        if self.channels:
            found["Grip-Channel"] = headers.channel_header(
                (prefix + channel.name, channel.prev_id, channel.filters)
                for channel in self.channels
            )
        if self.hold:
            found["Grip-Hold"] = self.hold
            if self.timeout > 0:
                found["Grip-Timeout"] = str(self.timeout)
            if self.keep_alive:
                found["Grip-Keep-Alive"] = headers.keep_alive_header(
                    self.keep_alive, self.keep_alive_timeout, self.keep_alive_mode
                )
        if self.meta:
            found["Grip-Set-Meta"] = headers.meta_header(self.meta)
        links = []
        if self.next_link:
            timeout = self.next_link_timeout or None
            links.append(headers.link_header(self.next_link, timeout))
        if self.gone_link:
            links.append(headers.link_header(self.gone_link, rel="gone"))
        if links:
            found["Grip-Link"] = ", ".join(links)
        if self.status is not None:
            found["Grip-Status"] = " ".join(map(str, self.status)).strip()
        if self.expose_headers:
            found["Grip-Expose-Headers"] = ", ".join(self.expose_headers)
        return found


@dataclass
class GripData:
    """`request.grip`: what the proxy said of a request, and what to answer it.

    `proxied`: the request came through a GRIP proxy; `signed`: and its signature
    verified. `features` is what the proxy announces; `last` maps channels (with
    GRIP_PREFIX) to the last id the proxy saw, of proxied requests only.
    """

    proxied: bool = False
    signed: bool = False
    features: frozenset[str] = frozenset()
    last: dict[str, str] = field(default_factory=dict)
    instruct: GripInstruct | None = None

    def start_instruct(self) -> GripInstruct:
        """Begin the one instruction this request may have.

        Raises ValueError if there is one already.
        """
        if self.instruct is not None:
            raise ValueError(
                "This request has a GRIP instruction already: set one hold for each "
                "request, or change request.grip.instruct."
            )
        self.instruct = GripInstruct()
        return self.instruct


def set_hold_longpoll(
    request: HttpRequest, channels: Channels, timeout: float | None = None
) -> None:
    """Hold this request until something is published or time runs out.

    The response you return is what the client gets if nothing is published.
    `timeout` is in seconds; None leaves the choice to the proxy (Pushpin: 55).

    Raises ValueError if the request is held already, or for channels that cannot be
    named on the wire. See https://pushpin.org/docs/protocols/grip/
    """
    instruct = _start(request)
    instruct.add_channels(channels)
    instruct.set_hold_longpoll(timeout=timeout)


def set_hold_stream(
    request: HttpRequest,
    channels: Channels,
    keep_alive_data: str | bytes | None = None,
    keep_alive_timeout: float | None = None,
) -> None:
    """Hold this request open and send it every item published to `channels`.

    The response you return is the beginning of the stream. With `keep_alive_data`
    the proxy sends that after each `keep_alive_timeout` seconds of silence.

    Raises ValueError if the request is held already, if only one of the two
    keep-alive arguments is given, or for channels that cannot be named on the wire.
    """
    if (keep_alive_data is None) != (keep_alive_timeout is None):
        raise ValueError(
            "keep_alive_data and keep_alive_timeout go together; got "
            f"{keep_alive_data!r} and {keep_alive_timeout!r} (seconds, e.g. 20)."
        )
    instruct = _start(request)
    instruct.add_channels(channels)
    instruct.set_hold_stream()
    if keep_alive_data is not None and keep_alive_timeout is not None:
        instruct.set_keep_alive(keep_alive_data, timeout=keep_alive_timeout)


def _start(request: HttpRequest) -> GripInstruct:
    grip: GripData | None = getattr(request, "grip", None)
    if grip is None:
        raise TypeError(
            "The request has no `grip`: put 'django_grip.GripMiddleware' near the top "
            "of MIDDLEWARE."
        )
    return grip.start_instruct()
