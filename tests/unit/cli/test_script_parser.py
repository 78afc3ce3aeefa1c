"""The demo's script language: every statement, and what is refused before anything runs."""

from __future__ import annotations

import pytest

from auction.cli.failure import ExitCode, Failure
from auction.cli.script import (
    AssertBalance,
    AssertSameState,
    Command,
    Expect,
    Kill,
    Let,
    Restart,
    Try,
    WaitClosed,
    parse_script,
    parse_statement,
    substitute,
)


@pytest.mark.parametrize(
    ("text", "statement"),
    [
        ("mint --to alice 100 --as issuer", Command(("mint", "--to", "alice", "100", "--as", "issuer"))),
        ("auction open 'a blue vase' 10", Command(("auction", "open", "a blue vase", "10"))),
        ("bid a 1 # a comment", Command(("bid", "a", "1"))),
        ("expect bid_too_low bid a 1", Expect("bid_too_low", ("bid", "a", "1"))),
        ("try bid a 1", Try(("bid", "a", "1"))),
        ("let A = auction list | auctions.0.id", Let("A", ("auction", "list"), ("auctions", "0", "id"))),
        ("wait closed abc", WaitClosed("abc", 60_000_000)),
        ("wait closed abc within 5s", WaitClosed("abc", 5_000_000)),
        ("assert same-state", AssertSameState()),
        ("assert balance alice 10", AssertBalance("alice", "10", None)),
        ("assert balance alice 10 held 0", AssertBalance("alice", "10", "0")),
        ("\\kill 2", Kill(2)),
        ("  \\restart 2  ", Restart(2)),
        ("", None),
        ("   # only a comment", None),
    ],
)
def test_statement_is_parsed(text: str, statement: object) -> None:
    assert parse_statement(text) == statement


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("expect", "bad_statement"),
        ("expect bid_too_low", "bad_statement"),
        ("try", "bad_statement"),
        ("wait", "bad_statement"),
        ("wait open a", "bad_statement"),
        ("wait closed a within soon", "invalid_duration"),
        ("assert nothing", "bad_statement"),
        ("assert balance alice", "bad_statement"),
        ("let = a | b", "bad_statement"),
        ("let A = status", "bad_statement"),
        ("let A = | b", "bad_statement"),
        ("let 1A = status | b", "bad_name"),
        ("let A = status | a..b", "bad_path"),
        ("\\kill", "bad_statement"),
        ("\\kill one", "bad_statement"),
        ("\\explode 1", "bad_statement"),
        ("bid 'a", "bad_quoting"),
        ("bid " + "a" * 9_000, "line_too_long"),
    ],
)
def test_malformed_statement_is_a_usage_error(text: str, code: str) -> None:
    with pytest.raises(Failure) as caught:
        parse_statement(text)
    assert (caught.value.exit_code, caught.value.code) == (ExitCode.USAGE, code)


def test_script_error_names_its_line() -> None:
    with pytest.raises(Failure, match="line 3: "):
        parse_script(["# first", "status", "expect"])


def test_variable_must_be_set_by_an_earlier_line() -> None:
    with pytest.raises(Failure) as caught:
        parse_script(["bid $A 1", "let A = auction list | auctions.0.id"])
    assert caught.value.code == "unset_variable"
    lines = parse_script(["let A = auction list | auctions.0.id", "bid $A 1", "wait closed ${A}"])
    assert [line.number for line in lines] == [1, 2, 3]


def test_variable_may_be_given_from_outside() -> None:
    assert len(parse_script(["bid $A 1"], defined=["A"])) == 1


def test_substitution_replaces_whole_names_only() -> None:
    assert substitute("$A-${A}b-$AB", {"A": "1", "AB": "2"}) == "1-1b-2"


def test_substitution_does_not_expand_what_it_inserted() -> None:
    assert substitute("$A", {"A": "$B", "B": "no"}) == "$B"


def test_line_keeps_its_number_and_text() -> None:
    (line,) = parse_script(["", "  status  # now", ""])
    assert (line.number, line.text) == (2, "status  # now")
