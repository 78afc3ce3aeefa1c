"""Rows as a running block sees them, and the write set they leave behind.

A row is looked up in what this block wrote, then in what it read, then in a bounded cache of hot rows,
then in the database. The cache is changed only after the block's transaction has committed, which is
safe because the executor is the only writer of its database; a block that is rolled back leaves no
trace. Every value is checked before it is hashed or stored, so that no database can alter it on the
way. Deliberately elsewhere: SQL (`store.py`), hashing over many blocks (`state_hash.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Integer, LargeBinary, MetaData, String, Table

import fastpath
from nodes.block import TIMER_ID_BYTES_MAX
from nodes.executor.connection import Connection
from nodes.executor.store import Statements, key_chunks
from nodes.executor.tables import APPLICATION_TABLES_FROM, TIMER_PAYLOAD_BYTES_MAX, TimerRow
from nodes.machine import Change, Timer, Value

Key = tuple[Any, ...]
_MISSING: Any = object()
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1


class InvalidRow(ValueError):
    """The application wrote a value its own table does not allow: a bug of the application."""


class Delta(NamedTuple):
    """One changed row in canonical bytes; None: the row was or is absent."""

    key: bytes
    old: bytes | None
    new: bytes | None


class Shape:
    """What a table's rows must look like, checked column by column."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.table_id: int = table.info["table_id"]
        self.row_type: Any = table.info["row_type"]
        positions: tuple[int, ...] = table.info["key"]
        getter = itemgetter(*positions)
        self.key_of: Callable[[Any], Key] = getter if len(positions) > 1 else lambda row: (getter(row),)
        compared = {column.name for column in table.primary_key.columns}
        compared |= {column.name for index in table.indexes for column in index.columns}
        self._columns: list[tuple[str, Any, int, bool, bool]] = [
            (column.name, *_kind(column.type), bool(column.nullable), column.name in compared)
            for column in table.columns
        ]
        self._kinds = {name: (kind, nullable) for name, kind, _, nullable, _ in self._columns}
        self._key_types = tuple(self._columns[position][1] for position in positions)

    def encode(self, row: Any) -> bytes:
        """The canonical bytes of a row. InvalidRow when a value is not what the column holds."""
        for value, (name, kind, limit, nullable, compared) in zip(row, self._columns, strict=True):
            if value is None:
                if not nullable:
                    raise InvalidRow(f"{self.table.name}.{name} must not be None")
            elif type(value) is not kind:
                raise InvalidRow(f"{self.table.name}.{name} is a {type(value).__name__}, not {kind.__name__}")
            elif kind is int:
                if not INTEGER_MIN <= value <= INTEGER_MAX:
                    raise InvalidRow(f"{self.table.name}.{name} does not fit 64 bits")
            elif len(value) > limit:
                raise InvalidRow(f"{self.table.name}.{name} is {len(value)} long, at most {limit} allowed")
            elif compared and not compares_alike(value):
                raise InvalidRow(f"{self.table.name}.{name} is compared: no control characters, no space at its end")
        return self.encode_key(row)

    def encode_key(self, key: Key) -> bytes:
        """The canonical bytes of a key: those of a row with only these columns."""
        try:
            return fastpath.encode_row(self.table_id, key)
        except ValueError as error:
            raise InvalidRow(f"{self.table.name}: {error}") from error

    def may_hold(self, key: Key) -> bool:
        """Could there be a row with this key? Asked before a database, which might find one that differs.

        TypeError for a key of other types than the table's: MySQL would convert it, SQLite would not.
        """
        if tuple(map(type, key)) != self._key_types:
            raise TypeError(f"{key!r} is no key of {self.table.name}")
        return all(map(compares_alike, key))

    def check_column(self, name: str, value: object) -> None:
        """ValueError for a value of another type than the column's, or None where it cannot be null."""
        kind, nullable = self._kinds[name]
        if not (nullable if value is None else type(value) is kind and (kind is not int or compares_alike(value))):
            raise ValueError(f"{value!r} is no value of {self.table.name}.{name}")


def _kind(kind: Any) -> tuple[type[int] | type[bytes] | type[str], int]:
    match kind:
        case LargeBinary():
            return bytes, int(kind.length or 0)
        case String():
            return str, int(kind.length or 0)
        case Integer():
            return int, 0
        case _:
            raise ValueError(f"{kind!r} is no column of a replicated table: use integer, binary or text")


