"""Fetching what was ordered without this replica (docs/protocol.md section 11).

A pass fetches last_committed + 1 .. target from one peer at a time, in pieces, and believes nothing
until the digests chain to the order hash that w attesters vouch for. Bodies wait in a bounded buffer;
of a gap that is larger only the digests are kept (32 bytes a block), and the bodies are fetched again
against these. Always: what is adopted is what the attested hash says; a wrong chain costs the peer
that sent it, when it came from one alone; the next peer follows from the sequence and the attempt,
not from chance. No client signatures are checked: among the voters f + 1 correct ones did.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nodes.core.checkpoint import Target
from nodes.core.effects import Effects, Report, Send
from nodes.core.messages import FetchBlocks, FetchBody, FetchedBlocks, OrderedBatch
from nodes.core.options import CoreOptions
from nodes.core.order import Order, next_order_hash
from nodes.core.types import Fault, FaultCode, Now, ReplicaId, SequenceNumber

PIECE_BLOCKS = 64
"""Blocks asked for at once."""
HELD_BYTES_MAX = 32 << 20
"""Bodies kept before their chain is proven."""
GAP_MAX = 1 << 20
"""Blocks one pass spans at most (32 MiB of digests)."""


@dataclass(slots=True)
class Pass:
    """One attempt to bridge the gap. `digests[i]` is of `first + i`."""

    target: Target
    first: SequenceNumber
    head: bytes
    """Order hash after the digests so far."""
    source: ReplicaId
    sources_used: int = 1
    is_proven: bool = False
    digests: list[bytes] = field(default_factory=list)
    held: dict[SequenceNumber, OrderedBatch] = field(default_factory=dict)
    held_bytes: int = 0
    deadline_us: int = 0
    asked: SequenceNumber | None = None
    """First sequence of the open request."""
    is_full: bool = False
    """A body was not kept: those after it are not either, so that what is held has no gap."""


class CatchUp:
    def __init__(self, options: CoreOptions) -> None:
        self._options = options
        self._pass: Pass | None = None
        self._attempt = 0
        self._grace: tuple[SequenceNumber, int] | None = None
        self._bodies: dict[SequenceNumber, tuple[int, int]] = {}
        """Single bodies asked for: sequence to (next time, attempts)."""

    @property
    def is_active(self) -> bool:
        return self._pass is not None

    @property
    def is_idle(self) -> bool:
        """Nothing is being fetched, nor about to be."""
        return self._pass is None and self._grace is None

    @property
    def waits_for_bodies(self) -> bool:
        return bool(self._bodies)

    def deadline_us(self) -> int | None:
        deadlines = [due for due, _ in self._bodies.values()]
        if self._pass is not None and self._pass.asked is not None:
            deadlines.append(self._pass.deadline_us)
        elif self._pass is None and self._grace is not None:
            deadlines.append(self._grace[1])
        return min(deadlines, default=None)

    # Blocks --------------------------------------------------------------------------------------

    def pursue(self, target: Target | None, sources: list[ReplicaId], order: Order, now: Now) -> Effects:
        """Begin, continue or repeat: call whenever the target, the prefix or the time has changed."""
        if target is None or target.sequence <= order.last_committed:
            self._pass = self._grace = None
            self._attempt = 0
            return []
        current = self._pass
        if current is None:
            return self._begin(target, sources, order, now)
        if current.target.sequence <= order.last_committed:
            self._pass = None
            return self._begin(target, sources, order, now)
        if current.asked is not None and now.monotonic_us >= current.deadline_us:
            self._attempt += 1
            source = self._source(sources, current.first)
            current.sources_used += source != current.source
            current.source, current.asked = source, None
        return self._ask(current, order, now)

    def _begin(self, target: Target, sources: list[ReplicaId], order: Order, now: Now) -> Effects:
        if self._grace is None or self._grace[0] <= order.last_committed:
            # Votes of this very slot may be on their way still.
            self._grace = (target.sequence, now.monotonic_us + self._options.fetch_grace_us)
        if now.monotonic_us < self._grace[1]:
            return []
        if target.sequence - order.last_committed > GAP_MAX:
            self._grace = (target.sequence, now.monotonic_us + self._options.fetch_timeout_us)
            return []
        first = SequenceNumber(order.last_committed + 1)
        self._pass = Pass(target, first, order.head, self._source(sources, first))
        return self._ask(self._pass, order, now)

    def _source(self, sources: list[ReplicaId], first: SequenceNumber) -> ReplicaId:
        return sources[(first + self._attempt) % len(sources)]

    def _ask(self, current: Pass, order: Order, now: Now) -> Effects:
        if current.asked is not None:
            return []
        sequence = self._next_needed(current, order)
        if sequence is None:
            return []
        last = SequenceNumber(min(sequence + PIECE_BLOCKS - 1, current.target.sequence))
        current.asked = sequence
        if current.is_proven:
            # Whatever was held has been taken: this piece begins a new run.
            current.is_full = False
        # Waiting grows with the attempts, so that a slow link is not asked for everything twice.
        wait_us = self._options.fetch_timeout_us * min(1 + self._attempt, 8)
        current.deadline_us = now.monotonic_us + wait_us
        return [Send(FetchBlocks(self._options.epoch, sequence, last), to=current.source)]

    def _next_needed(self, current: Pass, order: Order) -> SequenceNumber | None:
        if not current.is_proven:
            return SequenceNumber(current.first + len(current.digests))
        sequence = SequenceNumber(order.last_committed + 1)
        if sequence > current.target.sequence or sequence in current.held or not self._has_room(order):
            return None
        return sequence

    def _has_room(self, order: Order) -> bool:
        """Adopted bodies stay in memory until executed, so the executor sets the pace."""
        return order.last_committed < order.last_executed + self._options.window

    def on_blocks(self, message: FetchedBlocks, sender: ReplicaId, order: Order) -> Effects:
        current = self._pass
        if current is None or sender != current.source or current.asked is None:
            return []
        effects: Effects = []
        for block in message.blocks:
            if self._pass is not current:
                break
            if current.is_proven:
                effects += self._take_body(current, block)
            elif block.batch.sequence == current.first + len(current.digests):
                effects += self._take_digest(current, block)
        if self._is_answered(current):
            current.asked = None
        return effects

    def _is_answered(self, current: Pass) -> bool:
        """Without progress a request stays open, and runs into its deadline and to another peer."""
        if current.asked is None or current.asked in current.held:
            return True
        return not current.is_proven and current.first + len(current.digests) > current.asked

    def _take_digest(self, current: Pass, block: OrderedBatch) -> Effects:
        sequence = block.batch.sequence
        current.digests.append(block.batch.digest)
        current.head = next_order_hash(current.head, sequence, block.batch.digest)
        self._hold(current, block)
        if sequence < current.target.sequence:
            return []
        if current.head == current.target.order_hash:
            current.is_proven = True
            current.asked = None
            return []
        return self._abandon(current)

    def _take_body(self, current: Pass, block: OrderedBatch) -> Effects:
        position = block.batch.sequence - current.first
        if not 0 <= position < len(current.digests):
            return []
        if current.digests[position] != block.batch.digest:
            current.sources_used = 1
            return self._abandon(current)
        self._hold(current, block)
        return []

    def _hold(self, current: Pass, block: OrderedBatch) -> None:
        size = _size(block)
        current.is_full = current.is_full or (current.held_bytes > 0 and current.held_bytes + size > HELD_BYTES_MAX)
        if block.batch.sequence not in current.held and not current.is_full:
            current.held[block.batch.sequence] = block
            current.held_bytes += size

    def _abandon(self, current: Pass) -> Effects:
        """The chain is wrong: begin again with another peer."""
        self._pass = None
        self._attempt += 1
        if current.sources_used > 1:
            return []
        return [Report(Fault(current.source, FaultCode.BAD_CHAIN))]

    def take(self, order: Order) -> OrderedBatch | None:
        """The next block of the prefix, proven, if it is here."""
        current = self._pass
        if current is None or not current.is_proven or not self._has_room(order):
            return None
        sequence = SequenceNumber(order.last_committed + 1)
        for passed in [held for held in current.held if held < sequence]:
            current.held_bytes -= _size(current.held.pop(passed))
        block = current.held.pop(sequence, None)
        if block is not None:
            current.held_bytes -= _size(block)
        return block

    # Single bodies -------------------------------------------------------------------------------

    def pursue_bodies(self, missing: list[tuple[SequenceNumber, bytes]], peers: list[ReplicaId], now: Now) -> Effects:
        """Ask for batches that a commit quorum decided and whose body is not here."""
        wanted = {sequence: self._bodies.get(sequence, (now.monotonic_us, 0)) for sequence, _ in missing}
        effects: Effects = []
        for sequence, digest in missing:
            due_us, attempts = wanted[sequence]
            if now.monotonic_us < due_us or not peers:
                continue
            peer = peers[(sequence + attempts) % len(peers)]
            effects.append(Send(FetchBody(self._options.epoch, sequence, digest), to=peer))
            wanted[sequence] = (now.monotonic_us + self._options.fetch_grace_us * min(1 + attempts, 10), attempts + 1)
        self._bodies = wanted
        return effects


def _size(block: OrderedBatch) -> int:
    return len(block.body) + len(block.batch.header)
