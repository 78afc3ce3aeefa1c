"""The machine as a whole: every refusal code, effects, events, ledgers, timers and the check of a block."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from auction_harness import SECOND, START_US, House, Person

import fastpath
from auction import bidding, operations, tables
from auction.codes import AuctionStatus, code_name, http_status
from auction.governance import UnsupportedRules
from auction.state import Account, Auction, Supply
from nodes.block import timer_digest
from nodes.codes import Status
from nodes.machine import BlockContext, Change, Timer

ROOT = Person("root", "admin")
BANK = Person("bank", "issuer")
OWNER = Person("owner", "bidder")
ANA = Person("ana", "bidder")
BEA = Person("bea", "bidder")
WATCH = Person("watch", "auditor")
STRANGER = Person("stranger")
CLOSES = START_US + 1_000 * SECOND
NOBODY = "00" * 16
PROOF = "0a" * 64


def house(**settings: Any) -> House:
    """Everybody with a purse has 1,000."""
    built = House(ROOT, BANK, OWNER, ANA, BEA, WATCH, **{"supply_limit": 10_000, **settings})
    for person in (OWNER, ANA, BEA):
        built.ok(BANK, operations.mint(person.id, 1_000, "salary"))
    return built


def opened(at: House, **terms: Any) -> str:
    """The id of a new auction, from 100 in steps of 10."""
    terms = {"starting_price": 100, "min_increment": 10, "closes_at_us": CLOSES, **terms}
    auction = at.ok(OWNER, operations.open_auction("Lot", **terms))["auction"]
    assert isinstance(auction, str)
    return auction


def cancelled(at: House) -> str:
    auction = opened(at)
    at.ok(OWNER, operations.cancel(auction))
    return auction


def closed(at: House) -> str:
    auction = opened(at)
    at.ok(OWNER, operations.close(auction))
    return auction


def with_bid(at: House) -> str:
    auction = opened(at)
    at.ok(ANA, operations.bid(auction, 100))
    return auction


def frozen(at: House) -> str:
    at.ok(ROOT, operations.freeze(ANA.id))
    return ANA.id


def many(at: House) -> str:
    for _ in range(100):
        opened(at)
    return ""


def nothing(at: House) -> str:
    return NOBODY


SOON = {"starting_price": 1, "closes_at_us": CLOSES}
REFUSALS: list[tuple[str, str, Any, Person, Any]] = [
    ("unauthorized", "mint by a bidder", nothing, ANA, lambda x: operations.mint(ANA.id, 1)),
    ("unauthorized", "mint by an admin", nothing, ROOT, lambda x: operations.mint(ANA.id, 1)),
    ("unauthorized", "transfer by an issuer", nothing, BANK, lambda x: operations.transfer(ANA.id, 1)),
    ("unauthorized", "open by an auditor", nothing, WATCH, lambda x: operations.open_auction("x", **SOON)),
    ("unauthorized", "bid by an auditor", opened, WATCH, lambda x: operations.bid(x, 100)),
    ("unauthorized", "grant by a bidder", nothing, ANA, lambda x: operations.grant(ANA.id, "admin")),
    ("unauthorized", "freeze by an issuer", nothing, BANK, lambda x: operations.freeze(ANA.id)),
    ("unauthorized", "activate by a bidder", nothing, ANA, lambda x: operations.activate(2, 10**6)),
    ("unauthorized", "a stranger's fence", nothing, STRANGER, lambda x: operations.fence()),
    ("unauthorized", "a stranger registers by himself", nothing, STRANGER, lambda x: operations.register("me1", "Me")),
    ("unauthorized", "a bidder registers again", nothing, ANA, lambda x: operations.register("me1", "Me")),
    (
        "unauthorized",
        "a bidder registers another",
        nothing,
        ANA,
        lambda x: operations.register("me1", "Me", public_key=STRANGER.key.hex()),
    ),
    ("account_frozen", "bid", frozen, ANA, lambda x: operations.fence()),
    ("already_registered", "admin himself", nothing, ROOT, lambda x: operations.register("me1", "Me")),
    (
        "already_registered",
        "known key",
        nothing,
        ROOT,
        lambda x: operations.register("me1", "Me", public_key=ANA.key.hex()),
    ),
    (
        "handle_taken",
        "handle of another",
        nothing,
        ROOT,
        lambda x: operations.register("ana", "Me", public_key=STRANGER.key.hex()),
    ),
    (
        "already_registered",
        "rotate to own key",
        nothing,
        ANA,
        lambda x: operations.rotate_key(ANA.key.hex(), PROOF),
    ),
    (
        "already_registered",
        "rotate to another's",
        nothing,
        ANA,
        lambda x: operations.rotate_key(BEA.key.hex(), PROOF),
    ),
    ("bad_proof", "rotate without", nothing, ANA, lambda x: operations.rotate_key(STRANGER.key.hex(), PROOF)),
    ("unknown_account", "grant", nothing, ROOT, lambda x: operations.grant(x, "admin")),
    ("unknown_account", "freeze", nothing, ROOT, lambda x: operations.freeze(x)),
    ("unknown_account", "mint", nothing, BANK, lambda x: operations.mint(x, 1)),
    ("unknown_account", "transfer", nothing, ANA, lambda x: operations.transfer(x, 1)),
    ("last_admin", "revoke", nothing, ROOT, lambda x: operations.revoke(ROOT.id, "admin")),
    ("last_admin", "freeze", nothing, ROOT, lambda x: operations.freeze(ROOT.id)),
    ("invalid_amount", "mint nothing", nothing, BANK, lambda x: operations.mint(ANA.id, 0)),
    ("invalid_amount", "mint less", nothing, BANK, lambda x: operations.mint(ANA.id, -1)),
    ("invalid_amount", "transfer nothing", nothing, ANA, lambda x: operations.transfer(BEA.id, 0)),
    ("invalid_amount", "transfer less", nothing, ANA, lambda x: operations.transfer(BEA.id, -5)),
    ("invalid_amount", "transfer over the limit", nothing, ANA, lambda x: operations.transfer(BEA.id, 10_001)),
    (
        "invalid_amount",
        "start at nothing",
        nothing,
        ANA,
        lambda x: operations.open_auction("x", starting_price=0, closes_at_us=CLOSES),
    ),
    ("supply_limit", "mint", nothing, BANK, lambda x: operations.mint(ANA.id, 7_001)),
    ("insufficient_funds", "transfer", nothing, ANA, lambda x: operations.transfer(BEA.id, 1_001)),
    ("insufficient_funds", "bid", opened, ANA, lambda x: operations.bid(x, 1_001)),
    ("insufficient_funds", "proxy", opened, ANA, lambda x: operations.bid(x, 100, 1_001)),
    ("self_transfer", "transfer", nothing, ANA, lambda x: operations.transfer(ANA.id, 1)),
    (
        "invalid_schedule",
        "past",
        nothing,
        ANA,
        lambda x: operations.open_auction("x", starting_price=1, closes_at_us=START_US),
    ),
    ("too_many_open", "open", many, OWNER, lambda x: operations.open_auction("x", **SOON)),
    ("unknown_auction", "bid", nothing, ANA, lambda x: operations.bid(x, 1)),
    ("unknown_auction", "close", nothing, ANA, lambda x: operations.close(x)),
    ("unknown_auction", "cancel", nothing, ANA, lambda x: operations.cancel(x)),
    ("auction_not_open", "bid", lambda at: opened(at, opens_at_us=CLOSES - 1), ANA, lambda x: operations.bid(x, 100)),
    ("auction_not_open", "close", lambda at: opened(at, opens_at_us=CLOSES - 1), OWNER, lambda x: operations.close(x)),
    ("auction_closed", "bid", closed, ANA, lambda x: operations.bid(x, 100)),
    ("auction_closed", "close", closed, OWNER, lambda x: operations.close(x)),
    ("auction_closed", "cancel", closed, OWNER, lambda x: operations.cancel(x)),
    ("auction_closed", "cancel by an admin", closed, ROOT, lambda x: operations.cancel(x)),
    ("auction_closed", "cancel a cancelled one", cancelled, OWNER, lambda x: operations.cancel(x)),
    ("auction_cancelled", "bid", cancelled, ANA, lambda x: operations.bid(x, 100)),
    ("auction_cancelled", "close", cancelled, OWNER, lambda x: operations.close(x)),
    ("bid_too_low", "first", opened, ANA, lambda x: operations.bid(x, 99)),
    ("bid_too_low", "nothing", opened, ANA, lambda x: operations.bid(x, 0)),
    ("bid_too_low", "later", with_bid, BEA, lambda x: operations.bid(x, 109)),
    ("own_auction", "bid", opened, OWNER, lambda x: operations.bid(x, 100)),
    ("not_owner", "close", opened, ANA, lambda x: operations.close(x)),
    ("not_owner", "close by an admin", opened, ROOT, lambda x: operations.close(x)),
    ("not_owner", "cancel", opened, ANA, lambda x: operations.cancel(x)),
    ("has_bids", "cancel", with_bid, OWNER, lambda x: operations.cancel(x)),
    ("invalid_version", "the same", nothing, ROOT, lambda x: operations.activate(1, 10**6)),
    ("invalid_version", "two ahead", nothing, ROOT, lambda x: operations.activate(3, 10**6)),
    ("invalid_version", "in the past", nothing, ROOT, lambda x: operations.activate(2, 1)),
]


@pytest.mark.parametrize(
    ("code", "prepare", "who", "payload"),
    [(code, prepare, who, payload) for code, _, prepare, who, payload in REFUSALS],
    ids=[f"{code}: {case}" for code, case, *_ in REFUSALS],
)
def test_refusal_has_its_code_and_changes_nothing(code: str, prepare: Any, who: Person, payload: Any) -> None:
    at = house()
    subject = prepare(at)
    before = {name: dict(rows) for name, rows in at.rows.rows.items()}
    assert at.refused(who, payload(subject)) == code
    assert at.rows.rows == before


def test_every_refusal_code_is_in_the_table_above() -> None:
    reached = {code for code, *_ in REFUSALS}
    assert {status.name.lower() for status in AuctionStatus} <= reached


def test_codes_have_one_name_and_one_http_status() -> None:
    names = [code_name(status) for status in (*Status, *AuctionStatus)]
    assert len(set(names)) == len(names)
    assert code_name(0) == "ok"
    assert code_name(9_999) == "status_9999"
    table = {403: "unauthorized account_frozen not_owner own_auction", 404: "unknown_account unknown_auction"}
    table[409] = "sequence_reused stale_sequence stale_session window_exceeded handle_taken already_registered"
    table[409] += " auction_closed auction_cancelled has_bids"
    table[410] = "expired"
    named = {code: number for number, codes in table.items() for code in codes.split()}
    for name in names[2:]:
        assert http_status(name) == named.get(name, 422)
    assert http_status("ok") == 201


def test_overtaking_holds_the_new_leader_and_releases_the_old_one_in_the_same_block() -> None:
    at = house()
    auction = opened(at)
    at.ok(ANA, operations.bid(auction, 100, 300))
    assert at.money(ANA) == (700, 300)
    result = at.ok(BEA, operations.bid(auction, 110, 400))
    assert (at.money(ANA), at.money(BEA)) == ((1_000, 0), (600, 400))
    assert [effect["kind"] for effect in result["effects"]] == ["bid", "released", "held"]
    assert (result["outcome"], result["price"], result["number"], result["leader"]) == ("leading", 310, 2, BEA.id)


def test_outbid_is_accepted_and_holds_nothing() -> None:
    at = house()
    auction = opened(at)
    at.ok(ANA, operations.bid(auction, 100, 300))
    result = at.ok(BEA, operations.bid(auction, 150))
    assert (result["outcome"], result["price"], at.money(BEA)) == ("outbid", 160, (1_000, 0))


def test_raise_changes_the_hold_and_nothing_public() -> None:
    at = house()
    auction = opened(at, soft_close_seconds=60)
    at.ok(ANA, operations.bid(auction, 100, 300))
    before = at.auction(auction)
    result = at.ok(ANA, operations.bid(auction, 110, 450), at_us=CLOSES - SECOND)
    after = at.auction(auction)
    assert (result["outcome"], result["number"]) == ("raised", 1)
    assert result["effects"] == [{"account": ANA.id, "amount": 150, "auction": auction, "kind": "held"}]
    assert at.money(ANA) == (550, 450)
    assert after == before._replace(leader_maximum=450)
    assert at.rows.get(tables.bids, after.id, 1).maximum == 450


def test_raise_after_an_outbid_challenge_changes_the_leaders_own_bid() -> None:
    at = house()
    auction = opened(at)
    at.ok(ANA, operations.bid(auction, 100, 300))
    at.ok(BEA, operations.bid(auction, 150))
    assert at.ok(ANA, operations.bid(auction, 170, 400))["number"] == 1
    assert [bid["max_amount"] for bid in at.query(WATCH, query="bids", auction=auction)["bids"]] == [150, 400]


def test_raise_to_the_reserve_shows_as_a_price() -> None:
    at = house()
    auction = opened(at, reserve_price=400)
    at.ok(ANA, operations.bid(auction, 100, 300))
    result = at.ok(ANA, operations.bid(auction, 110, 450))
    assert [effect["kind"] for effect in result["effects"]] == ["price", "held"]
    assert at.auction(auction).price == 400


def test_deadline_pays_the_owner_and_records_the_timers_digest() -> None:
    at = house()
    auction = opened(at)
    at.ok(ANA, operations.bid(auction, 100, 300))
    at.ok(BEA, operations.bid(auction, 150))
    at.block(at_us=CLOSES)
    ((timer, outcome),) = at.fired
    closing = at.closing(auction)
    leaf = (22).to_bytes(4, "little") + b"close:" + bytes.fromhex(auction) + CLOSES.to_bytes(8, "little")
    assert closing.digest == hashlib.sha256(b"SYS\0\0\0\0\0" + leaf).digest() == timer_digest(timer.id, timer.due_us)
    assert (closing.reason, closing.outcome, closing.winner, closing.price) == ("deadline", "sold", ANA.account, 160)
    assert (at.money(OWNER), at.money(ANA), at.money(BEA)) == ((1_160, 0), (840, 0), (1_000, 0))
    assert outcome.status == 0
    assert at.account(OWNER).open_auctions == 0
    assert at.rows.timers == {}


def test_deadline_below_the_reserve_releases_everything() -> None:
    at = house()
    auction = opened(at, reserve_price=500)
    at.ok(ANA, operations.bid(auction, 100, 499))
    at.block(at_us=CLOSES)
    assert at.closing(auction).outcome == "reserve_not_met"
    assert (at.money(OWNER), at.money(ANA)) == ((1_000, 0), (1_000, 0))


def test_closing_by_the_owner_is_recorded_as_such_with_the_requests_digest() -> None:
    at = house()
    auction = with_bid(at)
    result = at.ok(OWNER, operations.close(auction))
    closing = at.closing(auction)
    assert (closing.reason, closing.outcome, closing.digest) == ("closed_by_owner", "sold", at.digest(at.requests))
    assert [effect["kind"] for effect in result["effects"]] == ["closed", "paid"]
    assert at.rows.timers == {}


def test_buy_now_settles_in_the_bids_own_block() -> None:
    at = house()
    auction = opened(at, buy_now=400)
    at.ok(BEA, operations.bid(auction, 100, 200))
    result = at.ok(ANA, operations.bid(auction, 450))
    assert (result["outcome"], result["price"]) == ("bought", 400)
    assert [effect["kind"] for effect in result["effects"]] == ["bid", "released", "held", "closed", "paid"]
    assert (at.money(OWNER), at.money(ANA), at.money(BEA)) == ((1_400, 0), (600, 0), (1_000, 0))
    assert at.rows.timers == {}
    assert at.closing(auction).digest == at.digest(at.requests)


def test_soft_close_moves_the_timer() -> None:
    at = house()
    auction = opened(at, soft_close_seconds=60)
    result = at.ok(ANA, operations.bid(auction, 100), at_us=CLOSES - SECOND)
    assert result["closes_at_us"] == CLOSES + 59 * SECOND
    assert [effect["kind"] for effect in result["effects"]] == ["bid", "held", "extended"]
    at.block(at_us=CLOSES)
    assert at.fired == []
    at.block(at_us=CLOSES + 59 * SECOND)
    assert len(at.fired) == 1


def test_bid_at_the_deadline_is_refused_before_the_timer_has_fired() -> None:
    at = house()
    auction = opened(at)
    timer = at.rows.timers.pop(bidding.timer_id(bytes.fromhex(auction)))
    assert at.refused(ANA, operations.bid(auction, 100), at_us=CLOSES) == "auction_closed"
    assert at.refused(OWNER, operations.close(auction)) == "auction_closed"
    assert at.refused(ROOT, operations.cancel(auction)) == "auction_closed"
    at.rows.timers[timer.id] = timer
    at.block()
    assert at.closing(auction).outcome == "no_bids"


def test_opening_time_comes_with_block_time_alone() -> None:
    at = house()
    auction = opened(at, opens_at_us=START_US + 500 * SECOND)
    assert at.refused(ANA, operations.bid(auction, 100), at_us=START_US + 500 * SECOND - 1) == "auction_not_open"
    at.ok(ANA, operations.bid(auction, 100), at_us=START_US + 500 * SECOND)


def test_admin_cancels_at_any_time_and_holds_are_released() -> None:
    at = house()
    auction = opened(at)
    at.ok(ANA, operations.bid(auction, 100, 300))
    result = at.ok(ROOT, operations.cancel(auction, "stolen goods"))
    assert [effect["kind"] for effect in result["effects"]] == ["cancelled", "released"]
    assert at.money(ANA) == (1_000, 0)
    closing = at.closing(auction)
    assert (closing.reason, closing.outcome, closing.note) == ("cancelled", "cancelled", "stolen goods")
    assert at.rows.timers == {}


def test_frozen_accounts_bids_and_auctions_settle() -> None:
    at = house()
    auction = with_bid(at)
    for person in (ANA, OWNER):
        at.ok(ROOT, operations.freeze(person.id))
    assert at.refused(ANA, operations.bid(auction, 500)) == "account_frozen"
    at.ok(BANK, operations.mint(ANA.id, 5))
    at.ok(BEA, operations.transfer(ANA.id, 5))
    at.block(at_us=CLOSES)
    assert (at.money(OWNER), at.money(ANA)) == ((1_100, 0), (910, 0))
    assert at.query(ANA, query="balance")["available"] == 910


def test_ids_are_the_first_half_of_the_requests_digest() -> None:
    at = house()
    auction = opened(at)
    assert auction == at.digest(at.requests).hex()[:32]


def test_auction_that_stands_is_not_overwritten_by_a_colliding_id() -> None:
    at = house()
    auction = with_bid(at)
    before = at.auction(auction)
    at.requests -= 2
    code, _ = at.do(OWNER, operations.open_auction("Again", **SOON))
    assert code == "malformed_operation"
    assert at.auction(auction) == before


def test_events_and_effects_of_an_auction_count_up_without_a_gap() -> None:
    at = house()
    auction = opened(at, soft_close_seconds=60, buy_now=500)
    at.ok(ANA, operations.bid(auction, 100))
    at.ok(BEA, operations.bid(auction, 120), at_us=CLOSES - SECOND)
    at.ok(ANA, operations.bid(auction, 500))
    events = at.query(query="events", auction=auction)["events"]
    assert [event["kind"] for event in events] == ["opened", "bid", "bid", "extended", "bid", "closed"]
    assert [event["revision"] for event in events] == [1, 2, 3, 4, 5, 6]
    places = [(event["sequence"], event["index"], event["effect"]) for event in events]
    assert places == sorted(places)


def test_ledger_tells_every_movement_with_the_balance_after() -> None:
    at = house()
    auction = opened(at)
    at.ok(ANA, operations.bid(auction, 100, 300))
    at.ok(ANA, operations.transfer(BEA.id, 50, "lunch"))
    at.block(at_us=CLOSES)
    entries = at.query(ANA, query="ledger", order="ascending")["entries"]
    assert [(entry["kind"], entry["amount"], entry["available"], entry["held"]) for entry in entries] == [
        ("minted", 1_000, 1_000, 0),
        ("held", 300, 700, 300),
        ("paid", 50, 650, 300),
        ("paid", 100, 650, 200),
        ("released", 200, 850, 0),
    ]
    assert entries[2]["memo"] == "lunch"
    assert entries[3]["counterparty"] == OWNER.id


def test_the_whole_limit_can_be_minted_and_nothing_more() -> None:
    at = house()
    at.ok(BANK, operations.mint(BANK.id, 7_000))
    assert at.refused(BANK, operations.mint(BANK.id, 1)) == "supply_limit"


def test_refused_bid_names_the_lowest_amount_that_would_do() -> None:
    at = house()
    auction = with_bid(at)
    code, result = at.do(BEA, operations.bid(auction, 109))
    assert (code, result["minimum"]) == ("bid_too_low", 110)


def test_fence_does_nothing() -> None:
    at = house()
    writes = at.rows.writes
    assert at.ok(WATCH, operations.fence()) == {"effects": []}
    assert at.rows.writes == writes


def test_rotated_key_acts_and_the_old_one_never_again() -> None:
    at = house()
    seed = bytes(range(32))
    key = fastpath.public_key(seed)
    proof = fastpath.sign(seed, operations.rotation_bytes(ANA.account)).hex()
    result = at.ok(ANA, operations.rotate_key(key.hex(), proof))
    assert result["account"] == ANA.id
    assert at.refused(ANA, operations.fence()) == "unauthorized"
    assert at.refused(ANA, operations.register("again", "Again")) == "unauthorized"
    assert at.query(ANA, query="balance") == {"error": "unauthorized"}
    assert at.machine.admit_read(ANA.key, b"{}", at.rows) is not None
    assert at.machine.admit_read(key, b"{}", at.rows) is None
    (outcome,) = at.block((key, operations.transfer(BEA.id, 7)))
    assert outcome.status == 0
    assert at.money(ANA) == (993, 0)
    assert at.refused(ROOT, operations.register("ana2", "A", public_key=ANA.key.hex())) == "already_registered"
    assert at.refused(BEA, operations.rotate_key(ANA.key.hex(), PROOF)) == "already_registered"


def test_proof_for_another_account_is_a_bad_proof() -> None:
    at = house()
    seed = bytes(range(32))
    proof = fastpath.sign(seed, operations.rotation_bytes(BEA.account)).hex()
    assert at.refused(ANA, operations.rotate_key(fastpath.public_key(seed).hex(), proof)) == "bad_proof"


def changes_of(table: Any, *pairs: tuple[Any, Any]) -> list[Change]:
    return [Change(table, old, new) for old, new in pairs]


def account(available: int, held: int = 0, **fields: Any) -> Account:
    return Account(b"a" * 16, b"k" * 32, "ana", "Ana", 8, 0, available, held, 0, 0)._replace(**fields)


def test_check_of_a_block_refuses_money_from_nowhere() -> None:
    check = house().machine.check_block
    rich = changes_of(tables.accounts, (account(5), account(6)))
    minted = changes_of(tables.supply, (Supply(0, 5, 10), Supply(0, 6, 10)))
    check([*rich, *minted])
    check(changes_of(tables.accounts, (account(5), account(6)), (account(5), account(4))))
    for wrong in (rich, minted, changes_of(tables.accounts, (None, account(1)))):
        with pytest.raises(AssertionError, match="minted"):
            check(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        changes_of(tables.accounts, (account(5), account(-1))),
        changes_of(tables.accounts, (account(5), account(6, -1))),
        changes_of(tables.accounts, (account(0), None)),
        changes_of(tables.accounts, (account(0), account(0, open_auctions=-1))),
        changes_of(tables.supply, (Supply(0, 5, 10), Supply(0, 11, 10))),
        changes_of(tables.supply, (Supply(0, 5, 10), Supply(0, -1, 10))),
        changes_of(tables.supply, (Supply(0, 0, 10), None)),
        changes_of(tables.accounts, (account(5, 0), account(4, 1))),
    ],
)
def test_check_of_a_block_refuses_what_cannot_be(wrong: list[Change]) -> None:
    with pytest.raises(AssertionError):
        house().machine.check_block(wrong)


def test_check_of_a_block_ties_holds_to_leading_bids() -> None:
    at = house()
    auction: Auction = at.auction(opened(at))
    led = auction._replace(leader=b"a" * 16, leader_maximum=3, bids=1)
    holds = changes_of(tables.accounts, (account(5, 0), account(2, 3)))
    at.machine.check_block([*holds, *changes_of(tables.auctions, (auction, led))])
    with pytest.raises(AssertionError, match="leading"):
        at.machine.check_block(changes_of(tables.auctions, (auction, led)))


def test_timer_of_no_open_auction_is_a_bug_that_stops() -> None:
    at = house()
    context = BlockContext(99, 0, CLOSES, bytes(32))
    for timer_id in (b"close:" + b"x" * 16, b"close:" + bytes.fromhex(closed(at))):
        with pytest.raises(AssertionError, match="belongs to no auction"):
            at.machine.fire(Timer(timer_id, CLOSES, b""), context, at.rows)


def test_activated_rules_that_the_program_does_not_know_stop_it_at_their_sequence() -> None:
    at = house()
    activation = at.sequence + 4
    result = at.ok(ROOT, operations.activate(2, activation))
    assert result["effects"] == [{"application_version": 2, "at_sequence": activation, "kind": "activated"}]
    assert at.refused(ROOT, operations.activate(3, activation + 1)) == "invalid_version"
    at.ok(ANA, operations.fence())
    with pytest.raises(UnsupportedRules, match="version 2"):
        at.do(ANA, operations.fence())


def test_machine_without_genesis_is_a_bug_that_stops() -> None:
    at = house()
    at.rows.rows["supply"].clear()
    with pytest.raises(AssertionError, match="genesis"):
        at.do(BANK, operations.mint(ANA.id, 1))
    at.rows.rows["house"].clear()
    with pytest.raises(AssertionError, match="genesis"):
        at.do(ANA, operations.fence())
