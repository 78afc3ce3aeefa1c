"""Queries: canonical JSON in, canonical JSON out, from one snapshot, bounded and totally ordered.

The answer depends on the rows alone (and, for `state`, on the block), so that q replicas give equal bytes.
Errors are answers: {"error": code}. Private are balances, ledgers, pending approvals and the maxima of
bids; they open to their owner, to auditors, and to all when the house's transparency is `public`.
A cursor is the JSON array "next" of the page before; lists are newest first, events oldest first, unless
"order" says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import UNSET, Raw, UnsetType
from sqlalchemy import Table

from auction import codes, rules, tables
from auction.call import HOUSE_ID, SUPPLY_ID
from auction.codes import AuctionStatus, code_name
from auction.effects import canonical
from auction.query_forms import (
    AccountBidsQuery,
    AccountQuery,
    ApprovalsQuery,
    AuctionQuery,
    AuctionsQuery,
    BalanceQuery,
    BidsQuery,
    EventsQuery,
    LedgerQuery,
    Order,
    QueryError,
    StateQuery,
    SupplyQuery,
    WinnerQuery,
    parse,
)
from auction.roles import Role, role_names
from auction.state import (
    Account,
    AccountHandle,
    AccountKey,
    Approval,
    Auction,
    AuctionState,
    AuctionText,
    Bid,
    Closing,
    Event,
    House,
    LedgerEntry,
    Supply,
)
from nodes.codes import Status
from nodes.machine import RowReader, Value

PAGE_BYTES_MAX = 60_000
"""A page ends early here, whatever its limit: an answer stays below 64 KiB."""


def answer(query: bytes, caller: bytes | None, reader: RowReader) -> bytes:
    """The answer's canonical bytes; `caller` is the verified public key of a signed query, or None."""
    try:
        parsed = parse(query)
        return canonical(_ANSWERS[type(parsed)](_Asker(caller, reader), parsed))
    except QueryError as error:
        return canonical({"error": error.code})


class _Asker:
    """Who asks, what they may see, and the rows they ask about."""

    __slots__ = ("account", "house", "reader")

    def __init__(self, caller: bytes | None, reader: RowReader) -> None:
        self.reader = reader
        self.house: House = reader.get(tables.house, HOUSE_ID)
        self.account: Account | None = None
        key: AccountKey | None = None if caller is None else reader.get(tables.account_keys, caller)
        if key is not None and key.active:
            self.account = reader.get(tables.accounts, key.account)

    def may_see(self, owner: bytes) -> bool:
        """Is what belongs to this account open to the asker?"""
        return self.sees_all or (self.account is not None and self.account.id == owner)

    @property
    def sees_all(self) -> bool:
        return self.house.transparency == "public" or self.has(Role.AUDITOR)

    def has(self, role: Role) -> bool:
        return self.account is not None and self.account.roles & role != 0

    def find(self, reference: str) -> Account:
        """The account by id, else by handle."""
        account: Account | None = None
        if len(reference) == 32 and all(character in "0123456789abcdef" for character in reference):
            account = self.reader.get(tables.accounts, bytes.fromhex(reference))
        if account is None:
            handle: AccountHandle | None = self.reader.get(tables.account_handles, reference)
            if handle is None:
                raise QueryError(code_name(AuctionStatus.UNKNOWN_ACCOUNT))
            account = self.reader.get(tables.accounts, handle.account)
        if account is None:
            raise AssertionError(f"the handle {reference} refers to no account")
        return account

    def find_private(self, reference: str | UnsetType) -> Account:
        """The account asked about, one's own by default, if its private part is open to the asker."""
        if reference is UNSET:
            if self.account is None:
                raise QueryError(code_name(Status.UNAUTHORIZED))
            return self.account
        account = self.find(reference)
        if not self.may_see(account.id):
            raise QueryError(code_name(Status.UNAUTHORIZED))
        return account

    def auction(self, identity: str) -> Auction:
        auction: Auction | None = self.reader.get(tables.auctions, bytes.fromhex(identity))
        if auction is None:
            raise QueryError(code_name(AuctionStatus.UNKNOWN_AUCTION))
        return auction

    def page(
        self,
        table: Table,
        index: Sequence[str],
        equal: Mapping[str, Value],
        view: Callable[[_Asker, Any], Mapping[str, Any]],
        *,
        after: Sequence[Value] | UnsetType,
        limit: int,
        order: Order,
    ) -> tuple[list[Raw], list[Value] | None]:
        """Encoded views of rows, and the cursor of the page after; None when these are the last."""
        rows = self.reader.range(
            table,
            index,
            equal=equal,
            after=None if after is UNSET else after,
            descending=order == "descending",
            limit=limit,
        )
        views: list[Raw] = []
        size = 0
        for row in rows:
            encoded = canonical(view(self, row))
            size += len(encoded) + 1
            if views and size > PAGE_BYTES_MAX:
                break
            views.append(Raw(encoded))
        more = len(views) < len(rows) or len(rows) == limit
        return views, [getattr(rows[len(views) - 1], name) for name in index] if more else None


