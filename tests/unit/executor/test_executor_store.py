"""The SQL below the executor: one round trip a statement, the same order everywhere, bounded reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from executor_harness import ITEMS, METADATA, Item, key_of, make_cluster, open_executor
from pymysql.cursors import RE_INSERT_VALUES
from sqlalchemy import Table
from sqlalchemy.dialects.mysql import pymysql as pymysql_dialect

from nodes.executor.executor import Executor
from nodes.executor.reader import RANGE_ROWS_MAX, SnapshotReader
from nodes.executor.rows import Cache
from nodes.executor.store import KEYS_PER_STATEMENT, Statements, key_chunks
from nodes.executor.tables import local, replicated

TABLES = [*replicated.sorted_tables, *local.sorted_tables, *METADATA.sorted_tables]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
@pytest.mark.parametrize("server", ["mariadb", "mysql"])
def test_every_hot_statement_is_one_that_pymysql_batches(table: Table, server: str) -> None:
    dialect = pymysql_dialect.MySQLDialect_pymysql(paramstyle="format", is_mariadb=server == "mariadb")
    dialect.server_version_info = (10, 11, 6) if server == "mariadb" else (8, 4, 0)
    statements = Statements(table, dialect)
    for sql in (statements.insert, statements.upsert):
        assert RE_INSERT_VALUES.match(sql), sql
        assert sql.count("%s") == len(table.columns)


@pytest.mark.mariadb
def test_bulk_write_is_one_statement_on_the_server(mariadb_url: str) -> None:
    executor = open_executor(make_cluster(), mariadb_url)
    writer, statements = executor._writer, executor._schema.statements[ITEMS]
    rows = [Item(key_of(i), "n", i, None, b"\x00'\\%s") for i in range(200)]

    def questions() -> int:
        return int(writer.rows("SHOW SESSION STATUS LIKE 'Questions'")[0][1])

    for sql in (statements.insert, statements.upsert):
        before = questions()
        writer.write_many(sql, rows)
        writer.flush()
        assert questions() - before == 2, "the statement, and asking"
    assert writer.rows("SELECT COUNT(*) FROM items") == [(200,)]
    executor.close()


@pytest.mark.mariadb
def test_lists_of_keys_use_the_primary_key(mariadb_url: str) -> None:
    executor = open_executor(make_cluster(), mariadb_url)
    writer = executor._writer
    statements = executor._schema.statements[ITEMS]
    writer.write_many(statements.insert, [Item(key_of(i % 250), f"n{i}", i, None, None) for i in range(3000)])
    writer.flush()
    writer.execute("ANALYZE TABLE items")
    keys = [(key_of(i), f"n{i}") for i in range(64)]
    ((size, values),) = key_chunks(keys)
    plan = writer.rows("EXPLAIN " + statements.select(size), values)
    assert (plan[0][3], plan[0][5]) == ("range", "PRIMARY"), plan
    executor.close()


def test_key_chunks_are_of_few_sizes_and_lose_nothing() -> None:
    for count in (0, 1, 2, 5, 64, 65, 256, 257, 1000):
        keys = [(i, -i) for i in range(count)]
        chunks = list(key_chunks(keys))
        assert all(size in KEYS_PER_STATEMENT and len(values) == 2 * size for size, values in chunks)
        given = [(values[i], values[i + 1]) for _, values in chunks for i in range(0, len(values), 2)]
        assert list(dict.fromkeys(given)) == keys


def test_cache_is_bounded_and_keeps_what_is_used() -> None:
    cache = Cache(10)
    for i in range(100):
        cache.put((i,), i)
        cache.put((0,), cache.get((0,)))  # used all the time
        assert len(cache._young) + len(cache._old) <= 10
    assert cache.get((0,)) == 0
    assert cache.get((99,)) == 99
    cache.put((99,), None)
    assert cache.get((99,)) is None


@pytest.fixture
def reader(database_url: str) -> Iterator[SnapshotReader]:
    """Thirty items: amounts repeat, names sort by code point."""
    executor = open_executor(make_cluster(), database_url)
    names = ("a", "B", "a b", "ä", "Z", "z", "é", "日", "😀", "aa")
    rows = [Item(key_of(1 + i % 3), name, i % 4, None, None) for i, name in enumerate(names * 3)]
    executor._writer.write_many(executor._schema.statements[ITEMS].insert, rows)
    executor._writer.flush()
    yield executor._snapshot(executor._reader, executor._tip)
    executor.close()


def pages(reader: SnapshotReader, index: tuple[str, ...], limit: int, **options: Any) -> list[Item]:
    found: list[Item] = []
    after = None
    while page := reader.range(ITEMS, index, **{"equal": {}, **options}, after=after, limit=limit):
        found += page
        after = tuple(getattr(page[-1], name) for name in index)
    return found


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("index", [("amount", "owner", "name"), ("name", "owner"), ("owner", "amount", "name")])
def test_range_pages_are_the_whole_in_one_order(
    index: tuple[str, ...], descending: bool, reader: SnapshotReader
) -> None:
    everything = list(reader.scan(ITEMS))
    assert len(everything) == 30
    assert everything == sorted(everything, key=lambda row: (row.owner, row.name))
    expected = sorted(everything, key=lambda row: tuple(getattr(row, name) for name in index), reverse=descending)
    for limit in (1, 7, 30, RANGE_ROWS_MAX):
        assert pages(reader, index, limit, descending=descending) == expected


def test_range_with_equalities_continues_within_them(reader: SnapshotReader) -> None:
    everything = list(reader.scan(ITEMS))
    for equal in ({"amount": 2}, {"owner": key_of(2)}, {"owner": key_of(2), "amount": 1}, {"note": None}):
        expected = [row for row in everything if all(getattr(row, name) == value for name, value in equal.items())]
        expected.sort(key=lambda row: (row.amount, row.owner, row.name))
        assert pages(reader, ("amount", "owner", "name"), 2, equal=equal) == expected
    one = {"amount": everything[0].amount, "owner": everything[0].owner, "name": everything[0].name}
    assert pages(reader, ("amount", "owner", "name"), 5, equal=one) == [everything[0]]


def test_range_after_a_place_outside_its_equalities_follows_the_order(reader: SnapshotReader) -> None:
    everything = sorted(reader.scan(ITEMS), key=lambda row: (row.amount, row.owner, row.name))
    for amount, expected in ((1, [row for row in everything if row.amount == 2]), (3, [])):
        place = (amount, key_of(1), "a")
        assert reader.range(ITEMS, ("amount", "owner", "name"), equal={"amount": 2}, after=place, limit=30) == expected


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": RANGE_ROWS_MAX + 1}, "limit"),
        ({"index": ("note",), "limit": 1}, "may be null"),
        ({"equal": {"amount": "1"}, "limit": 1}, "is no value"),
        ({"equal": {"amount": 2**63}, "limit": 1}, "is no value"),
        ({"equal": {"amount": None}, "limit": 1}, "is no value"),
        ({"after": (1,), "limit": 1}, "not a place"),
        ({"after": (1, b"x", 5), "limit": 1}, "is no value"),
    ],
)
def test_range_refuses_what_databases_treat_differently(
    arguments: dict[str, Any], complaint: str, reader: SnapshotReader
) -> None:
    with pytest.raises(ValueError, match=complaint):
        reader.range(ITEMS, **{"index": ("amount", "owner", "name"), "equal": {}, **arguments})


@pytest.mark.parametrize("name", ["a ", "A", "a\x00", "á", "a\u0301"])
def test_key_that_only_looks_alike_is_not_found(name: str, reader: SnapshotReader) -> None:
    assert reader.get(ITEMS, key_of(1), "a") is not None
    assert reader.get(ITEMS, key_of(1), name) is None
    assert reader.range(ITEMS, ("owner", "name"), equal={"name": name}, limit=5) == []
    with pytest.raises(TypeError):
        reader.get(ITEMS, key_of(1), 0)


def test_reader_cannot_write(database_url: str) -> None:
    executor: Executor = open_executor(make_cluster(), database_url)
    executor._reader.begin_snapshot()
    with pytest.raises(executor._database.error):
        executor._reader.execute("DELETE FROM totals")
    executor._reader.rollback()
    assert executor.verify_state().rows["totals"] == 1
    executor.close()
