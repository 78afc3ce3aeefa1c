"""The real application on real databases: the same headers, the same answers, money conserved in the rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from executor_harness import GENESIS_US, SECOND, Log, digest_of, header_of, make_cluster, statuses

import fastpath
from auction.accounts import account_id
from auction.genesis import Founder, build
from auction.machine import AuctionMachine
from nodes import canonical
from nodes.config import ClusterConfig
from nodes.executor.executor import Executor
from nodes.executor.protocol import ExecuteBlock, Query

NAMES = ("root", "bank", "seller", "ann", "bob")
KEYS = {name: fastpath.public_key(bytes([i + 1]) * 32) for i, name in enumerate(NAMES)}
ROLES = {"root": ("admin",), "bank": ("issuer",)}


def auction_cluster() -> ClusterConfig:
    founders = [Founder(KEYS[name], name, name.title(), ROLES.get(name, ("bidder",))) for name in NAMES]
    base = make_cluster(state_interval=4)
    return ClusterConfig.new(
        members=[replace(member) for member in base.members],
        genesis_time_us=GENESIS_US,
        application="auction",
        application_genesis=build(founders, transparency="public"),
        parameters=base.parameters,
    )


def history(cluster: ClusterConfig) -> tuple[list[ExecuteBlock], str]:
    """Mint, open, bid each other up, close by deadline; the auction's id."""
    log = Log(cluster)
    used = dict.fromkeys(NAMES, 0)

    def request(who: str, **operation: Any) -> bytes:
        used[who] += 1
        return log.record(operation, key=KEYS[who], sequence=used[who])

    mints = [
        request("bank", type="money.mint", to=account_id(KEYS[who]).hex(), amount=100_000, memo="für " + who)
        for who in ("ann", "bob")
    ]
    log.batch(*mints)
    opening = request(
        "seller",
        type="auction.open",
        title="Vase, 日本",
        description="old\n" * 50,
        starting_price=100,
        min_increment=10,
        closes_at_us=GENESIS_US + 60 * SECOND,
        soft_close_seconds=5,
    )
    log.batch(opening)
    auction = digest_of(opening)[:16].hex()
    for step in range(1, 9):
        bids = [
            request(who, type="auction.bid", auction=auction, amount=100 + 40 * step + 20 * place)
            for place, who in enumerate(("ann", "bob"))
        ]
        log.batch(*bids, request("bank", type="money.mint", to="00" * 16, amount=1, memo=""))
    log.batch(time_us=GENESIS_US + 61 * SECOND)
    log.batch(request("ann", type="auction.bid", auction=auction, amount=10_000))
    return log.messages, auction


def test_auction_runs_on_every_database(database_url: str, tmp_path: Path) -> None:
    cluster = auction_cluster()
    messages, auction = history(cluster)
    reference = Executor(cluster, AuctionMachine(), f"sqlite:///{tmp_path / 'reference.db'}", 1)
    executor = Executor(cluster, AuctionMachine(), database_url, 0, cache_rows=4)
    reference.open()
    executor.open()
    for message in messages:
        executed = executor.execute(message)
        assert executed.block_header == reference.execute(message).block_header
    assert statuses(executed) != [0]
    assert header_of(executed).state_sequence == 12
    ask = [
        {"query": "auction", "auction": auction},
        {"query": "auctions", "limit": 10},
        {"query": "bids", "auction": auction, "limit": 5},
        {"query": "winner", "auction": auction},
        {"query": "account", "account": "bob"},
        {"query": "ledger", "account": "bob", "limit": 100},
        {"query": "events", "limit": 3},
        {"query": "supply"},
        {"query": "state"},
    ]
    queries = [Query(i, canonical.encode(question)) for i, question in enumerate(ask)]
    answers = executor.answer(queries)
    assert answers == reference.answer(queries)
    assert not [answer for answer in answers if b'"error"' in answer.result]  # type: ignore[union-attr]
    assert json.loads(answers[3].result)["winner"] == account_id(KEYS["bob"]).hex()  # type: ignore[union-attr]
    report = executor.verify_state()
    assert report.problems == []
    assert report.rows["bids"] == 16
    executor.close()
    reference.close()


@pytest.mark.parametrize("cut", [5, 11])
def test_auction_goes_on_after_a_restart(cut: int, sqlite_url: str, tmp_path: Path) -> None:
    cluster = auction_cluster()
    messages, _ = history(cluster)
    reference = Executor(cluster, AuctionMachine(), f"sqlite:///{tmp_path / 'reference.db'}", 0)
    reference.open()
    expected = [reference.execute(message).block_header for message in messages]
    reference.close()
    got = []
    for part in (messages[:cut], messages[cut:]):
        executor = Executor(cluster, AuctionMachine(), sqlite_url, 0)
        executor.open()
        got += [executor.execute(message).block_header for message in part]
        executor.close()
    assert got == expected
