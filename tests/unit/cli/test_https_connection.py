"""A bidder's side of HTTPS against gateways that lie, stall or refuse: found out, and left for another.

The gateways are real TLS servers with certificates of the cluster's authority; they hold all members' keys,
as nobody does in reality, and so can make genuine receipts as well as every kind of forgery.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import fastpath
from auction import operations
from auction.cli import sample
from auction.cli.endpoints import Endpoints
from auction.cli.failure import ExitCode, Failure
from auction.cli.free_ports import free_node_ports
from auction.cli.https_connection import HttpsConnection
from auction.cli.signing import Signer
from auction.cli.testnet import make_auction_testnet
from nodes import canonical, wire
from nodes.block import BlockHeader, result_leaf
from nodes.client.reading import share_to_json
from nodes.keys import SigningKey
from nodes.receipt import Receipt
from nodes.testnet import NodePlan, Testnet
from nodes.wire import signed

Answer = tuple[int, dict[str, Any]]
Behaviour = Callable[["Forge", str, str | None, dict[str, Any]], Answer]
"""(forge, path, nonce, body) -> (status, document)."""


class Forge:
    """Makes what nodes make, with the keys of all members."""

    def __init__(self, testnet: Testnet) -> None:
        self.cluster = testnet.cluster
        self._keys = [SigningKey.load(folder / "consensus.key") for folder in testnet.nodes]

    def receipt(self, body: dict[str, Any], *, status: int = 0, signers: int = 3, liars: int = 0) -> Receipt:
        """A receipt of the posted operation as the only leaf of block 1; `liars` of the signatures are invalid."""
        fields = {name: base64.b64decode(body[name]) for name in ("public_key", "operation", "signature")}
        unsigned = wire.unsigned_record(
            self.cluster.cluster_id,
            fields["public_key"],
            body["session"],
            body["sequence"],
            body["floor"],
            body["valid_until_us"],
            fields["operation"],
        )
        record = unsigned + fields["signature"]
        digest = wire.parse_record(record, self.cluster.cluster_id).digest
        result = canonical.encode({"effects": []})
        header = BlockHeader(
            cluster_id=self.cluster.cluster_id,
            epoch=0,
            sequence=1,
            previous_block_hash=self.cluster.config_hash,
            order_hash=bytes(32),
            digest=bytes(32),
            time_us=self.cluster.genesis_time_us + 1,
            result_count=1,
            results_root=fastpath.merkle_root([result_leaf(1, 0, digest, status, result)]),
            write_set_hash=bytes(32),
            state_sequence=0,
            state_root=bytes(32),
            config_hash=self.cluster.config_hash,
        )
        statement = signed.attest_bytes(self.cluster.cluster_id, 0, 1, header.order_hash, header.hash)
        return Receipt.build(
            header=header,
            index=0,
            status=status,
            result=result,
            path=b"",
            record=record,
            attestations=[
                (replica, self._keys[replica].sign(statement if replica >= liars else b"something else"))
                for replica in range(signers)
            ],
        )

    def answer(
        self, body: dict[str, Any], nonce: bytes, result: bytes, signers: tuple[int, ...] = (0, 1, 2)
    ) -> dict[str, Any]:
        """The result of a query with a share of each signer."""
        query = base64.b64decode(body["query"])
        caller = base64.b64decode(body["public_key"]) if "public_key" in body else None
        shares = []
        for replica in signers:
            share = wire.ReadShare(
                nonce=nonce,
                read_digest=wire.read_digest(query, caller),
                result_hash=fastpath.sha256(result),
                executed=7,
                block_hash=bytes(32),
                time_us=1,
                leaf_index=0,
                leaf_count=1,
                path=b"",
                signature=bytes(64),
            )
            root = wire.share_leaf(nonce, share.read_digest, share.result_hash, 7, bytes(32), 1)
            signature = self._keys[replica].sign(signed.read_root_bytes(self.cluster.cluster_id, 0, root))
            shares.append(share_to_json(replica, replace(share, signature=signature)))
        return {"result": base64.b64encode(result).decode(), "shares": shares}


@dataclass
class Gateways:
    """Four servers; each behaves as told and counts what it was asked."""

    testnet: Testnet
    behaviours: dict[int, Behaviour]
    asked: dict[int, int]

    def connection(self, node: int | None = None) -> HttpsConnection:
        return HttpsConnection(self.testnet.cluster, Endpoints.load(self.testnet.folder / "endpoints.json"), node)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    plans = [
        NodePlan(f"node{replica}", "127.0.0.1", ports, "127.0.0.1")
        for replica, ports in enumerate(free_node_ports("127.0.0.1", 4))
    ]
    testnet = make_auction_testnet(tmp_path_factory.mktemp("gateways") / "net", plans, sample.make_keys())
    gateways = Gateways(testnet, {}, {})
    forge = Forge(testnet)
    running = []
    for replica, folder in enumerate(testnet.nodes):
        server = ThreadingHTTPServer(("127.0.0.1", plans[replica].ports.https), _handler(gateways, forge, replica))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(folder / "tls.pem", folder / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        running.append((server, thread))
    yield gateways
    for server, thread in running:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(gateways: Gateways, forge: Forge, replica: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            gateways.asked[replica] = gateways.asked.get(replica, 0) + 1
            status, document = gateways.behaviours[replica](forge, self.path, self.headers["Arremate-Nonce"], body)
            data = canonical.encode(document)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


@pytest.fixture
def gateways(servers: Gateways) -> Gateways:
    servers.behaviours = dict.fromkeys(range(4), honest)
    servers.asked = {}
    return servers


def honest(forge: Forge, path: str, nonce: str | None, body: dict[str, Any]) -> Answer:
    if path == "/v1/operations":
        return 201, canonical.decode(forge.receipt(body).to_json(), 1 << 20)
    assert nonce is not None
    return 200, forge.answer(body, bytes.fromhex(nonce), b'{"auctions":[]}')


def refusing(forge: Forge, path: str, nonce: str | None, body: dict[str, Any]) -> Answer:
    return 503, {"code": "overloaded", "detail": "go away"}


def broken(forge: Forge, path: str, nonce: str | None, body: dict[str, Any]) -> Answer:
    return 500, {}


def few_signers(forge: Forge, path: str, nonce: str | None, body: dict[str, Any]) -> Answer:
    if path == "/v1/operations":
        return 201, canonical.decode(forge.receipt(body, signers=2).to_json(), 1 << 20)
    assert nonce is not None
    return 200, forge.answer(body, bytes.fromhex(nonce), b"{}", (0, 1))


def forging(forge: Forge, path: str, nonce: str | None, body: dict[str, Any]) -> Answer:
    if path == "/v1/operations":
        return 201, canonical.decode(forge.receipt(body, liars=1).to_json(), 1 << 20)
    assert nonce is not None
    answer = forge.answer(body, bytes.fromhex(nonce), b"{}")
    return 200, {**answer, "result": base64.b64encode(b'{"auctions":[1]}').decode()}


def foreign(forge: Forge, path: str, nonce: str | None, body: dict[str, Any]) -> Answer:
    """A genuine receipt, of something else; a genuine answer, to an earlier nonce."""
    if path == "/v1/operations":
        other = Signer(SigningKey.generate()).sign(forge.cluster.cluster_id, b"{}")
        posted = {
            "public_key": base64.b64encode(other.request.client).decode(),
            "session": other.request.session,
            "sequence": 1,
            "floor": 1,
            "valid_until_us": other.request.valid_until_us,
            "operation": base64.b64encode(b"{}").decode(),
            "signature": base64.b64encode(other.signature).decode(),
        }
        return 201, canonical.decode(forge.receipt(posted).to_json(), 1 << 20)
    return 200, forge.answer(body, bytes(16), b"{}")


def one_signer_often(forge: Forge, path: str, nonce: str | None, body: dict[str, Any]) -> Answer:
    if path == "/v1/operations":
        return few_signers(forge, path, nonce, body)
    assert nonce is not None
    return 200, forge.answer(body, bytes.fromhex(nonce), b"{}", (0, 0, 0))


LIARS = (few_signers, forging, foreign, one_signer_often)


def request(gateways: Gateways) -> Any:
    signer = Signer(SigningKey.load(gateways.testnet.clients["issuer"]))
    return signer.sign(gateways.testnet.cluster.cluster_id, operations.mint("ab" * 16, 5))


def test_receipt_of_an_honest_gateway_is_taken_at_once(gateways: Gateways) -> None:
    wanted = request(gateways)
    receipt = gateways.connection().submit(wanted, 5)
    assert receipt.digest == wanted.digest
    assert gateways.asked == {0: 1}


def test_refusal_with_a_receipt_is_an_outcome(gateways: Gateways) -> None:
    def refuse(forge: Forge, path: str, nonce: str | None, body: dict[str, Any]) -> Answer:
        receipt = canonical.decode(forge.receipt(body, status=108).to_json(), 1 << 20)
        return 422, {"code": "ok", "receipt": receipt}

    gateways.behaviours[0] = refuse
    assert gateways.connection(0).submit(request(gateways), 5).status == 108


@pytest.mark.parametrize("behaviour", [*LIARS, refusing, broken])
def test_bad_gateway_is_left_for_another_with_the_same_bytes(gateways: Gateways, behaviour: Behaviour) -> None:
    gateways.behaviours |= {0: behaviour, 1: behaviour}
    wanted = request(gateways)
    assert gateways.connection().submit(wanted, 5).digest == wanted.digest
    assert gateways.asked == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize("behaviour", LIARS)
def test_only_liars_left_is_a_failed_verification(gateways: Gateways, behaviour: Behaviour) -> None:
    gateways.behaviours = dict.fromkeys(range(4), behaviour)
    with pytest.raises(Failure) as caught:
        gateways.connection().submit(request(gateways), 0.5)
    assert caught.value.exit_code is ExitCode.VERIFICATION_FAILED
    assert min(gateways.asked.values()) >= 1


@pytest.mark.parametrize("behaviour", [refusing, broken])
def test_only_refusals_left_is_no_quorum_with_the_code_of_the_gateway(gateways: Gateways, behaviour: Behaviour) -> None:
    gateways.behaviours = dict.fromkeys(range(4), behaviour)
    with pytest.raises(Failure) as caught:
        gateways.connection().submit(request(gateways), 0.5)
    assert caught.value.exit_code is ExitCode.NO_QUORUM


@pytest.mark.parametrize("behaviour", [*LIARS, refusing, broken])
def test_wrong_answer_to_a_query_is_left_for_another(gateways: Gateways, behaviour: Behaviour) -> None:
    gateways.behaviours[0] = behaviour
    assert gateways.connection().query({"query": "auctions"}, None, 5) == {"auctions": []}
    assert gateways.asked == {0: 1, 1: 1}


def test_signed_query_is_asked_for_its_caller(gateways: Gateways) -> None:
    signer = Signer(SigningKey.load(gateways.testnet.clients["alice"]))
    assert gateways.connection(2).query({"query": "auctions"}, signer, 5) == {"auctions": []}


def test_answer_for_another_caller_does_not_verify(gateways: Gateways) -> None:
    def for_nobody(forge: Forge, path: str, nonce: str | None, body: dict[str, Any]) -> Answer:
        return honest(forge, path, nonce, {"query": body["query"]})

    gateways.behaviours = dict.fromkeys(range(4), for_nobody)
    signer = Signer(SigningKey.load(gateways.testnet.clients["alice"]))
    with pytest.raises(Failure) as caught:
        gateways.connection().query({"query": "balance"}, signer, 0.5)
    assert (caught.value.exit_code, caught.value.code) == (ExitCode.VERIFICATION_FAILED, "insufficient_shares")


def unproven(forge: Forge, path: str, nonce: str | None, body: dict[str, Any]) -> Answer:
    return 401, {"code": "bad_signature", "detail": "says the gateway"}


def test_refusal_without_a_receipt_is_one_gateways_word(gateways: Gateways) -> None:
    gateways.behaviours |= {0: unproven, 1: unproven, 2: unproven}
    wanted = request(gateways)
    assert gateways.connection().submit(wanted, 5).digest == wanted.digest


def test_refusal_without_a_receipt_is_believed_when_every_node_says_so(gateways: Gateways) -> None:
    gateways.behaviours = dict.fromkeys(range(4), unproven)
    with pytest.raises(Failure) as caught:
        gateways.connection().submit(request(gateways), 5)
    assert (caught.value.exit_code, caught.value.code) == (ExitCode.REFUSED, "bad_signature")
    assert gateways.asked == {0: 1, 1: 1, 2: 1, 3: 1}


def test_gateway_of_another_authority_is_not_talked_to(gateways: Gateways, tmp_path: Path) -> None:
    plans = [
        NodePlan(f"node{member.replica}", "127.0.0.1", free_node_ports("127.0.0.1", 1)[0], "127.0.0.1")
        for member in gateways.testnet.cluster.members
    ]
    other = make_auction_testnet(tmp_path / "other", plans, sample.make_keys())
    endpoints = Endpoints.load(gateways.testnet.folder / "endpoints.json")
    connection = HttpsConnection(gateways.testnet.cluster, replace(endpoints, ca=other.authority), None)
    with pytest.raises(Failure, match="certificate") as caught:
        connection.submit(request(gateways), 0.5)
    assert caught.value.exit_code is ExitCode.NO_QUORUM
    assert gateways.asked == {}
