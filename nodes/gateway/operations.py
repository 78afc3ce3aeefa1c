"""POST /v1/operations and GET /v1/receipts/{digest}: the hot route, and the proof of what came of it.

An operation is decoded strictly, its signature is verified here (so that a forged one costs the replicas
nothing), and it goes the way of every client. The answer is a receipt, or a problem that contains one; the
bidder checks it and need not believe this gateway.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from nodes.client.errors import ClientError, Refused
from nodes.gateway import openapi
from nodes.gateway.bodies import OperationBody, decode, decode_base64, decode_hex
from nodes.gateway.problem import Problem, problem_of
from nodes.gateway.service import Gateway, address_of, gateway_of
from nodes.receipt import Receipt, SignedOperation

WAIT_MAX_S = 60
ASYNC_TIMEOUT_MS = 60_000
"""An operation that nobody waits for is sent again for as long as it is usually valid."""
_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,4})\"?\Z")
router = APIRouter(tags=["operations"])


@dataclass(frozen=True, slots=True)
class Preference:
    """What `Prefer` (RFC 7240) asks for."""

    respond_async: bool
    wait_ms: int
    applied: str

    @staticmethod
    def parse(values: list[str], default_ms: int) -> Preference:
        """Unknown preferences are ignored, as the RFC says; a wait is at most `WAIT_MAX_S`."""
        wait_ms, respond_async, applied = default_ms, False, []
        for item in ",".join(values).split(","):
            text = item.strip().lower()
            match = _WAIT.match(text)
            if text == "respond-async":
                respond_async = True
                applied.append(text)
            elif match is not None:
                wait_s = min(WAIT_MAX_S, int(match[1]))
                wait_ms = max(1, wait_s * 1_000)
                applied.append(f"wait={wait_s}")
        return Preference(respond_async, wait_ms, ", ".join(applied))


@router.post("/v1/operations", openapi_extra=openapi.POST_OPERATION, responses=openapi.OPERATION_RESPONSES)
async def post_operation(request: Request) -> Response:
    """Have a signed operation ordered and executed, exactly once however often and wherever it is posted."""
    gateway = gateway_of(request)
    require_json(request)
    record, body, public_key = _record(gateway, await request.body())
    prefer = Preference.parse(request.headers.getlist("prefer"), gateway.config.timeouts.response_ms)
    digest = _verified_digest(gateway, request, record)
    gateway.key_limit.take(public_key, time.monotonic())
    headers = {"location": f"/v1/receipts/{digest.hex()}", "cache-control": "no-store"}
    if prefer.applied:
        headers["preference-applied"] = prefer.applied
    if prefer.respond_async:
        gateway.keep(asyncio.create_task(_submit_unattended(gateway, record)))
        document = msgspec.json.encode({"digest": digest.hex(), "sequence": body.sequence, "session": body.session})
        return Response(document, 202, headers, "application/json")
    return await _submit(gateway, record, prefer.wait_ms, headers)


@router.get("/v1/receipts/{digest}", responses=openapi.RECEIPT_RESPONSES)
async def get_receipt(request: Request, digest: str) -> Response:
    """The receipt of an executed operation, accepted or refused, or of a deadline that has fired."""
    gateway = gateway_of(request)
    gateway.take_read(request)
    key = decode_hex("the digest of an operation", digest, 32)
    try:
        receipt = await gateway.client.receipt(key)
    except ClientError as error:
        if error.code == "not_found":
            detail = f"{error.detail}; if it was posted just now, ask again, or post the same bytes"
            raise Problem("not_found", detail) from error
        raise problem_of(error) from error
    return Response(receipt.to_json(), 200, {"cache-control": "no-store"}, "application/json")


def require_json(request: Request) -> None:
    """Problem unless the body says that it is JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem("unsupported_media_type", "send the header content-type: application/json")


def _record(gateway: Gateway, data: bytes) -> tuple[bytes, OperationBody, bytes]:
    """The REQUEST record of a body."""
    body = decode(data, OperationBody)
    if body.floor > body.sequence:
        raise Problem("malformed", f"floor {body.floor} is above sequence {body.sequence}")
    limit = gateway.cluster.parameters.operation_bytes_max
    operation = SignedOperation(
        public_key=decode_base64("public_key", body.public_key, size=32),
        session=body.session,
        sequence=body.sequence,
        floor=body.floor,
        valid_until_us=body.valid_until_us,
        operation=decode_base64("operation", body.operation, size_max=limit),
        signature=decode_base64("signature", body.signature, size=64),
    )
    return operation.record(gateway.cluster.cluster_id), body, operation.public_key


def _verified_digest(gateway: Gateway, request: Request, record: bytes) -> bytes:
    """The digest, or the Problem `bad_signature`; whoever sends many of those is slowed down."""
    wire = gateway.client.core.wire
    parsed = wire.parse_record(record)
    if not wire.verify_request(parsed):
        gateway.forgery_limit.take(address_of(request), time.monotonic())
        detail = "the signature is not public_key's over these fields for this cluster; see docs/receipts.md"
        raise Problem("bad_signature", detail, headers={"www-authenticate": "Signature"})
    return parsed.digest


async def _submit(gateway: Gateway, record: bytes, wait_ms: int, headers: dict[str, str]) -> Response:
    with gateway.metrics.seconds.time():
        try:
            receipt = await gateway.client.submit_signed(record, timeout_ms=wait_ms, verified=True)
        except Refused as error:
            gateway.metrics.operations.labels(error.code).inc()
            if error.receipt is None:
                raise problem_of(error) from error
            raise refusal(gateway, error.code, error.receipt, headers) from error
        except ClientError as error:
            gateway.metrics.operations.labels(error.code).inc()
            problem = problem_of(error)
            problem.headers |= headers
            raise problem from error
    gateway.metrics.operations.labels("ok").inc()
    return Response(receipt.to_json(), 201, headers, "application/json")


def refusal(gateway: Gateway, code: str, receipt: Receipt, headers: dict[str, str]) -> Problem:
    """An operation that was ordered and refused: its problem contains the proof."""
    return Problem(
        code,
        f"the rules refused it in block {receipt.header.sequence}; the receipt proves it, and it had no effect",
        status=gateway.application.http_status(code),
        title="Refused by the rules",
        headers=headers,
        members={"receipt": msgspec.Raw(receipt.to_json())},
    )


async def _submit_unattended(gateway: Gateway, record: bytes) -> None:
    """For `respond-async`: the outcome is counted, and the receipt is there to be fetched."""
    try:
        await gateway.client.submit_signed(record, timeout_ms=ASYNC_TIMEOUT_MS, verified=True)
    except ClientError as error:
        gateway.metrics.operations.labels(error.code).inc()
    else:
        gateway.metrics.operations.labels("ok").inc()
