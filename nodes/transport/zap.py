"""The authenticator: one thread that answers ZAP requests (ZeroMQ RFC 27) of one context.

libzmq admits any CURVE key when nobody answers at `inproc://zeromq.zap.01`, so an `Authenticator`
is started before the first bind, and sockets set ZAP_ENFORCE_DOMAIN. It answers CURVE in its own
domain and refuses everything else. The user id it gives is what libzmq then attaches to each frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import zmq

_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_CURVE_REQUEST_PARTS = 7


class Authenticator:
    """Runs until its context is terminated. `user_of(curve_key)`: the user id, None to refuse.

    `user_of` is called in the authenticator's thread, once for each connection.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], domain: str, user_of: Callable[[bytes], str | None]
    ) -> None:
        self._domain = domain.encode()
        self._user_of = user_of
        self.refused = 0
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(_ENDPOINT)
        self._thread = threading.Thread(target=self._run, name=f"zap-{domain}", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread; call after the context's other sockets are closed and it is being terminated."""
        self._thread.join()

    def _run(self) -> None:
        with self._socket as socket:
            try:
                while True:
                    socket.send_multipart(self._answer(socket.recv_multipart()))
            except zmq.ContextTerminated:
                return

    def _answer(self, request: list[bytes]) -> list[bytes]:
        request_id = request[1] if len(request) > 1 else b""
        user = None
        if len(request) == _CURVE_REQUEST_PARTS and request[0] == _VERSION:
            _, _, domain, _, _, mechanism, key = request
            if mechanism == b"CURVE" and domain == self._domain and len(key) == 32:
                user = self._user_of(key)
        if user is None:
            self.refused += 1
            return [_VERSION, request_id, b"400", b"refused", b"", b""]
        return [_VERSION, request_id, b"200", b"OK", user.encode(), b""]
