"""Registration, roles, and k of m approvals."""

from __future__ import annotations

import pytest
from auction_harness import House, Person

from auction import operations, tables
from auction.approvals import LIFETIME_US, SLOTS
from nodes import canonical

ADMINS = [Person(f"admin{number}", "admin") for number in range(4)]
ANA = Person("ana", "bidder")
STRANGER = Person("stranger")


def house(threshold: int = 2, **settings: str) -> House:
    return House(*ADMINS, ANA, admin_threshold=threshold, **settings)


def pending(at: House) -> int:
    return len(at.rows.rows["approvals"])


def test_admin_operation_takes_effect_when_k_distinct_admins_submitted_the_same_one() -> None:
    at = house(3)
    operation = operations.freeze(ANA.id)
    for number, admin in enumerate(ADMINS[:2], start=1):
        result = at.ok(admin, operation)
        assert (result["approvals"], result["needed"]) == (number, 3)
        assert [effect["kind"] for effect in result["effects"]] == ["approved"]
        assert at.account(ANA).frozen == 0
    result = at.ok(ADMINS[2], operation)
    assert (result["approvals"], [effect["kind"] for effect in result["effects"]]) == (3, ["frozen"])
    assert at.account(ANA).frozen == 1
    assert pending(at) == 0


def test_one_admin_counts_once() -> None:
    at = house(2)
    for _ in range(3):
        assert at.ok(ADMINS[0], operations.freeze(ANA.id))["approvals"] == 1
    assert at.account(ANA).frozen == 0


def test_the_same_operation_is_the_same_in_any_spelling_and_another_is_another() -> None:
    at = house(2)
    at.ok(ADMINS[0], operations.grant(ANA.id, "issuer"))
    assert at.ok(ADMINS[1], operations.grant(ANA.id, "auditor"))["approvals"] == 1
    spelled = b'{ "type": "account.grant", "role": "issuer", "account": "%s" }' % ANA.id.encode()
    assert at.ok(ADMINS[1], spelled)["approvals"] == 2
    assert at.query(query="account", account="ana")["roles"] == ["issuer", "bidder"]


def test_operation_can_be_approved_again_after_it_took_effect() -> None:
    at = house(2)
    for operation in (operations.freeze(ANA.id), operations.unfreeze(ANA.id), operations.freeze(ANA.id)):
        at.ok(ADMINS[0], operation)
        at.ok(ADMINS[1], operation)
    assert at.account(ANA).frozen == 1


def test_approval_of_somebody_who_is_no_admin_any_more_does_not_count() -> None:
    at = house(2)
    at.ok(ADMINS[0], operations.freeze(ANA.id))
    for admin in ADMINS[1:3]:
        at.ok(admin, operations.revoke(ADMINS[0].id, "admin"))
    assert at.ok(ADMINS[1], operations.freeze(ANA.id))["approvals"] == 1
    assert at.account(ANA).frozen == 0
    assert at.ok(ADMINS[2], operations.freeze(ANA.id))["approvals"] == 2
    assert at.account(ANA).frozen == 1


def test_pending_approval_lapses() -> None:
    at = house(2)
    start_us = at.time_us + 1
    at.ok(ADMINS[0], operations.freeze(ANA.id), at_us=start_us)
    assert at.ok(ADMINS[1], operations.freeze(ANA.id), at_us=start_us + LIFETIME_US)["approvals"] == 1
    assert pending(at) == 1


def test_pending_approvals_are_bounded_for_each_admin() -> None:
    at = house(2)
    at.ok(ADMINS[1], operations.freeze(ANA.id))
    first = operations.register("guest0", "Guest", public_key=Person("guest0").key.hex())
    at.ok(ADMINS[0], first)
    for number in range(1, 3 * SLOTS):
        payload = operations.register(f"guest{number}", "Guest", public_key=Person(f"guest{number}").key.hex())
        at.ok(ADMINS[0], payload)
        assert pending(at) == 1 + min(number + 1, SLOTS)
    assert at.ok(ADMINS[2], first)["approvals"] == 1
    assert at.ok(ADMINS[2], operations.freeze(ANA.id))["approvals"] == 2


def test_as_many_admins_remain_as_an_operation_needs() -> None:
    at = house(3)
    for admin in ADMINS[:3]:
        at.ok(admin, operations.freeze(ADMINS[3].id))
    for operation in (operations.freeze(ADMINS[0].id), operations.revoke(ADMINS[1].id, "admin")):
        assert at.refused(ADMINS[0], operation) == "last_admin"
    for admin in ADMINS[:3]:
        at.ok(admin, operations.revoke(ADMINS[3].id, "admin"))
    assert at.rows.get(tables.house, 0).admins == 3


