"""The database of one node: its engine, its settings, its one writer, and the SQL of a table of rows.

All DDL goes through SQLAlchemy's MetaData and all statements are compiled by its Core, once; they are
then run as tuples on the driver's own cursor, because that is what a block's hundreds of rows cost.
The database is a cache of executing the write-ahead log: SQLite runs with synchronous=NORMAL and MySQL
may run with innodb_flush_log_at_trx_commit=2, since what they lose in a power cut is replayed.
Deliberately elsewhere: when to retry (`executor.py`), what is in the rows (`rows.py`).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from pymysql.constants import CLIENT
from sqlalchemy import MetaData, Table, and_, bindparam, create_engine, delete, event, exc, inspect, or_, select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from nodes.executor.connection import PACKET_BYTES_NEEDED, Connection, MySqlConnection, SqliteConnection

CONNECT_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 60
"""A socket that is silent for this long is dead; the block is rolled back and tried again."""
LOCK_TIMEOUT_S = 10
"""A killed executor's session needs a moment to be noticed by its server."""
KEYS_PER_STATEMENT: Final = (1, 4, 16, 64, 256)
"""Sizes of the compiled key lists; shorter lists are padded, so that the driver's statement cache stays small."""

SQLITE_SETTINGS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=NORMAL",
    "PRAGMA foreign_keys=OFF",
    "PRAGMA busy_timeout=5000",
    "PRAGMA cache_size=-16384",
    "PRAGMA temp_store=MEMORY",
)
MYSQL_MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
MYSQL_SETTINGS = (
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "SET SESSION time_zone='+00:00'",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "SET SESSION innodb_lock_wait_timeout=5",
)
"""Nothing that a server's configuration says may change what a statement means."""


class DatabaseRefused(Exception):
    """This database cannot be used: another cluster's, another schema, or not a supported kind."""


class DatabaseInUse(Exception):
    """Another executor, or what a server has not yet noticed to be dead, holds the writer's place."""


