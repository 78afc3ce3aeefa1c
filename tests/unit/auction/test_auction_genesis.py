"""The application genesis: what is accepted, what is refused and why."""

from __future__ import annotations

from typing import Any

import pytest
from auction_harness import House, Person

import fastpath
from auction.genesis import Founder, GenesisError, build, parse
from nodes import canonical

ROOT = Person("root", "admin")
ANA = Person("ana", "bidder")


def genesis(**changes: Any) -> dict[str, Any]:
    return {**build([ROOT.founder(), ANA.founder()]), **changes}


def test_built_genesis_is_canonical_and_parses() -> None:
    built = build([ROOT.founder()], currency="BRL", supply_limit=10, transparency="public", registration="open")
    assert canonical.decode(canonical.encode(built), 65_536) == built
    parsed = parse(built)
    assert (parsed.currency, parsed.supply_limit, parsed.registration) == ("BRL", 10, "open")


def test_optional_fields_have_the_documented_defaults() -> None:
    fields = genesis()
    for name in ("registration", "admin_threshold", "transparency", "rules"):
        del fields[name]
    parsed = parse(fields)
    assert (parsed.registration, parsed.admin_threshold, parsed.transparency) == ("invite", 1, "members")


def entry(**changes: Any) -> dict[str, Any]:
    return {"public_key": ANA.key.hex(), "handle": "eve", "name": "Eve", "roles": [], **changes}


def root(**changes: Any) -> dict[str, Any]:
    return {**genesis()["accounts"][0], **changes}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"money": 5}, "money"),
    "no limit": ({"supply_limit": None}, "supply_limit"),
    "limit of nothing": ({"supply_limit": 0}, "supply_limit"),
    "limit beyond 2^53-1": ({"supply_limit": 2**53}, "supply_limit"),
    "limit is true": ({"supply_limit": True}, "supply_limit"),
    "currency": ({"currency": "eur"}, "currency"),
    "exponent": ({"exponent": 9}, "exponent"),
    "registration": ({"registration": "closed"}, "registration"),
    "transparency": ({"transparency": "secret"}, "transparency"),
    "rules": ({"rules": 2}, "rules version 2"),
    "threshold of none": ({"admin_threshold": 0}, "admin_threshold"),
    "threshold over the admins": ({"admin_threshold": 2}, "1 accounts are admin"),
    "nobody": ({"accounts": []}, "accounts"),
    "no admin": ({"accounts": [entry()]}, "admin"),
    "with money": ({"accounts": [root(balance=5)]}, "balance"),
    "key": ({"accounts": [root(public_key="00" * 32)]}, "public_key of root"),
    "short key": ({"accounts": [root(public_key="00")]}, "public_key"),
    "handle": ({"accounts": [root(handle="Root")]}, "handle"),
    "name": ({"accounts": [root(name="")]}, "name"),
    "name with a line": ({"accounts": [root(name="a\nb")]}, "name"),
    "role": ({"accounts": [root(roles=["king"])]}, "roles"),
    "role twice": ({"accounts": [root(roles=["admin", "admin"])]}, "twice"),
    "handle twice": ({"accounts": [root(), entry(handle="root")]}, "handle root is given to two"),
    "key twice": ({"accounts": [root(), entry(public_key=ROOT.key.hex())]}, "public_key"),
}


@pytest.mark.parametrize(("changes", "reason"), WRONG.values(), ids=WRONG.keys())
def test_genesis_that_makes_no_sense_is_refused_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(GenesisError, match=reason):
        parse(genesis(**changes))


def test_builder_checks_what_it_builds() -> None:
    with pytest.raises(GenesisError, match="admin"):
        build([ANA.founder()])
    with pytest.raises(GenesisError, match="handle"):
        build([Founder(ROOT.key, "X", "Root", ("admin",))])


def test_founders_have_accounts_and_no_money() -> None:
    house = House(ROOT, ANA)
    account = house.account(ANA)
    assert account.id == fastpath.sha256(b"ACCOUNT\0" + ANA.key)[:16]
    assert (account.available, account.held, account.handle, account.name) == (0, 0, "ana", "Ana")
    assert house.query(query="supply")["minted"] == 0
