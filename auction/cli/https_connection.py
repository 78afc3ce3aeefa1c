"""HTTPS to the nodes' gateways: sign here, verify here, go on to the next node when one does not answer well.

The TLS authority of the cluster authenticates the gateway; but a gateway holds nothing that matters, so
what it says is checked all the same: receipts against the genesis, shares of a query against the members'
keys. A gateway whose answer does not verify is left for another; only when none is left does it fail.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx

import fastpath
from auction.cli.endpoints import Endpoints, NodeEndpoint
from auction.cli.failure import ExitCode, Failure, unreachable, unverified, usage
from auction.cli.server_events import read_events
from auction.cli.shares import share_from_json
from auction.cli.signing import SignedRequest, Signer, sign_query
from nodes import canonical, wire
from nodes.config import ClusterConfig
from nodes.core.types import ReplicaId
from nodes.receipt import Receipt, ReceiptError

T = TypeVar("T")
RETRY_PAUSE_S = 0.2
CONNECT_TIMEOUT_S = 3.0


class HttpsConnection:
    """A `Connection` through the gateway of one node, or of any."""

    def __init__(self, cluster: ClusterConfig, endpoints: Endpoints, node: int | None) -> None:
        self.cluster = cluster
        self._nodes = [endpoints.node(node)] if node is not None else list(endpoints.nodes)
        try:
            context = ssl.create_default_context(cafile=str(endpoints.ca))
        except OSError as error:
            raise usage("no_ca", f"cannot use {endpoints.ca}: {error.strerror}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._http = httpx.Client(verify=context, trust_env=False)

    def submit(self, request: SignedRequest, timeout_s: float) -> Receipt:
        fields = request.request
        body = {
            "public_key": _base64(fields.client),
            "session": fields.session,
            "sequence": fields.sequence,
            "floor": fields.floor,
            "valid_until_us": fields.valid_until_us,
            "operation": _base64(request.operation),
            "signature": _base64(request.signature),
        }

        def post(node: NodeEndpoint, left_s: float) -> Receipt:
            answer = self._http.post(
                f"{node.https}/v1/operations",
                json=body,
                headers={"Prefer": f"wait={max(1, int(left_s))}"},
                timeout=httpx.Timeout(left_s + 2.0, connect=CONNECT_TIMEOUT_S),
            )
            return self._receipt_in(node, answer, request.digest)

        return self._at_some_node(post, timeout_s)

    def query(self, query: dict[str, Any], signer: Signer | None, timeout_s: float) -> dict[str, Any]:
        payload = canonical.encode(query)
        nonce = secrets.token_bytes(16)
        body: dict[str, Any] = {"query": _base64(payload)}
        caller = None
        if signer is not None:
            caller, valid_until_us, signature = sign_query(signer, self.cluster.cluster_id, nonce, payload)
            body |= {
                "public_key": _base64(caller),
                "valid_until_us": valid_until_us,
                "signature": _base64(signature),
            }

        def post(node: NodeEndpoint, left_s: float) -> dict[str, Any]:
            answer = self._http.post(
                f"{node.https}/v1/queries",
                json=body,
                headers={"Arremate-Nonce": nonce.hex()},
                timeout=httpx.Timeout(left_s, connect=CONNECT_TIMEOUT_S),
            )
            document = _document(node, answer)
            if "shares" not in document:
                raise _problem(node, answer, document)
            return self._verified_result(node, document, nonce, wire.read_digest(payload, caller))

        return self._at_some_node(post, timeout_s)

    def receipt(self, digest: bytes, timeout_s: float) -> Receipt:
        def get(node: NodeEndpoint, left_s: float) -> Receipt:
            answer = self._http.get(
                f"{node.https}/v1/receipts/{digest.hex()}", timeout=httpx.Timeout(left_s, connect=CONNECT_TIMEOUT_S)
            )
            return self._receipt_in(node, answer, digest)

        return self._at_some_node(get, timeout_s)

    def events(self, auction: str | None, after: tuple[int, int, int]) -> Iterator[dict[str, Any]]:
        """Server-sent events; the next node goes on where one stops."""
        last = "-".join(str(part) for part in after)
        while True:
            failures = 0
            for node in self._nodes:
                try:
                    for identifier, event in read_events(self._http, node.https, auction, last):
                        last = identifier
                        yield event
                except httpx.HTTPError:
                    failures += 1
            if failures == len(self._nodes):
                raise unreachable("no node streams events")

    def close(self) -> None:
        self._http.close()

    def _at_some_node(self, ask: Callable[[NodeEndpoint, float], T], timeout_s: float) -> T:
        """Ask one node after the other until one answers well; the last failure when none did in time.

        A refusal without a receipt is one gateway's word: it counts only when every node says so.
        """
        deadline = time.monotonic() + timeout_s
        failure = unreachable("no node was asked")
        while True:
            refusals = 0
            for node in self._nodes:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise failure
                try:
                    return ask(node, left_s)
                except httpx.HTTPError as error:
                    failure = unreachable(f"{node.https}: {error or type(error).__name__}")
                except Failure as answered:
                    failure = answered
                    refusals += answered.exit_code is ExitCode.REFUSED
            if refusals == len(self._nodes):
                raise failure
            time.sleep(min(RETRY_PAUSE_S, max(0.0, deadline - time.monotonic())))

    def _receipt_in(self, node: NodeEndpoint, answer: httpx.Response, digest: bytes) -> Receipt:
        document = _document(node, answer)
        if "attestations" not in document and "receipt" not in document:
            raise _problem(node, answer, document)
        try:
            receipt = Receipt.from_json(canonical.encode(document.get("receipt", document)))
            verified = receipt.verify(self.cluster)
        except (ReceiptError, ValueError) as error:
            code = error.code if isinstance(error, ReceiptError) else "malformed_receipt"
            raise unverified(code, f"{node.https} gave a receipt that does not verify: {error}") from error
        if verified.digest != digest:
            raise unverified("foreign_receipt", f"{node.https} gave the receipt of something else")
        return receipt

    def _verified_result(
        self, node: NodeEndpoint, document: dict[str, Any], nonce: bytes, digest: bytes
    ) -> dict[str, Any]:
        """The result, once q distinct members have signed it for our nonce and our query."""
        try:
            result = base64.b64decode(document["result"], validate=True)
            shares = [share_from_json(item, nonce) for item in document["shares"]]
        except (KeyError, TypeError, ValueError) as error:
            raise unverified("malformed_answer", f"{node.https}: {error!r}") from error
        expected = fastpath.sha256(result)
        signers = {
            replica
            for replica, share in shares
            if share.read_digest == digest and share.result_hash == expected and self._is_signed(replica, share)
        }
        if len(signers) < self.cluster.quorum:
            detail = f"{node.https}: {len(signers)} genuine shares, {self.cluster.quorum} are needed"
            raise unverified("insufficient_shares", detail)
        value: dict[str, Any] = json.loads(result)
        return value

    def _is_signed(self, replica: int, share: wire.ReadShare) -> bool:
        member = self.cluster.member(ReplicaId(replica))
        return member is not None and wire.share_is_signed(
            share, self.cluster.cluster_id, self.cluster.epoch, member.consensus_key
        )


def _document(node: NodeEndpoint, answer: httpx.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError as error:
        raise unreachable(f"{node.https} answered {answer.status_code} without JSON") from error
    if not isinstance(document, dict):
        raise unreachable(f"{node.https} answered {answer.status_code} with something unknown")
    return document


def _problem(node: NodeEndpoint, answer: httpx.Response, document: dict[str, Any]) -> Failure:
    """A problem+json without a receipt: nothing was ordered, or nobody knows."""
    code = str(document.get("code", f"http_{answer.status_code}"))
    detail = f"{node.https}: {document.get('detail') or document.get('title') or answer.reason_phrase}"
    if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return Failure(ExitCode.NO_QUORUM, code, detail, hint=_retry_hint(answer))
    return Failure(ExitCode.REFUSED, code, detail)


def _retry_hint(answer: httpx.Response) -> str:
    after = answer.headers.get("retry-after")
    return f"try again in {after} s" if after else ""


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
