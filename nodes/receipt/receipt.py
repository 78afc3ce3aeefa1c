"""`Receipt`: the proof that an operation was ordered and what came of it, for anyone who has the genesis.

A value holds well-formed fields; only `verify` says that they are true. It is pure: no clock, no network,
no state. The file is canonical JSON, so no byte of it can change unnoticed (docs/receipts.md). The name
of the status is deliberately elsewhere: it is derived from the number, never read from the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import fastpath
from nodes import canonical
from nodes.block import TIMER_ID_BYTES_MAX, BlockHeader, parse_timer_record, result_leaf, timer_digest
from nodes.config import ClusterConfig
from nodes.core.types import ReplicaId
from nodes.receipt.error import ReceiptCode, ReceiptError
from nodes.receipt.strict import malformed, parse_base64, parse_hex, parse_integer, parse_list, parse_object, to_base64
from nodes.wire import signed
from nodes.wire.requests import (
    OPERATION_BYTES_MAX,
    operation_of,
    parse_record,
    request_is_signed,
    signature_of,
    unsigned_record,
)

VERSION = 1
RECEIPT_BYTES_MAX = 256 * 1024
"""An operation and a result of 64 KiB each in base64, and everything else, fit."""
RESULT_BYTES_MAX = 65_536
PATH_LENGTH_MAX = 32
ATTESTATIONS_MAX = 64

_FIELDS = frozenset(
    {
        "version",
        "cluster",
        "epoch",
        "block",
        "index",
        "leaf_count",
        "status",
        "result",
        "path",
        "attestations",
    }
)
_OPERATION_FIELDS = frozenset(
    {"public_key", "session", "sequence", "floor", "valid_until_us", "operation", "signature"}
)
_BLOCK_HASHES = (
    "previous_block_hash",
    "order_hash",
    "digest",
    "results_root",
    "write_set_hash",
    "state_root",
    "config_hash",
)
_BLOCK_INTEGERS = ("sequence", "time_us", "state_sequence")
_BLOCK_FIELDS = frozenset({"version", "cluster", "epoch", "result_count", *_BLOCK_HASHES, *_BLOCK_INTEGERS})
_U16_MAX, _U32_MAX = 2**16 - 1, 2**32 - 1


@dataclass(frozen=True, slots=True)
class SignedOperation:
    """A request of kind 0 by its fields; version, kind, flags and cluster are implied."""

    public_key: bytes
    session: int
    sequence: int
    floor: int
    valid_until_us: int
    operation: bytes
    """The exact bytes the author signed."""
    signature: bytes

    def record(self, cluster_id: bytes) -> bytes:
        """The REQUEST record; ValueError for fields that no replica accepts."""
        unsigned = unsigned_record(
            cluster_id,
            self.public_key,
            self.session,
            self.sequence,
            self.floor,
            self.valid_until_us,
            self.operation,
        )
        return unsigned + self.signature


@dataclass(frozen=True, slots=True)
class FiredTimer:
    """A deadline that was due: nobody signed it, the state scheduled it."""

    id: bytes
    due_us: int


Subject = SignedOperation | FiredTimer


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a receipt proves, once it has been verified."""

    digest: bytes
    """Request digest, or timer digest: the receipt's name."""
    subject: Subject
    sequence: int
    """Block."""
    index: int
    """Place in the block."""
    time_us: int
    """Block time, microseconds since 1970."""
    status: int
    result: bytes
    block_hash: bytes
    signers: tuple[ReplicaId, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """One leaf of a block, its way to the block's hash, and a quorum of signatures over that."""

    cluster_id: bytes
    epoch: int
    subject: Subject
    header: BlockHeader
    index: int
    leaf_count: int
    status: int
    result: bytes
    path: bytes
    """Sibling hashes bottom-up, 32 bytes each."""
    attestations: tuple[tuple[ReplicaId, bytes], ...]
    """(replica, 64-byte signature), ascending by replica."""

    @staticmethod
    def build(
        *,
        header: BlockHeader,
        index: int,
        status: int,
        result: bytes,
        path: bytes,
        record: bytes,
        attestations: Iterable[tuple[int, bytes]],
    ) -> Receipt:
        """From what replicas answer. `record`: the request's, or `block.timer_record`. Nothing is verified.

        ValueError when the record is neither, or of a kind that receipts cannot express (only kind 0 can).
        """
        return Receipt(
            cluster_id=header.cluster_id,
            epoch=header.epoch,
            subject=_subject(record, header.cluster_id),
            header=header,
            index=index,
            leaf_count=header.result_count,
            status=status,
            result=result,
            path=path,
            attestations=tuple(sorted((ReplicaId(replica), signature) for replica, signature in attestations)),
        )

    @staticmethod
    def from_json(data: bytes) -> Receipt:
        """From the bytes of a receipt file. ReceiptError (malformed_receipt) unless they are canonical."""
        try:
            return from_document(canonical.decode(data, RECEIPT_BYTES_MAX))
        except canonical.CanonicalError as error:
            raise malformed("receipt", str(error)) from error

    def to_json(self) -> bytes:
        """The canonical bytes of the receipt file."""
        return canonical.encode(to_document(self))

    @property
    def digest(self) -> bytes:
        """Digest of the operation or timer; ValueError for fields that no replica accepts."""
        match self.subject:
            case FiredTimer(timer_id, due_us):
                return timer_digest(timer_id, due_us)
            case SignedOperation():
                return parse_record(self.subject.record(self.cluster_id), self.cluster_id).digest

    def verify(self, cluster: ClusterConfig) -> VerifiedReceipt:
        """Check every step against the genesis in hand. ReceiptError with the code of the first that fails."""
        header = self.header
        if not self.cluster_id == header.cluster_id == cluster.cluster_id:
            raise ReceiptError(ReceiptCode.WRONG_CLUSTER, f"of cluster {self.cluster_id.hex()}")
        if not self.epoch == header.epoch == cluster.epoch:
            raise ReceiptError(ReceiptCode.WRONG_EPOCH, f"of epoch {self.epoch}, the genesis is of {cluster.epoch}")
        digest = self._verified_subject(cluster)
        if self.leaf_count != header.result_count:
            raise ReceiptError(
                ReceiptCode.BAD_LEAF_COUNT, f"{self.leaf_count} leaves, the header has {header.result_count}"
            )
        try:
            leaf = result_leaf(header.sequence, self.index, digest, self.status, self.result)
            root = fastpath.merkle_fold(leaf, self.index, self.leaf_count, self.path)
        except ValueError as error:
            raise ReceiptError(ReceiptCode.BAD_MERKLE_PATH, str(error)) from error
        if root != header.results_root:
            raise ReceiptError(ReceiptCode.BAD_MERKLE_PATH, "the path does not lead to the block's results root")
        block_hash = header.hash
        signers = self._verified_signers(cluster, block_hash)
        return VerifiedReceipt(
            digest=digest,
            subject=self.subject,
            sequence=header.sequence,
            index=self.index,
            time_us=header.time_us,
            status=self.status,
            result=self.result,
            block_hash=block_hash,
            signers=signers,
        )

    def _verified_subject(self, cluster: ClusterConfig) -> bytes:
        if isinstance(self.subject, FiredTimer):
            return timer_digest(self.subject.id, self.subject.due_us)
        try:
            record = self.subject.record(cluster.cluster_id)
            request = parse_record(record, cluster.cluster_id, cluster.parameters.operation_bytes_max)
        except ValueError as error:
            raise ReceiptError(ReceiptCode.MALFORMED_RECEIPT, f"operation: {error}") from error
        if not request_is_signed(record, cluster.cluster_id):
            raise ReceiptError(ReceiptCode.BAD_AUTHOR_SIGNATURE, f"not signed by {request.client.hex()}")
        return request.digest

    def _verified_signers(self, cluster: ClusterConfig, block_hash: bytes) -> tuple[ReplicaId, ...]:
        signers = tuple(replica for replica, _ in self.attestations)
        for replica in signers:
            if cluster.member(replica) is None:
                raise ReceiptError(ReceiptCode.UNKNOWN_MEMBER, f"replica {replica} is no member")
        if len(set(signers)) != len(signers):
            raise ReceiptError(ReceiptCode.DUPLICATE_SIGNER, "a replica attests twice")
        if len(signers) < cluster.quorum:
            raise ReceiptError(
                ReceiptCode.INSUFFICIENT_ATTESTATIONS, f"{len(signers)} attestations, {cluster.quorum} are needed"
            )
        statement = signed.attest_bytes(
            cluster.cluster_id, cluster.epoch, self.header.sequence, self.header.order_hash, block_hash
        )
        items = [(cluster.members[replica].consensus_key, statement, sealed) for replica, sealed in self.attestations]
        try:
            flags = fastpath.verify_many(items)
        except ValueError as error:
            raise ReceiptError(ReceiptCode.BAD_ATTESTATION, str(error)) from error
        for replica, flag in zip(signers, flags, strict=True):
            if not flag:
                raise ReceiptError(ReceiptCode.BAD_ATTESTATION, f"not a signature of replica {replica} over this block")
        return signers


def _subject(record: bytes, cluster_id: bytes) -> Subject:
    if record[:1] == b"\x00":
        return FiredTimer(*parse_timer_record(record))
    request = parse_record(record, cluster_id)
    if request.kind != 0:
        raise ValueError(f"a request of kind {request.kind} has no receipt")
    return SignedOperation(
        public_key=request.client,
        session=request.session,
        sequence=request.sequence,
        floor=request.floor,
        valid_until_us=request.valid_until_us,
        operation=operation_of(request),
        signature=signature_of(request),
    )


def to_document(receipt: Receipt) -> dict[str, Any]:
    """The receipt as plain JSON"""
    header = receipt.header
    block: dict[str, Any] = {"version": 1, "cluster": header.cluster_id.hex(), "epoch": header.epoch}
    block |= {name: getattr(header, name).hex() for name in _BLOCK_HASHES}
    block |= {name: getattr(header, name) for name in (*_BLOCK_INTEGERS, "result_count")}
    document: dict[str, Any] = {
        "version": VERSION,
        "cluster": receipt.cluster_id.hex(),
        "epoch": receipt.epoch,
        "block": block,
        "index": receipt.index,
        "leaf_count": receipt.leaf_count,
        "status": receipt.status,
        "result": to_base64(receipt.result),
        "path": [receipt.path[start : start + 32].hex() for start in range(0, len(receipt.path), 32)],
        "attestations": [
            {"replica": replica, "signature": to_base64(signature)} for replica, signature in receipt.attestations
        ],
    }
    match receipt.subject:
        case FiredTimer(timer_id, due_us):
            document["timer"] = {"id": timer_id.hex(), "due_us": due_us}
        case SignedOperation() as operation:
            document["operation"] = {
                "public_key": to_base64(operation.public_key),
                "session": operation.session,
                "sequence": operation.sequence,
                "floor": operation.floor,
                "valid_until_us": operation.valid_until_us,
                "operation": to_base64(operation.operation),
                "signature": to_base64(operation.signature),
            }
    return document


def from_document(value: object) -> Receipt:
    """The receipt of plain JSON values, as of `to_document`."""
    is_timer = isinstance(value, dict) and "timer" in value
    document = parse_object("receipt", value, _FIELDS | {"timer" if is_timer else "operation"})
    parse_integer(document, "version", VERSION, VERSION)
    return Receipt(
        cluster_id=parse_hex("cluster", document["cluster"], 16),
        epoch=parse_integer(document, "epoch", 0, _U32_MAX),
        subject=_timer(document["timer"]) if is_timer else _operation(document["operation"]),
        header=_header(document["block"]),
        index=parse_integer(document, "index", 0, _U32_MAX),
        leaf_count=parse_integer(document, "leaf_count", 0, _U32_MAX),
        status=parse_integer(document, "status", 0, _U16_MAX),
        result=parse_base64("result", document["result"], 0, RESULT_BYTES_MAX),
        path=b"".join(parse_hex("path", item, 32) for item in parse_list("path", document["path"], PATH_LENGTH_MAX)),
        attestations=_attestations(document["attestations"]),
    )


def _operation(value: object) -> SignedOperation:
    fields = parse_object("operation", value, _OPERATION_FIELDS)
    sequence = parse_integer(fields, "sequence", 1)
    return SignedOperation(
        public_key=parse_base64("public_key", fields["public_key"], 32, 32),
        session=parse_integer(fields, "session"),
        sequence=sequence,
        floor=parse_integer(fields, "floor", 1, sequence),
        valid_until_us=parse_integer(fields, "valid_until_us"),
        operation=parse_base64("operation", fields["operation"], 0, OPERATION_BYTES_MAX),
        signature=parse_base64("signature", fields["signature"], 64, 64),
    )


def _timer(value: object) -> FiredTimer:
    fields = parse_object("timer", value, frozenset({"id", "due_us"}))
    timer_id = fields["id"]
    if not isinstance(timer_id, str) or not 2 <= len(timer_id) <= 2 * TIMER_ID_BYTES_MAX:
        raise malformed("timer.id", f"not 1 to {TIMER_ID_BYTES_MAX} bytes of hex")
    return FiredTimer(parse_hex("timer.id", timer_id, len(timer_id) // 2), parse_integer(fields, "due_us"))


def _header(value: object) -> BlockHeader:
    fields = parse_object("block", value, _BLOCK_FIELDS)
    parse_integer(fields, "version", 1, 1)
    content: dict[str, Any] = {name: parse_hex(f"block.{name}", fields[name], 32) for name in _BLOCK_HASHES}
    content |= {name: parse_integer(fields, name) for name in _BLOCK_INTEGERS}
    return BlockHeader(
        cluster_id=parse_hex("block.cluster", fields["cluster"], 16),
        epoch=parse_integer(fields, "epoch", 0, _U32_MAX),
        result_count=parse_integer(fields, "result_count", 0, _U32_MAX),
        **content,
    )


def _attestations(value: object) -> tuple[tuple[ReplicaId, bytes], ...]:
    attestations: list[tuple[ReplicaId, bytes]] = []
    for item in parse_list("attestations", value, ATTESTATIONS_MAX):
        fields = parse_object("attestations", item, frozenset({"replica", "signature"}))
        replica = ReplicaId(parse_integer(fields, "replica", 0, _U16_MAX))
        if attestations and replica < attestations[-1][0]:
            raise malformed("attestations", "not in the order of replicas")
        attestations.append((replica, parse_base64("signature", fields["signature"], 64, 64)))
    return tuple(attestations)
