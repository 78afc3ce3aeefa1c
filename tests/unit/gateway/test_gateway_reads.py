"""Reads over TLS: queries, the auction's routes, blocks, cluster, status, documents, events."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from typing import Any

import httpx
import pytest

import fastpath
from auction.api import encode_cursor
from nodes.config import ClusterConfig
from nodes.core.types import ReplicaId
from nodes.keys import SigningKey
from nodes.wire import Read, ReadShare

KEY = SigningKey(b"\x07" * 32)


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    return document


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def shares_of(document: dict[str, Any], nonce: bytes) -> list[tuple[int, ReadShare]]:
    """The shares of an answer as values."""
    return [
        (
            item["replica"],
            ReadShare(
                nonce=nonce,
                read_digest=bytes.fromhex(item["query_digest"]),
                result_hash=bytes.fromhex(item["result_digest"]),
                executed=item["sequence"],
                block_hash=bytes.fromhex(item["block_hash"]),
                time_us=item["block_time_us"],
                leaf_index=item["leaf_index"],
                leaf_count=item["leaf_count"],
                path=bytes.fromhex("".join(item["path"])),
                signature=bytes.fromhex(item["signature"]),
            ),
        )
        for item in document["shares"]
    ]


def test_read_carries_q_shares_over_the_callers_nonce_that_verify(gateway: Any) -> None:
    nonce = secrets.token_bytes(16)
    answer = gateway.http.get("/v1/auctions/" + "3f" * 16, headers={"Arremate-Nonce": nonce.hex()})
    assert answer.status_code == 200
    document = answer.json()
    result = base64.b64decode(document["result"])
    assert json.loads(result) == document["value"]
    assert document["value"]["query"] == {"query": "auction", "auction": "3f" * 16}
    assert answer.headers["etag"] == f'"{fastpath.sha256(result).hex()}"'
    assert answer.headers["arremate-nonce"] == document["nonce"] == nonce.hex()
    shares = shares_of(document, nonce)
    assert len({replica for replica, _ in shares}) >= 3
    wire = gateway.servers.stub.wire
    assert all(wire.verify_share(share, ReplicaId(replica)) for replica, share in shares)
    assert {share.result_hash for _, share in shares} == {fastpath.sha256(result)}


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/v1/supply", {"query": "supply"}),
        ("/v1/auctions", {"query": "auctions", "limit": 50, "order": "descending"}),
        (
            "/v1/auctions?state=open&limit=7&order=ascending&cursor=" + encode_cursor([4, 2]),
            {"query": "auctions", "limit": 7, "order": "ascending", "state": "open", "after": [4, 2]},
        ),
        (
            f"/v1/auctions?owner={'ab' * 16}",
            {"query": "auctions", "owner": "ab" * 16, "limit": 50, "order": "descending"},
        ),
        (
            f"/v1/auctions/{'3f' * 16}/bids?limit=200",
            {"query": "bids", "auction": "3f" * 16, "limit": 200, "order": "descending"},
        ),
        (f"/v1/auctions/{'3f' * 16}/winner", {"query": "winner", "auction": "3f" * 16}),
        ("/v1/accounts/alice", {"query": "account", "account": "alice"}),
        (
            "/v1/accounts/alice/bids",
            {"query": "account_bids", "account": "alice", "limit": 50, "order": "descending"},
        ),
    ],
)
def test_each_route_asks_its_query(gateway: Any, path: str, query: dict[str, Any]) -> None:
    answer = gateway.http.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.json()["value"]["query"] == query


@pytest.mark.parametrize(
    "path",
    [
        "/v1/auctions/xyz",
        "/v1/auctions?limit=0",
        "/v1/auctions?limit=201",
        "/v1/auctions?limit=1.5",
        "/v1/auctions?state=sold",
        "/v1/auctions?owner=me",
        "/v1/auctions?cursor=***",
        "/v1/auctions?cursor=e30",
        "/v1/accounts/AB",
        "/v1/supply?consistency=best",
        "/v1/blocks/0",
        "/v1/blocks/x",
        "/v1/blocks?from=-1",
        "/v1/blocks?limit=51",
        "/v1/events?colour=red",
        "/v1/events?auction=red",
        "/v1/events?after=1-2",
    ],
)
def test_malformed_address_is_a_problem(gateway: Any, path: str) -> None:
    check_problem(gateway.http.get(path), 400, "malformed")


def test_etag_that_matches_is_304_without_a_body(gateway: Any) -> None:
    first = gateway.http.get("/v1/supply")
    second = gateway.http.get("/v1/supply", headers={"if-none-match": first.headers["etag"]})
    assert (second.status_code, second.content) == (304, b"")
    assert gateway.http.get("/v1/supply", headers={"if-none-match": '"0"'}).status_code == 200


@pytest.mark.parametrize(("consistency", "shares"), [("quorum", 3), ("certified", 3), ("local", 1)])
def test_consistency_decides_how_many_shares_there_are(gateway: Any, consistency: str, shares: int) -> None:
    document = gateway.http.get(f"/v1/supply?consistency={consistency}").json()
    assert (document["consistency"], len(document["shares"]) >= shares) == (consistency, True)
    if consistency == "local":
        assert document["shares"][0]["replica"] == 0


def test_error_of_the_rules_is_a_problem_with_its_proof(gateway: Any) -> None:
    gateway.servers.answer = lambda query, caller: b'{"error":"unknown_auction"}'
    document = check_problem(gateway.http.get("/v1/auctions/" + "00" * 16), 404, "unknown_auction")
    assert len(document["shares"]) >= 3


def test_page_has_an_opaque_cursor_while_there_is_more(gateway: Any) -> None:
    gateway.servers.answer = lambda query, caller: b'{"auctions":[],"next":[7,1]}'
    cursor = gateway.http.get("/v1/auctions").json()["cursor"]
    assert cursor == encode_cursor([7, 1])
    gateway.servers.answer = lambda query, caller: b'{"auctions":[],"next":null}'
    assert "cursor" not in gateway.http.get(f"/v1/auctions?cursor={cursor}").json()


def test_answers_that_differ_are_no_quorum(gateway: Any) -> None:
    count = iter(range(10**9))
    gateway.servers.answer = lambda query, caller: b'{"n":%d}' % next(count)
    answer = gateway.http.get("/v1/supply")
    check_problem(answer, 503, "no_quorum")
    assert answer.headers["retry-after"] == "1"


def test_local_answer_that_is_not_json_is_not_passed_on(gateway: Any) -> None:
    gateway.servers.answer = lambda query, caller: b"{{{"
    check_problem(gateway.http.get("/v1/supply?consistency=local"), 502, "verification_failed")


def signed_query(gateway: Any, valid_us: int = 60_000_000) -> tuple[dict[str, Any], bytes]:
    nonce = secrets.token_bytes(16)
    valid_until_us = time.time_ns() // 1_000 + valid_us
    read = gateway.servers.stub.wire.sign_read(Read(nonce, False, b'{"query":"balance"}'), KEY, valid_until_us)
    body = {
        "query": text(read.query),
        "public_key": text(KEY.public_key),
        "valid_until_us": valid_until_us,
        "nonce": text(nonce),
        "signature": text(read.signature),
    }
    return body, nonce


def test_signed_query_is_answered_in_the_signers_name(gateway: Any) -> None:
    body, nonce = signed_query(gateway)
    document = gateway.http.post("/v1/queries", json=body).json()
    assert document["value"] == {"caller": KEY.public_key.hex(), "query": {"query": "balance"}}
    assert document["nonce"] == nonce.hex()
    body, nonce = signed_query(gateway)
    del body["nonce"]
    answer = gateway.http.post("/v1/queries", json=body, headers={"Arremate-Nonce": nonce.hex()})
    assert answer.json()["value"]["caller"] == KEY.public_key.hex()


def test_unsigned_query_is_answered_to_anybody(gateway: Any) -> None:
    document = gateway.http.post("/v1/queries", json={"query": text(b'{"query":"supply"}')}).json()
    assert document["value"] == {"caller": None, "query": {"query": "supply"}}


def test_signed_query_that_is_not_sound_is_refused(gateway: Any) -> None:
    def refused(status: int, code: str, body: dict[str, Any], **headers: str) -> None:
        check_problem(gateway.http.post("/v1/queries", json=body, headers=headers), status, code)

    body, _ = signed_query(gateway)
    refused(401, "bad_signature", {**body, "signature": text(bytes(64))})
    refused(401, "bad_signature", {**body, "nonce": text(bytes(16))})
    refused(401, "bad_signature", {**body, "query": text(b"{}")})
    refused(400, "malformed", {name: body[name] for name in body if name != "nonce"})
    refused(400, "malformed", {name: body[name] for name in body if name != "public_key"})
    refused(400, "malformed", {**body, "extra": 1})
    refused(400, "malformed", {**body, "nonce": "AAAA"})
    refused(400, "malformed", body, **{"Arremate-Nonce": "00" * 16})
    refused(400, "malformed", {"query": text(b"{}")}, **{"Arremate-Nonce": "XY" * 16})
    refused(410, "expired", signed_query(gateway, -2_000_000)[0])
    refused(400, "malformed", signed_query(gateway, 700_000_000)[0])
    refused(413, "too_large", {"query": text(bytes(16_385))})


def test_blocks_come_with_a_quorum_of_attestations(gateway: Any) -> None:
    stub = gateway.servers.stub
    while len(stub.blocks) < 3:
        stub.execute(stub.other_leaf(9_000 + len(stub.blocks)))
    document = gateway.http.get("/v1/blocks/2").json()
    assert document["block_hash"] == stub.blocks[1].header.hash.hex()
    assert document["block"]["sequence"] == 2
    assert len(document["attestations"]) == 3
    count = len(stub.blocks)
    page = gateway.http.get(f"/v1/blocks?from={count - 1}&limit=10").json()
    assert [block["block"]["sequence"] for block in page["blocks"]] == [count - 1, count]
    assert page["next"] == count + 1
    assert gateway.http.get(f"/v1/blocks?from={count + 1}").json() == {"blocks": [], "next": count + 1}
    check_problem(gateway.http.get("/v1/blocks/99999"), 404, "not_found")


def test_cluster_gives_the_genesis(gateway: Any) -> None:
    document = gateway.http.get("/v1/cluster").json()
    encoded = json.dumps(document["genesis"], sort_keys=True, separators=(",", ":")).encode()
    assert ClusterConfig.from_bytes(encoded).cluster_id.hex() == document["cluster"]
    assert document["quorum"] == 3


def test_status_live_and_ready(gateway: Any) -> None:
    status = gateway.http.get("/v1/status").json()
    assert (status["replica"], status["view"], status["gateway"]["fastpath"]) == (0, 0, fastpath.BUILD)
    assert gateway.http.get("/livez").json() == {"status": "live"}
    assert gateway.http.get("/readyz").json() == {"status": "ready", "quorum": 3}
    gateway.servers.silent = {0, 1}
    check_problem(gateway.http.get("/readyz"), 503, "no_quorum")
    check_problem(gateway.http.get("/v1/status"), 503, "no_quorum")
    assert gateway.http.get("/livez").status_code == 200


def test_openapi_describes_every_route_with_schemas_that_resolve(gateway: Any) -> None:
    document = gateway.http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    paths = document["paths"]
    assert {"/v1/operations", "/v1/queries", "/v1/events", "/v1/auctions", "/v1/accounts/{account}"} <= paths.keys()
    assert "requestBody" in paths["/v1/operations"]["post"]
    schemas = document["components"]["schemas"]
    references = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                references.add(value["$ref"])
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(document)
    assert {reference.rsplit("/", 1)[1] for reference in references} <= schemas.keys()
    assert "HTTPValidationError" not in json.dumps(document)
    for path in paths.values():
        for operation in path.values():
            assert operation["description"]
            assert "200" in operation["responses"] or "201" in operation["responses"]


def test_docs_page_needs_no_script_and_no_foreign_asset(gateway: Any) -> None:
    answer = gateway.http.get("/docs")
    assert "POST /v1/operations" in answer.text
    assert "<script" not in answer.text
    assert "src=" not in answer.text
    assert "http:" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_security_headers_are_on_every_answer(gateway: Any) -> None:
    for path in ("/livez", "/v1/none", "/docs"):
        headers = gateway.http.get(path).headers
        assert headers["strict-transport-security"].startswith("max-age=")
        assert headers["x-frame-options"] == "DENY"
        assert "server" not in headers


class Events:
    """The application's events, as its query gives them."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def add(self, auction: str) -> None:
        number = len(self.all)
        self.all.append(
            {"sequence": number // 2 + 1, "index": 0, "effect": number % 2, "kind": "bid", "auction": auction}
        )

    def answer(self, query: bytes, caller: bytes | None) -> bytes:
        asked = json.loads(query)
        after = tuple(asked.get("after", (0, 0, -1)))
        rows = [one for one in self.all if (one["sequence"], one["index"], one["effect"]) > after]
        if "auction" in asked:
            rows = [one for one in rows if one["auction"] == asked["auction"]]
        if asked.get("order") == "descending":
            rows = [*reversed(self.all)]
        page = rows[: asked["limit"]]
        following = [1] if len(page) == asked["limit"] else None
        return json.dumps({"events": page, "next": following}, sort_keys=True, separators=(",", ":")).encode()


def read_events(gateway: Any, count: int, path: str, **headers: str) -> list[tuple[str, dict[str, Any]]]:
    """The first events of a stream, as (id, event)."""
    seen: list[tuple[str, dict[str, Any]]] = []
    identifier = ""
    with gateway.http.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("id: "):
                identifier = line[4:]
            elif line.startswith("data: "):
                seen.append((identifier, json.loads(line[6:])))
                if len(seen) == count:
                    break
    return seen


def test_events_resume_after_last_event_id_without_gap_or_duplicate(gateway: Any) -> None:
    events = Events()
    gateway.servers.answer = events.answer
    for number in range(300):
        events.add("aa" * 16 if number % 3 else "bb" * 16)
    seen = read_events(gateway, 299, "/v1/events", **{"Last-Event-ID": "1-0-0"})
    assert [event for _, event in seen] == events.all[1:]
    assert seen[0][0] == "1-0-1"
    resumed = read_events(gateway, 100, f"/v1/events?after={seen[198][0]}")
    assert resumed == seen[199:]
    filtered = read_events(gateway, 100, f"/v1/events?auction={'bb' * 16}&after=0-0-0")
    assert [event for _, event in filtered] == [one for one in events.all if one["auction"] == "bb" * 16]


def test_events_are_live_and_begin_with_now(gateway: Any) -> None:
    events = Events()
    gateway.servers.answer = events.answer
    for _ in range(10):
        events.add("aa" * 16)
    seen: list[Any] = []
    reader = threading.Thread(target=lambda: seen.extend(read_events(gateway, 3, "/v1/events")))
    reader.start()
    hub = gateway.app.state.gateway.hub
    deadline = time.monotonic() + 10
    while hub._base is None:
        assert time.monotonic() < deadline
        reader.join(0.01)
    for _ in range(3):
        events.add("aa" * 16)
        assert gateway.http.post("/v1/operations", json=gateway.body()).status_code == 201
    reader.join(10)
    assert [event for _, event in seen] == events.all[10:]


def test_event_streams_are_bounded(gateway: Any) -> None:
    hub = gateway.app.state.gateway.hub
    hub.subscribers += 256
    try:
        check_problem(gateway.http.get("/v1/events"), 503, "overloaded")
    finally:
        hub.subscribers -= 256


def test_metrics_count_outcomes(gateway: Any) -> None:
    registry = gateway.app.state.metrics.registry
    before = registry.get_sample_value("gateway_operations_total", {"code": "ok"}) or 0
    gateway.http.post("/v1/operations", json=gateway.body())
    assert registry.get_sample_value("gateway_operations_total", {"code": "ok"}) == before + 1
