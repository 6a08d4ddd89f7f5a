"""A TCP address as people write it: `host:port`, `:port`, `port`, `[v6]:port`. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True)
class Address:
    """Where to listen. An empty host means every IPv4 interface; port 0, any free."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def reachable(self) -> Address:
        """The address a client on this machine connects to."""
        if self.host in ("", "0", "0.0.0.0"):
            return Address("127.0.0.1", self.port)
        if self.host == "::":
            return Address("::1", self.port)
        return self


def parse_address(text: str) -> Address:
    """Return the Address written as `host:port`, `[v6]:port`, `:port` or `port`.

    Raises ValueError for anything else. A port alone, with or without colon, means
    every interface when the colon is there and 127.0.0.1 when it is not.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    is_port = port.isascii() and port.isdigit() and int(port) <= 65535
    if not is_port or (":" in host and not bracketed):
        raise ValueError(
            f"An address is host:port, [v6]:port, :port or port; got {text!r}. "
            "Example: 127.0.0.1:7999."
        )
    if bracketed:
        host = host[1:-1]
    return Address(host if colon else "127.0.0.1", int(port))


def is_loopback(host: str) -> bool:
    """Whether the host name or address is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
