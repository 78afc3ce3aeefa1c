"""Account operations: register, rotate the key, grant, revoke, freeze, unfreeze.

Always holds: one active key an account, one account a key and a handle, for ever; at least as many active
admins as an admin operation needs. A handler checks everything before it writes anything.
"""

from __future__ import annotations

from msgspec import UNSET

import fastpath
from auction import tables
from auction.approvals import approve
from auction.call import Call
from auction.codes import AuctionStatus
from auction.effects import Journal, refused
from auction.operations import Freeze, Grant, Register, Revoke, RotateKey, Unfreeze, rotation_bytes
from auction.roles import BY_NAME, Role, role_mask, role_names
from auction.state import Account, AccountHandle, AccountKey
from auction.tables import ID_BYTES
from nodes.codes import Status
from nodes.machine import Outcome, Rows


def account_id(public_key: bytes) -> bytes:
    """The id of the account whose first public key this is (interface.md 1)."""
    return fastpath.tagged_hash(b"ACCOUNT", public_key)[:ID_BYTES]


def new_account(public_key: bytes, handle: str, name: str, roles: int) -> Account:
    return Account(account_id(public_key), public_key, handle, name, roles, 0, 0, 0, 0, 0)


def write_account(rows: Rows, account: Account) -> None:
    """The rows of an account that did not exist before."""
    rows.put(tables.accounts, account)
    rows.put(tables.account_keys, AccountKey(account.public_key, account.id, 1))
    rows.put(tables.account_handles, AccountHandle(account.handle, account.id))


def register_self(rows: Rows, journal: Journal, public_key: bytes, operation: Register) -> Outcome:
    """account.register by a key that nobody has; the house is open to all."""
    if operation.public_key is not UNSET or operation.roles is not UNSET:
        return refused(Status.UNAUTHORIZED)
    account = new_account(public_key, operation.handle, operation.name, int(Role.BIDDER))
    if refusal := _registration_refusal(rows, account):
        return refusal
    return _registered(rows, journal, account)


def register(call: Call, operation: Register) -> Outcome:
    """account.register by somebody registered: an admin, for another key."""
    if operation.public_key is UNSET:
        may_register = call.has(Role.ADMIN) or call.house.registration == "open"
        return refused(AuctionStatus.ALREADY_REGISTERED if may_register else Status.UNAUTHORIZED)
    if not call.has(Role.ADMIN):
        return refused(Status.UNAUTHORIZED)
    roles = int(Role.BIDDER) if operation.roles is UNSET else role_mask(operation.roles)
    account = new_account(bytes.fromhex(operation.public_key), operation.handle, operation.name, roles)
    if refusal := _registration_refusal(call.rows, account):
        return refusal
    approved = approve(call, operation)
    if not approved.complete:
        return call.journal.accepted(approvals=approved.approvals, needed=approved.needed)
    if roles & Role.ADMIN:
        _count_admins(call, 1)
    return _registered(call.rows, call.journal, account, approvals=approved.approvals, needed=approved.needed)


def _registration_refusal(rows: Rows, account: Account) -> Outcome | None:
    known_key = rows.get(tables.account_keys, account.public_key)
    if known_key is not None or rows.get(tables.accounts, account.id) is not None:
        return refused(AuctionStatus.ALREADY_REGISTERED)
    if rows.get(tables.account_handles, account.handle) is not None:
        return refused(AuctionStatus.HANDLE_TAKEN)
    return None


def _registered(rows: Rows, journal: Journal, account: Account, **fields: int) -> Outcome:
    write_account(rows, account)
    identity = account.id.hex()
    journal.effect("registered", account=identity, handle=account.handle, roles=role_names(account.roles))
    return journal.accepted(account=identity, handle=account.handle, **fields)


def rotate_key(call: Call, operation: RotateKey) -> Outcome:
    """account.rotate_key: the old key is retired at once, the id stays."""
    author = call.author
    public_key = bytes.fromhex(operation.public_key)
    if call.rows.get(tables.account_keys, public_key) is not None:
        return refused(AuctionStatus.ALREADY_REGISTERED)
    if not fastpath.verify(public_key, rotation_bytes(author.id), bytes.fromhex(operation.proof)):
        return refused(AuctionStatus.BAD_PROOF)
    call.rows.put(tables.account_keys, AccountKey(author.public_key, author.id, 0))
    call.rows.put(tables.account_keys, AccountKey(public_key, author.id, 1))
    call.journal.change(author._replace(public_key=public_key))
    call.journal.effect("key_rotated", account=author.id.hex(), public_key=operation.public_key)
    return call.journal.accepted(account=author.id.hex())


def grant(call: Call, operation: Grant) -> Outcome:
    return _change(call, operation, "granted")


def revoke(call: Call, operation: Revoke) -> Outcome:
    return _change(call, operation, "revoked")


def freeze(call: Call, operation: Freeze) -> Outcome:
    return _change(call, operation, "frozen")


def unfreeze(call: Call, operation: Unfreeze) -> Outcome:
    return _change(call, operation, "unfrozen")


def _change(call: Call, operation: Grant | Revoke | Freeze | Unfreeze, kind: str) -> Outcome:
    """An admin's change of an account's roles or freedom; a change to what already is has no effect."""
    if not call.has(Role.ADMIN):
        return refused(Status.UNAUTHORIZED)
    before = call.journal.account(bytes.fromhex(operation.account))
    if before is None:
        return refused(AuctionStatus.UNKNOWN_ACCOUNT)
    after = _changed(before, operation)
    admins = _is_active_admin(after) - _is_active_admin(before)
    if admins < 0 and call.house.admins + admins < call.house.admin_threshold:
        return refused(AuctionStatus.LAST_ADMIN)
    approved = approve(call, operation)
    if approved.complete and after != before:
        call.journal.change(after)
        _count_admins(call, admins)
        fields = {"role": operation.role} if isinstance(operation, Grant | Revoke) else {}
        call.journal.effect(kind, account=operation.account, **fields)
    return call.journal.accepted(account=operation.account, approvals=approved.approvals, needed=approved.needed)


def _changed(account: Account, operation: Grant | Revoke | Freeze | Unfreeze) -> Account:
    match operation:
        case Grant():
            return account._replace(roles=account.roles | int(BY_NAME[operation.role]))
        case Revoke():
            return account._replace(roles=account.roles & ~int(BY_NAME[operation.role]))
        case Freeze():
            return account._replace(frozen=1)
        case Unfreeze():
            return account._replace(frozen=0)


def _is_active_admin(account: Account) -> int:
    return 1 if account.roles & Role.ADMIN and not account.frozen else 0


def _count_admins(call: Call, change: int) -> None:
    if change:
        call.rows.put(tables.house, call.house._replace(admins=call.house.admins + change))
