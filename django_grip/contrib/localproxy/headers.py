"""Which headers go on to the origin and which to the client. Pure."""

from __future__ import annotations

from collections.abc import Iterable

Headers = list[tuple[str, str]]

HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
"""Headers that speak about one connection only (RFC 9110, 7.6.1)."""

# Accept-Encoding: a compressed answer could not be held, see InstructionError.
# X-Forwarded-Proto: clients come over plain HTTP, so any value is a forgery.
_NOT_FROM_CLIENTS = frozenset(("accept-encoding", "expect", "x-forwarded-proto"))

_NOT_OF_HOLDS = frozenset(("content-length", "content-encoding"))


def is_grip(name: str) -> bool:
    """Whether this is a GRIP header; `Grip_Sig` too, as WSGI takes it for Grip-Sig."""
    return name.lower().replace("_", "-").startswith("grip-")


def to_origin(headers: Iterable[tuple[str, str]]) -> Headers:
    """The client's headers without those that only a proxy may send."""
    headers = list(headers)
    dropped = HOP_BY_HOP | _NOT_FROM_CLIENTS | _named_by_connection(headers)
    return [
        (name, sendable(value))
        for name, value in headers
        if name.lower() not in dropped and not is_grip(name)
    ]


def to_client(
    headers: Iterable[tuple[str, str]],
    *,
    held: bool = False,
    exposed: frozenset[str] | None = None,
) -> Headers:
    """The origin's headers without the GRIP ones.

    A `held` answer also loses its length. `exposed` (lower case) is the content of
    Grip-Expose-Headers: then only these remain, and the length.
    """
    headers = list(headers)
    dropped = HOP_BY_HOP | _named_by_connection(headers)
    if held:
        dropped |= _NOT_OF_HOLDS
    return [
        (name, sendable(value))
        for name, value in headers
        if name.lower() not in dropped
        and not is_grip(name)
        and (exposed is None or name.lower() in exposed | {"content-length"})
    ]


def merged(held: Headers, published: Iterable[tuple[str, str]]) -> Headers:
    """The held headers, where published ones replace those of the same name.

    A published Grip-Expose-Headers names held headers to be left out.
    """
    published = list(published)
    replaced = {name.lower() for name, _ in published}
    for name, value in published:
        if name.lower() == "grip-expose-headers":
            replaced |= {each.strip().lower() for each in value.split(",")}
    kept = [(name, value) for name, value in held if name.lower() not in replaced]
    return to_client([*kept, *published], held=True)


def sendable(value: str) -> str:
    """The value in a form that aiohttp can send.

    aiohttp reads headers as UTF-8 and drops what is not when it writes; Django writes
    Latin-1. Such bytes are taken for Latin-1 here, and leave as UTF-8.
    """
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _named_by_connection(headers: Headers) -> frozenset[str]:
    return frozenset(
        option.strip().lower()
        for name, value in headers
        if name.lower() == "connection"
        for option in value.split(",")
        # A length that went missing would let the body be read as a second request.
        if option.strip().lower() not in ("content-length", "host")
    )
