"""The rules of interface.md 2, sentence by sentence, with tables of examples."""

from __future__ import annotations

from typing import Any

import pytest

from auction import rules
from auction.codes import AuctionStatus
from auction.rules import BidDecision, Refusal
from auction.state import Auction, AuctionState

ANA, BEA, OWNER = b"a" * 16, b"b" * 16, b"o" * 16
SECOND = 1_000_000
OPENS, CLOSES = 1_000 * SECOND, 2_000 * SECOND


def auction(**changes: Any) -> Auction:
    """Starts at 100 in steps of 10, soft close 60 s, open from 1000 s to 2000 s, no bid yet."""
    fresh = Auction(
        id=b"i" * 16,
        owner=OWNER,
        starting_price=100,
        min_increment=10,
        reserve_price=None,
        buy_now=None,
        opens_at_us=OPENS,
        closes_at_us=CLOSES,
        closes_at_max_us=CLOSES + 600 * SECOND,
        soft_close_us=60 * SECOND,
        state=0,
        price=0,
        leader=None,
        leader_bid=0,
        leader_maximum=0,
        bids=0,
        revision=1,
        opened_sequence=1,
        opened_position=0,
    )
    return fresh._replace(**changes)


def led(price: int, maximum: int, **changes: Any) -> Auction:
    """Ana leads at a price, up to a maximum."""
    return auction(price=price, leader=ANA, leader_bid=1, leader_maximum=maximum, bids=1, **changes)


def bid(
    at: Auction,
    amount: int,
    maximum: int | None = None,
    *,
    bidder: bytes = BEA,
    available: int = 10**6,
    now: int = OPENS,
) -> BidDecision | Refusal:
    return rules.bid(at, bidder=bidder, amount=amount, maximum=maximum or amount, available=available, now_us=now)


def accepted(*arguments: Any, **options: Any) -> BidDecision:
    decision = bid(*arguments, **options)
    assert isinstance(decision, BidDecision), decision
    return decision


def status(*arguments: Any, **options: Any) -> AuctionStatus:
    decision = bid(*arguments, **options)
    assert isinstance(decision, Refusal), decision
    return decision.status


@pytest.mark.parametrize(("amount", "maximum", "held"), [(100, None, 100), (100, 250, 250), (130, 130, 130)])
def test_bid_holds_its_maximum_and_by_default_its_amount(amount: int, maximum: int | None, held: int) -> None:
    assert accepted(auction(), amount, maximum).hold_change == held


@pytest.mark.parametrize(("amount", "price"), [(100, 100), (101, 101), (250, 250)])
def test_first_bid_needs_the_starting_price_and_sets_the_price_to_its_amount(amount: int, price: int) -> None:
    assert status(auction(), 99, 500) == AuctionStatus.BID_TOO_LOW
    assert accepted(auction(), amount, 500).price == price


@pytest.mark.parametrize(("price", "amount", "enough"), [(100, 109, False), (100, 110, True), (105, 114, False)])
def test_later_bid_needs_the_price_and_an_increment(price: int, amount: int, enough: bool) -> None:
    decision = bid(led(price, 105), amount, 1_000)
    if enough:
        assert isinstance(decision, BidDecision)
    else:
        assert decision == Refusal(AuctionStatus.BID_TOO_LOW, price + 10)


PROXY = [
    # price, leader's max; challenger's amount and max; who leads, at what price
    (100, 100, 110, 110, BEA, 110),
    (100, 100, 110, 500, BEA, 110),
    (100, 200, 110, 110, ANA, 120),
    (100, 200, 110, 195, ANA, 200),
    (100, 200, 150, 150, ANA, 160),
    (100, 200, 110, 200, ANA, 200),
    (100, 200, 200, 200, ANA, 200),
    (100, 200, 110, 201, BEA, 201),
    (100, 200, 110, 209, BEA, 209),
    (100, 200, 110, 210, BEA, 210),
    (100, 200, 110, 300, BEA, 210),
    (100, 200, 250, 300, BEA, 250),
    (100, 200, 250, 250, BEA, 250),
]


@pytest.mark.parametrize(("price", "leader_max", "amount", "maximum", "leader", "new_price"), PROXY)
def test_higher_maximum_leads_ties_go_to_the_earlier_and_the_loser_sets_the_price(
    price: int, leader_max: int, amount: int, maximum: int, leader: bytes, new_price: int
) -> None:
    decision = accepted(led(price, leader_max), amount, maximum)
    assert (decision.leader, decision.price) == (leader, new_price)
    assert decision.leader_maximum == max(leader_max, maximum)


def test_challenge_that_loses_at_once_is_outbid_holds_nothing_and_raises_the_price() -> None:
    decision = accepted(led(100, 200), 150)
    assert (decision.outcome, decision.hold_change, decision.released) == ("outbid", 0, 0)
    assert decision.price == 160


def test_challenge_that_loses_at_once_counts_for_the_soft_close() -> None:
    now = CLOSES - 10 * SECOND
    assert accepted(led(100, 200), 150, now=now).closes_at_us == now + 60 * SECOND


def test_challenge_that_loses_at_once_needs_the_money_all_the_same() -> None:
    assert status(led(100, 200), 150, available=149) == AuctionStatus.INSUFFICIENT_FUNDS


def test_overtaken_leader_is_released() -> None:
    decision = accepted(led(100, 200), 250, 300)
    assert (decision.outcome, decision.released, decision.hold_change) == ("leading", 200, 300)


@pytest.mark.parametrize(("amount", "maximum"), [(110, 110), (110, 200), (200, 200)])
def test_leader_may_bid_again_only_to_raise_its_maximum(amount: int, maximum: int) -> None:
    decision = bid(led(100, 200), amount, maximum, bidder=ANA)
    assert decision == Refusal(AuctionStatus.BID_TOO_LOW, 201)


def test_raise_is_one_net_step_and_price_and_deadline_stay() -> None:
    decision = accepted(led(100, 200), 110, 260, bidder=ANA, available=60, now=CLOSES - SECOND)
    assert decision == BidDecision("raised", 100, ANA, 260, 60, 0, CLOSES)
    assert status(led(100, 200), 110, 260, bidder=ANA, available=59) == AuctionStatus.INSUFFICIENT_FUNDS


RESERVE = [
    # leader's max before (None: first bid), amount, max, reserve, price after
    (None, 100, 299, 300, 100),
    (None, 100, 300, 300, 300),
    (None, 100, 500, 300, 300),
    (None, 350, 500, 300, 350),
    (200, 110, 299, 300, 210),
    (200, 110, 300, 300, 300),
    (400, 110, 110, 300, 300),
    (400, 350, 350, 300, 360),
]


@pytest.mark.parametrize(("leader_max", "amount", "maximum", "reserve", "price"), RESERVE)
def test_price_is_at_least_the_reserve_when_the_leaders_maximum_reaches_it(
    leader_max: int | None, amount: int, maximum: int, reserve: int, price: int
) -> None:
    at = auction(reserve_price=reserve)
    if leader_max is not None:
        at = led(100, leader_max, reserve_price=reserve)
    assert accepted(at, amount, maximum).price == price


def test_raise_to_the_reserve_makes_it_the_price() -> None:
    assert accepted(led(100, 200, reserve_price=300), 110, 299, bidder=ANA).price == 100
    assert accepted(led(100, 200, reserve_price=300), 110, 300, bidder=ANA).price == 300


def test_below_the_reserve_at_close_everything_is_released() -> None:
    settlement = rules.settle(led(210, 299, reserve_price=300))
    assert (settlement.outcome, settlement.winner, settlement.price) == ("reserve_not_met", None, 0)
    assert settlement.released == 299


@pytest.mark.parametrize("reserve", [None, 210, 1])
def test_at_close_the_owner_is_paid_the_price_and_the_rest_is_released(reserve: int | None) -> None:
    settlement = rules.settle(led(210, 299, reserve_price=reserve))
    assert (settlement.outcome, settlement.winner, settlement.price) == ("sold", ANA, 210)
    assert settlement.released == 89


def test_auction_without_bids_closes_without_a_winner() -> None:
    assert rules.settle(auction()) == rules.Settlement("no_bids", None, 0, 0)


@pytest.mark.parametrize(("starting", "reserve", "buy_now", "valid"), [
    (100, None, 100, True),
    (100, None, 99, False),
    (100, 150, 150, True),
    (100, 150, 149, False),
    (100, 50, 100, True),
    (100, 150, None, True),
])  # fmt: skip
def test_buy_now_is_at_least_starting_price_and_reserve(
    starting: int, reserve: int | None, buy_now: int | None, valid: bool
) -> None:
    refusal = rules.check_prices(
        starting_price=starting, min_increment=1, reserve_price=reserve, buy_now=buy_now, supply_limit=1_000
    )
    assert (refusal is None) == valid


@pytest.mark.parametrize("amount", [400, 401, 900])
def test_bid_of_buy_now_or_more_closes_at_once_at_buy_now(amount: int) -> None:
    decision = accepted(led(100, 200, buy_now=400), amount)
    assert (decision.outcome, decision.price, decision.leader) == ("bought", 400, BEA)
    assert (decision.hold_change, decision.released, decision.leader_maximum) == (400, 200, 400)


def test_buy_now_is_enough_even_when_the_next_increment_is_beyond_it() -> None:
    assert accepted(led(395, 396, buy_now=400), 400).outcome == "bought"
    assert bid(led(395, 396, buy_now=400), 399) == Refusal(AuctionStatus.BID_TOO_LOW, 400)


def test_buy_now_is_offered_until_the_price_reaches_it() -> None:
    assert accepted(led(399, 900, buy_now=400), 409).outcome == "bought"
    assert accepted(led(400, 900, buy_now=400), 410).outcome == "outbid"
    assert bid(led(400, 900, buy_now=400), 409) == Refusal(AuctionStatus.BID_TOO_LOW, 410)


def test_maximum_never_triggers_buy_now() -> None:
    decision = accepted(auction(buy_now=400), 100, 900)
    assert (decision.outcome, decision.price) == ("leading", 100)


def test_buying_needs_the_money_for_the_whole_bid() -> None:
    assert status(auction(buy_now=400), 500, available=499) == AuctionStatus.INSUFFICIENT_FUNDS
    assert accepted(auction(buy_now=400), 500, available=500).outcome == "bought"


def test_leader_may_buy_now_below_its_maximum() -> None:
    decision = accepted(led(100, 700, buy_now=400), 400, bidder=ANA, available=0)
    assert (decision.outcome, decision.hold_change, decision.released) == ("bought", -300, 0)


@pytest.mark.parametrize(("now", "open_still"), [(CLOSES - 1, True), (CLOSES, False), (CLOSES + 1, False)])
def test_bid_is_refused_iff_block_time_reached_the_deadline(now: int, open_still: bool) -> None:
    if open_still:
        assert accepted(auction(), 100, now=now).outcome == "leading"
    else:
        assert status(auction(), 100, now=now) == AuctionStatus.AUCTION_CLOSED


@pytest.mark.parametrize(("state", "now", "expected"), [
    (AuctionState.OPEN, OPENS - 1, AuctionStatus.AUCTION_NOT_OPEN),
    (AuctionState.CLOSED, OPENS, AuctionStatus.AUCTION_CLOSED),
    (AuctionState.CLOSED, OPENS - 1, AuctionStatus.AUCTION_CLOSED),
    (AuctionState.CANCELLED, OPENS, AuctionStatus.AUCTION_CANCELLED),
    (AuctionState.CANCELLED, CLOSES, AuctionStatus.AUCTION_CANCELLED),
])  # fmt: skip
def test_bid_is_refused_outside_the_auctions_life(state: int, now: int, expected: AuctionStatus) -> None:
    assert status(auction(state=int(state)), 100, now=now) == expected


def test_owner_does_not_bid() -> None:
    assert status(auction(), 100, bidder=OWNER) == AuctionStatus.OWN_AUCTION


@pytest.mark.parametrize(("left", "extended"), [(61, 0), (60, 0), (59, 1), (30, 30), (1, 59)])
def test_bid_in_the_last_seconds_moves_the_deadline(left: int, extended: int) -> None:
    now = CLOSES - left * SECOND
    assert accepted(auction(), 100, now=now).closes_at_us == CLOSES + extended * SECOND


def test_deadline_does_not_move_past_its_maximum() -> None:
    at = auction(closes_at_max_us=CLOSES + 5 * SECOND)
    assert accepted(at, 100, now=CLOSES - SECOND).closes_at_us == CLOSES + 5 * SECOND
    at = auction(closes_at_max_us=CLOSES)
    assert accepted(at, 100, now=CLOSES - SECOND).closes_at_us == CLOSES


def test_without_soft_close_the_deadline_stays() -> None:
    assert accepted(auction(soft_close_us=0), 100, now=CLOSES - 1).closes_at_us == CLOSES


def schedule(**changes: Any) -> rules.Schedule | Refusal:
    terms: dict[str, Any] = {
        "now_us": OPENS,
        "opens_at_us": None,
        "closes_at_us": CLOSES,
        "closes_at_max_us": None,
        "soft_close_seconds": 60,
    }
    return rules.schedule(**{**terms, **changes})


def test_schedule_defaults_to_now_and_ten_soft_closes() -> None:
    assert schedule() == rules.Schedule(OPENS, CLOSES, CLOSES + 600 * SECOND, 60 * SECOND)


def test_opening_in_the_past_means_now() -> None:
    times = schedule(opens_at_us=5)
    assert isinstance(times, rules.Schedule)
    assert times.opens_at_us == OPENS


@pytest.mark.parametrize(
    ("changes", "valid"),
    [
        ({"soft_close_seconds": 86_400}, True),
        ({"soft_close_seconds": 86_401}, False),
        ({"soft_close_seconds": 0}, True),
        ({"soft_close_seconds": -1}, False),
        ({"closes_at_us": OPENS}, False),
        ({"closes_at_us": OPENS + 1}, True),
        ({"closes_at_us": -5}, False),
        ({"closes_at_us": OPENS + rules.HORIZON_US}, True),
        ({"closes_at_us": OPENS + rules.HORIZON_US + 1}, False),
        ({"opens_at_us": CLOSES}, False),
        ({"opens_at_us": CLOSES - 1}, True),
        ({"opens_at_us": -1}, False),
        ({"closes_at_max_us": CLOSES}, True),
        ({"closes_at_max_us": CLOSES - 1}, False),
        ({"closes_at_max_us": OPENS + rules.HORIZON_US}, True),
        ({"closes_at_max_us": OPENS + rules.HORIZON_US + 1}, False),
    ],
)
def test_schedule_is_within_a_year_and_in_order(changes: dict[str, int], valid: bool) -> None:
    times = schedule(**changes)
    assert isinstance(times, rules.Schedule) == valid
    if not valid:
        assert times == Refusal(AuctionStatus.INVALID_SCHEDULE)


@pytest.mark.parametrize("field", ["starting_price", "min_increment", "reserve_price", "buy_now"])
@pytest.mark.parametrize(("amount", "valid"), [(-1, False), (0, False), (1_000, True), (1_001, False)])
def test_money_is_an_integer_from_one_to_the_supply_limit(field: str, amount: int, valid: bool) -> None:
    terms: dict[str, Any] = {"starting_price": 1, "min_increment": 1, "reserve_price": None, "buy_now": None}
    terms[field] = amount
    if field == "starting_price":
        terms["buy_now"] = None
    refusal = rules.check_prices(**terms, supply_limit=1_000)
    assert refusal == (None if valid else Refusal(AuctionStatus.INVALID_AMOUNT))
