"""Executed blocks as they are kept: headers, ordered batches, outcomes; and receipts found in them.

Node-local and append-only; every block is covered by the hash chain of the headers. A block's outcomes
are one value, from which leaves and Merkle paths are computed again. A result's place is in its
`results` row while that lives and in `receipts` afterwards. Deliberately elsewhere: who attested.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, literal_column, select

import fastpath
from nodes.block import BlockHeader, timer_record
from nodes.executor.connection import Connection
from nodes.executor.execution import Leaf
from nodes.executor.protocol import Archive, BlockFound, Entry, FetchArchive, FindBlock, FindReceipt, ReceiptFound
from nodes.executor.store import Statements
from nodes.executor.tables import Result, blocks, bodies, receipts, results
from nodes.wire import Domain
from nodes.wire.format import NUMBER_MAX
from nodes.wire.parts import read_ordered

ARCHIVE_BLOCKS_MAX = 64
ARCHIVE_BYTES_MAX = 4 * 1024 * 1024
"""Of one answer: half a bulk frame, so that a frame always has room for it."""

_COUNT = struct.Struct("<I")
_LEAF = struct.Struct("<B32sHI")
_TIMER = struct.Struct("<QI")
_U32 = struct.Struct("<I")


def encode_outcomes(leaves: Sequence[Leaf]) -> bytes:
    """The archive form of a block's leaves."""
    parts = [_COUNT.pack(len(leaves))]
    for leaf in leaves:
        parts.append(_LEAF.pack(leaf.timer is not None, leaf.digest, leaf.status, len(leaf.result)))
        parts.append(leaf.result)
        if leaf.timer is not None:
            due_us, timer_id = leaf.timer
            parts.append(_TIMER.pack(due_us, len(timer_id)))
            parts.append(timer_id)
    return b"".join(parts)


def decode_outcomes(data: bytes) -> list[Leaf]:
    """The leaves in archive form. ValueError when they were damaged."""
    leaves: list[Leaf] = []
    try:
        (count,) = _COUNT.unpack_from(data)
        position = _COUNT.size
        for _ in range(count):
            is_timer, digest, status, size = _LEAF.unpack_from(data, position)
            position += _LEAF.size
            result = data[position : position + size]
            position += size
            timer = None
            if is_timer:
                due_us, id_size = _TIMER.unpack_from(data, position)
                position += _TIMER.size
                timer = (due_us, data[position : position + id_size])
                position += id_size
            leaves.append(Leaf(digest, status, result, timer))
    except struct.error as error:
        raise ValueError(f"damaged outcomes: {error}") from error
    if position != len(data):
        raise ValueError("damaged outcomes: their length is wrong")
    return leaves


def leaf_hashes(sequence: int, leaves: Sequence[Leaf]) -> list[bytes]:
    """The Merkle leaves under a block's results root."""
    return fastpath.result_leaves(
        sequence,
        0,
        [leaf.digest for leaf in leaves],
        [leaf.status for leaf in leaves],
        [leaf.result for leaf in leaves],
    )


def entries(sequence: int, leaves: Sequence[Leaf], hashes: Sequence[bytes], replica: int, members: int) -> list[Entry]:
    """Every leaf as the replica hands it to clients: in full where (index + sequence) mod n is this replica."""
    first = (replica - sequence) % members
    full = range(first, len(leaves), members)
    paths = dict(zip(full, fastpath.merkle_paths(hashes, full), strict=True))
    return [
        Entry(leaf.digest, index, leaf.status, leaf.result if index in paths else b"", paths.get(index, b""))
        for index, leaf in enumerate(leaves)
    ]


@dataclass(frozen=True, slots=True)
class ArchivedBlock:
    header: bytes
    batch_header: bytes
    leaves: list[Leaf]


