"""What executing a block gives: leaves, time, timers, answers, receipts, and refusing what does not fit."""

from __future__ import annotations

import json

import pytest
from executor_harness import (
    GENESIS_US,
    ITEMS,
    SECOND,
    Log,
    PantryMachine,
    digest_of,
    header_of,
    key_of,
    make_cluster,
    open_executor,
    random_log,
    run,
    statuses,
)
from sqlalchemy import MetaData

import fastpath
from nodes.block import BlockHeader, parse_timer_record, result_leaf, timer_digest
from nodes.codes import Status
from nodes.core.types import BatchKind
from nodes.executor.archive import ARCHIVE_BLOCKS_MAX
from nodes.executor.executor import DatabaseUnavailable, Executor, ExecutorStopped, OutOfOrder
from nodes.executor.protocol import ExecuteBlock, FetchArchive, FindBlock, FindReceipt, Query, ReceiptFound
from nodes.executor.rows import InvalidRow
from nodes.executor.schema import replicated_tables
from nodes.executor.store import DatabaseInUse, DatabaseRefused
from nodes.machine import Outcome

KEY = key_of(1)


def ask(executor: Executor, digest: bytes) -> ReceiptFound:
    (answer,) = executor.answer([FindReceipt(1, digest)])
    assert isinstance(answer, ReceiptFound)
    return answer


def total(executor: Executor) -> int:
    return int(json.loads(executor.query(Query(1, b"{}")).result)["total"])


def test_block_genesis_is_sequence_zero_of_the_config(database_url: str) -> None:
    cluster = make_cluster({"items": {"salt": 3, "flour": 4}})
    executor = open_executor(cluster, database_url)
    ready = executor.ready()
    assert (ready.sequence, ready.block_hash, ready.order_hash) == (0, cluster.config_hash, cluster.config_hash)
    assert ready.time_us == GENESIS_US
    assert total(executor) == 7
    assert executor.verify_state().problems == []
    executor.close()


def test_block_header_chains_and_counts(database_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, database_url)
    previous = cluster.config_hash
    for number in range(1, 4):
        record = log.record({"do": "add", "name": "x", "amount": 1}, key=KEY, sequence=number)
        message = log.batch(record)
        header = header_of(executor.execute(message))
        assert header.previous_block_hash == previous
        assert (header.sequence, header.result_count, header.time_us) == (number, 1, log.time_us)
        assert (header.order_hash, header.config_hash) == (message.order_hash, cluster.config_hash)
        assert (header.state_sequence, header.cluster_id) == (0, cluster.cluster_id)
        previous = header.hash
    assert executor.ready().block_hash == previous
    executor.close()