def _auction(asker: _Asker, query: AuctionQuery) -> dict[str, Any]:
    auction = asker.auction(query.auction)
    described: AuctionText = asker.reader.get(tables.auction_texts, auction.id)
    return {**_auction_view(asker, auction), "description": described.description}


def _auctions(asker: _Asker, query: AuctionsQuery) -> dict[str, Any]:
    equal: dict[str, Value] = {}
    if query.owner is not UNSET:
        equal["owner"] = bytes.fromhex(query.owner)
    if query.state is not UNSET:
        equal["state"] = int(AuctionState[query.state.upper()])
    index = ("opened_sequence", "opened_position")
    views, following = asker.page(
        tables.auctions, index, equal, _auction_view, after=query.after, limit=query.limit, order=query.order
    )
    return {"auctions": views, "next": following}


def _auction_view(asker: _Asker, auction: Auction) -> dict[str, Any]:
    described: AuctionText = asker.reader.get(tables.auction_texts, auction.id)
    return {
        "id": auction.id.hex(),
        "owner": auction.owner.hex(),
        "title": described.title,
        "starting_price": auction.starting_price,
        "min_increment": auction.min_increment,
        "reserve_price": auction.reserve_price,
        "buy_now": auction.buy_now,
        "opens_at_us": auction.opens_at_us,
        "closes_at_us": auction.closes_at_us,
        "closes_at_max_us": auction.closes_at_max_us,
        "soft_close_seconds": auction.soft_close_us // rules.MICROSECONDS,
        "state": AuctionState(auction.state).name.lower(),
        "price": auction.price if auction.bids else None,
        "minimum_amount": rules.minimum_amount(auction) if auction.state == AuctionState.OPEN else None,
        "leader": _hex(auction.leader),
        "bids": auction.bids,
        "revision": auction.revision,
        "opened": {"sequence": auction.opened_sequence, "index": auction.opened_position},
        "closing": _closing_view(asker, auction),
    }


def _closing_view(asker: _Asker, auction: Auction) -> dict[str, Any] | None:
    if auction.state == AuctionState.OPEN:
        return None
    closing: Closing = asker.reader.get(tables.closings, auction.id)
    return {
        "reason": closing.reason,
        "outcome": closing.outcome,
        "note": closing.note,
        "winner": _hex(closing.winner),
        "price": closing.price,
        "time_us": closing.time_us,
        "sequence": closing.sequence,
        "index": closing.position,
        "digest": closing.digest.hex(),
    }


def _bids(asker: _Asker, query: BidsQuery) -> dict[str, Any]:
    equal = {"auction": asker.auction(query.auction).id}
    views, following = asker.page(
        tables.bids, ("number",), equal, _bid_view, after=query.after, limit=query.limit, order=query.order
    )
    return {"auction": query.auction, "bids": views, "next": following}


def _account_bids(asker: _Asker, query: AccountBidsQuery) -> dict[str, Any]:
    account = asker.find(query.account)
    index, equal = ("sequence", "position"), {"bidder": account.id}
    views, following = asker.page(
        tables.bids, index, equal, _bid_view, after=query.after, limit=query.limit, order=query.order
    )
    return {"account": account.id.hex(), "bids": views, "next": following}


def _bid_view(asker: _Asker, bid: Bid) -> dict[str, Any]:
    view: dict[str, Any] = {
        "auction": bid.auction.hex(),
        "number": bid.number,
        "bidder": bid.bidder.hex(),
        "amount": bid.amount,
        "price": bid.price,
        "outcome": bid.outcome,
        "time_us": bid.time_us,
        "sequence": bid.sequence,
        "index": bid.position,
    }
    if asker.may_see(bid.bidder):
        view["max_amount"] = bid.maximum
    return view


def _winner(asker: _Asker, query: WinnerQuery) -> dict[str, Any]:
    auction = asker.auction(query.auction)
    closing = _closing_view(asker, auction)
    if closing is None:
        raise QueryError(codes.AUCTION_OPEN)
    return {"auction": query.auction, "state": AuctionState(auction.state).name.lower(), **closing}


def _account(asker: _Asker, query: AccountQuery) -> dict[str, Any]:
    account = asker.find(query.account)
    return {
        "id": account.id.hex(),
        "public_key": account.public_key.hex(),
        "handle": account.handle,
        "name": account.name,
        "roles": role_names(account.roles),
        "frozen": bool(account.frozen),
        "open_auctions": account.open_auctions,
    }


def _balance(asker: _Asker, query: BalanceQuery) -> dict[str, Any]:
    account = asker.find_private(query.account)
    return {
        "account": account.id.hex(),
        "available": account.available,
        "held": account.held,
        "currency": asker.house.currency,
        "exponent": asker.house.exponent,
    }


def _ledger(asker: _Asker, query: LedgerQuery) -> dict[str, Any]:
    account = asker.find_private(query.account)
    equal = {"account": account.id}
    views, following = asker.page(
        tables.ledger, ("number",), equal, _entry_view, after=query.after, limit=query.limit, order=query.order
    )
    return {"account": account.id.hex(), "entries": views, "next": following}


def _entry_view(asker: _Asker, entry: LedgerEntry) -> dict[str, Any]:
    return {
        "number": entry.number,
        "kind": entry.kind,
        "amount": entry.amount,
        "available": entry.available,
        "held": entry.held,
        "auction": _hex(entry.auction),
        "counterparty": _hex(entry.counterparty),
        "memo": entry.memo,
        "time_us": entry.time_us,
        "sequence": entry.sequence,
        "index": entry.position,
        "effect": entry.effect,
    }


def _supply(asker: _Asker, query: SupplyQuery) -> dict[str, Any]:
    supply: Supply = asker.reader.get(tables.supply, SUPPLY_ID)
    return {
        "minted": supply.minted,
        "supply_limit": supply.supply_limit,
        "currency": asker.house.currency,
        "exponent": asker.house.exponent,
    }


def _events(asker: _Asker, query: EventsQuery) -> dict[str, Any]:
    equal: dict[str, Value] = {} if query.auction is UNSET else {"auction": asker.auction(query.auction).id}
    index = ("sequence", "position", "effect")
    views, following = asker.page(
        tables.events, index, equal, _event_view, after=query.after, limit=query.limit, order=query.order
    )
    return {"events": views, "next": following}


def _event_view(asker: _Asker, event: Event) -> dict[str, Any]:
    place = {"sequence": event.sequence, "index": event.position, "effect": event.effect, "time_us": event.time_us}
    return {**json.loads(event.body), **place}


def _approvals(asker: _Asker, query: ApprovalsQuery) -> dict[str, Any]:
    if not asker.sees_all and not asker.has(Role.ADMIN):
        raise QueryError(code_name(Status.UNAUTHORIZED))
    after = UNSET if query.after is UNSET else [bytes.fromhex(part) for part in query.after]
    views, following = asker.page(
        tables.approvals, ("digest",), {}, _approval_view, after=after, limit=query.limit, order="ascending"
    )
    cursor = None if following is None else [part.hex() for part in following if isinstance(part, bytes)]
    return {"approvals": views, "needed": asker.house.admin_threshold, "next": cursor}


def _approval_view(asker: _Asker, approval: Approval) -> dict[str, Any]:
    size = tables.ID_BYTES
    return {
        "digest": approval.digest.hex(),
        "operation": json.loads(approval.operation),
        "approvers": [
            approval.approvers[start : start + size].hex() for start in range(0, len(approval.approvers), size)
        ],
        "expires_us": approval.expires_us,
    }


def _state(asker: _Asker, query: StateQuery) -> dict[str, Any]:
    reader = asker.reader
    return {"sequence": reader.sequence, "block_hash": reader.block_hash.hex(), "time_us": reader.time_us}


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()


_ANSWERS: dict[type, Callable[[_Asker, Any], dict[str, Any]]] = {
    AuctionQuery: _auction,
    AuctionsQuery: _auctions,
    BidsQuery: _bids,
    WinnerQuery: _winner,
    AccountQuery: _account,
    AccountBidsQuery: _account_bids,
    BalanceQuery: _balance,
    LedgerQuery: _ledger,
    SupplyQuery: _supply,
    EventsQuery: _events,
    ApprovalsQuery: _approvals,
    StateQuery: _state,
}