class Database:
    """One database URL. `error` is the driver's base exception, `bugs` those that retrying cannot cure."""

    def __init__(self, url: str) -> None:
        self.url: URL = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and self.url.database in (None, "", ":memory:"):
            raise DatabaseRefused("an SQLite database must be a file: queries have a connection of their own")
        if not self.is_sqlite and self.url.get_backend_name() not in ("mysql", "mariadb"):
            raise DatabaseRefused(f"{self.url.get_backend_name()} is not supported: use sqlite, mysql or mariadb")
        self._engine = create_engine(
            self.url,
            poolclass=NullPool,
            paramstyle="qmark" if self.is_sqlite else "format",
            connect_args=self._connect_arguments(),
        )
        event.listen(self._engine, "connect", self._configure)
        driver: Any = self._engine.dialect.dbapi
        self.error: type[Exception] = driver.Error
        self.bugs: tuple[type[Exception], ...] = (
            *(driver.ProgrammingError, driver.DataError, driver.NotSupportedError),
            *(exc.ProgrammingError, exc.DataError, exc.NotSupportedError),
        )
        self.failures: tuple[type[Exception], ...] = (driver.Error, exc.DBAPIError, DatabaseInUse)
        """What a broken database raises, through the driver or through SQLAlchemy."""
        self._lock_file: int | None = None

    def _connect_arguments(self) -> dict[str, Any]:
        if self.is_sqlite:
            return {"isolation_level": None, "check_same_thread": False, "cached_statements": 512}
        return {
            "charset": "utf8mb4",
            "sql_mode": MYSQL_MODE,  # at once: SQLAlchemy looks at it in the first connection
            "autocommit": True,
            "client_flag": CLIENT.MULTI_STATEMENTS | CLIENT.FOUND_ROWS,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": STATEMENT_TIMEOUT_S,
            "write_timeout": STATEMENT_TIMEOUT_S,
        }

    def _configure(self, raw: Any, _record: object) -> None:
        cursor = raw.cursor()
        for statement in SQLITE_SETTINGS if self.is_sqlite else MYSQL_SETTINGS:
            cursor.execute(statement)
        cursor.close()

    @property
    def dialect(self) -> Any:
        return self._engine.dialect

    @property
    def description(self) -> str:
        """Kind and version, for status and logs; no address and no password."""
        if self.is_sqlite:
            return "sqlite " + ".".join(map(str, self.dialect.dbapi.sqlite_version_info))
        kind = "mariadb" if self.dialect.is_mariadb else "mysql"
        version = [part for part in self.dialect.server_version_info if isinstance(part, int)]
        return f"{kind} {'.'.join(map(str, version))}"

    def create_tables(self, *metadata: MetaData) -> None:
        """Create what is missing; existing tables are left alone."""
        with self._engine.connect() as connection:
            present = set(inspect(connection).get_table_names())
            for tables in metadata:
                missing = [table for table in tables.sorted_tables if table.name not in present]
                tables.create_all(connection, tables=missing, checkfirst=False)
            connection.commit()

    def has_table(self, name: str) -> bool:
        with self._engine.connect() as connection:
            return name in inspect(connection).get_table_names()

    def writer(self) -> Connection:
        """The one connection that writes; opening it takes the writer's place."""
        return self._connection(self._lock)

    def reader(self) -> Connection:
        """A connection for queries."""
        return self._connection(self._forbid_writes)

    def _connection(self, opened: Callable[[Connection], None]) -> Connection:
        kind = SqliteConnection if self.is_sqlite else MySqlConnection
        return kind(self._connect, opened, self.error)

    def _connect(self) -> Any:
        """A new connection of the driver, configured, outside any transaction."""
        proxied = self._engine.raw_connection()
        raw: Any = proxied.driver_connection
        proxied.detach()
        return raw

    def _forbid_writes(self, connection: Connection) -> None:
        connection.execute("PRAGMA query_only=ON" if self.is_sqlite else "SET SESSION TRANSACTION READ ONLY")

    def _lock(self, connection: Connection) -> None:
        """Take the writer's place. DatabaseInUse when another executor holds it."""
        if not self.is_sqlite:
            name = "executor-" + hashlib.sha256(str(self.url.database).encode()).hexdigest()[:32]
            ((packet, locked),) = connection.rows(
                "SELECT @@max_allowed_packet, GET_LOCK(%s, %s)", (name, LOCK_TIMEOUT_S)
            )
            if packet < PACKET_BYTES_NEEDED:
                raise DatabaseRefused(f"the server's max_allowed_packet is {packet}: set {PACKET_BYTES_NEEDED} or more")
            if locked != 1:
                raise DatabaseInUse("another executor is using this database")
        elif self._lock_file is None:
            file = os.open(Path(f"{self.url.database}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(file)
                raise DatabaseInUse("another executor is using this database") from error
            self._lock_file = file

    def close(self) -> None:
        """Give the writer's place back. Connections are closed by their owners."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None
        self._engine.dispose()


class Statements:
    """The SQL of one table, compiled for one dialect. Parameters are positional, in column or key order."""

    def __init__(self, table: Table, dialect: Any) -> None:
        self._table = table
        self._dialect = dialect
        self._key = list(table.primary_key.columns)
        self._selects: dict[int, str] = {}
        self._deletes: dict[int, str] = {}
        self.upsert = self._compile_upsert()
        self.insert = self.compile(table.insert().values({c.name: bindparam(c.name) for c in table.columns}))

    def compile(self, statement: Any) -> str:
        return str(statement.compile(dialect=self._dialect))

    def _compile_upsert(self) -> str:
        values: dict[str, Any] = {column.name: bindparam(column.name) for column in self._table.columns}
        names = [column.name for column in self._table.columns if not column.primary_key]
        if self._dialect.name == "sqlite":
            insert = sqlite.insert(self._table).values(values)
            key = [column.name for column in self._key]
            if not names:
                return self.compile(insert.on_conflict_do_nothing(index_elements=key))
            new = {name: insert.excluded[name] for name in names}
            return self.compile(insert.on_conflict_do_update(index_elements=key, set_=new))
        rows = mysql.insert(self._table).values(values)
        replaced = names or [self._key[0].name]
        return self.compile(rows.on_duplicate_key_update({name: rows.inserted[name] for name in replaced}))

    def _keys_match(self, count: int) -> Any:
        """WHERE for `count` keys, in a form whose ranges both optimizers use."""
        if len(self._key) == 1:
            return self._key[0].in_([bindparam(f"k{i}") for i in range(count)])
        return or_(*(and_(*(column == bindparam(f"k{i}_{column.name}") for column in self._key)) for i in range(count)))

    def select(self, count: int) -> str:
        """All columns of the rows with these keys."""
        if count not in self._selects:
            self._selects[count] = self.compile(select(self._table).where(self._keys_match(count)))
        return self._selects[count]

    def delete(self, count: int) -> str:
        if count not in self._deletes:
            self._deletes[count] = self.compile(delete(self._table).where(self._keys_match(count)))
        return self._deletes[count]


def key_chunks(keys: Iterable[tuple[Any, ...]]) -> Iterable[tuple[int, list[Any]]]:
    """(number of keys, flat values) in the sizes of KEYS_PER_STATEMENT, the last padded by repetition."""
    remaining = list(keys)
    largest = KEYS_PER_STATEMENT[-1]
    for start in range(0, len(remaining), largest):
        chunk = remaining[start : start + largest]
        size = next(size for size in KEYS_PER_STATEMENT if size >= len(chunk))
        chunk += [chunk[-1]] * (size - len(chunk))
        yield size, [value for key in chunk for value in key]
