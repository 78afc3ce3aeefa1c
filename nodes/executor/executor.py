"""`Executor`: ordered blocks in, committed state and block headers out.

One block is one transaction: effects, results, header, batch and journal become visible together or
not at all, so a crash anywhere leaves the database after some whole block, and executing the same
order again gives the same headers. Used inline by a replica, or behind `nodes.executor.process`.
A broken database rolls the block back and is tried again; it never becomes a result. Longer than most
files because what must happen in one order is read best in one piece.
Deliberately elsewhere: the rules of a block (`execution.py`), signing and sending.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import structlog

import fastpath
from nodes import canonical
from nodes.block import BlockHeader, block_hash, next_order_hash
from nodes.config import ClusterConfig
from nodes.core.messages import OrderedBatch
from nodes.executor.archive import BlockArchive, entries, leaf_hashes
from nodes.executor.connection import Connection
from nodes.executor.execution import Execution, Leaf, block_time
from nodes.executor.protocol import (
    Answer,
    Archive,
    BlockExecuted,
    BlockFound,
    ExecuteBlock,
    FetchArchive,
    FindBlock,
    FindReceipt,
    Query,
    QueryAnswer,
    Question,
    Ready,
    ReceiptFound,
)
from nodes.executor.reader import SnapshotReader
from nodes.executor.rows import Delta, write_set
from nodes.executor.schema import Schema, open_schema
from nodes.executor.sessions import result_collector, session_collector
from nodes.executor.state_hash import StateTracker, read_sidecar
from nodes.executor.store import Database
from nodes.executor.tables import results, sessions, timers
from nodes.executor.timers import TimerIndex
from nodes.executor.verify import StateReport, StateScan, verify_archive
from nodes.machine import StateMachine
from nodes.wire import Wire
from nodes.wire.parts import read_ordered

CACHE_ROWS = 20_000
"""Hot rows kept of each table."""
ATTEMPTS_MAX = 8
"""Tries of one block before the caller is told that the database is unavailable."""
BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0
SIDECAR_NAME = "state.vectors"
QUERY_FAILED = canonical.encode({"error": "internal"})
QUERY_UNAVAILABLE = canonical.encode({"error": "unavailable"})
RESULT_TOO_LARGE = canonical.encode({"error": "result_too_large"})

log = structlog.get_logger(__name__)


class DatabaseUnavailable(Exception):
    """The database failed several times in a row; nothing was half done, and trying again is right."""


class OutOfOrder(Exception):
    """A block that does not follow the last one: the replica is told by `Ready` where to go on."""


class ExecutorStopped(Exception):
    """This process cannot go on: what it has in memory and what the database holds differ."""


@dataclass(frozen=True, slots=True)
class Tip:
    """Where the state stands."""

    sequence: int
    time_us: int
    order_hash: bytes
    block_hash: bytes
    state_sequence: int
    state_root: bytes


@dataclass(frozen=True, slots=True)
class Executed:
    """A block whose transaction has been written, and perhaps committed."""

    tip: Tip
    header: bytes
    leaves: list[Leaf]
    hashes: list[bytes]
    deltas: list[Delta]


class Executor:
    """The state of one replica. Not thread-safe; every method but `open` needs `open` first."""

    def __init__(
        self,
        cluster: ClusterConfig,
        machine: StateMachine,
        database_url: str,
        replica_id: int,
        *,
        data_dir: Path | None = None,
        cache_rows: int = CACHE_ROWS,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`data_dir`: where vectors are kept over a clean restart (None: every start scans the rows)."""
        self._cluster = cluster
        self._parameters = cluster.parameters
        self._machine = machine
        self._replica_id = replica_id
        self._database = Database(database_url)
        self._domain = Wire(cluster).domain
        self._sidecar = None if data_dir is None else data_dir / SIDECAR_NAME
        self._cache_rows = cache_rows
        self._pause = pause
        self._writer = self._database.writer()
        self._reader = self._database.reader()
        self._checked = 0
        """Generation of the writer's connection on which the database was found at `_tip`."""
        self._is_loaded = False
        self._pending: Executed | None = None
        """Set while it is not known whether its COMMIT took effect."""
        self._schema: Schema
        self._archive: BlockArchive
        self._tracker = StateTracker(self._parameters.buckets, self._parameters.state_interval)
        self._timers: TimerIndex
        self._tip: Tip

    # Opening and closing -------------------------------------------------------------------------

    def open(self) -> Ready:
        """Create or check the database and load what is kept in memory.

        DatabaseRefused: not this cluster's database. ExecutorStopped: its rows are not those of
        its headers. DatabaseUnavailable: it cannot be reached or is in use; try again.
        """
        try:
            return self._open()
        except self._database.bugs:
            self._writer.close()
            raise
        except self._database.failures as error:
            self._writer.close()
            raise DatabaseUnavailable(f"the database cannot be opened: {error}") from error

    def _open(self) -> Ready:
        self._schema = open_schema(self._database, self._writer, self._cluster, self._machine, self._cache_rows)
        self._archive = BlockArchive(self._database.dialect, self._domain)
        self._timers = TimerIndex(self._schema.rows[timers.name], self._writer)
        self._sessions_gone = session_collector(self._schema.rows[sessions.name], self._writer, self._parameters)
        self._results_gone = result_collector(self._schema.rows[results.name], self._writer, self._parameters)
        self._tip = self._read_tip(self._writer)
        self._timers.load()
        self._load_state()
        self._reader.open()
        self._is_loaded = True
        return self.ready()

    def close(self) -> None:
        """Keep the vectors for the next start and let the database go."""
        if self._sidecar is not None and self._is_loaded and self._pending is None:
            self._tracker.write_sidecar(self._sidecar)
        self._reader.close()
        self._writer.close()
        self._database.close()

    def ready(self) -> Ready:
        """Where the state stands now."""
        tip = self._tip
        return Ready(
            sequence=tip.sequence,
            block_hash=tip.block_hash,
            next_timer_us=self._timers.next_us(),
            state_sequence=tip.state_sequence,
            state_root=tip.state_root,
            time_us=tip.time_us,
            order_hash=tip.order_hash,
            build=fastpath.BUILD,
            database=self._database.description,
        )

    def _read_tip(self, connection: Connection) -> Tip:
        header = self._archive.last_header(connection)
        if header is None:
            origin = self._cluster.config_hash
            return Tip(0, self._cluster.genesis_time_us, origin, origin, 0, self._schema.genesis_root)
        return _tip(header, header.hash)

    def _load_state(self) -> None:
        """Vectors from the sidecar if they are those of the last state root, else from a scan of all rows."""
        tip = self._tip
        journal = [entries for _, entries in self._schema.journal(self._writer)]
        buckets = self._parameters.buckets
        if self._sidecar is not None:
            vectors = read_sidecar(self._sidecar, buckets, tip.state_sequence, tip.state_root)
            if vectors is not None:
                self._tracker.load(vectors, tip.state_sequence, journal)
                return
        report, vectors = self._scan(self._writer)
        if not report.is_sound:
            raise ExecutorStopped(f"the database does not hold the state of block {tip.sequence}: {report.problems[0]}")
        self._tracker.load(vectors, tip.state_sequence, journal)
        log.info("state_scanned", sequence=tip.sequence, rows=sum(report.rows.values()))

    def _scan(self, connection: Connection) -> tuple[StateReport, fastpath.StateHash]:
        tip = self._read_tip(connection)
        report = StateReport(tip.sequence, tip.state_sequence, tip.state_root)
        tracker = StateTracker(self._parameters.buckets, self._parameters.state_interval)
        entries = self._schema.journal(connection)
        tracker.load(fastpath.StateHash(self._parameters.buckets), tip.state_sequence, [data for _, data in entries])
        if [sequence for sequence, _ in entries] != list(range(tip.state_sequence + 1, tip.sequence + 1)):
            report.add(f"the journal does not cover the blocks after {tip.state_sequence}")
        scan = StateScan(self._snapshot(connection, tip), self._schema.queries, self._schema.replicated, tracker)
        return report, scan.run(self._parameters.buckets, report)

    def verify_state(self) -> StateReport:
        """Recompute everything from SQL rows in one snapshot and compare it with the block headers."""
        self._reader.open()
        self._reader.begin_snapshot()
        try:
            report, _ = self._scan(self._reader)
            journal = self._schema.journal(self._reader)
            verify_archive(self._archive, self._reader, self._cluster.config_hash, journal, report)
        finally:
            self._reader.rollback()
        return report

    # Blocks --------------------------------------------------------------------------------------

    def execute(self, message: ExecuteBlock) -> BlockExecuted:
        """Execute the next block, or answer an earlier one from the archive.

        OutOfOrder: a block is missing before it. DatabaseUnavailable: nothing was done, try again.
        ExecutorStopped: see there. Anything else is a bug and ends the process.
        """
        reason = ""
        for attempt in range(ATTEMPTS_MAX):
            if attempt:
                self._pause(min(BACKOFF_FIRST_S * 2 ** (attempt - 1), BACKOFF_MAX_S))
            try:
                self._writer.open()
                self._settle()
                if message.sequence <= self._tip.sequence:
                    return self._replay(message)
                return self._attempt(message)
            except self._database.bugs:
                self._writer.close()
                raise
            except self._database.failures as error:
                self._writer.close()
                log.warning("block_rolled_back", sequence=message.sequence, attempt=attempt + 1, error=str(error))
                reason = f"{type(error).__name__}: {error}"
        raise DatabaseUnavailable(f"block {message.sequence} failed {ATTEMPTS_MAX} times, last {reason}")

    def _attempt(self, message: ExecuteBlock) -> BlockExecuted:
        """One try at the next block: one transaction."""
        block = self._read_block(message)
        self._writer.begin()
        try:
            executed = self._run(block, message.order_hash)
        except BaseException:
            self._discard()
            self._writer.rollback()
            raise
        self._pending = executed
        self._writer.commit()
        self._adopt(executed)
        return self._answer(executed.tip.sequence, executed.header, executed.leaves, executed.hashes)

    def _settle(self) -> None:
        """Find out what became of a COMMIT that was not answered."""
        executed = self._pending
        if executed is None:
            return
        stands = self._read_tip(self._writer)
        if stands.block_hash == executed.tip.block_hash:
            self._adopt(executed)
        elif stands.block_hash == self._tip.block_hash:
            self._discard()
        else:
            raise ExecutorStopped(f"the database stands at block {stands.sequence}, memory at {self._tip.sequence}")

    def _read_block(self, message: ExecuteBlock) -> OrderedBatch:
        if message.sequence != self._tip.sequence + 1:
            raise OutOfOrder(f"block {message.sequence} does not follow block {self._tip.sequence}")
        block = read_ordered(self._domain, fastpath.Reader(message.batch_header + message.body))
        if block.batch.sequence != message.sequence or len(message.body) != block.batch.body_length:
            raise ValueError(f"the batch handed over for block {message.sequence} is not its own")
        if next_order_hash(self._tip.order_hash, message.sequence, block.batch.digest) != message.order_hash:
            raise ExecutorStopped(f"block {message.sequence} continues another order than the executed one")
        return block

    def _run(self, block: OrderedBatch, order_hash: bytes) -> Executed:
        """Execute the block inside the open transaction and write all of it, short of COMMIT."""
        tip, schema, sequence = self._tip, self._schema, int(block.batch.sequence)
        if self._checked != self._writer.generation or self._tracker.is_boundary(sequence):
            self._check_tip()
        time_us = block_time(block, tip.time_us)
        execution = Execution(
            self._machine, self._parameters, schema, self._snapshot(self._writer, tip), block, time_us, order_hash
        )
        gone = self._results_gone.expired(time_us)
        execution.collect(self._sessions_gone.expired(time_us), gone)
        execution.fire(self._timers.due(time_us, self._parameters.timers_max))
        execution.apply()
        changed = write_set(list(schema.rows.values()), self._tracker.changes)
        self._machine.check_block(changed.changes)
        hashes = leaf_hashes(sequence, execution.leaves)
        state_sequence, state_root = self._tracker.advance(sequence, changed.deltas)
        header = BlockHeader(
            cluster_id=self._cluster.cluster_id,
            epoch=block.batch.epoch,
            sequence=sequence,
            previous_block_hash=tip.block_hash,
            order_hash=order_hash,
            digest=block.batch.digest,
            time_us=time_us,
            result_count=len(hashes),
            results_root=fastpath.merkle_root(hashes),
            write_set_hash=fastpath.write_set_hash([(delta.key, delta.new) for delta in changed.deltas]),
            state_sequence=state_sequence,
            state_root=state_root,
            config_hash=self._cluster.config_hash,
        )
        packed = header.pack()
        for rows in schema.rows.values():
            rows.write()
        self._archive.add(self._writer, sequence, packed, block.batch.header, block.body, execution.leaves)
        self._archive.add_places(self._writer, gone)
        schema.keep_journal(self._writer, sequence, None if state_sequence == sequence else changed.deltas)
        return Executed(_tip(header, block_hash(packed)), packed, execution.leaves, hashes, changed.deltas)

    def _check_tip(self) -> None:
        """Does the database stand where memory does? A server that crashed may have lost its last blocks.

        That takes a new connection, and two writers would meet at the primary key of `blocks`; so it is
        asked on each connection and, against what nobody thought of, at each state root.
        """
        if self._read_tip(self._writer).block_hash != self._tip.block_hash:
            raise ExecutorStopped(
                f"the database does not stand at block {self._tip.sequence}: it went back, or was written to"
            )
        self._checked = self._writer.generation

    def _adopt(self, executed: Executed) -> None:
        """The block is committed: memory follows the database."""
        self._pending = None
        timer_rows = self._schema.rows[timers.name]
        for old, new in timer_rows.dirty.values():
            self._timers.change(old, new)
        self._schema.committed()
        self._sessions_gone.committed()
        self._results_gone.committed()
        self._tracker.commit(executed.tip.state_sequence, executed.tip.state_root, executed.deltas)
        self._tip = executed.tip

    def _discard(self) -> None:
        """The block was rolled back: memory forgets it."""
        self._pending = None
        self._schema.discard()
        self._tracker.undo()

    def _replay(self, message: ExecuteBlock) -> BlockExecuted:
        block = self._archive.block(self._writer, message.sequence)
        if block is None:
            raise ExecutorStopped(f"block {message.sequence} was executed, but the database does not hold it")
        if block.batch_header != message.batch_header:
            raise ExecutorStopped(f"block {message.sequence} was executed with another batch than the one handed over")
        return self._answer(message.sequence, block.header, block.leaves, leaf_hashes(message.sequence, block.leaves))

    def _answer(self, sequence: int, header: bytes, leaves: Sequence[Leaf], hashes: Sequence[bytes]) -> BlockExecuted:
        listed = entries(sequence, leaves, hashes, self._replica_id, self._cluster.n)
        return BlockExecuted(sequence, header, self._timers.next_us(), listed)

    # Questions -----------------------------------------------------------------------------------

    def answer(self, questions: Sequence[Question], *, attempts_max: int = ATTEMPTS_MAX) -> list[Answer]:
        """Answer questions, all received by now, from one snapshot that is begun now.

        DatabaseUnavailable when the database failed `attempts_max` times.
        """
        reason = ""
        for attempt in range(attempts_max):
            if attempt:
                self._pause(min(BACKOFF_FIRST_S * 2 ** (attempt - 1), BACKOFF_MAX_S))
            try:
                self._reader.open()
                self._reader.begin_snapshot()
                try:
                    reader = self._snapshot(self._reader, self._read_tip(self._reader))
                    return [self._answer_one(question, reader) for question in questions]
                finally:
                    self._reader.rollback()
            except self._database.bugs:
                raise
            except self._database.failures as error:
                self._reader.close()
                reason = f"{type(error).__name__}: {error}"
        raise DatabaseUnavailable(f"a query failed {attempts_max} times, last {reason}")

    def query(self, question: Query) -> QueryAnswer:
        """One query, for callers that hold no queue."""
        (answer,) = self.answer([question])
        assert isinstance(answer, QueryAnswer)
        return answer

    def _snapshot(self, connection: Connection, tip: Tip) -> SnapshotReader:
        return SnapshotReader(self._schema.queries, connection, tip.sequence, tip.block_hash, tip.time_us)

    def _answer_one(self, question: Question, reader: SnapshotReader) -> Answer:
        match question:
            case Query():
                return self._query(question, reader)
            case FetchArchive():
                return self._archive.fetch(self._reader, question)
            case FindReceipt():
                return self._archive.find_receipt(self._reader, question)
            case FindBlock():
                return self._archive.find_block(self._reader, question)
            case _:
                assert_never(question)

    def _query(self, question: Query, reader: SnapshotReader) -> QueryAnswer:
        """The application's answer; a query that it fails on must not end the process, as anybody may ask."""
        try:
            result = self._machine.query(question.query, question.caller, reader)
        except Exception as error:
            if isinstance(error, self._database.failures) and not isinstance(error, self._database.bugs):
                raise
            log.exception("query_failed", size=len(question.query))
            result = QUERY_FAILED
        if len(result) > self._parameters.result_bytes_max:
            result = RESULT_TOO_LARGE
        return QueryAnswer(question.token, result, reader.sequence, reader.block_hash, reader.time_us)


def unavailable(question: Question) -> Answer:
    """What is said to a question while the database cannot be reached."""
    match question:
        case Query():
            return QueryAnswer(question.token, QUERY_UNAVAILABLE, 0, bytes(32), 0)
        case FetchArchive():
            return Archive(question.token, [])
        case FindReceipt():
            return ReceiptFound(question.token, False)
        case FindBlock():
            return BlockFound(question.token, False)
        case _:
            assert_never(question)


def _tip(header: BlockHeader, own_hash: bytes) -> Tip:
    return Tip(header.sequence, header.time_us, header.order_hash, own_hash, header.state_sequence, header.state_root)
