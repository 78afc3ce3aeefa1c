"""`Receipt`: the proof that an operation was ordered and what came of it, for anyone who has the genesis.

A value holds well-formed fields; only `verify` says that they are true. It is pure: no clock, no network,
no state. The file is canonical JSON, so no byte of it can change unnoticed (docs/receipts.md). The name
of the status is deliberately elsewhere: it is derived from the number, never read from the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import fastpath
from nodes.block import BlockHeader, parse_timer_record, result_leaf, timer_digest
from nodes.config import ClusterConfig
from nodes.core.types import ReplicaId
from nodes.receipt.error import ReceiptCode, ReceiptError
from nodes.wire import signed
from nodes.wire.requests import operation_of, parse_record, request_is_signed, signature_of, unsigned_record


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
        return document.decode(data)

    def to_json(self) -> bytes:
        """The canonical bytes of the receipt file."""
        return document.encode(self)

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


from nodes.receipt import document  # noqa: E402  (its functions take and return Receipt)
