"""Is the content of a proposal valid? Decided from its bytes alone (docs/protocol.md sections 3, 6).

Stateless on purpose: replicas are at different heights, so a rule that asked the database would let
correct replicas disagree and leave a slot stuck. Signatures and clocks are judged elsewhere; digests,
root and request encoding by `nodes.wire` before the message existed.
"""

from __future__ import annotations

from typing import assert_never

from fastpath import assemble_batch, has_duplicates
from nodes.core.messages import PrePrepare
from nodes.core.options import CoreOptions
from nodes.core.types import Batch, BatchKind, FaultCode, ReplicaId, Request, SequenceNumber


def content_fault(proposal: PrePrepare, primary: ReplicaId, options: CoreOptions) -> FaultCode | None:
    """The rule of section 6, steps 4 and 6, that a new proposal of `primary` breaks, if any."""
    batch, requests = proposal.batch, proposal.requests
    if batch.epoch != options.epoch:
        return FaultCode.WRONG_EPOCH
    if batch.count != len(requests) or batch.body_length != len(proposal.body):
        return FaultCode.INVALID_BATCH
    if batch.count > options.batch_requests_max or batch.body_length > options.batch_bytes_max:
        return FaultCode.INVALID_BATCH
    match batch.kind:
        case BatchKind.NORMAL:
            if not requests or batch.proposer != primary:
                return FaultCode.INVALID_BATCH
        case BatchKind.TICK:
            if requests or batch.proposer != primary:
                return FaultCode.INVALID_BATCH
        case BatchKind.NULL:
            if requests or batch.proposer != 0 or batch.timestamp_us != 0:
                return FaultCode.INVALID_BATCH
        case BatchKind.FENCE:
            # An epoch change; no member of a cluster of this version proposes one.
            return FaultCode.INVALID_BATCH
        case unknown:
            assert_never(unknown)
    if has_duplicates([request.digest for request in requests]):
        return FaultCode.DUPLICATE_REQUEST
    earliest, latest = batch.timestamp_us, batch.timestamp_us + options.validity_max_us
    if any(not earliest <= request.valid_until_us <= latest for request in requests):
        return FaultCode.BAD_TIMESTAMP
    return None


def build_batch(
    kind: BatchKind,
    sequence: SequenceNumber,
    timestamp_us: int,
    requests: tuple[Request, ...],
    options: CoreOptions,
) -> tuple[Batch, bytes]:
    """Header and body of a new proposal of this replica."""
    header, body, digest = assemble_batch(
        int(kind),
        options.me,
        options.cluster_id,
        options.epoch,
        sequence,
        timestamp_us,
        [request.record for request in requests],
        [request.leaf for request in requests],
    )
    batch = Batch(
        kind=kind,
        proposer=options.me,
        count=len(requests),
        epoch=options.epoch,
        body_length=len(body),
        sequence=sequence,
        timestamp_us=timestamp_us,
        root=header[48:80],
        digest=digest,
        header=header,
    )
    return batch, body
