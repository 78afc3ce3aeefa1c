"""What a part of the core wants done, as values. `nodes.core.replica` turns them into a `Ready`.

A part never calls another part: it returns effects, in order, and the replica numbers log records,
hands out check tokens and passes on what concerns a neighbour (`Proposed`, `Ordered`, `Stabilised`).

A purpose holds the very messages that are being checked: its answer is about these and no others,
whatever has taken their place since.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodes.core.messages import (
    Attest,
    AttestCertificate,
    Commit,
    FetchAttest,
    FetchBlocks,
    OrderedBatch,
    PeerMessage,
    Prepare,
    PrePrepare,
)
from nodes.core.ready import SignatureCheck
from nodes.core.records import Record
from nodes.core.types import Fault, FaultCode, ReplicaId, Request, SequenceNumber, View


@dataclass(frozen=True, slots=True)
class ProposalPurpose:
    """Is this candidate proposal signed by its primary, and are its requests by their clients?"""

    proposal: PrePrepare
    sender: ReplicaId
    with_requests: bool


@dataclass(frozen=True, slots=True)
class PreparesPurpose:
    view: View
    sequence: SequenceNumber
    votes: tuple[tuple[ReplicaId, Prepare], ...]


@dataclass(frozen=True, slots=True)
class AttestsPurpose:
    sequence: SequenceNumber
    order_hash: bytes
    block_hash: bytes
    senders: tuple[ReplicaId, ...]


@dataclass(frozen=True, slots=True)
class CertificatePurpose:
    certificate: AttestCertificate
    sender: ReplicaId


@dataclass(frozen=True, slots=True)
class ConflictPurpose:
    """Two statements of `signer` that exclude each other: proof if both are signed."""

    signer: ReplicaId
    sender: ReplicaId
    """Whose channel brought the second; to blame if its signature is bad."""
    code: FaultCode
    first: Prepare | Commit | Attest
    second: Prepare | Commit | Attest


@dataclass(frozen=True, slots=True)
class ForwardPurpose:
    sender: ReplicaId
    requests: tuple[Request, ...]


Purpose = ProposalPurpose | PreparesPurpose | AttestsPurpose | CertificatePurpose | ConflictPurpose | ForwardPurpose


@dataclass(frozen=True, slots=True)
class Write:
    record: Record


@dataclass(frozen=True, slots=True)
class Send:
    message: PeerMessage
    to: ReplicaId | None = None
    durable: bool = False
    """Only after the last record written so far is durable."""


@dataclass(frozen=True, slots=True)
class Verify:
    purpose: Purpose
    signatures: tuple[SignatureCheck, ...]
    requests: tuple[Request, ...] = ()


@dataclass(frozen=True, slots=True)
class HandOver:
    """Give a decided block to the executor once its Decided record is durable."""

    sequence: SequenceNumber
    block: OrderedBatch
    order_hash: bytes


@dataclass(frozen=True, slots=True)
class ServeArchive:
    to: ReplicaId
    request: FetchBlocks | FetchAttest


@dataclass(frozen=True, slots=True)
class Report:
    fault: Fault


@dataclass(frozen=True, slots=True)
class Proposed:
    """A proposal was accepted: its requests are no longer waiting for one."""

    sequence: SequenceNumber
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Ordered:
    """A batch joined the decided prefix."""

    sequence: SequenceNumber
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Stabilised:
    sequence: SequenceNumber


Effect = Write | Send | Verify | HandOver | ServeArchive | Report | Proposed | Ordered | Stabilised
Effects = list[Effect]


def conflict(
    signer: ReplicaId,
    sender: ReplicaId,
    code: FaultCode,
    first: Prepare | Commit | Attest,
    second: Prepare | Commit | Attest,
) -> Verify:
    return Verify(
        ConflictPurpose(signer, sender, code, first, second),
        (SignatureCheck(signer, first), SignatureCheck(signer, second)),
    )


def conflict_verified(purpose: ConflictPurpose, flags: bytes) -> Report:
    """A proof when both signatures hold, else only this replica's own knowledge of the sender."""
    if flags == b"\x01\x01":
        return Report(Fault(purpose.signer, purpose.code, (purpose.first, purpose.second)))
    return Report(Fault(purpose.sender, FaultCode.BAD_SIGNATURE))
