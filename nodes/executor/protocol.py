"""What a replica and its executor say to each other, as msgpack over one ipc socket of the node.

The replica binds a ROUTER, the executor connects a DEALER that probes it, so that each side knows when
the other is new (with PAIR, an executor that comes before its former self is gone is cut off for ever).
Only these two processes of one owner can reach the socket, so the values are trusted; lengths are still
bounded by it. An executor that starts, is asked by `Hello`, or is handed a block out of order says
`Ready`; the replica then hands it every block after `Ready.sequence`, in order.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class ExecuteBlock(msgspec.Struct, frozen=True, tag="execute"):
    """The next block of the order. A block that was executed before is answered from the archive."""

    sequence: int
    batch_header: bytes
    """80 bytes."""
    body: bytes
    """Concatenated request records, which the replica has checked."""
    order_hash: bytes


class Query(msgspec.Struct, frozen=True, tag="query"):
    token: int
    query: bytes
    caller: bytes | None = None
    """The public key whose signature under the query was verified, or None."""
    want_result: bool = True
    """False: the asker needs only the hash of the result, and may drop the result unsent."""


class FetchArchive(msgspec.Struct, frozen=True, tag="fetch_archive"):
    """Ask for batches `first`..`last`; the answer holds as many from `first` on as fit its bounds."""

    token: int
    first: int
    last: int


class FindReceipt(msgspec.Struct, frozen=True, tag="find_receipt"):
    token: int
    digest: bytes
    """Request digest, or the digest of a fired timer."""


class FindBlock(msgspec.Struct, frozen=True, tag="find_block"):
    token: int
    sequence: int


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Ask for `Ready`."""


class Entry(NamedTuple):
    """One leaf of a block. `result` and `path` are empty unless this replica answers for the leaf in full."""

    digest: bytes
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on an entry
    status: int
    result: bytes
    path: bytes


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The state is open and stands after block `sequence`."""

    sequence: int
    block_hash: bytes
    next_timer_us: int | None
    state_sequence: int
    """The block whose state `state_root` describes."""
    state_root: bytes
    time_us: int
    order_hash: bytes
    build: str
    """Which fastpath build runs: "compiled" or "python"."""
    database: str
    """Kind and version of the database, for status."""


class BlockExecuted(msgspec.Struct, frozen=True, tag="executed"):
    """The block is committed in the database."""

    sequence: int
    block_header: bytes
    """277 bytes."""
    next_timer_us: int | None
    entries: list[Entry]
    """Every leaf in order, fired timers first."""


class QueryAnswer(msgspec.Struct, frozen=True, tag="answer"):
    token: int
    result: bytes
    sequence: int
    block_hash: bytes
    time_us: int


class Archive(msgspec.Struct, frozen=True, tag="archive"):
    token: int
    blocks: list[tuple[bytes, bytes]]
    """(batch header, body), consecutive; empty when the first is not held."""


class ReceiptFound(msgspec.Struct, frozen=True, tag="receipt"):
    token: int
    found: bool
    block_header: bytes = b""
    index: int = 0
    status: int = 0
    result: bytes = b""
    path: bytes = b""
    record: bytes = b""
    """The request record, or `nodes.block.timer_record` for a fired timer."""


class BlockFound(msgspec.Struct, frozen=True, tag="block"):
    token: int
    found: bool
    block_header: bytes = b""


class ExecutorAlarm(msgspec.Struct, frozen=True, tag="alarm"):
    """Execution stands still for this reason; the executor keeps trying, or stops if it cannot go on."""

    reason: str


Question = Query | FetchArchive | FindReceipt | FindBlock
Answer = QueryAnswer | Archive | ReceiptFound | BlockFound
Down = ExecuteBlock | Query | FetchArchive | FindReceipt | FindBlock | Hello
Up = Ready | BlockExecuted | QueryAnswer | Archive | ReceiptFound | BlockFound | ExecutorAlarm

_encoder = msgspec.msgpack.Encoder()
_down: msgspec.msgpack.Decoder[Down] = msgspec.msgpack.Decoder(Down)
_up: msgspec.msgpack.Decoder[Up] = msgspec.msgpack.Decoder(Up)


def encode(message: Down | Up) -> bytes:
    return _encoder.encode(message)


def decode_down(data: bytes) -> Down:
    """A message for the executor. msgspec.DecodeError when it is none."""
    return _down.decode(data)


def decode_up(data: bytes) -> Up:
    """A message for the replica. msgspec.DecodeError when it is none."""
    return _up.decode(data)
