"""Queries: answers, bounds, cursors, and who may see what."""

from __future__ import annotations

from typing import Any

import pytest
from auction_harness import SECOND, START_US, House, Person

from auction import operations, query_forms
from auction.queries import PAGE_BYTES_MAX
from nodes import canonical

ROOT = Person("root", "admin")
BANK = Person("bank", "issuer")
OWNER = Person("owner", "bidder")
ANA = Person("ana", "bidder")
BEA = Person("bea", "bidder")
WATCH = Person("watch", "auditor")
STRANGER = Person("stranger")
CLOSES = START_US + 1_000 * SECOND


def house(**settings: Any) -> House:
    built = House(ROOT, BANK, OWNER, ANA, BEA, WATCH, **settings)
    for person in (ANA, BEA):
        built.ok(BANK, operations.mint(person.id, 1_000, "salary"))
    return built


def opened(at: House, title: str = "Lot", **terms: Any) -> str:
    terms = {"starting_price": 100, "min_increment": 10, "closes_at_us": CLOSES, **terms}
    return str(at.ok(OWNER, operations.open_auction(title, description="Old\nbut good", **terms))["auction"])


def test_auction_shows_its_terms_and_state() -> None:
    at = house()
    auction = opened(at, reserve_price=500, soft_close_seconds=30)
    fresh = at.query(query="auction", auction=auction)
    assert (fresh["price"], fresh["leader"], fresh["minimum_amount"], fresh["closing"]) == (None, None, 100, None)
    assert (fresh["state"], fresh["owner"], fresh["description"]) == ("open", OWNER.id, "Old\nbut good")
    at.ok(ANA, operations.bid(auction, 100, 200))
    led = at.query(query="auction", auction=auction)
    assert (led["price"], led["leader"], led["minimum_amount"], led["bids"]) == (100, ANA.id, 110, 1)
    assert (led["reserve_price"], led["buy_now"], led["soft_close_seconds"]) == (500, None, 30)
    assert "leader_maximum" not in led


def test_winner_of_a_closed_auction_includes_what_closed_it() -> None:
    at = house()
    auction = opened(at)
    assert at.query(query="winner", auction=auction) == {"error": "auction_open"}
    at.ok(ANA, operations.bid(auction, 100, 200))
    at.block(at_us=CLOSES)
    winner = at.query(query="winner", auction=auction)
    assert winner == {
        "auction": auction,
        "digest": at.closing(auction).digest.hex(),
        "index": 0,
        "note": "",
        "outcome": "sold",
        "price": 100,
        "reason": "deadline",
        "sequence": at.sequence,
        "state": "closed",
        "time_us": CLOSES,
        "winner": ANA.id,
    }
    assert at.query(query="auction", auction=auction)["minimum_amount"] is None


def test_auctions_are_listed_newest_first_by_state_and_owner() -> None:
    at = house()
    lots = [opened(at, f"Lot {number}") for number in range(5)]
    at.ok(OWNER, operations.close(lots[1]))
    at.ok(OWNER, operations.cancel(lots[2]))

    def listed(**query: Any) -> list[str]:
        return [auction["id"] for auction in at.query(query="auctions", **query)["auctions"]]

    assert listed() == lots[::-1]
    assert listed(order="ascending") == lots
    assert listed(state="open") == [lots[4], lots[3], lots[0]]
    assert listed(state="closed") == [lots[1]]
    assert listed(state="cancelled", owner=OWNER.id) == [lots[2]]
    assert listed(owner=ANA.id) == []


@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_cursors_give_every_row_once(order: str, limit: int) -> None:
    at = house()
    auction = opened(at)
    for amount in range(100, 180, 10):
        at.block(
            (ANA.key, operations.bid(auction, amount)),
            (BEA.key, operations.bid(auction, amount + 5)),
        )
    queries: list[tuple[str, dict[str, Any]]] = [
        ("bids", {"query": "bids", "auction": auction}),
        ("bids", {"query": "account_bids", "account": "ana"}),
        ("events", {"query": "events"}),
        ("events", {"query": "events", "auction": auction}),
        ("entries", {"query": "ledger"}),
        ("auctions", {"query": "auctions"}),
    ]
    for name, query in queries:
        whole = at.query(ANA, **query, order=order, limit=200)
        assert whole["next"] is None
        pages: list[Any] = []
        after: dict[str, Any] = {}
        while True:
            page = at.query(ANA, **query, **after, order=order, limit=limit)
            assert len(page[name]) <= limit
            pages += page[name]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert pages == whole[name]
        assert pages


