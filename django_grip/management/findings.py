"""Findings: what `grip_check` says of what it measured. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import responses
from typing import Literal

from django_grip.proxies import Proxy
from django_grip.publishers.endpoint import Answer
from django_grip.roundtrip import DEFAULT_KEY, Sighting

Level = Literal["OK", "WARNING", "FAILED"]

KEY_BYTES_MIN = 32
"""Bytes of a shared secret for HS256: RFC 7518, section 3.2."""

SKEW_MAX = 60
"""Seconds between the clocks that are not worth a word: proxies reuse a Grip-Sig."""

STALL_GAP = 0.02
"""Seconds: publishes closer than this stall the limiter. It waits for 0.025."""

STALL_RUN_MIN = 10
"""Publishes in a row, none later than STALL_GAP, that are enough to see a stall."""

PACED_INTERVAL = 0.03
"""The least GRIP_PUBLISH_INTERVAL, in seconds, that suits the limiter."""


@dataclass(frozen=True)
class Finding:
    """One line for the operator, and below it the cure."""

    level: Level
    subject: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        line = _printable(f"{self.level:<8} {self.subject}: {self.text}")
        return f"{line}\n{'':9}Cure: {_printable(self.cure)}" if self.cure else line


def keys(proxies: Iterable[Proxy]) -> Iterator[Finding]:
    """What is wrong with the keys of the settings."""
    for proxy in proxies:
        if proxy.verify_key is None:
            yield Finding(
                "WARNING",
                "key",
                "expected one for each proxy; found a proxy without, so whoever "
                "reaches Django past the proxy can pretend to be the proxy.",
                "Set sig_key in pushpin.conf, and the same as `key` in GRIP_PROXIES.",
            )
            continue
        key = _bytes(proxy.verify_key)
        if key.startswith(b"base64:"):
            yield Finding(
                "WARNING",
                "key",
                "expected the secret itself; found a text that begins with base64:, "
                "which only GRIP_URL and pushpin.conf decode.",
                "In GRIP_PROXIES write base64.b64decode('…') of what follows it.",
            )
        if DEFAULT_KEY in (key.lower().replace(b"-", b""), _bytes(proxy.key or "")):
            yield Finding(
                "FAILED",
                "key",
                "expected a secret; found the one that Pushpin is installed with, "
                "which everybody knows.",
                "Set sig_key in pushpin.conf and the key in Django's settings to "
                "the output of: openssl rand -hex 32",
            )
        elif len(key) < KEY_BYTES_MIN and not key.startswith(b"-----BEGIN"):
            yield Finding(
                "WARNING",
                "key",
                f"expected {KEY_BYTES_MIN} bytes or more; found {len(key)}, which can "
                "be guessed from one Grip-Sig.",
                "Set sig_key in pushpin.conf and the key in Django's settings to "
                "the output of: openssl rand -hex 32",
            )


def control_port(address: str, answer: Answer) -> Finding:
    """What a control port says to an empty batch, posted with our authorization."""
    subject = f"control port {address}"
    if answer.is_accepted:
        return Finding("OK", subject, "takes what we publish.")
    expected = "expected HTTP 200 to an empty batch; found"
    if answer.is_bad_batch:
        return Finding(
            "WARNING",
            subject,
            f"{expected} {_sentence(answer.reason)}",
            "Not every service takes an empty batch: see whether a publish arrives.",
        )
    if not answer.status:
        cure = "Start the proxy, or correct the address in GRIP_PROXIES or GRIP_URL."
    elif answer.status in (401, 403):
        cure = (
            "Correct the `key` in GRIP_PROXIES or GRIP_URL: it authorises publishing."
        )
    elif answer.is_transient:
        cure = "Look into the log of the proxy."
    else:
        cure = (
            "Is this the control port (Pushpin: push_in_http_port, 5561), and not the "
            "one for clients (7999)? Correct GRIP_PROXIES or GRIP_URL."
        )
    return Finding("FAILED", subject, f"{expected} {_sentence(answer.reason)}", cure)


def exposure(address: str, open_to: Sequence[str]) -> Finding:
    """Whether a control port on loopback answers on other addresses of this machine."""
    subject = f"control port {address}"
    if not open_to:
        return Finding("OK", subject, "answers on this machine only.")
    return Finding(
        "WARNING",
        subject,
        "expected to answer on this machine only; found it to answer on "
        f"{', '.join(open_to)} as well: who reaches that can publish to everybody.",
        "Set push_in_http_addr=127.0.0.1 in pushpin.conf, or close the port in the "
        "firewall.",
    )


def remote_control(address: str, is_public: bool, is_encrypted: bool) -> Finding:
    """What to say of a control port that is not on loopback."""
    subject = f"control port {address}"
    if is_public and not is_encrypted:
        return Finding(
            "WARNING",
            subject,
            "expected https:// or a private network; found http:// to a public "
            "address: anyone on the way can read and publish.",
            "Move the control port to a private network or a tunnel, or put https "
            "in front of it.",
        )
    if is_encrypted:
        return Finding("OK", subject, "is asked through TLS.")
    return Finding(
        "OK",
        subject,
        "is on a private network. Pushpin asks for no key there: let only Django "
        "reach it.",
    )


def unasked(address: str) -> Finding:
    """There is no URL for the round trip."""
    return Finding(
        "WARNING",
        f"round trip of {address}",
        "expected the address at which clients reach this proxy; found none, so "
        "nothing beyond the control port was checked.",
        "Give it: manage.py grip_check --url https://…",
    )


def unreachable(url: str, reason: str) -> Finding:
    """Nobody answers at the address for clients, or nobody in time."""
    return Finding(
        "FAILED",
        f"round trip through {url}",
        f"expected an answer of this Django; found {_sentence(reason)}",
        "Start the proxy, or give its address for clients with --url. If it takes the "
        "connection and never answers: can it reach Django (Pushpin: routes), and "
        "does zurl run, through which Debian's Pushpin sends requests?",
    )


def strange(url: str, status: int, location: str) -> Finding:
    """The answer is not one of GripMiddleware's to the check."""
    found = f"HTTP {status} {responses.get(status, '')}".strip()
    if location:
        found += f" to {location}"
        cure = "Give the address that needs no redirect with --url."
    elif status in (502, 503, 504):
        cure = "The proxy does not reach Django: see its target (Pushpin: routes)."
    else:
        cure = (
            "Does --url lead to the proxy, and the proxy to this Django? Then the "
            "request had no Grip-Sig (Pushpin: sig_key is empty, or the route says "
            "no_grip), GripMiddleware is not at the top of MIDDLEWARE, or the "
            "settings there are others (SECRET_KEY)."
        )
    return Finding(
        "FAILED",
        f"round trip through {url}",
        f"expected an answer of this Django; found {found} without it.",
        cure,
    )


