"""View change, recovery and evidence messages to payload bytes and back (protocol.md 12, 15, 20).

A VIEWCHANGE payload is a body and a signature over its hash; a NEWVIEW contains such payloads whole.
What is decoded is consistent in itself; whether certificates suffice is judged with their thresholds.
"""

from __future__ import annotations

from nodes.block import HEADER_BYTES, BlockHeader
from nodes.core.messages import (
    AttestCertificate,
    Evidence,
    Hello,
    HelloAnswer,
    NewView,
    PrepareCertificate,
    ViewChange,
    Wish,
)
from nodes.core.types import SequenceNumber, View
from nodes.wire.error import WireCode, WireError
from nodes.wire.format import NONCE_BYTES, NUMBER_MAX, SIGNATURE_BYTES, Domain
from nodes.wire.parts import (
    Reader,
    Writer,
    boolean,
    check_epoch,
    number,
    read_prepare_certificate,
    read_signatures,
    replica_id,
    write_prepare_certificate,
    write_signatures,
)


def decode_wish(domain: Domain, reader: Reader) -> Wish:
    view, executed, reason = View(number(reader)), SequenceNumber(number(reader)), reader.u8()
    return Wish(domain.epoch, view, executed, reason, reader.fixed(SIGNATURE_BYTES))


def encode_wish(message: Wish) -> bytes:
    writer = Writer().u64(message.view).u64(message.last_executed).u8(message.reason)
    return writer.fixed(message.signature, SIGNATURE_BYTES).finish()


def decode_view_change(domain: Domain, reader: Reader) -> ViewChange:
    view, replica, incarnation = View(number(reader)), replica_id(domain, reader), number(reader)
    header = reader.fixed(HEADER_BYTES) if boolean(reader) else b""
    base = _read_base(domain, header, reader) if header else None
    floor = base.sequence if base else 0
    count = reader.u16()
    if count > domain.window:
        raise ValueError(f"{count} certificates in a window of {domain.window}")
    certificates: list[PrepareCertificate] = []
    for _ in range(count):
        certificate = read_prepare_certificate(domain, reader)
        if not floor < certificate.batch.sequence:
            raise ValueError("certificates are not ascending above the base")
        if certificate.view >= view:
            raise ValueError("a certificate of the wished view or a later one")
        floor = certificate.batch.sequence
        certificates.append(certificate)
    signature = reader.fixed(SIGNATURE_BYTES)
    return ViewChange(domain.epoch, view, replica, incarnation, header, base, tuple(certificates), signature)


def _read_base(domain: Domain, header: bytes, reader: Reader) -> AttestCertificate:
    block = BlockHeader.unpack(header)
    if block.cluster_id != domain.cluster_id:
        raise WireError(WireCode.WRONG_CLUSTER, "a base block of another cluster")
    if block.epoch != domain.epoch:
        raise WireError(WireCode.WRONG_EPOCH, f"a base block of epoch {block.epoch}")
    if not 1 <= block.sequence <= NUMBER_MAX:
        raise ValueError(f"a base at {block.sequence}")
    signatures = read_signatures(domain, reader)
    return AttestCertificate(domain.epoch, SequenceNumber(block.sequence), block.order_hash, block.hash, signatures)


def view_change_body(domain: Domain, message: ViewChange) -> bytes:
    """What the sender signs the hash of. ValueError when the base is not that of its header."""
    check_epoch(domain, message.epoch)
    writer = Writer().u64(message.view).u16(message.replica).u64(message.incarnation)
    if message.base is None:
        if message.base_header:
            raise ValueError("a base block without its certificate")
        writer.u8(0)
    else:
        block = BlockHeader.unpack(message.base_header)
        base = message.base
        if (block.sequence, block.order_hash, block.hash) != (base.sequence, base.order_hash, base.block_hash):
            raise ValueError("the base's certificate is not about its block")
        writer.u8(1).fixed(message.base_header, HEADER_BYTES)
        write_signatures(writer, base.signatures)
    writer.u16(len(message.certificates))
    for certificate in message.certificates:
        write_prepare_certificate(writer, certificate)
    return writer.finish()


