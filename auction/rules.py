"""The rules of the auctions as pure functions: rows and integers in, a decision or a refusal out.

Each rule quotes the sentence of interface.md 2 that it obeys. Nothing here reads or writes a row, and
money only ever moves by what a decision says: `hold_change` and `released` are net steps, so available
plus held stays the same until `settle` pays the owner out of the winner's hold.
Where the text leaves a choice: the first bid's price is its amount; a leader who raises the maximum to
the reserve makes the price the reserve (the one way in which a raise shows); the leader may buy now; a
bid needs the money for its whole maximum, also if it loses at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from auction.codes import AuctionStatus
from auction.state import Auction, AuctionState

MICROSECONDS = 1_000_000
HORIZON_US = 365 * 86_400 * MICROSECONDS
SOFT_CLOSE_SECONDS_MAX = 86_400
SOFT_CLOSES_DEFAULT = 10
OPEN_AUCTIONS_MAX = 100

BidOutcome = Literal["leading", "outbid", "raised", "bought"]
ClosingOutcome = Literal["sold", "reserve_not_met", "no_bids"]


@dataclass(frozen=True, slots=True)
class Refusal:
    status: AuctionStatus
    minimum: int | None = None
    """The lowest amount that would do, with bid_too_low."""


@dataclass(frozen=True, slots=True)
class Schedule:
    opens_at_us: int
    closes_at_us: int
    closes_at_max_us: int
    soft_close_us: int


@dataclass(frozen=True, slots=True)
class BidDecision:
    outcome: BidOutcome
    price: int
    leader: bytes
    leader_maximum: int
    hold_change: int
    """Added to the bidder's hold; negative when a leader buys below the standing maximum."""
    released: int
    """Given back from the hold of the leader before, when that was somebody else."""
    closes_at_us: int


@dataclass(frozen=True, slots=True)
class Settlement:
    outcome: ClosingOutcome
    winner: bytes | None
    price: int
    """What the owner is paid from the winner's hold; 0 unless sold."""
    released: int
    """What the leader gets back."""


def schedule(
    *, now_us: int, opens_at_us: int | None, closes_at_us: int, closes_at_max_us: int | None, soft_close_seconds: int
) -> Schedule | Refusal:
    """The times of a new auction.

    "soft_close_seconds (at most 86,400) ... not past closes_at_max_us (default: closes_at_us + 10 x
    soft_close_seconds). Horizon at most one year." An opening in the past means now.
    """
    refusal = Refusal(AuctionStatus.INVALID_SCHEDULE)
    if not 0 <= soft_close_seconds <= SOFT_CLOSE_SECONDS_MAX:
        return refusal
    soft_close_us = soft_close_seconds * MICROSECONDS
    opens_us = now_us if opens_at_us is None else max(opens_at_us, now_us)
    if not opens_us < closes_at_us <= now_us + HORIZON_US or (opens_at_us is not None and opens_at_us < 0):
        return refusal
    if closes_at_max_us is None:
        closes_at_max_us = closes_at_us + SOFT_CLOSES_DEFAULT * soft_close_us
    elif not closes_at_us <= closes_at_max_us <= now_us + HORIZON_US:
        return refusal
    return Schedule(opens_us, closes_at_us, closes_at_max_us, soft_close_us)


def check_prices(
    *, starting_price: int, min_increment: int, reserve_price: int | None, buy_now: int | None, supply_limit: int
) -> Refusal | None:
    """ "an integer number of minor units, 1 to supply_limit"; "buy_now >= max(starting_price, reserve_price)" """
    refusal = Refusal(AuctionStatus.INVALID_AMOUNT)
    for amount in (starting_price, min_increment, reserve_price, buy_now):
        if amount is not None and not 1 <= amount <= supply_limit:
            return refusal
    if buy_now is not None and buy_now < max(starting_price, reserve_price or 0):
        return refusal
    return None


def phase_refusal(auction: Auction, now_us: int) -> Refusal | None:
    """ "A bid is refused iff block time >= closes_at_us, whether or not the closing timer has fired." """
    if auction.state == AuctionState.CANCELLED:
        return Refusal(AuctionStatus.AUCTION_CANCELLED)
    if auction.state == AuctionState.CLOSED or now_us >= auction.closes_at_us:
        return Refusal(AuctionStatus.AUCTION_CLOSED)
    if now_us < auction.opens_at_us:
        return Refusal(AuctionStatus.AUCTION_NOT_OPEN)
    return None


def buy_now_offered(auction: Auction) -> bool:
    """ "offered until price >= buy_now" """
    return auction.buy_now is not None and auction.price < auction.buy_now


