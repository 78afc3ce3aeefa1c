"""Does the database hold what the block headers say? Everything recomputed from SQL rows.

`scan_state` reads every replicated row, hashes it, takes back what the journal says was changed since
the last state root, and compares with that root; rows changed since are compared with the journal,
whose write sets `verify_archive` compares with the headers. So one altered row is found, wherever it is.
Used at start (a state without vectors) and by `database verify`. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Table

import fastpath
from nodes.block import BlockHeader, block_hash, next_order_hash
from nodes.executor.archive import BlockArchive, leaf_hashes
from nodes.executor.connection import Connection
from nodes.executor.reader import QueryStatements, SnapshotReader
from nodes.executor.rows import Delta, InvalidRow
from nodes.executor.state_hash import StateTracker, decode_journal

PROBLEMS_MAX = 100
"""Reported one by one; a database that differs everywhere needs no longer list."""
CHUNK_ROWS = 1000


@dataclass(slots=True)
class StateReport:
    """What was read and what is wrong with it."""

    sequence: int
    state_sequence: int
    expected_root: bytes
    root: bytes = b""
    rows: dict[str, int] = field(default_factory=dict)
    blocks: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.problems

    def add(self, problem: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)


class StateScan:
    """One pass over all replicated rows inside a snapshot."""

    def __init__(
        self, reader: SnapshotReader, statements: QueryStatements, tables: Sequence[Table], tracker: StateTracker
    ) -> None:
        self._reader = reader
        self._statements = statements
        self._tables = tables
        self._tracker = tracker
        """Holds the changes since the last state root; its vectors are not looked at."""

    def run(self, buckets: int, report: StateReport) -> fastpath.StateHash:
        """Vectors of the state at the last state root; problems go to the report."""
        vectors = fastpath.StateHash(buckets)
        seen: set[bytes] = set()
        changes = self._tracker.changes
        for table in self._tables:
            count = 0
            for chunk in self._encoded(table, report):
                vectors.update_many(chunk)
                count += len(chunk)
                for key, _, row in chunk:
                    change = changes.get(key)
                    if change is not None:
                        seen.add(key)
                        if change[1] != row:
                            report.add(f"{table.name}: a row differs from the last write to it (key {key.hex()})")
            report.rows[table.name] = count
        for key, (_, new) in changes.items():
            if new is not None and key not in seen:
                report.add(f"a row that was written is missing (key {key.hex()})")
        vectors.update_many([(key, new, old) for key, (old, new) in changes.items()])
        report.root = vectors.root()
        if report.root != report.expected_root:
            report.add(
                f"the state root of block {report.state_sequence} is {report.expected_root.hex()}, "
                f"the rows give {report.root.hex()}"
            )
        return vectors

    def _encoded(self, table: Table, report: StateReport) -> Iterator[list[Delta]]:
        shape = self._statements.shapes[table]
        chunk: list[Delta] = []
        for row in self._reader.scan(table):
            try:
                chunk.append(Delta(shape.encode_key(shape.key_of(row)), None, shape.encode(row)))
            except InvalidRow as error:
                report.add(str(error))
            if len(chunk) == CHUNK_ROWS:
                yield chunk
                chunk = []
        yield chunk


def verify_archive(
    archive: BlockArchive,
    connection: Connection,
    config_hash: bytes,
    journal: Sequence[tuple[int, bytes]],
    report: StateReport,
) -> None:
    """Check the chain of headers and what hangs on it: batches, bodies, results, and the journal's write sets."""
    write_sets = dict(journal)
    previous = None
    for sequence in range(1, report.sequence + 1):
        block = archive.block(connection, sequence)
        if block is None:
            report.add(f"block {sequence} is missing")
            continue
        header = BlockHeader.unpack(block.header)
        report.blocks += 1
        before = (config_hash, config_hash) if sequence == 1 else previous
        digest = fastpath.tagged_hash(b"BATCH", block.batch_header)
        if header.sequence != sequence or header.digest != digest:
            report.add(f"block {sequence} does not belong to its batch")
        if before is not None and header.previous_block_hash != before[0]:
            report.add(f"block {sequence} does not follow block {sequence - 1}")
        if before is not None and header.order_hash != next_order_hash(before[1], sequence, digest):
            report.add(f"block {sequence} has a wrong order hash")
        if fastpath.merkle_root(leaf_hashes(sequence, block.leaves)) != header.results_root:
            report.add(f"the results of block {sequence} do not hash to its header")
        if not archive.body_is_sound(connection, sequence, block.batch_header):
            report.add(f"the body of block {sequence} does not hash to its batch")
        if sequence in write_sets:
            entries = [(delta.key, delta.new) for delta in decode_journal(write_sets[sequence])]
            if fastpath.write_set_hash(entries) != header.write_set_hash:
                report.add(f"the journal of block {sequence} does not hash to its header")
        previous = (block_hash(block.header), header.order_hash)
