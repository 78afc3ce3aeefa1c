"""Who waits for which operation, and the REPLY that tells them.

One REPLY a connection and block, when this replica's attestation of the block has been signed. A leaf
goes out in full (outcome and Merkle path) from one replica of n, the others only vote for its place.
What was executed lately is kept, so that a copy of a request that comes late is answered at once.
Always bounded: waiting digests, connections of a digest, kept leaves. Deliberately elsewhere: older
receipts, which only the executor's archive has (`clients`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from nodes.block import BlockHeader
from nodes.codes import Status
from nodes.core.messages import Attest
from nodes.core.types import SequenceNumber
from nodes.executor.protocol import BlockExecuted, Entry, ReceiptFound
from nodes.wire import Outcome, Reply, ReplyEntry, Wire

WAITING_MAX = 50_000
"""Digests that somebody waits for; the oldest are forgotten, their clients ask again."""
CONNECTIONS_MAX = 16
"""Of one digest: its client, gateways that carry it, and those it was re-sent through."""
LEAVES_KEPT = 8192
REPLY_BYTES = 256 * 1024
"""A REPLY with more than this is split."""
UNATTESTED_MAX = 16
"""Blocks that the executor may have finished before their attestation is signed."""
_ENTRY_BYTES = 64


@dataclass(slots=True)
class _Block:
    executed: BlockExecuted
    attest: Attest


class Replies:
    def __init__(self, wire: Wire, me: int, send: Callable[[bytes, bytes], None]) -> None:
        """`send(connection, encoded message)`."""
        self._wire = wire
        self._me = me
        self._n = wire.cluster.n
        self._send = send
        self._waiting: dict[bytes, list[bytes]] = {}
        self._unattested: dict[int, BlockExecuted] = {}
        self._recent: dict[bytes, tuple[_Block, Entry]] = {}
        self._recent_blocks: deque[_Block] = deque()
        self.sent = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def is_waiting(self, digest: bytes) -> bool:
        return digest in self._waiting

    def want(self, digest: bytes, connection: bytes) -> bool:
        """Answer now if the outcome is at hand (True), else when the block comes (False)."""
        recent = self._recent.get(digest)
        if recent is not None:
            block, entry = recent
            self._reply(connection, block, [entry])
            return True
        connections = self._waiting.get(digest)
        if connections is None:
            if len(self._waiting) >= WAITING_MAX:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[digest] = [connection]
        elif connection not in connections and len(connections) < CONNECTIONS_MAX:
            connections.append(connection)
        return False

    def forget(self, digest: bytes, connection: bytes) -> None:
        """It has been answered otherwise."""
        connections = self._waiting.get(digest)
        if connections is not None and connection in connections:
            connections.remove(connection)
            if not connections:
                del self._waiting[digest]

    def drop(self, digest: bytes) -> list[bytes]:
        """Forget a digest; the connections that waited for it."""
        return self._waiting.pop(digest, [])

    def executed(self, block: BlockExecuted) -> None:
        """The database has the block; its REPLYs wait for the signed attestation."""
        self._unattested[block.sequence] = block
        while len(self._unattested) > UNATTESTED_MAX:
            del self._unattested[next(iter(self._unattested))]

    def attested(self, attest: Attest) -> list[tuple[bytes, list[bytes]]]:
        """Answer everybody who waits for a leaf of the block that `attest` (signed) is about.

        Returns digests that were ordered a second time with the connections that wait for them: their
        outcome is in an earlier block.
        """
        executed = self._unattested.pop(attest.sequence, None)
        if executed is None:
            return []
        block = _Block(executed, attest)
        by_connection: dict[bytes, list[Entry]] = {}
        repeated: list[tuple[bytes, list[bytes]]] = []
        waiting = self._waiting
        for entry in executed.entries:
            connections = waiting.pop(entry.digest, None)
            if entry.status == Status.DUPLICATE:
                if connections is not None:
                    repeated.append((entry.digest, connections))
                continue
            self._recent[entry.digest] = (block, entry)
            for connection in connections or ():
                by_connection.setdefault(connection, []).append(entry)
        for connection, entries in by_connection.items():
            self._reply(connection, block, entries)
        self._recent_blocks.append(block)
        while len(self._recent) > LEAVES_KEPT and len(self._recent_blocks) > 1:
            self._forget(self._recent_blocks.popleft())
        return repeated

    def _forget(self, block: _Block) -> None:
        for entry in block.executed.entries:
            kept = self._recent.get(entry.digest)
            if kept is not None and kept[0] is block:
                del self._recent[entry.digest]

    def _reply(self, connection: bytes, block: _Block, entries: list[Entry]) -> None:
        attest = block.attest
        turn = attest.sequence % self._n
        answers: list[ReplyEntry] = []
        size = 0
        is_full = False
        for entry in entries:
            outcome = None
            if (entry.index + turn) % self._n == self._me:
                outcome = Outcome(entry.status, entry.result, entry.path)
                is_full = True
            if answers and size > REPLY_BYTES:
                self._emit(connection, attest, answers, block.executed.block_header if is_full else b"")
                answers, size = [], 0
            answers.append(ReplyEntry(entry.digest, entry.index, outcome))
            size += _ENTRY_BYTES + len(entry.result) + len(entry.path)
        self._emit(connection, attest, answers, block.executed.block_header if is_full else b"")

    def found(self, connection: bytes, digest: bytes, receipt: ReceiptFound, attest: Attest) -> None:
        """Answer from the archive, in full; `attest` is our signature on the block of the receipt."""
        outcome = Outcome(receipt.status, receipt.result, receipt.path, receipt.record)
        self._emit(connection, attest, [ReplyEntry(digest, receipt.index, outcome)], receipt.block_header)

    def _emit(self, connection: bytes, attest: Attest, entries: list[ReplyEntry], header: bytes) -> None:
        reply = Reply(
            attest.epoch,
            attest.sequence,
            attest.order_hash,
            attest.block_hash,
            attest.signature,
            tuple(entries),
            header,
        )
        self._send(connection, self._wire.encode_client(reply))
        self.sent += 1


def attest_of(header: BlockHeader) -> Attest:
    """The unsigned attestation of a block that the executor's archive holds."""
    return Attest(header.epoch, SequenceNumber(header.sequence), header.order_hash, header.hash)
