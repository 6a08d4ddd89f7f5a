"""A held stream after its first body: items, keep-alives and next links in turn."""

from __future__ import annotations

import asyncio
import logging
import random

from aiohttp import web

from django_grip.contrib.localproxy.hub import Hub, Session
from django_grip.contrib.localproxy.instructions import Instruction, Link
from django_grip.contrib.localproxy.items import StreamContent
from django_grip.contrib.localproxy.links import LinkError, Links

logger = logging.getLogger(__name__)


class Stream:
    """Writes to `response` what `session` gets and what the next links answer.

    `changed` is set by the session. `url` is that of the request, absolute and as the
    client knows it: links are relative to it.
    """

    def __init__(
        self,
        hub: Hub,
        links: Links,
        *,
        response: web.StreamResponse,
        session: Session,
        changed: asyncio.Event,
        url: str,
        instruction: Instruction,
    ) -> None:
        self._hub = hub
        self._links = links
        self._response = response
        self._session = session
        self._changed = changed
        self._url = url
        self._loop = asyncio.get_running_loop()
        self._follow_instruction(instruction)

    async def run(self) -> None:
        """Write until the stream ends, by an item, by the origin or by the proxy."""
        while not self._session.ended:
            link = self._instruction.link
            if self._instruction.hold is None:
                if link is None or not await self._follow(link):
                    return
                continue
            if link is None and self._session.last_ids:
                # Nobody could say what was missed, so Pushpin does not begin.
                return
            if await self._write_items():
                return
            if self._session.stale and link is None:
                self._session.renew(self._session.channels.values(), self._session.meta)
            elif link is not None and (self._session.stale or self._is_link_due()):
                if not await self._follow(link):
                    return
            elif not self._session.ended:
                await self._wait()

    def _follow_instruction(self, instruction: Instruction) -> None:
        self._instruction = instruction
        self._keep_alive_due = self._next_keep_alive()
        self._link_due: float | None = None
        if instruction.link is not None:
            # A timeout of 0 would ask without a pause.
            self._link_due = self._loop.time() + max(instruction.link.timeout, 0.1)

    def _next_keep_alive(self) -> float | None:
        # Up to a second early, as in Pushpin, so that not all streams fire together.
        if self._instruction.keep_alive is None:
            return None
        timeout = self._instruction.keep_alive.timeout
        return self._loop.time() + timeout - random.random()

    def _is_link_due(self) -> bool:
        return self._link_due is not None and self._loop.time() >= self._link_due

    async def _write_items(self) -> bool:
        """Write what waits. True if an item closes the stream."""
        self._changed.clear()
        data = bytearray()
        closing = False
        for content in self._session.take():
            if isinstance(content, StreamContent):
                if content.action == "close":
                    closing = True
                    break
                data += content.content
        if data:
            await self._response.write(data)
            keep_alive = self._instruction.keep_alive
            if keep_alive is not None and keep_alive.mode == "idle":
                self._keep_alive_due = self._next_keep_alive()
        return closing

    async def _wait(self) -> None:
        """Wait for the session or the link's time, sending keep-alives meanwhile."""
        due = [at for at in (self._keep_alive_due, self._link_due) if at is not None]
        try:
            async with asyncio.timeout_at(min(due, default=None)):
                await self._changed.wait()
        except TimeoutError:
            keep_alive = self._instruction.keep_alive
            at = self._keep_alive_due
            if keep_alive is not None and at is not None and self._loop.time() >= at:
                await self._response.write(keep_alive.content)
                self._keep_alive_due = self._next_keep_alive()

    async def _follow(self, link: Link) -> bool:
        """Go on as the next link says; items wait. False if it cannot be had."""
        # What came after a gap is in the answer.
        self._session.drop_waiting()
        try:
            found = await self._links.follow(
                self._url, link.uri, self._session.last_ids
            )
        except LinkError as exc:
            logger.warning("%s", exc)
            return False
        if found.body:
            await self._response.write(found.body)
        self._url = found.url
        instruction = found.instruction
        self._follow_instruction(instruction)
        self._hub.resubscribe(
            self._session,
            instruction.channels if instruction.hold else (),
            instruction.meta,
        )
        return True
