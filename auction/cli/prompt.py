"""The demo's prompt: statements of the script language, arremate commands, and a few words about the nodes."""

from __future__ import annotations

import signal
import sys

from auction.cli import script
from auction.cli.failure import Failure
from auction.cli.output import OutputFormat, listing
from auction.cli.script_runner import ScriptRunner
from auction.cli.session import Session

HELP = r"""\ls          the nodes, whether they run and are ready
\kill N      kill -9 node N
\restart N   start node N again
\status      view, block and state of every node
\help        this
\quit        stop, and remove everything
Anything else is an arremate command without the word arremate, for example:
  auction list
  bid AUCTION 12000 --as alice --node 1
or a line of the script language: let, expect, try, wait closed, assert same-state, assert balance."""


class Prompt:
    """Reads lines until \\quit or the end of a terminal's input; a failing line ends nothing."""

    def __init__(self, session: Session, runner: ScriptRunner) -> None:
        self._session = session
        self._runner = runner

    def run(self) -> None:
        console = self._session.output.console
        terminal = sys.stdin is not None and sys.stdin.isatty()
        console.print(r"type \help, or \quit to remove everything" if terminal else "Ctrl-C removes everything")
        if terminal:
            import readline  # noqa: F401  # gives input() line editing and history
        while True:
            try:
                line = input("arremate> " if terminal else "")
            except EOFError:
                if not terminal:
                    _wait_for_signal()
                return
            if line.strip() in (r"\quit", r"\q"):
                return
            try:
                self._run_line(line)
            except Failure as failure:
                self._session.output.fail(failure, OutputFormat.TABLE)

    def _run_line(self, line: str) -> None:
        console = self._session.output.console
        match line.split():
            case [r"\ls"]:
                rows = [
                    (state.replica, state.running, state.ready, node.pid, node.https, state.detail)
                    for state, node in zip(self._runner.cluster.states(), self._runner.cluster.nodes, strict=True)
                ]
                console.print(listing("nodes", ("node", "runs", "ready", "pid", "endpoint", "detail"), rows))
            case [r"\status"]:
                self._runner.run(script.Command(("status",)))
            case [r"\help" | "help" | "?"]:
                console.print(HELP, markup=False)
            case _:
                statement = script.parse_statement(line)
                if statement is not None:
                    self._runner.run(statement)


def _wait_for_signal() -> None:
    """Input has ended, but it was no terminal: run until somebody sends a signal (its handler raises)."""
    while True:
        signal.pause()
