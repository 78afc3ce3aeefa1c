"""Money operations: mint and transfer. Nobody but an issuer creates money, and never beyond the supply limit."""

from __future__ import annotations

from auction import tables
from auction.call import Call, read_supply
from auction.codes import AuctionStatus
from auction.effects import refused
from auction.operations import Mint, Transfer
from auction.roles import Role
from nodes.codes import Status
from nodes.machine import Outcome


def mint(call: Call, operation: Mint) -> Outcome:
    if not call.has(Role.ISSUER):
        return refused(Status.UNAUTHORIZED)
    to = bytes.fromhex(operation.to)
    if call.journal.account(to) is None:
        return refused(AuctionStatus.UNKNOWN_ACCOUNT)
    if operation.amount < 1:
        return refused(AuctionStatus.INVALID_AMOUNT)
    supply = read_supply(call.rows)
    if supply.minted + operation.amount > supply.supply_limit:
        return refused(AuctionStatus.SUPPLY_LIMIT)
    call.rows.put(tables.supply, supply._replace(minted=supply.minted + operation.amount))
    call.journal.mint(to, operation.amount, operation.memo)
    return call.journal.accepted(to=operation.to, amount=operation.amount)


def transfer(call: Call, operation: Transfer) -> Outcome:
    if not call.has(Role.BIDDER):
        return refused(Status.UNAUTHORIZED)
    if not 1 <= operation.amount <= read_supply(call.rows).supply_limit:
        return refused(AuctionStatus.INVALID_AMOUNT)
    to = bytes.fromhex(operation.to)
    if to == call.author.id:
        return refused(AuctionStatus.SELF_TRANSFER)
    if call.journal.account(to) is None:
        return refused(AuctionStatus.UNKNOWN_ACCOUNT)
    if operation.amount > call.author.available:
        return refused(AuctionStatus.INSUFFICIENT_FUNDS)
    call.journal.transfer(call.author.id, to, operation.amount, operation.memo)
    return call.journal.accepted(to=operation.to, amount=operation.amount)
