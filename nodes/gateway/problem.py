"""Errors of the HTTP interface: RFC 9457 problem+json with a stable `code`.

`title` names the kind, `detail` says what happened and what to do next, `receipt` proves an ordered
refusal. No problem ever carries a stack trace or a path of this machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from nodes.client.errors import (
    ClientError,
    InvalidRequest,
    NoQuorum,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    Refused,
    VerificationFailed,
)

MEDIA_TYPE = "application/problem+json"
PROBLEMS: Mapping[str, tuple[int, str]] = {
    "malformed": (400, "The request is malformed"),
    "bad_signature": (401, "The signature does not verify"),
    "not_found": (404, "There is no such thing"),
    "method_not_allowed": (405, "This method is not allowed here"),
    "request_timeout": (408, "The request was not received in time"),
    "nonce_in_use": (409, "The nonce is in use"),
    "expired": (410, "The validity has passed"),
    "too_large": (413, "The request is too large"),
    "unsupported_media_type": (415, "The body is not JSON"),
    "header_too_large": (431, "A header is too large"),
    "rate_limited": (429, "Too many requests"),
    "internal": (500, "This node failed"),
    "verification_failed": (502, "The replicas' answers do not verify"),
    "overloaded": (503, "Too much to do"),
    "catching_up": (503, "Too many replicas are catching up"),
    "no_quorum": (503, "Too few replicas gave the same answer"),
    "outcome_unknown": (504, "The outcome is not known yet"),
}
"""Codes of the gateway itself. Codes of ordered refusals are the application's."""
RETRY_AFTER_S = 1.0


class Problem(Exception):
    """Raised in a route, answered by the application's exception handler."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        known_status, known_title = PROBLEMS.get(code, (422, "Refused"))
        self.code = code
        self.detail = detail
        self.status = status or known_status
        self.title = title or known_title
        self.headers = dict(headers or {})
        self.members = dict(members or {})

    def response(self) -> Response:
        document = {
            "type": f"urn:arremate:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            **self.members,
        }
        headers = {"cache-control": "no-store", **self.headers}
        return Response(msgspec.json.encode(document), self.status, headers, MEDIA_TYPE)


def retry_headers(retry_after_s: float) -> dict[str, str]:
    """Whole seconds, at least one."""
    return {"retry-after": str(max(1, math.ceil(retry_after_s)))}


def problem_of(error: ClientError, **members: Any) -> Problem:
    """What a failed call of the client is over HTTP. An ordered refusal is `nodes.gateway.operations`' work."""
    match error:
        case InvalidRequest() | NotFound():
            return Problem(error.code, error.detail, members=members)
        case Refused():
            return Problem(error.code, f"{error.detail}; it was not ordered", members=members)
        case Overloaded():
            return Problem(error.code, error.detail, headers=retry_headers(error.retry_after), members=members)
        case OutcomeUnknown():
            members["digest"] = error.digest.hex()
            return Problem("outcome_unknown", error.detail, headers=retry_headers(RETRY_AFTER_S), members=members)
        case VerificationFailed():
            return Problem("verification_failed", f"{error.code}: {error.detail}", members=members)
        case NoQuorum():
            detail = f"{error.detail}; nothing was changed"
            return Problem("no_quorum", detail, headers=retry_headers(RETRY_AFTER_S), members=members)
        case _:
            return Problem(error.code, error.detail, members=members)
