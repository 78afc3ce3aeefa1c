"""The auction house as a replicated state machine: who may act, what each operation does, what never breaks.

Stateless: everything is in rows, every answer a function of its arguments. An operation is decoded once for
`admit` and `apply` (the last one decoded is kept, which changes nothing but time). Deliberately elsewhere:
the rules (`rules`), the handlers (`accounts`, `money`, `bidding`, `governance`), queries (`queries`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import MetaData

from auction import accounts, bidding, codes, genesis, governance, money, operations, queries, tables
from auction.call import Call, active_version, read_house
from auction.codes import AuctionStatus
from auction.effects import Journal, refused
from auction.operations import AnyOperation, Fence, MalformedOperation, Register
from auction.state import Account, AccountKey, Auction, AuctionState, House
from nodes.codes import Status
from nodes.machine import BlockContext, Change, Operation, Outcome, RowReader, Rows, Timer


def _fence(call: Call, operation: Fence) -> Outcome:
    return call.journal.accepted()


_HANDLERS: dict[type, Callable[[Call, Any], Outcome]] = {
    operations.Register: accounts.register,
    operations.RotateKey: accounts.rotate_key,
    operations.Grant: accounts.grant,
    operations.Revoke: accounts.revoke,
    operations.Freeze: accounts.freeze,
    operations.Unfreeze: accounts.unfreeze,
    operations.Mint: money.mint,
    operations.Transfer: money.transfer,
    operations.Open: bidding.open_auction,
    operations.Bid: bidding.bid,
    operations.Close: bidding.close,
    operations.Cancel: bidding.cancel,
    operations.Fence: _fence,
    operations.Activate: governance.activate,
}


class AuctionMachine:
    """`nodes.machine.StateMachine` of the auction house."""

    tables: MetaData = tables.metadata
    version: int = genesis.RULES_VERSION

    def __init__(self) -> None:
        self._last: tuple[bytes, AnyOperation] | None = None

    def code_name(self, status: int) -> str:
        """The stable name of a status number, the library's included."""
        return codes.code_name(status)

    def genesis(self, rows: Rows, application_genesis: Mapping[str, Any]) -> None:
        """Write the first accounts and the house's settings; GenesisError (a ValueError) if they make no sense."""
        genesis.write(rows, genesis.parse(application_genesis))

    def admit(self, public_key: bytes, payload: bytes, rows: Rows) -> Outcome | None:
        """Refuses what is malformed, a key that is nobody's (unless it registers itself) and a frozen account."""
        try:
            operation = self._decode(payload)
        except MalformedOperation:
            return refused(Status.MALFORMED_OPERATION)
        author = _author(public_key, operation, rows)
        return author if isinstance(author, Outcome) else None

    def admit_read(self, public_key: bytes, query: bytes, rows: Rows) -> Outcome | None:
        """Ordered reads are for whoever is registered; the frozen may ask, too."""
        key: AccountKey | None = rows.get(tables.account_keys, public_key)
        return None if key is not None and key.active else refused(Status.UNAUTHORIZED)

    def apply(self, operation: Operation, context: BlockContext, rows: Rows) -> Outcome:
        """Execute an operation; a refusal has written nothing."""
        house = self._house(context, rows)
        try:
            request = self._decode(operation.payload)
        except MalformedOperation:
            return refused(Status.MALFORMED_OPERATION)
        author = _author(operation.public_key, request, rows)
        if isinstance(author, Outcome):
            return author
        journal = Journal(rows, context)
        if author is None:
            if not isinstance(request, Register):
                raise AssertionError("only a registration has no author")
            return accounts.register_self(rows, journal, operation.public_key, request)
        call = Call(rows, context, house, journal, author, operation.digest)
        return _HANDLERS[type(request)](call, request)

    def fire(self, timer: Timer, context: BlockContext, rows: Rows) -> Outcome:
        """Close the auction whose deadline has come."""
        self._house(context, rows)
        return bidding.deadline(Journal(rows, context), timer)

    def check_block(self, changes: Sequence[Change]) -> None:
        """Money is conserved, nothing is negative or beyond the limit, and every hold backs a leading bid."""
        owned = minted = held = backed = 0
        for change in changes:
            table, old, new = change
            if table is tables.accounts:
                if new is None or new.available < 0 or new.held < 0 or new.open_auctions < 0:
                    raise AssertionError(f"an account was removed or has a negative balance: {new or old}")
                held += new.held - (old.held if old else 0)
                owned += new.available - (old.available if old else 0)
            elif table is tables.auctions:
                backed += _backed(new) - _backed(old)
            elif table is tables.supply:
                if new is None or not 0 <= new.minted <= new.supply_limit:
                    raise AssertionError(f"minted is beyond the supply limit: {new}")
                minted += new.minted - (old.minted if old else 0)
        if owned + held != minted:
            raise AssertionError(f"accounts changed by {owned + held}, but {minted} was minted")
        if held != backed:
            raise AssertionError(f"holds changed by {held}, but leading bids by {backed}")

    def query(self, query: bytes, caller: bytes | None, reader: RowReader) -> bytes:
        """Answer a query with canonical JSON, errors included."""
        return queries.answer(query, caller, reader)

    def _decode(self, payload: bytes) -> AnyOperation:
        last = self._last
        if last is not None and last[0] == payload:
            return last[1]
        operation = operations.decode(payload)
        self._last = (payload, operation)
        return operation

    def _house(self, context: BlockContext, rows: Rows) -> House:
        house = read_house(rows)
        version = active_version(house, context.sequence)
        if version != self.version:
            raise governance.UnsupportedRules(
                f"rules version {version} is in force from sequence {house.rules_from}, this program knows "
                f"{self.version}: install the release that knows it on this node"
            )
        return house


def _author(public_key: bytes, operation: AnyOperation, rows: Rows) -> Account | Outcome | None:
    """The acting account, a refusal, or None for somebody who registers."""
    key: AccountKey | None = rows.get(tables.account_keys, public_key)
    if key is None:
        if isinstance(operation, Register) and read_house(rows).registration == "open":
            return None
        return refused(Status.UNAUTHORIZED)
    if not key.active:
        return refused(Status.UNAUTHORIZED)
    account: Account = rows.get(tables.accounts, key.account)
    if account.frozen:
        return refused(AuctionStatus.ACCOUNT_FROZEN)
    return account


def _backed(auction: Auction | None) -> int:
    """Money that must be held for an auction."""
    return auction.leader_maximum if auction is not None and auction.state == AuctionState.OPEN else 0