def test_cancelling_by_admins_needs_approvals_and_by_the_owner_does_not() -> None:
    at = house(2)
    lots = [
        at.ok(ANA, operations.open_auction("Lot", starting_price=1, closes_at_us=at.time_us + 10**9))["auction"]
        for _ in range(2)
    ]
    assert at.ok(ADMINS[0], operations.cancel(lots[0], "no"))["approvals"] == 1
    assert at.auction(lots[0]).state == 0
    at.ok(ADMINS[1], operations.cancel(lots[0], "no"))
    assert at.auction(lots[0]).state == 2
    at.ok(ANA, operations.cancel(lots[1], "mine"))
    assert at.auction(lots[1]).state == 2


def test_activation_and_registration_need_approvals() -> None:
    at = house(2)
    activation = operations.activate(2, 1_000)
    registration = operations.register("new", "New", public_key=STRANGER.key.hex(), roles=["admin"])
    for operation in (activation, registration):
        at.ok(ADMINS[0], operation)
    assert at.account(STRANGER) is None
    assert at.rows.rows["activations"] == {}
    result = at.ok(ADMINS[1], registration)
    assert result["account"] == STRANGER.id
    at.ok(ADMINS[1], activation)
    assert at.rows.get(tables.activations, 2).at_sequence == 1_000
    assert at.rows.get(tables.house, 0).admins == 5


def test_role_that_is_there_already_is_granted_without_effect() -> None:
    at = house(1)
    assert at.ok(ADMINS[0], operations.grant(ANA.id, "bidder"))["effects"] == []
    assert at.ok(ADMINS[0], operations.unfreeze(ANA.id))["effects"] == []
    assert at.ok(ADMINS[0], operations.revoke(ANA.id, "issuer"))["effects"] == []


def test_grants_and_revocations_count_the_admins() -> None:
    at = house(1)
    at.ok(ADMINS[0], operations.grant(ANA.id, "admin"))
    assert at.rows.get(tables.house, 0).admins == 5
    at.ok(ANA, operations.freeze(ADMINS[0].id))
    at.ok(ANA, operations.revoke(ADMINS[0].id, "admin"))
    at.ok(ANA, operations.unfreeze(ADMINS[0].id))
    assert at.rows.get(tables.house, 0).admins == 4


def test_anyone_registers_in_an_open_house_and_is_a_bidder() -> None:
    at = house(1, registration="open")
    result = at.ok(STRANGER, operations.register("stranger", "A stranger"))
    assert result["account"] == STRANGER.id
    account = at.query(query="account", account="stranger")
    assert (account["roles"], account["public_key"]) == (["bidder"], STRANGER.key.hex())
    assert at.refused(STRANGER, operations.register("stranger2", "Again")) == "already_registered"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (operations.register("ana", "Not Ana"), "handle_taken"),
        (operations.register("me1", "Me", roles=["admin"]), "unauthorized"),
        (operations.register("me1", "Me", public_key=STRANGER.key.hex()), "unauthorized"),
        (operations.fence(), "unauthorized"),
        (b"{}", "malformed_operation"),
    ],
)
def test_stranger_in_an_open_house_may_only_register_himself(payload: bytes, code: str) -> None:
    assert house(1, registration="open").refused(STRANGER, payload) == code


def test_admit_refuses_before_a_session_is_touched_and_lets_everything_else_pass() -> None:
    at = house(1)
    machine, rows = at.machine, at.rows
    assert machine.admit(ANA.key, operations.bid("00" * 16, 1), rows) is None
    for key, payload, code in [
        (STRANGER.key, operations.fence(), "unauthorized"),
        (STRANGER.key, operations.register("me1", "Me"), "unauthorized"),
        (ANA.key, b"{", "malformed_operation"),
    ]:
        outcome = machine.admit(key, payload, rows)
        assert outcome is not None
        assert machine.code_name(outcome.status) == code
        assert canonical.decode(outcome.result, 1_000)["error"] == code


def test_pending_approvals_are_listed_for_admins() -> None:
    at = house(2)
    for person in (ANA, ADMINS[3]):
        at.ok(ADMINS[0], operations.freeze(person.id))
    listed = at.query(ADMINS[1], query="approvals")
    assert (len(listed["approvals"]), listed["needed"], listed["next"]) == (2, 2, None)
    first = at.query(ADMINS[1], query="approvals", limit=1)
    second = at.query(ADMINS[1], query="approvals", limit=1, after=first["next"])
    assert first["approvals"] + second["approvals"] == listed["approvals"]
    assert listed["approvals"][0]["approvers"] == [ADMINS[0].id]
    assert {entry["operation"]["account"] for entry in listed["approvals"]} == {ANA.id, ADMINS[3].id}
    assert at.query(ANA, query="approvals") == {"error": "unauthorized"}
    assert at.query(query="approvals") == {"error": "unauthorized"}
