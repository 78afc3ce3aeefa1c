"""Agreement inside the window: proposals, votes, certificates and commits (docs/protocol.md section 6).

Always: votes are taken for sequences in (stable, stable + L] only; a proposal is accepted only when
its predecessor was or is decided, at most one in a (view, sequence); an own vote counts only once it
was sent by this run of the process (it comes back through `step`); a COMMIT leaves only after its
certificate is durable and after those below it (in-order COMMIT). Being decided never ends the
participation in a slot, only the stable checkpoint does: the votes of a replica that knows the
outcome may be the ones that others lack to know it. Deliberately elsewhere: what makes contents valid
(`proposal`), the decided prefix (`order`), lost messages (`retransmission`), other views' proposals.

Longer than most files here, because accepting, certifying and committing share the slots and their
order; `slot`, `proposal` and `order` hold what could be taken out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nodes.core.effects import (
    Effects,
    PreparesPurpose,
    ProposalPurpose,
    Proposed,
    Report,
    Send,
    Verify,
    Write,
    conflict,
)
from nodes.core.messages import Commit, OrderedBatch, Prepare, PrepareCertificate, PrePrepare
from nodes.core.options import CoreOptions
from nodes.core.order import Order, next_order_hash
from nodes.core.proposal import content_fault
from nodes.core.quorum import Thresholds
from nodes.core.ready import SignatureCheck
from nodes.core.records import Accepted, Adopted, Prepared
from nodes.core.slot import Candidate, Counted, Slot, Votes
from nodes.core.types import Batch, BatchKind, Fault, FaultCode, Mode, Now, ReplicaId, Request, SequenceNumber, View

IsVerified = Callable[[bytes], bool]
"""Has the signature of the request with this leaf been verified here already?"""


class Window:
    def __init__(self, options: CoreOptions, thresholds: Thresholds, order: Order) -> None:
        self.view = View(0)
        self.mode = Mode.NORMAL
        self.stable = SequenceNumber(0)
        self.base = SequenceNumber(0)
        """b*: what the NEW-VIEW of `view` starts from; no vote in this view at or below it."""
        self._options = options
        self._thresholds = thresholds
        self._me = options.me
        self._order = order
        self._slots: dict[SequenceNumber, Slot] = {}
        self._highest = SequenceNumber(0)
        self._frontier = SequenceNumber(0)
        """Every sequence above max(stable, base, committed) and up to this one has an accepted proposal."""
        self._uncommitted_certificates: list[SequenceNumber] = []
        """Durable certificates whose COMMIT has not been sent, ascending."""
        self._unvoted: list[SequenceNumber] = []
        """Accepted proposals that were too old to vote for."""

    # Slots ---------------------------------------------------------------------------------------

    @property
    def primary(self) -> ReplicaId:
        return self._thresholds.primary(self.view)

    @property
    def top(self) -> SequenceNumber:
        """The last sequence votes are taken for: own stable + L, always."""
        return SequenceNumber(self.stable + self._options.window)

    @property
    def frontier(self) -> SequenceNumber:
        frontier = max(self._frontier, self._order.last_committed, self.stable, self.base)
        while (slot := self._slots.get(SequenceNumber(frontier + 1))) is not None and slot.proposal is not None:
            frontier = SequenceNumber(frontier + 1)
        self._frontier = frontier
        return frontier

    def admits(self, sequence: SequenceNumber) -> bool:
        return self.stable < sequence <= self.top

    def get(self, sequence: SequenceNumber) -> Slot | None:
        return self._slots.get(sequence)

    def highest(self) -> SequenceNumber:
        """The highest sequence anything is known about."""
        return max(self._highest, self.stable)

    def _slot(self, sequence: SequenceNumber, now: Now) -> Slot:
        slot = self._slots.get(sequence)
        if slot is None:
            slot = self._slots[sequence] = Slot(sequence, self._options.n, touched_us=now.monotonic_us)
            self._highest = max(self._highest, sequence)
        return slot

    def _is_decided(self, slot: Slot) -> bool:
        return slot.decided is not None or slot.sequence <= self._order.last_committed

    def _may_accept(self, slot: Slot, digest: bytes) -> bool:
        """A decided slot has room for what was decided only: the order hash says what that is, body or not."""
        if slot.decided is not None:
            return slot.decided.batch.digest == digest
        if slot.sequence > self._order.last_committed:
            return True
        before = self._order.hash_of(SequenceNumber(slot.sequence - 1))
        known = self._order.hash_of(slot.sequence)
        return before is not None and known == next_order_hash(before, slot.sequence, digest)

    # Proposals -----------------------------------------------------------------------------------

    def propose(self, batch: Batch, requests: tuple[Request, ...], body: bytes, now: Now) -> Effects:
        """Primary: log the proposal, then send it. It becomes this replica's vote when it comes back."""
        slot = self._slot(batch.sequence, now)
        assert self.primary == self._me
        assert slot.proposal is None
        proposal = PrePrepare(self._options.epoch, self.view, batch, requests, body)
        slot.proposal = proposal
        slot.name(batch.digest, self._me, now.wall_us)
        return [
            Write(Accepted(proposal)),
            Proposed(batch.sequence, requests),
            Send(proposal, durable=self._options.sync_prepare),
        ]

    def on_pre_prepare(self, message: PrePrepare, sender: ReplicaId, now: Now, is_verified: IsVerified) -> Effects:
        """accept_pp of section 6 up to the signature checks. `sender` may relay: the signature decides."""
        sequence, digest = message.batch.sequence, message.batch.digest
        if message.epoch != self._options.epoch:
            return [Report(Fault(sender, FaultCode.WRONG_EPOCH))]
        if message.view != self.view or self.mode is not Mode.NORMAL:
            return []
        if not max(self.stable, self.base) < sequence <= self.top:
            return []
        if sender == self._me:
            return self._own_proposal_sent(message, now)
        if self.primary == self._me:
            # Nobody but this replica can propose here; what it proposed it has.
            return []
        slot = self._slot(sequence, now)
        slot.name(digest, sender, now.wall_us)
        if slot.proposal is not None:
            return self._conflicting_proposal(slot, message, sender)
        if sequence > self.frontier + 2 * self._options.pipeline or digest in slot.refused:
            return []
        if not self._may_accept(slot, digest) or self._is_far_ahead(slot, message.batch, now):
            return []
        candidates = slot.candidates = slot.candidates or {}
        if sender in candidates or any(
            other.proposal.batch.digest == digest and other.proposal.signature == message.signature
            for other in candidates.values()
        ):
            return []
        fault = content_fault(message, self.primary, self._options)
        candidates[sender] = Candidate(message, fault)
        # From the primary's own channel everything is checked in one go; what another relays may be
        # garbage, so its requests wait until the primary's signature has proved good.
        direct = sender == self.primary and fault is None
        requests = tuple(r for r in message.requests if not is_verified(r.leaf)) if direct else ()
        purpose = ProposalPurpose(message, sender, direct)
        return [
            Verify(purpose, (SignatureCheck(self.primary, message),), requests),
            *self._decide_if_committed(slot, now),
        ]

    def _own_proposal_sent(self, message: PrePrepare, now: Now) -> Effects:
        slot = self._slots.get(message.batch.sequence)
        if slot is None or slot.proposal is None or slot.proposal.batch.digest != message.batch.digest:
            return []
        slot.proposal = message
        slot.proposal_sent = True
        self._count_proposal(slot, message)
        return self._try_prepare(slot)

    def _count_proposal(self, slot: Slot, proposal: PrePrepare) -> None:
        """The primary's PRE-PREPARE is its vote: both sign the same bytes."""
        votes = slot.prepares(self.view)
        votes.add(self.primary, _vote_of(proposal))
        votes.mark(self.primary, valid=True)

    def _conflicting_proposal(self, slot: Slot, message: PrePrepare, sender: ReplicaId) -> Effects:
        assert slot.proposal is not None
        if slot.proposal.batch.digest == message.batch.digest or sender in slot.conflict_senders:
            return []
        slot.conflict_senders = (*slot.conflict_senders, sender)
        # PR-bytes carry no body, so two digests with their signatures are the whole proof.
        code = FaultCode.CONFLICTING_PROPOSAL
        return [conflict(self.primary, sender, code, _vote_of(slot.proposal), _vote_of(message))]

    def on_proposal_verified(
        self, purpose: ProposalPurpose, flags: bytes, now: Now, is_verified: IsVerified
    ) -> Effects:
        proposal = purpose.proposal
        slot = self._slots.get(proposal.batch.sequence)
        candidate = (slot.candidates or {}).get(purpose.sender) if slot is not None else None
        if slot is None or candidate is None or candidate.proposal is not proposal:
            return []
        if proposal.view != self.view or candidate.valid:
            return []
        if not flags[0]:
            # Not even signed by the primary: the channel that brought it is to blame, nobody else.
            slot.drop(candidate)
            return [Report(Fault(purpose.sender, FaultCode.BAD_SIGNATURE))]
        fault = candidate.fault
        if fault is None and 0 in flags[1:]:
            fault = FaultCode.INVALID_REQUEST_SIGNATURE
        if fault is not None:
            slot.drop(candidate)
            slot.refuse(proposal.batch.digest)
            return [Report(Fault(self.primary, fault, (proposal,)))]
        if not purpose.with_requests:
            requests = tuple(r for r in proposal.requests if not is_verified(r.leaf))
            if requests:
                again = ProposalPurpose(proposal, purpose.sender, True)
                return [Verify(again, (SignatureCheck(self.primary, proposal),), requests)]
        candidate.valid = True
        return [*self._accept_decided(slot, now), *self.accept_ready(now)]

    def accept_ready(self, now: Now) -> Effects:
        """Accept what is valid, in its time window, and next in order."""
        effects: Effects = []
        if self.mode is not Mode.NORMAL:
            return effects
        while (slot := self._slots.get(SequenceNumber(self.frontier + 1))) is not None:
            candidate = self._next_candidate(slot)
            if candidate is None or not self._is_due(slot, candidate, now):
                break
            effects += self._accept(slot, candidate.proposal, now)
        return effects

    def _accept_decided(self, slot: Slot, now: Now) -> Effects:
        """The proposal of a slot of the decided prefix: votes go on, and neither its turn nor its time matter."""
        if self.mode is not Mode.NORMAL or not self._is_decided(slot) or slot.proposal is not None:
            return []
        if not self.base < slot.sequence <= self._order.last_committed + 1:
            return []
        candidate = self._next_candidate(slot)
        return [] if candidate is None else self._accept(slot, candidate.proposal, now)

    def _next_candidate(self, slot: Slot) -> Candidate | None:
        candidates = slot.candidates or {}
        for sender in (self.primary, *range(self._options.n)):
            candidate = candidates.get(ReplicaId(sender))
            if candidate is not None and candidate.valid and self._may_accept(slot, candidate.proposal.batch.digest):
                return candidate
        return None

    def _is_due(self, slot: Slot, candidate: Candidate, now: Now) -> bool:
        """Section 9.1: a timestamp from the future waits, within reason, for the local clock."""
        ahead_us = self._ahead_us(slot, candidate.proposal.batch, now)
        if ahead_us <= 0:
            return True
        if self._is_far_ahead(slot, candidate.proposal.batch, now):
            slot.drop(candidate)
        else:
            candidate.hold_until_us = now.monotonic_us + ahead_us
        return False

    def _ahead_us(self, slot: Slot, batch: Batch, now: Now) -> int:
        """How long until the clock reaches what is tolerated; what is decided needs no tolerance."""
        if batch.kind is BatchKind.NULL or self._is_decided(slot):
            return 0
        return batch.timestamp_us - now.wall_us - self._options.clock_future_us

    def _is_far_ahead(self, slot: Slot, batch: Batch, now: Now) -> bool:
        """Not worth holding, nor a check of signatures: STATUS brings it again. Clocks prove nothing: no evidence."""
        if slot.wanted_body == batch.digest:
            return False
        return self._ahead_us(slot, batch, now) > self._options.request_timeout_us // 2

    def _accept(self, slot: Slot, proposal: PrePrepare, now: Now) -> Effects:
        batch = proposal.batch
        slot.proposal = proposal
        slot.candidates = None
        self._count_proposal(slot, proposal)
        effects: Effects = [Write(Accepted(proposal))]
        if slot.sequence > self._order.last_committed:
            effects.append(Proposed(batch.sequence, proposal.requests))
        # Judged at the first arrival of anything that named it, so that a repetition is not "too old".
        age_us = slot.name(batch.digest, self._me, now.wall_us) - batch.timestamp_us
        is_exempt = batch.kind is BatchKind.NULL or self._is_decided(slot)
        if is_exempt or age_us <= self._options.clock_past_us:
            effects.append(self._prepare(slot, proposal))
        else:
            slot.age_us, slot.accepted_us = age_us, now.monotonic_us
            self._unvoted.append(slot.sequence)
        return [*effects, *self._try_prepare(slot), *self._decide_if_committed(slot, now)]

    def _prepare(self, slot: Slot, proposal: PrePrepare) -> Send:
        vote = Prepare(self._options.epoch, self.view, slot.sequence, proposal.batch.digest)
        return Send(vote, durable=self._options.sync_prepare)

    def vote_late(self, now: Now) -> Effects:
        """Section 9.1: the tolerance for old timestamps grows with the time a slot is stuck, so that an
        outage longer than it (all backups cut off, the primary restarted) cannot stop the system for ever.
        What is decided is voted for at once: its time is agreed on."""
        effects: Effects = []
        waiting: list[SequenceNumber] = []
        for sequence in self._unvoted:
            slot = self._slots.get(sequence)
            if slot is None or slot.proposal is None or not self._may_accept(slot, slot.proposal.batch.digest):
                continue
            if now.monotonic_us < self._tolerated_us(slot):
                waiting.append(sequence)
                continue
            effects.append(self._prepare(slot, slot.proposal))
        self._unvoted = waiting
        return effects

    def _tolerated_us(self, slot: Slot) -> int:
        """Monotonic time from which the slot's age is within the tolerance, doubled every T_req."""
        if self._is_decided(slot):
            return 0
        doublings = 0
        while slot.age_us > self._options.clock_past_us << doublings:
            doublings += 1
        return slot.accepted_us + doublings * self._options.request_timeout_us

    # Prepare -------------------------------------------------------------------------------------

    def on_prepare(self, message: Prepare, sender: ReplicaId, now: Now) -> Effects:
        if message.epoch != self._options.epoch:
            return [Report(Fault(sender, FaultCode.WRONG_EPOCH))]
        if not self.view <= message.view <= self.view + 1 or not self.admits(message.sequence):
            return []
        if sender == self._thresholds.primary(message.view):
            # Its PRE-PREPARE is its vote; counting both would count it twice.
            return []
        slot = self._slot(message.sequence, now)
        slot.name(message.digest, sender, now.wall_us)
        votes = slot.prepares(message.view)
        if votes.add(sender, message) is Counted.CONFLICT:
            return _conflicting_vote(votes, message, sender)
        if sender == self._me and message.view == self.view:
            slot.own_prepare = message
        return self._try_prepare(slot)

    def _try_prepare(self, slot: Slot) -> Effects:
        """Section 7: verify just enough PREPARE signatures, at the quorum, before the certificate."""
        proposal = slot.proposal
        if proposal is None or self.mode is not Mode.NORMAL:
            return []
        if slot.checking_prepares is not None and slot.checking_prepares.view == self.view:
            return []
        if slot.certificate is not None and slot.certificate.view >= self.view:
            return []
        if slot.sequence <= self.base:
            return []
        q = self._thresholds.q
        votes = slot.prepares(self.view)
        supporters = votes.supporters(proposal.batch.digest)
        if len(supporters) < q or self.primary not in supporters:
            return []
        trusted = [s for s in supporters if s == self._me or votes.is_verified(s)]
        if len(trusted) >= q:
            return self._certify(slot, proposal, votes, trusted)
        unchecked = [s for s in supporters if s not in trusted][: q - len(trusted)]
        checked = tuple((s, vote) for s in unchecked if isinstance(vote := votes.vote_of(s), Prepare))
        slot.checking_prepares = PreparesPurpose(self.view, slot.sequence, checked)
        return [Verify(slot.checking_prepares, tuple(SignatureCheck(s, vote) for s, vote in checked))]

    def _certify(self, slot: Slot, proposal: PrePrepare, votes: Votes, trusted: list[ReplicaId]) -> Effects:
        others = [s for s in trusted if s != self.primary][: self._thresholds.q - 1]
        signers = sorted([self.primary, *others])
        signatures = tuple((s, vote.signature) for s in signers if (vote := votes.vote_of(s)) is not None)
        slot.certificate = PrepareCertificate(self._options.epoch, self.view, proposal.batch, signatures)
        slot.certificate_durable = False
        slot.commit_emitted = False
        return [Write(Prepared(slot.certificate))]

    def on_prepares_verified(self, purpose: PreparesPurpose, flags: bytes) -> Effects:
        slot = self._slots.get(purpose.sequence)
        if slot is None or slot.checking_prepares is not purpose:
            return []
        slot.checking_prepares = None
        votes = slot.prepares(purpose.view)
        effects: Effects = []
        for (sender, vote), flag in zip(purpose.votes, flags, strict=True):
            assert votes.vote_of(sender) is vote, "the first vote of a sender is the only one"
            votes.mark(sender, valid=bool(flag))
            if not flag:
                effects.append(Report(Fault(sender, FaultCode.BAD_SIGNATURE)))
        return effects + self._try_prepare(slot)

    def on_prepared_durable(self, certificate: PrepareCertificate) -> Effects:
        slot = self._slots.get(certificate.batch.sequence)
        if slot is None or slot.certificate is not certificate:
            return []
        slot.certificate_durable = True
        self._uncommitted_certificates = sorted([*self._uncommitted_certificates, slot.sequence])
        return self.send_commits()

    # Commit --------------------------------------------------------------------------------------

    def send_commits(self) -> Effects:
        """In-order COMMIT: only when every slot between the committed prefix and this one is prepared too."""
        effects: Effects = []
        waiting: list[SequenceNumber] = []
        for sequence in self._uncommitted_certificates:
            slot = self._slots.get(sequence)
            if slot is None or slot.certificate is None or slot.certificate.view != self.view:
                continue
            if self.mode is not Mode.NORMAL or not self._is_prepared_below(sequence):
                waiting.append(sequence)
                continue
            slot.commit_emitted = True
            effects.append(Send(Commit(self._options.epoch, self.view, sequence, slot.certificate.batch.digest)))
        self._uncommitted_certificates = waiting
        return effects

    def _is_prepared_below(self, sequence: SequenceNumber) -> bool:
        for below in range(max(self.base, self._order.last_committed) + 1, sequence):
            slot = self._slots.get(SequenceNumber(below))
            if slot is None or slot.certificate is None or slot.certificate.view != self.view:
                return False
            if not slot.certificate_durable:
                return False
        return True

    def on_commit(self, message: Commit, sender: ReplicaId, now: Now) -> Effects:
        """Counted by the identity of the channel; the signature is for third parties (section 7)."""
        if message.epoch != self._options.epoch:
            return [Report(Fault(sender, FaultCode.WRONG_EPOCH))]
        if message.view > self.view + 1 or not self.admits(message.sequence):
            return []
        slot = self._slot(message.sequence, now)
        slot.name(message.digest, sender, now.wall_us)
        votes = slot.commits(message.view)
        if votes is None:
            return []
        if votes.add(sender, message) is Counted.CONFLICT:
            return _conflicting_vote(votes, message, sender)
        if sender == self._me and message.view == self.view:
            slot.own_commit = message
        return self._decide_if_committed(slot, now)

    def _decide_if_committed(self, slot: Slot, now: Now) -> Effects:
        """Own prepared state is not required: among q commits f + 1 are of correct certificate holders."""
        if slot.decided is not None or slot.sequence <= self._order.last_committed:
            return []
        digest = slot.commit_quorum(self._thresholds.q)
        if digest is None:
            return []
        block = slot.block_of(digest)
        if block is None:
            slot.wanted_body = digest
            return []
        return self._decide(slot, block, now)

    def _decide(self, slot: Slot, block: OrderedBatch, now: Now) -> Effects:
        slot.decided = block
        slot.wanted_body = None
        return self._advance(now)

    def _advance(self, now: Now) -> Effects:
        effects: Effects = []
        while (slot := self._slots.get(SequenceNumber(self._order.last_committed + 1))) is not None:
            if slot.decided is None:
                break
            effects += self._append(slot.decided, now)
        if effects:
            effects += self.send_commits()
            effects += self.accept_ready(now)
        return effects

    def _append(self, block: OrderedBatch, now: Now) -> Effects:
        slot = self._slots.get(block.batch.sequence)
        effects = self._accept_decided(slot, now) if slot is not None else []
        if slot is None or not slot.has_logged(block.batch.digest):
            effects.append(Write(Adopted(block)))
        return effects + self._order.decide(block)

    # Adoption ------------------------------------------------------------------------------------

    def adopt(self, block: OrderedBatch, now: Now) -> Effects:
        """Take over the next block of the prefix on the word of w attesters (section 11)."""
        slot = self._slots.get(block.batch.sequence)
        if slot is not None:
            if slot.decided is not None and slot.decided.batch.digest != block.batch.digest:
                return [Report(Fault(self._me, FaultCode.DIVERGED, (slot.decided.batch, block.batch)))]
            slot.decided = block
            slot.wanted_body = None
        return [*self._append(block, now), *self._advance(now), *self.send_commits(), *self.accept_ready(now)]

    def adopt_accepted(self, sequence: SequenceNumber, order_hash: bytes, now: Now) -> Effects:
        """Adopt up to `sequence` from accepted proposals, if exactly these chain to `order_hash`."""
        blocks: list[OrderedBatch] = []
        head = self._order.head
        for between in range(self._order.last_committed + 1, sequence + 1):
            slot = self._slots.get(SequenceNumber(between))
            if slot is None or (slot.proposal is None and slot.decided is None):
                return []
            block = slot.decided
            if block is None and slot.proposal is not None:
                block = slot.block_of(slot.proposal.batch.digest)
            assert block is not None
            head = next_order_hash(head, slot.sequence, block.batch.digest)
            blocks.append(block)
        if head != order_hash:
            return []
        effects: Effects = []
        for block in blocks:
            if block.batch.sequence > self._order.last_committed:
                effects += self.adopt(block, now)
        return effects

    def on_body(self, block: OrderedBatch, now: Now) -> Effects:
        """A fetched body; taken only where a commit quorum named its digest."""
        slot = self._slots.get(block.batch.sequence)
        if slot is None or slot.wanted_body != block.batch.digest or slot.decided is not None:
            return []
        return self._decide(slot, block, now)

    def missing_bodies(self) -> list[tuple[SequenceNumber, bytes]]:
        missing: list[tuple[SequenceNumber, bytes]] = []
        for sequence in range(self._order.last_committed + 1, self._highest + 1):
            slot = self._slots.get(SequenceNumber(sequence))
            if slot is not None and slot.wanted_body is not None:
                missing.append((slot.sequence, slot.wanted_body))
        return missing

    # Collection and time -------------------------------------------------------------------------

    def advance_stable(self, stable: SequenceNumber) -> None:
        for sequence in range(self.stable + 1, stable + 1):
            self._slots.pop(SequenceNumber(sequence), None)
        self.stable = stable

    def deadline_us(self) -> int | None:
        """When a held proposal enters the time window, or an old one the tolerance."""
        deadlines = [self._tolerated_us(slot) for s in self._unvoted if (slot := self._slots.get(s)) is not None]
        slot = self._slots.get(SequenceNumber(self.frontier + 1))
        candidate = self._next_candidate(slot) if slot is not None else None
        if candidate is not None and candidate.hold_until_us:
            deadlines.append(candidate.hold_until_us)
        return min(deadlines, default=None)

    def unsettled(self) -> Slot | None:
        """The lowest slot that is known of and not committed."""
        for sequence in range(self._order.last_committed + 1, self._highest + 1):
            slot = self._slots.get(SequenceNumber(sequence))
            if slot is not None:
                return slot
        return None

    # Restart -------------------------------------------------------------------------------------

    def recover_accepted(self, proposal: PrePrepare) -> None:
        """A logged proposal: the only one this replica may ever vote for in its (view, sequence)."""
        slot = self._slot(proposal.batch.sequence, Now(0, 0))
        if self._thresholds.primary(proposal.view) == self._me:
            # Logged before it was signed; it is signed again when it is sent again.
            slot.proposal = replace(proposal, signature=b"")
        else:
            slot.proposal = proposal
            self._count_proposal(slot, proposal)
        slot.name(proposal.batch.digest, self._me, proposal.batch.timestamp_us)

    def recover_prepared(self, certificate: PrepareCertificate) -> None:
        slot = self._slot(certificate.batch.sequence, Now(0, 0))
        slot.certificate = certificate
        slot.certificate_durable = True

    def recover_decided(self, block: OrderedBatch) -> None:
        self._slot(block.batch.sequence, Now(0, 0)).decided = block

    def recovered(self) -> Effects:
        """Say again what the log proves was, or may have been, said; votes return through `step`."""
        effects: Effects = []
        for sequence in range(self.stable + 1, self.highest() + 1):
            slot = self._slots.get(SequenceNumber(sequence))
            if slot is None or slot.proposal is None or slot.proposal.view != self.view:
                continue
            effects += self._say_again(slot, slot.proposal)
            if slot.certificate_durable:
                self._uncommitted_certificates.append(slot.sequence)
        return effects + self.send_commits()

    def _say_again(self, slot: Slot, proposal: PrePrepare) -> Effects:
        is_settled = slot.sequence <= self._order.last_committed and slot.certificate_durable
        if self.primary == self._me:
            slot.proposal_sent = True
            return [] if is_settled else [Send(proposal)]
        vote = Prepare(self._options.epoch, self.view, slot.sequence, proposal.batch.digest)
        slot.own_prepare = vote
        return [] if is_settled else [Send(vote)]


def _vote_of(proposal: PrePrepare) -> Prepare:
    batch = proposal.batch
    return Prepare(proposal.epoch, proposal.view, batch.sequence, batch.digest, proposal.signature)


def _conflicting_vote(votes: Votes, message: Prepare | Commit, sender: ReplicaId) -> Effects:
    first = votes.vote_of(sender)
    assert first is not None
    return [conflict(sender, sender, FaultCode.CONFLICTING_VOTE, first, message)]
