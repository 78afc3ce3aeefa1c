"""What the core asks to be made durable, as values. `nodes.wire` gives each its bytes.

The write-ahead log is the truth after a crash: `Replica.recover` rebuilds the core from these,
in order. The database is only a cache of executing them.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodes.core.messages import AttestCertificate, OrderedBatch, PrepareCertificate, PrePrepare
from nodes.core.types import Mode, SequenceNumber, View


@dataclass(frozen=True, slots=True)
class Accepted:
    """A proposal this replica accepted (or, as primary, is about to send), body included."""

    proposal: PrePrepare


@dataclass(frozen=True, slots=True)
class Prepared:
    certificate: PrepareCertificate


@dataclass(frozen=True, slots=True)
class Adopted:
    """A batch taken over from peers on w attestations, not committed by this replica itself."""

    block: OrderedBatch


@dataclass(frozen=True, slots=True)
class Decided:
    sequence: SequenceNumber
    digest: bytes
    order_hash: bytes


@dataclass(frozen=True, slots=True)
class Stable:
    """q attestations: the new low watermark."""

    certificate: AttestCertificate


@dataclass(frozen=True, slots=True)
class ViewEntered:
    view: View
    mode: Mode
    new_view: bytes
    """The whole NEW-VIEW message of a NORMAL view above 0, else empty."""
    reserve: SequenceNumber


Record = Accepted | Prepared | Adopted | Decided | Stable | ViewEntered