class BlockArchive:
    """Reads and writes the archive's tables on a connection that the caller chooses."""

    def __init__(self, dialect: object, domain: Domain) -> None:
        self._domain = domain
        made = {table: Statements(table, dialect) for table in (blocks, bodies, receipts, results)}
        self._made = made
        self._last = made[blocks].compile(
            select(blocks.columns.header)
            .order_by(blocks.columns.sequence.desc())
            .limit(bindparam("limit"))
            .offset(literal_column("0"))
        )
        self._range = made[blocks].compile(
            select(blocks.columns.batch_header, bodies.columns.body)
            .join(bodies, bodies.columns.sequence == blocks.columns.sequence)
            .where(blocks.columns.sequence == bindparam("sequence"))
        )

    def last_header(self, connection: Connection) -> BlockHeader | None:
        """The newest block; None before the first."""
        rows = connection.rows(self._last, (1,))
        return BlockHeader.unpack(rows[0][0]) if rows else None

    def add(
        self,
        connection: Connection,
        sequence: int,
        header: bytes,
        batch_header: bytes,
        body: bytes,
        leaves: Sequence[Leaf],
    ) -> None:
        """Append a block inside its transaction."""
        connection.write(self._made[blocks].insert, (sequence, header, batch_header, encode_outcomes(leaves)))
        connection.write(self._made[bodies].insert, (sequence, body))

    def add_places(self, connection: Connection, collected: Sequence[Result]) -> None:
        """Remember where the results are whose rows are being collected."""
        if collected:
            places = [(row.digest, row.block, row.leaf_index) for row in collected]
            connection.write_many(self._made[receipts].upsert, places)

    def block(self, connection: Connection, sequence: int) -> ArchivedBlock | None:
        rows = connection.rows(self._made[blocks].select(1), (sequence,)) if sequence <= NUMBER_MAX else []
        if not rows:
            return None
        _, header, batch_header, outcomes = rows[0]
        return ArchivedBlock(header, batch_header, decode_outcomes(outcomes))

    def body(self, connection: Connection, sequence: int) -> bytes:
        """The body of a block that is held."""
        ((_, body),) = connection.rows(self._made[bodies].select(1), (sequence,))
        return bytes(body)

    def body_is_sound(self, connection: Connection, sequence: int, batch_header: bytes) -> bool:
        """Is the kept body the one that this batch header names?"""
        rows = connection.rows(self._made[bodies].select(1), (sequence,))
        if not rows:
            return False
        try:
            read_ordered(self._domain, fastpath.Reader(batch_header + rows[0][1]))
        except ValueError:
            return False
        return True

    def fetch(self, connection: Connection, question: FetchArchive) -> Archive:
        """Consecutive ordered batches from `first` on, within the bounds of one answer."""
        found: list[tuple[bytes, bytes]] = []
        size = 0
        last = min(question.last, question.first + ARCHIVE_BLOCKS_MAX - 1, NUMBER_MAX)
        for sequence in range(question.first, last + 1):
            rows = connection.rows(self._range, (sequence,))
            if not rows or (found and size + len(rows[0][1]) > ARCHIVE_BYTES_MAX):
                break
            found.append((rows[0][0], rows[0][1]))
            size += len(rows[0][0]) + len(rows[0][1])
        return Archive(question.token, found)

    def find_block(self, connection: Connection, question: FindBlock) -> BlockFound:
        block = self.block(connection, question.sequence)
        return BlockFound(question.token, False) if block is None else BlockFound(question.token, True, block.header)

    def find_receipt(self, connection: Connection, question: FindReceipt) -> ReceiptFound:
        """The result of this digest with its path; for a duplicate, the original."""
        place = self._place(connection, question.digest)
        block = None if place is None else self.block(connection, place[0])
        if place is None or block is None:
            return ReceiptFound(question.token, False)
        sequence, index = place
        leaf = block.leaves[index]
        path = fastpath.merkle_path(leaf_hashes(sequence, block.leaves), index)
        if leaf.timer is not None:
            record = timer_record(leaf.timer[1], leaf.timer[0])
        else:
            timer_count = sum(other.timer is not None for other in block.leaves)
            record = self._record(self.body(connection, sequence), index - timer_count)
        return ReceiptFound(question.token, True, block.header, index, leaf.status, leaf.result, path, record)

    def _place(self, connection: Connection, digest: bytes) -> tuple[int, int] | None:
        """(block, index) of the leaf with this digest."""
        if len(digest) != 32:
            return None
        live = connection.rows(self._made[results].select(1), (digest,))
        if live:
            row = Result._make(live[0])
            return row.block, row.leaf_index
        old = connection.rows(self._made[receipts].select(1), (digest,))
        return (int(old[0][1]), int(old[0][2])) if old else None

    def _record(self, body: bytes, position: int) -> bytes:
        domain = self._domain
        requests = fastpath.parse_requests(
            body, 0, len(body), domain.cluster_id, domain.batch_requests_max, domain.operation_bytes_max
        )
        return requests[position][8]
