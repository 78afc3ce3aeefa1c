"""The decided prefix: which batches are ordered, hash by hash, and what the executor still owes.

Always: `last_committed` has no gap below it; a block is handed over in order and once for each life
of the executor; a body is kept until it is executed, and then while it is neither stable, nor older
than 2 L, nor one of too many bytes. order_hash(s) = H("ORD", order_hash(s-1), s, digest(s))
(docs/protocol.md section 8): chained here, at execution, and never inside a proposal, so that slots
stay independent of each other.

A log may be long and the executor's height is not known while it is read, so recovery sheds old bodies
and keeps the order hashes (the trail). An executor that is farther behind gets the bodies from the
archives of the peers (`nodes.core.catch_up`), each proven by its order hash.
"""

from __future__ import annotations

from collections import deque

from fastpath import tagged_hash
from nodes.core.effects import Effects, HandOver, Ordered, Write
from nodes.core.messages import OrderedBatch
from nodes.core.records import Decided
from nodes.core.types import SequenceNumber

HANDED_OVER_MAX = 8
"""Blocks at the executor at once: enough to keep it busy, few enough to bound its queue."""
KEPT_BYTES_MAX = 32 << 20
"""Bodies kept after their execution, for an executor that lost its last blocks."""
TRAIL_MAX = 1 << 20
"""Order hashes kept of a log (32 MiB), so how far behind an executor may be at boot."""
HASH_BYTES = 32


class ExecutorBehind(Exception):
    """The executor needs blocks that are no longer in memory: build the core again from the log."""


class ExecutorAhead(Exception):
    """The executor has a block that the log does not: the log was lost or exchanged."""


def next_order_hash(previous: bytes, sequence: SequenceNumber, digest: bytes) -> bytes:
    return tagged_hash(b"ORD", previous, sequence.to_bytes(8, "little"), digest)


