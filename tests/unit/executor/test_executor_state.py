"""The state root: recomputed from rows, kept over restarts, and what an altered row does."""

from __future__ import annotations

from pathlib import Path

import pytest
from executor_harness import Log, key_of, make_cluster, open_executor, random_log, run

import fastpath
from nodes.block import BlockHeader
from nodes.executor.executor import SIDECAR_NAME, ExecutorStopped
from nodes.executor.rows import Delta
from nodes.executor.state_hash import StateTracker, decode_journal, encode_journal, read_sidecar

SMALL = {"state_interval": 4, "buckets": 16}


def test_state_root_is_that_of_the_rows_at_every_boundary(database_url: str) -> None:
    log = random_log(make_cluster({"items": {"salt": 1}}, **SMALL), 51, 14)
    executor = open_executor(log.cluster, database_url)
    genesis = executor.ready().state_root
    expected: dict[int, bytes] = {0: genesis}
    for message in log.messages:
        header = BlockHeader.unpack(executor.execute(message).block_header)
        report = executor.verify_state()
        assert report.problems == []
        assert header.state_sequence == message.sequence // 4 * 4
        assert expected.setdefault(header.state_sequence, header.state_root) == header.state_root
        assert report.root == header.state_root
    executor.close()


ALTERATIONS = [
    "UPDATE items SET amount = amount + 1 WHERE name = 'old'",
    "UPDATE items SET amount = amount + 1 WHERE name = 'new'",
    "UPDATE items SET note = NULL WHERE name = 'old'",
    "DELETE FROM items WHERE name = 'old'",
    "DELETE FROM items WHERE name = 'new'",
    "UPDATE sessions SET low = 0",
    "DELETE FROM results",
    "UPDATE totals SET amount = 77",
]


@pytest.mark.parametrize("statement", ALTERATIONS)
def test_altered_row_is_noticed_wherever_it_was_last_written(statement: str, database_url: str) -> None:
    cluster = make_cluster(**SMALL)
    log = Log(cluster)
    executor = open_executor(cluster, database_url)
    for i in range(6):
        name = {0: "old", 5: "new"}.get(i, f"n{i}")
        operation = {"do": "add", "name": name, "amount": 10, "note": "n"}
        executor.execute(log.batch(log.record(operation, key=key_of(i), sequence=1)))
    executor._writer.execute(statement)
    assert not executor.verify_state().is_sound
    executor.close()
    with pytest.raises(ExecutorStopped, match="does not hold the state"):
        open_executor(cluster, database_url)


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("UPDATE bodies SET body = ? WHERE sequence = 2", "body of block 2"),
        (
            "UPDATE blocks SET header = (SELECT header FROM blocks WHERE sequence = 3) WHERE sequence = 2",
            "block 2 does",
        ),
        (
            "UPDATE blocks SET outcomes = (SELECT outcomes FROM blocks WHERE sequence = 3) WHERE sequence = 2",
            "results of",
        ),
        (
            "UPDATE blocks SET batch_header = (SELECT batch_header FROM blocks WHERE sequence = 3) WHERE sequence = 2",
            "its batch",
        ),
        ("DELETE FROM blocks WHERE sequence = 2", "block 2 is missing"),
        ("DELETE FROM journal WHERE sequence = 5", "journal does not cover"),
    ],
)
def test_altered_archive_is_noticed(statement: str, complaint: str, sqlite_url: str) -> None:
    cluster = make_cluster(**SMALL)
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    for i in range(6):
        executor.execute(log.batch(log.record({"do": "add", "amount": 1}, key=key_of(i))))
    assert executor.verify_state().blocks == 6
    executor._writer.execute(statement, (b"other",) if "?" in statement else ())
    problems = executor.verify_state().problems
    assert any(complaint in problem for problem in problems), problems
    executor.close()