def test_page_ends_before_the_answer_grows_too_large() -> None:
    at = house()
    lots = [opened(at, "\U0001f600" * 200) for _ in range(90)]
    page = at.query_bytes(canonical.encode({"query": "auctions", "limit": 200}))
    assert len(canonical.encode(page)) < PAGE_BYTES_MAX + 100
    seen = page["auctions"]
    assert 10 < len(seen) < 90
    following = at.query(query="auctions", limit=200, after=page["next"])
    assert [auction["id"] for auction in (seen + following["auctions"])] == lots[::-1][
        : len(seen + following["auctions"])
    ]


def test_events_resume_after_a_place() -> None:
    at = house()
    auction = opened(at)
    at.ok(ANA, operations.bid(auction, 100))
    first, second = at.query(query="events")["events"]
    place = [first["sequence"], first["index"], first["effect"]]
    assert at.query(query="events", auction=auction, after=place)["events"] == [second]
    assert (second["kind"], second["bidder"], second["price"]) == ("bid", ANA.id, 100)
    assert second["time_us"] == at.time_us


def test_account_is_found_by_id_and_by_handle() -> None:
    at = house()
    public = at.query(query="account", account="ana")
    assert public == at.query(query="account", account=ANA.id)
    assert public == {
        "frozen": False,
        "handle": "ana",
        "id": ANA.id,
        "name": "Ana",
        "open_auctions": 0,
        "public_key": ANA.key.hex(),
        "roles": ["bidder"],
    }
    assert at.query(query="account", account="nobody") == {"error": "unknown_account"}
    assert at.query(query="account", account="0" * 32) == {"error": "unknown_account"}


def test_id_goes_before_a_handle_that_imitates_it() -> None:
    at = house()
    at.ok(ROOT, operations.register(ANA.id, "Impostor", public_key=STRANGER.key.hex()))
    assert at.query(query="account", account=ANA.id)["handle"] == "ana"
    assert at.query(query="account", account=STRANGER.id)["handle"] == ANA.id


PRIVATE = [{"query": "balance"}, {"query": "ledger"}]


@pytest.mark.parametrize("query", PRIVATE, ids=lambda query: query["query"])
def test_private_answers_are_for_their_owner_and_auditors(query: dict[str, Any]) -> None:
    at = house()
    own = at.query(ANA, **query)
    assert own["account"] == ANA.id
    assert at.query(ANA, **query, account="ana") == own
    assert at.query(WATCH, **query, account=ANA.id) == own
    for caller in (BEA, ROOT, BANK, STRANGER, None):
        assert at.query(caller, **query, account="ana") == {"error": "unauthorized"}
    assert at.query(None, **query) == {"error": "unauthorized"}
    assert at.query(STRANGER, **query) == {"error": "unauthorized"}


@pytest.mark.parametrize("query", PRIVATE, ids=lambda query: query["query"])
def test_transparency_public_opens_what_is_private(query: dict[str, Any]) -> None:
    at = house(transparency="public")
    assert at.query(None, **query, account="ana")["account"] == ANA.id


def test_maximum_of_a_bid_is_seen_by_its_bidder_and_auditors_only() -> None:
    at = house()
    auction = opened(at)
    at.ok(ANA, operations.bid(auction, 100, 200))

    def maximum(caller: Person | None) -> int | None:
        (bid,) = at.query(caller, query="bids", auction=auction)["bids"]
        value = bid.get("max_amount")
        return None if value is None else int(value)

    assert [maximum(ANA), maximum(WATCH), maximum(BEA), maximum(OWNER), maximum(None)] == [200, 200, None, None, None]


def test_revoked_key_is_nobody() -> None:
    at = house()
    at.ok(ROOT, operations.revoke(WATCH.id, "auditor"))
    assert at.query(WATCH, query="balance", account="ana") == {"error": "unauthorized"}


def test_balance_ledger_and_supply() -> None:
    at = house(currency="BRL", exponent=2, supply_limit=5_000)
    assert at.query(ANA, query="balance") == {
        "account": ANA.id,
        "available": 1_000,
        "currency": "BRL",
        "exponent": 2,
        "held": 0,
    }
    assert at.query(query="supply") == {"currency": "BRL", "exponent": 2, "minted": 2_000, "supply_limit": 5_000}
    (entry,) = at.query(ANA, query="ledger")["entries"]
    assert (entry["kind"], entry["memo"], entry["amount"]) == ("minted", "salary", 1_000)


