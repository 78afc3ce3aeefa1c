"""`RowReader` for queries: bounded, totally ordered reads inside one snapshot.

The snapshot is begun by the caller after the query has been received, so that an answer is never older
than its question. Ranges are by columns, never by SQL of the application; every statement has a total
order and a limit. Deliberately elsewhere: what a query means (the application).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Table, and_, bindparam, literal_column, or_, select, tuple_
from sqlalchemy.sql.elements import BindParameter, ColumnElement

from nodes.executor.connection import Connection
from nodes.executor.rows import Shape, compares_alike
from nodes.executor.store import Statements
from nodes.machine import Value

RANGE_ROWS_MAX = 1024
"""Most rows of one `range`."""
SCAN_ROWS = 1000
"""Rows of a `scan` in memory at a time."""
STATEMENTS_MAX = 512
"""Compiled ranges kept; an application has a few dozen."""

RangeForm = tuple[str, tuple[str, ...], tuple[tuple[str, bool], ...], tuple[str, ...], bool]
"""Table, order, (column, is null) of the equalities, columns to continue after, whether it descends."""


class QueryStatements:
    """Compiled ranges of some tables, shared by the readers of one database."""

    def __init__(self, tables: Mapping[Table, Statements], *, row_values: bool) -> None:
        self.tables = tables
        self._row_values = row_values
        """Whether (a, b) > (x, y) uses an index: it does in SQLite, it does not in MySQL."""
        self.shapes = {table: Shape(table) for table in tables}
        self._ranges: dict[RangeForm, str] = {}

    def range(self, table: Table, form: RangeForm) -> str:
        """SELECT of this form; its parameters are the equalities, the continuation and the limit, in order."""
        sql = self._ranges.get(form)
        if sql is None:
            if len(self._ranges) >= STATEMENTS_MAX:
                self._ranges.clear()
            sql = self._ranges[form] = self._compile(table, form)
        return sql

    def _compile(self, table: Table, form: RangeForm) -> str:
        _, index, equal, place, descending = form
        columns = table.columns
        conditions: list[ColumnElement[bool]] = [
            columns[name].is_(None) if is_null else columns[name] == bindparam(f"equal_{name}")
            for name, is_null in equal
        ]
        if place:
            conditions.append(self._beyond([columns[name] for name in place], descending))
        fixed = {name for name, _ in equal}
        key = [column.name for column in table.primary_key.columns]
        order = [columns[name] for name in dict.fromkeys((*index, *key)) if name not in fixed]
        statement = select(table).where(*conditions)
        statement = statement.order_by(*(column.desc() if descending else column.asc() for column in order))
        return self.tables[table].compile(statement.limit(bindparam("limit")).offset(literal_column("0")))

    def _beyond(self, place: Sequence[Any], descending: bool) -> ColumnElement[bool]:
        """(a, b, ...) > (x, y, ...), in the form for which the database uses an index."""
        if self._row_values:
            left, right = tuple_(*place), tuple_(*(bindparam(f"after_{column.name}") for column in place))
            return left < right if descending else left > right
        alternatives = []
        for depth, column in enumerate(place):
            same = [earlier == bindparam(f"same_{depth}_{earlier.name}") for earlier in place[:depth]]
            value: BindParameter[Any] = bindparam(f"after_{depth}")
            alternatives.append(and_(*same, column < value if descending else column > value))
        return or_(*alternatives)

    def continuation(self, values: Sequence[Value]) -> list[Value]:
        """The parameters of `_beyond`, in their order."""
        if self._row_values:
            return list(values)
        return [value for depth in range(len(values)) for value in (*values[:depth], values[depth])]


class SnapshotReader:
    """Reads one snapshot, or the state before the running block when it is on the writer's connection."""

    def __init__(
        self, statements: QueryStatements, connection: Connection, sequence: int, block_hash: bytes, time_us: int
    ) -> None:
        self._statements = statements
        self._connection = connection
        self.sequence = sequence
        self.block_hash = block_hash
        self.time_us = time_us

    def get(self, table: Table, *key: Value) -> Any:
        """The row with this primary key, or None."""
        shape = self._statements.shapes[table]
        rows = self._connection.rows(self._statements.tables[table].select(1), key) if shape.may_hold(key) else []
        return shape.row_type._make(rows[0]) if rows else None

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
        """As `nodes.machine.RowReader.range`. ValueError for a limit over 1024, for values of other types than
        the columns', and for an order by columns that may be null."""
        self._check_range(table, index, equal, after, limit)
        shape = self._statements.shapes[table]
        place: dict[str, Value] = {} if after is None else dict(zip(index, after, strict=True))
        if all(place.get(name, value) == value for name, value in equal.items()):
            place = {name: value for name, value in place.items() if name not in equal}
            if after is not None and not place:
                return []  # the one place that `equal` can name is the one to continue after
        if not all(map(compares_alike, equal.values())):
            return []
        form_equal = tuple((name, value is None) for name, value in equal.items())
        sql = self._statements.range(table, (table.name, tuple(index), form_equal, tuple(place), descending))
        values: list[Value] = [value for value in equal.values() if value is not None]
        values += self._statements.continuation(list(place.values()))
        rows = self._connection.rows(sql, (*values, limit))
        return list(map(shape.row_type._make, rows))

    def _check_range(
        self,
        table: Table,
        index: Sequence[str],
        equal: Mapping[str, Value],
        after: Sequence[Value] | None,
        limit: int,
    ) -> None:
        if not 1 <= limit <= RANGE_ROWS_MAX:
            raise ValueError(f"a limit of {limit} rows is not in 1..{RANGE_ROWS_MAX}")
        shape = self._statements.shapes[table]
        for name in index:
            if table.columns[name].nullable and name not in equal:
                raise ValueError(f"{table.name}.{name} may be null, so it cannot be ordered by")
        for name, value in equal.items():
            shape.check_column(name, value)
        if after is not None:
            if len(after) != len(index):
                raise ValueError(f"`after` is not a place in the order {tuple(index)}")
            for name, value in zip(index, after, strict=True):
                shape.check_column(name, value)

    def scan(self, table: Table) -> Iterator[Any]:
        """Every row in primary-key order, a page at a time."""
        index = tuple(column.name for column in table.primary_key.columns)
        shape = self._statements.shapes[table]
        after: Sequence[Value] | None = None
        while True:
            page = self.range(table, index, equal={}, after=after, limit=SCAN_ROWS)
            yield from page
            if len(page) < SCAN_ROWS:
                return
            after = shape.key_of(page[-1])
