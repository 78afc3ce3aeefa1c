"""Agreement messages between replicas: PREPREPARE to FETCHED, and FORWARD, to payload bytes and back.

Every decoder is paired with its encoder; `nodes.wire.frame` adds headers, dispatches and refuses what is
left over. Deliberately elsewhere: view change, recovery and evidence (`nodes.wire.view_change`).
"""

from __future__ import annotations

from typing import assert_never

import fastpath
from nodes.core.messages import (
    Attest,
    AttestCertificate,
    Commit,
    FetchAttest,
    FetchBlocks,
    FetchBody,
    FetchedBlocks,
    FetchedBody,
    Forward,
    Prepare,
    PrePrepare,
    SlotStatus,
    Status,
)
from nodes.core.types import Mode, Request, SequenceNumber, View
from nodes.wire.error import WireCode, WireError
from nodes.wire.format import (
    BATCH_HEADER_BYTES,
    FETCHED_BLOCKS_MAX,
    FORWARD_REQUESTS_MAX,
    SIGNATURE_BYTES,
    STATUS_SLOTS_MAX,
    Domain,
)
from nodes.wire.parts import (
    Reader,
    Writer,
    boolean,
    number,
    read_attest_certificate,
    read_batch,
    read_body,
    read_ordered,
    sequence_number,
    write_attest_certificate,
    write_ordered,
)

FETCH_BLOCKS, FETCH_ATTEST, FETCH_BODY = 0, 1, 2
Fetch = FetchBlocks | FetchAttest | FetchBody
Fetched = FetchedBlocks | FetchedBody | AttestCertificate


def decode_preprepare(domain: Domain, reader: Reader) -> PrePrepare:
    view, sequence, digest = View(number(reader)), sequence_number(reader), reader.fixed(32)
    signature = reader.fixed(SIGNATURE_BYTES)
    batch = read_batch(domain, reader.fixed(BATCH_HEADER_BYTES))
    if batch.digest != digest or batch.sequence != sequence:
        raise WireError(WireCode.DIGEST_MISMATCH, f"the batch header is not that of digest {digest.hex()}")
    requests, body = read_body(domain, batch, reader)
    return PrePrepare(domain.epoch, view, batch, requests, body, signature)


def encode_preprepare(message: PrePrepare, signature: bytes) -> bytes:
    batch = message.batch
    writer = Writer().u64(message.view).u64(batch.sequence).fixed(batch.digest, 32).fixed(signature, SIGNATURE_BYTES)
    return writer.fixed(batch.header, BATCH_HEADER_BYTES).fixed(message.body, batch.body_length).finish()


def decode_prepare(domain: Domain, reader: Reader) -> Prepare:
    view, sequence = View(number(reader)), sequence_number(reader)
    return Prepare(domain.epoch, view, sequence, reader.fixed(32), reader.fixed(SIGNATURE_BYTES))


def decode_commit(domain: Domain, reader: Reader) -> Commit:
    view, sequence = View(number(reader)), sequence_number(reader)
    return Commit(domain.epoch, view, sequence, reader.fixed(32), reader.fixed(SIGNATURE_BYTES))


def encode_vote(message: Prepare | Commit) -> bytes:
    writer = Writer().u64(message.view).u64(message.sequence).fixed(message.digest, 32)
    return writer.fixed(message.signature, SIGNATURE_BYTES).finish()


def decode_attest(domain: Domain, reader: Reader) -> Attest:
    sequence, order_hash, block_hash = sequence_number(reader), reader.fixed(32), reader.fixed(32)
    return Attest(domain.epoch, sequence, order_hash, block_hash, reader.fixed(SIGNATURE_BYTES))


def encode_attest(message: Attest) -> bytes:
    writer = Writer().u64(message.sequence).fixed(message.order_hash, 32).fixed(message.block_hash, 32)
    return writer.fixed(message.signature, SIGNATURE_BYTES).finish()


def decode_status(domain: Domain, reader: Reader) -> Status:
    view, mode, wish = View(number(reader)), reader.u8(), View(number(reader))
    stable, committed, executed = (SequenceNumber(number(reader)) for _ in range(3))
    order_hash, count = reader.fixed(32), reader.u8()
    if mode > Mode.VIEW_CHANGE or count > STATUS_SLOTS_MAX:
        raise ValueError(f"mode {mode}, {count} slots")
    slots = tuple(_SLOTS[_slot_bits(reader)] for _ in range(count))
    clock_us, backlog, incarnation = number(reader), number(reader), number(reader)
    fenced = boolean(reader)
    return Status(
        epoch=domain.epoch,
        view=view,
        mode=Mode(mode),
        wish=wish,
        stable=stable,
        last_committed=committed,
        last_executed=executed,
        order_hash=order_hash,
        slots=slots,
        clock_us=clock_us,
        backlog=backlog,
        incarnation=incarnation,
        fenced=fenced,
        recovery_point=reader.u64(),
    )


