"""Timeouts and bounds of a client. Every wait and every queue has its limit here."""

from __future__ import annotations

from dataclasses import dataclass

from nodes.client.session import OUTSTANDING_MAX


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """Defaults are for a bidding program; a gateway raises the bounds."""

    operation_timeout_ms: int = 30_000
    """After this without a proof: OutcomeUnknown."""
    query_timeout_ms: int = 5_000
    connect_timeout_ms: int = 10_000
    validity_ms: int = 60_000
    """An operation may be executed until this long after it was signed."""
    resend_first_ms: int = 1_500
    """T_c of protocol.md 3: the same bytes again, then at doubled intervals."""
    resend_max_ms: int = 12_000
    ask_leaf_after_ms: int = 30
    """Wait for the replica whose turn it is to send a result in full, before asking another."""
    query_retry_ms: int = 50
    """T_r of protocol.md 17, doubled with each further attempt."""
    query_attempts_max: int = 8
    outstanding_max: int = OUTSTANDING_MAX
    """Own operations in flight."""
    queue_max: int = 10_000
    """Own operations waiting for a place, and exchanges in flight of every kind."""
    subscribe_every_ms: int = 10_000
    """Replicas forget a subscription after 30 s."""
