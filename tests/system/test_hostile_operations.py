"""What a bidder's machine, or somebody who watches it, may post: each gets its documented error and changes nothing."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from nodes.keys import SigningKey
from nodes.wire import build_request, parse_record
from nodes.wire.requests import operation_of, signature_of
from tests.system.cluster import Cluster

pytestmark = pytest.mark.system


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def posted(cluster: Cluster, key: SigningKey, operation: bytes, *, session: int, sequence: int = 1) -> dict[str, Any]:
    """The JSON body of a correctly signed operation."""
    valid_until_us = time.time_ns() // 1000 + 60_000_000
    record = build_request(
        key,
        cluster.config.cluster_id,
        session=session,
        sequence=sequence,
        floor=1,
        valid_until_us=valid_until_us,
        operation=operation,
    )
    request = parse_record(record, cluster.config.cluster_id)
    return {
        "public_key": b64(request.client),
        "session": session,
        "sequence": sequence,
        "floor": 1,
        "valid_until_us": valid_until_us,
        "operation": b64(operation_of(request)),
        "signature": b64(signature_of(request)),
    }


def transfer(to: str, amount: int = 1) -> bytes:
    return json.dumps({"type": "money.transfer", "to": to, "amount": amount, "memo": ""}).encode()


def new_session() -> int:
    return time.time_ns() // 1_000_000


def balances(cluster: Cluster) -> list[Any]:
    return [cluster.balance(name) for name in ("bob", "carla")]


@pytest.fixture
def recipient(cluster: Cluster) -> str:
    answer = cluster.http.get(cluster.url(0, "/v1/accounts/carla")).json()
    return str(answer["value"]["id"])


def test_same_bytes_at_two_nodes_execute_once_with_one_receipt(cluster: Cluster, recipient: str) -> None:
    before = balances(cluster)
    body = posted(cluster, cluster.key("bob"), transfer(recipient, 7), session=new_session())
    first = cluster.http.post(cluster.url(1, "/v1/operations"), json=body)
    second = cluster.http.post(cluster.url(2, "/v1/operations"), json=body)
    assert first.status_code == 201, first.text
    assert second.status_code == 201, second.text
    one, two = first.json(), second.json()
    for field in ("block", "index", "leaf_count", "status", "result", "path", "operation"):
        assert one[field] == two[field], field
    after = balances(cluster)
    assert after[0]["available"] == before[0]["available"] - 7
    assert after[1]["available"] == before[1]["available"] + 7


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"signature": b64(bytes(64))}, 401, "bad_signature"),
        ({"signature": None}, 400, "malformed"),
        ({"sequence": 2}, 401, "bad_signature"),
        ({"public_key": b64(bytes(31))}, 400, "malformed"),
        ({"floor": 0}, 400, "malformed"),
        ({"floor": True}, 400, "malformed"),
        ({"session": 2**53}, 400, "malformed"),
        ({"operation": "!!"}, 400, "malformed"),
        ({"extra": 1}, 400, "malformed"),
    ],
    ids=lambda value: str(next(iter(value.items()))) if isinstance(value, dict) else str(value),
)
def test_altered_post_is_refused_before_ordering(
    cluster: Cluster, recipient: str, change: dict[str, Any], status: int, code: str
) -> None:
    before = balances(cluster)
    body = posted(cluster, cluster.key("bob"), transfer(recipient), session=new_session())
    for field, value in change.items():
        if value is None:
            del body[field]
        else:
            body[field] = value
    answer = cluster.http.post(cluster.url(3, "/v1/operations"), json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert balances(cluster) == before


def test_foreign_signature_is_refused(cluster: Cluster, recipient: str) -> None:
    body = posted(cluster, cluster.key("bob"), transfer(recipient), session=new_session())
    body["public_key"] = b64(cluster.key("carla").public_key)
    answer = cluster.http.post(cluster.url(0, "/v1/operations"), json=body)
    assert (answer.status_code, answer.json()["code"]) == (401, "bad_signature")


def test_duplicate_json_field_in_the_envelope_is_refused(cluster: Cluster, recipient: str) -> None:
    body = json.dumps(posted(cluster, cluster.key("bob"), transfer(recipient), session=new_session()))
    doubled = body[:-1] + ', "sequence": 1}'
    answer = cluster.http.post(
        cluster.url(0, "/v1/operations"), content=doubled, headers={"content-type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")


def test_oversized_operation_is_refused_before_ordering(cluster: Cluster) -> None:
    body = posted(cluster, cluster.key("bob"), b" " * 65_536, session=new_session())
    body["operation"] = b64(b" " * 65_537)
    answer = cluster.http.post(cluster.url(0, "/v1/operations"), json=body)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    ("operation", "status", "code"),
    [
        (b"not json", 422, "malformed_operation"),
        (b'{"type":"money.transfer","type":"money.mint"}', 422, "malformed_operation"),
        (b'{"type":"money.transfer","to":"carla","amount":1,"memo":"","x":1}', 422, "malformed_operation"),
        (b'{"type":"money.transfer","to":"carla","amount":9007199254740993,"memo":""}', 422, "malformed_operation"),
        (b'{"type":"money.transfer","to":"carla","amount":true,"memo":""}', 422, "malformed_operation"),
        (b'{"type":"money.transfer","to":"carla","amount":-5,"memo":""}', 422, "invalid_amount"),
        (b'{"type":"money.mint","to":"carla","amount":5,"memo":""}', 403, "unauthorized"),
    ],
)
def test_operation_against_the_rules_is_refused_with_a_receipt(
    cluster: Cluster, recipient: str, operation: bytes, status: int, code: str
) -> None:
    before = balances(cluster)
    operation = operation.replace(b'"carla"', f'"{recipient}"'.encode())
    body = posted(cluster, cluster.key("bob"), operation, session=new_session())
    answer = cluster.http.post(cluster.url(1, "/v1/operations"), json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.json()["receipt"]["block"]["sequence"] > 0
    assert balances(cluster) == before


def test_stranger_is_refused_with_a_receipt(cluster: Cluster, recipient: str) -> None:
    body = posted(cluster, SigningKey.generate(), transfer(recipient), session=new_session())
    answer = cluster.http.post(cluster.url(1, "/v1/operations"), json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "unauthorized"), answer.text


def test_reused_sequence_with_another_operation_is_refused(cluster: Cluster, recipient: str) -> None:
    session = new_session()
    key = cluster.key("bob")
    first = cluster.http.post(
        cluster.url(0, "/v1/operations"), json=posted(cluster, key, transfer(recipient), session=session)
    )
    assert first.status_code == 201, first.text
    before = balances(cluster)
    other = posted(cluster, key, transfer(recipient, 2), session=session)
    answer = cluster.http.post(cluster.url(1, "/v1/operations"), json=other)
    assert answer.status_code == 409, answer.text
    assert answer.json()["code"] in {"sequence_reused", "stale_sequence"}
    assert balances(cluster) == before
