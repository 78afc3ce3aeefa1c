"""One client session: which (sequence, floor) the next request gets, and when it must wait.

Always: floor <= every sequence that is still wanted; at most `OUTSTANDING_MAX` are in flight; the distance
from floor to the newest sequence stays inside the window that replicas keep (protocol.md section 3), so a
correct client never meets `window_exceeded`. One session per process: two processes sharing one would
refuse each other's sequences. Deliberately elsewhere: signing (`nodes.client.core`).
"""

from __future__ import annotations

from typing import NamedTuple

OUTSTANDING_MAX = 64
"""Requests in flight; replicas refuse more than this per key."""
UNKNOWN_KEPT = 128
"""How many sequences later an operation of unknown outcome is given up, so that it can no longer happen."""


class Place(NamedTuple):
    """The session fields of one request."""

    session: int
    sequence: int
    floor: int


class Session:
    """Sequences 1, 2, 3, ... of one session id."""

    def __init__(self, session_id: int, *, window: int, outstanding_max: int = OUTSTANDING_MAX) -> None:
        self.id = session_id
        self._next = 1
        self._window = window
        self._outstanding_max = outstanding_max
        self._outstanding: dict[int, None] = {}
        self._unknown: dict[int, None] = {}

    @property
    def outstanding(self) -> int:
        return len(self._outstanding)

    def has_room(self) -> bool:
        """Whether `take` may be called: a place is free and the window would not be overrun."""
        oldest = next(iter(self._outstanding), self._next)
        return len(self._outstanding) < self._outstanding_max and self._next - oldest < self._window - UNKNOWN_KEPT

    def take(self, *, raise_floor: bool = False) -> Place:
        """The next place. `raise_floor`: the floor is the sequence itself, which cancels all before it.

        Call only while `has_room`, and with `raise_floor` only while nothing is outstanding.
        """
        assert self.has_room()
        sequence = self._next
        self._next += 1
        if raise_floor:
            assert not self._outstanding
            self._unknown.clear()
        while self._unknown and sequence - next(iter(self._unknown)) >= UNKNOWN_KEPT:
            del self._unknown[next(iter(self._unknown))]
        self._outstanding[sequence] = None
        floor = min(next(iter(self._outstanding)), next(iter(self._unknown), sequence))
        return Place(self.id, sequence, floor)

    def finish(self, sequence: int) -> None:
        """Its outcome is known: it no longer holds the floor down."""
        self._outstanding.pop(sequence, None)
        self._unknown.pop(sequence, None)

    def lose(self, sequence: int) -> None:
        """Its outcome is unknown: it holds the floor for `UNKNOWN_KEPT` more sequences, so that it can be retried."""
        if sequence in self._outstanding:
            del self._outstanding[sequence]
            self._unknown[sequence] = None
            self._unknown = dict.fromkeys(sorted(self._unknown))
