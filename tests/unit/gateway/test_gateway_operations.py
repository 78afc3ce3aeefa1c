"""POST /v1/operations and receipts over TLS: success, every refusal before ordering, ordered refusals."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from typing import Any

import httpx
import pytest

from nodes import canonical
from nodes.codes import Status
from nodes.gateway import connection as connection_module
from nodes.gateway import guard
from nodes.keys import SigningKey
from nodes.receipt import Receipt
from nodes.wire import BusyReason


def post(gateway: Any, body: Any, **headers: str) -> httpx.Response:
    return gateway.http.post("/v1/operations", json=body, headers=headers)


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The document of a problem with these, in its full form."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    document = answer.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["title"]
    assert document["detail"]
    assert "Traceback" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    return document


def test_accepted_operation_answers_201_with_a_verifying_receipt(gateway: Any) -> None:
    body = gateway.body()
    answer = post(gateway, body)
    assert answer.status_code == 201
    receipt = Receipt.from_json(answer.content)
    verified = receipt.verify(gateway.servers.cluster)
    assert verified.digest == gateway.digest(body)
    assert answer.headers["location"] == f"/v1/receipts/{verified.digest.hex()}"
    again = gateway.http.get(answer.headers["location"])
    assert again.status_code == 200
    assert Receipt.from_json(again.content).verify(gateway.servers.cluster).sequence == verified.sequence


def test_same_bytes_again_give_the_same_block_index_and_result(gateway: Any) -> None:
    body = gateway.body()
    first, second = (Receipt.from_json(post(gateway, body).content) for _ in range(2))
    assert (first.header, first.index, first.status, first.result) == (
        second.header,
        second.index,
        second.status,
        second.result,
    )


@pytest.mark.parametrize(
    ("status", "http_status", "code"),
    [
        (Status.UNAUTHORIZED, 403, "unauthorized"),
        (Status.EXPIRED, 410, "expired"),
        (Status.STALE_SEQUENCE, 409, "stale_sequence"),
        (Status.MALFORMED_OPERATION, 422, "malformed_operation"),
        (112, 404, "unknown_auction"),
        (114, 409, "auction_closed"),
        (116, 422, "bid_too_low"),
    ],
)
def test_ordered_refusal_is_a_problem_with_a_verifying_receipt(
    gateway: Any, status: int, http_status: int, code: str
) -> None:
    gateway.servers.execute = lambda key, operation: (int(status), b"{}")
    answer = post(gateway, gateway.body())
    document = check_problem(answer, http_status, code)
    receipt = Receipt.from_json(canonical.encode(document["receipt"]))
    assert receipt.verify(gateway.servers.cluster).status == status
    assert answer.headers["location"].endswith(receipt.digest.hex())


MALFORMED: dict[str, Any] = {
    "not JSON": b"{",
    "not an object": b"[]",
    "empty": b"",
    "trailing bytes": lambda body: json.dumps(body).encode() + b"x",
    "unknown field": lambda body: json.dumps({**body, "extra": 1}).encode(),
    "missing field": lambda body: json.dumps({name: body[name] for name in body if name != "floor"}).encode(),
    "repeated field": lambda body: json.dumps(body).encode()[:-1] + b',"floor":1}',
    "repeated field, escaped": lambda body: json.dumps(body).encode()[:-1] + b',"\\u0066loor":1}',
    "bool for an integer": lambda body: json.dumps({**body, "sequence": True}).encode(),
    "float for an integer": lambda body: json.dumps({**body, "sequence": 1.0}).encode(),
    "text for an integer": lambda body: json.dumps({**body, "sequence": "1"}).encode(),
    "null": lambda body: json.dumps({**body, "session": None}).encode(),
    "negative": lambda body: json.dumps({**body, "session": -1}).encode(),
    "beyond 2^53-1": lambda body: json.dumps({**body, "session": 2**53}).encode(),
    "floor above sequence": lambda body: json.dumps({**body, "floor": 10**9}).encode(),
    "floor 0": lambda body: json.dumps({**body, "floor": 0}).encode(),
    "sequence 0": lambda body: json.dumps({**body, "sequence": 0}).encode(),
    "base64 without padding": lambda body: json.dumps({**body, "operation": "eyJ9YQ"}).encode(),
    "base64 with spare bits": lambda body: json.dumps({**body, "operation": "YR=="}).encode(),
    "base64 with white space": lambda body: json.dumps({**body, "operation": "YQ==\n"}).encode(),
    "base64url": lambda body: json.dumps({**body, "operation": "__8="}).encode(),
    "base64 not ASCII": lambda body: json.dumps({**body, "operation": "YQ=\u00e9"}).encode(),
    "short key": lambda body: json.dumps({**body, "public_key": "YQ=="}).encode(),
    "short signature": lambda body: json.dumps({**body, "signature": "YQ=="}).encode(),
    "not UTF-8": lambda body: json.dumps(body).encode()[:-1] + b',"x":"\xff"}',
    "byte order mark": lambda body: b"\xef\xbb\xbf" + json.dumps(body).encode(),
    "deep": b'{"operation":' * 5_000,
    "NaN": lambda body: json.dumps({**body, "session": float("nan")}).encode(),
}


@pytest.mark.parametrize("case", list(MALFORMED))
def test_malformed_body_is_refused_before_any_ordering(gateway: Any, case: str) -> None:
    content = MALFORMED[case]
    if callable(content):
        content = content(gateway.body())
    seen = list(gateway.servers.requests_seen)
    answer = gateway.http.post("/v1/operations", content=content, headers={"content-type": "application/json"})
    check_problem(answer, 400, "malformed")
    assert gateway.servers.requests_seen == seen


def test_bad_signature_is_401_and_not_sent_on(gateway: Any) -> None:
    seen = list(gateway.servers.requests_seen)
    for changes in (
        {"signature": base64.b64encode(bytes(64)).decode()},
        {"session": 6},
        {"operation": base64.b64encode(b"other").decode()},
        {"public_key": base64.b64encode(SigningKey(b"\x01" * 32).public_key).decode()},
    ):
        answer = post(gateway, gateway.body() | changes)
        check_problem(answer, 401, "bad_signature")
    assert gateway.servers.requests_seen == seen


def test_too_large_is_refused_by_announced_and_by_real_size(gateway: Any) -> None:
    check_problem(
        post(gateway, gateway.body(operation=bytes(65_537 - 1)) | {"operation": "A" * 131_072}), 413, "too_large"
    )
    oversize = base64.b64encode(bytes(65_537)).decode()
    check_problem(post(gateway, gateway.body() | {"operation": oversize}), 413, "too_large")

    def endless() -> Any:
        for _ in range(200):
            yield b" " * 1_024

    answer = gateway.http.post("/v1/operations", content=endless(), headers={"content-type": "application/json"})
    check_problem(answer, 413, "too_large")


def test_largest_operation_is_accepted(gateway: Any) -> None:
    assert post(gateway, gateway.body(operation=bytes(65_536))).status_code == 201


def test_other_media_type_is_415(gateway: Any) -> None:
    answer = gateway.http.post("/v1/operations", content=b"{}", headers={"content-type": "text/plain"})
    check_problem(answer, 415, "unsupported_media_type")


def test_rate_limited_by_replicas_is_429_with_retry_after(gateway: Any) -> None:
    gateway.servers.busy = dict.fromkeys(range(4), (BusyReason.RATE_LIMITED, 1_500))
    answer = post(gateway, gateway.body())
    check_problem(answer, 429, "rate_limited")
    assert answer.headers["retry-after"] == "2"


def test_rate_limited_by_the_gateway_says_so_in_its_headers(gateway: Any) -> None:
    limit = gateway.app.state.gateway.key_limit
    limit._rate, limit._burst, rate, burst = 1, 1, limit._rate, limit._burst
    limit._buckets.clear()
    try:
        assert post(gateway, gateway.body()).status_code == 201
        answer = post(gateway, gateway.body())
    finally:
        limit._rate, limit._burst = rate, burst
        limit._buckets.clear()
    check_problem(answer, 429, "rate_limited")
    assert answer.headers["ratelimit-policy"] == '"key";q=1;w=1'
    assert answer.headers["ratelimit"] == '"key";r=0;t=1'
    assert int(answer.headers["retry-after"]) >= 1


def test_overloaded_replicas_are_503(gateway: Any) -> None:
    gateway.servers.busy = dict.fromkeys(range(3), (BusyReason.OVERLOADED, 100))
    answer = post(gateway, gateway.body())
    check_problem(answer, 503, "overloaded")
    assert answer.headers["retry-after"] == "1"


def test_expired_before_ordering_is_410_without_a_receipt(gateway: Any) -> None:
    gateway.servers.busy = dict.fromkeys(range(3), (BusyReason.EXPIRED, 0))
    assert "receipt" not in check_problem(post(gateway, gateway.body()), 410, "expired")


def test_no_proof_in_time_is_504_unknown_and_the_same_bytes_succeed_later(gateway: Any) -> None:
    gateway.servers.silent = {0, 1}
    body = gateway.body()
    answer = post(gateway, body, prefer="wait=1")
    document = check_problem(answer, 504, "outcome_unknown")
    assert document["digest"] == gateway.digest(body).hex()
    assert answer.headers["location"].endswith(document["digest"])
    assert answer.headers["preference-applied"] == "wait=1"
    gateway.servers.silent = set()
    assert post(gateway, body).status_code == 201


def test_respond_async_answers_202_and_the_receipt_is_at_the_location(gateway: Any) -> None:
    body = gateway.body()
    answer = post(gateway, body, prefer="respond-async, handling=lenient")
    assert answer.status_code == 202
    assert answer.json()["digest"] == gateway.digest(body).hex()
    assert answer.headers["preference-applied"] == "respond-async"
    receipt = gateway.http.get(answer.headers["location"])
    while receipt.status_code == 404:
        receipt = gateway.http.get(answer.headers["location"])
    assert Receipt.from_json(receipt.content).verify(gateway.servers.cluster).digest == gateway.digest(body)


def test_lying_replica_changes_no_answer(gateway: Any, stub: Any) -> None:
    gateway.servers.twist[3] = stub.forge_signature
    receipt = Receipt.from_json(post(gateway, gateway.body()).content)
    assert 3 not in {replica for replica, _ in receipt.attestations}
    assert {one["replica"] for one in gateway.http.get("/v1/status").json()["gateway"]["misbehaviour"]} <= {3}


def test_unknown_receipt_is_404_and_a_bad_digest_400(gateway: Any) -> None:
    check_problem(gateway.http.get("/v1/receipts/" + "00" * 32), 404, "not_found")
    check_problem(gateway.http.get("/v1/receipts/" + "FF" * 32), 400, "malformed")
    check_problem(gateway.http.get("/v1/receipts/xyz"), 400, "malformed")


def test_receipt_of_a_deadline_is_found(gateway: Any) -> None:
    post(gateway, gateway.body())
    timer = next(leaf for leaf in gateway.servers.stub.blocks[-1].leaves if leaf.record[0] == 0)
    answer = gateway.http.get(f"/v1/receipts/{timer.digest.hex()}")
    receipt = Receipt.from_json(answer.content)
    assert receipt.verify(gateway.servers.cluster).digest == timer.digest
    assert "timer" in answer.json()


def test_routes_and_methods_that_do_not_exist_are_problems(gateway: Any) -> None:
    check_problem(gateway.http.get("/v2/none"), 404, "not_found")
    check_problem(gateway.http.get("/v1/operations"), 405, "method_not_allowed")
    check_problem(gateway.http.get("/v1/status?" + "x" * 5_000), 400, "malformed")


def test_only_tls_13_is_spoken(gateway: Any) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with httpx.Client(verify=context, trust_env=False) as old, pytest.raises(httpx.ConnectError):
        old.get(f"{gateway.http.base_url}/livez")


def raw_connection(gateway: Any) -> ssl.SSLSocket:
    url = gateway.http.base_url
    plain = socket.create_connection((url.host, url.port), timeout=10)
    return gateway.tls.wrap_socket(plain, server_hostname=url.host)


def read_to_the_end(connection: ssl.SSLSocket) -> bytes:
    """Everything until the server closes."""
    received = b""
    while chunk := connection.recv(65_536):
        received += chunk
    return received


def test_endless_header_is_cut_off(gateway: Any) -> None:
    with raw_connection(gateway) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nlong: " + b"x" * 40_000)
        answer = read_to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b'"code":"header_too_large"' in answer


def test_body_that_arrives_after_its_refusal_is_not_taken_for_a_head(gateway: Any) -> None:
    size = 200_000
    head = b"POST /v1/operations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with raw_connection(gateway) as connection:
        connection.sendall(head % size)
        answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 413 ")
        for _ in range(10):
            connection.sendall(b" " * (size // 10))
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer += read_to_the_end(connection)
    assert b"HTTP/1.1 431 " not in answer
    assert b"HTTP/1.1 200 " in answer


@pytest.mark.parametrize("start", [b"", b"GET /livez HTTP/1.1\r\nhost:"])
def test_request_that_never_comes_is_cut_off(gateway: Any, monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    monkeypatch.setattr(connection_module, "HEAD_TIMEOUT_S", 0.2)
    with raw_connection(gateway) as connection:
        connection.sendall(start)
        answer = read_to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_body_that_trickles_in_is_cut_off(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_TIMEOUT_S", 0.2)
    head = b"POST /v1/operations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
    with raw_connection(gateway) as connection:
        connection.sendall(head)
        answer = read_to_the_end(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer


def test_connection_is_kept_for_further_requests(gateway: Any) -> None:
    request = b"GET /livez HTTP/1.1\r\nhost: x\r\nfiller: " + b"x" * 20_000 + b"\r\n\r\n"
    with raw_connection(gateway) as connection:
        for _ in range(4):
            connection.sendall(request)
            received = b""
            while not received.endswith(b'{"status":"live"}'):
                chunk = connection.recv(65_536)
                assert chunk, received
                received += chunk
            assert received.startswith(b"HTTP/1.1 200 ")
