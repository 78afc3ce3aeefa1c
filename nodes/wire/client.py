"""What clients and replicas say to each other, as values, and their bytes.

A client frame is one or more messages, like a peer's. Nothing here is trusted because it was decoded:
`nodes.wire.reads` and `Wire` verify shares, attestations and Merkle paths, receipts verify themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeVar, assert_never

import fastpath
from nodes.block import HEADER_BYTES as BLOCK_HEADER_BYTES
from nodes.block import BlockHeader, block_hash
from nodes.core.messages import Attest
from nodes.core.types import Request
from nodes.wire import peer
from nodes.wire.error import WireCode, WireError
from nodes.wire.format import (
    CLIENT_ANSWER_MAX,
    CLIENT_FRAME_MAX,
    HASH_BYTES,
    HEADER_BYTES,
    NONCE_BYTES,
    PATH_BYTES_MAX,
    QUERY_BYTES_MAX,
    SHARE_LEAVES_MAX,
    SIGNATURE_BYTES,
    STATUS_BYTES_MAX,
    Domain,
    MessageType,
)
from nodes.wire.frame import split_frame
from nodes.wire.parts import Reader, Writer, boolean, check_epoch, number, sequence_number


class BusyReason(IntEnum):
    RATE_LIMITED = 1
    OVERLOADED = 2
    BAD_SIGNATURE = 3
    MALFORMED = 4
    EXPIRED = 5
    CATCHING_UP = 6
    NOT_FOUND = 7


@dataclass(frozen=True, slots=True)
class Submit:
    """A signed request, for ordering."""

    request: Request


@dataclass(frozen=True, slots=True)
class ReceiptQuery:
    """Ask for the outcome of an operation by its digest (a timer's by `block.timer_digest`)."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Ask for an Attest of every block for the next 30 seconds."""


@dataclass(frozen=True, slots=True)
class Read:
    """A query. Signed when `caller` is given: only then are private data answered."""

    nonce: bytes
    want_result: bool
    query: bytes
    caller: bytes | None = None
    """Public key of the signer."""
    valid_until_us: int = 0
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """Ask for the replica's own view of itself."""


@dataclass(frozen=True, slots=True)
class BlockQuery:
    sequence: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The part of a reply that one replica sends in full: what happened, and its way to the results root."""

    status: int
    result: bytes
    path: bytes
    record: bytes = b""
    """The request's (or timer's) archived record, only in answer to a ReceiptQuery."""


@dataclass(frozen=True, slots=True)
class ReplyEntry:
    digest: bytes
    index: int
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One replica's attestation of a block, and the places of this connection's operations in it."""

    epoch: int
    sequence: int
    order_hash: bytes
    block_hash: bytes
    signature: bytes
    entries: tuple[ReplyEntry, ...]
    block_header: bytes = b""
    """277 bytes that hash to `block_hash`, or empty."""


@dataclass(frozen=True, slots=True)
class Busy:
    digest: bytes
    reason: BusyReason
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class ReadShare:
    """One replica's signed answer to a Read; `root signature` covers up to 256 shares."""

    nonce: bytes
    read_digest: bytes
    result_hash: bytes
    executed: int
    block_hash: bytes
    time_us: int
    leaf_index: int
    leaf_count: int
    path: bytes
    signature: bytes
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """Unsigned; `document` is JSON."""

    document: bytes


@dataclass(frozen=True, slots=True)
class BlockAnswer:
    """A block's header and this replica's signature over it, or neither when it has no such block."""

    sequence: int
    block_header: bytes = b""
    signature: bytes = b""


ClientRequest = Submit | ReceiptQuery | Subscribe | Read | StatusQuery | BlockQuery
ClientAnswer = Reply | Busy | Attest | ReadShare | StatusAnswer | BlockAnswer
Message = TypeVar("Message")


def decode_requests(domain: Domain, frame: bytes) -> list[ClientRequest]:
    """A client's frame, at a replica. WireError refuses the whole frame."""
    return _decode(domain, frame, CLIENT_FRAME_MAX, _REQUEST_DECODERS)


def decode_answers(domain: Domain, frame: bytes) -> list[ClientAnswer]:
    """A replica's frame, at a client. WireError refuses the whole frame."""
    return _decode(domain, frame, CLIENT_ANSWER_MAX, _ANSWER_DECODERS)


def _decode(
    domain: Domain, frame: bytes, frame_max: int, decoders: Mapping[int, Callable[[Domain, Reader], Message]]
) -> list[Message]:
    messages = []
    for kind, start, end in split_frame(domain, frame, frame_max):
        decoder = decoders.get(kind)
        if decoder is None:
            raise WireError(WireCode.UNKNOWN_TYPE, f"client message type {kind:#04x}")
        try:
            reader = Reader(frame, start, end)
            messages.append(decoder(domain, reader))
            reader.finish()
        except WireError:
            raise
        except ValueError as error:
            raise WireError(WireCode.MALFORMED, f"{MessageType(kind).name}: {error}") from error
    return messages


