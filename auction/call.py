"""What the handlers of operations share: who calls, when, on which rows, and under which house rules."""

from __future__ import annotations

from dataclasses import dataclass

from auction import tables
from auction.effects import Journal
from auction.roles import Role
from auction.state import Account, House, Supply
from nodes.machine import BlockContext, Rows

HOUSE_ID = 0
SUPPLY_ID = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One operation on its way through a handler."""

    rows: Rows
    context: BlockContext
    house: House
    journal: Journal
    author: Account
    digest: bytes
    """The request's digest."""

    def has(self, role: Role) -> bool:
        return self.author.roles & role != 0


def read_house(rows: Rows) -> House:
    """The house's row, which genesis wrote."""
    house: House | None = rows.get(tables.house, HOUSE_ID)
    if house is None:
        raise AssertionError("the genesis of the auction house has not been applied")
    return house


def read_supply(rows: Rows) -> Supply:
    """The supply's row, which genesis wrote."""
    supply: Supply | None = rows.get(tables.supply, SUPPLY_ID)
    if supply is None:
        raise AssertionError("the genesis of the auction house has not been applied")
    return supply


def active_version(house: House, sequence: int) -> int:
    """Version of the rules under which the block `sequence` is executed."""
    return house.rules_version if sequence >= house.rules_from else house.rules_version - 1
