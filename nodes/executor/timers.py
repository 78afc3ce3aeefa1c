"""Which timers are due, without asking the database in every block.

Holds the nearest timers in order, and knows up to where it is complete; what lies beyond is fetched
when it comes near. Changed only by committed blocks. Deliberately elsewhere: the rows themselves
(table `timers`), firing (`execution.py`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

from sqlalchemy import bindparam, literal_column, select

from nodes.executor.connection import Connection
from nodes.executor.rows import TableRows
from nodes.executor.tables import TimerRow, timers

NEAREST_MAX = 8192
"""Timers held in memory after a fetch; twice as many at most. More than one block may fire."""

Due = tuple[int, bytes]
"""(due_us, id): the order in which timers fire."""


class TimerIndex:
    """The nearest timers of the committed state."""

    def __init__(self, rows: TableRows, connection: Connection, nearest_max: int = NEAREST_MAX) -> None:
        columns = timers.columns
        nearest = (
            select(columns.due_us, columns.id)
            .order_by(columns.due_us, columns.id)
            .limit(bindparam("limit"))
            .offset(literal_column("0"))
        )
        self._sql = rows.statements.compile(nearest)
        self._connection = connection
        self._nearest_max = nearest_max
        self._nearest: list[Due] = []
        self._horizon: Due | None = None
        """Everything up to here is in `_nearest`; None: there is nothing else."""

    def load(self) -> None:
        """Fetch the nearest timers. The database must stand at the committed state."""
        self._nearest = [
            (due_us, timer_id) for due_us, timer_id in self._connection.rows(self._sql, (self._nearest_max,))
        ]
        self._horizon = self._nearest[-1] if len(self._nearest) == self._nearest_max else None

    def due(self, time_us: int, limit: int) -> Sequence[Due]:
        """The first `limit` timers due at `time_us`; asked before the block changes any row."""
        if self._horizon is not None and len(self._nearest) < limit:
            self.load()
        end = bisect_left(self._nearest, (time_us + 1, b""))
        return self._nearest[: min(end, limit)]

    def next_us(self) -> int | None:
        """When the next timer is due, or None when there is none. Asked between blocks."""
        if not self._nearest and self._horizon is not None:
            self.load()
        return self._nearest[0][0] if self._nearest else None

    def change(self, old: TimerRow | None, new: TimerRow | None) -> None:
        """A committed block changed this timer."""
        if old is not None:
            due = (old.due_us, old.id)
            position = bisect_left(self._nearest, due)
            if position < len(self._nearest) and self._nearest[position] == due:
                del self._nearest[position]
        if new is not None and (self._horizon is None or (new.due_us, new.id) <= self._horizon):
            insort(self._nearest, (new.due_us, new.id))
            if len(self._nearest) > 2 * self._nearest_max:
                del self._nearest[self._nearest_max :]
                self._horizon = self._nearest[-1]
