"""What a core is told when it is made. Consensus parameters and local tuning, in that order.

The first group is hashed into the cluster configuration and equal on every member; the second may
differ from replica to replica without harm to safety. Defaults: docs/protocol.md section 22.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodes.core.types import ReplicaId

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreOptions:
    n: int
    me: ReplicaId
    cluster_id: bytes
    """16 bytes."""
    epoch: int
    config_hash: bytes
    """32 bytes: order hash and block hash of sequence 0."""

    window: int = 256
    """L: votes are taken for sequences in (stable, stable + window]."""
    checkpoint_interval: int = 16
    """K: every K-th sequence may become stable."""
    validity_max_us: int = 600_000_000
    batch_bytes_max: int = MIB
    batch_requests_max: int = 1024

    pipeline: int = 2
    """W: proposals of this primary that may be uncommitted at once, 1..8."""
    execution_lag: int = 6
    """E_LAG: how many committed blocks the own executor may be behind before the primary pauses."""
    sync_prepare: bool = True
    """Make Accepted durable before the vote it causes is sent. False needs the fence of section 15."""
    clock_future_us: int = 250_000
    clock_past_us: int = 1_000_000
    request_timeout_us: int = 2_000_000
    """T_req; half of it bounds how long a proposal from the future is held."""
    forward_after_us: int = 800_000
    """T_FWD: a pending request that no proposal named for this long is relayed."""

    batch_next: int = 24
    """N_NEXT: with a block in flight, this many requests start the next one."""
    batch_requests_min: int = 16
    execution_target_us: int = 40_000
    """T_EXEC: a batch should not take the executor longer than this."""
    batch_delay_min_us: int = 1_000
    batch_delay_max_us: int = 10_000
    """Bounds of D, the age at which a request waits no longer for company."""
    block_cost_us: int = 500
    """Fixed processor time of one block on this host; four times that (at most 10 ms) separate idle blocks."""

    status_interval_us: int = 250_000
    status_missing_us: int = 50_000
    status_idle_us: int = 1_000_000
    status_messages_per_s: int = 200
    status_bytes_per_s: int = 4 * MIB
    fetch_grace_us: int = 50_000
    """How long ordinary votes may still win before a block attested by others is fetched."""
    fetch_timeout_us: int = 500_000

    pool_requests_max: int = 20_000
    pool_bytes_max: int = 64 * MIB
    client_requests_max: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.me < self.n:
            raise ValueError("a replica id lies in 0..n-1")
        if not 1 <= self.pipeline <= 8:
            raise ValueError("the pipeline holds 1 to 8 proposals")
        if self.window < 8 * self.checkpoint_interval:
            raise ValueError("the window spans at least 8 checkpoint intervals")
        if len(self.cluster_id) != 16 or len(self.config_hash) != 32:
            raise ValueError("cluster_id has 16 bytes and config_hash 32")
