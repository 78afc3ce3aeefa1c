"""The block header and the leaves under it: what ATTEST signatures and receipts are about.

Layout and hashes are those of docs/receipts.md. A header packs to exactly 277 bytes; its tagged
SHA-256 is the block hash. Deliberately elsewhere: how a block comes about (`nodes.executor`) and who
signed it (`nodes.receipt`, `nodes.wire`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import fastpath

HEADER_BYTES = 277
HEADER_VERSION = 1
TIMER_ID_BYTES_MAX = 64
"""Longest timer id; a timer's subject in a receipt is its id and due time."""

_HEADER = struct.Struct("<B16sQQ32s32s32sQI32s32sQ32s32s")
_LEAF = struct.Struct("<BQI32sH32s")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """One executed block, as every correct replica computes it."""

    cluster_id: bytes
    """16 bytes."""
    epoch: int
    sequence: int
    previous_block_hash: bytes
    order_hash: bytes
    digest: bytes
    """Digest of the ordered batch."""
    time_us: int
    """Block time, microseconds since 1970."""
    result_count: int
    results_root: bytes
    write_set_hash: bytes
    state_sequence: int
    """The block whose state `state_root` describes."""
    state_root: bytes
    config_hash: bytes

    def pack(self) -> bytes:
        """The 277 bytes that are hashed. ValueError for a field of the wrong size or range."""
        for name, size in _FIXED:
            if len(getattr(self, name)) != size:
                raise ValueError(f"{name} is {len(getattr(self, name))} bytes, not {size}")
        try:
            return _HEADER.pack(
                HEADER_VERSION,
                self.cluster_id,
                self.epoch,
                self.sequence,
                self.previous_block_hash,
                self.order_hash,
                self.digest,
                self.time_us,
                self.result_count,
                self.results_root,
                self.write_set_hash,
                self.state_sequence,
                self.state_root,
                self.config_hash,
            )
        except struct.error as error:
            raise ValueError(f"block header: {error}") from error

    @staticmethod
    def unpack(data: bytes) -> BlockHeader:
        """The header in these bytes. ValueError unless they are 277 bytes of version 1."""
        if len(data) != HEADER_BYTES:
            raise ValueError(f"a block header is {HEADER_BYTES} bytes, not {len(data)}")
        version, *fields = _HEADER.unpack(data)
        if version != HEADER_VERSION:
            raise ValueError(f"block header version {version} is not {HEADER_VERSION}")
        return BlockHeader(*fields)

    @property
    def hash(self) -> bytes:
        """The block hash, 32 bytes."""
        return block_hash(self.pack())


_FIXED = (
    ("cluster_id", 16),
    ("previous_block_hash", 32),
    ("order_hash", 32),
    ("digest", 32),
    ("results_root", 32),
    ("write_set_hash", 32),
    ("state_root", 32),
    ("config_hash", 32),
)


def block_hash(header: bytes) -> bytes:
    """Hash of a packed block header."""
    return fastpath.tagged_hash(b"BLOCK", header)


def next_order_hash(previous: bytes, sequence: int, digest: bytes) -> bytes:
    """The order hash of `sequence`: the whole order up to it, chained at execution."""
    return fastpath.tagged_hash(b"ORD", previous, _U64.pack(sequence), digest)


def timer_digest(timer_id: bytes, due_us: int) -> bytes:
    """What stands for the request digest in the leaf of a fired timer."""
    return fastpath.tagged_hash(b"SYS", _U32.pack(len(timer_id)), timer_id, _U64.pack(due_us))


def result_leaf(sequence: int, index: int, digest: bytes, status: int, result: bytes) -> bytes:
    """Merkle leaf hash of one result; `index` counts fired timers first, then requests."""
    return fastpath.leaf_hash(_LEAF.pack(1, sequence, index, digest, status, fastpath.sha256(result)))


def timer_record(timer_id: bytes, due_us: int) -> bytes:
    """Archive form of a fired timer, in the place where a request's leaf has its record.

    First byte 0 (a REQUEST record begins with its version, 1): u8 0, u32 length, id, u64 due_us.
    """
    if not 0 < len(timer_id) <= TIMER_ID_BYTES_MAX:
        raise ValueError(f"a timer id is 1 to {TIMER_ID_BYTES_MAX} bytes, not {len(timer_id)}")
    return b"\x00" + _U32.pack(len(timer_id)) + timer_id + _U64.pack(due_us)


def parse_timer_record(record: bytes) -> tuple[bytes, int]:
    """(timer id, due_us) of `timer_record`. ValueError for anything else."""
    size = len(record) - 13
    if not 0 < size <= TIMER_ID_BYTES_MAX or record[0] != 0 or _U32.unpack_from(record, 1)[0] != size:
        raise ValueError("not the record of a timer")
    return bytes(record[5 : 5 + size]), int(_U64.unpack_from(record, 5 + size)[0])
