"""The replicated rows of the auction house, one NamedTuple a table, and the numbers stored in them.

Money is in minor units, times are microseconds of block time, a flag is 0 or 1. Ids are 16 bytes.
A pair (sequence, position) names the leaf that caused a row: block and index in the block.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class AuctionState(IntEnum):
    """Stored state. Whether bidding has begun follows from opens_at_us and the block time."""

    OPEN = 0
    CLOSED = 1
    CANCELLED = 2


class House(NamedTuple):
    """The one row of what the whole house has in common."""

    id: int
    currency: str
    exponent: int
    registration: str
    transparency: str
    admin_threshold: int
    admins: int
    """Accounts that are admin and not frozen."""
    rules_version: int
    rules_from: int
    """Sequence from which rules_version is in force; before it the version below is."""


class Supply(NamedTuple):
    """The one row of money that exists; a row of its own because it changes with every mint."""

    id: int
    minted: int
    supply_limit: int


class Account(NamedTuple):
    id: bytes
    public_key: bytes
    handle: str
    name: str
    roles: int
    frozen: int
    available: int
    held: int
    open_auctions: int
    entries: int
    """Ledger entries so far: the number of the last one."""


class AccountKey(NamedTuple):
    """Every key that ever was an account's; a retired one acts for nobody and is never taken again."""

    public_key: bytes
    account: bytes
    active: int


class AccountHandle(NamedTuple):
    handle: str
    account: bytes


class Auction(NamedTuple):
    """What a bid needs, and nothing long: this row is rewritten with every bid."""

    id: bytes
    owner: bytes
    starting_price: int
    min_increment: int
    reserve_price: int | None
    buy_now: int | None
    opens_at_us: int
    closes_at_us: int
    closes_at_max_us: int
    soft_close_us: int
    state: int
    price: int
    """0 before the first bid."""
    leader: bytes | None
    leader_bid: int
    """Number of the leading bid, 0 before the first."""
    leader_maximum: int
    """What the leader's hold is while the auction is open."""
    bids: int
    revision: int
    """Public events so far."""
    opened_sequence: int
    opened_position: int


class AuctionText(NamedTuple):
    auction: bytes
    title: str
    description: str


class Closing(NamedTuple):
    """How an auction ended; written once. `digest` finds the receipt: of the timer or of the operation."""

    auction: bytes
    reason: str
    """deadline, closed_by_owner, buy_now or cancelled."""
    outcome: str
    """sold, reserve_not_met, no_bids or cancelled."""
    note: str
    winner: bytes | None
    price: int
    time_us: int
    sequence: int
    position: int
    digest: bytes


class Bid(NamedTuple):
    auction: bytes
    number: int
    bidder: bytes
    amount: int
    maximum: int
    price: int
    """The auction's price after this bid."""
    outcome: str
    """leading, outbid or bought, at the time of the bid."""
    time_us: int
    sequence: int
    position: int


class Event(NamedTuple):
    """A public event; (sequence, position, effect) is its place in the world's order, revision in the auction's."""

    sequence: int
    position: int
    effect: int
    auction: bytes
    revision: int
    time_us: int
    body: str
    """The effect as canonical JSON."""


class LedgerEntry(NamedTuple):
    account: bytes
    number: int
    kind: str
    """minted, paid, received, held or released."""
    amount: int
    available: int
    held: int
    """Balances after the entry."""
    auction: bytes | None
    counterparty: bytes | None
    memo: str | None
    time_us: int
    sequence: int
    position: int
    effect: int


class Approval(NamedTuple):
    """An admin operation that waits for further admins; digest is SHA-256 of its canonical bytes."""

    digest: bytes
    operation: bytes
    proposer: bytes
    slot: int
    approvers: bytes
    """Ids of the admins who submitted it, concatenated in order."""
    expires_us: int


class ApprovalSlot(NamedTuple):
    """Bounds what one admin can leave pending: slots are reused in turn."""

    proposer: bytes
    slot: int
    digest: bytes | None


class Proposer(NamedTuple):
    account: bytes
    next_slot: int


class Activation(NamedTuple):
    version: int
    at_sequence: int
    sequence: int
    position: int
