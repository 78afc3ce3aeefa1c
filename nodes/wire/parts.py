"""Parts that several messages and log records share: numbers, batches, signature lists, certificates.

Reading functions raise ValueError, or WireError where a code of its own helps; whoever calls a whole
decoder turns ValueErrors into WireErrors. What they return is within limits and consistent in itself.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import fastpath
from nodes.core.messages import AttestCertificate, OrderedBatch, PrepareCertificate, Signatures
from nodes.core.types import Batch, BatchKind, ReplicaId, Request, SequenceNumber, View
from nodes.wire.error import WireCode, WireError
from nodes.wire.format import BATCH_HEADER_BYTES, NUMBER_MAX, SIGNATURE_BYTES, Domain

Reader: TypeAlias = fastpath.Reader
Writer: TypeAlias = fastpath.Writer

_BATCH = struct.Struct("<BBHI16sIIQQ32s")
_EMPTY_ROOT = fastpath.merkle_root([])


def number(reader: Reader) -> int:
    """A u64 of at most 2^53-1."""
    value = reader.u64()
    if value > NUMBER_MAX:
        raise ValueError(f"{value} is over 2^53-1")
    return value


def sequence_number(reader: Reader) -> SequenceNumber:
    """A sequence number of a block: at least 1."""
    value = number(reader)
    if value == 0:
        raise ValueError("sequence number 0")
    return SequenceNumber(value)


def boolean(reader: Reader) -> bool:
    value = reader.u8()
    if value > 1:
        raise ValueError(f"{value} is no boolean")
    return value == 1


def replica_id(domain: Domain, reader: Reader) -> ReplicaId:
    value = reader.u16()
    if value >= domain.n:
        raise ValueError(f"replica {value} of {domain.n}")
    return ReplicaId(value)


def read_batch(domain: Domain, header: bytes) -> Batch:
    """A batch header of this cluster and epoch. Only the one NULL of a sequence number is a NULL."""
    version, kind, proposer, count, cluster_id, epoch, body_length, sequence, timestamp_us, root = _BATCH.unpack(header)
    if version != 1 or kind > BatchKind.TICK:
        raise ValueError(f"batch version {version}, kind {kind}")
    if cluster_id != domain.cluster_id:
        raise WireError(WireCode.WRONG_CLUSTER, "a batch of another cluster")
    if epoch != domain.epoch:
        raise WireError(WireCode.WRONG_EPOCH, f"a batch of epoch {epoch}")
    if proposer >= domain.n:
        raise ValueError(f"proposer {proposer} of {domain.n}")
    if count > domain.batch_requests_max or body_length > domain.batch_bytes_max:
        raise ValueError(f"a batch of {count} requests, {body_length} bytes")
    if not 1 <= sequence <= NUMBER_MAX or timestamp_us > NUMBER_MAX:
        raise ValueError(f"a batch at sequence number {sequence}, time {timestamp_us}")
    if kind == BatchKind.NULL and (count or body_length or timestamp_us or proposer or root != _EMPTY_ROOT):
        raise ValueError("a null batch that is not empty")
    return Batch(
        BatchKind(kind),
        ReplicaId(proposer),
        count,
        epoch,
        body_length,
        SequenceNumber(sequence),
        timestamp_us,
        root,
        fastpath.tagged_hash(b"BATCH", header),
        header,
    )


def read_body(domain: Domain, batch: Batch, reader: Reader) -> tuple[tuple[Request, ...], bytes]:
    """The requests and the bytes of the body; its length, count and Merkle root are the header's."""
    body = reader.fixed(batch.body_length)
    parsed = fastpath.parse_requests(
        body, 0, len(body), domain.cluster_id, domain.batch_requests_max, domain.operation_bytes_max
    )
    requests = tuple(map(Request._make, parsed))
    if len(requests) != batch.count:
        raise WireError(WireCode.DIGEST_MISMATCH, f"{len(requests)} requests, the header says {batch.count}")
    if fastpath.merkle_root([request.leaf for request in requests]) != batch.root:
        raise WireError(WireCode.DIGEST_MISMATCH, "the requests do not hash to the header's root")
    return requests, body


def read_ordered(domain: Domain, reader: Reader) -> OrderedBatch:
    batch = read_batch(domain, reader.fixed(BATCH_HEADER_BYTES))
    requests, body = read_body(domain, batch, reader)
    return OrderedBatch(batch, requests, body)


def write_ordered(writer: Writer, block: OrderedBatch) -> None:
    writer.fixed(block.batch.header, BATCH_HEADER_BYTES).fixed(block.body, block.batch.body_length)


def read_signatures(domain: Domain, reader: Reader) -> Signatures:
    """At most n, of distinct members, ascending."""
    count = reader.u8()
    if count > domain.n:
        raise ValueError(f"{count} signatures of {domain.n} members")
    signatures = []
    previous = -1
    for _ in range(count):
        signer = replica_id(domain, reader)
        if signer <= previous:
            raise ValueError("signers are not distinct and ascending")
        previous = signer
        signatures.append((signer, reader.fixed(SIGNATURE_BYTES)))
    return tuple(signatures)


def write_signatures(writer: Writer, signatures: Signatures) -> None:
    writer.u8(len(signatures))
    for signer, signature in signatures:
        writer.u16(signer).fixed(signature, SIGNATURE_BYTES)


def read_prepare_certificate(domain: Domain, reader: Reader) -> PrepareCertificate:
    view = View(number(reader))
    batch = read_batch(domain, reader.fixed(BATCH_HEADER_BYTES))
    return PrepareCertificate(domain.epoch, view, batch, read_signatures(domain, reader))


def write_prepare_certificate(writer: Writer, certificate: PrepareCertificate) -> None:
    writer.u64(certificate.view).fixed(certificate.batch.header, BATCH_HEADER_BYTES)
    write_signatures(writer, certificate.signatures)


def read_attest_certificate(domain: Domain, reader: Reader) -> AttestCertificate:
    sequence = sequence_number(reader)
    order_hash, block_hash = reader.fixed(32), reader.fixed(32)
    return AttestCertificate(domain.epoch, sequence, order_hash, block_hash, read_signatures(domain, reader))


def write_attest_certificate(writer: Writer, certificate: AttestCertificate) -> None:
    writer.u64(certificate.sequence).fixed(certificate.order_hash, 32).fixed(certificate.block_hash, 32)
    write_signatures(writer, certificate.signatures)


def check_epoch(domain: Domain, epoch: int) -> None:
    """ValueError: what is to be encoded belongs to another epoch, which is our own bug."""
    if epoch != domain.epoch:
        raise ValueError(f"a value of epoch {epoch} in epoch {domain.epoch}")
