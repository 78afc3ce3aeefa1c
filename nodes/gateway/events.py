"""Server-sent events: one reader of the application's events, many subscribers.

Always: a subscriber sees each event once, in order, from where its Last-Event-ID says, at any node. The hub
keeps the newest events; who is further behind (or asks for the past) reads pages with queries of its own
until it is near. So memory does not grow with the subscribers or their slowness. The pump runs only while
somebody listens.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import structlog

from nodes.client.aio import Client
from nodes.client.errors import ClientError, NoQuorum
from nodes.client.events import Cursor, Event, EventReader, cursor_of

SUBSCRIBERS_MAX = 256
RECENT_MAX = 4_096
KEEP_ALIVE_S = 15.0
START: Cursor = (0, 0, -1)


class TooManySubscribersError(Exception):
    """The bound of subscribers is reached."""


class EventHub:
    """The newest events and those who wait for more."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._recent: deque[Event] = deque(maxlen=RECENT_MAX)
        self._base: Cursor | None = None
        """Every event after this is in `_recent`; None while the pump does not run."""
        self._changed = asyncio.Condition()
        self._pump: asyncio.Task[None] | None = None
        self._failure: ClientError | None = None
        self.subscribers = 0
        self._log = structlog.get_logger("gateway")

    @asynccontextmanager
    async def subscribe(
        self, after: Cursor | None, filters: dict[str, str]
    ) -> AsyncGenerator[AsyncGenerator[Event | None, None], None]:
        """Events after a place (None: from now on); None is yielded when there was none for `KEEP_ALIVE_S`."""
        if self.subscribers >= SUBSCRIBERS_MAX:
            raise TooManySubscribersError
        self.subscribers += 1
        try:
            await self._start()
            position = self._newest() if after is None else after
            async with aclosing(self._follow(position, filters)) as events:
                yield events
        finally:
            self.subscribers -= 1
            if self.subscribers == 0:
                await self.close()

    async def close(self) -> None:
        """Stop the pump."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            with suppress(asyncio.CancelledError):
                await pump
        self._base = None
        self._recent.clear()

    async def _start(self) -> None:
        """Run the pump; returns once the newest place is known. ClientError when it cannot be found out."""
        if self._pump is None or self._pump.done():
            self._failure = None
            self._base = None
            self._recent.clear()
            self._pump = asyncio.create_task(self._run())
        async with self._changed:
            await self._changed.wait_for(lambda: self._base is not None or self._failure is not None)
        if self._failure is not None:
            raise self._failure

    def _newest(self) -> Cursor:
        assert self._base is not None
        return cursor_of(self._recent[-1]) if self._recent else self._base

    async def _run(self) -> None:
        try:
            newest = await self._client.query({"query": "events", "order": "descending", "limit": 1})
            page = msgspec.json.decode(newest.result)
            if "error" in page:
                raise ClientError(page["error"], "the application answers no query for events")
            base = cursor_of(page["events"][0]) if page["events"] else START
            async with self._changed:
                self._base = base
                self._changed.notify_all()
            async with aclosing(self._client.events(after=base)) as events:
                async for event in events:
                    async with self._changed:
                        if len(self._recent) == RECENT_MAX:
                            self._base = cursor_of(self._recent[0])
                        self._recent.append(event)
                        self._changed.notify_all()
        except ClientError as error:
            self._log.warning("event stream stopped", code=error.code, detail=error.detail)
            async with self._changed:
                self._failure = error
                self._changed.notify_all()

    async def _follow(self, position: Cursor, filters: dict[str, str]) -> AsyncGenerator[Event | None, None]:
        while True:
            if self._base is not None and position < self._base:
                target = self._base
                async for event in self._past(position, target, filters):
                    yield event
                position = target
                continue
            news = [event for event in self._recent if cursor_of(event) > position]
            if news:
                position = cursor_of(news[-1])
                for event in news:
                    if all(event.get(name) == value for name, value in filters.items()):
                        yield event
                continue
            if self._failure is not None:
                raise self._failure
            try:
                async with asyncio.timeout(KEEP_ALIVE_S), self._changed:
                    await self._changed.wait_for(partial(self._is_news, position))
            except TimeoutError:
                yield None

    def _is_news(self, position: Cursor) -> bool:
        return self._failure is not None or self._base is None or self._newest() > position

    async def _past(self, position: Cursor, target: Cursor, filters: dict[str, str]) -> AsyncGenerator[Event, None]:
        """Pages up to `target`, the event before the hub's oldest; what comes after it is left to the hub."""
        reader = EventReader(dict[str, Any](filters), position if position > START else None)
        more = True
        while more:
            try:
                answer = await self._client.query(reader.query(), timeout_ms=reader.timeout_ms)
            except NoQuorum:
                reader.disagreed()
                await asyncio.sleep(reader.poll_s)
                continue
            events, more = reader.take(answer.result)
            for event in events:
                if cursor_of(event) > target:
                    return
                yield event


def event_id(event: Event) -> str:
    """`sequence-index-effect`, the id that resumes the stream."""
    return "-".join(map(str, cursor_of(event)))


def parse_event_id(text: str) -> Cursor:
    """ValueError for anything but what `event_id` writes."""
    parts = text.split("-")
    if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and len(part) <= 16 for part in parts):
        raise ValueError(f"{text[:60]!r} is not an event id (sequence-index-effect)")
    return int(parts[0]), int(parts[1]), int(parts[2])