def encode_view_change(domain: Domain, message: ViewChange) -> bytes:
    if len(message.signature) != SIGNATURE_BYTES:
        raise ValueError("an unsigned VIEWCHANGE")
    return view_change_body(domain, message) + message.signature


def decode_new_view(domain: Domain, reader: Reader) -> NewView:
    view, count = View(number(reader)), reader.u8()
    if count > domain.n:
        raise ValueError(f"{count} view changes of {domain.n} members")
    view_changes: list[ViewChange] = []
    for _ in range(count):
        payload = Reader(reader.variable(domain.view_change_bytes_max))
        message = decode_view_change(domain, payload)
        payload.finish()
        if message.view != view:
            raise ValueError(f"a view change to {message.view} in a new view {view}")
        if view_changes and message.replica <= view_changes[-1].replica:
            raise ValueError("view changes are not of distinct replicas, ascending")
        view_changes.append(message)
    proposals = reader.u16()
    if proposals > domain.window:
        raise ValueError(f"{proposals} proposals in a window of {domain.window}")
    signatures = tuple(reader.fixed(SIGNATURE_BYTES) for _ in range(proposals))
    return NewView(domain.epoch, view, tuple(view_changes), signatures, reader.fixed(SIGNATURE_BYTES))


def new_view_body(domain: Domain, message: NewView) -> bytes:
    """What the new primary signs the hash of."""
    check_epoch(domain, message.epoch)
    writer = Writer().u64(message.view).u8(len(message.view_changes))
    for view_change in message.view_changes:
        writer.variable(encode_view_change(domain, view_change), domain.view_change_bytes_max)
    writer.u16(len(message.proposal_signatures))
    for signature in message.proposal_signatures:
        writer.fixed(signature, SIGNATURE_BYTES)
    return writer.finish()


def encode_new_view(domain: Domain, message: NewView) -> bytes:
    if len(message.signature) != SIGNATURE_BYTES:
        raise ValueError("an unsigned NEWVIEW")
    return new_view_body(domain, message) + message.signature


def decode_hello(domain: Domain, reader: Reader) -> Hello:
    replica, nonce, wal_nonce = replica_id(domain, reader), reader.fixed(NONCE_BYTES), reader.fixed(NONCE_BYTES)
    return Hello(replica, nonce, wal_nonce, number(reader), reader.fixed(SIGNATURE_BYTES))


def encode_hello(message: Hello) -> bytes:
    writer = Writer().u16(message.replica).fixed(message.nonce, NONCE_BYTES).fixed(message.wal_nonce, NONCE_BYTES)
    return writer.u64(message.incarnation).fixed(message.signature, SIGNATURE_BYTES).finish()


def decode_hello_answer(domain: Domain, reader: Reader) -> HelloAnswer:
    replica, nonce, body = (
        replica_id(domain, reader),
        reader.fixed(NONCE_BYTES),
        reader.variable(domain.answer_bytes_max),
    )
    return HelloAnswer(replica, nonce, body, reader.fixed(SIGNATURE_BYTES))


def hello_answer_body(domain: Domain, message: HelloAnswer) -> bytes:
    """The part whose hash is signed: the asker's nonce is in it, so that an old answer is no answer."""
    return Writer().fixed(message.nonce, NONCE_BYTES).variable(message.body, domain.answer_bytes_max).finish()


def encode_hello_answer(domain: Domain, message: HelloAnswer) -> bytes:
    if len(message.signature) != SIGNATURE_BYTES:
        raise ValueError("an unsigned HELLO answer")
    return Writer().u16(message.replica).finish() + hello_answer_body(domain, message) + message.signature


def decode_evidence(domain: Domain, reader: Reader) -> Evidence:
    return Evidence(reader.u8(), reader.variable(domain.answer_bytes_max))


def encode_evidence(domain: Domain, message: Evidence) -> bytes:
    return Writer().u8(message.kind).variable(message.body, domain.answer_bytes_max).finish()
