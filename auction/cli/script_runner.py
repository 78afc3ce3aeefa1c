"""Runs statements of the script language against a running cluster; the demo's prompt uses it too.

Always: a statement either holds or raises `Failure`; every receipt that a command brought is read back
from its file and verified from the genesis alone, as a stranger would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, assert_never

from rich.markup import escape

from auction.cli.cluster_process import ClusterProcess, wait_until
from auction.cli.failure import ExitCode, Failure, usage
from auction.cli.receipt_files import verify_receipt_file
from auction.cli.receipt_ledger import Balance, balances_of_receipts
from auction.cli.script import (
    AssertBalance,
    AssertReceiptsExplainBalances,
    AssertSameState,
    Command,
    Expect,
    Kill,
    Let,
    Line,
    Restart,
    Statement,
    Try,
    WaitClosed,
    substitute,
)
from auction.cli.session import Session
from auction.cli.status import NodeView, node_view

Execute = Callable[[Sequence[str], Session], Any]
SAME_STATE_TIMEOUT_S = 30.0


class ScriptRunner:
    """`execute` runs one arremate command in this process and returns its JSON value."""

    def __init__(self, session: Session, cluster: ClusterProcess, execute: Execute) -> None:
        self.session = session
        self.cluster = cluster
        self.variables: dict[str, str] = {}
        self.receipts = 0
        self._execute = execute

    def run_lines(self, lines: Sequence[Line]) -> None:
        """Run a whole script; the first failure names its line."""
        for line in lines:
            self.session.output.console.print(f"[bold cyan]{line.number:>4}[/]  {escape(line.text)}")
            try:
                self.run(line.statement)
            except Failure as failure:
                failure.detail = f"line {line.number}: {failure.detail}"
                raise

    def run(self, statement: Statement) -> None:
        match statement:
            case Command(words):
                self._note(self._command(words))
            case Let(name, words, path):
                self.variables[name] = _select(self._command(words), path)
                self._note(f"{name} = {self.variables[name]}")
            case Expect(code, words):
                self._note(self._expect(code, words))
            case Try(words):
                self._note(self._try(words))
            case WaitClosed(auction, timeout_us):
                self._note(self._wait_closed(self._substituted(auction), timeout_us))
            case AssertSameState():
                self._note(self._assert_same_state())
            case AssertBalance(name, available, held):
                self._note(self._assert_balance(name, available, held))
            case AssertReceiptsExplainBalances():
                self._note(self._assert_receipts_explain_balances())
            case Kill(replica):
                self.cluster.kill(replica)
                self._note(f"node {replica} is dead")
            case Restart(replica):
                self.session.forget_connections()
                self.cluster.restart(replica, self._note)
            case _:
                assert_never(statement)

    def _note(self, what: object) -> None:
        """One line about a statement; for a command that only looked, its answer (unless it was shown already)."""
        output = self.session.output
        if isinstance(what, str):
            output.console.print(f"      {escape(what)}", style="green")
        elif not output.silent:
            return
        elif isinstance(what, dict) and "receipt" in what:
            place = f"block {what['sequence']} leaf {what['index']}"
            output.console.print(f"      {what['code']}, {place}, receipt verified", style="green")
        elif output.last is not None:
            output.console.print(output.last.rendered)

    def _substituted(self, word: str) -> str:
        return substitute(word, self.variables)

    def _command(self, words: Sequence[str]) -> Any:
        value = self._execute([self._substituted(word) for word in words], self.session)
        self._verify(value)
        return value

    def _verify(self, value: Any) -> bool:
        """Verify the receipt that a command's value names, if it names one."""
        path = value.get("receipt") if isinstance(value, dict) else None
        if path is None:
            return False
        verify_receipt_file(Path(path), self.cluster.testnet.genesis)
        self.receipts += 1
        return True

    def _expect(self, code: str, words: Sequence[str]) -> str:
        try:
            self._command(words)
        except Failure as failure:
            if failure.code != code:
                raise _broken(f"expected {code}, but was refused with {failure.code} ({failure.detail})") from failure
            if not self._verify(failure.value):
                raise _broken(f"was refused with {code}, but without a receipt") from failure
            return f"refused with {code}, receipt verified"
        raise _broken(f"expected {code}, but it was accepted")

    def _try(self, words: Sequence[str]) -> Any:
        try:
            return self._command(words)
        except Failure as failure:
            if failure.exit_code is not ExitCode.REFUSED or not self._verify(failure.value):
                raise
            return f"refused with {failure.code}, receipt verified"

    def _wait_closed(self, auction: str, timeout_us: int) -> str:
        def closed() -> bool:
            return bool(self._command(["auction", "show", auction])["state"] != "open")

        wait_until(closed, timeout_us / 1_000_000, f"the closing of {auction}")
        winner = self._command(["auction", "winner", auction])
        self._command(["receipt", "fetch", str(winner["digest"])])
        return f"closed: {winner['outcome']}, receipt of the closing verified"

    def _assert_same_state(self) -> str:
        running = [node.replica for node in self.cluster.nodes if node.running]

        def shown() -> dict[int, NodeView]:
            return {replica: node_view(status) for replica, status in self.cluster.statuses().items()}

        found: list[dict[int, NodeView]] = []

        def same() -> bool:
            states = shown()
            found[:] = [states]
            return len(states) == len(running) and len(set(states.values())) == 1

        wait_until(same, SAME_STATE_TIMEOUT_S, "agreement of all nodes on one state")
        sequence, block_hash, state_sequence, state_root = next(iter(found[-1].values()))
        return (
            f"{len(running)} nodes show block {sequence} {block_hash[:16]} and state {state_sequence} {state_root[:16]}"
        )

    def _assert_balance(self, name: str, available: str, held: str | None) -> str:
        name = self._substituted(name)
        value = self._command(["account", "show", "--as", name])
        for what, expected in (("available", available), ("held", held)):
            if expected is None:
                continue
            expected = self._substituted(expected)
            if not expected.isdecimal():
                raise usage("invalid_amount", f"'{expected}' is not an amount in minor units")
            if value[what] != int(expected):
                raise _broken(f"{name} has {value[what]} {what}, not {expected}")
        return f"{name} has {value['available']} available, {value['held']} held"

    def _assert_receipts_explain_balances(self) -> str:
        """Everybody's balance follows from the receipts alone: no movement of money without a proof of it."""
        endpoints = self.session.endpoints(None)
        if endpoints.receipts is None:
            raise usage("no_receipts", f"{endpoints.path} names no folder for receipts")
        explained = balances_of_receipts(endpoints.receipts, self.cluster.testnet.genesis)
        for name in endpoints.keys:
            value = self._command(["account", "show", "--as", name])
            shown = Balance(value["available"], value["held"])
            expected = explained.get(value["id"], Balance(0, 0))
            if shown != expected:
                raise _broken(f"{name} has {shown}, but the receipts add up to {expected}")
        return f"the balances of {len(endpoints.keys)} accounts follow from the receipts"


def _broken(detail: str) -> Failure:
    return Failure(ExitCode.VERIFICATION_FAILED, "assertion_failed", detail)


def _select(value: Any, path: Sequence[str]) -> str:
    """The part of a JSON value that a path names, as text."""
    for part in path:
        try:
            value = value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            known = (
                ", ".join(value)
                if isinstance(value, dict)
                else f"{len(value)} items"
                if isinstance(value, list)
                else value
            )
            raise usage("bad_path", f"no '{part}' in the answer", f"there is: {known}") from error
    return value if isinstance(value, str) else str(value)
