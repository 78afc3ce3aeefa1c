"""The order of persistence: what the core wants done waits here for the log.

One rule (`nodes.core.ready`): a message or a block goes on when the log record it names is durable.
The core numbers its records from 1 in each run, the log goes on counting: `Journal` translates.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from nodes.core.ready import Execute, Outgoing
from nodes.core.records import Record
from nodes.core.types import Lsn
from nodes.wal import Wal
from nodes.wire import Wire


class Journal:
    """The log as the core sees it. Construct when the log has been replayed."""

    def __init__(self, wal: Wal, wire: Wire) -> None:
        self.wal = wal
        self._wire = wire
        self._before = wal.last_lsn
        self._appended = Lsn(0)
        self._pending: list[tuple[int, bytes]] = []
        self._waiting: deque[Outgoing | Execute] = deque()
        self.durable = Lsn(0)
        """The last record of this run that is known to be durable."""

    def append(self, records: tuple[Record, ...], lsn: Lsn) -> None:
        """Take what one Ready brought; `lsn` is the core's number of the last one."""
        for record in records:
            self._pending.append(self._wire.encode_record(record))
        self._appended = Lsn(self._appended + len(records))
        assert self._appended == lsn, f"the core counts {lsn} records, the log {self._appended}"

    def flush(self) -> None:
        """Give what was taken to the log's thread, to be synced at once."""
        if self._pending:
            self.wal.append_all(self._pending)
            self._pending = []

    def admits(self, item: Outgoing | Execute) -> bool:
        """True: go on with it now. False: it is kept until `release`."""
        if item.after <= self.durable:
            return True
        self._waiting.append(item)
        return False

    def synced(self) -> bool:
        """Take the log's event; whether `durable` has grown."""
        durable = Lsn(max(0, self.wal.take_event() - self._before))
        has_grown = durable > self.durable
        self.durable = durable
        return has_grown

    def release(self) -> Iterator[Outgoing | Execute]:
        """What need not wait any longer, in the order in which the core asked for it."""
        for _ in range(len(self._waiting)):
            item = self._waiting.popleft()
            if item.after <= self.durable:
                yield item
            else:
                self._waiting.append(item)

    def forget_blocks(self) -> None:
        """Drop blocks that wait: the executor has said where to go on, and the core hands them over again."""
        self._waiting = deque(item for item in self._waiting if not isinstance(item, Execute))

    @property
    def waiting(self) -> int:
        return len(self._waiting)
