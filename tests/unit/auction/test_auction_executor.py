"""The same histories through the real executor: the plain model's money, on every database the same headers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from auction_harness import SECOND, START_US, Person
from auction_model import Model

import fastpath
from auction import operations
from auction.genesis import build
from auction.machine import AuctionMachine
from bench.workload import Actor, Workload
from nodes import canonical
from nodes.block import BlockHeader, next_order_hash, timer_digest
from nodes.config import ClusterConfig, Member, Parameters
from nodes.core.types import BatchKind, ReplicaId
from nodes.executor.executor import Executor
from nodes.executor.protocol import BlockExecuted, ExecuteBlock, FindReceipt, Query, QueryAnswer, ReceiptFound
from nodes.wire import unsigned_record

PEOPLE = (
    Person("root", "admin"),
    Person("warden", "admin", "bidder"),
    Person("bank", "issuer"),
    Person("ana", "bidder"),
    Person("bea", "bidder"),
    Person("cai", "bidder"),
    Person("watch", "auditor"),
)
ROOT, WARDEN, BANK, ANA, BEA, CAI, WATCH = PEOPLE


def make_cluster() -> ClusterConfig:
    member = Member(
        ReplicaId(0),
        "node0",
        fastpath.public_key(b"\1" * 32),
        fastpath.public_key(b"\2" * 32),
        b"\3" * 32,
        "127.0.0.1",
        7000,
        7001,
        7002,
        7003,
    )
    return ClusterConfig.new(
        members=[member],
        genesis_time_us=START_US,
        application="auction",
        application_genesis=build([person.founder() for person in PEOPLE], supply_limit=5_000),
        parameters=Parameters(state_interval=4, timers_max=3),
    )


class Chain:
    """One executor and the ordered log that it is given."""

    def __init__(self, cluster: ClusterConfig, url: str) -> None:
        self.cluster = cluster
        self.executor = Executor(cluster, AuctionMachine(), url, 0)
        self.executor.open()
        self.sequence = 0
        self.time_us = START_US
        self.requests = 0
        self._order_hash = cluster.config_hash

    def block(
        self, *requests: tuple[Person, bytes], at_us: int | None = None, kind: int = 0
    ) -> tuple[BlockExecuted, list[bytes]]:
        """Execute a block; with it the digests of its requests."""
        self.sequence += 1
        self.time_us = max(self.time_us + 1, at_us or 0)
        records = []
        for who, payload in requests:
            self.requests += 1
            until = self.time_us + 60 * SECOND
            unsigned = unsigned_record(
                self.cluster.cluster_id, who.key, 1, self.requests, self.requests, until, payload, kind
            )
            records.append(unsigned + bytes(64))
        body = b"".join(records)
        parsed = fastpath.parse_requests(body, 0, len(body), self.cluster.cluster_id, 1024, 65_536)
        leaves, digests = [request[0] for request in parsed], [request[1] for request in parsed]
        header, body, digest = fastpath.assemble_batch(
            BatchKind.NORMAL, 0, self.cluster.cluster_id, 0, self.sequence, self.time_us, records, leaves
        )
        self._order_hash = next_order_hash(self._order_hash, self.sequence, digest)
        return self.executor.execute(ExecuteBlock(self.sequence, header, body, self._order_hash)), digests

    def query(self, caller: Person | None, **query: Any) -> Any:
        answer = self.executor.query(Query(1, canonical.encode(query), None if caller is None else caller.key))
        assert isinstance(answer, QueryAnswer)
        return canonical.decode(answer.result, 65_536)


@contextmanager
def chain(url: str) -> Iterator[Chain]:
    running = Chain(make_cluster(), url)
    try:
        yield running
    finally:
        running.executor.close()


def run_history(on: Chain, seed: int, blocks: int) -> tuple[list[bytes], Model]:
    """A random history; the hashes of its blocks and the model that saw the same."""
    machine = AuctionMachine()
    workload = Workload(seed, [Actor(person.name, person.id, person.roles) for person in PEOPLE], auction_seconds=40)
    model = Model(dict(on.cluster.application_genesis))
    sizes = random.Random(seed)
    hashes = []
    for _ in range(blocks):
        block: list[tuple[Person, bytes]] = []
        at_us = on.time_us + 1
        for _ in range(sizes.randrange(1, 8)):
            step = workload.next(at_us)
            at_us += step.wait_us
            block.append((PEOPLE[step.actor], step.operation))
            if b'"type":"auction.open"' in step.operation:
                break
        model.advance(at_us)
        executed, digests = on.block(*block, at_us=at_us)
        header = BlockHeader.unpack(executed.block_header)
        hashes.append(header.hash)
        outcomes = [entry.status for entry in executed.entries][-len(block) :]
        for status, (who, payload), digest in zip(outcomes, block, digests, strict=True):
            assert machine.code_name(status) == model.execute(who.key, payload, digest, at_us)
        if b'"type":"auction.open"' in block[-1][1] and outcomes[-1] == 0:
            workload.opened(digests[-1].hex()[:32])
    return hashes, model


def compare(on: Chain, model: Model) -> None:
    for name, account in model.accounts.items():
        caller = next((person for person in PEOPLE if person.id == name), None)
        if caller is not None:
            balance = on.query(caller, query="balance")
            assert (balance["available"], balance["held"]) == (account["free"], account["held"])
        public = on.query(None, query="account", account=name)
        assert (public["handle"], set(public["roles"]), public["frozen"]) == (
            account["handle"],
            account["roles"],
            account["frozen"],
        )
    assert on.query(None, query="supply")["minted"] == model.minted
    for name, expected in model.auctions.items():
        auction = on.query(None, query="auction", auction=name)
        assert (auction["state"], auction["price"], auction["bids"], auction["leader"]) == (
            expected["state"],
            expected["price"],
            expected["bids"],
            expected["leader"],
        )


def test_history_on_a_database_agrees_with_the_model_and_with_every_other_database(
    database_url: str, tmp_path: Path
) -> None:
    with chain(database_url) as on, chain(f"sqlite:///{tmp_path / 'reference.db'}") as reference:
        hashes, model = run_history(on, 11, 120)
        expected, _ = run_history(reference, 11, 120)
        assert hashes == expected
        compare(on, model)
        report = on.executor.verify_state()
        assert report.is_sound, report.problems
        assert sum(auction["state"] != "open" for auction in model.auctions.values()) > 3


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_histories_on_sqlite_agree_with_the_model(seed: int, sqlite_url: str) -> None:
    with chain(sqlite_url) as on:
        _, model = run_history(on, seed, 150)
        compare(on, model)
        assert on.executor.verify_state().is_sound


def test_closing_by_the_deadline_has_a_receipt_under_the_digest_that_the_winner_names(sqlite_url: str) -> None:
    with chain(sqlite_url) as on:
        closes_at_us = START_US + 10 * SECOND
        on.block((BANK, operations.mint(BEA.id, 500)))
        opening = operations.open_auction("Lot", starting_price=100, closes_at_us=closes_at_us)
        _, (digest,) = on.block((ANA, opening))
        auction = digest.hex()[:32]
        on.block((BEA, operations.bid(auction, 120, 200)))
        on.block(at_us=closes_at_us)
        winner = on.query(None, query="winner", auction=auction)
        assert (winner["winner"], winner["price"], winner["outcome"]) == (BEA.id, 120, "sold")
        assert winner["digest"] == timer_digest(b"close:" + bytes.fromhex(auction), closes_at_us).hex()
        (receipt,) = on.executor.answer([FindReceipt(1, bytes.fromhex(winner["digest"]))])
        assert isinstance(receipt, ReceiptFound)
        assert receipt.found
        assert canonical.decode(receipt.result, 65_536)["winner"] == BEA.id
        assert on.query(ANA, query="balance")["available"] == 120


@pytest.mark.parametrize(
    "query",
    [
        {"query": "auctions"},
        {"query": "auctions", "state": "open"},
        {"query": "auctions", "owner": ANA.id},
        {"query": "auctions", "owner": ANA.id, "state": "open"},
        {"query": "bids", "auction": "AUCTION"},
        {"query": "account_bids", "account": "bea"},
        {"query": "ledger", "account": "bea"},
        {"query": "events"},
        {"query": "events", "auction": "AUCTION"},
    ],
    ids=canonical.encode,
)
def test_lists_page_through_the_indexes_of_the_database(query: dict[str, Any], database_url: str) -> None:
    with chain(database_url) as on:
        on.block((BANK, operations.mint(BEA.id, 500)), (BANK, operations.mint(CAI.id, 500)))
        opening = operations.open_auction("Lot", starting_price=1, closes_at_us=START_US + 100 * SECOND)
        _, digests = on.block((ANA, opening), (ANA, opening), (ANA, opening))
        auction = digests[0].hex()[:32]
        for amount in range(10, 100, 20):
            on.block((BEA, operations.bid(auction, amount)), (CAI, operations.bid(auction, amount + 10)))
        query = {name: auction if value == "AUCTION" else value for name, value in query.items()}
        for order in ("ascending", "descending"):
            whole = on.query(WATCH, **query, order=order, limit=200)
            (name,) = (key for key, value in whole.items() if isinstance(value, list))
            pages, after = [], {}
            while after is not None:
                page = on.query(WATCH, **query, order=order, limit=2, **after)
                pages += page[name]
                after = None if page["next"] is None else {"after": page["next"]}
            assert pages == whole[name]
            assert len(pages) >= 3


def test_ordered_reads_are_for_the_registered(sqlite_url: str) -> None:
    with chain(sqlite_url) as on:
        query = canonical.encode({"query": "balance"})
        executed, digests = on.block((BEA, query), (Person("stranger"), query), kind=1)
        assert [entry.status for entry in executed.entries] == [0, 8]
        (receipt,) = on.executor.answer([FindReceipt(1, digests[0])])
        assert isinstance(receipt, ReceiptFound)
        assert canonical.decode(receipt.result, 65_536)["available"] == 0
