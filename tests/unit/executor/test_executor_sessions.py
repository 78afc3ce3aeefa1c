"""The session rules of protocol.md 3: every branch of exec_one, and what is forgotten when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from executor_harness import (
    GENESIS_US,
    SECOND,
    Log,
    digest_of,
    key_of,
    make_cluster,
    open_executor,
    statuses,
)

from nodes.codes import Status
from nodes.core.types import BatchKind
from nodes.executor.executor import Executor
from nodes.executor.tables import Result, SessionOwner, session_owners, sessions

OK, DUPLICATE, EXPIRED = Status.OK, Status.DUPLICATE, Status.EXPIRED
STALE_SESSION, STALE, WINDOW, REUSED = (
    Status.STALE_SESSION,
    Status.STALE_SEQUENCE,
    Status.WINDOW_EXCEEDED,
    Status.SEQUENCE_REUSED,
)
KEY = key_of(1)


def row(executor: Executor, table: Any, *key: Any) -> Any:
    """A committed row."""
    executor._reader.begin_snapshot()
    try:
        return executor._snapshot(executor._reader, executor._tip).get(table, *key)
    finally:
        executor._reader.rollback()


# (session, sequence, floor, expected); each list is one story of one key
STORIES: dict[str, Sequence[tuple[int, int, int, Status]]] = {
    "in order": [(1, 1, 1, OK), (1, 2, 1, OK), (1, 3, 2, OK)],
    "out of order": [(1, 3, 1, OK), (1, 1, 1, OK), (1, 2, 1, OK), (1, 2, 1, STALE), (1, 4, 1, OK)],
    "reused above low": [(1, 3, 1, OK), (1, 3, 2, REUSED), (1, 3, 3, REUSED)],
    "low moves over what is used": [(1, 2, 1, OK), (1, 3, 1, OK), (1, 1, 1, OK), (1, 3, 1, STALE)],
    "window": [(1, 256, 1, OK), (1, 257, 1, WINDOW), (1, 1, 1, OK), (1, 257, 1, OK), (1, 258, 1, WINDOW)],
    "window of a new session": [(1, 257, 1, WINDOW), (1, 256, 1, OK)],
    "floor jumps": [(1, 1, 1, OK), (1, 1000, 1000, OK), (1, 999, 1, STALE), (1, 1001, 1, OK)],
    "floor keeps used bits": [(1, 5, 1, OK), (1, 6, 4, OK), (1, 5, 1, REUSED), (1, 4, 1, OK), (1, 5, 1, STALE)],
    "floor beyond the window": [(1, 5, 1, OK), (1, 9000, 8999, OK), (1, 8999, 1, OK), (1, 8998, 1, STALE)],
    "floor below low is nothing": [(1, 1, 1, OK), (1, 2, 1, OK), (1, 3, 1, OK)],
    "floor of a refused request counts": [(1, 5, 1, OK), (1, 5, 5, REUSED), (1, 4, 1, STALE)],
    "session 0 never": [(0, 1, 1, STALE_SESSION), (1, 1, 1, OK)],
    "several sessions": [(5, 1, 1, OK), (3, 1, 1, OK), (5, 1, 1, STALE), (3, 2, 1, OK)],
    "eviction of the smallest": [(s, 1, 1, OK) for s in (10, 11, 12)]
    + [(13, 1, 1, OK), (10, 2, 1, STALE_SESSION), (11, 2, 1, OK), (9, 1, 1, STALE_SESSION)],
    "a smaller id may come while above the floor": [(s, 1, 1, OK) for s in (10, 20, 30)]
    + [(15, 1, 1, OK), (10, 1, 1, STALE_SESSION), (40, 1, 1, OK), (15, 2, 1, STALE_SESSION), (20, 2, 1, OK)],
    "largest numbers": [(2**53 - 1, 2**53 - 1, 2**53 - 1, OK), (2**53 - 1, 2**53 - 2, 1, STALE)],
}


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("together", [False, True], ids=["a block each", "one block"])
def test_session_rules_give_the_expected_status(story: str, together: bool, sqlite_url: str) -> None:
    steps = STORIES[story]
    cluster = make_cluster(sessions_max=3)
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    records = [
        log.record({"do": "write", "name": f"n{i}"}, key=KEY, session=session, sequence=sequence, floor=floor)
        for i, (session, sequence, floor, _) in enumerate(steps)
    ]
    batches = [records] if together else [[record] for record in records]
    got = [status for batch in batches for status in statuses(executor.execute(log.batch(*batch)))]
    assert got == [expected for *_, expected in steps]
    assert executor.verify_state().problems == []
    executor.close()


def test_session_sequence_is_used_up_by_a_request_the_application_refuses(database_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, database_url)
    first = log.record({"do": "drop", "name": "nothing"}, key=KEY, sequence=1)
    second = log.record({"do": "add", "name": "x", "amount": 1}, key=KEY, sequence=1)
    assert statuses(executor.execute(log.batch(first, second))) == [100, STALE]
    executor.close()


def test_session_is_untouched_by_what_is_refused_before_it(sqlite_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    stranger = b"\xff" * 32
    records = [
        log.record({"do": "write"}, key=stranger),
        log.record({"do": "write"}, key=KEY, valid_until_us=log.time_us + 999),
        log.record({"do": "write"}, key=KEY, sequence=2, kind=2),
    ]
    assert statuses(executor.execute(log.batch(*records))) == [Status.UNAUTHORIZED, EXPIRED, Status.MALFORMED_OPERATION]
    assert row(executor, session_owners, stranger) is None
    assert row(executor, session_owners, KEY) is None
    executor.close()


def test_session_expiry_compares_with_block_time(sqlite_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    executor.execute(log.batch(time_us=GENESIS_US + SECOND))
    late = GENESIS_US  # a primary's clock that went back: block time is one more than before
    records = [
        log.record({"do": "write", "name": "a"}, key=KEY, sequence=1, valid_until_us=GENESIS_US + SECOND + 1),
        log.record({"do": "write", "name": "b"}, key=KEY, sequence=2, valid_until_us=GENESIS_US + SECOND),
    ]
    assert statuses(executor.execute(log.batch(*records, time_us=late))) == [OK, EXPIRED]
    executor.close()


@pytest.mark.parametrize("first", [OK, EXPIRED, Status.UNAUTHORIZED], ids=lambda status: status.name)
def test_session_duplicate_names_the_original_and_changes_nothing(first: Status, database_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, database_url)
    key = b"\xff" * 32 if first is Status.UNAUTHORIZED else KEY
    until = 0 if first is EXPIRED else None
    record = log.record({"do": "add", "name": "x", "amount": 1}, key=key, valid_until_us=until)
    other = log.record({"do": "add", "name": "y", "amount": 1}, key=key_of(2))
    assert statuses(executor.execute(log.batch(other, record))) == [OK, first]
    again = executor.execute(log.batch(record))
    assert statuses(again) == [DUPLICATE]
    assert again.entries[0].digest == digest_of(record)
    copy = open_executor(cluster, database_url + "2", replica_id=2) if database_url.startswith("sqlite") else None
    if copy is not None:  # replica 2 answers for index 0 of block 2 in full
        full = [copy.execute(message) for message in log.messages][1]
        assert full.entries[0].result == b'{"block":1,"index":1}'
        copy.close()
    executor.close()


def test_session_results_are_forgotten_by_block_time_and_sessions_too(database_url: str) -> None:
    cluster = make_cluster(results_lifetime_us=2 * SECOND, session_lifetime_us=60 * SECOND, validity_max_us=SECOND)
    log = Log(cluster)
    executor = open_executor(cluster, database_url)
    record = log.record({"do": "write", "name": "a"}, key=KEY, session=7)
    executor.execute(log.batch(record, time_us=GENESIS_US + 10))
    kept = log.record({"do": "write", "name": "b"}, key=KEY, session=9)
    executor.execute(log.batch(kept, time_us=GENESIS_US + 2 * SECOND))
    assert statuses(executor.execute(log.batch(record, time_us=GENESIS_US + 2 * SECOND + 500_000))) == [DUPLICATE]
    assert statuses(executor.execute(log.batch(record, time_us=GENESIS_US + 3 * SECOND))) == [STALE]
    executor.execute(log.batch(time_us=GENESIS_US + 64 * SECOND))
    assert row(executor, sessions, KEY, 7) is None, "last used at 3 s"
    owner: SessionOwner = row(executor, session_owners, KEY)
    assert (owner.min_session, owner.live) == (9, b"")
    assert statuses(executor.execute(log.batch(log.record({"do": "write"}, key=KEY, session=9)))) == [STALE_SESSION]
    assert statuses(executor.execute(log.batch(log.record({"do": "write"}, key=KEY, session=10)))) == [OK]
    assert executor.verify_state().problems == []
    executor.close()


def test_session_collection_is_bounded_and_goes_on_in_the_next_block(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodes.executor.sessions.COLLECTED_MAX", 3)
    cluster = make_cluster(validity_max_us=SECOND, results_lifetime_us=SECOND + 1)
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    records = [log.record({"do": "write", "name": "n"}, key=key_of(i)) for i in range(8)]
    executor.execute(log.batch(*records))
    left = []
    for kind in (BatchKind.TICK, BatchKind.NULL, BatchKind.TICK, BatchKind.TICK):
        executor.execute(log.batch(time_us=GENESIS_US + 10 * SECOND + len(left), kind=kind))
        left.append(executor.verify_state().rows["results"])
    assert left == [5, 2, 0, 0]
    executor.close()


def test_session_collection_takes_the_oldest_first(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.executor.sessions.COLLECTED_MAX", 2)
    cluster = make_cluster(validity_max_us=SECOND, results_lifetime_us=SECOND + 1)
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    records = [log.record({"do": "write", "name": "n"}, key=key_of(i)) for i in range(4)]
    executor.execute(log.batch(records[3], records[1]))
    executor.execute(log.batch(records[0], records[2]))
    executor.execute(log.batch(time_us=GENESIS_US + 10 * SECOND))
    held = executor._reader.rows("SELECT * FROM results ORDER BY block, leaf_index")
    assert [Result._make(row).digest for row in held] == [digest_of(records[0]), digest_of(records[2])]
    executor.close()
