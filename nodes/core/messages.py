"""The messages of the protocol as values. `nodes.wire` gives each its bytes and its signed bytes.

A message carries no sender: the sender is the identity that the channel authenticated, handed to
`Replica.step` beside it. `signature` is empty in a message that the core asks to be sent and full
in one that has been signed by the loop or read from the wire.

The view-change, recovery and evidence messages (docs/protocol.md sections 12, 15, 20) have their
formats here; the core answers them from the release that implements those sections on.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodes.core.types import Batch, Mode, ReplicaId, Request, SequenceNumber, View

Signature = bytes
Signatures = tuple[tuple[ReplicaId, Signature], ...]
"""Distinct signers, ascending by replica id."""


@dataclass(frozen=True, slots=True)
class PrePrepare:
    epoch: int
    view: View
    batch: Batch
    requests: tuple[Request, ...]
    body: bytes
    signature: Signature = b""


@dataclass(frozen=True, slots=True)
class Prepare:
    epoch: int
    view: View
    sequence: SequenceNumber
    digest: bytes
    signature: Signature = b""


@dataclass(frozen=True, slots=True)
class Commit:
    epoch: int
    view: View
    sequence: SequenceNumber
    digest: bytes
    signature: Signature = b""


@dataclass(frozen=True, slots=True)
class Attest:
    epoch: int
    sequence: SequenceNumber
    order_hash: bytes
    block_hash: bytes
    signature: Signature = b""


@dataclass(frozen=True, slots=True)
class PrepareCertificate:
    """q signatures over one (epoch, view, sequence, digest), the primary's among them. No bodies."""

    epoch: int
    view: View
    batch: Batch
    signatures: Signatures


@dataclass(frozen=True, slots=True)
class AttestCertificate:
    """At least w signatures over one (epoch, sequence, order_hash, block_hash).

    As a message (FETCHED, sub-kind 1) it proves a stable height to a peer that is behind it.
    """

    epoch: int
    sequence: SequenceNumber
    order_hash: bytes
    block_hash: bytes
    signatures: Signatures


@dataclass(frozen=True, slots=True)
class SlotStatus:
    has_proposal: bool
    prepared: bool
    committed: bool


@dataclass(frozen=True, slots=True)
class Status:
    """Sent to every peer on a timer; unsigned (the channel vouches for it). Drives retransmission."""

    epoch: int
    view: View
    mode: Mode
    wish: View
    stable: SequenceNumber
    last_committed: SequenceNumber
    """Where `slots` start. Below the sender's real height while it lacks a certificate that a peer
    waits for; the `committed` bits of `slots` give the rest (section 11)."""
    last_executed: SequenceNumber
    order_hash: bytes
    """order hash at `last_executed`."""
    slots: tuple[SlotStatus, ...]
    """At most 64, from last_committed + 1 on."""
    clock_us: int
    backlog: int
    incarnation: int
    fenced: bool
    recovery_point: int


@dataclass(frozen=True, slots=True)
class FetchBlocks:
    """Ask for the ordered batches `first`..`last` (both included)."""

    epoch: int
    first: SequenceNumber
    last: SequenceNumber


@dataclass(frozen=True, slots=True)
class FetchAttest:
    epoch: int
    sequence: SequenceNumber


@dataclass(frozen=True, slots=True)
class FetchBody:
    """Ask for the body of a proposed or certified batch by its digest."""

    epoch: int
    sequence: SequenceNumber
    digest: bytes


@dataclass(frozen=True, slots=True)
class OrderedBatch:
    batch: Batch
    requests: tuple[Request, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class FetchedBlocks:
    """Consecutive batches. Their digests chain to an order hash the receiver already trusts."""

    epoch: int
    blocks: tuple[OrderedBatch, ...]


@dataclass(frozen=True, slots=True)
class FetchedBody:
    epoch: int
    block: OrderedBatch


@dataclass(frozen=True, slots=True)
class Forward:
    """Requests relayed by a replica that verified their signatures."""

    epoch: int
    relay: bool
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    epoch: int
    view: View
    last_executed: SequenceNumber
    reason: int
    signature: Signature = b""


@dataclass(frozen=True, slots=True)
class ViewChange:
    epoch: int
    view: View
    replica: ReplicaId
    incarnation: int
    base_header: bytes
    """BLOCK header of the base, empty when the base is genesis."""
    base: AttestCertificate | None
    certificates: tuple[PrepareCertificate, ...]
    signature: Signature = b""


@dataclass(frozen=True, slots=True)
class NewView:
    epoch: int
    view: View
    view_changes: tuple[ViewChange, ...]
    proposal_signatures: tuple[Signature, ...]
    signature: Signature = b""


@dataclass(frozen=True, slots=True)
class Hello:
    replica: ReplicaId
    nonce: bytes
    wal_nonce: bytes
    incarnation: int
    signature: Signature = b""


@dataclass(frozen=True, slots=True)
class HelloAnswer:
    replica: ReplicaId
    nonce: bytes
    body: bytes
    signature: Signature = b""


@dataclass(frozen=True, slots=True)
class Evidence:
    kind: int
    body: bytes


PeerMessage = (
    PrePrepare
    | Prepare
    | Commit
    | Attest
    | AttestCertificate
    | Status
    | FetchBlocks
    | FetchAttest
    | FetchBody
    | FetchedBlocks
    | FetchedBody
    | Forward
    | Wish
    | ViewChange
    | NewView
    | Hello
    | HelloAnswer
    | Evidence
)

SignedMessage = PrePrepare | Prepare | Commit | Attest | Wish | ViewChange | NewView | Hello | HelloAnswer
"""Messages with a `signature` that `nodes.wire.sign` fills."""