def buffered(url: str) -> Finding:
    """The head of the answer came, and its first line did not."""
    return Finding(
        "FAILED",
        f"round trip through {url}",
        "expected the beginning of a stream; found a head without a body: something "
        "between proxy and client holds it back.",
        "Turn buffering off there (nginx: proxy_buffering off).",
    )


def sighting(url: str, seen: Sighting, channel: str) -> Iterator[Finding]:
    """What Django saw of the request. `channel` has the GRIP_PREFIX of this command."""
    if seen.signed:
        yield Finding(
            "OK",
            f"round trip through {url}",
            "reached this Django with a valid Grip-Sig.",
        )
    elif seen.proxied:
        yield Finding(
            "OK", f"round trip through {url}", "reached this Django, unverified."
        )
    else:
        yield _refusal(url, seen)
    if seen.skew is not None and abs(seen.skew) > SKEW_MAX and _is_hourly(seen):
        ahead = "ahead of" if seen.skew > 0 else "behind"
        yield Finding(
            "WARNING",
            f"clock of {url}",
            f"expected within {SKEW_MAX} s of Django's; found {abs(seen.skew):.0f} s "
            f"{ahead} it.",
            "Synchronise both machines (NTP).",
        )
    if seen.channel != channel:
        yield Finding(
            "FAILED",
            "GRIP_PREFIX",
            f"expected Django to hold {channel}; found {seen.channel}, so what is "
            "published with these settings reaches nobody.",
            "Run this command with the settings of the Django that serves.",
        )


def unheld(url: str) -> Finding:
    """Django had the request held, and the stream ended."""
    return Finding(
        "FAILED",
        f"stream through {url}",
        "expected to be held; found its end at once: what is in front of Django does "
        "not follow Grip-Hold.",
        "Route this path to the proxy (Pushpin: without no_grip).",
    )


def arrival(url: str, delay: float | None, reason: str) -> Finding:
    """A publish that was made while the stream was held, and came after `delay` s."""
    subject = f"stream through {url}"
    if delay is not None:
        return Finding("OK", subject, f"a publish arrived after {_ms(delay)}.")
    return Finding(
        "FAILED",
        subject,
        "expected what publish() sent; found nothing"
        + (f": {_sentence(reason)}" if reason else "."),
        "Do control port and --url belong to one Pushpin, its route without prefix=? "
        "Is GRIP_PUBLISHER the HTTP one? Does a box in between buffer (nginx: "
        "proxy_buffering off)?",
    )


@dataclass(frozen=True)
class Burst:
    """Publishes some milliseconds apart, and what became of them.

    `answered` and `arrived` map the number of an item to a moment, in seconds. What
    had not arrived at `until` counts as if it came then.
    """

    answered: Mapping[int, float]
    arrived: Mapping[int, float]
    until: float

    @property
    def delays(self) -> list[float]:
        """Seconds from answer to arrival, in order."""
        return sorted(self._delay(number) for number in self.answered)

    @property
    def is_stalled(self) -> bool | None:
        """Whether items waited for the end of the run they came in; None: too few.

        What a network adds is in every delay, so the least is taken off. In a stall
        the median waits for half of the run, else for as good as nothing.
        """
        run = self._longest_run()
        if len(run) < STALL_RUN_MIN:
            return None
        length = self.answered[run[-1]] - self.answered[run[0]]
        delays = [self._delay(number) for number in run]
        return statistics.median(delays) - min(delays) > length / 4

    def _longest_run(self) -> list[int]:
        longest: list[int] = []
        run: list[int] = []
        for number in sorted(self.answered, key=self.answered.__getitem__):
            moment = self.answered[number]
            if run and moment - self.answered[run[-1]] > STALL_GAP:
                run = []
            run.append(number)
            if len(run) > len(longest):
                longest = run
        return longest

    def _delay(self, number: int) -> float:
        return self.arrived.get(number, self.until) - self.answered[number]


