"""One connection to the database, which can be opened again after it failed.

Rows are tuples and statements compiled text. A connection is in no transaction unless the executor began
one. On MySQL the statements of a transaction are held back and sent in one packet, together with the next
query or the COMMIT: the server executes them in order and stops at the first that fails, so a block is
still all or nothing, at two round trips instead of fifteen. On SQLite there is nothing to save.
Deliberately elsewhere: which statements (`store.py`), when to try again (`executor.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from pymysql.cursors import RE_INSERT_VALUES

PACKET_BYTES = 1024 * 1024
"""Held statements are sent from this size on; one statement more fits the server's packet limit."""
STATEMENT_ROWS_BYTES = 512 * 1024
"""A bulk statement is cut here, so that it and the packet stay far below that limit."""
PACKET_BYTES_NEEDED = 16 * 1024 * 1024
"""What the server must accept in a packet: a body of 1 MiB or the results of a block, in hexadecimal."""

Row = tuple[Any, ...]


class Connection(ABC):
    """`connect` gives a configured connection of the driver; `opened` runs on each new one."""

    def __init__(
        self, connect: Callable[[], Any], opened: Callable[[Connection], None], error: type[Exception]
    ) -> None:
        self._connect = connect
        self._opened = opened
        self._error = error
        self._raw: Any = None
        self.generation = 0
        """Counts the connections made, so that a user notices a new one."""

    @property
    def is_open(self) -> bool:
        return self._raw is not None

    def open(self) -> None:
        """Connect, unless connected."""
        if self._raw is not None:
            return
        self._raw = self._connect()
        self.generation += 1
        try:
            self._opened(self)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection; a transaction that is open on it is rolled back by the database."""
        raw, self._raw = self._raw, None
        if raw is not None:
            try:
                raw.close()
            except self._error:
                return  # it was already gone, which is what closing is for

    def rollback(self) -> None:
        """Leave the transaction without its effects; a connection that cannot is closed, which does the same."""
        if self._raw is None:
            return
        try:
            self.execute("ROLLBACK")
        except self._error:
            self.close()

    def execute(self, sql: str, values: Sequence[object] = ()) -> None:
        """Run a statement now."""
        cursor = self._raw.cursor()
        cursor.execute(sql, values)
        cursor.close()

    @abstractmethod
    def begin(self) -> None:
        """Start a block's transaction."""

    @abstractmethod
    def begin_snapshot(self) -> None:
        """Start a read-only transaction that sees what is committed when its first query arrives."""

    @abstractmethod
    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """All rows of a query, which sees the writes before it."""

    @abstractmethod
    def write(self, sql: str, values: Sequence[object] = ()) -> None:
        """A statement of the transaction, run by the time of the next query or of the COMMIT."""

    @abstractmethod
    def write_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """An INSERT of many rows, as few statements. Values are int, bytes, str and None, of checked types."""

    @abstractmethod
    def flush(self) -> None:
        """Run what was written so far."""

    @abstractmethod
    def commit(self) -> None:
        """Make the transaction's writes visible. After an error it is unknown whether it did."""


class SqliteConnection(Connection):
    """Every statement runs at once."""

    def begin(self) -> None:
        self.execute("BEGIN IMMEDIATE")

    def begin_snapshot(self) -> None:
        self.execute("BEGIN")  # the snapshot is that of the first read

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        found: list[Row] = self._raw.execute(sql, values).fetchall()
        return found

    def write(self, sql: str, values: Sequence[object] = ()) -> None:
        self._raw.execute(sql, values)

    def write_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        self._raw.executemany(sql, rows)

    def flush(self) -> None:
        return

    def commit(self) -> None:
        self.execute("COMMIT")


class MySqlConnection(Connection):
    """Statements are held back while a transaction writes, and sent together."""

    def __init__(
        self, connect: Callable[[], Any], opened: Callable[[Connection], None], error: type[Exception]
    ) -> None:
        super().__init__(connect, opened, error)
        self._held: list[str] = []
        self._size = 0
        self._bulk: dict[str, tuple[str, str]] = {}
        """INSERT -> (text before its VALUES tuple, text after it)."""

    def close(self) -> None:
        self._forget()
        super().close()

    def rollback(self) -> None:
        self._forget()
        super().rollback()

    def execute(self, sql: str, values: Sequence[object] = ()) -> None:
        self.flush()
        super().execute(sql, values)

    def begin(self) -> None:
        self._hold("START TRANSACTION")

    def begin_snapshot(self) -> None:
        self._hold("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        before = len(self._held)
        self._hold(self._fill(sql, values))
        cursor = self._send()
        for _ in range(before):
            cursor.nextset()
        found = list(cursor.fetchall())
        cursor.close()
        return found

    def write(self, sql: str, values: Sequence[object] = ()) -> None:
        self._hold(self._fill(sql, values))
        if self._size > PACKET_BYTES:
            self.flush()

    def write_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        before, after = self._split(sql)
        literal = self._literal
        tuples: list[str] = []
        size = 0
        for row in rows:
            tuples.append("(" + ",".join(map(literal, row)) + ")")
            size += len(tuples[-1])
            if size > STATEMENT_ROWS_BYTES:
                self.write(before + ",".join(tuples) + after)
                tuples, size = [], 0
        if tuples:
            self.write(before + ",".join(tuples) + after)

    def flush(self) -> None:
        if self._held:
            cursor = self._send()
            while cursor.nextset():
                pass
            cursor.close()

    def commit(self) -> None:
        self._hold("COMMIT")
        self.flush()

    def _hold(self, statement: str) -> None:
        self._held.append(statement)
        self._size += len(statement)

    def _forget(self) -> None:
        self._held, self._size = [], 0

    def _send(self) -> Any:
        """Send what is held in one packet; a cursor at the answer to the first statement."""
        packet = ";".join(self._held)
        self._forget()
        cursor = self._raw.cursor()
        cursor.execute(packet)
        return cursor

    def _fill(self, sql: str, values: Sequence[object]) -> str:
        return sql % tuple(map(self._literal, values)) if values else sql

    def _split(self, sql: str) -> tuple[str, str]:
        parts = self._bulk.get(sql)
        if parts is None:
            match = RE_INSERT_VALUES.match(sql)
            if match is None:
                raise ValueError(f"not an INSERT of plain values: {sql}")
            parts = self._bulk[sql] = (match.group(1) % (), (match.group(3) or "") % ())
        return parts

    def _literal(self, value: object) -> str:
        """A value as SQL. Bytes are hexadecimal, which needs no escaping and is quickest to make."""
        if type(value) is int:
            return str(value)
        if type(value) is bytes:
            return "x'" + value.hex() + "'"
        if value is None:
            return "NULL"
        if type(value) is str:
            return str(self._raw.escape(value))
        raise TypeError(f"{type(value).__name__} has no place in a row")
