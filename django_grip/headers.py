"""Grip-* headers: values to wire text and back. Pure.

The grammar is Pushpin's own, which differs from what the names suggest: a channel
name is taken literally up to the first `,` or `;`, and quotes do not protect it.
Therefore values that would break on the wire are refused here, before they leave.
See https://pushpin.org/docs/protocols/grip/
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Literal

KeepAliveMode = Literal["idle", "interval"]

CHANNELS_MAX = 20
"""Channels one request may hold: Pushpin's connection_subscription_max.

Pushpin subscribes to the first twenty and says nothing about the rest.
"""

_UNSAFE_NAME = re.compile(r'[^\x21-\x7e]|[,;"]')
_UNSAFE_LINK = re.compile(r"[^\x21-\x7e]|[,;<>]")
_UNSAFE_KEY = re.compile(r"[^A-Za-z0-9_-]")


def check_channel(name: str) -> str:
    """Return the channel name if Grip-Channel and Grip-Last can carry it.

    Raises ValueError for an empty name and for `,` `;` `"`, blanks, control and
    non-ASCII characters.
    """
    if not isinstance(name, str):
        raise TypeError(f"A channel name is a str; got {name!r}.")
    if not name:
        raise ValueError("A channel name may not be empty.")
    if found := _UNSAFE_NAME.search(name):
        raise ValueError(
            f"The channel name {name!r} holds {found.group()!r}, which Grip-Channel "
            "cannot carry. Percent-encode it: urllib.parse.quote(name, safe='')."
        )
    return name


def channel_header(channels: Iterable[tuple[str, str | None, Iterable[str]]]) -> str:
    """Grip-Channel from (name, prev_id, filters) triples.

    Raises ValueError for names, ids or filters that would split the header, for no
    channel and for more than CHANNELS_MAX.
    """
    parts = []
    for name, prev_id, filters in channels:
        part = check_channel(name)
        if prev_id is not None:
            part += f"; prev-id={_check_id(prev_id)}"
        for filter_ in filters:
            part += f"; filter={_check_id(filter_)}"
        parts.append(part)
    if len(parts) > CHANNELS_MAX:
        raise ValueError(
            f"{len(parts)} channels in one hold; a proxy takes {CHANNELS_MAX} and "
            "drops the rest in silence. Subscribe to fewer, broader channels."
        )
    return ", ".join(parts)


def _check_id(value: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"An id or filter of a channel is a str; got {value!r}.")
    if not value or _UNSAFE_NAME.search(value):
        raise ValueError(
            f"{value!r} cannot stand in Grip-Channel: expected printable ASCII "
            'without blanks, `,` `;` `"`.'
        )
    return value


def keep_alive_header(
    data: str | bytes, timeout: int, mode: KeepAliveMode = "idle"
) -> str:
    """Grip-Keep-Alive that sends `data` after `timeout` seconds of silence.

    With mode `interval` the seconds are counted whether it was silent or not. Text
    goes as cstring where that can carry it, everything else as base64.
    Raises ValueError for empty data, a timeout below one second or another mode.
    """
    if mode not in ("idle", "interval"):
        raise ValueError(f"The mode of a keep-alive is idle or interval; got {mode!r}.")
    if not data:
        raise ValueError("Keep-alive data may not be empty.")
    if timeout < 1:
        raise ValueError(f"A keep-alive timeout is at least 1 second; got {timeout}.")
    raw = data.encode() if isinstance(data, str) else data
    parameters = f"timeout={timeout}" + ("; mode=interval" if mode != "idle" else "")
    # Anything outside printable ASCII goes as base64: Django writes headers in
    # latin-1, and the proxy trims blanks at either end of the data.
    if re.fullmatch(rb"[\x20-\x7e\r\n]+", raw) and not raw.endswith(b" "):
        text = raw.decode().replace("\\", "\\\\")
        text = text.replace("\r", "\\r").replace("\n", "\\n").replace(";", "\\x3b")
        if not text.startswith(" "):
            return f"{text}; format=cstring; {parameters}"
    return f"{b64encode(raw).decode()}; format=base64; {parameters}"


def meta_header(meta: Mapping[str, str]) -> str:
    """Grip-Set-Meta. Keys are letters, digits, `-`, `_`; values printable ASCII.

    Raises ValueError for what would not survive the wire.
    """
    parts = []
    for key, value in meta.items():
        check_meta(key, value)
        if not value.isascii():
            raise ValueError(f"Meta {key}={value!r}: expected ASCII.")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'{key}="{escaped}"')
    return ", ".join(parts)


def check_meta(name: str, value: str) -> str:
    """The name in lower case, if name and value can stand in a header.

    Raises ValueError otherwise: names are letters, digits, `-` and `_`, values
    printable latin-1.
    """
    if not name or _UNSAFE_KEY.search(name):
        raise ValueError(f"Meta name {name!r}: expected letters, digits, - and _.")
    if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e\xa0-\xff]*", value):
        raise ValueError(
            f"Meta {name}={value!r}: expected a str of printable latin-1. Encode it, "
            "for example with django.core.signing.dumps()."
        )
    return name.lower()


def link_header(
    uri: str, timeout: int | None = None, rel: Literal["next", "gone"] = "next"
) -> str:
    """Grip-Link: `next` continues or heals a stream, `gone` is told of its end.

    `timeout` in seconds is that of `next` (Pushpin: 120). `gone` needs Pushpin 1.41.
    Raises ValueError for a URI the proxy would answer with 502.
    """
    if not uri:
        raise ValueError("The URI of a link may not be empty.")
    if found := _UNSAFE_LINK.search(uri):
        raise ValueError(
            f"The link {uri!r} holds {found.group()!r}, on which the proxy fails "
            "even within <>. Percent-encode it."
        )
    value = f"<{uri}>; rel={rel}"
    return value if timeout is None else f"{value}; timeout={timeout}"


def parse_features(value: str) -> frozenset[str]:
    """Grip-Feature as a set."""
    return frozenset(part.strip() for part in value.split(",") if part.strip())


def parse_last(value: str) -> dict[str, str]:
    """Grip-Last as {channel: last id}; repeated headers arrive joined by commas.

    Elements without a channel or an id are left out.
    """
    last = {}
    for element in value.split(","):
        name, _, parameters = element.partition(";")
        for parameter in parameters.split(";"):
            key, _, id_ = parameter.strip().partition("=")
            if key.lower() == "last-id" and name.strip() and id_:
                last[name.strip()] = id_
    return last
