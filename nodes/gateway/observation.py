"""What the cluster and this node look like: blocks, cluster, status, liveness, readiness, events."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response, StreamingResponse

import fastpath
from nodes.block import BlockHeader
from nodes.client.errors import ClientError, NoQuorum, NotFound
from nodes.client.pending import AttestedBlock
from nodes.gateway import openapi
from nodes.gateway.events import TooManySubscribersError, event_id, parse_event_id
from nodes.gateway.problem import Problem, problem_of, retry_headers
from nodes.gateway.service import Gateway, gateway_of

BLOCKS_MAX = 50
READY_TIMEOUT_MS = 1_000
RETRY_SUBSCRIBERS_S = 10.0
Sequence = Annotated[int, Path(ge=1, le=2**53 - 1)]
router = APIRouter(tags=["observation"])


@router.get("/v1/blocks/{sequence}", responses=openapi.BLOCK_RESPONSES)
async def get_block(request: Request, sequence: Sequence) -> Response:
    """A block header with the attestations of a quorum."""
    gateway = gateway_of(request)
    gateway.take_read(request)
    try:
        return _json(_block(await gateway.client.block(sequence)))
    except ClientError as error:
        raise problem_of(error) from error


@router.get("/v1/blocks", responses=openapi.BLOCKS_RESPONSES)
async def get_blocks(
    request: Request,
    first: Annotated[int, Query(alias="from", ge=1, le=2**53 - 1)] = 1,
    limit: Annotated[int, Query(ge=1, le=BLOCKS_MAX)] = 20,
) -> Response:
    """Consecutive block headers with attestations, up to the newest."""
    gateway = gateway_of(request)
    gateway.take_read(request)
    calls = (gateway.client.block(sequence) for sequence in range(first, first + limit))
    found = await asyncio.gather(*calls, return_exceptions=True)
    blocks: list[dict[str, Any]] = []
    for outcome in found:
        if isinstance(outcome, NotFound):
            break
        if isinstance(outcome, ClientError):
            if blocks:
                break
            raise problem_of(outcome) from outcome
        if isinstance(outcome, BaseException):
            raise outcome
        blocks.append(_block(outcome))
    return _json({"blocks": blocks, "next": first + len(blocks)})


@router.get("/v1/status", responses=openapi.STATUS_RESPONSES)
async def get_status(request: Request) -> Response:
    """This node's own, unsigned word about itself."""
    gateway = gateway_of(request)
    try:
        document = await gateway.client.status(gateway.config.replica, timeout_ms=READY_TIMEOUT_MS)
    except NoQuorum as error:
        raise Problem("no_quorum", f"this node's replica does not answer its gateway: {error.detail}") from error
    return _json({**document, "gateway": _gateway_status(gateway)})


@router.get("/v1/cluster", responses=openapi.CLUSTER_RESPONSES)
async def get_cluster(request: Request) -> Response:
    """The genesis, and the time of the newest block for clients whose clock is wrong."""
    gateway = gateway_of(request)
    latest = None
    try:
        sequence = await _newest_sequence(gateway)
        if sequence:
            header, _ = await gateway.client.block(sequence, timeout_ms=READY_TIMEOUT_MS)
            latest = {"sequence": header.sequence, "block_hash": header.hash.hex(), "time_us": header.time_us}
    except ClientError:
        latest = None  # the genesis is of use without it
    cluster = gateway.cluster
    document = {
        "cluster": cluster.cluster_id.hex(),
        "config_hash": cluster.config_hash.hex(),
        "quorum": cluster.quorum,
        "members": [
            {"replica": member.replica, "name": member.name, "host": member.host, "https_port": member.https_port}
            for member in cluster.members
        ],
        "latest_block": latest,
        "genesis": msgspec.Raw(cluster.to_bytes()),
    }
    return _json(document)


@router.get("/livez", tags=["health"], responses=openapi.HEALTH_RESPONSES)
async def get_livez() -> Response:
    """The gateway's loop runs."""
    return _json({"status": "live"})


