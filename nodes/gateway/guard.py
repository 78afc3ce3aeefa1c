"""The outermost layer: limits before anything is parsed, headers on everything, no error without its form.

Always: a body over the limit is refused when its length is announced or at the first byte too many; a body
that trickles in is cut off; an unexpected error becomes a plain `internal` problem and a log line.
"""

from __future__ import annotations

import asyncio

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nodes.gateway.problem import Problem, retry_headers

BODY_BYTES_MAX = 128 * 1024
"""An operation of 64 KiB in base64 and its envelope."""
BODY_TIMEOUT_S = 10.0
TARGET_BYTES_MAX = 4_096
REQUESTS_MAX = 4_000
"""In flight at once, event streams included."""

SECURITY_HEADERS = {
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = structlog.get_logger("gateway")
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        self._in_flight += 1
        try:
            if self._in_flight > REQUESTS_MAX:
                raise Problem("overloaded", "this node answers as many requests as it may", headers=retry_headers(1.0))
            _check_head(scope)
            await self._app(scope, _limited(receive), guarded_send)
        except Problem as problem:
            if not started:
                await problem.response()(scope, receive, guarded_send)
        except Exception as error:
            # The last place where an error can get its form.
            self._log.error("request failed", path=scope["path"], error=repr(error), exc_info=error)
            if started:
                raise
            detail = "an unexpected error, which is in this node's log; ask another node"
            await Problem("internal", detail).response()(scope, receive, guarded_send)
        finally:
            self._in_flight -= 1


def _check_head(scope: Scope) -> None:
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > TARGET_BYTES_MAX:
        raise Problem("malformed", f"the address is longer than {TARGET_BYTES_MAX} bytes")
    for name, value in scope["headers"]:
        if name == b"content-length" and (not value.isdigit() or int(value[:20]) > BODY_BYTES_MAX):
            raise Problem("too_large", f"a body is at most {BODY_BYTES_MAX} bytes")


def _limited(receive: Receive) -> Receive:
    """`receive` until the body is complete, within limits of size and time; afterwards as it is."""
    size = 0
    complete = False
    deadline: float | None = None

    async def limited() -> Message:
        nonlocal size, complete, deadline
        if complete:
            return await receive()
        loop = asyncio.get_running_loop()
        deadline = deadline or loop.time() + BODY_TIMEOUT_S
        try:
            async with asyncio.timeout_at(deadline):
                message = await receive()
        except TimeoutError as error:
            detail = f"the body was not complete after {BODY_TIMEOUT_S:g} s"
            raise Problem("request_timeout", detail, headers={"connection": "close"}) from error
        if message["type"] == "http.request":
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if size > BODY_BYTES_MAX:
                raise Problem("too_large", f"a body is at most {BODY_BYTES_MAX} bytes", headers={"connection": "close"})
        return message

    return limited
