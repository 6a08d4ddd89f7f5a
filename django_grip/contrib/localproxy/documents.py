"""Instructions as a JSON body, `application/grip-instruct`. Pure.

See https://pushpin.org/docs/protocols/grip/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from django_grip.contrib.localproxy.instructions import (
    KEEP_ALIVE_TIMEOUT,
    RESPONSE_TIMEOUT,
    Channel,
    Instruction,
    InstructionError,
    KeepAlive,
    Replacement,
    hold_of,
    known_channels,
    lenient_base64,
    parse_instruction,
    reason_phrase,
    response_timeout,
)

INSTRUCT_TYPE = "application/grip-instruct"


def is_document(headers: Mapping[str, str]) -> bool:
    """Whether the body, not only the headers, is an instruction."""
    media_type = headers.get("Content-Type", "").partition(";")[0]
    return media_type.strip().lower() == INSTRUCT_TYPE


def parse_document(
    status: int, headers: Iterable[tuple[str, str]], body: bytes
) -> Instruction:
    """Return what an application/grip-instruct answer asks for.

    Link, status and exposed headers still come from the real headers. Raises
    InstructionError where Pushpin answers 502.
    """
    instruction = parse_instruction(headers)
    if status != 200:
        raise InstructionError(f"{INSTRUCT_TYPE} needs the status 200; got {status}.")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise InstructionError(f"The body of {INSTRUCT_TYPE} is not JSON.") from exc
    document = _of_type(document, dict, "document")
    instruction = replace(
        instruction, replacement=_replacement(_member(document, "response", dict, {}))
    )
    if "hold" not in document:
        return instruction
    hold = _member(document, "hold", dict, {})
    channels, ignored = known_channels(
        [_channel(each) for each in _member(hold, "channels", list, None)]
    )
    meta = _member(hold, "meta", dict, {})
    return replace(
        instruction,
        hold=hold_of(_member(hold, "mode", str, "response")),
        channels=tuple(channels),
        timeout=response_timeout(str(_member(hold, "timeout", int, RESPONSE_TIMEOUT))),
        keep_alive=_keep_alive(hold),
        meta={
            name: _of_type(value, str, "value of meta") for name, value in meta.items()
        },
        ignored=tuple(ignored),
    )


def _of_type(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise InstructionError(
            f"A {what} of {INSTRUCT_TYPE} is a {kind.__name__}; got {value!r}."
        )
    return value


def _member(found: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
    return _of_type(found.get(key, default), kind, key)


def _content(found: Mapping[str, Any], key: str) -> bytes:
    if f"{key}-bin" in found:
        return lenient_base64(_member(found, f"{key}-bin", str, "").encode())
    content: str = _member(found, key, str, "")
    return content.encode("utf-8", "replace")


def _channel(found: Any) -> Channel:
    channel = _of_type(found, dict, "channel")
    prev_id = _member(channel, "prev-id", str, "") if "prev-id" in channel else None
    filters = _member(channel, "filters", list, [])
    return Channel(
        name=_member(channel, "name", str, None),
        prev_id=prev_id,
        filters=tuple(_of_type(name, str, "filter") for name in filters),
    )


def _keep_alive(hold: Mapping[str, Any]) -> KeepAlive | None:
    if "keep-alive" not in hold:
        return None
    found = _member(hold, "keep-alive", dict, {})
    timeout = _member(found, "timeout", int, KEEP_ALIVE_TIMEOUT)
    return KeepAlive(
        content=_content(found, "content"), timeout=max(timeout, 1), mode="interval"
    )


def _replacement(found: Mapping[str, Any]) -> Replacement:
    headers = found.get("headers", {})
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    for pair in _of_type(pairs, list, "headers"):
        if len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise InstructionError(f"A header is a pair of strings; got {pair!r}.")
    code = _member(found, "code", int, 200)
    return Replacement(
        code=code,
        reason=_member(found, "reason", str, "") or reason_phrase(code),
        headers=tuple((name, value) for name, value in pairs),
        body=_content(found, "body"),
    )
