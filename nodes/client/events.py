"""Following an application's events by its query `events`: which page to ask for next.

Always: events are yielded in the order (sequence, index, effect), each once. At the newest end replicas are
a block or two apart, and an answer "all there is" differs between them; a page that is full does not. So
when q equal answers do not come, a shorter page is asked for, down to one event. Deliberately elsewhere:
asking (`nodes.client.aio`, `nodes.client.sync`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from nodes.client.errors import ClientError

Cursor = tuple[int, int, int]
"""(sequence, index, effect) of an event."""
Event = dict[str, Any]
PAGE_MAX = 128
POLL_S = 5.0
"""Ask at least this often, even when no attestation is seen."""
POLL_SOON_S = 0.1
QUERY_TIMEOUT_MS = 2_000
"""Short: what follows is a shorter page."""


class EventReader:
    """The position in the stream of events, and the page size."""

    def __init__(self, filters: dict[str, Any], after: Cursor | None) -> None:
        self._filters = filters
        self._after = after
        self._limit = PAGE_MAX
        self.timeout_ms = QUERY_TIMEOUT_MS
        self.poll_s = POLL_S
        """How long to wait for a new block before asking again."""

    @property
    def after(self) -> Cursor | None:
        return self._after

    def query(self) -> dict[str, Any]:
        query: dict[str, Any] = {"query": "events", **self._filters, "limit": self._limit}
        if self._after is not None:
            query["after"] = list(self._after)
        return query

    def disagreed(self) -> None:
        """No q equal answers: a shorter page, soon."""
        self._limit = max(1, self._limit // 8)
        self.poll_s = POLL_SOON_S

    def take(self, result: bytes) -> tuple[list[Event], bool]:
        """(events of a page, is there more?). ClientError when the application refuses the query."""
        page = msgspec.json.decode(result)
        if "error" in page:
            raise ClientError(page["error"], "the application does not answer this query for events")
        events: list[Event] = page["events"]
        if events:
            self._after = cursor_of(events[-1])
        full = len(events) >= self._limit
        self._limit = min(PAGE_MAX, self._limit * 2) if full else PAGE_MAX
        self.poll_s = POLL_S
        return events, full or bool(page.get("next"))


def cursor_of(event: Event) -> Cursor:
    """The place of an event in the stream."""
    return event["sequence"], event["index"], event["effect"]
