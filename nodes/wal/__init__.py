"""The write-ahead log: what a replica promised before a crash, readable after it.

`segment` holds the bytes (formats, scanning, telling a torn tail from corruption), `log` the
writer thread, replay and collection. What the payloads mean is `nodes.wire`'s business.
"""

from nodes.wal.log import Wal, WalStatistics
from nodes.wal.segment import (
    RECORD_BYTES_MAX,
    SEGMENT_BYTES,
    LogIdentity,
    LogRecord,
    WalCorrupt,
    WalError,
    WalLocked,
    WalMismatch,
)

__all__ = [
    "RECORD_BYTES_MAX",
    "SEGMENT_BYTES",
    "LogIdentity",
    "LogRecord",
    "Wal",
    "WalCorrupt",
    "WalError",
    "WalLocked",
    "WalMismatch",
    "WalStatistics",
]
