"""A snapshot of a core for people and tests. Local knowledge, unsigned, proves nothing."""

from __future__ import annotations

from dataclasses import dataclass

from nodes.core.types import Mode, ReplicaId, SequenceNumber, View


@dataclass(frozen=True, slots=True)
class CoreStatus:
    replica: ReplicaId
    view: View
    mode: Mode
    primary: ReplicaId
    stable: SequenceNumber
    last_committed: SequenceNumber
    last_executed: SequenceNumber
    order_hash: bytes
    """At `last_committed`."""
    next_sequence: SequenceNumber
    """What this replica would propose next, if it is the primary."""
    pool_count: int
    ready_count: int
    is_catching_up: bool
    is_diverged: bool
    """A quorum certified another block than this replica executed; it no longer attests."""
    executor_known: bool
