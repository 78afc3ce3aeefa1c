"""Fetching what was ordered without this replica (docs/protocol.md section 11).

A pass fetches last_committed + 1 .. target from one peer at a time, in pieces, and believes nothing
until the digests chain to the order hash that w attesters vouch for. Bodies wait in a bounded buffer;
of a gap that is larger only the digests are kept (32 bytes a block), and the bodies are fetched again
against these. Always: what is adopted is what the attested hash says; the next peer follows from what
the peers have done so far, the sequence and the attempt, not from chance. No client signatures are
checked: among the voters f + 1 correct ones did.

A liar costs time, never safety, and little of that: an answer that is neither whole nor limited by its
size is thrown away and the next peer asked; whoever has the turn must keep a pace; peers that failed
come after those that did not, and one that sent a wrong chain alone comes last.

`replay` fetches what this replica has long since ordered, for an executor whose database is far behind.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nodes.core.checkpoint import Target
from nodes.core.effects import Effects, Report, Send
from nodes.core.messages import FetchBlocks, FetchBody, FetchedBlocks, OrderedBatch
from nodes.core.options import CoreOptions
from nodes.core.order import Order, body_size, next_order_hash
from nodes.core.retransmission import PIECE_BYTES
from nodes.core.types import Fault, FaultCode, Now, ReplicaId, SequenceNumber

PIECE_BLOCKS = 64
"""Blocks asked for at once."""
HELD_BYTES_MAX = 32 << 20
"""Bodies kept here, and adopted ones that the executor has not executed, together."""
GAP_MAX = 1 << 20
"""Blocks one pass spans at most (32 MiB of digests)."""

PATIENCE_MAX = 8
"""Waiting grows with the failures of a peer, so that a slow link is not asked for everything twice."""
PACE = 8
"""Each whole answer buys an eighth of the first waiting time: that long may one take on the average."""
WRONG = 16
"""Failures that a wrong chain counts for."""


class Sources:
    """What peers did with the questions put to them so far."""

    def __init__(self, members: int) -> None:
        self._failures = [0] * members
        self._wrong = [0] * members

    def choose(self, sources: list[ReplicaId], turn: int) -> ReplicaId:
        """Whoever failed least; among equals they take turns."""

        def rank(position: int) -> tuple[int, int]:
            source = sources[position]
            return self._failures[source] + WRONG * self._wrong[source], (position - turn) % len(sources)

        return sources[min(range(len(sources)), key=rank)]

    def patience(self, source: ReplicaId) -> int:
        return min(1 + self._failures[source], PATIENCE_MAX)

    def failed(self, source: ReplicaId) -> None:
        self._failures[source] += 1

    def lied(self, source: ReplicaId) -> Report:
        self._wrong[source] += 1
        return Report(Fault(source, FaultCode.BAD_CHAIN))

    def served(self, source: ReplicaId) -> None:
        self._failures[source] = 0


@dataclass(frozen=True, slots=True)
class Question:
    """Blocks asked of one peer."""

    source: ReplicaId
    first: SequenceNumber
    last: SequenceNumber
    asked_us: int
    deadline_us: int

    def is_met_by(self, message: FetchedBlocks, sender: ReplicaId) -> bool:
        """False: of another peer, or late, to an earlier question."""
        return sender == self.source and bool(message.blocks) and message.blocks[0].batch.sequence == self.first

    def is_whole(self, message: FetchedBlocks, batch_bytes_max: int) -> bool:
        """All that was asked for, or as much as one answer has room for."""
        size = sum(len(block.body) for block in message.blocks)
        return message.blocks[-1].batch.sequence >= self.last or size > PIECE_BYTES - batch_bytes_max


@dataclass(slots=True)
class Pass:
    """One attempt to bridge the gap. `digests[i]` is of `first + i`."""

    target: Target
    first: SequenceNumber
    head: bytes
    """Order hash after the digests so far."""
    source: ReplicaId
    """Whose turn it is."""
    contributors: list[ReplicaId] = field(default_factory=list)
    """Who sent `digests`."""
    is_proven: bool = False
    digests: list[bytes] = field(default_factory=list)
    held: dict[SequenceNumber, OrderedBatch] = field(default_factory=dict)
    held_bytes: int = 0
    question: Question | None = None
    answered: Question | None = None
    """The last question, when its answer has come and its time has not been counted yet."""
    whole_answers: int = 0
    """Of this turn."""
    spent_us: int = 0
    """Waiting for answers in this turn."""
    has_failed: bool = False
    is_full: bool = False
    """A body was not kept: those after it are not either, so that what is held has no gap."""


class CatchUp:
    def __init__(self, options: CoreOptions) -> None:
        self._options = options
        self._pass: Pass | None = None
        self._attempt = 0
        self._sources = Sources(options.n)
        self._replay: Question | None = None
        self._grace: tuple[SequenceNumber, int] | None = None
        self._bodies: dict[SequenceNumber, tuple[int, int]] = {}
        """Single bodies asked for: sequence to (next time, attempts)."""

    @property
    def is_active(self) -> bool:
        return self._pass is not None or self._replay is not None

    @property
    def is_idle(self) -> bool:
        """Nothing is being fetched, nor about to be."""
        return self._pass is None and self._grace is None

    @property
    def waits_for_bodies(self) -> bool:
        return bool(self._bodies)

    def deadline_us(self) -> int | None:
        deadlines = [due for due, _ in self._bodies.values()]
        if self._replay is not None:
            deadlines.append(self._replay.deadline_us)
        if self._pass is not None and self._pass.question is not None:
            deadlines.append(self._pass.question.deadline_us)
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
        self._judge(current, sources, now)
        return self._ask(current, order, now)

    def _judge(self, current: Pass, sources: list[ReplicaId], now: Now) -> None:
        """Another peer takes over when the one whose turn it is failed, was late, or is too slow."""
        if current.answered is not None:
            current.spent_us += now.monotonic_us - current.answered.asked_us
            current.answered = None
        if current.question is not None:
            is_over = now.monotonic_us >= current.question.deadline_us
        else:
            is_over = current.has_failed or self._left_us(current) < self._patience_us(current.source) // PACE
        if not is_over:
            return
        self._sources.failed(current.source)
        self._attempt += 1
        current.source = self._source(sources, current.first)
        current.question, current.has_failed = None, False
        current.whole_answers = current.spent_us = 0

    def _patience_us(self, source: ReplicaId) -> int:
        return self._options.fetch_timeout_us * self._sources.patience(source)

    def _left_us(self, current: Pass) -> int:
        """How long the peer may still take for all that it is asked in this turn."""
        return self._patience_us(current.source) * (PACE + current.whole_answers) // PACE - current.spent_us

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
        return self._sources.choose(sources, first + self._attempt)

    def _ask(self, current: Pass, order: Order, now: Now) -> Effects:
        if current.question is not None:
            return []
        sequence = self._next_needed(current, order)
        if sequence is None:
            return []
        last = SequenceNumber(min(sequence + PIECE_BLOCKS - 1, current.target.sequence))
        if current.is_proven:
            # Whatever was held has been taken: this piece begins a new run.
            current.is_full = False
        wait_us = min(self._patience_us(current.source), self._left_us(current))
        current.question = Question(
            current.source, sequence, last, now.monotonic_us, now.monotonic_us + max(wait_us, 0)
        )
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
        is_near = order.last_committed < order.last_executed + self._options.window
        return is_near and order.owed_bytes < HELD_BYTES_MAX

    def on_blocks(self, message: FetchedBlocks, sender: ReplicaId, order: Order) -> Effects:
        if self._replay is not None and self._replay.is_met_by(message, sender):
            return self._on_replay(self._replay, message, order)
        current = self._pass
        question = current.question if current is not None else None
        if current is None or question is None or not question.is_met_by(message, sender):
            return []
        current.question, current.answered = None, question
        current.has_failed = not question.is_whole(message, self._options.batch_bytes_max)
        if current.has_failed and not current.is_proven:
            return []
        current.whole_answers += not current.has_failed
        effects: Effects = []
        for block in message.blocks:
            if self._pass is not current:
                break
            if current.is_proven:
                effects += self._take_body(current, block, order)
            elif block.batch.sequence == current.first + len(current.digests):
                effects += self._take_digest(current, block, order)
        return effects

    def _take_digest(self, current: Pass, block: OrderedBatch, order: Order) -> Effects:
        if current.source not in current.contributors:
            current.contributors.append(current.source)
        sequence = block.batch.sequence
        current.digests.append(block.batch.digest)
        current.head = next_order_hash(current.head, sequence, block.batch.digest)
        self._hold(current, block, order)
        if sequence < current.target.sequence:
            return []
        if current.head == current.target.order_hash:
            current.is_proven = True
            for source in current.contributors:
                self._sources.served(source)
            return []
        return self._abandon(current, current.contributors)

    def _take_body(self, current: Pass, block: OrderedBatch, order: Order) -> Effects:
        position = block.batch.sequence - current.first
        if not 0 <= position < len(current.digests):
            return []
        if current.digests[position] != block.batch.digest:
            return self._abandon(current, [current.source])
        self._hold(current, block, order)
        return []

    def _hold(self, current: Pass, block: OrderedBatch, order: Order) -> None:
        size = body_size(block)
        room = HELD_BYTES_MAX - order.owed_bytes - current.held_bytes
        current.is_full = current.is_full or (current.held_bytes > 0 and size > room)
        if block.batch.sequence not in current.held and not current.is_full:
            current.held[block.batch.sequence] = block
            current.held_bytes += size

    def _abandon(self, current: Pass, suspects: list[ReplicaId]) -> Effects:
        """The chain is wrong: begin again with another peer. Of several suspects some may be innocent."""
        self._pass = None
        self._attempt += 1
        if len(suspects) == 1:
            return [self._sources.lied(suspects[0])]
        for source in suspects:
            self._sources.failed(source)
        return []

    def take(self, order: Order) -> OrderedBatch | None:
        """The next block of the prefix, proven, if it is here."""
        current = self._pass
        if current is None or not current.is_proven or not self._has_room(order):
            return None
        sequence = SequenceNumber(order.last_committed + 1)
        for passed in [held for held in current.held if held < sequence]:
            current.held_bytes -= body_size(current.held.pop(passed))
        block = current.held.pop(sequence, None)
        if block is not None:
            current.held_bytes -= body_size(block)
        return block

    # For the executor ----------------------------------------------------------------------------

    def replay(self, order: Order, peers: list[ReplicaId], now: Now) -> Effects:
        """Ask for bodies that the executor needs and memory no longer has. Call whenever something changed."""
        question = self._replay
        if question is not None and now.monotonic_us < question.deadline_us:
            return []
        if question is not None:
            self._sources.failed(question.source)
            self._replay = None
        wanted = order.wanted()
        if wanted is None or not peers:
            return []
        first, last = wanted[0], SequenceNumber(min(wanted[0] + PIECE_BLOCKS - 1, wanted[1]))
        source = self._sources.choose(peers, first)
        self._replay = Question(source, first, last, now.monotonic_us, now.monotonic_us + self._patience_us(source))
        return [Send(FetchBlocks(self._options.epoch, first, last), to=source)]

    def _on_replay(self, question: Question, message: FetchedBlocks, order: Order) -> Effects:
        """Each block is proven by itself, so whatever is right is progress."""
        self._replay = None
        for block in message.blocks:
            if block.batch.sequence <= question.last and not order.refetched(block):
                return [self._sources.lied(question.source), *order.hand_over()]
        if question.is_whole(message, self._options.batch_bytes_max):
            self._sources.served(question.source)
        else:
            self._sources.failed(question.source)
        return order.hand_over()

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
