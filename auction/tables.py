"""The replicated tables: names, columns, keys and the indexes that queries use.

Table ids are hashed and never reused. Every index ends in something unique, so that reads have one order.
"""

from __future__ import annotations

from sqlalchemy import MetaData

from auction import state
from nodes.machine import binary, integer, replicated_table, text

ID_BYTES = 16
DIGEST_BYTES = 32
APPROVERS_MAX = 16
"""Highest admin_threshold: bounds the row of an approval."""
APPROVAL_OPERATION_BYTES_MAX = 4_096
EVENT_CHARACTERS_MAX = 2_048

metadata = MetaData()

house = replicated_table(
    metadata,
    100,
    "house",
    state.House,
    integer("id"),
    text("currency", 8),
    integer("exponent"),
    text("registration", 16),
    text("transparency", 16),
    integer("admin_threshold"),
    integer("admins"),
    integer("rules_version"),
    integer("rules_from"),
    key=("id",),
)

supply = replicated_table(
    metadata,
    101,
    "supply",
    state.Supply,
    integer("id"),
    integer("minted"),
    integer("supply_limit"),
    key=("id",),
)

accounts = replicated_table(
    metadata,
    102,
    "accounts",
    state.Account,
    binary("id", ID_BYTES),
    binary("public_key", 32),
    text("handle", 32),
    text("name", 64),
    integer("roles"),
    integer("frozen"),
    integer("available"),
    integer("held"),
    integer("open_auctions"),
    integer("entries"),
    key=("id",),
)

account_keys = replicated_table(
    metadata,
    103,
    "account_keys",
    state.AccountKey,
    binary("public_key", 32),
    binary("account", ID_BYTES),
    integer("active"),
    key=("public_key",),
)

account_handles = replicated_table(
    metadata,
    104,
    "account_handles",
    state.AccountHandle,
    text("handle", 32),
    binary("account", ID_BYTES),
    key=("handle",),
)

auctions = replicated_table(
    metadata,
    105,
    "auctions",
    state.Auction,
    binary("id", ID_BYTES),
    binary("owner", ID_BYTES),
    integer("starting_price"),
    integer("min_increment"),
    integer("reserve_price", nullable=True),
    integer("buy_now", nullable=True),
    integer("opens_at_us"),
    integer("closes_at_us"),
    integer("closes_at_max_us"),
    integer("soft_close_us"),
    integer("state"),
    integer("price"),
    binary("leader", ID_BYTES, nullable=True),
    integer("leader_bid"),
    integer("leader_maximum"),
    integer("bids"),
    integer("revision"),
    integer("opened_sequence"),
    integer("opened_position"),
    key=("id",),
    indexes=(
        ("opened_sequence", "opened_position"),
        ("state", "opened_sequence", "opened_position"),
        ("owner", "opened_sequence", "opened_position"),
        ("owner", "state", "opened_sequence", "opened_position"),
    ),
)

auction_texts = replicated_table(
    metadata,
    106,
    "auction_texts",
    state.AuctionText,
    binary("auction", ID_BYTES),
    text("title", 200),
    text("description", 4_000),
    key=("auction",),
)

closings = replicated_table(
    metadata,
    107,
    "closings",
    state.Closing,
    binary("auction", ID_BYTES),
    text("reason", 16),
    text("outcome", 16),
    text("note", 200),
    binary("winner", ID_BYTES, nullable=True),
    integer("price"),
    integer("time_us"),
    integer("sequence"),
    integer("position"),
    binary("digest", DIGEST_BYTES),
    key=("auction",),
)

bids = replicated_table(
    metadata,
    108,
    "bids",
    state.Bid,
    binary("auction", ID_BYTES),
    integer("number"),
    binary("bidder", ID_BYTES),
    integer("amount"),
    integer("maximum"),
    integer("price"),
    text("outcome", 16),
    integer("time_us"),
    integer("sequence"),
    integer("position"),
    key=("auction", "number"),
    indexes=(("bidder", "sequence", "position"),),
)

events = replicated_table(
    metadata,
    109,
    "events",
    state.Event,
    integer("sequence"),
    integer("position"),
    integer("effect"),
    binary("auction", ID_BYTES),
    integer("revision"),
    integer("time_us"),
    text("body", EVENT_CHARACTERS_MAX),
    key=("sequence", "position", "effect"),
    indexes=(("auction", "sequence", "position", "effect"),),
)

ledger = replicated_table(
    metadata,
    110,
    "ledger",
    state.LedgerEntry,
    binary("account", ID_BYTES),
    integer("number"),
    text("kind", 16),
    integer("amount"),
    integer("available"),
    integer("held"),
    binary("auction", ID_BYTES, nullable=True),
    binary("counterparty", ID_BYTES, nullable=True),
    text("memo", 200, nullable=True),
    integer("time_us"),
    integer("sequence"),
    integer("position"),
    integer("effect"),
    key=("account", "number"),
)

approvals = replicated_table(
    metadata,
    111,
    "approvals",
    state.Approval,
    binary("digest", DIGEST_BYTES),
    binary("operation", APPROVAL_OPERATION_BYTES_MAX),
    binary("proposer", ID_BYTES),
    integer("slot"),
    binary("approvers", ID_BYTES * APPROVERS_MAX),
    integer("expires_us"),
    key=("digest",),
)

approval_slots = replicated_table(
    metadata,
    112,
    "approval_slots",
    state.ApprovalSlot,
    binary("proposer", ID_BYTES),
    integer("slot"),
    binary("digest", DIGEST_BYTES, nullable=True),
    key=("proposer", "slot"),
)

proposers = replicated_table(
    metadata,
    113,
    "proposers",
    state.Proposer,
    binary("account", ID_BYTES),
    integer("next_slot"),
    key=("account",),
)

activations = replicated_table(
    metadata,
    114,
    "activations",
    state.Activation,
    integer("version"),
    integer("at_sequence"),
    integer("sequence"),
    integer("position"),
    key=("version",),
)