@router.get("/readyz", tags=["health"], responses=openapi.HEALTH_RESPONSES)
async def get_readyz(request: Request) -> Response:
    """A quorum of replicas answers this gateway."""
    gateway = gateway_of(request)
    try:
        await gateway.client.wait_for_quorum(READY_TIMEOUT_MS / 1_000)
    except NoQuorum as error:
        raise Problem("no_quorum", error.detail, headers=retry_headers(1.0)) from error
    return _json({"status": "ready", "quorum": gateway.cluster.quorum})


@router.get("/v1/events", responses=openapi.EVENTS_RESPONSES, openapi_extra=openapi.GET_EVENTS)
async def get_events(request: Request) -> Response:
    """Server-sent events; Last-Event-ID (or `after=`) resumes at any node without gap or duplicate."""
    gateway = gateway_of(request)
    gateway.take_read(request)
    filters = _filters(gateway, request)
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    try:
        after = parse_event_id(text) if text else None
    except ValueError as error:
        raise Problem("malformed", str(error)) from error
    subscription = gateway.hub.subscribe(after, filters)
    try:
        events = await subscription.__aenter__()
    except TooManySubscribersError as error:
        detail = "this node has as many event streams as it may; ask another node"
        raise Problem("overloaded", detail, headers=retry_headers(RETRY_SUBSCRIBERS_S)) from error
    except ClientError as error:
        raise problem_of(error) from error

    async def stream() -> AsyncGenerator[bytes, None]:
        try:
            yield b"retry: 2000\n\n"
            async for event in events:
                if event is None:
                    yield b": keep-alive\n\n"
                else:
                    yield b"id: %b\ndata: %b\n\n" % (event_id(event).encode(), msgspec.json.encode(event))
        except ClientError as error:
            yield b"event: problem\ndata: %b\n\n" % msgspec.json.encode({"code": error.code, "detail": error.detail})
        finally:
            await subscription.__aexit__(None, None, None)

    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(stream(), 200, headers, "text/event-stream")


def _filters(gateway: Gateway, request: Request) -> dict[str, str]:
    known = gateway.application.event_filters
    filters: dict[str, str] = {}
    for name, value in request.query_params.items():
        if name == "after":
            continue
        if name not in known:
            raise Problem(
                "malformed", f"events cannot be filtered by {name[:40]!r}; known: {', '.join(known) or 'none'}"
            )
        if not re.fullmatch(known[name], value):
            raise Problem("malformed", f"{name} does not have the form {known[name]}")
        filters[name] = value
    return filters


async def _newest_sequence(gateway: Gateway) -> int:
    document = await gateway.client.status(gateway.config.replica, timeout_ms=READY_TIMEOUT_MS)
    sequence = document.get("sequence")
    return sequence if type(sequence) is int and sequence > 0 else 0


def _gateway_status(gateway: Gateway) -> dict[str, Any]:
    return {
        "started_us": gateway.started_us,
        "fastpath": fastpath.BUILD,
        "event_streams": gateway.hub.subscribers,
        "misbehaviour": [{"replica": one.replica, "code": one.code} for one in gateway.client.misbehaviour[-20:]],
    }


def _block(block: AttestedBlock) -> dict[str, Any]:
    header, attestations = block
    return {
        "block_hash": header.hash.hex(),
        "block": _header(header),
        "attestations": [
            {"replica": replica, "signature": base64.b64encode(signature).decode()}
            for replica, signature in attestations
        ],
    }


def _header(header: BlockHeader) -> dict[str, Any]:
    return {
        "version": 1,
        "cluster": header.cluster_id.hex(),
        "epoch": header.epoch,
        "sequence": header.sequence,
        "previous_block_hash": header.previous_block_hash.hex(),
        "order_hash": header.order_hash.hex(),
        "digest": header.digest.hex(),
        "time_us": header.time_us,
        "result_count": header.result_count,
        "results_root": header.results_root.hex(),
        "write_set_hash": header.write_set_hash.hex(),
        "state_sequence": header.state_sequence,
        "state_root": header.state_root.hex(),
        "config_hash": header.config_hash.hex(),
    }


def _json(document: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(document), 200, {"cache-control": "no-cache"}, "application/json")
