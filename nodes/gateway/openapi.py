"""Schemas and examples of the interface for OpenAPI 3.1, and the /docs page made from them.

Bodies are decoded by msgspec, so their schemas are msgspec's; answers are described by hand, with an
example each. The page is plain HTML without scripts or foreign assets.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from nodes.gateway.bodies import OperationBody, QueryBody
from nodes.gateway.problem import MEDIA_TYPE, PROBLEMS

Responses = dict[int | str, dict[str, Any]]
_JSON = "application/json"
_REFERENCE = "#/components/schemas/{name}"
_, _BODIES = msgspec.json.schema_components([OperationBody, QueryBody], ref_template=_REFERENCE)

_HEX32 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_HEX16 = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_INTEGER = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
_HASH_EXAMPLE = "5f" * 32


def _object(properties: Mapping[str, Any], *, optional: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required, **more}


_BLOCK = _object(
    {
        "version": {"const": 1},
        "cluster": _HEX16,
        "epoch": _INTEGER,
        "sequence": _INTEGER,
        "previous_block_hash": _HEX32,
        "order_hash": _HEX32,
        "digest": _HEX32,
        "time_us": _INTEGER,
        "result_count": _INTEGER,
        "results_root": _HEX32,
        "write_set_hash": _HEX32,
        "state_sequence": _INTEGER,
        "state_root": _HEX32,
        "config_hash": _HEX32,
    },
    description="A block header; its tagged SHA-256 is the block hash that replicas sign.",
)
_ATTESTATION = _object({"replica": _INTEGER, "signature": _BASE64})
SCHEMAS: dict[str, Any] = {
    **_BODIES,
    "Block": _BLOCK,
    "Receipt": _object(
        {
            "version": {"const": 1},
            "cluster": _HEX16,
            "epoch": _INTEGER,
            "operation": {"$ref": _REFERENCE.format(name="OperationBody")},
            "timer": _object({"id": {"type": "string"}, "due_us": _INTEGER}),
            "block": {"$ref": _REFERENCE.format(name="Block")},
            "index": _INTEGER,
            "leaf_count": _INTEGER,
            "status": {**_INTEGER, "description": "0: accepted; others are refusals, named by a fixed table"},
            "result": {**_BASE64, "description": "Canonical JSON of what happened"},
            "path": {"type": "array", "items": _HEX32},
            "attestations": {"type": "array", "items": _ATTESTATION},
        },
        optional=("operation", "timer"),
        description="Proof of an outcome, verified offline with the genesis alone: docs/receipts.md.",
    ),
    "Problem": _object(
        {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "description": f"Stable. Here: {', '.join(PROBLEMS)}; else the rules' code."},
            "detail": {"type": "string", "description": "What happened, and what to do next."},
            "receipt": {"$ref": _REFERENCE.format(name="Receipt")},
        },
        optional=("receipt",),
        description="RFC 9457. With a receipt it is an ordered, proven refusal.",
    ),
    "Share": _object(
        {
            "replica": _INTEGER,
            "query_digest": _HEX32,
            "result_digest": _HEX32,
            "sequence": _INTEGER,
            "block_hash": _HEX32,
            "block_time_us": _INTEGER,
            "leaf_index": _INTEGER,
            "leaf_count": _INTEGER,
            "path": {"type": "array", "items": _HEX32},
            "signature": {"type": "string", "pattern": "^[0-9a-f]{128}$"},
        },
        description="One replica's signature over (nonce, query, result).",
    ),
    "Answer": _object(
        {
            "result": {**_BASE64, "description": "The exact bytes that the shares are about"},
            "value": {"type": "object", "description": "The same, decoded"},
            "shares": {"type": "array", "items": {"$ref": _REFERENCE.format(name="Share")}},
            "nonce": _HEX16,
            "consistency": {"enum": ["quorum", "certified", "local"]},
            "sequence": {**_INTEGER, "description": "The answer is at least as new as this block"},
            "cursor": {"type": "string", "description": "Of lists: the parameter for the next page, if there is one"},
        },
        optional=("cursor",),
    ),
    "AttestedBlock": _object(
        {
            "block_hash": _HEX32,
            "block": {"$ref": _REFERENCE.format(name="Block")},
            "attestations": {"type": "array", "items": _ATTESTATION},
        }
    ),
}

_OPERATION_EXAMPLE = {
    "public_key": "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
    "session": 1_735_689_600_000,
    "sequence": 1,
    "floor": 1,
    "valid_until_us": 1_735_689_660_000_000,
    "operation": "eyJhbW91bnQiOjEyNTAsInRvIjoiM2YyYSIsInR5cGUiOiJtb25leS50cmFuc2ZlciJ9",
    "signature": "A" * 86 + "==",
}
_QUERY_EXAMPLE = {"query": "eyJxdWVyeSI6InN1cHBseSJ9"}
_RETRY_HEADER = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
_LOCATION_HEADER = {"Location": {"schema": {"type": "string"}, "description": "Where the receipt is"}}


def _body(schema: str, example: Mapping[str, Any]) -> dict[str, Any]:
    content = {_JSON: {"schema": {"$ref": _REFERENCE.format(name=schema)}, "example": dict(example)}}
    return {"requestBody": {"required": True, "content": content}}


def _answer(description: str, schema: Mapping[str, Any], example: Any = None, **more: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": dict(schema)}
    if example is not None:
        content["example"] = example
    return {"description": description, "content": {_JSON: content}, **more}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=name)}


def _problems(*codes: str) -> Responses:
    """Responses of these codes, by status."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code][0], []).append(code)
    responses: Responses = {}
    for status, names in sorted(by_status.items()):
        title = PROBLEMS[names[0]][1]
        example = {
            "type": f"urn:arremate:problem:{names[0]}",
            "title": title,
            "status": status,
            "code": names[0],
            "detail": f"{title.lower()}; what to do next stands here",
        }
        responses[status] = {
            "description": ", ".join(names),
            "content": {MEDIA_TYPE: {"schema": _reference("Problem"), "example": example}},
        }
        if status in (429, 503, 504):
            responses[status]["headers"] = _RETRY_HEADER
    return responses


