"""The bytes of a log segment: header, records, and the scan that judges a bad record.

A segment file is a 64-byte header followed by records; the rest of the active one is zeros
(preallocated), a finished one is cut at its last record. A record is

    u32 length of payload | u32 crc | u64 lsn | u64 synced_lsn | u8 type | payload     (little-endian)

with lsn rising by one from record to record and through the segments. The check sum covers all
fields and the payload. It is CRC-32 (zlib's): no CRC-32C implementation is among our dependencies,
and both detect the same classes of damage at this record size.

`synced_lsn` is what was known durable when the record was written. It separates the two reasons
for a bad record: pages that were never synced may reach the disk out of order, so a bad record is
the torn tail of a crash unless a valid later record says that it had been synced
(Alagappan et al., Protocol-Aware Recovery for Consensus-Based Storage, FAST 2018).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SEGMENT_BYTES = 64 * 1024 * 1024
RECORD_BYTES_MAX = 16 * 1024 * 1024
"""Largest payload: far above a batch of 1 MiB or a NEW-VIEW, far below a segment."""

MAGIC = b"ARWAL\x00\x00\x01"
_HEADER = struct.Struct("<8sQ16sHxx16sQ")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
_RECORD = struct.Struct("<IIQQB")
RECORD_HEADER_BYTES = _RECORD.size
_AFTER_CRC = struct.Struct("<QQB")
_LENGTH = struct.Struct("<I")

MARK = 0
"""Record type of the log itself: written at a clean close, never handed to the caller."""


class WalError(Exception):
    """The log cannot be used."""


class WalLocked(WalError):
    """Another process has this log open."""


class WalMismatch(WalError):
    """The log belongs to another cluster or another replica."""


class WalCorrupt(WalError):
    """A record that had been durable is damaged or missing: what this replica promised is lost."""


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Whose log this is. `nonce` and `created_us` are made once, with the first segment."""

    cluster_id: bytes
    replica: int
    nonce: bytes
    """16 random bytes."""
    created_us: int


class LogRecord(NamedTuple):
    lsn: int
    type: int
    payload: bytes


def pack_header(identity: LogIdentity, first_lsn: int) -> bytes:
    body = _HEADER.pack(
        MAGIC, first_lsn, identity.cluster_id, identity.replica, identity.nonce, identity.created_us
    )
    return body + _CRC.pack(zlib.crc32(body))


def unpack_header(data: bytes) -> tuple[LogIdentity, int] | None:
    """(identity, first lsn), or None when these bytes are not a whole, undamaged header."""
    if len(data) < HEADER_BYTES:
        return None
    body = data[: _HEADER.size]
    if _CRC.unpack_from(data, _HEADER.size)[0] != zlib.crc32(body):
        return None
    magic, first_lsn, cluster_id, replica, nonce, created_us = _HEADER.unpack(body)
    if magic != MAGIC:
        return None
    return LogIdentity(cluster_id, replica, nonce, created_us), first_lsn


def pack_record(lsn: int, synced_lsn: int, kind: int, payload: bytes) -> bytes:
    tail = _AFTER_CRC.pack(lsn, synced_lsn, kind)
    length = _LENGTH.pack(len(payload))
    return length + _CRC.pack(zlib.crc32(payload, zlib.crc32(tail, zlib.crc32(length)))) + tail + payload


def unpack_record(data: bytes, offset: int) -> tuple[LogRecord, int] | None:
    """(record, its synced_lsn) at `offset`, or None when there is no valid record."""
    if offset + RECORD_HEADER_BYTES > len(data):
        return None
    length, crc, lsn, synced_lsn, kind = _RECORD.unpack_from(data, offset)
    end = offset + RECORD_HEADER_BYTES + length
    if lsn == 0 or synced_lsn >= lsn or length > RECORD_BYTES_MAX or end > len(data):
        return None
    payload = data[offset + RECORD_HEADER_BYTES : end]
    tail = data[offset + 8 : offset + RECORD_HEADER_BYTES]
    if zlib.crc32(payload, zlib.crc32(tail, zlib.crc32(data[offset : offset + 4]))) != crc:
        return None
    return LogRecord(lsn, kind, payload), synced_lsn


def proof_of_corruption(data: bytes, offset: int, lsn: int) -> int | None:
    """The lsn of a valid record behind `offset` which says that `lsn` had been synced, or None.

    `lsn` is what the record at `offset` should have been. One pass: a segment holds fewer than
    2**24 records, so the upper five bytes of every later lsn in it are one of two values.
    """
    # a header is never all zeros, so it begins before the last byte that is not zero
    remains = data[offset:].rstrip(b"\x00")
    high = [re.escape(((lsn >> 24) + step).to_bytes(5, "little")) for step in (0, 1)]
    padded = remains + bytes(RECORD_HEADER_BYTES) if remains else b""
    for found in re.finditer(b"(?s)(?=...(?:" + high[0] + b"|" + high[1] + b"))", padded):
        start = found.start() - 8
        if start <= 0:
            continue
        valid = unpack_record(data, offset + start)
        if valid is not None and valid[0].lsn > lsn and valid[1] >= lsn:
            return valid[0].lsn
    return None


def segment_path(directory: Path, first_lsn: int) -> Path:
    return directory / f"{first_lsn:020d}.wal"


def segment_paths(directory: Path) -> list[Path]:
    """Segment files, oldest first."""
    return sorted(path for path in directory.iterdir() if re.fullmatch(r"\d{20}\.wal", path.name))
