"""The commands of the command line against a running cluster: what they answer, over HTTPS and over ZeroMQ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.cluster import Cluster

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def auction(cluster: Cluster) -> str:
    """An auction with two bids on it."""
    opened = cluster.arremate("auction", "open", "a lamp", "--start", "100", "--closes-in", "1h", "--as", "seller")
    name = str(opened["result"]["auction"])
    cluster.arremate("bid", name, "100", "--max", "500", "--as", "alice", "--node", "1")
    cluster.arremate("bid", name, "200", "--as", "bob", "--zmq")
    return name


def watched(cluster: Cluster, *words: str) -> list[dict[str, Any]]:
    """The events that `arremate watch` prints, without its last line."""
    done = subprocess.run(
        [sys.executable, "-m", "auction.cli.main", "watch", *words, "-o", "json"],
        env={**os.environ, "ARREMATE_ENDPOINTS": str(cluster.endpoints_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()][:-1]


def test_status_shows_every_node(cluster: Cluster) -> None:
    nodes = cluster.arremate("status")["nodes"]
    assert [node["node"] for node in nodes] == [0, 1, 2, 3]
    assert all(node["answers"] for node in nodes)
    assert len({node["view"] for node in nodes}) == 1


@pytest.mark.parametrize("way", [(), ("--node", "2"), ("--zmq",)], ids=["any", "node", "zmq"])
def test_queries_answer_alike_whatever_the_way(cluster: Cluster, auction: str, way: tuple[str, ...]) -> None:
    shown = cluster.arremate("auction", "show", auction, *way)
    assert (shown["state"], shown["price"], shown["bids"]) == ("open", 201, 2)
    listed = cluster.arremate("auction", "list", "--state", "open", *way)["auctions"]
    assert auction in [item["id"] for item in listed]
    bids = cluster.arremate("auction", "bids", auction, *way)["bids"]
    assert [(bid["amount"], bid["outcome"]) for bid in bids] == [(100, "leading"), (200, "outbid")]
    assert cluster.arremate("account", "bids", "alice", *way)["bids"][0]["auction"] == auction


def test_balance_is_shown_to_its_owner_and_the_auditor_only(cluster: Cluster, auction: str) -> None:
    assert cluster.arremate("account", "show", "alice", "--as", "alice")["held"] >= 500
    assert cluster.arremate("account", "show", "alice", "--as", "auditor")["held"] >= 500
    assert "held" not in cluster.arremate("account", "show", "alice", "--as", "bob")
    assert cluster.arremate("account", "ledger", "alice", "--as", "bob", code=3)["error"]["code"] == "unauthorized"
    entries = cluster.arremate("account", "ledger", "--as", "alice")["entries"]
    assert (entries[0]["kind"], entries[0]["amount"]) == ("held", 500)


def test_refusal_is_three_and_names_a_receipt_that_verifies(cluster: Cluster, auction: str) -> None:
    error = cluster.arremate("bid", auction, "150", "--as", "carla", code=3)["error"]
    assert error["code"] == "bid_too_low"
    verified = cluster.arremate("receipt", "verify", error["receipt"], "--genesis", str(cluster.genesis_path))
    assert (verified["verified"], verified["code"]) == (True, "bid_too_low")


@pytest.mark.parametrize("way", [("--node", "3"), ("--zmq",)], ids=["https", "zmq"])
def test_events_come_in_order_and_resume_without_gap(cluster: Cluster, auction: str, way: tuple[str, ...]) -> None:
    events = watched(cluster, "--auction", auction, "--from-start", "--count", "3", *way)
    assert [event["kind"] for event in events] == ["opened", "bid", "bid"]
    assert [event["revision"] for event in events] == [1, 2, 3]
    place = "-".join(str(events[0][name]) for name in ("sequence", "index", "effect"))
    assert watched(cluster, "--auction", auction, "--after", place, "--count", "2", *way) == events[1:]


@pytest.mark.parametrize("way", [("--node", "0"), ("--zmq",)], ids=["https", "zmq"])
def test_receipt_is_fetched_again_by_its_digest(cluster: Cluster, tmp_path: Path, way: tuple[str, ...]) -> None:
    first = cluster.arremate("transfer", "bob", "3", "--memo", "tea", "--as", "alice")
    again = cluster.arremate("receipt", "fetch", first["digest"], "--save", str(tmp_path / "r.json"), *way)
    assert [again[name] for name in ("sequence", "index", "code")] == [first["sequence"], first["index"], "ok"]
    genesis = ("--genesis", str(cluster.genesis_path))
    assert cluster.arremate("receipt", "verify", str(tmp_path / "r.json"), *genesis)["digest"] == first["digest"]


def test_receipt_of_nothing_is_not_found(cluster: Cluster) -> None:
    assert cluster.arremate("receipt", "fetch", "00" * 32, "--timeout", "5", code=3)["error"]["code"] == "not_found"


def test_rotated_key_acts_for_the_same_account_and_the_old_one_for_nobody(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("first", "second"):
        cluster.arremate("key", "new", str(tmp_path / f"{name}.key"))
    public = cluster.arremate("key", "show", str(tmp_path / "first.key"))
    words = ("account", "register", "dora", "--public-key", public["public_key"], "--role", "bidder")
    cluster.arremate(*words, "--as", "admin")
    assert cluster.arremate("account", "show", "dora")["id"] == public["account"]
    old, new = ("--key", str(tmp_path / "first.key")), ("--key", str(tmp_path / "second.key"))
    cluster.arremate("account", "rotate-key", "--new-key", new[1], *old)
    assert cluster.arremate("account", "show", *new)["id"] == public["account"]
    assert cluster.arremate("transfer", "bob", "1", *old, code=3)["error"]["code"] == "unauthorized"


def test_roles_and_freezing_take_effect(cluster: Cluster) -> None:
    assert cluster.arremate("mint", "bob", "1", "--as", "carla", code=3)["error"]["code"] == "unauthorized"
    cluster.arremate("account", "grant", "carla", "issuer", "--as", "admin")
    cluster.arremate("mint", "bob", "1", "--as", "carla")
    cluster.arremate("account", "revoke", "carla", "issuer", "--as", "admin")
    assert cluster.arremate("mint", "bob", "1", "--as", "carla", code=3)["error"]["code"] == "unauthorized"
    cluster.arremate("account", "freeze", "carla", "--as", "admin")
    assert cluster.arremate("transfer", "bob", "1", "--as", "carla", code=3)["error"]["code"] == "account_frozen"
    cluster.arremate("account", "unfreeze", "carla", "--as", "admin")
    cluster.arremate("transfer", "bob", "1", "--as", "carla")


def test_closing_by_its_owner_names_the_winner_and_cancelling_releases(cluster: Cluster) -> None:
    def opened() -> str:
        words = ("auction", "open", "a chair", "--start", "10", "--closes-in", "1h", "--as", "seller")
        return str(cluster.arremate(*words)["result"]["auction"])

    sold, cancelled = opened(), opened()
    assert cluster.arremate("auction", "winner", sold, code=3)["error"]["code"] == "auction_open"
    cluster.arremate("bid", sold, "10", "--as", "bob")
    cluster.arremate("auction", "close", sold, "--as", "seller")
    winner = cluster.arremate("auction", "winner", sold)
    assert (winner["outcome"], winner["reason"], winner["price"]) == ("sold", "closed_by_owner", 10)
    cluster.arremate("auction", "cancel", cancelled, "--reason", "broken", "--as", "seller")
    assert cluster.arremate("bid", cancelled, "10", "--as", "bob", code=3)["error"]["code"] == "auction_cancelled"
