"""Records of the write-ahead log to payload bytes and back; the log adds length, checksum and number.

What comes back from one's own disk is checked like a peer's bytes: a disk can lie too.
"""

from __future__ import annotations

from typing import assert_never

from nodes.core.messages import PrePrepare
from nodes.core.records import Accepted, Adopted, Decided, Prepared, Record, Stable, ViewEntered
from nodes.core.types import Mode, SequenceNumber, View
from nodes.wire import parts, peer
from nodes.wire.error import WireCode, WireError
from nodes.wire.format import BULK_FRAME_MAX, SIGNATURE_BYTES, Domain, RecordType
from nodes.wire.parts import Reader, Writer

_UNSIGNED = bytes(SIGNATURE_BYTES)


def encode_record(domain: Domain, record: Record) -> tuple[int, bytes]:
    """(type, payload). ValueError for a value that could not be read back."""
    match record:
        case Accepted(proposal):
            parts.check_epoch(domain, proposal.epoch)
            signature = proposal.signature or _UNSIGNED
            head = _epoch(domain).u8(bool(proposal.signature)).finish()
            return RecordType.ACCEPTED, head + peer.encode_preprepare(proposal, signature)
        case Prepared(certificate):
            parts.check_epoch(domain, certificate.epoch)
            writer = _epoch(domain)
            parts.write_prepare_certificate(writer, certificate)
            return RecordType.PREPARED, writer.finish()
        case Adopted(block):
            writer = _epoch(domain)
            parts.write_ordered(writer, block)
            return RecordType.ADOPTED, writer.finish()
        case Decided():
            writer = Writer().u64(record.sequence).fixed(record.digest, 32).fixed(record.order_hash, 32)
            return RecordType.DECIDED, writer.finish()
        case Stable(stable):
            parts.check_epoch(domain, stable.epoch)
            writer = _epoch(domain)
            parts.write_attest_certificate(writer, stable)
            return RecordType.STABLE, writer.finish()
        case ViewEntered():
            writer = Writer().u64(record.view).u8(record.mode).u64(record.reserve)
            return RecordType.VIEW_ENTERED, writer.variable(record.new_view, BULK_FRAME_MAX).finish()
        case _:
            assert_never(record)


def decode_record(domain: Domain, kind: int, payload: bytes) -> Record:
    """The record; WireError when these bytes are none."""
    if kind not in RecordType.__members__.values():
        raise WireError(WireCode.UNKNOWN_TYPE, f"log record type {kind}")
    try:
        reader = Reader(payload)
        record = _decode(domain, RecordType(kind), reader)
        reader.finish()
    except WireError:
        raise
    except ValueError as error:
        raise WireError(WireCode.MALFORMED, f"log record {RecordType(kind).name}: {error}") from error
    return record


def _decode(domain: Domain, kind: RecordType, reader: Reader) -> Record:
    match kind:
        case RecordType.ACCEPTED:
            _check_epoch(domain, reader)
            is_signed = parts.boolean(reader)
            return Accepted(_proposal(domain, reader, is_signed=is_signed))
        case RecordType.PREPARED:
            _check_epoch(domain, reader)
            return Prepared(parts.read_prepare_certificate(domain, reader))
        case RecordType.ADOPTED:
            _check_epoch(domain, reader)
            return Adopted(parts.read_ordered(domain, reader))
        case RecordType.DECIDED:
            return Decided(parts.sequence_number(reader), reader.fixed(32), reader.fixed(32))
        case RecordType.STABLE:
            _check_epoch(domain, reader)
            return Stable(parts.read_attest_certificate(domain, reader))
        case RecordType.VIEW_ENTERED:
            view, mode, reserve = View(parts.number(reader)), reader.u8(), SequenceNumber(parts.number(reader))
            if mode > Mode.VIEW_CHANGE:
                raise ValueError(f"mode {mode}")
            return ViewEntered(view, Mode(mode), reader.variable(BULK_FRAME_MAX), reserve)
        case _:
            assert_never(kind)


def _proposal(domain: Domain, reader: Reader, *, is_signed: bool) -> PrePrepare:
    proposal = peer.decode_preprepare(domain, reader)
    if is_signed:
        return proposal
    if proposal.signature != _UNSIGNED:
        raise ValueError("an unsigned proposal with a signature")
    return PrePrepare(domain.epoch, proposal.view, proposal.batch, proposal.requests, proposal.body)


def _epoch(domain: Domain) -> Writer:
    return Writer().u32(domain.epoch)


def _check_epoch(domain: Domain, reader: Reader) -> None:
    epoch = reader.u32()
    if epoch != domain.epoch:
        raise WireError(WireCode.WRONG_EPOCH, f"a log record of epoch {epoch}")
