"""The sockets of a client: one DEALER to each replica's client port, CURVE on all.

Always: what `receive` returns for a replica came from the holder of that replica's CURVE key; nothing here
blocks; a frame that finds its queue full is dropped (the core sends again). A frame is also queued while a
replica cannot be reached, at most `FRAMES` of them, so that it finds them when it is back. Deliberately
elsewhere: what is sent (`nodes.client.core`), waiting (`nodes.client.aio`, `nodes.client.sync`).
"""

from __future__ import annotations

import zmq

from nodes.config import ClusterConfig
from nodes.keys import CurveKeys
from nodes.transport.sockets import RECONNECT_MAX_MS, RECONNECT_MS, Context, Socket, new_socket, tcp_endpoint
from nodes.wire import CLIENT_ANSWER_MAX

FRAMES = 256
"""High-water mark, frames per replica and direction."""
DRAIN_MAX = 64
"""Frames taken from one replica before the others get their turn."""


class Channels:
    """Not thread-safe: it belongs to one loop."""

    def __init__(self, cluster: ClusterConfig, keys: CurveKeys | None = None) -> None:
        self._context: Context = zmq.Context()
        self.dropped = 0
        self.sockets: list[Socket] = []
        keys = keys or CurveKeys.generate()
        for member in cluster.members:
            socket = new_socket(
                self._context, zmq.DEALER, keys, frame_bytes_max=CLIENT_ANSWER_MAX, high_water_mark=FRAMES
            )
            socket.reconnect_ivl = RECONNECT_MS
            socket.reconnect_ivl_max = RECONNECT_MAX_MS
            socket.curve_serverkey = CurveKeys(member.curve_key, bytes(32)).public_z85
            socket.connect(tcp_endpoint(member.host, member.client_port))
            self.sockets.append(socket)

    def descriptors(self) -> list[int]:
        """File descriptors that become readable, once, when something has changed: then drain."""
        return [int(socket.getsockopt(zmq.FD)) for socket in self.sockets]

    def send(self, replica: int, frame: bytes) -> None:
        try:
            self.sockets[replica].send(frame, zmq.DONTWAIT)
        except zmq.Again:
            self.dropped += 1

    def receive(self, replica: int) -> list[bytes]:
        """At most `DRAIN_MAX` frames; fewer means that there were no more."""
        frames: list[bytes] = []
        socket = self.sockets[replica]
        while len(frames) < DRAIN_MAX and int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            parts = socket.recv_multipart(zmq.DONTWAIT)
            frames.append(parts[0] if len(parts) == 1 else b"")
        return frames

    def close(self) -> None:
        for socket in self.sockets:
            socket.close()
        self._context.term()