def _refused(*statuses: int) -> Responses:
    description = "Ordered and refused by the rules; the problem contains the receipt"
    return {
        status: {"description": description, "content": {MEDIA_TYPE: {"schema": _reference("Problem")}}}
        for status in statuses
    }


_ALWAYS = ("malformed", "rate_limited", "overloaded", "internal")
POST_OPERATION: dict[str, Any] = {
    **_body("OperationBody", _OPERATION_EXAMPLE),
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "schema": {"type": "string"},
            "description": "respond-async: 202 at once. wait=N: wait for N seconds, at most 60 (default 5).",
        }
    ],
}
OPERATION_RESPONSES: Responses = {
    201: _answer("Ordered, accepted and proven", _reference("Receipt"), headers=_LOCATION_HEADER),
    202: _answer(
        "Taken; the receipt will be at Location",
        _object({"digest": _HEX32, "session": _INTEGER, "sequence": _INTEGER}),
        {"digest": _HASH_EXAMPLE, "session": 1_735_689_600_000, "sequence": 1},
        headers=_LOCATION_HEADER,
    ),
    **_refused(403, 404, 409, 422),
    **_problems(
        *_ALWAYS, "bad_signature", "too_large", "unsupported_media_type", "expired", "no_quorum", "outcome_unknown"
    ),
}
POST_QUERY: dict[str, Any] = _body("QueryBody", _QUERY_EXAMPLE)
QUERY_RESPONSES: Responses = {
    200: _answer("q equal answers", _reference("Answer")),
    **_problems(
        *_ALWAYS,
        "bad_signature",
        "not_found",
        "nonce_in_use",
        "expired",
        "too_large",
        "unsupported_media_type",
        "no_quorum",
        "verification_failed",
    ),
}
RECEIPT_RESPONSES: Responses = {
    200: _answer("The receipt", _reference("Receipt")),
    **_problems(*_ALWAYS, "not_found", "no_quorum", "outcome_unknown"),
}
BLOCK_RESPONSES: Responses = {
    200: _answer("The block", _reference("AttestedBlock")),
    **_problems(*_ALWAYS, "not_found", "no_quorum"),
}
BLOCKS_RESPONSES: Responses = {
    200: _answer(
        "Blocks, and where to go on",
        _object({"blocks": {"type": "array", "items": _reference("AttestedBlock")}, "next": _INTEGER}),
    ),
    **_problems(*_ALWAYS, "no_quorum"),
}
STATUS_RESPONSES: Responses = {
    200: _answer("This node's status", {"type": "object"}, {"view": 0, "primary": 0, "sequence": 12}),
    **_problems("internal", "no_quorum"),
}
CLUSTER_RESPONSES: Responses = {
    200: _answer(
        "The cluster",
        _object(
            {
                "cluster": _HEX16,
                "config_hash": _HEX32,
                "quorum": _INTEGER,
                "members": {"type": "array", "items": {"type": "object"}},
                "latest_block": {"type": ["object", "null"]},
                "genesis": {"type": "object", "description": "genesis.json"},
            }
        ),
    ),
    **_problems("internal"),
}
HEALTH_RESPONSES: Responses = {
    200: _answer("It is", _object({"status": {"type": "string"}}), {"status": "live"}),
    **_problems("internal", "no_quorum"),
}
EVENTS_RESPONSES: Responses = {
    200: {
        "description": "A stream that does not end; a comment at least every 15 s",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'id: 12-0-1\ndata: {"sequence":12,"index":0,"effect":1,"kind":"held"}\n\n',
            }
        },
    },
    **_problems(*_ALWAYS, "no_quorum"),
}
GET_EVENTS: dict[str, Any] = {
    "parameters": [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "schema": {"type": "string", "pattern": "^[0-9]+-[0-9]+-[0-9]+$"},
            "description": "Go on after this event (also as the parameter `after`); without it, from now on.",
        }
    ]
}
APPLICATION_ANSWER: Responses = {**QUERY_RESPONSES, 304: {"description": "Not changed since the ETag"}}
"""For the application's GET routes."""


