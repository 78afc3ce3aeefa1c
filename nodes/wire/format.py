"""Numbers of the wire format: message types, record types, limits; and `Domain`, what bytes are checked against.

The limits hold before anything is allocated. Each follows from the cluster's parameters or from the
sockets' frame limits (protocol.md 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

HEADER_BYTES = 16
BATCH_HEADER_BYTES = 80
REQUEST_FIXED_BYTES = 88
SIGNATURE_BYTES = 64
HASH_BYTES = 32
NONCE_BYTES = 16
NUMBER_MAX = 2**53 - 1
"""Views, sequence numbers and times stay exact in JSON, SQL and JavaScript."""
U64_MAX = 2**64 - 1

CONTROL_FRAME_MAX = 256 * 1024
BULK_FRAME_MAX = 8 * 1024 * 1024
CLIENT_FRAME_MAX = 96 * 1024
"""From a client to a replica: one operation of the largest size and its envelope."""
CLIENT_ANSWER_MAX = 8 * 1024 * 1024
"""From a replica to a client; a larger REPLY is sent as several."""
BULK_ABOVE = 64 * 1024
"""A peer message whose encoding is longer travels on the bulk socket."""

QUERY_BYTES_MAX = 16_384
STATUS_BYTES_MAX = 65_536
STATUS_SLOTS_MAX = 64
FETCHED_BLOCKS_MAX = 64
"""What the core asks for at once (`nodes.core.catch_up`). Without it 8 MiB hold 100,000 empty batches."""
FORWARD_REQUESTS_MAX = 64
"""What a relaying replica may have unchecked at its peer (`nodes.core.relay`): more would be thrown away."""
SHARE_LEAVES_MAX = 256
PATH_BYTES_MAX = 32 * HASH_BYTES


class MessageType(IntEnum):
    REQUEST = 0x01
    FORWARD = 0x02
    REPLY = 0x03
    BUSY = 0x04
    RECEIPT_QUERY = 0x05
    SUBSCRIBE = 0x06
    STATUS_QUERY = 0x07
    STATUS_ANSWER = 0x08
    BLOCK_QUERY = 0x09
    BLOCK_ANSWER = 0x0A
    PREPREPARE = 0x10
    PREPARE = 0x11
    COMMIT = 0x12
    ATTEST = 0x13
    STATUS = 0x14
    FETCH = 0x15
    FETCHED = 0x16
    WISH = 0x20
    VIEWCHANGE = 0x21
    NEWVIEW = 0x22
    READ = 0x30
    READSHARE = 0x31
    HELLO = 0x50
    HELLO_ANSWER = 0x51
    EVIDENCE = 0x60


class RecordType(IntEnum):
    """Types of write-ahead log records."""

    ACCEPTED = 1
    PREPARED = 2
    ADOPTED = 3
    DECIDED = 4
    STABLE = 5
    VIEW_ENTERED = 6


@dataclass(frozen=True, slots=True)
class Domain:
    """The cluster and epoch that bytes must belong to, and the limits that follow from its parameters."""

    cluster_id: bytes
    epoch: int
    n: int
    window: int
    batch_bytes_max: int
    batch_requests_max: int
    operation_bytes_max: int
    result_bytes_max: int
    block_results_max: int
    """Requests and fired timers of one block."""

    @property
    def record_bytes_max(self) -> int:
        """One REQUEST record."""
        return REQUEST_FIXED_BYTES + self.operation_bytes_max + SIGNATURE_BYTES

    @property
    def view_change_bytes_max(self) -> int:
        """A VIEWCHANGE payload: its base, and a certificate for each place of the window."""
        signatures = 1 + self.n * (2 + SIGNATURE_BYTES)
        certificate = 8 + BATCH_HEADER_BYTES + signatures
        return 512 + signatures + self.window * certificate

    @property
    def new_view_bytes_max(self) -> int:
        """A NEWVIEW payload; every one fits a bulk frame."""
        payload = 512 + self.n * (4 + self.view_change_bytes_max) + self.window * SIGNATURE_BYTES
        return min(payload, BULK_FRAME_MAX - HEADER_BYTES)

    @property
    def answer_bytes_max(self) -> int:
        """Body of a HELLO answer, of evidence: a NEWVIEW or a proposal, and a VIEWCHANGE beside it."""
        largest = max(self.new_view_bytes_max, self.batch_bytes_max + 1024)
        return min(largest + self.view_change_bytes_max + 4096, BULK_FRAME_MAX - 1024)
