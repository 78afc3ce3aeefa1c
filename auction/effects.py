"""The journal of one leaf: collects what an operation or a deadline does, then writes it as rows.

Every movement of money goes through here and keeps available plus held, except `mint`. Each effect is one
object of the result's "effects" list; the public ones also become `events` rows with the auction's next
revision, the ones about money `ledger` rows. Accounts are written once, by `commit`; nothing is written
before it, so a refusal changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from auction import tables
from auction.codes import AuctionStatus, code_name
from auction.state import Account, Auction, Event, LedgerEntry
from nodes.codes import Status
from nodes.machine import BlockContext, Outcome, Rows

canonical: Callable[[Any], bytes] = msgspec.json.Encoder(order="sorted").encode
"""Canonical JSON of values made here (small integers, valid text); byte-equal to nodes.canonical.encode."""

Effect = dict[str, Any]


class Journal:
    """Buffered changes of accounts, events and ledger entries for the leaf that `context` names."""

    __slots__ = ("_accounts", "_changed", "_entries", "_events", "context", "effects", "rows")

    def __init__(self, rows: Rows, context: BlockContext) -> None:
        self.rows = rows
        self.context = context
        self.effects: list[Effect] = []
        self._accounts: dict[bytes, Account] = {}
        self._changed: dict[bytes, None] = {}
        self._events: list[Event] = []
        self._entries: list[LedgerEntry] = []

    def account(self, account_id: bytes) -> Account | None:
        """The account as this leaf has made it so far."""
        account = self._accounts.get(account_id)
        if account is None:
            account = self.rows.get(tables.accounts, account_id)
            if account is not None:
                self._accounts[account_id] = account
        return account

    def existing(self, account_id: bytes) -> Account:
        """An account that another row refers to, and which therefore exists."""
        account = self.account(account_id)
        if account is None:
            raise AssertionError(f"a row refers to the account {account_id.hex()}, which does not exist")
        return account

    def change(self, account: Account) -> None:
        """Put an account's new row, at `commit`."""
        self._accounts[account.id] = account
        self._changed[account.id] = None

    def effect(self, kind: str, **fields: Any) -> None:
        """Add an effect that is neither public nor about money."""
        self.effects.append({"kind": kind, **fields})

    def event(self, auction: Auction, kind: str, **fields: Any) -> Auction:
        """Add a public effect; gives the auction with its revision counted up."""
        revision = auction.revision + 1
        effect: Effect = {"kind": kind, "auction": auction.id.hex(), "revision": revision, **fields}
        context = self.context
        place = (context.sequence, context.index, len(self.effects))
        self._events.append(Event(*place, auction.id, revision, context.time_us, canonical(effect).decode()))
        self.effects.append(effect)
        return auction._replace(revision=revision)

    def mint(self, account_id: bytes, amount: int, memo: str) -> None:
        self._move(account_id, "minted", amount, available=amount, memo=memo)
        self.effect("minted", account=account_id.hex(), amount=amount)

    def transfer(self, payer: bytes, payee: bytes, amount: int, memo: str) -> None:
        """Move available money from one account to another."""
        self._move(payer, "paid", amount, available=-amount, counterparty=payee, memo=memo)
        self._move(payee, "received", amount, available=amount, counterparty=payer, memo=memo)
        self.effects.append({"kind": "paid", "from": payer.hex(), "to": payee.hex(), "amount": amount})

    def change_hold(self, account_id: bytes, change: int, auction: bytes) -> None:
        """Hold more (positive) or release (negative) as one net step; nothing for 0."""
        if not change:
            return
        kind, amount = ("held", change) if change > 0 else ("released", -change)
        self._move(account_id, kind, amount, available=-change, held=change, auction=auction)
        self.effect(kind, account=account_id.hex(), amount=amount, auction=auction.hex())

    def pay_from_hold(self, payer: bytes, payee: bytes, amount: int, auction: bytes) -> None:
        self._move(payer, "paid", amount, held=-amount, auction=auction, counterparty=payee)
        self._move(payee, "received", amount, available=amount, auction=auction, counterparty=payer)
        self.effects.append(
            {"kind": "paid", "from": payer.hex(), "to": payee.hex(), "amount": amount, "auction": auction.hex()}
        )

    def commit(self) -> None:
        """Write the collected rows."""
        rows = self.rows
        for account_id in self._changed:
            rows.put(tables.accounts, self._accounts[account_id])
        for entry in self._entries:
            rows.put(tables.ledger, entry)
        for event in self._events:
            rows.put(tables.events, event)

    def accepted(self, **fields: Any) -> Outcome:
        """Write the rows and give the result."""
        self.commit()
        return Outcome(int(Status.OK), canonical({**fields, "effects": self.effects}))

    def _move(
        self,
        account_id: bytes,
        kind: str,
        amount: int,
        *,
        available: int = 0,
        held: int = 0,
        auction: bytes | None = None,
        counterparty: bytes | None = None,
        memo: str | None = None,
    ) -> None:
        before = self.existing(account_id)
        after = before._replace(
            available=before.available + available, held=before.held + held, entries=before.entries + 1
        )
        if after.available < 0 or after.held < 0:
            raise AssertionError(f"{kind} {amount} would make a balance of {account_id.hex()} negative")
        self.change(after)
        context = self.context
        self._entries.append(
            LedgerEntry(
                account=account_id,
                number=after.entries,
                kind=kind,
                amount=amount,
                available=after.available,
                held=after.held,
                auction=auction,
                counterparty=counterparty,
                memo=memo,
                time_us=context.time_us,
                sequence=context.sequence,
                position=context.index,
                effect=len(self.effects),
            )
        )


def refused(status: AuctionStatus | Status, **fields: Any) -> Outcome:
    """A refusal's outcome; its result names the code, so that it can be read alone."""
    return Outcome(int(status), canonical({"effects": [], "error": code_name(status), **fields}))