def compares_alike(value: object) -> bool:
    """Do all databases agree what equals this value and what is less?

    MySQL pads text with spaces when it compares, SQLite does not; integers beyond 64 bits each treats its own way.
    """
    if isinstance(value, str):
        return not (value.endswith(" ") or any(letter < " " for letter in value))
    return not isinstance(value, int) or INTEGER_MIN <= value <= INTEGER_MAX


class Cache:
    """At most `rows_max` recently used rows, in two generations: a hit in the old one moves to the young."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, rows_max: int) -> None:
        self._half = rows_max // 2
        self._young: dict[Key, Any] = {}
        self._old: dict[Key, Any] = {}

    def get(self, key: Key) -> Any:
        """The row, None for a row known to be absent, or _MISSING."""
        found = self._young.get(key, _MISSING)
        return found if found is not _MISSING else self._old.get(key, _MISSING)

    def put(self, key: Key, row: Any) -> None:
        if self._half == 0:
            return
        self._young[key] = row
        self._old.pop(key, None)
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        self._young, self._old = {}, {}


class TableRows:
    """One table in the running block."""

    __slots__ = ("_cache", "_connection", "_loaded", "dirty", "shape", "statements", "table")

    def __init__(self, table: Table, statements: Statements, connection: Connection, cache_rows: int) -> None:
        self.table = table
        self.shape = Shape(table)
        self.statements = statements
        self._connection = connection
        self._cache = Cache(cache_rows)
        self._loaded: dict[Key, Any] = {}
        self.dirty: dict[Key, list[Any]] = {}
        """key -> [row before the block, row now]; the first is _MISSING until `resolve`, for rows put unread."""

    def get(self, key: Key) -> Any:
        entry = self.dirty.get(key)
        return self.before(key) if entry is None else entry[1]

    def before(self, key: Key) -> Any:
        """The row as it was before the block, or None."""
        found = self._at_hand(key)
        if found is _MISSING:
            rows = self._connection.rows(self.statements.select(1), key) if self.shape.may_hold(key) else []
            found = self.shape.row_type._make(rows[0]) if rows else None
            self._loaded[key] = found
        return found

    def _at_hand(self, key: Key) -> Any:
        """The row before the block if it can be told without the database, else _MISSING."""
        found = self._loaded.get(key, _MISSING)
        if found is _MISSING:
            found = self._cache.get(key)
            if found is not _MISSING:
                self._loaded[key] = found
        return found

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Load what is not at hand, many keys a statement; absent rows are remembered as such."""
        wanted = [key for key in dict.fromkeys(keys) if key not in self.dirty and self._at_hand(key) is _MISSING]
        for count, values in key_chunks(wanted):
            self.adopt(self._connection.rows(self.statements.select(count), values))
        for key in wanted:
            self._loaded.setdefault(key, None)

    def adopt(self, rows: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Take rows that were just read from the database into the block's view; returns them typed."""
        typed = [self.shape.row_type._make(row) for row in rows]
        for row in typed:
            self._loaded[self.shape.key_of(row)] = row
        return typed

    def set(self, key: Key, row: Any) -> None:
        """Replace the row (None: remove it)."""
        entry = self.dirty.get(key)
        if entry is None:
            self.dirty[key] = [self._at_hand(key), row]
        else:
            entry[1] = row

    def resolve(self) -> None:
        """Find out what was there before under keys that were only written, many a statement."""
        unread = [key for key, entry in self.dirty.items() if entry[0] is _MISSING]
        for count, values in key_chunks(unread):
            self.adopt(self._connection.rows(self.statements.select(count), values))
        for key in unread:
            self.dirty[key][0] = self._loaded.setdefault(key, None)

    def write(self) -> None:
        """Bring the database to what the block made of this table."""
        gone = [key for key, (old, new) in self.dirty.items() if new is None and old is not None]
        for count, values in key_chunks(gone):
            self._connection.write(self.statements.delete(count), values)
        added = [new for old, new in self.dirty.values() if old is None and new is not None]
        if added:  # a plain INSERT: a row that should not be there fails the block instead of vanishing
            self._connection.write_many(self.statements.insert, added)
        changed = [new for old, new in self.dirty.values() if old is not None and new is not None and new != old]
        if changed:
            self._connection.write_many(self.statements.upsert, changed)

    def committed(self) -> None:
        """The transaction is durable in the database: hot rows may be remembered."""
        for key, row in self._loaded.items():
            if key not in self.dirty:
                self._cache.put(key, row)
        for key, (_, new) in self.dirty.items():
            self._cache.put(key, new)
        self.discard()

    def discard(self) -> None:
        """Forget the block."""
        self._loaded.clear()
        self.dirty.clear()


class BlockRows:
    """`nodes.machine.Rows` over some tables; the library's own tables and the application's are apart."""

    __slots__ = ("_tables", "_timers")

    def __init__(self, tables: Mapping[Table, TableRows], timer_rows: TableRows) -> None:
        self._tables = tables
        self._timers = timer_rows

    def get(self, table: Table, *key: Value) -> Any:
        return self._tables[table].get(key)

    def put(self, table: Table, row: tuple[Any, ...]) -> None:
        rows = self._tables[table]
        if type(row) is not rows.shape.row_type:
            raise InvalidRow(f"a row of {table.name} is a {rows.shape.row_type.__name__}, not a {type(row).__name__}")
        rows.set(rows.shape.key_of(row), row)

    def delete(self, table: Table, *key: Value) -> None:
        rows = self._tables[table]
        if rows.get(key) is None:
            raise KeyError(f"{table.name} has no row {key!r}")
        rows.set(key, None)

    def add_timer(self, timer: Timer) -> None:
        if not 0 < len(timer.id) <= TIMER_ID_BYTES_MAX or len(timer.payload) > TIMER_PAYLOAD_BYTES_MAX:
            raise InvalidRow(f"a timer with an id of {len(timer.id)} and a payload of {len(timer.payload)} bytes")
        if timer.due_us < 0:
            raise InvalidRow("a timer is due before 1970")
        self._timers.set((timer.id,), TimerRow(timer.id, timer.due_us, timer.payload))

    def cancel_timer(self, timer_id: bytes) -> None:
        if self._timers.get((timer_id,)) is None:
            raise KeyError(f"no timer {timer_id.hex()}")
        self._timers.set((timer_id,), None)


class AskingRows(BlockRows):
    """Rows for `StateMachine.admit`, which may look and not touch."""

    __slots__ = ()

    def put(self, table: Table, row: tuple[Any, ...]) -> None:
        raise PermissionError("admit must not change rows")

    def delete(self, table: Table, *key: Value) -> None:
        raise PermissionError("admit must not change rows")

    def add_timer(self, timer: Timer) -> None:
        raise PermissionError("admit must not change rows")

    def cancel_timer(self, timer_id: bytes) -> None:
        raise PermissionError("admit must not change rows")


class WriteSet(NamedTuple):
    """What a block changed: rows whose last value equals the first are not in it."""

    deltas: list[Delta]
    changes: list[Change]
    """Of the application's tables, for `StateMachine.check_block`; in order of table id, then first write."""


def write_set(tables: Sequence[TableRows], current: Mapping[bytes, tuple[bytes | None, bytes | None]]) -> WriteSet:
    """The net changes of the running block. `current`: rows already encoded, key -> (older, old)."""
    deltas: list[Delta] = []
    changes: list[Change] = []
    for rows in tables:
        shape = rows.shape
        of_application = shape.table_id >= APPLICATION_TABLES_FROM
        rows.resolve()
        for key, (old, new) in rows.dirty.items():
            if old == new:
                continue
            encoded_key = shape.encode_key(key)
            known = current.get(encoded_key)
            before = known[1] if known is not None else None if old is None else shape.encode(old)
            deltas.append(Delta(encoded_key, before, None if new is None else shape.encode(new)))
            if of_application:
                changes.append(Change(rows.table, old, new))
    return WriteSet(deltas, changes)


def check_tables(metadata: MetaData, first: int, last: int) -> list[Table]:
    """The replicated tables of `metadata` by table id. ValueError unless ids are unique and in range."""
    by_id: dict[int, Table] = {}
    for table in metadata.tables.values():
        table_id = table.info.get("table_id")
        if not isinstance(table_id, int) or not first <= table_id <= last:
            raise ValueError(f"table {table.name} needs an id in {first}..{last}: declare it with replicated_table")
        if table_id in by_id:
            raise ValueError(f"tables {table.name} and {by_id[table_id].name} share the id {table_id}")
        by_id[table_id] = table
    return [by_id[table_id] for table_id in sorted(by_id)]