def add_schemas(document: dict[str, Any]) -> dict[str, Any]:
    """The generated document with our schemas, without the generator's validation errors."""
    components = document.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    components.update(SCHEMAS)
    for path in document["paths"].values():
        for operation in path.values():
            invalid = operation["responses"].get("422")
            if invalid is not None and "HTTPValidationError" in json.dumps(invalid):
                del operation["responses"]["422"]
    return document


def page(document: Mapping[str, Any]) -> str:
    """The /docs page."""
    info = document["info"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(info['title'])}</title>",
        f"<style>{PAGE_STYLE}</style><h1>{html.escape(info['title'])} {html.escape(info['version'])}</h1>",
        f"<p>{html.escape(info.get('description', ''))}</p>",
        "<p>As a document: <a href=/openapi.json>/openapi.json</a></p>",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append(_page_operation(path, method, operation))
    parts.append("<h2>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f"<h3 id='{html.escape(name)}'>{html.escape(name)}</h3>{_page_json(schema)}")
    return "".join(parts)


PAGE_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "pre{background:#f4f4f4;padding:.7rem;overflow:auto;font-size:13px}code{font-weight:600}td{vertical-align:top;"
    "padding:.1rem .8rem .1rem 0}"
)


def _page_operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{html.escape(status)}</code><td>{html.escape(answer['description'])}"
        for status, answer in operation["responses"].items()
    )
    parameters = "".join(
        f"<tr><td><code>{html.escape(one['name'])}</code><td>{html.escape(one['in'])}"
        f"<td>{html.escape(one.get('description', ''))}"
        for one in operation.get("parameters", ())
    )
    body = operation.get("requestBody", {}).get("content", {}).get(_JSON, {})
    return (
        f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
        f"<p>{html.escape(operation.get('description', ''))}</p>"
        + (f"<table>{parameters}</table>" if parameters else "")
        + (_page_json(body["example"]) if "example" in body else "")
        + f"<table>{rows}</table>"
    )


def _page_json(value: Any) -> str:
    return f"<pre>{html.escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
