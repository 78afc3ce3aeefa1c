"""Status codes of executed operations: a fixed table, so that a receipt's number has one meaning.

0..99 belong to the replication library, 100.. to the application (`auction.codes`). The number is
hashed into the block; the name is derived from it and never read from a file.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Outcomes the library itself decides, before or instead of asking the application."""

    OK = 0
    DUPLICATE = 1
    """The same request was executed in an earlier block; the result names that block and index."""
    EXPIRED = 2
    STALE_SESSION = 3
    STALE_SEQUENCE = 4
    WINDOW_EXCEEDED = 5
    SEQUENCE_REUSED = 6
    MALFORMED_OPERATION = 7
    UNAUTHORIZED = 8


APPLICATION_CODES_FROM = 100
