"""The application's part of genesis.json: currency, supply limit, first accounts, who may register.

Always holds after `parse`: every field in range, keys and handles unique, at least as many admins as an
admin operation needs. Money is never part of it: an issuer mints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

import fastpath
from auction import tables
from auction.accounts import new_account, write_account
from auction.call import HOUSE_ID, SUPPLY_ID
from auction.operations import INTEGER_MAX, NAME_CHARACTERS_MAX, Handle, PublicKey, RoleName
from auction.roles import Role, role_mask
from auction.state import House, Supply
from auction.tables import APPROVERS_MAX
from auction.text import is_acceptable
from nodes.machine import Rows

RULES_VERSION = 1
ACCOUNTS_MAX = 1_000
_CURRENCY = re.compile(r"[A-Z]{3,8}")


class GenesisError(ValueError):
    """The application genesis makes no sense; the text names the field."""


class GenesisAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account that exists from the beginning, without money."""

    public_key: PublicKey
    handle: Handle
    name: str
    roles: list[RoleName]


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The schema of `application_genesis`."""

    currency: str
    exponent: Annotated[int, Meta(ge=0, le=8)]
    supply_limit: Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
    accounts: Annotated[list[GenesisAccount], Meta(min_length=1, max_length=ACCOUNTS_MAX)]
    registration: Literal["invite", "open"] = "invite"
    admin_threshold: Annotated[int, Meta(ge=1, le=APPROVERS_MAX)] = 1
    transparency: Literal["members", "public"] = "members"
    rules: Annotated[int, Meta(ge=1)] = RULES_VERSION


@dataclass(frozen=True, slots=True)
class Founder:
    """One account of a genesis under construction; `public_key` is 32 bytes."""

    public_key: bytes
    handle: str
    name: str
    roles: tuple[str, ...]


def build(
    founders: Sequence[Founder],
    *,
    currency: str = "EUR",
    exponent: int = 2,
    supply_limit: int = 10**15,
    registration: str = "invite",
    admin_threshold: int = 1,
    transparency: str = "members",
) -> dict[str, Any]:
    """The `application_genesis` object of a new cluster, checked; GenesisError names what is wrong."""
    genesis: dict[str, Any] = {
        "currency": currency,
        "exponent": exponent,
        "supply_limit": supply_limit,
        "accounts": [
            {
                "public_key": founder.public_key.hex(),
                "handle": founder.handle,
                "name": founder.name,
                "roles": list(founder.roles),
            }
            for founder in founders
        ],
        "registration": registration,
        "admin_threshold": admin_threshold,
        "transparency": transparency,
        "rules": RULES_VERSION,
    }
    parse(genesis)
    return genesis


def parse(application_genesis: Mapping[str, Any]) -> Genesis:
    """The checked genesis; GenesisError names what is wrong."""
    try:
        genesis = msgspec.convert(dict(application_genesis), Genesis, strict=True)
    except msgspec.ValidationError as error:
        raise GenesisError(f"application genesis: {error}") from error
    if not _CURRENCY.fullmatch(genesis.currency):
        raise GenesisError("application genesis: currency must be 3 to 8 letters A to Z")
    if genesis.rules != RULES_VERSION:
        raise GenesisError(f"application genesis: rules version {genesis.rules} is not known, {RULES_VERSION} is")
    for account in genesis.accounts:
        _check_account(account)
    for field in ("public_key", "handle"):
        values = [getattr(account, field) for account in genesis.accounts]
        repeated = sorted(value for value in set(values) if values.count(value) > 1)
        if repeated:
            raise GenesisError(f"application genesis: {field} {repeated[0]} is given to two accounts")
    admins = sum("admin" in account.roles for account in genesis.accounts)
    if admins < genesis.admin_threshold:
        raise GenesisError(
            f"application genesis: admin_threshold is {genesis.admin_threshold}, but {admins} accounts are admin"
        )
    return genesis


def _check_account(account: GenesisAccount) -> None:
    if not fastpath.public_key_is_valid(bytes.fromhex(account.public_key)):
        raise GenesisError(f"application genesis: public_key of {account.handle} is not an Ed25519 public key")
    if not account.name or not is_acceptable(account.name, NAME_CHARACTERS_MAX):
        raise GenesisError(
            f"application genesis: {account.handle} has no name of 1 to {NAME_CHARACTERS_MAX} characters"
        )
    if len(set(account.roles)) != len(account.roles):
        raise GenesisError(f"application genesis: {account.handle} has a role twice")


def write(rows: Rows, genesis: Genesis) -> None:
    """The rows of sequence 0."""
    admins = 0
    for founder in genesis.accounts:
        account = new_account(bytes.fromhex(founder.public_key), founder.handle, founder.name, role_mask(founder.roles))
        admins += bool(account.roles & Role.ADMIN)
        write_account(rows, account)
    rows.put(tables.supply, Supply(SUPPLY_ID, 0, genesis.supply_limit))
    house = House(
        id=HOUSE_ID,
        currency=genesis.currency,
        exponent=genesis.exponent,
        registration=genesis.registration,
        transparency=genesis.transparency,
        admin_threshold=genesis.admin_threshold,
        admins=admins,
        rules_version=genesis.rules,
        rules_from=0,
    )
    rows.put(tables.house, house)
