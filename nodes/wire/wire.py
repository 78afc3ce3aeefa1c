"""`Wire`: bytes to messages and back for one cluster, and the verification of their signatures.

The only place where bytes become messages (architecture.md, I3). What it returns is well-formed, of this
cluster and epoch, within limits; what it refuses raises `WireError`. A decoded signature has not been
verified: the core asks for that when it needs it (`verify_checks`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar, assert_never

import fastpath
from nodes.config import ClusterConfig
from nodes.core.messages import (
    Attest,
    AttestCertificate,
    Commit,
    Hello,
    HelloAnswer,
    NewView,
    PeerMessage,
    Prepare,
    PrepareCertificate,
    PrePrepare,
    Signatures,
    SignedMessage,
    ViewChange,
    Wish,
)
from nodes.core.ready import Check
from nodes.core.records import Record
from nodes.core.types import ReplicaId, Request
from nodes.wire import client, frame, reads, records, requests, signed, view_change
from nodes.wire.client import ClientAnswer, ClientRequest, Read, ReadShare, Reply
from nodes.wire.format import BULK_FRAME_MAX, SIGNATURE_BYTES, Domain
from nodes.wire.requests import Signer

Signable = TypeVar("Signable", PrePrepare, Prepare, Commit, Attest, Wish, ViewChange, NewView, Hello, HelloAnswer)
Item = tuple[bytes, bytes, bytes]


class Wire:
    """Immutable after construction; one is shared by everything in a process."""

    def __init__(self, cluster: ClusterConfig) -> None:
        parameters = cluster.parameters
        self.cluster = cluster
        self.domain = Domain(
            cluster_id=cluster.cluster_id,
            epoch=cluster.epoch,
            n=cluster.n,
            window=parameters.window,
            batch_bytes_max=parameters.batch_bytes_max,
            batch_requests_max=parameters.batch_requests_max,
            operation_bytes_max=parameters.operation_bytes_max,
            result_bytes_max=parameters.result_bytes_max,
            block_results_max=parameters.batch_requests_max + parameters.timers_max,
        )
        self._keys = tuple(member.consensus_key for member in cluster.members)
        self._request_prefix = signed.request_prefix(cluster.cluster_id)

    # Bytes of peers, the log and clients

    def encode(self, message: PeerMessage) -> bytes:
        """One message with its header, to be concatenated into a frame. ValueError: it is not fit to be sent."""
        return frame.encode(self.domain, message)

    def decode_frame(self, data: bytes, sender: ReplicaId, frame_max: int = BULK_FRAME_MAX) -> list[PeerMessage]:
        """The messages of a peer's frame; WireError refuses all of it. `sender` is the channel's word."""
        return frame.decode_frame(self.domain, data, sender, frame_max)

    def read_frame(
        self, data: bytes, sender: ReplicaId, *, ignored: Collection[int], fetched_max: Callable[[], int]
    ) -> Iterator[tuple[PeerMessage | None, int]]:
        """The messages of a peer's frame one by one, with payload sizes; None for what is skipped by its header.

        Skipped are types in `ignored` and FETCHED over `fetched_max()` bytes. WireError ends the frame.
        """
        return frame.read_frame(self.domain, data, sender, ignored=ignored, fetched_max=fetched_max)

    def encode_record(self, record: Record) -> tuple[int, bytes]:
        """(type, payload) of a log record."""
        return records.encode_record(self.domain, record)

    def decode_record(self, kind: int, payload: bytes) -> Record:
        """The log record; WireError when these bytes are none."""
        return records.decode_record(self.domain, kind, payload)

    def encode_client(self, message: ClientRequest | ClientAnswer) -> bytes:
        """One message between client and replica with its header."""
        return client.encode(self.domain, message)

    def decode_client_frame(self, data: bytes) -> list[ClientRequest]:
        """What a client sent to a replica. WireError refuses the whole frame."""
        return client.decode_requests(self.domain, data)

    def decode_answer_frame(self, data: bytes) -> list[ClientAnswer]:
        """What a replica sent to a client. WireError refuses the whole frame."""
        return client.decode_answers(self.domain, data)

    def parse_record(self, record: bytes) -> Request:
        """The one request in these bytes, unverified. WireError for anything else."""
        return requests.parse_record(record, self.domain.cluster_id, self.domain.operation_bytes_max)

    # Signatures of members

    def signed_bytes(self, message: SignedMessage) -> bytes:
        """What the message's signature is over."""
        domain = self.domain
        cluster_id = domain.cluster_id
        match message:
            case PrePrepare(epoch=epoch, view=view, batch=batch):
                return signed.prepare_bytes(cluster_id, epoch, view, batch.sequence, batch.digest)
            case Prepare(epoch, view, sequence, digest):
                return signed.prepare_bytes(cluster_id, epoch, view, sequence, digest)
            case Commit(epoch, view, sequence, digest):
                return signed.commit_bytes(cluster_id, epoch, view, sequence, digest)
            case Attest(epoch, sequence, order_hash, block_hash):
                return signed.attest_bytes(cluster_id, epoch, sequence, order_hash, block_hash)
            case Wish(epoch=epoch, view=view):
                return signed.wish_bytes(cluster_id, epoch, view)
            case ViewChange(epoch=epoch, view=view):
                body = view_change.view_change_body(domain, message)
                return signed.view_change_bytes(cluster_id, epoch, view, body)
            case NewView(epoch=epoch, view=view):
                return signed.new_view_bytes(cluster_id, epoch, view, view_change.new_view_body(domain, message))
            case Hello(replica, nonce, wal_nonce, incarnation):
                return signed.hello_bytes(cluster_id, domain.epoch, replica, nonce, wal_nonce, incarnation)
            case HelloAnswer(replica=replica):
                answer = view_change.hello_answer_body(domain, message)
                return signed.hello_answer_bytes(cluster_id, domain.epoch, replica, answer)
            case _:
                assert_never(message)

    def sign(self, message: Signable, key: Signer) -> Signable:
        """The message with its signature."""
        return replace(message, signature=key.sign(self.signed_bytes(message)))

    def verify_checks(self, check: Check) -> bytes:
        """One flag an item, 1 good and 0 bad: the check's signatures first, then its requests."""
        items = [self._item(item.signer, item.message) for item in check.signatures]
        flags = _verify(items)
        if check.requests:
            flags += fastpath.verify_requests(self._request_prefix, [request.record for request in check.requests])
        return flags

    def verify_prepare_certificate(
        self, certificate: PrepareCertificate, *, threshold: int, primary: ReplicaId
    ) -> bool:
        """Have at least `threshold` distinct members signed it, `primary` among them, and is each signature good?"""
        if primary not in (signer for signer, _ in certificate.signatures):
            return False
        batch = certificate.batch
        statement = signed.prepare_bytes(
            self.domain.cluster_id, certificate.epoch, certificate.view, batch.sequence, batch.digest
        )
        return self.verify_signatures(certificate.signatures, statement, threshold=threshold)

    def verify_attest_certificate(self, certificate: AttestCertificate, *, threshold: int) -> bool:
        """Have at least `threshold` distinct members signed it, and is each signature good?"""
        statement = signed.attest_bytes(
            self.domain.cluster_id,
            certificate.epoch,
            certificate.sequence,
            certificate.order_hash,
            certificate.block_hash,
        )
        return self.verify_signatures(certificate.signatures, statement, threshold=threshold)

    def verify_signatures(self, signatures: Signatures, statement: bytes, *, threshold: int) -> bool:
        """Are these the good signatures of at least `threshold` distinct members over one statement?"""
        signers = [signer for signer, _ in signatures]
        if len(signers) < threshold or len(set(signers)) != len(signers):
            return False
        if not all(0 <= signer < len(self._keys) for signer in signers):
            return False
        items = [(self._keys[signer], statement, signature) for signer, signature in signatures]
        return _verify(items) == b"\x01" * len(items)

    # Signatures of and for clients

    def verify_attest(self, attest: Attest | Reply, replica: ReplicaId) -> bool:
        """Is the attestation (also inside a Reply) signed by that member?"""
        statement = signed.attest_bytes(
            self.domain.cluster_id, attest.epoch, attest.sequence, attest.order_hash, attest.block_hash
        )
        return self.verify_signatures(((replica, attest.signature),), statement, threshold=1)

    def verify_share(self, share: ReadShare, replica: ReplicaId) -> bool:
        """Is the share, result included where it has one, signed by that member?"""
        if not 0 <= replica < len(self._keys):
            return False
        return reads.share_is_signed(share, self.domain.cluster_id, self.domain.epoch, self._keys[replica])

    def sign_shares(self, leaves: Sequence[bytes], key: Signer) -> bytes:
        """A replica's signature over the root of 1 to 256 share leaves (`reads.share_leaf`)."""
        root = fastpath.merkle_root(leaves)
        return key.sign(signed.read_root_bytes(self.domain.cluster_id, self.domain.epoch, root))

    def sign_read(self, read: Read, key: Signer, valid_until_us: int) -> Read:
        """The query, signed by its caller."""
        statement = signed.query_bytes(self.domain.cluster_id, read.nonce, key.public_key, valid_until_us, read.query)
        return replace(read, caller=key.public_key, valid_until_us=valid_until_us, signature=key.sign(statement))

    def verify_read(self, read: Read) -> bool:
        """Is the query signed by the caller it names? False for an unsigned one."""
        if read.caller is None:
            return False
        statement = signed.query_bytes(self.domain.cluster_id, read.nonce, read.caller, read.valid_until_us, read.query)
        return _verify([(read.caller, statement, read.signature)]) == b"\x01"

    def verify_request(self, request: Request) -> bool:
        """Is the request signed by the key inside it?"""
        return fastpath.verify_requests(self._request_prefix, [request.record]) == b"\x01"

    def _item(self, signer: ReplicaId, message: SignedMessage) -> Item | None:
        if not 0 <= signer < len(self._keys):
            return None
        return self._keys[signer], self.signed_bytes(message), message.signature


def _verify(items: Sequence[Item | None]) -> bytes:
    """A flag an item; an absent one, or one without a whole signature, is bad."""
    checked = [item for item in items if item is not None and len(item[2]) == SIGNATURE_BYTES]
    flags = fastpath.verify_many(checked)
    if len(checked) == len(items):
        return flags
    answers = iter(flags)
    whole = (item is not None and len(item[2]) == SIGNATURE_BYTES for item in items)
    return bytes(next(answers) if is_whole else 0 for is_whole in whole)
