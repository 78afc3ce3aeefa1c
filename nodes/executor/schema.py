"""The tables of one database: created, checked against the cluster, and given their rows at genesis.

Creation is idempotent: a crash between two CREATEs, or before genesis has committed, is finished by the
next start. Genesis rows and the identity of the database are one transaction. A database that holds
another cluster's state, another application's, or rows that nobody vouches for is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, bindparam, delete, literal_column, select

import fastpath
from nodes import canonical
from nodes.config import ClusterConfig
from nodes.executor.connection import Connection
from nodes.executor.reader import QueryStatements
from nodes.executor.rows import AskingRows, BlockRows, Delta, TableRows, check_tables, write_set
from nodes.executor.state_hash import encode_journal
from nodes.executor.store import Database, DatabaseRefused, Statements
from nodes.executor.tables import (
    APPLICATION_TABLES_FROM,
    SCHEMA_VERSION,
    journal,
    local,
    meta,
    replicated,
    results,
    timers,
)
from nodes.machine import StateMachine

IDENTITY = "identity"
GENESIS_ROOT = "genesis_root"
IDENTITY_BYTES_MAX = 4096
TABLE_ID_MAX = 0xFFFF


@dataclass(frozen=True, slots=True)
class Schema:
    """The open tables of one executor."""

    replicated: list[Table]
    """By table id, the library's first."""
    rows: dict[str, TableRows]
    """By table name, in the order of `replicated`."""
    library_rows: BlockRows
    application_rows: BlockRows
    asking_rows: AskingRows
    queries: QueryStatements
    statements: Mapping[Table, Statements]
    journal_select: str
    journal_delete: str
    genesis_root: bytes

    def journal(self, connection: Connection) -> list[tuple[int, bytes]]:
        """(sequence, changes) of the blocks since the last state root."""
        return [(sequence, changes) for sequence, changes in connection.rows(self.journal_select)]

    def keep_journal(self, connection: Connection, sequence: int, deltas: Sequence[Delta] | None) -> None:
        """Keep a block's changes, or begin anew after a block whose header has a new state root (None)."""
        if deltas is None:
            connection.write(self.journal_delete)
        else:
            connection.write(self.statements[journal].insert, (sequence, encode_journal(deltas)))

    def committed(self) -> None:
        for rows in self.rows.values():
            rows.committed()

    def discard(self) -> None:
        for rows in self.rows.values():
            rows.discard()


def replicated_tables(machine: StateMachine) -> list[Table]:
    """The library's and the application's tables by id. ValueError when ids or names collide."""
    tables = check_tables(replicated, 1, APPLICATION_TABLES_FROM - 1)
    own = check_tables(machine.tables, APPLICATION_TABLES_FROM, TABLE_ID_MAX)
    taken = {*replicated.tables, *local.tables}
    for table in own:
        if table.name in taken:
            raise ValueError(f"the table name {table.name} is the library's")
    return tables + own


def open_schema(
    database: Database, writer: Connection, cluster: ClusterConfig, machine: StateMachine, cache_rows: int
) -> Schema:
    """Connect, create what is missing, write genesis into a new database. DatabaseRefused as described above."""
    tables = replicated_tables(machine)
    writer.open()
    expected = _identity(cluster)
    statements = {table: Statements(table, database.dialect) for table in (*tables, meta, journal)}
    found = _value(writer, statements[meta], IDENTITY) if database.has_table(meta.name) else None
    if found is not None:
        _check_identity(found, expected)
    database.create_tables(local, replicated, machine.tables)
    rows = {
        table.name: TableRows(table, statements[table], writer, 0 if table is results else cache_rows)
        for table in tables
    }
    own = {table: rows[table.name] for table in tables if table.info["table_id"] >= APPLICATION_TABLES_FROM}
    timer_rows = rows[timers.name]
    application_rows = BlockRows(own, timer_rows)
    if found is None:
        _write_genesis(writer, statements[meta], rows, application_rows, cluster, machine, expected)
    root = _value(writer, statements[meta], GENESIS_ROOT)
    if root is None or len(root) != 32:
        raise DatabaseRefused("the database has no genesis state root")
    return Schema(
        replicated=tables,
        rows=rows,
        library_rows=BlockRows({table: rows[table.name] for table in tables}, timer_rows),
        application_rows=application_rows,
        asking_rows=AskingRows(own, timer_rows),
        queries=QueryStatements({table: statements[table] for table in tables}, row_values=database.is_sqlite),
        statements=statements,
        journal_select=statements[journal].compile(select(journal).order_by(journal.columns.sequence)),
        journal_delete=statements[journal].compile(delete(journal)),
        genesis_root=root,
    )


def _identity(cluster: ClusterConfig) -> dict[str, Any]:
    return {
        "application": cluster.application,
        "cluster_id": cluster.cluster_id.hex(),
        "config_hash": cluster.config_hash.hex(),
        "schema_version": SCHEMA_VERSION,
    }


def _check_identity(found: bytes, expected: Mapping[str, Any]) -> None:
    held = canonical.decode(found, IDENTITY_BYTES_MAX)
    for name, value in expected.items():
        if held.get(name) != value:
            raise DatabaseRefused(
                f"this database's {name} is {held.get(name)}, the genesis file's is {value}: "
                "use the database of this cluster, or an empty one"
            )


def _value(connection: Connection, statements: Statements, name: str) -> bytes | None:
    rows = connection.rows(statements.select(1), (name,))
    return bytes(rows[0][1]) if rows else None


def _write_genesis(
    writer: Connection,
    meta_statements: Statements,
    rows: Mapping[str, TableRows],
    application_rows: BlockRows,
    cluster: ClusterConfig,
    machine: StateMachine,
    identity: Mapping[str, Any],
) -> None:
    """Sequence 0 in one transaction. DatabaseRefused when the tables already hold rows of somebody's."""
    writer.begin()
    try:
        for table_rows in rows.values():
            any_row = select(table_rows.table).limit(bindparam("limit")).offset(literal_column("0"))
            if writer.rows(table_rows.statements.compile(any_row), (1,)):
                raise DatabaseRefused(
                    f"table {table_rows.table.name} has rows, but nothing says whose database this is"
                )
        machine.genesis(application_rows, cluster.application_genesis)
        vectors = fastpath.StateHash(cluster.parameters.buckets)
        vectors.update_many(write_set(list(rows.values()), {}).deltas)
        for table_rows in rows.values():
            table_rows.write()
        writer.write_many(
            meta_statements.insert,
            [(IDENTITY, canonical.encode(dict(identity))), (GENESIS_ROOT, vectors.root())],
        )
        writer.commit()
    except BaseException:
        writer.close()
        raise
    for table_rows in rows.values():
        table_rows.committed()
