"""STATUS: what this replica has, and what a peer lacks according to its own (docs/protocol.md section 11).

Always: every message of agreement that was lost comes again because of some STATUS; answers are
bounded for each peer by a token bucket; only what was durable before is sent again. A vote is
repeated by its owner; a proposal by its primary, and by everyone once it stays missing.

A slot that this replica has decided stays in its STATUS while its own certificate is missing and some
peer has not committed the slot: that peer may wait for this replica's COMMIT, and this replica must
ask for what it needs to be able to send it.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodes.core.checkpoint import Checkpoints
from nodes.core.effects import Effects, Report, Send, ServeArchive
from nodes.core.messages import (
    Commit,
    FetchAttest,
    FetchBlocks,
    FetchBody,
    FetchedBlocks,
    FetchedBody,
    PeerMessage,
    Prepare,
    SlotStatus,
    Status,
)
from nodes.core.options import CoreOptions
from nodes.core.order import Order
from nodes.core.slot import Slot
from nodes.core.types import Fault, FaultCode, Now, ReplicaId, SequenceNumber
from nodes.core.window import Window

SLOTS_MAX = 64
ROUNDS_BEFORE_HELP = 2
"""STATUS rounds a peer may lack a proposal before others than the primary send it."""
SETTLE_US = 50_000
"""What was sent less than this ago is probably on its way."""
MESSAGE_BYTES = 160
"""Cost of a message without a body in the token bucket."""
STALE_US = 5_000_000
"""A peer that has been silent for longer asks for nothing."""
DECIDED_PROPOSALS_MAX = 4
"""Proposals of slots that the peer has decided, in one answer: it needs them for its votes alone."""
PIECE_BYTES = 2 << 20
"""Body bytes of one FetchedBlocks answered from memory."""
SERVED_BLOCKS_MAX = 64

MICRO = 1_000_000
_ABSENT = SlotStatus(has_proposal=False, prepared=False, committed=False)


class Bucket:
    """Messages and bytes a second, one second deep, counted in millionths so that integers suffice."""

    __slots__ = ("_bytes", "_bytes_per_s", "_last_us", "_messages", "_messages_per_s")

    def __init__(self, messages_per_s: int, bytes_per_s: int) -> None:
        self._messages_per_s = messages_per_s
        self._bytes_per_s = bytes_per_s
        self._messages = messages_per_s * MICRO
        self._bytes = bytes_per_s * MICRO
        self._last_us = 0

    def take(self, size: int, now: Now) -> bool:
        """Whether a message of `size` bytes may go; the last one may overdraw the bytes."""
        elapsed_us = max(0, now.monotonic_us - self._last_us)
        self._last_us = max(self._last_us, now.monotonic_us)
        self._messages = min(self._messages_per_s * MICRO, self._messages + elapsed_us * self._messages_per_s)
        self._bytes = min(self._bytes_per_s * MICRO, self._bytes + elapsed_us * self._bytes_per_s)
        if self._messages < MICRO or self._bytes <= 0:
            return False
        self._messages -= MICRO
        self._bytes -= size * MICRO
        return True


@dataclass(slots=True)
class Peer:
    bucket: Bucket
    status: Status | None = None
    heard_us: int = 0
    """Monotonic time of `status`."""
    lacking: SequenceNumber | None = None
    """Lowest proposal it lacked at its last STATUS."""
    rounds: int = 0


class Retransmission:
    def __init__(self, options: CoreOptions) -> None:
        self._options = options
        self._peers = [
            Peer(Bucket(options.status_messages_per_s, options.status_bytes_per_s)) for _ in range(options.n)
        ]
        self._last_us: int | None = None
        self._progress_us = 0
        self._most_committed = SequenceNumber(0)
        self._most_known = SequenceNumber(0)
        """The highest sequences that the latest STATUS of any peer shows as committed, and as known."""
        self._wanted: SequenceNumber | None = None
        """The lowest decided slot that waits for this replica's COMMIT."""

    # Sending -------------------------------------------------------------------------------------

    def due_us(self, window: Window, order: Order, *, backlog: int, is_catching_up: bool) -> int:
        """Monotonic time of the next STATUS: the interval shrinks while something is missing."""
        options = self._options
        if self._last_us is None:
            return 0
        known = max(window.highest(), order.last_committed)
        is_behind = self._most_committed > order.last_committed or self._most_known > known
        if is_behind or is_catching_up or self._wanted is not None:
            return self._last_us + options.status_missing_us
        unsettled = window.unsettled()
        if unsettled is None:
            is_quiet = not backlog and order.last_executed == order.last_committed
            return self._last_us + (options.status_idle_us if is_quiet else options.status_interval_us)
        # A slot that has not moved for a while lacks a message.
        stuck_us = max(self._progress_us, unsettled.touched_us) + SETTLE_US
        return min(self._last_us + options.status_interval_us, max(self._last_us + options.status_missing_us, stuck_us))

    def progressed(self, now: Now) -> None:
        """The committed prefix has grown."""
        self._progress_us = now.monotonic_us

    def status(
        self,
        window: Window,
        checkpoints: Checkpoints,
        order: Order,
        *,
        backlog: int,
        is_catching_up: bool,
        now: Now,
    ) -> Effects:
        """The STATUS that is due, and questions for what only asking brings; nothing before it is due."""
        if now.monotonic_us < self.due_us(window, order, backlog=backlog, is_catching_up=is_catching_up):
            return []
        self._last_us = now.monotonic_us
        if self._options.n == 1:
            return []
        self._wanted = self._find_wanted(window, order, now)
        effects: Effects = [Send(self._build(window, checkpoints, order, backlog, now))]
        height = checkpoints.attested_height()
        target = checkpoints.target
        if height > order.last_committed and (target is None or target.sequence < height):
            # Peers at different heights: have those above say what they executed at a common one.
            question = FetchAttest(self._options.epoch, height)
            effects += [Send(question, to=peer) for peer in checkpoints.ask_at(height)]
        return effects

    def _build(self, window: Window, checkpoints: Checkpoints, order: Order, backlog: int, now: Now) -> Status:
        first = order.last_committed + 1 if self._wanted is None else self._wanted
        last = min(max(window.highest(), order.last_committed), first + SLOTS_MAX - 1)
        slots = [_slot_status(SequenceNumber(sequence), window, order) for sequence in range(first, last + 1)]
        return Status(
            epoch=self._options.epoch,
            view=window.view,
            mode=window.mode,
            wish=window.view,
            stable=checkpoints.stable,
            last_committed=SequenceNumber(first - 1),
            last_executed=order.last_executed,
            order_hash=order.hash_of(order.last_executed) or bytes(32),
            slots=tuple(slots),
            clock_us=now.wall_us,
            backlog=backlog,
            incarnation=0,
            fenced=False,
            recovery_point=0,
        )

    def _find_wanted(self, window: Window, order: Order, now: Now) -> SequenceNumber | None:
        """The lowest slot decided but not certified here that some peer still had not committed once it was settled."""
        reports = [
            (_committed(peer.status), peer.heard_us)
            for peer in self._peers
            if peer.status is not None and now.monotonic_us - peer.heard_us < STALE_US
        ]
        lowest = min((height for height, _ in reports), default=order.last_committed)
        for sequence in range(max(window.stable, lowest) + 1, order.last_committed + 1):
            slot = window.get(SequenceNumber(sequence))
            if slot is not None and slot.certificate is not None:
                continue
            settled_us = SETTLE_US + (slot.touched_us if slot is not None else self._progress_us)
            if any(height < sequence and heard_us >= settled_us for height, heard_us in reports):
                return SequenceNumber(sequence)
        return None

    # Answering -----------------------------------------------------------------------------------

    def on_status(
        self, message: Status, sender: ReplicaId, window: Window, checkpoints: Checkpoints, order: Order, now: Now
    ) -> Effects:
        if message.epoch != self._options.epoch:
            return [Report(Fault(sender, FaultCode.WRONG_EPOCH))]
        peer = self._peers[sender]
        peer.status, peer.heard_us = message, now.monotonic_us
        statuses = [known.status for known in self._peers if known.status is not None]
        self._most_committed = max(_committed(status) for status in statuses)
        self._most_known = SequenceNumber(max(status.last_committed + len(status.slots) for status in statuses))
        self._wanted = self._find_wanted(window, order, now)
        effects: Effects = []
        mine = order.hash_of(message.last_executed)
        if mine is not None and message.last_executed <= order.last_executed and mine != message.order_hash:
            effects.append(Report(Fault(sender, FaultCode.DIVERGED)))
        wanted: list[PeerMessage] = []
        if message.view == window.view and message.mode == window.mode:
            wanted += self._proposals_for(peer, message, sender, window, now)
            wanted += self._votes_for(message, window, now)
        wanted += self._attestations_for(message, checkpoints, order)
        for item in wanted:
            if not peer.bucket.take(_size(item), now):
                break
            effects.append(Send(item, to=sender))
        return effects

    def _covered(self, message: Status, window: Window, now: Now) -> list[tuple[Slot, SlotStatus]]:
        """My slots that the peer may lack something of, with what it says it has."""
        covered: list[tuple[Slot, SlotStatus]] = []
        first = max(message.last_committed, window.stable) + 1
        for sequence in range(first, min(window.highest(), message.last_committed + SLOTS_MAX) + 1):
            slot = window.get(SequenceNumber(sequence))
            position = sequence - message.last_committed - 1
            has = message.slots[position] if position < len(message.slots) else _ABSENT
            if slot is not None and now.monotonic_us - slot.touched_us >= SETTLE_US:
                covered.append((slot, has))
        return covered

    def _proposals_for(
        self, peer: Peer, message: Status, sender: ReplicaId, window: Window, now: Now
    ) -> list[PeerMessage]:
        if sender == window.primary:
            return []
        lacking = [
            (slot, has)
            for slot, has in self._covered(message, window, now)
            if not has.has_proposal and slot.proposal is not None
        ]
        lowest = lacking[0][0].sequence if lacking else None
        peer.rounds = peer.rounds + 1 if lowest is not None and lowest == peer.lacking else 0
        peer.lacking = lowest
        is_primary = window.primary == self._options.me
        if not is_primary and peer.rounds < ROUNDS_BEFORE_HELP:
            return []
        open_ = [slot for slot, has in lacking if not has.committed]
        decided = [slot for slot, has in lacking if has.committed][:DECIDED_PROPOSALS_MAX]
        return [
            slot.proposal
            for slot in sorted([*decided, *open_], key=lambda slot: slot.sequence)
            if slot.proposal is not None and (slot.proposal_sent or not is_primary)
        ]

    def _votes_for(self, message: Status, window: Window, now: Now) -> list[PeerMessage]:
        votes: list[Prepare | Commit | None] = []
        for slot, has in self._covered(message, window, now):
            if not has.prepared:
                votes.append(slot.own_prepare)
            if not has.committed:
                votes.append(slot.own_commit)
        return [vote for vote in votes if vote is not None and vote.view == window.view]

    def _attestations_for(self, message: Status, checkpoints: Checkpoints, order: Order) -> list[PeerMessage]:
        wanted: list[PeerMessage] = []
        certificate = checkpoints.certificate
        if certificate is not None and certificate.sequence > message.stable:
            wanted.append(certificate)
        last = SequenceNumber(order.last_executed)
        checkpoint = SequenceNumber(last - last % self._options.checkpoint_interval)
        attested = [last] if message.last_executed < last else []
        if message.stable < checkpoint and checkpoint not in attested:
            attested.append(checkpoint)
        return wanted + [attest for sequence in attested if (attest := checkpoints.own(sequence)) is not None]

    # Fetches -------------------------------------------------------------------------------------

    def on_fetch_attest(
        self, message: FetchAttest, sender: ReplicaId, checkpoints: Checkpoints, order: Order, now: Now
    ) -> Effects:
        """From memory, else from the archive: what was attested before a restart is not in memory."""
        if message.epoch != self._options.epoch or not self._peers[sender].bucket.take(MESSAGE_BYTES, now):
            return []
        attest = checkpoints.own(message.sequence)
        if attest is not None:
            return [Send(attest, to=sender)]
        if checkpoints.is_diverged or not 0 < message.sequence <= order.last_executed:
            return []
        return [ServeArchive(sender, message)]

    def on_fetch_blocks(self, message: FetchBlocks, sender: ReplicaId, order: Order, now: Now) -> Effects:
        """From memory where the blocks are there, else from the archive of the executor."""
        if message.epoch != self._options.epoch or not 0 < message.first <= message.last:
            return []
        last = SequenceNumber(min(message.last, message.first + SERVED_BLOCKS_MAX - 1))
        blocks = order.held(message.first, last, PIECE_BYTES)
        size = sum(len(block.body) for block in blocks)
        if not self._peers[sender].bucket.take(MESSAGE_BYTES + size, now):
            return []
        if blocks:
            return [Send(FetchedBlocks(self._options.epoch, blocks), to=sender)]
        if message.first > order.last_executed:
            return []
        archived = FetchBlocks(message.epoch, message.first, SequenceNumber(min(last, order.last_executed)))
        return [ServeArchive(sender, archived)]

    def on_fetch_body(self, message: FetchBody, sender: ReplicaId, window: Window, order: Order, now: Now) -> Effects:
        slot = window.get(message.sequence)
        block = slot.block_of(message.digest) if slot is not None else None
        if block is None:
            block = order.block_of(message.sequence)
        if block is None or block.batch.digest != message.digest or message.epoch != self._options.epoch:
            return []
        if not self._peers[sender].bucket.take(MESSAGE_BYTES + len(block.body), now):
            return []
        return [Send(FetchedBody(self._options.epoch, block), to=sender)]


def _slot_status(sequence: SequenceNumber, window: Window, order: Order) -> SlotStatus:
    slot = window.get(sequence)
    return SlotStatus(
        has_proposal=slot is not None and slot.proposal is not None,
        prepared=slot is not None and slot.certificate is not None,
        committed=sequence <= order.last_committed or (slot is not None and slot.decided is not None),
    )


def _committed(status: Status) -> SequenceNumber:
    """Everything up to here is committed by the sender of `status`."""
    height = status.last_committed
    for slot in status.slots:
        if not slot.committed:
            break
        height = SequenceNumber(height + 1)
    return height


def _size(message: PeerMessage) -> int:
    return MESSAGE_BYTES + len(getattr(message, "body", b""))
