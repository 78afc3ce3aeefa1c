"""Exactly once: which requests may be applied (protocol.md 3), and what is forgotten when.

Decided only here, at execution, from replicated rows and block time. A session remembers the sequences
it has used in a sliding window of 256; an owner remembers the lowest session id that may still be
opened, for ever, so that nothing forgotten can be replayed. Collection by age goes in a fixed order and
in steps of a second of block time, at most so many rows a block, so that every replica forgets the
same rows in the same block. Deliberately elsewhere: duplicates by digest (`execution.py`).
"""

from __future__ import annotations

import struct
from typing import Any

from sqlalchemy import bindparam, literal_column, select

from nodes.codes import Status
from nodes.config import Parameters
from nodes.core.types import Request
from nodes.executor.connection import Connection
from nodes.executor.rows import BlockRows, TableRows
from nodes.executor.tables import BITMAP_BYTES, Session, SessionOwner, results, session_owners, sessions

COLLECTION_STEP_US = 1_000_000
"""Ages are compared with block time rounded down to this, so that most blocks need not look."""
COLLECTED_MAX = 2048
"""Rows of a kind that one block forgets; more than one block can create, so that the backlog shrinks."""


class Sessions:
    """The session rules over one block's rows."""

    def __init__(self, rows: BlockRows, parameters: Parameters) -> None:
        self._rows = rows
        self._sessions_max = parameters.sessions_max
        self._window = parameters.session_window

    def take(self, request: Request, time_us: int) -> Status:
        """Use up the request's sequence number: OK, or why the request may not be applied."""
        rows = self._rows
        state: Session | None = rows.get(sessions, request.client, request.session)
        if state is None:
            if not self._open(request.client, request.session):
                return Status.STALE_SESSION
            low, used = 0, 0
        else:
            low, used = state.low, int.from_bytes(state.bitmap, "little")
        if request.floor > low + 1:
            used >>= request.floor - 1 - low
            low = request.floor - 1
        status = Status.OK
        position = request.sequence - low - 1
        if position < 0:
            status = Status.STALE_SEQUENCE
        elif position >= self._window:
            status = Status.WINDOW_EXCEEDED
        elif used >> position & 1:
            status = Status.SEQUENCE_REUSED
        else:
            used |= 1 << position
            finished = (~used & (used + 1)).bit_length() - 1  # trailing ones
            low += finished
            used >>= finished
        bitmap = used.to_bytes(BITMAP_BYTES, "little")
        rows.put(sessions, Session(request.client, request.session, low, bitmap, time_us))
        return status

    def _open(self, public_key: bytes, session: int) -> bool:
        """Make room for a new session of this key; False when its id is too old."""
        owner: SessionOwner | None = self._rows.get(session_owners, public_key)
        if owner is None:
            owner = SessionOwner(public_key, 0, b"")
            self._rows.put(session_owners, owner)
        if session <= owner.min_session:
            return False
        live = _unpack(owner.live)
        lowest = owner.min_session
        if len(live) >= self._sessions_max:
            evicted = live.pop(0)
            self._rows.delete(sessions, public_key, evicted)
            lowest = max(lowest, evicted)
        live.append(session)
        self._rows.put(session_owners, SessionOwner(public_key, lowest, _pack(live)))
        return True

    def close(self, expired: Session) -> None:
        """Forget a session that was not used for its lifetime."""
        owner: SessionOwner = self._rows.get(session_owners, expired.public_key)
        live = _unpack(owner.live)
        live.remove(expired.session)
        lowest = max(owner.min_session, expired.session)
        self._rows.put(session_owners, SessionOwner(owner.public_key, lowest, _pack(live)))
        self._rows.delete(sessions, expired.public_key, expired.session)


def _unpack(live: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(live) // 8}Q", live))


def _pack(live: list[int]) -> bytes:
    return struct.pack(f"<{len(live)}Q", *sorted(live))


class Collector:
    """Finds the rows of one table that are older than a lifetime, oldest first."""

    def __init__(
        self, rows: TableRows, connection: Connection, age: str, order: tuple[str, ...], lifetime_us: int
    ) -> None:
        columns = rows.table.columns
        statement = select(rows.table).where(columns[age] < bindparam("cutoff"))
        statement = (
            statement.order_by(*(columns[name] for name in order)).limit(bindparam("limit")).offset(literal_column("0"))
        )
        self._sql = rows.statements.compile(statement)
        self._rows = rows
        self._connection = connection
        self._lifetime_us = lifetime_us
        self._done: int | None = None
        self._found: tuple[int, bool] | None = None

    def expired(self, time_us: int) -> list[Any]:
        """The rows to forget in the block of this time; asked before the block changes any row."""
        cutoff = (time_us - self._lifetime_us) // COLLECTION_STEP_US * COLLECTION_STEP_US
        if self._done is not None and cutoff <= self._done:
            self._found = None
            return []
        found = self._rows.adopt(self._connection.rows(self._sql, (cutoff, COLLECTED_MAX)))
        self._found = (cutoff, len(found) < COLLECTED_MAX)
        return found

    def committed(self) -> None:
        """What was found is gone: nothing is left to find before the next step of time."""
        if self._found is not None and self._found[1]:
            self._done = self._found[0]
        self._found = None


def session_collector(rows: TableRows, connection: Connection, parameters: Parameters) -> Collector:
    """Collects `sessions` by their last use."""
    assert rows.table is sessions
    order = ("last_used_us", "public_key", "session")
    return Collector(rows, connection, "last_used_us", order, parameters.session_lifetime_us)


def result_collector(rows: TableRows, connection: Connection, parameters: Parameters) -> Collector:
    """Collects `results` by block time."""
    assert rows.table is results
    order = ("time_us", "block", "leaf_index")
    return Collector(rows, connection, "time_us", order, parameters.results_lifetime_us)
