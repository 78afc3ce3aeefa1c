"""The socket for clients and gateways.

Any CURVE key gets in unless an allow-list is given: what a client may do is decided by the signature
of its operation, not by its transport key. The user id of a connection is the hex text of its key,
which can never be mistaken for a replica. A connection is named by its ROUTER routing id; when
libzmq says that it is gone, `flush` reports it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import zmq

from nodes.keys import CurveKeys
from nodes.transport.sockets import CLIENT_BYTES_MAX, Context, bind_server, new_socket
from nodes.transport.zap import Authenticator

DOMAIN = "clients"
FRAMES = 256
"""High-water mark, frames per connection."""
RECEIVED_BYTES_MAX = 256 * 1024
"""Taken at once: 1,500 of the smallest requests, which take 6 ms to parse."""
BUNDLE_BYTES_MAX = 256 * 1024
QUEUE_BYTES_MAX = 4 * 1024 * 1024
"""For one connection within one tick; more is dropped, and the client asks again."""


class ClientFrame(NamedTuple):
    connection: bytes
    """Routing id: where an answer goes. Not an identity."""
    user: str
    """Hex text of the CURVE key."""
    frame: bytes


class ClientSocket:
    """Not thread-safe: it belongs to the loop."""

    def __init__(self, keys: CurveKeys, bind: str, *, allowed: Collection[bytes] | None = None) -> None:
        """`allowed`: CURVE keys (32 bytes), None for any."""
        self._context: Context = zmq.Context()
        allow_list = None if allowed is None else frozenset(allowed)
        self._authenticator = Authenticator(
            self._context, DOMAIN, lambda key: key.hex() if allow_list is None or key in allow_list else None
        )
        self.socket = new_socket(
            self._context, zmq.ROUTER, keys, frame_bytes_max=CLIENT_BYTES_MAX, high_water_mark=FRAMES
        )
        self.socket.router_mandatory = True
        self.endpoint = bind_server(self.socket, DOMAIN, bind)
        self._waiting: dict[bytes, list[bytes]] = {}
        self._waiting_bytes: dict[bytes, int] = {}
        self.frames_received = 0
        self.frames_refused = 0
        self.dropped = 0

    def receive(self, frames_max: int, bytes_max: int = RECEIVED_BYTES_MAX) -> list[ClientFrame]:
        """Frames that have arrived, at most `frames_max`, and none after `bytes_max`; the others wait in libzmq."""
        received: list[ClientFrame] = []
        socket = self.socket
        size = 0
        for _ in range(frames_max):
            if size >= bytes_max:
                break
            try:
                connection = socket.recv(zmq.DONTWAIT)
            except zmq.Again:
                break
            part = socket.recv(zmq.DONTWAIT, copy=False)
            if part.more:
                while socket.recv(zmq.DONTWAIT, copy=False).more:
                    pass
                self.frames_refused += 1
                continue
            received.append(ClientFrame(connection, str(part.get("User-Id")), part.bytes))
            size += len(part)
        self.frames_received += len(received)
        return received

    def send(self, connection: bytes, message: bytes) -> None:
        """Queue one encoded message; sent by the next `flush`."""
        size = self._waiting_bytes.get(connection, 0) + len(message)
        if size > QUEUE_BYTES_MAX:
            self.dropped += 1
            return
        self._waiting.setdefault(connection, []).append(message)
        self._waiting_bytes[connection] = size

    def flush(self) -> list[bytes]:
        """Send everything queued, bundled per connection; the connections that are gone."""
        if not self._waiting:
            return []
        gone: list[bytes] = []
        for connection, messages in self._waiting.items():
            for frame in _bundles(messages):
                try:
                    self.socket.send_multipart((connection, frame), zmq.DONTWAIT)
                except zmq.Again:
                    self.dropped += 1  # a client that does not read; it asks again
                    break
                except zmq.ZMQError as error:
                    if error.errno != zmq.EHOSTUNREACH:
                        raise
                    gone.append(connection)
                    break
        self._waiting.clear()
        self._waiting_bytes.clear()
        return gone

    @property
    def refused_connections(self) -> int:
        return self._authenticator.refused

    def close(self) -> None:
        self.socket.close()
        self._context.term()
        self._authenticator.join()


def _bundles(messages: list[bytes]) -> list[bytes]:
    if len(messages) == 1:
        return messages
    frames: list[bytes] = []
    bundle: list[bytes] = []
    size = 0
    for message in messages:
        if bundle and size + len(message) > BUNDLE_BYTES_MAX:
            frames.append(b"".join(bundle))
            bundle, size = [], 0
        bundle.append(message)
        size += len(message)
    frames.append(b"".join(bundle))
    return frames
