"""Random histories: after every block the machine and the plain model have the same money and auctions."""

from __future__ import annotations

from typing import Any

import pytest
from auction_harness import House, MemoryReader, Person
from auction_model import Model
from hypothesis import given, settings
from hypothesis import strategies as st

from auction import tables
from auction.genesis import build
from auction.state import AuctionState
from bench.workload import Actor, Workload
from nodes import canonical

PEOPLE = (
    Person("root", "admin"),
    Person("warden", "admin", "bidder"),
    Person("keeper", "admin", "auditor"),
    Person("bank", "issuer"),
    Person("ana", "bidder"),
    Person("bea", "bidder"),
    Person("cai", "bidder"),
    Person("dom", "bidder", "issuer"),
)
ACTORS = [Actor(person.name, person.id, person.roles) for person in PEOPLE]


class Pair:
    """A house and a model that see the same log."""

    def __init__(self, seed: int, **settings: Any) -> None:
        self.house = House(*PEOPLE, **settings)
        self.model = Model(build([person.founder() for person in PEOPLE], **settings))
        self.workload = Workload(seed, ACTORS, governance=True)
        self.codes: dict[str, int] = {}
        self.effects: list[str] = []

    def run(self, steps: int) -> None:
        """Blocks of one to four operations; a block ends with an opening, whose id the workload needs."""
        house = self.house
        for number in range(0, steps, 4):
            block: list[tuple[Person, bytes]] = []
            at_us = house.time_us + 1
            while len(block) < 1 + number // 4 % 4:
                step = self.workload.next(at_us)
                at_us += step.wait_us
                block.append((PEOPLE[step.actor], step.operation))
                if b'"type":"auction.open"' in step.operation:
                    break
            self.model.advance(at_us)
            first = house.requests + 1
            outcomes = house.block(*((who.key, operation) for who, operation in block), at_us=at_us)
            for position, (who, operation) in enumerate(block):
                expected = self.model.execute(who.key, operation, house.digest(first + position), at_us)
                code = house.machine.code_name(outcomes[position].status)
                assert code == expected, (number, position, operation)
                self.codes[code] = self.codes.get(code, 0) + 1
            result = canonical.decode(outcomes[-1].result, 65_536)
            if b'"type":"auction.open"' in block[-1][1] and not outcomes[-1].status:
                self.workload.opened(result["auction"])
            for outcome in outcomes:
                self.effects += [effect["kind"] for effect in canonical.decode(outcome.result, 65_536)["effects"]]
            self.compare(number)

    def compare(self, number: int) -> None:
        model, rows = self.model, self.house.rows
        money = {name: (account["free"], account["held"]) for name, account in model.accounts.items()}
        assert money == {row.id.hex(): (row.available, row.held) for row in rows.rows["accounts"].values()}, number
        assert rows.rows["supply"][(0,)].minted == model.minted == sum(map(sum, money.values()))
        for name, expected in model.auctions.items():
            row = self.house.auction(name)
            assert AuctionState(row.state).name.lower() == expected["state"], (number, name)
            assert (row.price or None, row.bids, row.closes_at_us) == (
                expected["price"],
                expected["bids"],
                expected["closes"],
            ), (number, name)
            assert (row.leader and row.leader.hex(), row.leader_maximum or None) == (
                expected["leader"],
                expected["max"],
            ), (number, name)
            if expected["state"] != "open":
                closing = self.house.closing(name)
                assert (closing.reason, closing.outcome) == (expected["reason"], expected["outcome"])


def check_histories_agree_with_rows(house: House) -> None:
    """Ledgers, events, counters and timers tell the same story as the balances and auctions."""
    reader = MemoryReader(house.rows, house.sequence, house.time_us)
    for account in reader.scan(tables.accounts):
        entries = reader.range(tables.ledger, ("number",), equal={"account": account.id}, limit=10**6)
        assert [entry.number for entry in entries] == list(range(1, account.entries + 1))
        last = (entries[-1].available, entries[-1].held) if entries else (0, 0)
        assert last == (account.available, account.held)
        owned = reader.range(
            tables.auctions,
            ("opened_sequence", "opened_position"),
            equal={"owner": account.id, "state": int(AuctionState.OPEN)},
            limit=10**6,
        )
        assert len(owned) == account.open_auctions
    admins = [row for row in reader.scan(tables.accounts) if row.roles & 1 and not row.frozen]
    assert reader.get(tables.house, 0).admins == len(admins)
    for auction in reader.scan(tables.auctions):
        events = reader.range(
            tables.events, ("sequence", "position", "effect"), equal={"auction": auction.id}, limit=10**6
        )
        assert [event.revision for event in events] == list(range(1, auction.revision + 1))
        timer = house.rows.timers.get(b"close:" + auction.id)
        assert (timer.due_us if timer else None) == (
            auction.closes_at_us if auction.state == AuctionState.OPEN else None
        )
        numbers = [row.number for row in reader.scan(tables.bids) if row.auction == auction.id]
        assert numbers == list(range(1, auction.bids + 1))


@pytest.mark.parametrize("threshold", [1, 2, 3])
@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_random_history_agrees_with_the_model(seed: int, threshold: int) -> None:
    pair = Pair(seed, admin_threshold=threshold, supply_limit=5_000)
    pair.run(2_000)
    check_histories_agree_with_rows(pair.house)
    assert pair.codes["ok"] > 150


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), threshold=st.integers(1, 3), supply_limit=st.sampled_from((300, 2_000, 10**15)))
def test_short_histories_agree_with_the_model(seed: int, threshold: int, supply_limit: int) -> None:
    pair = Pair(seed, admin_threshold=threshold, supply_limit=supply_limit, registration="open")
    pair.run(300)
    check_histories_agree_with_rows(pair.house)


def test_histories_reach_what_they_are_for() -> None:
    """A generator that stopped reaching the interesting cases would make the comparison above worthless."""
    codes: set[str] = set()
    effects: set[str] = set()
    closings: set[tuple[str, str]] = set()
    for seed in range(5):
        pair = Pair(seed, supply_limit=1_500, admin_threshold=1 + seed % 3)
        pair.run(2_000)
        codes.update(pair.codes)
        effects.update(pair.effects)
        closings.update((row.reason, row.outcome) for row in pair.house.rows.rows["closings"].values())
    refusals = "bid_too_low insufficient_funds own_auction auction_closed auction_cancelled auction_not_open has_bids"
    refusals += " unknown_auction unknown_account invalid_amount invalid_schedule account_frozen unauthorized not_owner"
    assert {"ok", "last_admin", "supply_limit", "self_transfer", "handle_taken", *refusals.split()} <= codes
    assert {
        "opened",
        "bid",
        "price",
        "extended",
        "closed",
        "cancelled",
        "held",
        "released",
        "paid",
        "minted",
        "approved",
    } <= effects
    assert {"registered", "granted", "revoked", "frozen", "unfrozen"} <= effects
    assert {("deadline", "sold"), ("deadline", "reserve_not_met"), ("deadline", "no_bids")} <= closings
    assert {("buy_now", "sold"), ("closed_by_owner", "sold"), ("cancelled", "cancelled")} <= closings


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = Pair(7), Pair(7)
    first.run(200)
    second.run(200)
    assert first.house.rows.rows == second.house.rows.rows
    assert first.house.rows.timers == second.house.rows.timers