def encode_status(message: Status) -> bytes:
    if len(message.slots) > STATUS_SLOTS_MAX:
        raise ValueError(f"a status of {len(message.slots)} slots")
    writer = Writer().u64(message.view).u8(message.mode).u64(message.wish).u64(message.stable)
    writer.u64(message.last_committed).u64(message.last_executed).fixed(message.order_hash, 32)
    writer.u8(len(message.slots))
    for slot in message.slots:
        writer.u8(slot.has_proposal | slot.prepared << 1 | slot.committed << 2)
    writer.u64(message.clock_us).u64(message.backlog).u64(message.incarnation)
    return writer.u8(message.fenced).u64(message.recovery_point).finish()


_SLOTS = tuple(SlotStatus(bool(bits & 1), bool(bits & 2), bool(bits & 4)) for bits in range(8))


def _slot_bits(reader: Reader) -> int:
    bits = reader.u8()
    if bits >= len(_SLOTS):
        raise ValueError(f"slot bits {bits}")
    return bits


def decode_fetch(domain: Domain, reader: Reader) -> Fetch:
    match reader.u8():
        case 0:
            first, last = sequence_number(reader), sequence_number(reader)
            if first > last:
                raise ValueError(f"blocks {first} to {last}")
            return FetchBlocks(domain.epoch, first, last)
        case 1:
            return FetchAttest(domain.epoch, sequence_number(reader))
        case 2:
            return FetchBody(domain.epoch, sequence_number(reader), reader.fixed(32))
        case kind:
            raise ValueError(f"fetch of kind {kind}")


def encode_fetch(message: Fetch) -> bytes:
    match message:
        case FetchBlocks():
            return Writer().u8(FETCH_BLOCKS).u64(message.first).u64(message.last).finish()
        case FetchAttest():
            return Writer().u8(FETCH_ATTEST).u64(message.sequence).finish()
        case FetchBody():
            return Writer().u8(FETCH_BODY).u64(message.sequence).fixed(message.digest, 32).finish()
        case _:
            assert_never(message)


def decode_fetched(domain: Domain, reader: Reader) -> Fetched:
    kind, count = reader.u8(), reader.u32()
    if kind == FETCH_BODY and count == 1:
        return FetchedBody(domain.epoch, read_ordered(domain, reader))
    if kind == FETCH_ATTEST and count == 1:
        return read_attest_certificate(domain, reader)
    if kind != FETCH_BLOCKS or not 1 <= count <= FETCHED_BLOCKS_MAX:
        raise ValueError(f"fetched of kind {kind} with {count} batches")
    blocks = [read_ordered(domain, reader)]
    for _ in range(count - 1):
        block = read_ordered(domain, reader)
        if block.batch.sequence != blocks[-1].batch.sequence + 1:
            raise ValueError("fetched batches are not consecutive")
        blocks.append(block)
    return FetchedBlocks(domain.epoch, tuple(blocks))


def encode_fetched(message: Fetched) -> bytes:
    match message:
        case AttestCertificate():
            certificate = Writer().u8(FETCH_ATTEST).u32(1)
            write_attest_certificate(certificate, message)
            return certificate.finish()
        case FetchedBlocks():
            kind, blocks = FETCH_BLOCKS, message.blocks
        case FetchedBody():
            kind, blocks = FETCH_BODY, (message.block,)
        case _:
            assert_never(message)
    if not 1 <= len(blocks) <= FETCHED_BLOCKS_MAX:
        raise ValueError(f"fetched with {len(blocks)} batches")
    writer = Writer().u8(kind).u32(len(blocks))
    for block in blocks:
        write_ordered(writer, block)
    return writer.finish()


def decode_forward(domain: Domain, reader: Reader) -> Forward:
    relay, count = boolean(reader), reader.u32()
    if not 1 <= count <= FORWARD_REQUESTS_MAX:
        raise ValueError(f"{count} requests are forwarded")
    records = reader.rest()
    parsed = fastpath.parse_requests(records, 0, len(records), domain.cluster_id, count, domain.operation_bytes_max)
    if len(parsed) != count:
        raise ValueError(f"{len(parsed)} requests instead of {count}")
    return Forward(domain.epoch, relay, tuple(map(Request._make, parsed)))


def encode_forward(message: Forward) -> bytes:
    if not 1 <= len(message.requests) <= FORWARD_REQUESTS_MAX:
        raise ValueError(f"{len(message.requests)} requests to forward")
    head = Writer().u8(message.relay).u32(len(message.requests)).finish()
    return head + b"".join(request.record for request in message.requests)
