"""HTTP/1.1 connections with a bound on the head of a request, in bytes and in time.

uvicorn's httptools protocol has neither: one endless header would fill the memory, and a connection that
never sends a request would stay for ever. Bodies are bounded by `nodes.gateway.guard`.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nodes.gateway.problem import MEDIA_TYPE, Problem

HEAD_BYTES_MAX = 32 * 1024
HEAD_TIMEOUT_S = 15.0


class BoundedConnection(HttpToolsProtocol):
    """Closes itself when a head is too large (431) or does not become complete in time (408)."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _in_body = False
    """The rest of a body may still arrive after its request has been answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and not self._in_body and self.cycle is not None and self.cycle.response_complete:
            # The first bytes of a further request on a connection that was kept alive.
            self._wait_for_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(Problem("header_too_large", f"the head of a request is at most {HEAD_BYTES_MAX} bytes"))

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def _wait_for_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._on_late)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_late(self) -> None:
        self._refuse(Problem("request_timeout", f"no complete request after {HEAD_TIMEOUT_S:g} s"))

    def _refuse(self, problem: Problem) -> None:
        """Answer without the application, which has not been asked anything."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        body = bytes(problem.response().body)
        head = (
            f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + body)
        self.transport.close()
