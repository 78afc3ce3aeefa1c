"""The auction's status numbers, their stable names, and the HTTP status that each name is answered with.

A number is hashed into a block and never reused or renumbered; the name follows from it by this table.
Sources: interface.md 2 (refusals) and 3 (HTTP status by code).
"""

from __future__ import annotations

from enum import IntEnum

from nodes.codes import APPLICATION_CODES_FROM, Status


class AuctionStatus(IntEnum):
    """Refusals of the auction house. All are replicated, provable outcomes."""

    ACCOUNT_FROZEN = 100
    HANDLE_TAKEN = 101
    ALREADY_REGISTERED = 102
    BAD_PROOF = 103
    UNKNOWN_ACCOUNT = 104
    LAST_ADMIN = 105
    INVALID_AMOUNT = 106
    SUPPLY_LIMIT = 107
    INSUFFICIENT_FUNDS = 108
    SELF_TRANSFER = 109
    INVALID_SCHEDULE = 110
    TOO_MANY_OPEN = 111
    UNKNOWN_AUCTION = 112
    AUCTION_NOT_OPEN = 113
    AUCTION_CLOSED = 114
    AUCTION_CANCELLED = 115
    BID_TOO_LOW = 116
    OWN_AUCTION = 117
    NOT_OWNER = 118
    HAS_BIDS = 119
    INVALID_VERSION = 120


MALFORMED_QUERY = "malformed_query"
UNKNOWN_QUERY = "unknown_query"
AUCTION_OPEN = "auction_open"
"""Error of the query `winner` while the auction still runs."""

_NAMES: dict[int, str] = {int(status): status.name.lower() for status in (*Status, *AuctionStatus)}
_UNPROCESSABLE = 422
_HTTP: dict[str, int] = {
    "ok": 201,
    "duplicate": 200,
    "malformed_operation": 422,
    MALFORMED_QUERY: 400,
    UNKNOWN_QUERY: 400,
    "unauthorized": 403,
    "account_frozen": 403,
    "not_owner": 403,
    "own_auction": 403,
    "unknown_account": 404,
    "unknown_auction": 404,
    "sequence_reused": 409,
    "stale_sequence": 409,
    "stale_session": 409,
    "window_exceeded": 409,
    "handle_taken": 409,
    "already_registered": 409,
    "auction_closed": 409,
    "auction_cancelled": 409,
    "has_bids": 409,
    AUCTION_OPEN: 409,
    "expired": 410,
}

if min(AuctionStatus) < APPLICATION_CODES_FROM:
    raise ImportError("an auction status collides with the library's")


def code_name(status: int) -> str:
    """The stable name of a status number, the library's included; `status_N` for a number unknown here."""
    return _NAMES.get(status) or f"status_{status}"


def http_status(code: str) -> int:
    """The HTTP status for an ordered outcome's or a query error's stable name; 422 unless the table says more."""
    return _HTTP.get(code, _UNPROCESSABLE)