class Order:
    def __init__(self, genesis_hash: bytes, window: int, *, has_peers: bool = True) -> None:
        self.last_committed = SequenceNumber(0)
        self.last_executed = SequenceNumber(0)
        self.executor_known = False
        """False until the executor has said where it stands; nothing is handed over before."""
        self._handed_over = SequenceNumber(0)
        self._hashes: dict[SequenceNumber, bytes] = {SequenceNumber(0): genesis_hash}
        self._hash_sequences: deque[SequenceNumber] = deque([SequenceNumber(0)])
        self._window = window
        self._has_peers = has_peers
        self._blocks: dict[SequenceNumber, OrderedBatch] = {}
        self._bytes = 0
        self.owed_bytes = 0
        """Of `_blocks`, those not executed."""
        self._pruned = SequenceNumber(0)
        """Bodies up to here have been dropped; those among them that are here were fetched for the executor."""
        self._trail: bytearray | None = bytearray(genesis_hash)
        """Order hashes from `_trail_first` on, until the executor is known not to need older bodies."""
        self._trail_first = SequenceNumber(0)

    @property
    def head(self) -> bytes:
        """order_hash(last_committed)."""
        return self._hashes[self.last_committed]

    def hash_of(self, sequence: SequenceNumber) -> bytes | None:
        known = self._hashes.get(sequence)
        position = HASH_BYTES * (sequence - self._trail_first)
        if known is None and self._trail is not None and 0 <= position < len(self._trail):
            return bytes(self._trail[position : position + HASH_BYTES])
        return known

    def block_of(self, sequence: SequenceNumber) -> OrderedBatch | None:
        return self._blocks.get(sequence)

    def decide(self, block: OrderedBatch) -> Effects:
        """Append the batch of sequence last_committed + 1; its body must already be in the log."""
        decided = self.append(block)
        return [Write(decided), Ordered(decided.sequence, block.requests), *self.hand_over()]

    def append(self, block: OrderedBatch) -> Decided:
        sequence, digest = block.batch.sequence, block.batch.digest
        assert sequence == self.last_committed + 1
        order_hash = next_order_hash(self.head, sequence, digest)
        self.last_committed = sequence
        self._hashes[sequence] = order_hash
        self._hash_sequences.append(sequence)
        self._keep(block)
        if self._trail is not None:
            self._trail += order_hash
            if len(self._trail) > HASH_BYTES * TRAIL_MAX:
                del self._trail[: HASH_BYTES * TRAIL_MAX // 2]
                self._trail_first = SequenceNumber(self._trail_first + TRAIL_MAX // 2)
        # The hash at last_executed goes into every STATUS, so it outlives the ring.
        while len(self._hash_sequences) > 2 * self._window and (
            self._trail is not None or self._hash_sequences[0] < self.last_executed
        ):
            del self._hashes[self._hash_sequences.popleft()]
        return Decided(sequence, digest, order_hash)

    def _keep(self, block: OrderedBatch) -> None:
        self._blocks[block.batch.sequence] = block
        self._bytes += body_size(block)
        self.owed_bytes += body_size(block)

    def _drop(self, sequence: SequenceNumber) -> None:
        block = self._blocks.pop(sequence, None)
        if block is not None:
            self._bytes -= body_size(block)
            if sequence > self.last_executed:
                self.owed_bytes -= body_size(block)

    def rebase(self, sequence: SequenceNumber, order_hash: bytes) -> None:
        """Recovery from a log whose beginning was collected: everything up to `sequence` is executed."""
        assert self.last_committed == 0
        self.last_committed = self.last_executed = self._handed_over = self._pruned = sequence
        self._hashes = {sequence: order_hash}
        self._hash_sequences = deque([sequence])
        self._trail, self._trail_first = bytearray(order_hash), sequence

    def shed(self, stable: SequenceNumber) -> None:
        """Recovery: drop the bodies that only an executor far behind would need. It never was by more than
        2 L when it ran; the third L, and the bytes, are for what its database lost with the power."""
        if not self._has_peers:
            return
        oldest, certain = self.last_committed - 3 * self._window, max(stable, self.last_committed - self._window)
        while self._pruned < oldest or (self._bytes > KEPT_BYTES_MAX and self._pruned < certain):
            self._pruned = SequenceNumber(self._pruned + 1)
            self._drop(self._pruned)

    def hand_over(self) -> Effects:
        effects: Effects = []
        while (
            self.executor_known
            and self._handed_over < self.last_committed
            and self._handed_over < self.last_executed + HANDED_OVER_MAX
        ):
            sequence = SequenceNumber(self._handed_over + 1)
            block, order_hash = self._blocks.get(sequence), self.hash_of(sequence)
            if block is None:
                assert sequence <= self._pruned
                break
            assert order_hash is not None
            self._handed_over = sequence
            effects.append(HandOver(sequence, block, order_hash))
        return effects

    def executed(self, sequence: SequenceNumber) -> Effects:
        if sequence != self.last_executed + 1 or sequence > self._handed_over:
            raise ValueError(f"block {sequence} was executed, {self.last_executed + 1} is next")
        self.last_executed = sequence
        block = self._blocks.get(sequence)
        self.owed_bytes -= body_size(block) if block is not None else 0
        if sequence <= self._pruned:
            self._drop(sequence)
        self._end_trail()
        return self.hand_over()

    def executed_through(self, sequence: SequenceNumber) -> Effects:
        """Where a (re)started executor stands. Raises ExecutorAhead, ExecutorBehind."""
        if sequence > self.last_committed:
            raise ExecutorAhead(f"executed {sequence}, decided {self.last_committed}")
        if sequence < self._pruned and (self._trail is None or self.hash_of(sequence) is None):
            raise ExecutorBehind(
                f"the executor's database ends at block {sequence}; block {sequence + 1} is no longer in memory "
                f"(from {self._pruned + 1} on). Start the replica again to read its log; if that says the same, "
                "the log begins later, and the database has to be seeded from a newer backup"
            )
        self.executor_known = True
        self.last_executed = self._handed_over = sequence
        self.owed_bytes = sum(body_size(block) for held, block in self._blocks.items() if held > sequence)
        for held in [held for held in self._blocks if held <= min(sequence, self._pruned)]:
            self._drop(held)
        self._end_trail()
        return self.hand_over()

    def _end_trail(self) -> None:
        if self.last_executed >= self._pruned and self.last_executed in self._hashes:
            self._trail = None

    def wanted(self) -> tuple[SequenceNumber, SequenceNumber] | None:
        """The blocks the executor comes to next whose bodies were shed: first and last; None when it has enough."""
        if not self.executor_known or self.last_executed >= self._pruned:
            return None
        first = SequenceNumber(self.last_executed + 1)
        while first in self._blocks:
            first = SequenceNumber(first + 1)
        is_enough = first > self._pruned or first > self.last_executed + HANDED_OVER_MAX
        return None if is_enough else (first, self._pruned)

    def refetched(self, block: OrderedBatch) -> bool:
        """A shed body came back from a peer. False: it is not the one that was decided."""
        sequence = block.batch.sequence
        previous = self.hash_of(SequenceNumber(sequence - 1))
        if previous is None or next_order_hash(previous, sequence, block.batch.digest) != self.hash_of(sequence):
            return False
        if self.last_executed < sequence <= self._pruned and sequence not in self._blocks:
            self._keep(block)
        return True

    def forget(self, through: SequenceNumber) -> None:
        """Drop the bodies of blocks that are executed and not above `through`, or old, or too many: they
        are in the executor's archive, and in the log. In a long catch-up nothing becomes stable."""
        limit = max(through, self.last_executed - 2 * self._window)
        while self._pruned < self.last_executed and (
            self._pruned < limit or self._bytes - self.owed_bytes > KEPT_BYTES_MAX
        ):
            self._pruned = SequenceNumber(self._pruned + 1)
            self._drop(self._pruned)

    def held(self, first: SequenceNumber, last: SequenceNumber, bytes_max: int) -> tuple[OrderedBatch, ...]:
        """Consecutive decided blocks from `first` on that are in memory, at least one if there is one."""
        blocks: list[OrderedBatch] = []
        size = 0
        if first <= self._pruned:
            return ()
        for sequence in range(first, min(last, self.last_committed) + 1):
            block = self._blocks.get(SequenceNumber(sequence))
            if block is None or (blocks and size + len(block.body) > bytes_max):
                break
            blocks.append(block)
            size += len(block.body)
        return tuple(blocks)


def body_size(block: OrderedBatch) -> int:
    return len(block.body) + len(block.batch.header)
