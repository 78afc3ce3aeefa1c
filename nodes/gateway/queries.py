"""Reads: POST /v1/queries, and `answer`, with which the application's GET routes ask theirs.

A query is canonical JSON bytes; what comes back are those replicas' signed shares over (nonce, query,
result), so that the reader can check it. The strong ETag is the digest of the result.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET
from starlette.responses import Response

from nodes import canonical
from nodes.client.core import SignedQuery
from nodes.client.errors import ClientError
from nodes.client.reading import Consistency, QueryResult, share_to_json
from nodes.gateway import openapi
from nodes.gateway.bodies import QueryBody, decode, decode_base64, decode_hex, decode_query
from nodes.gateway.operations import require_json
from nodes.gateway.problem import Problem, problem_of
from nodes.gateway.service import Gateway, gateway_of

NONCE_HEADER = "arremate-nonce"
NONCE_BYTES = 16
router = APIRouter(tags=["queries"])


@router.post("/v1/queries", openapi_extra=openapi.POST_QUERY, responses=openapi.QUERY_RESPONSES)
async def post_query(request: Request) -> Response:
    """Any query; signed, it is answered in the signer's name (own balance, own ledger)."""
    gateway = gateway_of(request)
    require_json(request)
    gateway.take_read(request)
    body = decode(await request.body(), QueryBody)
    nonce = _nonce(request, body)
    signature = _signature(body)
    if signature is not None:
        if nonce is None:
            raise Problem("malformed", "a signed query needs its nonce: in the body, or in the header Arremate-Nonce")
        _check_validity(gateway, signature)
    return await _ask(gateway, request, decode_query(body.query), nonce, signature)


async def answer(request: Request, query: Mapping[str, Any], cursor: Callable[[Any], str] | None = None) -> Response:
    """Ask the replicas for an application's GET route; the consistency and nonce are the request's.

    `cursor` encodes the "next" of a page, which the answer then has as its member `cursor`.
    """
    gateway = gateway_of(request)
    gateway.take_read(request)
    try:
        payload = canonical.encode(dict(query))
    except canonical.CanonicalError as error:
        raise Problem("malformed", str(error)) from error
    return await _ask(gateway, request, payload, _nonce(request, None), None, cursor)


async def _ask(
    gateway: Gateway,
    request: Request,
    query: bytes,
    nonce: bytes | None,
    signature: SignedQuery | None,
    cursor: Callable[[Any], str] | None = None,
) -> Response:
    consistency = consistency_of(request)
    try:
        result = await gateway.client.query(
            query,
            signature or False,
            nonce=nonce or secrets.token_bytes(NONCE_BYTES),
            consistency=consistency,
            replica=gateway.config.replica if consistency is Consistency.LOCAL else None,
        )
    except ClientError as error:
        gateway.metrics.queries.labels(error.code).inc()
        raise problem_of(error) from error
    return _response(gateway, request, result, cursor)


def _response(gateway: Gateway, request: Request, result: QueryResult, cursor: Callable[[Any], str] | None) -> Response:
    shares = [share_to_json(replica, share) for replica, share in result.shares]
    members: dict[str, Any] = {
        "result": base64.b64encode(result.result).decode("ascii"),
        "value": msgspec.Raw(result.result),
        "shares": shares,
        "nonce": result.nonce.hex(),
        "consistency": result.consistency.value,
        "sequence": result.executed,
    }
    etag = f'"{result.digest.hex()}"'
    headers = {"etag": etag, NONCE_HEADER: result.nonce.hex(), "cache-control": "no-cache"}
    try:
        value = msgspec.json.decode(result.result, type=_Result)
    except msgspec.DecodeError as error:
        raise Problem("verification_failed", "the answer is not a JSON object; ask for a quorum of answers") from error
    refused = value.error
    if cursor is not None and value.next is not None:
        members["cursor"] = cursor(value.next)
    gateway.metrics.queries.labels("ok" if refused is UNSET else str(refused)).inc()
    if refused is not UNSET:
        raise Problem(
            refused,
            "the replicas' answer to this query; their shares prove it",
            status=gateway.application.http_status(refused),
            title="Refused by the rules",
            headers={NONCE_HEADER: result.nonce.hex()},
            members=members,
        )
    if request.method == "GET" and etag in _etags(request):
        return Response(status_code=304, headers=headers)
    return Response(msgspec.json.encode(members), 200, headers, "application/json")


class _Result(msgspec.Struct):
    """What the gateway looks at in a result."""

    error: str | msgspec.UnsetType = UNSET
    next: Any = None


def consistency_of(request: Request) -> Consistency:
    text = request.query_params.get("consistency", Consistency.QUORUM.value)
    try:
        return Consistency(text)
    except ValueError as error:
        raise Problem("malformed", "consistency is quorum, certified or local") from error


def _nonce(request: Request, body: QueryBody | None) -> bytes | None:
    """The caller's nonce: header (hex) or body (base64); both only if equal."""
    nonces = []
    text = request.headers.get(NONCE_HEADER)
    if text is not None:
        nonces.append(decode_hex("the header Arremate-Nonce", text, NONCE_BYTES))
    if body is not None and body.nonce is not UNSET:
        nonces.append(decode_base64("nonce", body.nonce, size=NONCE_BYTES))
    if len(set(nonces)) > 1:
        raise Problem("malformed", "the nonces of the header and of the body differ")
    return nonces[0] if nonces else None


def _signature(body: QueryBody) -> SignedQuery | None:
    fields = (body.public_key, body.valid_until_us, body.signature)
    if all(value is UNSET for value in fields):
        return None
    if body.public_key is UNSET or body.valid_until_us is UNSET or body.signature is UNSET:
        raise Problem("malformed", "a signed query has all of public_key, valid_until_us and signature")
    return SignedQuery(
        decode_base64("public_key", body.public_key, size=32),
        body.valid_until_us,
        decode_base64("signature", body.signature, size=64),
    )


def _check_validity(gateway: Gateway, signature: SignedQuery) -> None:
    now_us = time.time_ns() // 1_000
    if signature.valid_until_us < now_us:
        raise Problem("expired", "valid_until_us has passed by this node's clock; sign the query anew")
    if signature.valid_until_us > now_us + gateway.cluster.parameters.validity_max_us:
        seconds = gateway.cluster.parameters.validity_max_us // 1_000_000
        raise Problem("malformed", f"valid_until_us is more than {seconds} s ahead of this node's clock")


def _etags(request: Request) -> list[str]:
    return [text.strip() for text in request.headers.get("if-none-match", "").split(",")]
