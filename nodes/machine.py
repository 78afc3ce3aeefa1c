"""What an application gives to be replicated, and what it gets.

An application is a deterministic state machine over rows. It changes state only through `Rows`,
reads the time only from `BlockContext`, and answers with a status number and canonical bytes.
Anything else (a clock, a set's order, a float, SQL of its own) would make replicas differ.
Deliberately elsewhere: storage (`nodes.executor`), transport, signatures: all done before `apply`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from sqlalchemy import BigInteger, Column, Index, LargeBinary, MetaData, PrimaryKeyConstraint, String, Table
from sqlalchemy.dialects import mysql

Row = TypeVar("Row", bound=tuple[Any, ...])
Value = int | bytes | str | None


@dataclass(frozen=True, slots=True)
class Operation:
    """One ordered request whose signature, session and sequence have been checked."""

    public_key: bytes
    payload: bytes
    """The exact signed operation bytes."""
    digest: bytes
    session: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Timer:
    """A deadline that is part of the state; fires in the first block whose time is >= `due_us`.

    `id`: 1 to 64 bytes; `payload`: at most 4096. Timers due in one block fire by (due_us, id), before its requests.
    """

    id: bytes
    due_us: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class BlockContext:
    sequence: int
    """The block's sequence number."""
    index: int
    """Position of this leaf in the block; (sequence, index) is unique for ever."""
    time_us: int
    """Block time, microseconds since 1970. Rises from block to block, except that a null block (which
    has no requests, but may fire timers that were left over) has the time of the one before."""
    order_hash: bytes


class Outcome(NamedTuple):
    status: int
    result: bytes
    """Canonical JSON, at most 64 KiB; an object."""


class Rows(Protocol):
    """The one way to change replicated state. A row is the table's own NamedTuple.

    Reads see this block's earlier writes. There are no scans: what must be found by another key
    has a row of its own.
    """

    def get(self, table: Table, *key: Value) -> Any:
        """The row with this primary key, or None."""

    def put(self, table: Table, row: tuple[Any, ...]) -> None:
        """Insert or replace by primary key. Values that the table does not allow stop the executor (ValueError):
        integers of 64 bits; bytes and NFC text within the column's length; text in a key or an index
        without control characters and without a space at its end (databases compare those differently)."""

    def delete(self, table: Table, *key: Value) -> None:
        """Remove; KeyError when there is no such row."""

    def add_timer(self, timer: Timer) -> None:
        """Add, or move the timer with the same id to a new due time and payload."""

    def cancel_timer(self, timer_id: bytes) -> None:
        """Remove; KeyError when there is no such timer."""


class RowReader(Protocol):
    """Read-only, bounded, totally ordered access for queries, from one snapshot."""

    sequence: int
    block_hash: bytes
    time_us: int

    def get(self, table: Table, *key: Value) -> Any:
        """The row with this primary key, or None."""

    def range(
        self,
        table: Table,
        index: Sequence[str],
        *,
        equal: Mapping[str, Value],
        after: Sequence[Value] | None = None,
        descending: bool = False,
        limit: int,
    ) -> list[Any]:
        """Rows ordered by the columns `index` (which must end in something unique, e.g. the
        primary key), restricted to `equal`, strictly after the tuple `after`; at most `limit`."""

    def scan(self, table: Table) -> Iterator[Any]:
        """Every row in primary-key order: for audits, never for a bidder's query."""


class StateMachine(Protocol):
    """The application. Stateless itself: all state is in rows."""

    tables: MetaData
    version: int

    def code_name(self, status: int) -> str:
        """The stable name of a status number (library codes included)."""

    def genesis(self, rows: Rows, application_genesis: Mapping[str, Any]) -> None:
        """Write the rows of sequence 0. Raises ValueError on a genesis that makes no sense."""

    def admit(self, public_key: bytes, payload: bytes, rows: Rows) -> Outcome | None:
        """May this key act at all? A refusal here leaves the key's session untouched. Never raises."""

    def apply(self, operation: Operation, context: BlockContext, rows: Rows) -> Outcome:
        """Execute one operation. A refusal is an Outcome and must have changed no row."""

    def fire(self, timer: Timer, context: BlockContext, rows: Rows) -> Outcome:
        """Execute a deadline. The timer itself has already been removed."""

    def check_block(self, changes: Sequence[Change]) -> None:
        """Invariants over the block's write set (conservation of money). AssertionError stops the executor."""

    def query(self, query: bytes, caller: bytes | None, reader: RowReader) -> bytes:
        """Answer with canonical JSON bytes, also for errors ({"error": code}). `caller`: verified key or None."""


@runtime_checkable
class AdmitsReads(Protocol):
    """What a StateMachine has besides if its queries may be ordered like operations (request kind 1)."""

    def admit_read(self, public_key: bytes, query: bytes, rows: Rows) -> Outcome | None:
        """May this key order this query? As `StateMachine.admit`; the answer is then `query`'s."""


class Change(NamedTuple):
    """One row of a block's write set."""

    table: Table
    old: Any
    """The row before the block, or None."""
    new: Any
    """The row after the block, or None."""


def integer(name: str, *, nullable: bool = False) -> Column[int]:
    """A signed 64-bit column. Times are microseconds since 1970, money is minor units."""
    return Column(name, BigInteger(), nullable=nullable, autoincrement=False)


def binary(name: str, length: int, *, nullable: bool = False) -> Column[bytes]:
    """Bytes of at most `length` (at most 1024 when it is part of a key or an index)."""
    kind = LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb")
    if length > 16_000:
        kind = LargeBinary(length).with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
    return Column(name, kind, nullable=nullable)


def text(name: str, length: int, *, nullable: bool = False) -> Column[str]:
    """NFC text of at most `length` characters, compared by code point on every database."""
    kind = String(length).with_variant(
        mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
    )
    return Column(name, kind, nullable=nullable)


def replicated_table(
    metadata: MetaData,
    table_id: int,
    name: str,
    row_type: type[tuple[Any, ...]],
    *columns: Column[Any],
    key: Sequence[str],
    indexes: Sequence[Sequence[str]] = (),
) -> Table:
    """A table whose rows are replicated state.

    `table_id` (u16, never reused) names it in hashes: 1..99 the library's, 100.. the application's.
    `row_type` is a NamedTuple with the columns' names in the columns' order.
    """
    names = tuple(column.name for column in columns)
    if getattr(row_type, "_fields", None) != names:
        raise ValueError(f"{row_type.__name__} does not have the columns of {name}: {names}")
    return Table(
        name,
        metadata,
        *columns,
        PrimaryKeyConstraint(*key),
        *(Index("ix_" + name + "_" + "_".join(index), *index) for index in indexes),
        info={"table_id": table_id, "row_type": row_type, "key": tuple(names.index(part) for part in key)},
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_engine="InnoDB",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )
