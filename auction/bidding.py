"""Auction operations: open, bid, close, cancel, and the deadline. `rules` decides, this writes.

Always holds: an open auction has one timer, due at its closes_at_us, and its leader's maximum is held;
a closed or cancelled one has neither, and a `closings` row.
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from auction import rules, tables
from auction.approvals import Approved, approve
from auction.call import Call, read_supply
from auction.codes import AuctionStatus
from auction.effects import Journal, refused
from auction.operations import Bid as BidOperation
from auction.operations import Cancel, Close, Open
from auction.roles import Role
from auction.rules import Refusal
from auction.state import Auction, AuctionState, AuctionText, Bid, Closing
from auction.tables import ID_BYTES
from nodes.block import timer_digest
from nodes.codes import Status
from nodes.machine import Outcome, Timer

TIMER_PREFIX = b"close:"


def timer_id(auction: bytes) -> bytes:
    """The id of an auction's closing timer."""
    return TIMER_PREFIX + auction


def open_auction(call: Call, operation: Open) -> Outcome:
    """auction.open; the id is the first 16 bytes of the request's digest."""
    author = call.author
    if not call.has(Role.BIDDER):
        return refused(Status.UNAUTHORIZED)
    reserve_price, buy_now = _optional(operation.reserve_price), _optional(operation.buy_now)
    refusal = rules.check_prices(
        starting_price=operation.starting_price,
        min_increment=operation.min_increment,
        reserve_price=reserve_price,
        buy_now=buy_now,
        supply_limit=read_supply(call.rows).supply_limit,
    )
    if refusal is not None:
        return _refused(refusal)
    times = rules.schedule(
        now_us=call.context.time_us,
        opens_at_us=_optional(operation.opens_at_us),
        closes_at_us=operation.closes_at_us,
        closes_at_max_us=_optional(operation.closes_at_max_us),
        soft_close_seconds=operation.soft_close_seconds,
    )
    if isinstance(times, Refusal):
        return _refused(times)
    if author.open_auctions >= rules.OPEN_AUCTIONS_MAX:
        return refused(AuctionStatus.TOO_MANY_OPEN)
    identity = call.digest[:ID_BYTES]
    if call.rows.get(tables.auctions, identity) is not None:
        # Half a collision of SHA-256, made on purpose: the auction that stands must not be overwritten.
        return refused(Status.MALFORMED_OPERATION)
    auction = Auction(
        id=identity,
        owner=author.id,
        starting_price=operation.starting_price,
        min_increment=operation.min_increment,
        reserve_price=reserve_price,
        buy_now=buy_now,
        opens_at_us=times.opens_at_us,
        closes_at_us=times.closes_at_us,
        closes_at_max_us=times.closes_at_max_us,
        soft_close_us=times.soft_close_us,
        state=int(AuctionState.OPEN),
        price=0,
        leader=None,
        leader_bid=0,
        leader_maximum=0,
        bids=0,
        revision=0,
        opened_sequence=call.context.sequence,
        opened_position=call.context.index,
    )
    auction = call.journal.event(
        auction,
        "opened",
        owner=author.id.hex(),
        title=operation.title,
        starting_price=auction.starting_price,
        opens_at_us=auction.opens_at_us,
        closes_at_us=auction.closes_at_us,
    )
    call.journal.change(author._replace(open_auctions=author.open_auctions + 1))
    call.rows.put(tables.auctions, auction)
    call.rows.put(tables.auction_texts, AuctionText(identity, operation.title, operation.description))
    call.rows.add_timer(Timer(timer_id(identity), auction.closes_at_us, b""))
    return call.journal.accepted(
        auction=identity.hex(),
        revision=auction.revision,
        opens_at_us=auction.opens_at_us,
        closes_at_us=auction.closes_at_us,
        closes_at_max_us=auction.closes_at_max_us,
    )


def bid(call: Call, operation: BidOperation) -> Outcome:
    if not call.has(Role.BIDDER):
        return refused(Status.UNAUTHORIZED)
    auction: Auction | None = call.rows.get(tables.auctions, bytes.fromhex(operation.auction))
    if auction is None:
        return refused(AuctionStatus.UNKNOWN_AUCTION)
    maximum = operation.amount if operation.max_amount is UNSET else operation.max_amount
    decision = rules.bid(
        auction,
        bidder=call.author.id,
        amount=operation.amount,
        maximum=maximum,
        available=call.author.available,
        now_us=call.context.time_us,
    )
    if isinstance(decision, Refusal):
        return _refused(decision)
    if decision.outcome == "raised":
        number = auction.leader_bid
        standing: Bid = call.rows.get(tables.bids, auction.id, number)
        call.rows.put(tables.bids, standing._replace(maximum=maximum))
    else:
        number = auction.bids + 1
        call.rows.put(tables.bids, _bid_row(call, operation, number, maximum, decision))
    after = _bid_effects(call.journal, auction, number, operation.amount, call.author.id, decision)
    if decision.closes_at_us != auction.closes_at_us:
        after = call.journal.event(after, "extended", closes_at_us=decision.closes_at_us)
        call.rows.add_timer(Timer(timer_id(auction.id), decision.closes_at_us, b""))
    if decision.outcome == "bought":
        call.rows.cancel_timer(timer_id(auction.id))
        after = _settle(call.journal, after, "buy_now", call.digest)
    call.rows.put(tables.auctions, after)
    return call.journal.accepted(
        auction=operation.auction,
        number=number,
        outcome=decision.outcome,
        price=after.price,
        leader=decision.leader.hex(),
        closes_at_us=after.closes_at_us,
        revision=after.revision,
    )


def _bid_row(call: Call, operation: BidOperation, number: int, maximum: int, decision: rules.BidDecision) -> Bid:
    context = call.context
    return Bid(
        auction=bytes.fromhex(operation.auction),
        number=number,
        bidder=call.author.id,
        amount=operation.amount,
        maximum=maximum,
        price=decision.price,
        outcome=decision.outcome,
        time_us=context.time_us,
        sequence=context.sequence,
        position=context.index,
    )


def _bid_effects(
    journal: Journal, auction: Auction, number: int, amount: int, bidder: bytes, decision: rules.BidDecision
) -> Auction:
    """The events and holds of an accepted bid; gives the auction as it stands after them."""
    raised = decision.outcome == "raised"
    after = auction._replace(
        price=decision.price,
        leader=decision.leader,
        leader_bid=auction.leader_bid if decision.outcome == "outbid" else number,
        leader_maximum=decision.leader_maximum,
        bids=auction.bids if raised else number,
        closes_at_us=decision.closes_at_us,
    )
    leader = decision.leader.hex()
    if not raised:
        after = journal.event(
            after,
            "bid",
            number=number,
            bidder=bidder.hex(),
            amount=amount,
            outcome=decision.outcome,
            price=decision.price,
            leader=leader,
        )
    elif decision.price != auction.price:
        after = journal.event(after, "price", price=decision.price, leader=leader)
    if auction.leader is not None:
        journal.change_hold(auction.leader, -decision.released, auction.id)
    journal.change_hold(bidder, decision.hold_change, auction.id)
    return after


def close(call: Call, operation: Close) -> Outcome:
    """auction.close by its owner, recorded as closed_by_owner."""
    auction: Auction | None = call.rows.get(tables.auctions, bytes.fromhex(operation.auction))
    if auction is None:
        return refused(AuctionStatus.UNKNOWN_AUCTION)
    if auction.owner != call.author.id:
        return refused(AuctionStatus.NOT_OWNER)
    if refusal := rules.phase_refusal(auction, call.context.time_us):
        return _refused(refusal)
    call.rows.cancel_timer(timer_id(auction.id))
    return _closed(call.journal, auction, "closed_by_owner", call.digest)


def deadline(journal: Journal, timer: Timer) -> Outcome:
    """The closing timer of an open auction is due."""
    auction: Auction | None = journal.rows.get(tables.auctions, timer.id.removeprefix(TIMER_PREFIX))
    if auction is None or auction.state != AuctionState.OPEN or auction.closes_at_us != timer.due_us:
        raise AssertionError(f"the timer {timer.id.hex()} belongs to no auction that is open until {timer.due_us}")
    return _closed(journal, auction, "deadline", timer_digest(timer.id, timer.due_us))


def cancel(call: Call, operation: Cancel) -> Outcome:
    """auction.cancel: "its owner before the first bid; an admin at any time (holds released)"."""
    auction: Auction | None = call.rows.get(tables.auctions, bytes.fromhex(operation.auction))
    if auction is None:
        return refused(AuctionStatus.UNKNOWN_AUCTION)
    is_owner, is_admin = auction.owner == call.author.id, call.has(Role.ADMIN)
    if not is_owner and not is_admin:
        return refused(AuctionStatus.NOT_OWNER)
    if auction.state != AuctionState.OPEN or call.context.time_us >= auction.closes_at_us:
        return refused(AuctionStatus.AUCTION_CLOSED)
    if auction.bids and not is_admin:
        return refused(AuctionStatus.HAS_BIDS)
    approved = Approved(1, 1) if is_owner and not auction.bids else approve(call, operation)
    if not approved.complete:
        return call.journal.accepted(auction=operation.auction, approvals=approved.approvals, needed=approved.needed)
    call.rows.cancel_timer(timer_id(auction.id))
    journal = call.journal
    auction = journal.event(auction, "cancelled", reason=operation.reason)
    if auction.leader is not None:
        journal.change_hold(auction.leader, -auction.leader_maximum, auction.id)
    auction = _end(journal, auction, AuctionState.CANCELLED)
    journal.rows.put(tables.auctions, auction)
    _write_closing(journal, auction, "cancelled", "cancelled", operation.reason, None, 0, call.digest)
    return journal.accepted(
        auction=operation.auction,
        revision=auction.revision,
        approvals=approved.approvals,
        needed=approved.needed,
    )


def _closed(journal: Journal, auction: Auction, reason: str, digest: bytes) -> Outcome:
    after = _settle(journal, auction, reason, digest)
    journal.rows.put(tables.auctions, after)
    closing: Closing = journal.rows.get(tables.closings, auction.id)
    return journal.accepted(
        auction=auction.id.hex(),
        reason=reason,
        outcome=closing.outcome,
        winner=_hex(closing.winner),
        price=closing.price,
        revision=after.revision,
    )


def _settle(journal: Journal, auction: Auction, reason: str, digest: bytes) -> Auction:
    """Pay the owner or release the leader, and record how it ended; gives the closed auction's row."""
    settlement = rules.settle(auction)
    auction = journal.event(
        auction,
        "closed",
        reason=reason,
        outcome=settlement.outcome,
        winner=_hex(settlement.winner),
        price=settlement.price,
    )
    if settlement.winner is not None:
        journal.pay_from_hold(settlement.winner, auction.owner, settlement.price, auction.id)
    if auction.leader is not None:
        journal.change_hold(auction.leader, -settlement.released, auction.id)
    auction = _end(journal, auction, AuctionState.CLOSED)
    _write_closing(journal, auction, reason, settlement.outcome, "", settlement.winner, settlement.price, digest)
    return auction


def _end(journal: Journal, auction: Auction, state: AuctionState) -> Auction:
    owner = journal.existing(auction.owner)
    journal.change(owner._replace(open_auctions=owner.open_auctions - 1))
    return auction._replace(state=int(state))


def _write_closing(
    journal: Journal,
    auction: Auction,
    reason: str,
    outcome: str,
    note: str,
    winner: bytes | None,
    price: int,
    digest: bytes,
) -> None:
    context = journal.context
    closing = Closing(
        auction.id, reason, outcome, note, winner, price, context.time_us, context.sequence, context.index, digest
    )
    journal.rows.put(tables.closings, closing)


def _refused(refusal: Refusal) -> Outcome:
    if refusal.minimum is None:
        return refused(refusal.status)
    return refused(refusal.status, minimum=refusal.minimum)


def _optional(value: int | UnsetType) -> int | None:
    return None if value is UNSET else value


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()
