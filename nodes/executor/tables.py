"""The tables of the library: replicated ones (ids 1..99) and those of one node.

Replicated rows are in the write set and in the state hash, equal at every replica. Node-local tables
(`meta`, `blocks`, `bodies`, `journal`, `receipts`) are covered by the hash chain of the blocks or can
be rebuilt. Deliberately elsewhere: the application's tables, which are its own `MetaData`.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects import mysql

from nodes.block import TIMER_ID_BYTES_MAX
from nodes.machine import binary, integer, replicated_table

SCHEMA_VERSION = 1
"""Of the node-local tables and the layout of all; a database of another version is refused."""
APPLICATION_TABLES_FROM = 100
TIMER_PAYLOAD_BYTES_MAX = 4096
BITMAP_BYTES = 32
"""256 bits: the session window, a constant of the protocol."""
SESSIONS_BYTES_MAX = 8 * 64
"""Room for the ids of the most sessions that the parameters allow a key."""
RESULT_BYTES_MAX = 65_536

replicated = MetaData()
local = MetaData()


class Session(NamedTuple):
    public_key: bytes
    session: int
    low: int
    """Every sequence up to here is used up."""
    bitmap: bytes
    """Bit i (little-endian) stands for sequence low + 1 + i."""
    last_used_us: int


class SessionOwner(NamedTuple):
    """Kept for ever: it is what makes a forgotten session impossible to replay."""

    public_key: bytes
    min_session: int
    """New sessions must have a greater id."""
    live: bytes
    """Ids of the live sessions, u64 little-endian each, ascending."""


class Result(NamedTuple):
    digest: bytes
    public_key: bytes
    """Empty for a fired timer."""
    session: int
    sequence: int
    block: int
    leaf_index: int
    time_us: int
    """Block time: part of the row because collection by age must not need old blocks."""
    status: int
    result: bytes


class TimerRow(NamedTuple):
    id: bytes
    due_us: int
    payload: bytes


sessions = replicated_table(
    replicated,
    1,
    "sessions",
    Session,
    binary("public_key", 32),
    integer("session"),
    integer("low"),
    binary("bitmap", BITMAP_BYTES),
    integer("last_used_us"),
    key=("public_key", "session"),
    indexes=(("last_used_us",),),
)

session_owners = replicated_table(
    replicated,
    2,
    "session_owners",
    SessionOwner,
    binary("public_key", 32),
    integer("min_session"),
    binary("live", SESSIONS_BYTES_MAX),
    key=("public_key",),
)

results = replicated_table(
    replicated,
    3,
    "results",
    Result,
    binary("digest", 32),
    binary("public_key", 32),
    integer("session"),
    integer("sequence"),
    integer("block"),
    integer("leaf_index"),
    integer("time_us"),
    integer("status"),
    binary("result", RESULT_BYTES_MAX),
    key=("digest",),
    indexes=(("time_us", "block", "leaf_index"),),
)

timers = replicated_table(
    replicated,
    4,
    "timers",
    TimerRow,
    binary("id", TIMER_ID_BYTES_MAX),
    integer("due_us"),
    binary("payload", TIMER_PAYLOAD_BYTES_MAX),
    key=("id",),
    indexes=(("due_us", "id"),),
)


def _bytes(name: str, length: int) -> Column[bytes]:
    return Column(name, LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb"), nullable=False)


def _key_bytes(name: str, length: int) -> Column[bytes]:
    kind = LargeBinary(length).with_variant(mysql.VARBINARY(length), "mysql", "mariadb")
    return Column(name, kind, primary_key=True)


def _blob(name: str) -> Column[bytes]:
    return Column(name, LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"), nullable=False)


def _sequence() -> Column[int]:
    kind = BigInteger().with_variant(Integer(), "sqlite")  # there INTEGER is the row id itself, BIGINT an extra index
    return Column("sequence", kind, primary_key=True, autoincrement=False)


meta = Table(
    "meta",
    local,
    Column("name", String(64), primary_key=True),
    _blob("value"),
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)
"""Whose database this is; written once, with genesis, in one transaction."""

blocks = Table(
    "blocks",
    local,
    _sequence(),
    _bytes("header", 277),
    _bytes("batch_header", 80),
    _blob("outcomes"),
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)
"""Every executed block; its last row says where the state stands."""

bodies = Table(
    "bodies",
    local,
    _sequence(),
    _blob("body"),
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)

journal = Table(
    "journal",
    local,
    _sequence(),
    _blob("changes"),
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)
"""Write sets of the blocks since the last state root, so that a restart can check against it."""

receipts = Table(
    "receipts",
    local,
    _key_bytes("digest", 32),
    Column("block", BigInteger(), nullable=False),
    Column("leaf_index", BigInteger(), nullable=False),
    mysql_engine="InnoDB",
    mariadb_engine="InnoDB",
)
"""Where results are archived whose row has been collected."""
