"""What the load driver offers: prepare accounts and auctions, then give one operation after the other.

Always: the sequence of operations depends on the seed alone. Every operation is one that the rules can
accept; under concurrency some bids arrive too late and are refused, which costs the cluster the same.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from auction import operations
from auction.accounts import account_id
from nodes.client.aio import Client
from nodes.demo import counter
from nodes.keys import SigningKey

MONEY = 10**12
"""Minor units for each loading account; the sample genesis allows 10^15."""
AUCTIONS = 16
AUCTION_SECONDS = 6 * 3600
INCREMENT = 5


class Workload(Protocol):
    name: str

    async def prepare(self) -> Sequence[SigningKey]:
        """Set the cluster up; the keys that the clients sign with, one each."""

    def operation(self, client: int) -> bytes:
        """The next operation of a client."""


class Staff:
    """Clients of the people who prepare: admin, issuer and seller. Use as an async context manager."""

    def __init__(self, connect: Callable[[SigningKey], Client], keys: Mapping[str, SigningKey]) -> None:
        self._clients = {name: connect(keys[name]) for name in ("admin", "issuer", "seller")}

    async def __aenter__(self) -> Staff:
        for client in self._clients.values():
            await client.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.close()

    async def submit(self, name: str, payloads: Sequence[bytes]) -> list[Any]:
        """Order all of them; their receipts in the same order."""
        return list(await asyncio.gather(*(self._clients[name].submit(payload) for payload in payloads)))

    async def make_bidders(self, count: int, seed: int) -> list[SigningKey]:
        """New accounts with money, their keys made for this run."""
        keys = [SigningKey.generate() for _ in range(count)]
        run = f"{time.time_ns() // 1_000_000 % 10**9}-{seed % 1000}"
        await self.submit(
            "admin",
            [
                operations.register(
                    f"load-{run}-{index}", f"load {index}", public_key=key.public_key.hex(), roles=["bidder"]
                )
                for index, key in enumerate(keys)
            ],
        )
        await self.submit("issuer", [operations.mint(account_id(key.public_key).hex(), MONEY) for key in keys])
        return keys


class Counts:
    """Additions to the replicated counter: what is left of a load when the application costs nothing."""

    name = "counter"

    def __init__(self, clients: int) -> None:
        self._clients = clients

    async def prepare(self) -> Sequence[SigningKey]:
        return [SigningKey.generate() for _ in range(self._clients)]

    def operation(self, client: int) -> bytes:
        return counter.add(1)


class Transfers:
    """One minor unit from each client's account to the next one's."""

    name = "transfers"

    def __init__(self, staff: Staff, clients: int, seed: int) -> None:
        self._staff = staff
        self._clients = clients
        self._seed = seed
        self._targets: list[str] = []

    async def prepare(self) -> Sequence[SigningKey]:
        keys = await self._staff.make_bidders(max(2, self._clients), self._seed)
        accounts = [account_id(key.public_key).hex() for key in keys]
        self._targets = [*accounts[1:], accounts[0]]
        return keys[: self._clients]

    def operation(self, client: int) -> bytes:
        return operations.transfer(self._targets[client], 1)


class Bids:
    """Rising bids of all clients on a few auctions."""

    name = "bids"

    def __init__(self, staff: Staff, clients: int, seed: int) -> None:
        self._staff = staff
        self._clients = clients
        self._random = random.Random(seed)
        self._seed = seed
        self._amounts: dict[str, int] = {}
        self._auctions: list[str] = []

    async def prepare(self) -> Sequence[SigningKey]:
        keys = await self._staff.make_bidders(self._clients, self._seed)
        closes_at_us = time.time_ns() // 1_000 + AUCTION_SECONDS * 1_000_000
        opened = [
            operations.open_auction(
                f"load {number}", starting_price=100, min_increment=INCREMENT, closes_at_us=closes_at_us
            )
            for number in range(AUCTIONS)
        ]
        receipts = await self._staff.submit("seller", opened)
        self._auctions = [receipt.digest[:16].hex() for receipt in receipts]
        self._amounts = dict.fromkeys(self._auctions, 100)
        return keys

    def operation(self, client: int) -> bytes:
        auction = self._random.choice(self._auctions)
        self._amounts[auction] += INCREMENT
        return operations.bid(auction, self._amounts[auction])
