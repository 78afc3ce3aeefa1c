"""Signatures of members: every message and certificate, bound to what it says, verified in bulk."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

import fastpath
from nodes.block import BlockHeader
from nodes.core.messages import (
    Attest,
    AttestCertificate,
    Commit,
    Hello,
    HelloAnswer,
    NewView,
    Prepare,
    PrepareCertificate,
    PrePrepare,
    SignedMessage,
    ViewChange,
    Wish,
)
from nodes.core.ready import Check, SignatureCheck
from nodes.core.types import Batch, BatchKind, ReplicaId, SequenceNumber, View
from nodes.vectors import cluster, signing_key
from nodes.wire import Wire, build_request, signed

CLUSTER = cluster()
WIRE = Wire(CLUSTER)
KEYS = tuple(signing_key(f"consensus {replica}") for replica in range(4))
HEADER, BODY, DIGEST = fastpath.assemble_batch(0, 1, CLUSTER.cluster_id, 0, 7, 99, [], [])
BATCH = Batch(BatchKind.NORMAL, ReplicaId(1), 0, 0, 0, SequenceNumber(7), 99, fastpath.merkle_root([]), DIGEST, HEADER)
FILL = bytes([3]) * 32
BLOCK = BlockHeader(CLUSTER.cluster_id, 0, 5, FILL, FILL, FILL, 5, 1, FILL, FILL, 0, FILL, FILL)
SEAL = bytes(64)
BASE = AttestCertificate(0, SequenceNumber(5), FILL, BLOCK.hash, ((ReplicaId(0), SEAL),))
CHANGE = ViewChange(
    0, View(2), ReplicaId(1), 77, BLOCK.pack(), BASE, (PrepareCertificate(0, View(1), BATCH, ()),), SEAL
)
MESSAGES: tuple[SignedMessage, ...] = (
    PrePrepare(0, View(1), BATCH, (), BODY),
    Prepare(0, View(1), SequenceNumber(7), DIGEST),
    Commit(0, View(1), SequenceNumber(7), DIGEST),
    Attest(0, SequenceNumber(7), FILL, FILL),
    Wish(0, View(1), SequenceNumber(7), 3),
    CHANGE,
    NewView(0, View(2), (CHANGE,), (SEAL,)),
    Hello(ReplicaId(1), bytes(16), bytes(16), 7),
    HelloAnswer(ReplicaId(1), bytes(16), b"answer"),
)


def name(value: object) -> str:
    return type(value).__name__


def verified(*checks: SignatureCheck) -> bytes:
    return WIRE.verify_checks(Check(1, checks, ()))


@pytest.mark.parametrize("message", MESSAGES, ids=name)
def test_signed_message_verifies_for_its_signer_only(message: SignedMessage) -> None:
    sealed = WIRE.sign(message, KEYS[1])
    assert len(sealed.signature) == 64
    assert verified(SignatureCheck(ReplicaId(1), sealed), SignatureCheck(ReplicaId(0), sealed)) == b"\x01\x00"
    altered = replace(sealed, signature=bytes([sealed.signature[0] ^ 1]) + sealed.signature[1:])
    assert verified(SignatureCheck(ReplicaId(1), altered)) == b"\x00"


def test_signed_bytes_differ_between_kinds_and_begin_with_their_prefix() -> None:
    statements = [WIRE.signed_bytes(message) for message in MESSAGES]
    assert statements[0] == statements[1], "PREPREPARE and PREPARE sign the same bytes"
    assert len(set(statements)) == len(statements) - 1
    for statement in statements:
        assert statement.startswith(b"OAPBFT1\0")
        assert statement[16:32] == CLUSTER.cluster_id


def test_vote_bytes_have_the_documented_layout() -> None:
    assert WIRE.signed_bytes(MESSAGES[2]) == (
        b"OAPBFT1\0\x12"
        + bytes(7)
        + CLUSTER.cluster_id
        + bytes(8)
        + (1).to_bytes(8, "little")
        + (7).to_bytes(8, "little")
        + DIGEST
    )


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (MESSAGES[1], {"view": View(2)}),
        (MESSAGES[1], {"sequence": SequenceNumber(8)}),
        (MESSAGES[1], {"digest": FILL}),
        (MESSAGES[3], {"order_hash": DIGEST}),
        (MESSAGES[3], {"block_hash": DIGEST}),
        (MESSAGES[4], {"view": View(2)}),
        (MESSAGES[5], {"incarnation": 78}),
        (MESSAGES[5], {"certificates": ()}),
        (MESSAGES[6], {"proposal_signatures": ()}),
        (MESSAGES[6], {"view_changes": ()}),
        (MESSAGES[7], {"wal_nonce": FILL[:16]}),
        (MESSAGES[7], {"incarnation": 8}),
        (MESSAGES[8], {"nonce": FILL[:16]}),
        (MESSAGES[8], {"body": b"another"}),
    ],
    ids=lambda value: name(value) if not isinstance(value, dict) else next(iter(value)),
)
def test_signature_is_bound_to_what_the_message_says(message: SignedMessage, change: dict[str, object]) -> None:
    sealed = WIRE.sign(message, KEYS[1])
    assert verified(SignatureCheck(ReplicaId(1), replace(sealed, **change))) == b"\x00"


def test_every_message_type_with_a_signature_is_covered() -> None:
    assert {type(message) for message in MESSAGES} == set(SignedMessage.__args__)
    assert all(fields(message)[-1].name == "signature" for message in MESSAGES)


def test_check_answers_signatures_first_then_requests() -> None:
    def request(author: str, operation: bytes) -> bytes:
        return build_request(
            signing_key(author),
            CLUSTER.cluster_id,
            session=1,
            sequence=1,
            floor=1,
            valid_until_us=9,
            operation=operation,
        )

    good = WIRE.parse_record(request("alice", b"good"))
    forged = WIRE.parse_record(request("alice", b"good")[:-64] + request("alice", b"other")[-64:])
    sealed = WIRE.sign(Commit(0, View(1), SequenceNumber(7), DIGEST), KEYS[2])
    unsigned = replace(sealed, signature=b"")
    check = Check(
        5,
        (
            SignatureCheck(ReplicaId(2), unsigned),
            SignatureCheck(ReplicaId(2), sealed),
            SignatureCheck(ReplicaId(9), sealed),
        ),
        (forged, good),
    )
    assert WIRE.verify_checks(check) == b"\x00\x01\x00\x00\x01"
    assert not WIRE.verify_request(forged)
    assert WIRE.verify_checks(Check(6, (), ())) == b""


def test_prepare_certificate_needs_the_threshold_the_primary_and_good_signatures() -> None:
    statement = signed.prepare_bytes(CLUSTER.cluster_id, 0, 1, 7, DIGEST)
    signatures = tuple((ReplicaId(replica), KEYS[replica].sign(statement)) for replica in (0, 1, 3))
    certificate = PrepareCertificate(0, View(1), BATCH, signatures)
    primary = ReplicaId(1)
    assert WIRE.verify_prepare_certificate(certificate, threshold=3, primary=primary)
    assert not WIRE.verify_prepare_certificate(certificate, threshold=4, primary=primary)
    assert not WIRE.verify_prepare_certificate(certificate, threshold=3, primary=ReplicaId(2))
    for altered in (
        replace(certificate, view=View(2)),
        replace(certificate, signatures=(*signatures[:2], (ReplicaId(2), signatures[2][1]))),
        replace(certificate, signatures=(*signatures[:2], signatures[1])),
        replace(certificate, signatures=(*signatures, (ReplicaId(4), SEAL))),
        replace(certificate, signatures=(*signatures, (ReplicaId(2), SEAL))),
    ):
        assert not WIRE.verify_prepare_certificate(altered, threshold=3, primary=primary)


def test_attest_certificate_needs_distinct_members_and_good_signatures() -> None:
    statement = signed.attest_bytes(CLUSTER.cluster_id, 0, 5, FILL, DIGEST)
    signatures = tuple((ReplicaId(replica), KEYS[replica].sign(statement)) for replica in (0, 2))
    certificate = AttestCertificate(0, SequenceNumber(5), FILL, DIGEST, signatures)
    assert WIRE.verify_attest_certificate(certificate, threshold=2)
    assert not WIRE.verify_attest_certificate(certificate, threshold=3)
    assert not WIRE.verify_attest_certificate(replace(certificate, block_hash=FILL), threshold=2)
    doubled = replace(certificate, signatures=(signatures[0], signatures[0]))
    assert not WIRE.verify_attest_certificate(doubled, threshold=2)


def test_prefix_refuses_a_cluster_id_of_another_size() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        signed.prefix(signed.COMMIT, b"", 0)