def stall(url: str, bursts: Sequence[Burst], interval: float) -> Finding:
    """What the bursts say, with this GRIP_PUBLISH_INTERVAL in seconds."""
    subject = f"limiter of {url}"
    stalled = next((burst for burst in bursts if burst.is_stalled), None)
    if stalled is not None:
        delays = stalled.delays
        return Finding(
            "FAILED" if interval < PACED_INTERVAL else "WARNING",
            subject,
            "expected each item as it is published; found that it stalls: 10 ms apart, "
            f"items waited {_ms(statistics.median(delays))} (median), "
            f"{_ms(delays[-1])} (longest).",
            "Set message_rate=0 in pushpin.conf and GRIP_PUBLISH_INTERVAL = 0.005, or "
            f"keep GRIP_PUBLISH_INTERVAL >= {PACED_INTERVAL} (it is {interval:g}).",
        )
    measured = [burst for burst in bursts if burst.is_stalled is False]
    if not measured:
        return Finding(
            "WARNING",
            subject,
            "expected items 10 ms apart; found none close enough, so whether it stalls "
            "is not known: this machine or the network is too slow now.",
            f"Try again, and keep GRIP_PUBLISH_INTERVAL >= {PACED_INTERVAL} meanwhile.",
        )
    text = (
        "does not stall: 10 ms apart, items arrived after "
        f"{_ms(statistics.median(measured[-1].delays))} (median)."
    )
    if interval > 0.005:
        text += f" GRIP_PUBLISH_INTERVAL = 0.005 gives less delay (it is {interval:g})."
    return Finding("OK", subject, text)


def _refusal(url: str, seen: Sighting) -> Finding:
    """Why Django did not take the request for one of the proxy."""
    for name, found, cure in _REFUSALS:
        if name not in seen.refusals:
            continue
        if name == "InvalidSignatureError" and seen.is_default_key:
            found = "one by changeme, the key that Pushpin is installed with"
        return Finding(
            "FAILED",
            f"round trip through {url}",
            "reached this Django, where a Grip-Sig by a key of the settings was "
            f"expected; found {found}.",
            cure,
        )
    reason = ", ".join(seen.refusals) or "one that nothing in its settings verifies"
    return Finding(
        "FAILED",
        f"round trip through {url}",
        "reached this Django, where a Grip-Sig by a key of the settings was expected; "
        f"found {reason}.",
        "Run this command with the settings of the Django that serves, and set sig_key "
        "of the proxy to the key of the settings.",
    )


_SAME_KEY = (
    "Set sig_key in pushpin.conf and the key in Django's settings to the same secret, "
    "and restart both. base64: is decoded in pushpin.conf and GRIP_URL; in "
    "GRIP_PROXIES write the decoded bytes."
)
_REFUSALS = (
    # In this order: a signature that verified tells most.
    (
        "ExpiredSignatureError",
        "one that has expired: the clocks are an hour apart, or a box in between "
        "repeats old requests",
        "Synchronise both machines (NTP).",
    ),
    (
        "InvalidIssuerError",
        "one by another issuer",
        "Set verify_iss (GRIP_URL: verify-iss) to the proxy's issuer: sig_iss in "
        "pushpin.conf, fastly:<service id> at Fastly.",
    ),
    (
        "MissingRequiredClaimError",
        "one without expiry or issuer",
        "Is there a proxy in front that is no GRIP proxy?",
    ),
    ("InvalidSignatureError", "one by another key", _SAME_KEY),
    (
        "InvalidAlgorithmError",
        "one of another kind of key",
        "Both sides need a shared secret, or the proxy a private key and Django its "
        "public one. Pushpin 1.36 reads of private keys only EC in PKCS#8, and falls "
        "back to changeme in silence.",
    ),
)


def _is_hourly(seen: Sighting) -> bool:
    return not seen.issuer.startswith("fastly")


def _bytes(key: str | bytes) -> bytes:
    return key.encode() if isinstance(key, str) else key


def _printable(text: str) -> str:
    # Some of it comes from servers that may be anything.
    return "".join(char if char.isprintable() else " " for char in text)


def _ms(seconds: float) -> str:
    # An item may arrive before the answer to its POST does.
    return f"{max(seconds * 1000, 1):.0f} ms"


def _sentence(reason: str) -> str:
    return " ".join(reason.split()).rstrip(".") + "."
