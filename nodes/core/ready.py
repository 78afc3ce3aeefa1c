"""`Ready`: everything the core wants done, with the order of persistence in the type.

The caller (`nodes.replica`, or the simulator) owes, for one Ready, in this order:

1. append `records` to the log, in order; call `Replica.persisted(lsn)` once the record number
   `lsn` and all before it are durable;
2. answer each of `checks` by `Replica.verified(token, flags, now)`;
3. for each of `messages`: wait until its `after` is durable, sign it if it has a signature field that
   is empty (a relayed proposal keeps the signature of its primary), send it; a broadcast PrePrepare,
   Prepare, Commit or Attest is also stepped back into the core as from itself (that is what makes it
   a vote of this run of the process);
4. hand each of `execute` to the executor, in order, once its `after` is durable; call
   `Replica.executed(...)` when the database has committed it;
5. serve `serve` from the block archive; count `faults`; call `Replica.tick` no later than `deadline_us`.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodes.core.messages import FetchAttest, FetchBlocks, OrderedBatch, PeerMessage, SignedMessage
from nodes.core.records import Record
from nodes.core.types import Fault, Lsn, ReplicaId, Request, SequenceNumber


@dataclass(frozen=True, slots=True)
class Outgoing:
    message: PeerMessage
    to: ReplicaId | None
    """None: every other member."""
    after: Lsn
    """Log record that must be durable before this is sent (0: none)."""


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """Is `message` signed by `signer`?"""

    signer: ReplicaId
    message: SignedMessage


@dataclass(frozen=True, slots=True)
class Check:
    """Signatures to verify; the answer is one flag an item, in order: signatures first, then requests."""

    token: int
    signatures: tuple[SignatureCheck, ...]
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Execute:
    sequence: SequenceNumber
    block: OrderedBatch
    order_hash: bytes
    after: Lsn


@dataclass(frozen=True, slots=True)
class Serve:
    """Send `to` what `request` names, from the archive: FetchedBlocks, or the Attest of an executed block.

    The attestation is over the order hash and block hash as they are stored, never recomputed. What is not
    in the archive is not answered.
    """

    to: ReplicaId
    request: FetchBlocks | FetchAttest


@dataclass(frozen=True, slots=True)
class Ready:
    records: tuple[Record, ...]
    lsn: Lsn
    """Number of the last record in `records`, or of the last record emitted before."""
    checks: tuple[Check, ...]
    messages: tuple[Outgoing, ...]
    execute: tuple[Execute, ...]
    serve: tuple[Serve, ...]
    faults: tuple[Fault, ...]
    deadline_us: int
    """Monotonic time of the next tick the core needs."""

    @property
    def is_empty(self) -> bool:
        return not (self.records or self.checks or self.messages or self.execute or self.serve or self.faults)