def test_state_names_the_block() -> None:
    at = house()
    state = at.query(query="state")
    assert (state["sequence"], state["time_us"], len(state["block_hash"])) == (at.sequence, at.time_us, 64)


ID = "0" * 32
ENCODED = {
    "auction": query_forms.get_auction(ID),
    "auctions": query_forms.list_auctions(state="open", owner=ID, after=[1, 2], limit=3, order="ascending"),
    "bids": query_forms.list_bids(ID, after=[1]),
    "winner": query_forms.get_winner(ID),
    "account": query_forms.get_account("ana"),
    "account_bids": query_forms.list_account_bids("ana", limit=1),
    "balance": query_forms.get_balance(),
    "ledger": query_forms.list_ledger("ana", order="ascending"),
    "supply": query_forms.get_supply(),
    "events": query_forms.list_events(after=(1, 2, 3)),
}


@pytest.mark.parametrize("name", ENCODED)
def test_encoders_of_queries_give_canonical_bytes(name: str) -> None:
    query = ENCODED[name]
    assert canonical.decode(query, 1_000)["query"] == name
    assert query_forms.parse(query)
    assert house().query_bytes(query) != {"error": "malformed_query"}


def test_encoders_of_queries_refuse_what_would_be_malformed() -> None:
    for encode in (lambda: query_forms.get_auction("x"), lambda: query_forms.list_events(limit=201)):
        with pytest.raises(ValueError, match="malformed_query"):
            encode()


ERRORS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "malformed_query"),
    "not json": (b"auctions", "malformed_query"),
    "a list": (b'["auctions"]', "malformed_query"),
    "no name": (b"{}", "malformed_query"),
    "name is no text": (b'{"query":[]}', "malformed_query"),
    "unknown name": (b'{"query":"secrets"}', "unknown_query"),
    "unknown field": (b'{"query":"supply","x":1}', "malformed_query"),
    "twice": (b'{"query":"supply","query":"supply"}', "malformed_query"),
    "no limit": (b'{"query":"auctions","limit":0}', "malformed_query"),
    "beyond the limit": (b'{"query":"auctions","limit":201}', "malformed_query"),
    "fraction": (b'{"query":"auctions","limit":1.0}', "malformed_query"),
    "short cursor": (b'{"query":"auctions","after":[1]}', "malformed_query"),
    "long cursor": (b'{"query":"events","after":[1,2,3,4]}', "malformed_query"),
    "negative cursor": (b'{"query":"auctions","after":[1,-1]}', "malformed_query"),
    "cursor beyond 64 bits": (b'{"query":"auctions","after":[1,99999999999999999999]}', "malformed_query"),
    "text in a cursor": (b'{"query":"auctions","after":[1,"2"]}', "malformed_query"),
    "unknown state": (b'{"query":"auctions","state":"new"}', "malformed_query"),
    "unknown order": (b'{"query":"auctions","order":"random"}', "malformed_query"),
    "bad id": (b'{"query":"auction","auction":"x"}', "malformed_query"),
    "missing id": (b'{"query":"auction"}', "malformed_query"),
    "bad UTF-8": (b'{"query":"\xff"}', "malformed_query"),
    "deep": (b'{"query":' + b"[" * 16_000, "malformed_query"),
    "too large": (b'{"query":"supply"}' + b" " * 16_384, "malformed_query"),
    "unknown auction": (b'{"query":"auction","auction":"%s"}' % ID.encode(), "unknown_auction"),
    "bids of none": (b'{"query":"bids","auction":"%s"}' % ID.encode(), "unknown_auction"),
    "winner of none": (b'{"query":"winner","auction":"%s"}' % ID.encode(), "unknown_auction"),
    "events of none": (b'{"query":"events","auction":"%s"}' % ID.encode(), "unknown_auction"),
    "bids of nobody": (b'{"query":"account_bids","account":"nobody"}', "unknown_account"),
}


@pytest.mark.parametrize(("query", "code"), ERRORS.values(), ids=ERRORS.keys())
def test_query_errors_are_answers(query: bytes, code: str) -> None:
    assert house().query_bytes(query) == {"error": code}
