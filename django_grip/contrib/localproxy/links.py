"""Next links: where the origin tells how a held stream goes on."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from django_grip.contrib.localproxy.documents import is_document, parse_document
from django_grip.contrib.localproxy.instructions import (
    Instruction,
    InstructionError,
    parse_instruction,
)
from django_grip.contrib.localproxy.origin import Origin, OriginError, whole

logger = logging.getLogger(__name__)

RETRY_SECONDS = (1, 2, 4, 8, 16)
"""Pauses, each up to a second longer, between fetches that fail, as in Pushpin."""


class LinkError(Exception):
    """A link gave no answer by which a stream could go on; it has to end."""


@dataclass(frozen=True)
class Continuation:
    """What a link answered: bytes for the client, and what to do from then on."""

    url: str
    instruction: Instruction
    body: bytes


class Links:
    """Fetches next links, one request for all who want the same thing meanwhile."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._fetches: dict[object, asyncio.Task[Continuation]] = {}

    async def follow(
        self, url: str, uri: str, last_ids: Mapping[str, str]
    ) -> Continuation:
        """Return what the link `uri` of the answer to `url` says.

        `url` is absolute, as the client knows it. Raises LinkError when that cannot
        be had.
        """
        target = urljoin(url, uri)
        for pause in (*RETRY_SECONDS, None):
            try:
                return await self._shared(url, target, last_ids)
            except OriginError as exc:
                if pause is None:
                    raise LinkError(f"{target}: {exc} The stream ends.") from exc
                logger.warning("%s: %s It is tried again.", target, exc)
                await asyncio.sleep(pause + random.random())
        raise AssertionError("not reached")

    async def _shared(
        self, url: str, target: str, last_ids: Mapping[str, str]
    ) -> Continuation:
        # As in Pushpin the query does not count: see rule 1 of the GRIP notes.
        key = (target.partition("?")[0], frozenset(last_ids.items()))
        if key not in self._fetches:
            task = asyncio.create_task(self._fetch(url, target, last_ids))
            self._fetches[key] = task
            task.add_done_callback(lambda done: self._fetches.pop(key))
            task.add_done_callback(_look)
        # A client that leaves must not end the fetch for the others.
        return await asyncio.shield(self._fetches[key])

    async def _fetch(
        self, url: str, target: str, last_ids: Mapping[str, str]
    ) -> Continuation:
        parts = urlsplit(target)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        is_ours = parts[:2] == urlsplit(url)[:2]
        answer = await self._origin.ask(
            "GET",
            path,
            [("Host", parts.netloc), ("Accept", "*/*")],
            last_ids=last_ids,
            base=None if is_ours else f"{parts.scheme}://{parts.netloc}",
        )
        body = await whole(answer)
        if not 200 <= answer.status < 300:
            raise OriginError(f"The next link was answered {answer.status}.")
        try:
            if is_document(answer.headers):
                instruction = parse_document(
                    answer.status, answer.headers.items(), body
                )
            else:
                instruction = parse_instruction(answer.headers.items())
        except InstructionError as exc:
            raise LinkError(f"{target}: {exc}") from exc
        if instruction.hold == "response":
            raise LinkError(f"{target}: a next link cannot answer a response hold.")
        if instruction.replacement is not None:
            body = instruction.replacement.body
        return Continuation(target, instruction, body)


def _look(task: asyncio.Task[Continuation]) -> None:
    """Take note of the failure even if nobody waits for it any more."""
    if not task.cancelled():
        task.exception()
