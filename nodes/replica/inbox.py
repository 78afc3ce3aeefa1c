"""Frames of peers between the sockets and the core: how much of whose is taken in one turn of the loop.

Always: whatever one peer sends costs the others one turn's allowance and a bounded queue. ROUTER sockets
are fair to connections and a peer can open many, so frames are sorted by peer here; what a peer has
waiting beyond its room is dropped unread, and STATUS repairs what mattered. A frame is read message by
message, and one that is larger than the allowance goes on in the next turn.
Deliberately elsewhere: bytes (`nodes.wire`), what a message means (`nodes.core`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from nodes.core.messages import (
    AttestCertificate,
    FetchBlocks,
    FetchBody,
    FetchedBlocks,
    FetchedBody,
    Forward,
    PeerMessage,
    PrePrepare,
    Status,
)
from nodes.core.types import ReplicaId
from nodes.transport import Mesh, PeerFrame
from nodes.wire import BULK_FRAME_MAX, MessageType, Wire, WireError

CONTROL_FRAMES = 256
BULK_FRAMES = 16
"""Taken from the sockets in one turn, of all peers."""
FRAMES_MAX = 64
BYTES_MAX = 2 * BULK_FRAME_MAX
"""Waiting here, of one peer."""
TURN_COST = 256 * 1024
"""What one peer may cost in one turn, in bytes; the last message may overdraw it, and is paid for in the next turns."""
MESSAGE_COST = 2048
"""Of a message besides its bytes: a vote takes the core some 20 us, so a turn has some 120 of one peer's, 2.5 ms."""
CHECKED_COST = 16 * 1024
"""Of one that is followed by a signature check or by answers: some 150 us."""
UNASKED_FETCHED_MAX = 2048
"""Payload of a FETCHED that comes unasked: a certificate of 13 members has 936 bytes."""
BODIES_ASKED_MAX = 64
NOT_IN_USE = frozenset(
    {
        MessageType.WISH,
        MessageType.VIEWCHANGE,
        MessageType.NEWVIEW,
        MessageType.HELLO,
        MessageType.HELLO_ANSWER,
        MessageType.EVIDENCE,
    }
)
"""Types that the core of this release does not act on; skipped by their headers, so that nobody pays for them."""

_CHECKED = frozenset({PrePrepare, AttestCertificate, Forward, Status})
_BODIES = frozenset({FetchedBlocks, FetchedBody})
Messages = Iterator[tuple[PeerMessage | None, int]]


@dataclass(slots=True, eq=False)
class _Peer:
    frames: deque[bytes] = field(default_factory=deque)
    bytes: int = 0
    current: Messages | None = None
    """The rest of the frame that is being read."""
    current_bytes: int = 0
    credit: int = 0
    """What it may cost yet; below zero it has been paid in advance."""
    bodies_asked: int = 0


class Inbox:
    """`refused(peer, error)` is told of each frame that `nodes.wire` refuses."""

    def __init__(self, wire: Wire, peers: Iterable[ReplicaId], refused: Callable[[ReplicaId, WireError], None]) -> None:
        self._wire = wire
        self._refused = refused
        self._body_max = wire.domain.batch_bytes_max + 1024
        self._peers = {peer: _Peer() for peer in peers}
        self._blocks_asked: ReplicaId | None = None
        """Who was asked for blocks last: the core believes nobody else's."""
        self.dropped = 0
        """Frames that found no room."""
        self.ignored = 0
        """Messages that were skipped."""

    @property
    def waiting(self) -> int:
        """Frames not read to their end."""
        return sum(len(peer.frames) + (peer.current is not None) for peer in self._peers.values())

    def __bool__(self) -> bool:
        return any(peer.frames or peer.current is not None for peer in self._peers.values())

    def fill(self, mesh: Mesh) -> list[ReplicaId]:
        """Take what has arrived; the sender of each frame taken."""
        return [self.put(frame) for frame in mesh.receive(CONTROL_FRAMES, BULK_FRAMES, self.has_room)]

    def has_room(self, sender: ReplicaId, size: int) -> bool:
        """Whether a frame can be taken; one that cannot is counted as dropped."""
        peer = self._peers[sender]
        if not peer.frames or (len(peer.frames) < FRAMES_MAX and peer.bytes + size <= BYTES_MAX):
            return True
        self.dropped += 1
        return False

    def put(self, frame: PeerFrame) -> ReplicaId:
        peer = self._peers[frame.sender]
        peer.frames.append(frame.frame)
        peer.bytes += len(frame.frame)
        return frame.sender

    def asked(self, question: FetchBlocks | FetchBody, to: ReplicaId) -> None:
        """`to` was asked for bodies: its answer may be as large as that takes."""
        if isinstance(question, FetchBlocks):
            self._blocks_asked = to
        else:
            self._peers[to].bodies_asked = min(self._peers[to].bodies_asked + 1, BODIES_ASKED_MAX)

    # Reading -------------------------------------------------------------------------------------

    def turn(self) -> Iterator[tuple[ReplicaId, Iterator[PeerMessage]]]:
        """Each peer that has something and may be heard, with the messages it gets through in this turn."""
        for sender, peer in self._peers.items():
            if peer.frames or peer.current is not None:
                peer.credit = min(TURN_COST, peer.credit + TURN_COST)
                if peer.credit > 0:
                    yield sender, self._read(sender, peer)

    def _read(self, sender: ReplicaId, peer: _Peer) -> Iterator[PeerMessage]:
        while peer.credit > 0:
            if peer.current is None:
                if not peer.frames:
                    return
                peer.current = self._open(sender, peer)
            messages, peer.current = peer.current, None
            try:
                for message, size in messages:
                    if message is None:
                        self.ignored += 1
                        peer.credit -= MESSAGE_COST + size
                    else:
                        peer.credit -= self._cost(message, size, sender, peer)
                        yield message
                    if peer.credit <= 0:
                        peer.current = messages
                        break
            except WireError as error:
                peer.credit -= MESSAGE_COST + peer.current_bytes
                self._answered(sender, peer)
                self._refused(sender, error)

    def _open(self, sender: ReplicaId, peer: _Peer) -> Messages:
        frame = peer.frames.popleft()
        peer.bytes -= len(frame)
        peer.current_bytes = len(frame)
        return self._wire.read_frame(
            frame, sender, ignored=NOT_IN_USE, fetched_max=lambda: self._fetched_max(sender, peer)
        )

    def _fetched_max(self, sender: ReplicaId, peer: _Peer) -> int:
        if sender == self._blocks_asked:
            return BULK_FRAME_MAX
        return self._body_max if peer.bodies_asked else UNASKED_FETCHED_MAX

    def _cost(self, message: PeerMessage, size: int, sender: ReplicaId, peer: _Peer) -> int:
        kind = type(message)
        if kind in _CHECKED:
            return CHECKED_COST + size
        if kind in _BODIES and (sender == self._blocks_asked or peer.bodies_asked):
            self._answered(sender, peer)
            return MESSAGE_COST
        return MESSAGE_COST + size

    def _answered(self, sender: ReplicaId, peer: _Peer) -> None:
        """A question to this peer is used up, by an answer or by bytes that are none."""
        if sender == self._blocks_asked:
            self._blocks_asked = None
        elif peer.bodies_asked:
            peer.bodies_asked -= 1
