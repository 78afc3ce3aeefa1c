"""Balances recomputed from receipts alone: what a stranger with a folder of receipts can add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from auction.cli.receipt_files import receipt_value, verify_receipt_file


class Balance(NamedTuple):
    """Minor units."""

    available: int
    held: int

    def __str__(self) -> str:
        return f"{self.available} available and {self.held} held"


def balances_of_receipts(folder: Path, genesis: Path) -> dict[str, Balance]:
    """Account id -> balance, from every receipt file in the folder, each verified first."""
    balances: dict[str, Balance] = {}
    for path in sorted(folder.glob("*.json")):
        receipt = verify_receipt_file(path, genesis)
        apply_effects(balances, receipt_value(receipt, path)["result"].get("effects", ()))
    return balances


def apply_effects(balances: dict[str, Balance], effects: Iterable[Mapping[str, Any]]) -> None:
    """Add the movements of money in a result's list of effects; the other effects say nothing about money."""
    for effect in effects:
        match effect:
            case {"kind": "minted", "account": account, "amount": amount}:
                _move(balances, account, available=amount)
            case {"kind": "held", "account": account, "amount": amount}:
                _move(balances, account, available=-amount, held=amount)
            case {"kind": "released", "account": account, "amount": amount}:
                _move(balances, account, available=amount, held=-amount)
            case {"kind": "paid", "from": payer, "to": payee, "amount": amount, "auction": _}:
                _move(balances, payer, held=-amount)
                _move(balances, payee, available=amount)
            case {"kind": "paid", "from": payer, "to": payee, "amount": amount}:
                _move(balances, payer, available=-amount)
                _move(balances, payee, available=amount)


def _move(balances: dict[str, Balance], account: str, *, available: int = 0, held: int = 0) -> None:
    before = balances.get(account, Balance(0, 0))
    balances[account] = Balance(before.available + available, before.held + held)
