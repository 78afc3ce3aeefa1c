"""Receipts: what is genuine verifies, and nothing in it can change unnoticed."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes import canonical
from nodes.block import result_leaf, timer_digest
from nodes.config import ClusterConfig
from nodes.core.types import ReplicaId
from nodes.receipt import (
    FiredTimer,
    Receipt,
    ReceiptCode,
    ReceiptError,
    SelfTestFailedError,
    SignedOperation,
    self_test,
    verify_file,
)
from nodes.vectors import cluster, example_receipts, signing_key
from nodes.wire import build_request, parse_record, signed

CLUSTER = cluster()
RECEIPTS = example_receipts(CLUSTER)
TIMER, FIRST, *_ = RECEIPTS


def refusal(receipt: Receipt, config: ClusterConfig = CLUSTER) -> ReceiptCode:
    with pytest.raises(ReceiptError) as caught:
        receipt.verify(config)
    assert caught.value.detail
    assert str(caught.value).startswith(caught.value.code)
    return caught.value.code


def malformed(document: Any) -> str:
    with pytest.raises(ReceiptError) as caught:
        Receipt.from_json(canonical.encode(document))
    assert caught.value.code is ReceiptCode.MALFORMED_RECEIPT
    return caught.value.detail


def document(receipt: Receipt = FIRST) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(receipt.to_json())
    return value


@pytest.mark.parametrize("receipt", RECEIPTS, ids=lambda receipt: str(receipt.index))
def test_receipt_comes_back_from_its_file_and_verifies(receipt: Receipt) -> None:
    loaded = Receipt.from_json(receipt.to_json())
    assert loaded == receipt
    verified = loaded.verify(CLUSTER)
    assert verified.digest == receipt.digest
    assert verified.block_hash == receipt.header.hash
    assert (verified.sequence, verified.index, verified.time_us) == (7, receipt.index, receipt.header.time_us)
    assert (verified.status, verified.result, verified.subject) == (receipt.status, receipt.result, receipt.subject)
    assert verified.signers == (0, 1, 2)


def test_receipt_is_made_from_what_replicas_answer() -> None:
    assert isinstance(TIMER.subject, FiredTimer)
    assert TIMER.digest == timer_digest(TIMER.subject.id, TIMER.subject.due_us)
    assert isinstance(FIRST.subject, SignedOperation)
    record = FIRST.subject.record(CLUSTER.cluster_id)
    assert parse_record(record, CLUSTER.cluster_id).digest == FIRST.digest
    rebuilt = Receipt.build(
        header=FIRST.header,
        index=FIRST.index,
        status=FIRST.status,
        result=FIRST.result,
        path=FIRST.path,
        record=record,
        attestations=reversed(FIRST.attestations),
    )
    assert rebuilt == FIRST


def test_record_that_receipts_cannot_express_is_refused() -> None:
    ordered_read = build_request(
        signing_key("author"),
        CLUSTER.cluster_id,
        session=1,
        sequence=1,
        floor=1,
        valid_until_us=1,
        operation=b"",
        kind=1,
    )
    for record in (ordered_read, b"", b"\0", b"\1" + bytes(200)):
        with pytest.raises(ValueError):
            Receipt.build(header=FIRST.header, index=0, status=0, result=b"", path=b"", record=record, attestations=[])


@pytest.mark.parametrize("receipt", [TIMER, FIRST], ids=["timer", "operation"])
def test_nothing_in_a_receipt_can_change_unnoticed(receipt: Receipt) -> None:
    rows = self_test(receipt, CLUSTER)
    codes = {row.code for row in rows}
    assert codes >= {
        "malformed_receipt",
        "wrong_cluster",
        "wrong_epoch",
        "bad_leaf_count",
        "bad_merkle_path",
        "unknown_member",
        "duplicate_signer",
        "insufficient_attestations",
        "bad_attestation",
    }
    assert ("bad_author_signature" in codes) == isinstance(receipt.subject, SignedOperation)
    touched = {row.field for row in rows}
    for name in document(receipt):
        assert any(field.split(".")[0] == name for field in touched), name
    for name in document(receipt)["block"]:
        assert f"block.{name}" in touched


def test_self_test_takes_only_a_genuine_receipt() -> None:
    with pytest.raises(ReceiptError):
        self_test(replace(FIRST, status=9), CLUSTER)


def test_self_test_notices_a_verifier_that_accepts_a_change() -> None:
    def forgiving(data: bytes, config: ClusterConfig) -> object:
        return verify_file(data.rstrip(b"\n"), config)

    with pytest.raises(SelfTestFailedError, match="line feed"):
        self_test(FIRST, CLUSTER, forgiving)


def test_self_test_of_a_large_receipt_takes_evenly_spaced_bytes() -> None:
    author = signing_key("author")
    record = build_request(
        author,
        CLUSTER.cluster_id,
        session=1,
        sequence=1,
        floor=1,
        valid_until_us=1,
        operation=bytes(15_000),
    )
    receipt = single(record)
    rows = [row for row in self_test(receipt, CLUSTER) if row.change.endswith("0x01 flipped")]
    assert sum(int(row.change.split()[0]) for row in rows) <= 8192


def single(record: bytes) -> Receipt:
    """A genuine receipt of a block with this one request."""
    digest = parse_record(record, CLUSTER.cluster_id).digest
    leaf = result_leaf(7, 0, digest, 0, b"{}")
    header = replace(FIRST.header, result_count=1, results_root=leaf)
    statement = signed.attest_bytes(CLUSTER.cluster_id, 0, 7, header.order_hash, header.hash)
    return Receipt.build(
        header=header,
        index=0,
        status=0,
        result=b"{}",
        path=b"",
        record=record,
        attestations=[(replica, signing_key(f"consensus {replica}").sign(statement)) for replica in (3, 1, 0)],
    )


def test_receipt_of_another_genesis_is_refused() -> None:
    assert refusal(FIRST, cluster(5)) is ReceiptCode.WRONG_CLUSTER


def test_each_step_has_its_code() -> None:
    assert isinstance(FIRST.subject, SignedOperation)
    subject, header = FIRST.subject, FIRST.header
    attestations = FIRST.attestations
    stranger = (ReplicaId(4), attestations[0][1])
    cases = {
        ReceiptCode.WRONG_CLUSTER: [
            {"cluster_id": bytes(16)},
            {"header": replace(header, cluster_id=bytes(16))},
        ],
        ReceiptCode.WRONG_EPOCH: [{"epoch": 1}, {"header": replace(header, epoch=1)}],
        ReceiptCode.BAD_AUTHOR_SIGNATURE: [
            {"subject": replace(subject, operation=b"another")},
            {"subject": replace(subject, public_key=signing_key("mallory").public_key)},
            {"subject": replace(subject, valid_until_us=1)},
        ],
        ReceiptCode.MALFORMED_RECEIPT: [
            {"subject": replace(subject, floor=9)},
            {"subject": replace(subject, signature=b"")},
        ],
        ReceiptCode.BAD_LEAF_COUNT: [{"leaf_count": 4}, {"header": replace(header, result_count=4)}],
        ReceiptCode.BAD_MERKLE_PATH: [
            {"index": 2},
            {"index": 5},
            {"status": 1},
            {"result": b""},
            {"path": FIRST.path[32:]},
            {"path": bytes(len(FIRST.path))},
            {"subject": FiredTimer(b"id", 1)},
            {"subject": RECEIPTS[2].subject},
            {"header": replace(header, results_root=bytes(32))},
        ],
        ReceiptCode.UNKNOWN_MEMBER: [{"attestations": (*attestations, stranger)}],
        ReceiptCode.DUPLICATE_SIGNER: [{"attestations": (attestations[0], *attestations)}],
        ReceiptCode.INSUFFICIENT_ATTESTATIONS: [{"attestations": attestations[:2]}, {"attestations": ()}],
        ReceiptCode.BAD_ATTESTATION: [
            {"header": replace(header, order_hash=bytes(32))},
            {"header": replace(header, time_us=1)},
            {"attestations": (*attestations[:2], (ReplicaId(2), bytes(64)))},
            {"attestations": (*attestations[:2], (ReplicaId(2), b""))},
            {"attestations": (*attestations[:2], (ReplicaId(3), attestations[2][1]))},
            {"attestations": (*attestations, (ReplicaId(3), bytes(64)))},
        ],
    }
    for code, changes in cases.items():
        for change in changes:
            assert refusal(replace(FIRST, **change)) is code, change
    assert set(cases) == set(ReceiptCode)


def test_two_receipts_for_one_operation_may_have_different_signers() -> None:
    statement = signed.attest_bytes(CLUSTER.cluster_id, 0, 7, FIRST.header.order_hash, FIRST.header.hash)
    others = tuple((ReplicaId(replica), signing_key(f"consensus {replica}").sign(statement)) for replica in (1, 2, 3))
    assert replace(FIRST, attestations=others).verify(CLUSTER).signers == (1, 2, 3)


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b'{"version":1}', FIRST.to_json() + b"\n", b" " + FIRST.to_json(), b"1" * 300_000],
    ids=lambda data: repr(data[:12]),
)
def test_bytes_that_are_no_receipt_are_refused(data: bytes) -> None:
    with pytest.raises(ReceiptError) as caught:
        Receipt.from_json(data)
    assert caught.value.code is ReceiptCode.MALFORMED_RECEIPT


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_raise_only_receipt_errors(data: bytes) -> None:
    with pytest.raises(ReceiptError):
        Receipt.from_json(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("version",), True),
        (("epoch",), -1),
        (("index",), 2**32),
        (("status",), 65_536),
        (("status",), "0"),
        (("cluster",), CLUSTER.cluster_id.hex().upper() + "AA"),
        (("cluster",), CLUSTER.cluster_id.hex()[:-2] + "AA"),
        (("cluster",), None),
        (("path",), {}),
        (("path",), ["00" * 32] * 33),
        (("path", 0), "00"),
        (("result",), "e30"),
        (("result",), "e31="),
        (("result",), "e3 0="),
        (("result",), "\u00e9"),
        (("result",), 5),
        (("result",), base64.b64encode(bytes(65_537)).decode()),
        (("operation", "public_key"), "AAAA"),
        (("operation", "floor"), 0),
        (("operation", "floor"), 99),
        (("operation", "extra"), 0),
        (("operation",), []),
        (("block", "version"), 2),
        (("block", "digest"), "00" * 31),
        (("block", "extra"), 0),
        (("attestations",), {}),
        (("attestations", 0, "replica"), 65_536),
        (("attestations", 0, "replica"), 2),
        (("attestations", 0, "signature"), "AAAA"),
        (("timer",), {"id": "00", "due_us": 1}),
    ],
    ids=str,
)
def test_field_of_another_form_is_malformed(path: tuple[str | int, ...], value: object) -> None:
    altered = document()
    place: Any = altered
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert malformed(altered)


@pytest.mark.parametrize("timer_id", ["", "0", "AA", "00" * 65, 5], ids=repr)
def test_timer_id_of_another_form_is_malformed(timer_id: object) -> None:
    altered = document(TIMER)
    altered["timer"]["id"] = timer_id
    assert "timer.id" in malformed(altered)
