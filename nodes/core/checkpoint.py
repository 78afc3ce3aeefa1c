"""Attestations: what others say they executed, and what becomes stable (docs/protocol.md 8, 10, 11).

Always: the low watermark moves on q *verified* signatures of one (sequence, order hash, block hash)
at a multiple of K, never on fewer and never before this replica holds the prefix; w matching
attestations, counted by channel, are enough to adopt an order, because one of them is of a correct
replica that executed it. A replica that finds its own block refuted by q stops attesting until its
block is the certified one again, across restarts: it logs the certificate that refuted it once more,
with w signatures, which no certificate that moves the watermark has. Block hashes are a chain, so
agreeing at one height is agreeing at all below it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

from nodes.core.effects import (
    AttestsPurpose,
    CertificatePurpose,
    Effects,
    Report,
    Send,
    Stabilised,
    Verify,
    Write,
    conflict,
)
from nodes.core.messages import Attest, AttestCertificate
from nodes.core.options import CoreOptions
from nodes.core.order import Order
from nodes.core.quorum import Thresholds
from nodes.core.ready import SignatureCheck
from nodes.core.records import Stable
from nodes.core.types import Fault, FaultCode, ReplicaId, SequenceNumber

FAR_MAX = 16
"""Attestations kept of one peer from beyond the window, newest last: enough to find w at one height."""


@dataclass(frozen=True, slots=True)
class Target:
    """An order that w peers vouch for."""

    sequence: SequenceNumber
    order_hash: bytes


class Box:
    """The first attestation of each member for one sequence."""

    __slots__ = ("attests", "checking", "conflicts", "rejected", "verified")

    def __init__(self, members: int) -> None:
        self.attests: list[Attest | None] = [None] * members
        self.verified = bytearray(members)
        self.rejected = bytearray(members)
        self.conflicts = bytearray(members)
        self.checking = False

    def supporters(self, order_hash: bytes, block_hash: bytes | None = None) -> list[ReplicaId]:
        return [
            ReplicaId(sender)
            for sender, attest in enumerate(self.attests)
            if attest is not None
            and attest.order_hash == order_hash
            and (block_hash is None or (attest.block_hash == block_hash and not self.rejected[sender]))
        ]


class Checkpoints:
    def __init__(self, options: CoreOptions, thresholds: Thresholds) -> None:
        self._options = options
        self._thresholds = thresholds
        self._me = options.me
        self.stable = SequenceNumber(0)
        self.certificate: AttestCertificate | None = None
        """Of `stable`; None at genesis."""
        self.is_diverged = False
        self._is_divergence_reported = False
        self._refuted = SequenceNumber(0)
        """The height at which a quorum certified another block than the own one, if it ever did."""
        self._certified: dict[SequenceNumber, AttestCertificate] = {}
        """Certificates of the last 2 L sequences: what the own executor must come to."""
        self.target: Target | None = None
        """The highest order that w peers vouch for, if it was ever above the committed prefix."""
        self._boxes: dict[SequenceNumber, Box] = {}
        self._far: list[deque[Attest]] = [deque(maxlen=FAR_MAX) for _ in range(options.n)]
        self._newest = [SequenceNumber(0)] * options.n
        self._height_turn = 0
        self._own: dict[SequenceNumber, Attest] = {}
        self._checking_certificate: list[bool] = [False] * options.n

    # Own -----------------------------------------------------------------------------------------

    def executed(self, sequence: SequenceNumber, block_hash: bytes, order: Order) -> Effects:
        """The database has the block: attest it, unless this replica's state is known to be wrong."""
        order_hash = order.hash_of(sequence)
        assert order_hash is not None
        if sequence == 0:
            return []
        attest = Attest(self._options.epoch, sequence, order_hash, block_hash)
        before = self._own.get(sequence)
        self._own.pop(SequenceNumber(sequence - 2 * self._options.window), None)
        if before is None or not _agree(before, attest):
            self._own[sequence] = attest
        certificate = self._certified.get(sequence)
        effects = self._compare(attest, certificate) if certificate is not None else []
        if certificate is None and before is not None and not _agree(before, attest) and not self.is_diverged:
            # Executed again after a restart of the executor, with another result.
            effects += self._diverge((before, attest))
        if self.is_diverged:
            return effects + self._report_divergence(certificate)
        if before is not None:
            return effects + self.reconsider(order)
        return [*effects, Send(attest), *self._compare_others(attest), *self.reconsider(order)]

    def own(self, sequence: SequenceNumber) -> Attest | None:
        """What this replica stands by."""
        return None if self.is_diverged else self._own.get(sequence)

    def _compare_others(self, mine: Attest) -> Effects:
        box = self._boxes.get(mine.sequence)
        if box is None:
            return []
        return [
            Report(Fault(ReplicaId(sender), FaultCode.DIVERGED, (theirs, mine)))
            for sender, theirs in enumerate(box.attests)
            if theirs is not None and not _agree(theirs, mine)
        ]

    # Others --------------------------------------------------------------------------------------

    def on_attest(self, message: Attest, sender: ReplicaId, order: Order) -> Effects:
        if message.epoch != self._options.epoch:
            return [Report(Fault(sender, FaultCode.WRONG_EPOCH))]
        if sender == self._me and message.sequence in self._own:
            self._own[message.sequence] = message
        if message.sequence <= self.stable:
            return []
        self._newest[sender] = max(self._newest[sender], message.sequence)
        if message.sequence > self.stable + self._options.window:
            return self._on_far(message, sender, order)
        box = self._boxes.setdefault(message.sequence, Box(self._options.n))
        first = box.attests[sender]
        if first is not None:
            if _agree(first, message) or box.conflicts[sender]:
                return []
            box.conflicts[sender] = 1
            return [conflict(sender, sender, FaultCode.CONFLICTING_ATTESTATION, first, message)]
        box.attests[sender] = message
        effects: Effects = []
        mine = self._own.get(message.sequence)
        if mine is not None and sender != self._me and not _agree(message, mine):
            effects.append(Report(Fault(sender, FaultCode.DIVERGED, (message, mine))))
        self._aim(message.sequence, message.order_hash, order)
        return effects + self._try_stable(message.sequence, order)

    def _on_far(self, message: Attest, sender: ReplicaId, order: Order) -> Effects:
        far = self._far[sender]
        if sender != self._me and all(known.sequence != message.sequence for known in far):
            far.append(message)
            self._aim(message.sequence, message.order_hash, order)
        return []

    def _aim(self, sequence: SequenceNumber, order_hash: bytes, order: Order) -> None:
        """Section 11: w distinct peers at one height are a target to catch up to."""
        if sequence <= order.last_committed or (self.target is not None and sequence <= self.target.sequence):
            return
        if len(self._vouchers(sequence, order_hash)) >= self._thresholds.w:
            self.target = Target(sequence, order_hash)

    def _vouchers(self, sequence: SequenceNumber, order_hash: bytes) -> list[ReplicaId]:
        box = self._boxes.get(sequence)
        if box is not None:
            return [sender for sender in box.supporters(order_hash) if sender != self._me]
        return [
            ReplicaId(sender)
            for sender, far in enumerate(self._far)
            if any(known.sequence == sequence and known.order_hash == order_hash for known in far)
        ]

    def sources(self, sequence: SequenceNumber) -> list[ReplicaId]:
        """Peers that say they executed `sequence`, ascending."""
        peers = [ReplicaId(peer) for peer in range(self._options.n) if peer != self._me]
        return [peer for peer in peers if self._newest[peer] >= sequence] or peers

    def attested_height(self) -> SequenceNumber:
        """A height that w peers say they have reached: of those f + 1 heights that f liars at the top, or
        fewer, leave for the highest common one of w correct peers, another at each call."""
        newest = sorted((self._newest[peer] for peer in range(self._options.n) if peer != self._me), reverse=True)
        w = self._thresholds.w
        heights = [height for height in dict.fromkeys(newest[w - 1 : 2 * w - 1]) if height]
        self._height_turn += 1
        return heights[self._height_turn % len(heights)] if heights else SequenceNumber(0)

    def ask_at(self, height: SequenceNumber) -> list[ReplicaId]:
        """Peers above `height` that have not said here what they executed at it."""
        box = self._boxes.get(height)
        silent: list[ReplicaId] = []
        for peer in range(self._options.n):
            if peer == self._me or self._newest[peer] <= height:
                continue
            known = box.attests[peer] is not None if box is not None else False
            if not known and all(attest.sequence != height for attest in self._far[peer]):
                silent.append(ReplicaId(peer))
        return silent

    # Stability -----------------------------------------------------------------------------------

    def reconsider(self, order: Order) -> Effects:
        """The prefix grew: checkpoints that were complete before it was may be stable now."""
        effects: Effects = []
        interval = self._options.checkpoint_interval
        last = min(order.last_committed, self.stable + self._options.window)
        for sequence in range(last - last % interval, self.stable, -interval):
            effects += self._try_stable(SequenceNumber(sequence), order)
        return effects

    def _may_become_stable(self, sequence: SequenceNumber, order: Order) -> bool:
        """At a multiple of K, with the prefix here, and no more than L blocks ahead of the own executor
        (their bodies stay in memory until it has them)."""
        return (
            sequence % self._options.checkpoint_interval == 0
            and self.stable < sequence <= order.last_committed
            and sequence <= order.last_executed + self._options.window
        )

    def _try_stable(self, sequence: SequenceNumber, order: Order) -> Effects:
        box = self._boxes.get(sequence)
        if box is None or box.checking or not self._may_become_stable(sequence, order):
            return []
        q = self._thresholds.q
        for attest in box.attests:
            if attest is None:
                continue
            supporters = box.supporters(attest.order_hash, attest.block_hash)
            if len(supporters) < q:
                continue
            trusted = [s for s in supporters if s == self._me or box.verified[s]]
            if len(trusted) >= q:
                return self._become_stable(attest, box, sorted(trusted[:q]), order)
            unchecked = [s for s in supporters if s not in trusted][: q - len(trusted)]
            box.checking = True
            checks = tuple(SignatureCheck(s, vote) for s in unchecked if (vote := box.attests[s]) is not None)
            purpose = AttestsPurpose(sequence, attest.order_hash, attest.block_hash, tuple(unchecked))
            return [Verify(purpose, checks)]
        return []

    def on_attests_verified(self, purpose: AttestsPurpose, flags: bytes, order: Order) -> Effects:
        box = self._boxes.get(purpose.sequence)
        if box is None:
            return []
        box.checking = False
        effects: Effects = []
        for sender, flag in zip(purpose.senders, flags, strict=True):
            (box.verified if flag else box.rejected)[sender] = 1
            if not flag:
                effects.append(Report(Fault(sender, FaultCode.BAD_SIGNATURE)))
        return effects + self._try_stable(purpose.sequence, order)

    def _become_stable(self, attest: Attest, box: Box, signers: list[ReplicaId], order: Order) -> Effects:
        signatures = tuple((s, vote.signature) for s in signers if (vote := box.attests[s]) is not None)
        certificate = AttestCertificate(
            self._options.epoch, attest.sequence, attest.order_hash, attest.block_hash, signatures
        )
        return self._install(certificate, order)

    def _install(self, certificate: AttestCertificate, order: Order) -> Effects:
        if order.hash_of(certificate.sequence) not in (None, certificate.order_hash):
            return self._diverge((certificate,))
        self.recover_stable(certificate)
        effects: Effects = [Write(Stable(certificate)), Stabilised(certificate.sequence)]
        mine = self._own.get(certificate.sequence)
        if mine is not None:
            effects += self._compare(mine, certificate)
        return effects + self.reconsider(order)

    def _compare(self, mine: Attest, certificate: AttestCertificate) -> Effects:
        """The own block against the certified one: refuted, or, after a repair, right again."""
        if mine.block_hash == certificate.block_hash:
            if certificate.sequence >= self._refuted:
                self.is_diverged = self._is_divergence_reported = False
            return []
        if certificate.sequence <= self._refuted:
            return []
        # The order is right and stays right; the own state is not. Agreement goes on, attesting stops.
        self._refuted = certificate.sequence
        signatures = certificate.signatures[: self._thresholds.w]
        return [*self._diverge((certificate,)), Write(Stable(replace(certificate, signatures=signatures)))]

    def _diverge(self, evidence: tuple[object, ...]) -> Effects:
        self.is_diverged = True
        return self._report_divergence(*evidence)

    def _report_divergence(self, *evidence: object) -> Effects:
        """Once in each run, so that its operator hears of it after a restart too."""
        if self._is_divergence_reported:
            return []
        self._is_divergence_reported = True
        return [Report(Fault(self._me, FaultCode.DIVERGED, tuple(item for item in evidence if item is not None)))]

    def recover_refuted(self, certificate: AttestCertificate) -> bool:
        """Whether this logged certificate says that the own block was refuted, and not that it is stable."""
        if len(certificate.signatures) >= self._thresholds.q:
            # What is L below a new watermark had been executed and compared: not refuted, it was right again.
            compared = certificate.sequence - self._options.window
            if any(self._refuted < known <= compared for known in self._certified):
                self.is_diverged = False
            return False
        self.is_diverged, self._refuted = True, max(self._refuted, certificate.sequence)
        return True

    def recover_stable(self, certificate: AttestCertificate) -> None:
        """Move the watermark: drop what is below it, take in what the window now reaches."""
        old = self.stable
        self.stable, self.certificate = certificate.sequence, certificate
        self._certified[self.stable] = certificate
        while (oldest := next(iter(self._certified))) <= self.stable - 2 * self._options.window:
            del self._certified[oldest]
        for sequence in range(old + 1, self.stable + 1):
            self._boxes.pop(SequenceNumber(sequence), None)
        top = self.stable + self._options.window
        for sender, far in enumerate(self._far):
            for attest in [known for known in far if known.sequence <= top]:
                far.remove(attest)
                if attest.sequence > self.stable:
                    box = self._boxes.setdefault(attest.sequence, Box(self._options.n))
                    box.attests[sender] = box.attests[sender] or attest

    # Certificates from peers ---------------------------------------------------------------------

    def on_certificate(self, certificate: AttestCertificate, sender: ReplicaId, order: Order) -> Effects:
        """A peer proves a stable height: useful to one whose peers' attestations were lost."""
        if certificate.epoch != self._options.epoch:
            return [Report(Fault(sender, FaultCode.WRONG_EPOCH))]
        signers = [signer for signer, _ in certificate.signatures]
        if signers != sorted(dict.fromkeys(signers)) or any(not 0 <= s < self._options.n for s in signers):
            return [Report(Fault(sender, FaultCode.BAD_BYTES))]
        is_news = certificate.sequence > self.stable and (
            certificate.sequence <= order.last_committed
            or self.target is None
            or certificate.sequence > self.target.sequence
        )
        if not is_news or len(signers) < self._thresholds.w or self._checking_certificate[sender]:
            return []
        self._checking_certificate[sender] = True
        checks = tuple(
            SignatureCheck(
                signer,
                Attest(
                    certificate.epoch, certificate.sequence, certificate.order_hash, certificate.block_hash, signature
                ),
            )
            for signer, signature in certificate.signatures
        )
        return [Verify(CertificatePurpose(certificate, sender), checks)]

    def on_certificate_verified(self, purpose: CertificatePurpose, flags: bytes, order: Order) -> Effects:
        certificate = purpose.certificate
        self._checking_certificate[purpose.sender] = False
        if 0 in flags:
            return [Report(Fault(purpose.sender, FaultCode.BAD_SIGNATURE))]
        if len(flags) >= self._thresholds.q and self._may_become_stable(certificate.sequence, order):
            return self._install(certificate, order)
        is_ahead = self.target is None or certificate.sequence > self.target.sequence
        if certificate.sequence > order.last_committed and is_ahead:
            self.target = Target(certificate.sequence, certificate.order_hash)
        return []


def _agree(first: Attest, second: Attest) -> bool:
    return first.order_hash == second.order_hash and first.block_hash == second.block_hash