def encode(domain: Domain, message: ClientRequest | ClientAnswer) -> bytes:
    """One message with its header. ValueError for what the other side would refuse."""
    kind, payload = _encode_payload(domain, message)
    limit = CLIENT_FRAME_MAX if kind in _REQUEST_DECODERS else CLIENT_ANSWER_MAX
    if len(payload) > limit - HEADER_BYTES:
        raise ValueError(f"{kind.name} of {len(payload)} bytes does not fit a frame")
    return fastpath.pack_message(kind, domain.epoch, payload)


def _encode_payload(domain: Domain, message: ClientRequest | ClientAnswer) -> tuple[MessageType, bytes]:
    match message:
        case Submit():
            return MessageType.REQUEST, message.request.record
        case ReceiptQuery():
            return MessageType.RECEIPT_QUERY, Writer().fixed(message.digest, HASH_BYTES).finish()
        case Subscribe():
            return MessageType.SUBSCRIBE, b""
        case StatusQuery():
            return MessageType.STATUS_QUERY, b""
        case BlockQuery():
            return MessageType.BLOCK_QUERY, Writer().u64(message.sequence).finish()
        case Read():
            return MessageType.READ, _encode_read(message)
        case Reply():
            return MessageType.REPLY, _encode_reply(domain, message)
        case Busy():
            writer = Writer().fixed(message.digest, HASH_BYTES).u16(message.reason).u32(message.retry_after_ms)
            return MessageType.BUSY, writer.finish()
        case Attest():
            check_epoch(domain, message.epoch)
            return MessageType.ATTEST, peer.encode_attest(message)
        case ReadShare():
            return MessageType.READSHARE, _encode_share(domain, message)
        case StatusAnswer():
            return MessageType.STATUS_ANSWER, Writer().variable(message.document, STATUS_BYTES_MAX).finish()
        case BlockAnswer():
            return MessageType.BLOCK_ANSWER, _encode_block_answer(message)
        case _:
            assert_never(message)


def _decode_submit(domain: Domain, reader: Reader) -> Submit:
    record = reader.rest()
    parsed = fastpath.parse_requests(record, 0, len(record), domain.cluster_id, 1, domain.operation_bytes_max)
    if not parsed:
        raise ValueError("no request")
    return Submit(Request._make(parsed[0]))


def _decode_read(domain: Domain, reader: Reader) -> Read:
    nonce, want_result, is_signed = reader.fixed(NONCE_BYTES), boolean(reader), boolean(reader)
    caller, valid_until_us = reader.fixed(32), number(reader)
    query, signature = reader.variable(QUERY_BYTES_MAX), reader.fixed(SIGNATURE_BYTES)
    if is_signed:
        return Read(nonce, want_result, query, caller, valid_until_us, signature)
    if any(caller) or valid_until_us or any(signature):
        raise ValueError("an unsigned query that names a caller")
    return Read(nonce, want_result, query)


def _encode_read(message: Read) -> bytes:
    caller = message.caller
    if caller is None and (message.signature or message.valid_until_us):
        raise ValueError("a signed query names its caller")
    signature = message.signature if caller is not None else bytes(SIGNATURE_BYTES)
    writer = Writer().fixed(message.nonce, NONCE_BYTES).u8(message.want_result).u8(caller is not None)
    writer.fixed(caller or bytes(32), 32).u64(message.valid_until_us).variable(message.query, QUERY_BYTES_MAX)
    return writer.fixed(signature, SIGNATURE_BYTES).finish()


def _decode_reply(domain: Domain, reader: Reader) -> Reply:
    has_header, sequence = boolean(reader), sequence_number(reader)
    order_hash, hash_of_block = reader.fixed(HASH_BYTES), reader.fixed(HASH_BYTES)
    signature = reader.fixed(SIGNATURE_BYTES)
    header = reader.fixed(BLOCK_HEADER_BYTES) if has_header else b""
    if header:
        block = BlockHeader.unpack(header)
        if (block_hash(header), block.sequence, block.order_hash) != (hash_of_block, sequence, order_hash):
            raise WireError(WireCode.DIGEST_MISMATCH, "the block header is not that of the reply")
    count = reader.u32()
    if count > domain.block_results_max:
        raise ValueError(f"{count} entries in one block")
    entries = tuple(_read_entry(domain, reader) for _ in range(count))
    return Reply(domain.epoch, sequence, order_hash, hash_of_block, signature, entries, header)


def _read_entry(domain: Domain, reader: Reader) -> ReplyEntry:
    digest, index = reader.fixed(HASH_BYTES), reader.u32()
    if not boolean(reader):
        return ReplyEntry(digest, index)
    status, result = reader.u16(), reader.variable(domain.result_bytes_max)
    path, record = reader.variable(PATH_BYTES_MAX), reader.variable(domain.record_bytes_max)
    return ReplyEntry(digest, index, Outcome(status, result, path, record))


