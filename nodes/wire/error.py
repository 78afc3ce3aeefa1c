"""`WireError`: bytes that were refused. The loop counts it against the channel and drops the frame."""

from __future__ import annotations

from enum import StrEnum


class WireCode(StrEnum):
    """Why bytes were refused."""

    BAD_FRAME = "bad_frame"
    """Message headers that do not fill the frame, or a frame over its limit."""
    UNKNOWN_TYPE = "unknown_type"
    WRONG_EPOCH = "wrong_epoch"
    WRONG_CLUSTER = "wrong_cluster"
    WRONG_SENDER = "wrong_sender"
    """A message that names another author than the channel's."""
    MALFORMED = "malformed"
    """Truncated, too long, or a field out of its range."""
    DIGEST_MISMATCH = "digest_mismatch"
    """A header or body that does not hash to what it should."""


class WireError(ValueError):
    """Refused bytes: a stable `code` for counters, and a `detail` for the log."""

    def __init__(self, code: WireCode, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
