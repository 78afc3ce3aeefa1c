"""Random scripts: the same seed gives the same lines, every line parses, every auction is waited for."""

from __future__ import annotations

import pytest

from auction.cli.random_script import generate
from auction.cli.receipt_ledger import Balance, apply_effects
from auction.cli.script import AssertReceiptsExplainBalances, AssertSameState, Let, Try, WaitClosed, parse_script


@pytest.mark.parametrize("seed", range(20))
def test_script_is_a_function_of_its_seed_and_parses(seed: int) -> None:
    lines = generate(seed, 120)
    assert lines == generate(seed, 120)
    statements = [line.statement for line in parse_script(lines)]
    assert sum(isinstance(statement, (Try, Let)) for statement in statements) == 120
    opened = sum(isinstance(statement, Let) for statement in statements)
    assert opened == sum(isinstance(statement, WaitClosed) for statement in statements) > 0
    assert isinstance(statements[-2], AssertSameState)
    assert isinstance(statements[-1], AssertReceiptsExplainBalances)


def test_seeds_differ() -> None:
    assert len({tuple(generate(seed, 50)) for seed in range(20)}) == 20


def test_scripts_use_every_node_and_zeromq() -> None:
    text = "\n".join(generate(1, 300))
    assert all(way in text for way in ("--node 0", "--node 1", "--node 2", "--node 3", "--zmq"))


def test_effects_move_money_and_conserve_it() -> None:
    balances: dict[str, Balance] = {}
    apply_effects(
        balances,
        [
            {"kind": "minted", "account": "a", "amount": 100},
            {"kind": "opened", "auction": "x", "revision": 1},
            {"kind": "held", "account": "a", "amount": 60, "auction": "x"},
            {"kind": "released", "account": "a", "amount": 20, "auction": "x"},
            {"kind": "paid", "from": "a", "to": "b", "amount": 40, "auction": "x"},
            {"kind": "paid", "from": "b", "to": "c", "amount": 15},
        ],
    )
    assert balances == {"a": Balance(60, 0), "b": Balance(25, 0), "c": Balance(15, 0)}
