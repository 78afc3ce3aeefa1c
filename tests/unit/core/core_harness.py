"""One real core under test, and the other members as keys that sign whatever a test wants said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from simulated_members import GENESIS_US, Verifier, cluster_of, key_of, request_of

from nodes.core.messages import Attest, AttestCertificate, Commit, OrderedBatch, PeerMessage, Prepare, PrePrepare
from nodes.core.options import CoreOptions
from nodes.core.order import next_order_hash
from nodes.core.proposal import build_batch
from nodes.core.ready import Check, Execute, Outgoing, Ready, Serve
from nodes.core.records import Record
from nodes.core.replica import Replica
from nodes.core.types import BatchKind, Fault, FaultCode, Lsn, Now, ReplicaId, Request, SequenceNumber, View
from nodes.wire import Wire

Message = TypeVar("Message", bound=PeerMessage)
R = ReplicaId
S = SequenceNumber
V0 = View(0)
SIGNED = (PrePrepare, Prepare, Commit, Attest)


class Bench:
    """Drives a core by hand. `settle` does what a loop would; `ready` only looks."""

    def __init__(
        self, me: int = 1, n: int = 4, records: Iterable[Record] = (), *, boot: bool = True, **options: object
    ):
        self.cluster = cluster_of(n)
        self.wire = Wire(self.cluster)
        self.verifier = Verifier(self.wire)
        self.options = CoreOptions(
            n=n,
            me=R(me),
            cluster_id=self.cluster.cluster_id,
            epoch=0,
            config_hash=self.cluster.config_hash,
            **options,  # type: ignore[arg-type]
        )
        self.core = Replica(self.options, records)
        self.us = 1_000_000
        self.wall_us = GENESIS_US + 1_000_000
        self.records: list[Record] = []
        self.sent: list[Outgoing] = []
        self.faults: list[Fault] = []
        self.checks: list[Check] = []
        self.execute: list[Execute] = []
        self.serve: list[Serve] = []
        self._waiting: list[Outgoing] = []
        self._durable = Lsn(0)
        if boot:
            self.core.executed_through(S(0), self.cluster.config_hash, None)

    @property
    def me(self) -> ReplicaId:
        return self.options.me

    @property
    def now(self) -> Now:
        return Now(self.us, self.wall_us)

    # The loop ------------------------------------------------------------------------------------

    def settle(self, *, persist: bool = True, verify: bool = True, loop: bool = True, execute: bool = True) -> None:
        """Obey the core until it wants nothing more, leaving undone what is switched off."""
        while not (ready := self.core.ready()).is_empty or (persist and self._durable < ready.lsn):
            self.records += ready.records
            self.faults += ready.faults
            self.serve += ready.serve
            self._waiting += ready.messages
            self.execute += ready.execute
            if persist:
                self._durable = ready.lsn
                self.core.persisted(ready.lsn)
            for check in ready.checks:
                self.checks.append(check)
                if verify:
                    self.core.verified(check.token, self.verifier.flags(check), self.now)
            self._release(loop=loop)
            if execute:
                self.run_executor()

    def _release(self, *, loop: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for outgoing in waiting:
            if outgoing.after > self._durable:
                self._waiting.append(outgoing)
                continue
            message = outgoing.message
            if isinstance(message, SIGNED) and not message.signature:
                message = self.wire.sign(message, key_of("consensus", self.me))
            self.sent.append(replace(outgoing, message=message))
            if loop and outgoing.to is None and isinstance(message, SIGNED):
                self.core.step(message, self.me, self.now)

    def run_executor(self) -> None:
        while self.execute and self.execute[0].after <= self._durable:
            block = self.execute.pop(0)
            self.core.executed(block.sequence, block_hash(block.order_hash), None, self.now)

    def step(self, message: PeerMessage, sender: int, **settle: bool) -> None:
        self.core.step(message, R(sender), self.now)
        self.settle(**settle)

    def pass_time(self, milliseconds: int, **settle: bool) -> None:
        """Let time pass, ticking every 10 ms."""
        end = self.us + 1000 * milliseconds
        while self.us < end:
            due = min(self.us + 10_000, end)
            self.wall_us += due - self.us
            self.us = due
            self.core.tick(self.now)
            self.settle(**settle)

    def ready(self) -> Ready:
        return self.core.ready()

    # What was said -------------------------------------------------------------------------------

    def said(self, kind: type[Message], to: int | None = -1) -> list[Message]:
        return [o.message for o in self.sent if isinstance(o.message, kind) and (to == -1 or o.to == to)]

    def recorded(self, kind: type) -> list[Record]:
        return [record for record in self.records if isinstance(record, kind)]

    def fault_codes(self, sender: int | None = None) -> list[FaultCode]:
        return [fault.code for fault in self.faults if sender is None or fault.sender == sender]

    def forget(self) -> None:
        self.records, self.sent, self.faults, self.checks, self.serve = [], [], [], [], []

    # What others say -----------------------------------------------------------------------------

    def request(self, client: int = 1, sequence: int = 1, operation: bytes = b"op", **fields: int) -> Request:
        valid_until_us = fields.pop("valid_until_us", self.wall_us + 60_000_000)
        return request_of(self.wire, client, sequence, valid_until_us, operation, **fields)

    def forged(self, request: Request) -> Request:
        """The same operation with a signature that does not hold."""
        return self.wire.parse_record(request.record[:-1] + bytes([request.record[-1] ^ 1]))

    def sign(self, message: Message, signer: int) -> Message:
        return self.wire.sign(message, key_of("consensus", signer))  # type: ignore[type-var]

    def proposal(
        self,
        sequence: int = 1,
        requests: Iterable[Request] | None = None,
        *,
        kind: BatchKind = BatchKind.NORMAL,
        timestamp_us: int | None = None,
        signer: int = 0,
        view: int = 0,
        proposer: int = 0,
    ) -> PrePrepare:
        if requests is None:
            requests = [self.request(sequence=sequence)] if kind is BatchKind.NORMAL else []
        stamp = self.wall_us if timestamp_us is None else timestamp_us
        options = replace(self.options, me=R(proposer))
        batch, body = build_batch(kind, S(sequence), stamp, tuple(requests), options)
        return self.sign(PrePrepare(0, View(view), batch, tuple(requests), body), signer)

    def prepare(self, proposal: PrePrepare, signer: int, view: int = 0) -> Prepare:
        return self.sign(Prepare(0, View(view), proposal.batch.sequence, proposal.batch.digest), signer)

    def commit(self, proposal: PrePrepare, signer: int, view: int = 0) -> Commit:
        return self.sign(Commit(0, View(view), proposal.batch.sequence, proposal.batch.digest), signer)

    def attest(self, sequence: int, order_hash: bytes, signer: int, block: bytes | None = None) -> Attest:
        return self.sign(Attest(0, S(sequence), order_hash, block or block_hash(order_hash)), signer)

    def certificate(self, sequence: int, order_hash: bytes, signers: Iterable[int]) -> AttestCertificate:
        attests = [(R(signer), self.attest(sequence, order_hash, signer).signature) for signer in signers]
        return AttestCertificate(0, S(sequence), order_hash, block_hash(order_hash), tuple(attests))

    def decide(self, proposal: PrePrepare) -> None:
        """Let the others bring `proposal` all the way."""
        others = [peer for peer in range(self.options.n) if peer != self.me]
        if self.me != 0:
            self.step(proposal, 0)
        for peer in others:
            if peer != 0:
                self.step(self.prepare(proposal, peer), peer)
        for peer in others:
            self.step(self.commit(proposal, peer), peer)

    def chain(self, proposals: Iterable[PrePrepare]) -> list[bytes]:
        """Order hashes after each of the consecutive proposals from sequence 1 on."""
        head = self.cluster.config_hash
        hashes = []
        for proposal in proposals:
            head = next_order_hash(head, proposal.batch.sequence, proposal.batch.digest)
            hashes.append(head)
        return hashes


def block_hash(order_hash: bytes) -> bytes:
    return bytes(byte ^ 0x5A for byte in order_hash)


def ordered(proposal: PrePrepare) -> OrderedBatch:
    return OrderedBatch(proposal.batch, proposal.requests, proposal.body)
