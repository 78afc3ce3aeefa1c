"""Seeded random histories of the auction house: who does what, and how much time passes before it.

The same seed and the same answers give the same steps. Amounts are small and close together, so that ties,
bids that are too low, reserves, buy-now and soft closes all happen. The generator knows only what its
driver tells it (`opened`), never the state: many steps are refused, which is intended. Deliberately
elsewhere: signing, sending, and what should come out (the driver's business).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import fastpath
from auction import operations

SECOND_US = 1_000_000
AUCTIONS_REMEMBERED = 8
ROLES = ("admin", "issuer", "auditor", "bidder", "gateway")


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who can sign; `account` is the account's id in hexadecimal."""

    name: str
    account: str
    roles: tuple[str, ...] = ("bidder",)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, to be sent by `actor` (an index) after `wait_us` more microseconds."""

    actor: int
    operation: bytes
    wait_us: int


@dataclass(slots=True)
class _Auction:
    id: str
    owner: int
    amount: int
    """About what bids were last."""
    closes_at_us: int


class Workload:
    """An endless history for these actors.

    `governance` adds registrations, grants, freezes and cancellations by admins. Times are spread over
    auctions that last `auction_seconds` at most.
    """

    def __init__(
        self, seed: int, actors: Sequence[Actor], *, governance: bool = True, auction_seconds: int = 60
    ) -> None:
        self._random = random.Random(seed)
        self._actors = tuple(actors)
        self._bidders = [index for index, actor in enumerate(actors) if "bidder" in actor.roles]
        self._issuers = [index for index, actor in enumerate(actors) if "issuer" in actor.roles]
        self._admins = [index for index, actor in enumerate(actors) if "admin" in actor.roles]
        self._auctions: list[_Auction] = []
        self._opening: _Auction | None = None
        self._repeat: bytes | None = None
        self._auction_us = auction_seconds * SECOND_US
        self._registered = 0
        kinds: list[tuple[Callable[[int], tuple[int, bytes]], int]] = [
            (self._bid, 60),
            (self._open, 10),
            (self._mint, 6),
            (self._transfer, 8),
            (self._close, 2),
            (self._withdraw, 2),
            (self._fence, 1),
        ]
        if governance:
            kinds += [(self._cancel, 2), (self._change, 6), (self._register, 2), (self._restore, 12)]
        self._kinds = [kind for kind, _ in kinds]
        self._weights = [weight for _, weight in kinds]

    def opened(self, auction: str) -> None:
        """The last `auction.open` was accepted under this id (hexadecimal)."""
        if self._opening is not None:
            self._opening.id = auction
            self._auctions = [*self._auctions, self._opening][-AUCTIONS_REMEMBERED:]
            self._opening = None

    def next(self, now_us: int) -> Step:
        """The next step, with times as seen from block time `now_us`."""
        chance = self._random
        wait_us = chance.choice((0, 0, 1, SECOND_US // 4, SECOND_US, 3 * SECOND_US))
        self._opening = None
        kind = chance.choices(self._kinds, self._weights)[0]
        actor, operation = kind(now_us + wait_us)
        return Step(actor, operation, wait_us)

    def _anybody(self) -> str:
        if self._random.random() < 0.03:
            return self._random.randbytes(16).hex()
        return self._random.choice(self._actors).account

    def _some_auction(self, now_us: int) -> _Auction:
        """Mostly one that is still open, now and then a closed one or none at all."""
        if not self._auctions or self._random.random() < 0.02:
            return _Auction(self._random.randbytes(16).hex(), self._random.choice(self._bidders), 10, 0)
        live = [auction for auction in self._auctions if auction.closes_at_us > now_us]
        return self._random.choice(live if live and self._random.random() < 0.95 else self._auctions)

    def _bid(self, now_us: int) -> tuple[int, bytes]:
        auction = self._some_auction(now_us)
        bidders = [index for index in self._bidders if index != auction.owner or self._random.random() < 0.05]
        amount = max(1, auction.amount + self._random.randint(-3, 8))
        maximum = amount + self._random.randint(0, 20) if self._random.random() < 0.5 else None
        auction.amount = max(auction.amount, min(amount, auction.amount + 5))
        return self._random.choice(bidders or self._bidders), operations.bid(auction.id, amount, maximum)

    def _open(self, now_us: int) -> tuple[int, bytes]:
        chance = self._random
        owner = chance.choice(self._bidders)
        starting_price = chance.randint(1, 20)
        reserve_price = starting_price + chance.randint(0, 20) if chance.random() < 0.4 else None
        buy_now = max(starting_price, reserve_price or 0) + chance.randint(-1, 30) if chance.random() < 0.3 else None
        opens_at_us = now_us + chance.randint(-1, 2) * self._auction_us // 8 if chance.random() < 0.3 else None
        closes_at_us = now_us + chance.randint(0, 8) * self._auction_us // 8
        soft_close_seconds = chance.choice((0, 0, 1, 5, 10))
        closes_at_max_us = closes_at_us + chance.randint(0, 3) * SECOND_US if chance.random() < 0.2 else None
        self._opening = _Auction("", owner, starting_price, closes_at_us)
        return owner, operations.open_auction(
            f"Lot {chance.randint(1, 999)}",
            description="From a random history.",
            starting_price=starting_price,
            min_increment=chance.randint(1, 4),
            closes_at_us=closes_at_us,
            soft_close_seconds=soft_close_seconds,
            reserve_price=reserve_price,
            buy_now=buy_now,
            opens_at_us=opens_at_us,
            closes_at_max_us=closes_at_max_us,
        )

    def _mint(self, now_us: int) -> tuple[int, bytes]:
        actor = self._random.choice(self._issuers or self._bidders)
        return actor, operations.mint(self._anybody(), self._random.randint(0, 200), "salary")

    def _transfer(self, now_us: int) -> tuple[int, bytes]:
        return self._random.choice(self._bidders), operations.transfer(self._anybody(), self._random.randint(0, 60))

    def _close(self, now_us: int) -> tuple[int, bytes]:
        auction = self._some_auction(now_us)
        owner = auction.owner if self._random.random() < 0.8 else self._random.choice(self._bidders)
        return owner, operations.close(auction.id)

    def _withdraw(self, now_us: int) -> tuple[int, bytes]:
        auction = self._some_auction(now_us)
        return auction.owner, operations.cancel(auction.id, "withdrawn")

    def _fence(self, now_us: int) -> tuple[int, bytes]:
        return self._random.randrange(len(self._actors)), operations.fence()

    def _admin(self) -> int:
        if not self._admins or self._random.random() < 0.05:
            return self._random.randrange(len(self._actors))
        return self._random.choice(self._admins)

    def _approved(self, operation: bytes) -> bytes:
        """Often the same again, so that several admins come to approve one operation."""
        if self._repeat is not None and self._random.random() < 0.5:
            return self._repeat
        self._repeat = operation
        return operation

    def _cancel(self, now_us: int) -> tuple[int, bytes]:
        return self._admin(), self._approved(operations.cancel(self._some_auction(now_us).id, "against the rules"))

    def _change(self, now_us: int) -> tuple[int, bytes]:
        target, role = self._anybody(), self._random.choice(ROLES)
        match self._random.randrange(5):
            case 0 | 1:
                operation = operations.grant(target, role)
            case 2 | 3:
                operation = operations.revoke(target, role)
            case _:
                operation = operations.freeze(target)
        return self._admin(), self._approved(operation)

    def _restore(self, now_us: int) -> tuple[int, bytes]:
        """Undo freezes and revocations, so that a long history does not come to a stand."""
        actor = self._random.choice(self._actors)
        if self._random.random() < 0.5 or not actor.roles:
            return self._admin(), self._approved(operations.unfreeze(actor.account))
        return self._admin(), self._approved(operations.grant(actor.account, self._random.choice(actor.roles)))

    def _register(self, now_us: int) -> tuple[int, bytes]:
        self._registered += 1
        handle = f"guest-{self._random.randint(1, self._registered)}"
        public_key = fastpath.public_key(self._random.randbytes(32)).hex()
        roles = self._random.sample(ROLES, self._random.randint(0, 2)) if self._random.random() < 0.5 else None
        return self._admin(), self._approved(operations.register(handle, "Guest", public_key=public_key, roles=roles))