def _encode_reply(domain: Domain, message: Reply) -> bytes:
    check_epoch(domain, message.epoch)
    if len(message.entries) > domain.block_results_max:
        raise ValueError(f"{len(message.entries)} entries in one block")
    writer = Writer().u8(bool(message.block_header)).u64(message.sequence)
    writer.fixed(message.order_hash, HASH_BYTES).fixed(message.block_hash, HASH_BYTES)
    writer.fixed(message.signature, SIGNATURE_BYTES)
    if message.block_header:
        writer.fixed(message.block_header, BLOCK_HEADER_BYTES)
    writer.u32(len(message.entries))
    for entry in message.entries:
        outcome = entry.outcome
        writer.fixed(entry.digest, HASH_BYTES).u32(entry.index).u8(outcome is not None)
        if outcome is not None:
            writer.u16(outcome.status).variable(outcome.result, domain.result_bytes_max)
            writer.variable(outcome.path, PATH_BYTES_MAX).variable(outcome.record, domain.record_bytes_max)
    return writer.finish()


def _decode_busy(domain: Domain, reader: Reader) -> Busy:
    digest, reason, retry_after_ms = reader.fixed(HASH_BYTES), reader.u16(), reader.u32()
    return Busy(digest, BusyReason(reason), retry_after_ms)


def _decode_share(domain: Domain, reader: Reader) -> ReadShare:
    nonce = reader.fixed(NONCE_BYTES)
    read_digest, result_hash = reader.fixed(HASH_BYTES), reader.fixed(HASH_BYTES)
    executed, hash_of_block, time_us = number(reader), reader.fixed(HASH_BYTES), number(reader)
    leaf_index, leaf_count = reader.u32(), reader.u32()
    if not leaf_index < leaf_count <= SHARE_LEAVES_MAX:
        raise ValueError(f"leaf {leaf_index} of {leaf_count}")
    path, signature = reader.variable(PATH_BYTES_MAX), reader.fixed(SIGNATURE_BYTES)
    result = reader.variable(domain.result_bytes_max) if boolean(reader) else None
    return ReadShare(
        nonce,
        read_digest,
        result_hash,
        executed,
        hash_of_block,
        time_us,
        leaf_index,
        leaf_count,
        path,
        signature,
        result,
    )


def _encode_share(domain: Domain, message: ReadShare) -> bytes:
    writer = Writer().fixed(message.nonce, NONCE_BYTES).fixed(message.read_digest, HASH_BYTES)
    writer.fixed(message.result_hash, HASH_BYTES).u64(message.executed).fixed(message.block_hash, HASH_BYTES)
    writer.u64(message.time_us).u32(message.leaf_index).u32(message.leaf_count)
    writer.variable(message.path, PATH_BYTES_MAX).fixed(message.signature, SIGNATURE_BYTES)
    writer.u8(message.result is not None)
    if message.result is not None:
        writer.variable(message.result, domain.result_bytes_max)
    return writer.finish()


def _decode_block_answer(domain: Domain, reader: Reader) -> BlockAnswer:
    sequence = number(reader)
    if not boolean(reader):
        return BlockAnswer(sequence)
    header = reader.fixed(BLOCK_HEADER_BYTES)
    if BlockHeader.unpack(header).sequence != sequence:
        raise WireError(WireCode.DIGEST_MISMATCH, "the header of another block")
    return BlockAnswer(sequence, header, reader.fixed(SIGNATURE_BYTES))


def _encode_block_answer(message: BlockAnswer) -> bytes:
    writer = Writer().u64(message.sequence).u8(bool(message.block_header))
    if message.block_header:
        writer.fixed(message.block_header, BLOCK_HEADER_BYTES).fixed(message.signature, SIGNATURE_BYTES)
    return writer.finish()


_REQUEST_DECODERS: Mapping[int, Callable[[Domain, Reader], ClientRequest]] = {
    MessageType.REQUEST: _decode_submit,
    MessageType.RECEIPT_QUERY: lambda domain, reader: ReceiptQuery(reader.fixed(HASH_BYTES)),
    MessageType.SUBSCRIBE: lambda domain, reader: Subscribe(),
    MessageType.STATUS_QUERY: lambda domain, reader: StatusQuery(),
    MessageType.BLOCK_QUERY: lambda domain, reader: BlockQuery(number(reader)),
    MessageType.READ: _decode_read,
}
_ANSWER_DECODERS: Mapping[int, Callable[[Domain, Reader], ClientAnswer]] = {
    MessageType.REPLY: _decode_reply,
    MessageType.BUSY: _decode_busy,
    MessageType.ATTEST: peer.decode_attest,
    MessageType.READSHARE: _decode_share,
    MessageType.STATUS_ANSWER: lambda domain, reader: StatusAnswer(reader.variable(STATUS_BYTES_MAX)),
    MessageType.BLOCK_ANSWER: _decode_block_answer,
}
