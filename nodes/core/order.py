"""The decided prefix: which batches are ordered, hash by hash, and what the executor still owes.

Always: `last_committed` has no gap below it; a block is handed over in order and once for each life
of the executor; a body is kept until it is both executed and stable. order_hash(s) =
H("ORD", order_hash(s-1), s, digest(s)) (docs/protocol.md section 8): chained here, at execution, and
never inside a proposal, so that slots stay independent of each other.
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


class ExecutorBehind(Exception):
    """The executor needs blocks that are no longer in memory: build the core again from the log."""


class ExecutorAhead(Exception):
    """The executor has a block that the log does not: the log was lost or exchanged."""


def next_order_hash(previous: bytes, sequence: SequenceNumber, digest: bytes) -> bytes:
    return tagged_hash(b"ORD", previous, sequence.to_bytes(8, "little"), digest)


class Order:
    def __init__(self, genesis_hash: bytes, kept_hashes: int) -> None:
        self.last_committed = SequenceNumber(0)
        self.last_executed = SequenceNumber(0)
        self.executor_known = False
        """False until the executor has said where it stands; nothing is handed over before."""
        self._handed_over = SequenceNumber(0)
        self._hashes: dict[SequenceNumber, bytes] = {SequenceNumber(0): genesis_hash}
        self._hash_sequences: deque[SequenceNumber] = deque([SequenceNumber(0)])
        self._kept_hashes = kept_hashes
        self._blocks: dict[SequenceNumber, OrderedBatch] = {}
        self._pruned = SequenceNumber(0)

    @property
    def head(self) -> bytes:
        """order_hash(last_committed)."""
        return self._hashes[self.last_committed]

    def hash_of(self, sequence: SequenceNumber) -> bytes | None:
        return self._hashes.get(sequence)

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
        self._blocks[sequence] = block
        # The hash at last_executed goes into every STATUS, so it outlives the ring.
        while len(self._hash_sequences) > self._kept_hashes and self._hash_sequences[0] < self.last_executed:
            del self._hashes[self._hash_sequences.popleft()]
        return Decided(sequence, digest, order_hash)

    def rebase(self, sequence: SequenceNumber, order_hash: bytes) -> None:
        """Recovery from a log whose beginning was collected: everything up to `sequence` is executed."""
        assert self.last_committed == 0
        self.last_committed = self.last_executed = self._handed_over = self._pruned = sequence
        self._hashes = {sequence: order_hash}
        self._hash_sequences = deque([sequence])

    def hand_over(self) -> Effects:
        effects: Effects = []
        while (
            self.executor_known
            and self._handed_over < self.last_committed
            and self._handed_over < self.last_executed + HANDED_OVER_MAX
        ):
            sequence = SequenceNumber(self._handed_over + 1)
            self._handed_over = sequence
            effects.append(HandOver(sequence, self._blocks[sequence], self._hashes[sequence]))
        return effects

    def executed(self, sequence: SequenceNumber) -> Effects:
        if sequence != self.last_executed + 1 or sequence > self._handed_over:
            raise ValueError(f"block {sequence} was executed, {self.last_executed + 1} is next")
        self.last_executed = sequence
        return self.hand_over()

    def executed_through(self, sequence: SequenceNumber) -> Effects:
        """Where a (re)started executor stands. Raises ExecutorAhead, ExecutorBehind."""
        if sequence > self.last_committed:
            raise ExecutorAhead(f"executed {sequence}, decided {self.last_committed}")
        if sequence < self._pruned:
            raise ExecutorBehind(f"executed {sequence}, in memory from {self._pruned + 1}")
        self.executor_known = True
        self.last_executed = self._handed_over = sequence
        return self.hand_over()

    def forget(self, through: SequenceNumber) -> None:
        """Drop the bodies of blocks that are executed and not above `through`."""
        limit = min(through, self.last_executed)
        while self._pruned < limit:
            self._pruned = SequenceNumber(self._pruned + 1)
            self._blocks.pop(self._pruned, None)

    def held(self, first: SequenceNumber, last: SequenceNumber, bytes_max: int) -> tuple[OrderedBatch, ...]:
        """Consecutive decided blocks from `first` on that are in memory, at least one if there is one."""
        blocks: list[OrderedBatch] = []
        size = 0
        for sequence in range(first, min(last, self.last_committed) + 1):
            block = self._blocks.get(SequenceNumber(sequence))
            if block is None or (blocks and size + len(block.body) > bytes_max):
                break
            blocks.append(block)
            size += len(block.body)
        return tuple(blocks)