def test_altered_journal_does_not_match_its_header(sqlite_url: str) -> None:
    """Rows and journal altered together are still not those of the block's write set."""
    cluster = make_cluster(**SMALL)
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    executor.execute(log.batch(log.record({"do": "add", "amount": 1}, key=key_of(1))))
    ((changes,),) = executor._writer.rows("SELECT changes FROM journal")
    deltas = decode_journal(changes)
    forged = [delta._replace(new=None) if i == 0 else delta for i, delta in enumerate(deltas)]
    executor._writer.execute("UPDATE journal SET changes = ?", (encode_journal(forged),))
    assert any("journal of block 1" in problem for problem in executor.verify_state().problems)
    executor.close()


def test_sidecar_spares_the_scan_and_is_used_once(sqlite_url: str, tmp_path: Path) -> None:
    log = random_log(make_cluster(**SMALL), 52, 12)
    sidecar = tmp_path / SIDECAR_NAME
    executor = open_executor(log.cluster, sqlite_url, data_dir=tmp_path)
    headers = run(executor, log.messages[:6])
    executor.close()
    assert sidecar.exists()
    executor = open_executor(log.cluster, sqlite_url, data_dir=tmp_path)
    assert not sidecar.exists()
    headers += run(executor, log.messages[6:])
    assert executor.verify_state().problems == []
    executor.close()
    fresh = open_executor(log.cluster, f"sqlite:///{tmp_path / 'fresh.db'}")
    assert run(fresh, log.messages) == headers
    fresh.close()


@pytest.mark.parametrize("damage", ["flipped", "short", "long", "older", "empty"])
def test_damaged_or_old_sidecar_means_a_scan(damage: str, sqlite_url: str, tmp_path: Path) -> None:
    log = random_log(make_cluster(**SMALL), 53, 12)
    sidecar = tmp_path / SIDECAR_NAME
    executor = open_executor(log.cluster, sqlite_url, data_dir=tmp_path)
    run(executor, log.messages[:5])
    executor.close()
    content = sidecar.read_bytes()
    executor = open_executor(log.cluster, sqlite_url, data_dir=tmp_path)
    run(executor, log.messages[5:] if damage == "older" else log.messages[5:6])
    executor.close()
    kept = sidecar.read_bytes()
    sidecar.write_bytes(
        {
            "flipped": kept[:99] + bytes([kept[99] ^ 1]) + kept[100:],
            "short": kept[:-1],
            "long": kept + b"x",
            "older": content,
            "empty": b"",
        }[damage]
    )
    executor = open_executor(log.cluster, sqlite_url, data_dir=tmp_path)
    assert executor.verify_state().problems == []
    assert run(executor, log.messages)
    executor.close()


def test_sidecar_does_not_hide_that_the_root_is_another(sqlite_url: str, tmp_path: Path) -> None:
    tracker = StateTracker(16, 4)
    path = tmp_path / SIDECAR_NAME
    tracker.write_sidecar(path)
    assert read_sidecar(path, 16, 0, bytes(32)) is None
    tracker.write_sidecar(path)
    loaded = read_sidecar(path, 16, 0, tracker.root)
    assert loaded is not None
    assert loaded.root() == tracker.root


def test_tracker_undo_restores_the_vectors() -> None:
    tracker = StateTracker(4, 2)
    first = [Delta(b"k1", None, b"a"), Delta(b"k2", None, b"b")]
    assert tracker.advance(1, first) == (0, fastpath.StateHash(4).root())
    tracker.commit(0, tracker.root, first)
    second = [Delta(b"k1", b"a", b"c"), Delta(b"k2", b"b", None)]
    _, wrong = tracker.advance(2, [Delta(b"k1", b"a", b"x")])
    tracker.undo()
    sequence, root = tracker.advance(2, second)
    expected = fastpath.StateHash(4)
    expected.update(b"k1", None, b"c")
    assert (sequence, root) == (2, expected.root())
    assert wrong != root
    tracker.commit(sequence, root, second)
    assert tracker.changes == {}


def test_journal_survives_its_bytes_and_damage_is_refused() -> None:
    deltas = [Delta(b"k", None, b"new"), Delta(b"", b"old", None), Delta(b"x", b"", b"")]
    data = encode_journal(deltas)
    assert decode_journal(data) == deltas
    for damaged in (data[:-1], data + b"x", data[:3], b""):
        with pytest.raises(ValueError, match="damaged"):
            decode_journal(damaged)
