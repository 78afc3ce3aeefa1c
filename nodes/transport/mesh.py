"""The links between replicas.

A link is one-way: a replica sends to a peer only on its own DEALERs to it (one for small messages,
one for bulk) and receives only on its own two ROUTERs. The sender of a frame is the user id that the
authenticator gave its connection, never a routing id, which the peer could choose.
Sending never blocks: what a peer does not take waits in a queue bounded in bytes and age, oldest
dropped first. Nothing here is reliable; the protocol's STATUS repairs what was dropped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import zmq

from nodes.core.types import ReplicaId
from nodes.keys import CurveKeys, z85_encode
from nodes.transport.sockets import (
    BULK_BYTES_MAX,
    BULK_FROM_BYTES,
    BUNDLE_BYTES_MAX,
    CONTROL_BYTES_MAX,
    Context,
    Socket,
    bind_server,
    connect_client,
    new_socket,
)
from nodes.transport.zap import Authenticator

DOMAIN = "replicas"
QUEUE_BYTES_MAX = 16 * 1024 * 1024
"""Waiting for one peer, small messages and bulk each."""
STALE_US = 5_000_000
"""What a peer has not taken for this long is dropped: STATUS has superseded it."""
CONTROL_FRAMES = 64
BULK_FRAMES = 4
"""High-water marks: frames inside libzmq, per connection. Times the frame limits: 16 and 32 MiB."""
_HANDSHAKE_BYTES_MAX = 1024
"""Inbound on a link that is ours: the CURVE handshake (168 bytes and its metadata) and nothing else."""


class PeerFrame(NamedTuple):
    sender: ReplicaId
    frame: bytes


@dataclass(frozen=True, slots=True)
class PeerAddress:
    replica: ReplicaId
    curve_key: bytes
    """32 bytes."""
    control: str
    bulk: str
    """Endpoints, as "tcp://host:port"."""


class _Link:
    """One DEALER and what waits for it."""

    __slots__ = ("_blocked_since_us", "_bytes", "_queue", "_socket", "dropped")

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._queue: deque[bytes] = deque()
        self._bytes = 0
        self._blocked_since_us: int | None = None
        self.dropped = 0

    def put(self, message: bytes) -> None:
        self._queue.append(message)
        self._bytes += len(message)
        while self._bytes > QUEUE_BYTES_MAX:
            self._bytes -= len(self._queue.popleft())
            self.dropped += 1

    def flush(self, now_us: int) -> None:
        """Send bundles until the queue is empty or the peer takes no more."""
        queue = self._queue
        while queue:
            size = len(queue[0])
            count = 1
            if len(queue) > 1 and size < BUNDLE_BYTES_MAX:
                for message in _after_first(queue):
                    if size + len(message) > BUNDLE_BYTES_MAX:
                        break
                    size += len(message)
                    count += 1
            taken = [queue.popleft() for _ in range(count)]
            frame = taken[0] if count == 1 else b"".join(taken)
            try:
                self._socket.send(frame, zmq.DONTWAIT)
            except zmq.Again:
                queue.appendleft(frame)
                self._wait(now_us)
                return
            self._bytes -= size
            self._blocked_since_us = None

    def _wait(self, now_us: int) -> None:
        if self._blocked_since_us is None:
            self._blocked_since_us = now_us
        elif now_us - self._blocked_since_us > STALE_US:
            self.dropped += len(self._queue)
            self._queue.clear()
            self._bytes = 0
            self._blocked_since_us = None

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    def close(self) -> None:
        self._socket.close()


def _after_first(queue: deque[bytes]) -> Iterable[bytes]:
    messages = iter(queue)
    next(messages)
    return messages


class Mesh:
    """All links of one replica. Not thread-safe: it belongs to the loop."""

    def __init__(
        self, keys: CurveKeys, peers: Iterable[PeerAddress], *, bind_control: str, bind_bulk: str, start: bool = True
    ) -> None:
        """`peers`: every other member. With `start` False nothing is connected until `connect`."""
        peers = tuple(peers)
        self._context: Context = zmq.Context()
        users = {peer.curve_key: f"replica-{peer.replica}" for peer in peers}
        self._authenticator = Authenticator(self._context, DOMAIN, users.get)
        self._sender_of = {f"replica-{peer.replica}": peer.replica for peer in peers}
        self._keys = keys
        self.control = new_socket(
            self._context, zmq.ROUTER, keys, frame_bytes_max=CONTROL_BYTES_MAX, high_water_mark=CONTROL_FRAMES
        )
        self.bulk = new_socket(
            self._context, zmq.ROUTER, keys, frame_bytes_max=BULK_BYTES_MAX, high_water_mark=BULK_FRAMES
        )
        self.control_endpoint = bind_server(self.control, DOMAIN, bind_control)
        self.bulk_endpoint = bind_server(self.bulk, DOMAIN, bind_bulk)
        self._control_links: dict[ReplicaId, _Link] = {}
        self._bulk_links: dict[ReplicaId, _Link] = {}
        self.frames_received = 0
        self.frames_refused = 0
        """Frames of a wrong shape or without a known sender."""
        if start:
            self.connect(peers)

    def connect(self, peers: Iterable[PeerAddress]) -> None:
        for peer in peers:
            self._control_links[peer.replica] = self._link(peer.curve_key, peer.control, CONTROL_FRAMES)
            self._bulk_links[peer.replica] = self._link(peer.curve_key, peer.bulk, BULK_FRAMES)

    def _link(self, server_key: bytes, endpoint: str, frames: int) -> _Link:
        socket = new_socket(
            self._context, zmq.DEALER, self._keys, frame_bytes_max=_HANDSHAKE_BYTES_MAX, high_water_mark=frames
        )
        socket.rcvhwm = 1
        connect_client(socket, z85_encode(server_key), endpoint)
        return _Link(socket)

    def send(self, to: ReplicaId, message: bytes) -> None:
        """Queue one encoded message; sent by the next `flush`."""
        links = self._control_links if len(message) <= BULK_FROM_BYTES else self._bulk_links
        links[to].put(message)

    def broadcast(self, message: bytes) -> None:
        links = self._control_links if len(message) <= BULK_FROM_BYTES else self._bulk_links
        for link in links.values():
            link.put(message)

    def flush(self, now_us: int) -> None:
        """Send what waits; `now_us` is monotonic."""
        for link in self._control_links.values():
            if link.waiting_bytes:
                link.flush(now_us)
        for link in self._bulk_links.values():
            if link.waiting_bytes:
                link.flush(now_us)

    def receive(
        self, control_max: int, bulk_max: int, has_room: Callable[[ReplicaId, int], bool] = lambda _sender, _size: True
    ) -> list[PeerFrame]:
        """Frames that have arrived, small ones first, at most about so many from each socket.

        `has_room(sender, size)` False drops a frame without a copy of it.
        """
        received: list[PeerFrame] = []
        for socket, frames_max in ((self.control, control_max), (self.bulk, bulk_max)):
            for _ in range(frames_max):
                try:
                    socket.recv(zmq.DONTWAIT)
                except zmq.Again:
                    break
                part = socket.recv(zmq.DONTWAIT, copy=False)
                if part.more:
                    while socket.recv(zmq.DONTWAIT, copy=False).more:
                        pass
                    self.frames_refused += 1
                    continue
                sender = self._sender_of.get(str(part.get("User-Id")))
                if sender is None:
                    self.frames_refused += 1
                elif has_room(sender, len(part)):
                    received.append(PeerFrame(sender, part.bytes))
        self.frames_received += len(received)
        return received

    @property
    def waiting_bytes(self) -> int:
        """Queued for all peers and not yet given to libzmq."""
        return sum(link.waiting_bytes for links in (self._control_links, self._bulk_links) for link in links.values())

    @property
    def dropped(self) -> int:
        """Messages that no peer took in time."""
        return sum(link.dropped for links in (self._control_links, self._bulk_links) for link in links.values())

    @property
    def refused_connections(self) -> int:
        return self._authenticator.refused

    def close(self) -> None:
        for links in (self._control_links, self._bulk_links):
            for link in links.values():
                link.close()
        self.control.close()
        self.bulk.close()
        self._context.term()
        self._authenticator.join()
