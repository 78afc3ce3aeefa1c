"""The plain values of the replication core: identifiers, times, requests, batches.

Everything here is immutable and free of I/O. An operation is opaque: the core reads a request's
session fields and its digests, never what the operation says. Bytes become these values in
`nodes.wire` and nowhere else; what is here has already passed its length and limit checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, NewType

ReplicaId = NewType("ReplicaId", int)
"""Position of a member in the cluster configuration, 0..n-1."""

View = NewType("View", int)
SequenceNumber = NewType("SequenceNumber", int)
Lsn = NewType("Lsn", int)
"""Number of a log record, counted from 1 by the core in the order it emits them. 0: none."""


class Now(NamedTuple):
    """The two clocks of a step. Timers use `monotonic_us`; batch timestamps use `wall_us`."""

    monotonic_us: int
    wall_us: int


class Request(NamedTuple):
    """One signed request, parsed. `record` is its exact bytes, signature included."""

    leaf: bytes
    """32 bytes: identity of these very bytes, Merkle leaf of the batch, key of the verified cache."""
    digest: bytes
    """32 bytes: identity of the operation (the signature is not part of it)."""
    client: bytes
    """32 bytes: the Ed25519 public key embedded in the request."""
    session: int
    sequence: int
    floor: int
    valid_until_us: int
    kind: int
    record: bytes


class BatchKind(IntEnum):
    NORMAL = 0
    NULL = 1
    FENCE = 2
    TICK = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch header. `digest` is what replicas vote on; it does not depend on the view."""

    kind: BatchKind
    proposer: ReplicaId
    count: int
    epoch: int
    body_length: int
    sequence: SequenceNumber
    timestamp_us: int
    root: bytes
    digest: bytes
    header: bytes
    """The packed header (80 bytes) whose tagged SHA-256 is `digest`."""


class Mode(IntEnum):
    NORMAL = 0
    VIEW_CHANGE = 1


class FaultCode(IntEnum):
    """Misbehaviour of a peer, as a value: counted, kept as evidence where it is provable."""

    BAD_BYTES = 1
    BAD_SIGNATURE = 2
    CONFLICTING_PROPOSAL = 3
    CONFLICTING_VOTE = 4
    CONFLICTING_ATTESTATION = 5
    INVALID_BATCH = 6
    INVALID_REQUEST_SIGNATURE = 7
    DUPLICATE_REQUEST = 8
    BAD_TIMESTAMP = 9
    WRONG_EPOCH = 10
    NOT_PRIMARY = 11
    OUT_OF_WINDOW = 12
    BAD_CHAIN = 13
    UNKNOWN_TOKEN = 14
    DIVERGED = 15


@dataclass(frozen=True, slots=True)
class Fault:
    sender: ReplicaId
    code: FaultCode
    evidence: tuple[object, ...] = ()
    """Signed messages that prove it, empty when it cannot be proven to others."""
