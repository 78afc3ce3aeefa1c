"""Nothing that depends on a log record goes on before the record is on the disk."""

from __future__ import annotations

import os
import select
import threading
from pathlib import Path

from nodes.core.messages import Commit, OrderedBatch
from nodes.core.ready import Execute, Outgoing
from nodes.core.records import Decided, ViewEntered
from nodes.core.types import Batch, BatchKind, Lsn, Mode, ReplicaId, SequenceNumber, View
from nodes.replica.durability import Journal
from nodes.wal import LogIdentity, Wal
from nodes.wire import Wire


def decided(sequence: int) -> Decided:
    return Decided(SequenceNumber(sequence), bytes([sequence]) * 32, bytes(32))


def commit(sequence: int, after: int) -> Outgoing:
    return Outgoing(Commit(0, View(0), SequenceNumber(sequence), bytes(32)), None, Lsn(after))


def block(sequence: int, after: int) -> Execute:
    batch = Batch(BatchKind.NULL, ReplicaId(0), 0, 0, 0, SequenceNumber(sequence), 0, bytes(32), bytes(32), b"")
    return Execute(SequenceNumber(sequence), OrderedBatch(batch, (), b""), bytes(32), Lsn(after))


def wait(journal: Journal, lsn: int) -> None:
    while journal.durable < lsn:
        readable, _, _ = select.select([journal.wal.event_fd], [], [], 10)
        assert readable
        journal.synced()


def test_what_names_no_record_goes_at_once(wal: Wal, wire: Wire) -> None:
    journal = Journal(wal, wire)
    assert journal.admits(commit(1, 0))
    assert list(journal.release()) == []


def test_messages_and_blocks_wait_for_their_record_and_keep_their_order(wire: Wire, tmp_path: Path) -> None:
    may_sync = threading.Semaphore(0)

    def sync_when_told(fd: int) -> None:
        assert may_sync.acquire(timeout=10)
        os.fdatasync(fd)

    log = Wal(tmp_path, LogIdentity(wire.cluster.cluster_id, 1, bytes(16), 1), synchronize=sync_when_told)
    assert list(log.replay()) == []
    journal = Journal(log, wire)
    items = [commit(1, 1), block(1, 1), commit(2, 2), block(2, 2)]
    journal.append((decided(1),), Lsn(1))
    journal.flush()
    journal.append((decided(2),), Lsn(2))
    journal.flush()
    assert [journal.admits(item) for item in items] == [False] * 4
    assert not journal.synced()
    assert list(journal.release()) == []
    may_sync.release()
    wait(journal, 1)
    released = list(journal.release())
    assert released[:2] == items[:2]
    may_sync.release()
    wait(journal, 2)
    assert released + list(journal.release()) == items
    assert journal.waiting == 0
    assert journal.admits(commit(3, 2))
    log.close()


def test_numbers_of_a_later_run_begin_at_one_again(wire: Wire, tmp_path: Path) -> None:
    identity = LogIdentity(wire.cluster.cluster_id, 1, bytes(16), 1)
    for run in range(3):
        log = Wal(tmp_path, identity)
        records = [wire.decode_record(record.type, record.payload) for record in log.replay()]
        assert records == [decided(number) for number in range(1, run + 1)]
        journal = Journal(log, wire)
        assert journal.durable == 0
        journal.append((decided(run + 1),), Lsn(1))
        journal.flush()
        wait(journal, 1)
        log.close()


def test_blocks_are_forgotten_when_the_executor_starts_anew_and_messages_are_not(wal: Wal, wire: Wire) -> None:
    journal = Journal(wal, wire)
    journal.append((ViewEntered(View(0), Mode.NORMAL, b"", SequenceNumber(0)),), Lsn(1))
    assert not journal.admits(block(1, 1))
    assert not journal.admits(commit(1, 1))
    journal.forget_blocks()
    journal.flush()
    wait(journal, 1)
    assert list(journal.release()) == [commit(1, 1)]