def minimum_amount(auction: Auction) -> int:
    """ "First bid: amount >= starting_price; later ones: amount >= price + min_increment"; or buying now."""
    minimum = auction.price + auction.min_increment if auction.bids else auction.starting_price
    if auction.buy_now is not None and buy_now_offered(auction):
        return min(minimum, auction.buy_now)
    return minimum


def bid(
    auction: Auction, *, bidder: bytes, amount: int, maximum: int, available: int, now_us: int
) -> BidDecision | Refusal:
    """Decide a bid of `amount`, by proxy up to `maximum`, by somebody with `available` money."""
    if refusal := phase_refusal(auction, now_us):
        return refusal
    if bidder == auction.owner:
        return Refusal(AuctionStatus.OWN_AUCTION)
    minimum = minimum_amount(auction)
    if amount < minimum:
        return Refusal(AuctionStatus.BID_TOO_LOW, minimum)
    leads = bidder == auction.leader
    buys = auction.buy_now is not None and buy_now_offered(auction) and amount >= auction.buy_now
    if leads and not buys and maximum <= auction.leader_maximum:
        return Refusal(AuctionStatus.BID_TOO_LOW, max(minimum, auction.leader_maximum + 1))
    standing = auction.leader_maximum if leads else 0
    if maximum - standing > available:
        return Refusal(AuctionStatus.INSUFFICIENT_FUNDS)
    if buys and auction.buy_now is not None:
        return _buy(auction, bidder=bidder, price=auction.buy_now, standing=standing)
    if leads:
        return _raise(auction, bidder=bidder, maximum=maximum)
    return _challenge(auction, bidder=bidder, amount=amount, maximum=maximum, now_us=now_us)


def _buy(auction: Auction, *, bidder: bytes, price: int, standing: int) -> BidDecision:
    """ "a bid with amount >= buy_now closes at once at buy_now" """
    return BidDecision(
        outcome="bought",
        price=price,
        leader=bidder,
        leader_maximum=price,
        hold_change=price - standing,
        released=auction.leader_maximum - standing,
        closes_at_us=auction.closes_at_us,
    )


def _raise(auction: Auction, *, bidder: bytes, maximum: int) -> BidDecision:
    """ "release and hold are one net step; price, deadline and revision stay" """
    return BidDecision(
        outcome="raised",
        price=_at_reserve(auction, auction.price, maximum),
        leader=bidder,
        leader_maximum=maximum,
        hold_change=maximum - auction.leader_maximum,
        released=0,
        closes_at_us=auction.closes_at_us,
    )


def _challenge(auction: Auction, *, bidder: bytes, amount: int, maximum: int, now_us: int) -> BidDecision:
    """ "the higher maximum leads, ties go to the earlier; price = min(winner's max, loser's max +
    min_increment), at least the winning bid's amount" """
    closes_at_us = _soft_close(auction, now_us)
    if auction.leader is not None and maximum <= auction.leader_maximum:
        price = min(auction.leader_maximum, maximum + auction.min_increment)
        return BidDecision(
            outcome="outbid",
            price=_at_reserve(auction, price, auction.leader_maximum),
            leader=auction.leader,
            leader_maximum=auction.leader_maximum,
            hold_change=0,
            released=0,
            closes_at_us=closes_at_us,
        )
    price = amount
    if auction.leader is not None:
        price = max(amount, min(maximum, auction.leader_maximum + auction.min_increment))
    return BidDecision(
        outcome="leading",
        price=_at_reserve(auction, price, maximum),
        leader=bidder,
        leader_maximum=maximum,
        hold_change=maximum,
        released=auction.leader_maximum,
        closes_at_us=closes_at_us,
    )


def _at_reserve(auction: Auction, price: int, maximum: int) -> int:
    """ "When the leader's maximum reaches it, price = max(price, reserve)." """
    if auction.reserve_price is not None and maximum >= auction.reserve_price:
        return max(price, auction.reserve_price)
    return price


def _soft_close(auction: Auction, now_us: int) -> int:
    """ "A counted bid in the last soft_close_seconds moves closes_at_us to block time + soft_close_seconds,
    not past closes_at_max_us" """
    return max(auction.closes_at_us, min(now_us + auction.soft_close_us, auction.closes_at_max_us))


def settle(auction: Auction) -> Settlement:
    """ "At close below it: all released, reserve_not_met. Otherwise the owner is paid the price from the
    winner's hold and the rest of the hold is released." """
    if auction.leader is None:
        return Settlement("no_bids", None, 0, 0)
    if auction.reserve_price is not None and auction.price < auction.reserve_price:
        return Settlement("reserve_not_met", None, 0, auction.leader_maximum)
    return Settlement("sold", auction.leader, auction.price, auction.leader_maximum - auction.price)