def test_block_time_never_falls_and_null_blocks_keep_it(sqlite_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    times = []
    for time_us, kind in (
        (GENESIS_US + 500, BatchKind.NORMAL),
        (GENESIS_US + 100, BatchKind.TICK),
        (0, BatchKind.NULL),
        (GENESIS_US + 501, BatchKind.NORMAL),
        (GENESIS_US + 900, BatchKind.NORMAL),
    ):
        times.append(header_of(executor.execute(log.batch(time_us=time_us, kind=kind))).time_us - GENESIS_US)
    assert times == [500, 501, 501, 502, 900]
    executor.close()


@pytest.mark.parametrize("replica_id", range(4))
def test_block_entries_are_full_where_this_replica_answers(replica_id: int, sqlite_url: str) -> None:
    cluster = make_cluster()
    log = random_log(cluster, 5, 6)
    executor = open_executor(cluster, sqlite_url, replica_id=replica_id)
    for message in log.messages:
        executed = executor.execute(message)
        header = header_of(executed)
        assert [entry.index for entry in executed.entries] == list(range(header.result_count))
        for digest, index, status, result, path in executed.entries:
            if (index + message.sequence) % 4 != replica_id:
                assert (result, path) == (b"", b"")
                continue
            leaf = result_leaf(message.sequence, index, digest, status, result)
            assert fastpath.merkle_fold(leaf, index, header.result_count, path) == header.results_root
    executor.close()


def test_block_timers_fire_first_in_order_of_due_time_then_id(database_url: str) -> None:
    cluster = make_cluster(timers_max=2)
    log = Log(cluster)
    executor = open_executor(cluster, database_url)
    setters = [
        log.record({"do": "expire", "name": f"n{i}", "due_us": GENESIS_US + SECOND + offset}, key=key_of(i), sequence=1)
        for i, offset in enumerate((20, 10, 10, 3_000_000))
    ]
    executed = executor.execute(log.batch(*setters))
    assert executed.next_timer_us == GENESIS_US + SECOND + 10
    order = sorted(
        (GENESIS_US + SECOND + offset, digest_of(record)[:16])
        for record, offset in zip(setters, (20, 10, 10, 3_000_000), strict=True)
    )
    request = log.record({"do": "write", "name": "later"}, key=KEY, sequence=2)
    executed = executor.execute(log.batch(request, time_us=GENESIS_US + 2 * SECOND))
    assert [entry.digest for entry in executed.entries] == [
        timer_digest(order[0][1], order[0][0]),
        timer_digest(order[1][1], order[1][0]),
        digest_of(request),
    ]
    assert executed.next_timer_us == order[2][0], "no more than timers_max in one block"
    leftover = executor.execute(log.batch(kind=BatchKind.NULL))
    assert [entry.digest for entry in leftover.entries] == [timer_digest(order[2][1], order[2][0])]
    assert leftover.next_timer_us == order[3][0]
    found = ask(executor, timer_digest(order[0][1], order[0][0]))
    assert parse_timer_record(found.record) == (order[0][1], order[0][0])
    assert (BlockHeader.unpack(found.block_header).sequence, found.index) == (2, 0)
    executor.close()


def test_block_timer_that_an_earlier_one_cancels_does_not_fire(sqlite_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    victim = log.record({"do": "expire", "name": "n", "due_us": GENESIS_US + 5000}, key=KEY, sequence=1)
    identity = digest_of(victim)[:16]
    executor.execute(log.batch(victim))
    canceller = log.record({"do": "cancel", "timer": identity.hex()}, key=KEY, sequence=2)
    assert statuses(executor.execute(log.batch(canceller))) == [Status.OK]
    assert executor.execute(log.batch(time_us=GENESIS_US + SECOND)).entries == []
    executor.close()


def test_block_timer_cancelled_by_a_timer_of_the_same_block_does_not_fire(sqlite_url: str) -> None:
    class Cancelling(PantryMachine):
        def apply(self, operation, context, rows):  # type: ignore[no-untyped-def]
            from nodes.machine import Timer

            rows.add_timer(Timer(b"b", GENESIS_US + 5000, bytes(32)))
            rows.add_timer(Timer(b"c", GENESIS_US + 9_000_000, bytes(32)))
            rows.add_timer(Timer(b"a", GENESIS_US + 5000, b"CANCELb"))
            rows.add_timer(Timer(b"c", GENESIS_US + 6000, bytes(32)))  # moved
            return Outcome(Status.OK, b"{}")

    cluster = make_cluster()
    log = Log(cluster)
    executor = Executor(cluster, Cancelling(), sqlite_url, 0)
    executor.open()
    executor.execute(log.batch(log.record({}, key=KEY)))
    executed = executor.execute(log.batch(time_us=GENESIS_US + SECOND))
    assert [entry.digest for entry in executed.entries] == [
        timer_digest(b"a", GENESIS_US + 5000),
        timer_digest(b"c", GENESIS_US + 6000),
    ]
    assert executed.next_timer_us is None
    assert executor.verify_state().rows["timers"] == 0
    executor.close()


def test_block_timers_beyond_the_index_are_found_in_time(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.executor.timers.NEAREST_MAX", 4)
    monkeypatch.setattr("nodes.executor.timers.TimerIndex.__init__.__defaults__", (4,))
    cluster = make_cluster(timers_max=3)
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    dues = [GENESIS_US + SECOND + offset for offset in (90, 10, 50, 30, 70, 20, 80, 60, 40, 99, 5, 15)]
    for i, due_us in enumerate(dues):
        executor.execute(log.batch(log.record({"do": "expire", "due_us": due_us}, key=KEY, sequence=i + 1)))
    fired: list[int] = []
    while (executed := executor.execute(log.batch(time_us=GENESIS_US + 2 * SECOND + len(fired)))).entries:
        fired += [parse_timer_record(ask(executor, entry.digest).record)[1] for entry in executed.entries]
    assert fired == sorted(dues)
    executor.close()


def test_block_ordered_read_answers_from_the_state_before_the_block(database_url: str) -> None:
    cluster = make_cluster({"items": {"salt": 3}})
    log = Log(cluster)
    executor = open_executor(cluster, database_url, replica_id=2)
    add = log.record({"do": "add", "name": "x", "amount": 5}, key=KEY, sequence=1)
    read = log.record(b'{"range":2}', key=KEY, sequence=2, kind=1)
    stranger = log.record(b"{}", key=b"\xff" * 32, kind=1)
    executed = executor.execute(log.batch(add, read, stranger))
    assert statuses(executed) == [Status.OK, Status.OK, Status.UNAUTHORIZED]
    assert json.loads(executed.entries[1].result) == {"rows": [["00" * 32, "salt", 3]]}
    later = log.record(b"{}", key=KEY, sequence=3, kind=1)
    large = log.record(b'{"large":70000}', key=KEY, sequence=4, kind=1)
    executor.execute(log.batch(later, large))
    assert json.loads(ask(executor, digest_of(later)).result) == {"sequence": 1, "total": 8}
    assert ask(executor, digest_of(large)).result == b'{"error":"result_too_large"}'
    executor.close()


def test_block_answers_only_so_many_ordered_reads(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.executor.execution.ORDERED_READS_MAX", 1)
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    reads = [log.record(b"{}", key=KEY, sequence=i, kind=1) for i in (1, 2)]
    executor.execute(log.batch(*reads))
    assert ask(executor, digest_of(reads[1])).result == b'{"error":"overloaded"}'
    executor.close()


def test_block_replay_is_answered_from_the_archive(database_url: str) -> None:
    cluster = make_cluster()
    log = random_log(cluster, 2, 12)
    executor = open_executor(cluster, database_url)
    first = [executor.execute(message) for message in log.messages]
    again = [executor.execute(message) for message in log.messages]
    assert [(e.block_header, e.entries) for e in again] == [(e.block_header, e.entries) for e in first]
    assert executor.ready().sequence == 12
    executor.close()


def test_block_replay_with_another_batch_is_noticed(sqlite_url: str) -> None:
    cluster = make_cluster()
    log, other = Log(cluster), Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    executor.execute(log.batch())
    with pytest.raises(ExecutorStopped, match="another batch"):
        executor.execute(other.batch(time_us=GENESIS_US + 77))
    executor.close()


def test_block_out_of_order_or_of_another_order_is_refused(sqlite_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    first, second = log.batch(), log.batch()
    with pytest.raises(OutOfOrder):
        executor.execute(second)
    executor.execute(first)
    forged = ExecuteBlock(2, second.batch_header, second.body, bytes(32))
    with pytest.raises(ExecutorStopped, match="another order"):
        executor.execute(forged)
    with pytest.raises(ValueError, match="not its own"):
        executor.execute(ExecuteBlock(2, first.batch_header, first.body, second.order_hash))
    assert executor.execute(second).sequence == 2, "nothing of the refused ones stayed"
    executor.close()


def test_block_with_a_bug_of_the_application_leaves_no_trace(database_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, database_url)
    good = log.record({"do": "add", "name": "x", "amount": 1}, key=KEY)
    executor.execute(log.batch(good))
    before = executor.verify_state()
    poisoned = Log(cluster)
    poisoned.batch(good)
    add = poisoned.record({"do": "add", "name": "y", "amount": 1}, key=KEY, sequence=2)
    for bug, error in (("fail", ZeroDivisionError), ("break", AssertionError)):
        message = Log(cluster)
        message.batch(good)
        broken = message.batch(add, message.record({"do": bug}, key=KEY, sequence=3))
        with pytest.raises(error):
            executor.execute(broken)
    after = executor.verify_state()
    assert (after.rows, after.root, after.problems) == (before.rows, before.root, [])
    assert statuses(executor.execute(log.batch(add))) == [Status.OK]
    assert total(executor) == 2
    executor.close()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"name": "x" * 41, "amount": 1}, "41 long"),
        ({"name": "x", "amount": 2**63}, "64 bits"),
        ({"name": "x", "amount": "1"}, "is a str"),
        ({"name": "x", "amount": True}, "is a bool"),
        ({"name": "x", "amount": None}, "must not be None"),
        ({"name": "x ", "amount": 1}, "space at its end"),
        ({"name": "x\ty", "amount": 1}, "control characters"),
        ({"name": "e\u0301", "amount": 1}, "NFC"),
        ({"name": "x", "amount": 1, "note": "n" * 201}, "201 long"),
        ({"name": "x", "amount": 1, "note": 5}, "is a int"),
    ],
)
def test_block_refuses_values_that_a_database_could_alter(
    fields: dict[str, object], complaint: str, sqlite_url: str
) -> None:
    class Writing(PantryMachine):
        def apply(self, operation, context, rows):  # type: ignore[no-untyped-def]
            from executor_harness import Item

            rows.put(ITEMS, Item(bytes(32), fields["name"], fields["amount"], fields.get("note"), None))
            return Outcome(Status.OK, b"{}")

        def check_block(self, changes):  # type: ignore[no-untyped-def]
            return None

    cluster = make_cluster()
    log = Log(cluster)
    executor = Executor(cluster, Writing(), sqlite_url, 0)
    executor.open()
    with pytest.raises(InvalidRow, match=complaint):
        executor.execute(log.batch(log.record({}, key=KEY)))
    executor.close()


def test_block_admit_must_not_write_and_library_tables_are_out_of_reach(sqlite_url: str) -> None:
    from executor_harness import Total

    from nodes.executor.tables import sessions

    class Meddling(PantryMachine):
        step = 0

        def admit(self, public_key, payload, rows):  # type: ignore[no-untyped-def]
            if self.step == 0:
                rows.put(ITEMS, Total(0, 0, 0))
            return

        def apply(self, operation, context, rows):  # type: ignore[no-untyped-def]
            rows.get(sessions, bytes(32), 1)

    cluster = make_cluster()
    log = Log(cluster)
    machine = Meddling()
    executor = Executor(cluster, machine, sqlite_url, 0)
    executor.open()
    message = log.batch(log.record({}, key=KEY))
    with pytest.raises(PermissionError):
        executor.execute(message)
    machine.step = 1
    with pytest.raises(KeyError):
        executor.execute(message)
    executor.close()


def test_receipt_of_every_leaf_verifies_also_when_its_row_was_collected(database_url: str) -> None:
    cluster = make_cluster(validity_max_us=SECOND, results_lifetime_us=SECOND + 1, state_interval=4)
    log = random_log(cluster, 3, 30)
    executor = open_executor(cluster, database_url)
    originals: dict[bytes, tuple[int, int]] = {}
    for message in log.messages:
        for entry in executor.execute(message).entries:
            if entry.status != Status.DUPLICATE:
                originals[entry.digest] = (message.sequence, entry.index)
    assert executor.verify_state().rows["results"] < len(originals)
    records = {
        digest_of(request[8]): request[8]
        for message in log.messages
        for request in fastpath.parse_requests(message.body, 0, len(message.body), cluster.cluster_id, 1024, 65536)
    }
    for digest, (sequence, index) in originals.items():
        found = ask(executor, digest)
        header = BlockHeader.unpack(found.block_header)
        assert (found.found, header.sequence, found.index) == (True, sequence, index)
        leaf = result_leaf(sequence, index, digest, found.status, found.result)
        assert fastpath.merkle_fold(leaf, index, header.result_count, found.path) == header.results_root
        if digest in records:
            assert found.record == records[digest]
        else:
            assert timer_digest(*parse_timer_record(found.record)) == digest
    assert ask(executor, bytes(32)) == ReceiptFound(1, False)
    assert ask(executor, b"short") == ReceiptFound(1, False)
    executor.close()


def test_archive_gives_consecutive_batches_within_bounds(database_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, database_url)
    for i in range(ARCHIVE_BLOCKS_MAX + 6):
        executor.execute(log.batch(log.record({"do": "write", "name": "n"}, key=KEY, sequence=i + 1)))
    expected = [(message.batch_header, message.body) for message in log.messages]

    def fetch(first: int, last: int) -> list[tuple[bytes, bytes]]:
        (answer,) = executor.answer([FetchArchive(9, first, last)])
        return answer.blocks  # type: ignore[union-attr]

    assert fetch(1, 3) == expected[:3]
    assert fetch(1, 1000) == expected[:ARCHIVE_BLOCKS_MAX]
    assert fetch(69, 2**60) == expected[68:]
    assert fetch(71, 80) == fetch(0, 5) == fetch(5, 4) == fetch(2**64 - 1, 2**64 - 1) == []
    found, missing = executor.answer([FindBlock(1, 70), FindBlock(2, 2**64 - 1)])
    assert header_of(found).sequence == 70  # type: ignore[arg-type]
    assert not missing.found  # type: ignore[union-attr]
    executor.close()


def test_query_sees_what_was_committed_before_it_and_never_stops_the_executor(database_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, database_url)
    for i in range(3):
        executed = executor.execute(log.batch(log.record({"do": "add", "amount": 2}, key=KEY, sequence=i + 1)))
        answer = executor.query(Query(i, b"{}", KEY))
        assert json.loads(answer.result) == {"sequence": i + 1, "total": 2 * (i + 1)}
        assert (answer.token, answer.sequence, answer.block_hash) == (i, i + 1, header_of(executed).hash)
        assert answer.time_us == header_of(executed).time_us
    failed, large, fine = executor.answer([Query(1, b'{"fail":1}'), Query(2, b'{"large":70000}'), Query(3, b"{}")])
    assert failed.result == b'{"error":"internal"}'  # type: ignore[union-attr]
    assert large.result == b'{"error":"result_too_large"}'  # type: ignore[union-attr]
    assert json.loads(fine.result)["total"] == 6  # type: ignore[union-attr]
    executor.close()


def test_database_of_another_cluster_is_refused(database_url: str) -> None:
    open_executor(make_cluster({"items": {"a": 1}}), database_url).close()
    stranger = Executor(make_cluster({"items": {"a": 2}}), PantryMachine(), database_url, 0)
    with pytest.raises(DatabaseRefused, match="cluster_id"):
        stranger.open()
    stranger.close()


def test_database_with_unknown_rows_is_refused(database_url: str) -> None:
    cluster = make_cluster({"items": {"a": 1}})
    executor = open_executor(cluster, database_url)
    executor._writer.execute("DELETE FROM meta")
    executor.close()
    with pytest.raises(DatabaseRefused, match="has rows"):
        open_executor(cluster, database_url)


def test_database_has_one_executor(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.executor.store.LOCK_TIMEOUT_S", 0)
    cluster = make_cluster()
    executor = open_executor(cluster, database_url)
    with pytest.raises(DatabaseUnavailable, match="another executor") as refused:
        open_executor(cluster, database_url)
    assert isinstance(refused.value.__cause__, DatabaseInUse)
    executor.close()
    open_executor(cluster, database_url).close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://x/y"])
def test_database_of_an_unsupported_kind_is_refused(url: str) -> None:
    with pytest.raises((DatabaseRefused, ModuleNotFoundError)):
        Executor(make_cluster(), PantryMachine(), url, 0)


def test_database_tables_of_an_application_must_not_collide() -> None:
    from nodes.machine import integer, replicated_table

    class Row(tuple):
        _fields = ("id",)

    def machine(*tables: tuple[int, str]) -> PantryMachine:
        metadata = MetaData()
        for table_id, name in tables:
            replicated_table(metadata, table_id, name, Row, integer("id"), key=("id",))
        made = PantryMachine()
        made.tables = metadata
        return made

    for tables, complaint in (
        ([(100, "sessions")], "is the library's"),
        ([(99, "mine")], "id in 100"),
        ([(100, "a"), (100, "b")], "share the id"),
    ):
        with pytest.raises(ValueError, match=complaint):
            replicated_tables(machine(*tables))


def test_block_of_every_member_count_is_answered_by_somebody(tmp_path_factory: pytest.TempPathFactory) -> None:
    cluster = make_cluster(members=1)
    log = random_log(cluster, 9, 3)
    executor = open_executor(cluster, f"sqlite:///{tmp_path_factory.mktemp('one') / 'state.db'}")
    for message in log.messages:
        assert all(entry.result for entry in executor.execute(message).entries)
    assert run(executor, log.messages)
    executor.close()
