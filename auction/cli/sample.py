"""The people of a sample cluster, and the data that a demo starts with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from auction import genesis
from auction.genesis import Founder
from nodes.keys import SigningKey

PEOPLE: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("Ada the administrator", ("admin",)),
    "issuer": ("Iris the issuer", ("issuer",)),
    "auditor": ("Aurel the auditor", ("auditor",)),
    "seller": ("Selma", ("bidder",)),
    "alice": ("Alice", ("bidder",)),
    "bob": ("Bob", ("bidder",)),
    "carla": ("Carla", ("bidder",)),
}
"""Handle, which is also the key's name -> (display name, roles)."""
BIDDERS = ("alice", "bob", "carla")
MACHINE = "auction.machine:AuctionMachine"
SAMPLE_MONEY = 1_000_000
"""Minor units for each bidder of a demo."""


def make_keys(names: Sequence[str] = tuple(PEOPLE)) -> dict[str, SigningKey]:
    return {name: SigningKey.generate() for name in names}


def application_genesis(keys: Mapping[str, SigningKey], **settings: Any) -> dict[str, Any]:
    """The auction's genesis with an account for each key whose name is one of `PEOPLE`."""
    founders = [Founder(key.public_key, name, *PEOPLE[name]) for name, key in keys.items()]
    return genesis.build(founders, **settings)


def fill(execute: Callable[[Sequence[str]], Any]) -> str:
    """Mint money for the bidders and open one auction; its id."""
    for name in BIDDERS:
        execute(["mint", name, str(SAMPLE_MONEY), "--memo", "welcome", "--as", "issuer"])
    opened = execute(
        [
            "auction",
            "open",
            "A blue vase, signed",
            "--description",
            "Hand-thrown, 1931. One small chip at the foot.",
            "--start",
            "10000",
            "--increment",
            "500",
            "--closes-in",
            "1h",
            "--soft-close",
            "60s",
            "--as",
            "seller",
        ]
    )
    return str(opened["result"]["auction"])
