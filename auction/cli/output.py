"""What commands print: a table for people or one JSON document for programs, on standard output;
errors always on standard error.

In JSON format standard output holds nothing but JSON (one document a command, one a line for
streams). Colours obey NO_COLOR and are off when the output is not a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from auction.cli.failure import Failure

PLAIN_WIDTH = 200


class OutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command returns: plain JSON values, and how to show them to people."""

    value: Any
    rendered: RenderableType = ""


class Output:
    """Where a process prints. `silent` keeps answers to the caller (a script that prints its own lines)."""

    def __init__(self, *, silent: bool = False) -> None:
        self.console = Console(highlight=False, soft_wrap=True, width=_width(sys.stdout))
        self.errors = Console(stderr=True, highlight=False, soft_wrap=True, width=_width(sys.stderr))
        self.silent = silent
        self.last: Answer | None = None
        """The newest answer, so that whoever silenced the output can show it after all."""

    def show(self, answer: Answer, output_format: OutputFormat) -> None:
        self.last = answer
        if self.silent:
            return
        if output_format is OutputFormat.JSON:
            self.console.out(json.dumps(answer.value, ensure_ascii=False, sort_keys=True))
        else:
            self.console.print(answer.rendered)

    def fail(self, failure: Failure, output_format: OutputFormat) -> None:
        if output_format is OutputFormat.JSON:
            problem = {"code": failure.code, "detail": failure.detail, "hint": failure.hint, **failure.value}
            self.errors.out(json.dumps({"error": problem}, ensure_ascii=False, sort_keys=True))
            return
        if failure.detail:
            self.errors.print(f"[bold red]{escape(failure.code)}[/]: {escape(failure.detail)}")
        for name, value in failure.value.items():
            self.errors.print(f"  {escape(name)}: {escape(str(value))}", style="dim")
        if failure.hint:
            self.errors.print(f"[bold]next[/]: {escape(failure.hint)}")


def _width(stream: TextIO | None) -> int | None:
    """The terminal's own width; without a terminal, wide enough that no key or path is folded."""
    return None if stream is not None and stream.isatty() else PLAIN_WIDTH


def record(title: str, fields: Mapping[str, object]) -> Table:
    """One thing: a name and a value a line."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, escape(_text(value)))
    return table


def listing(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "none") -> Table | str:
    """Many things: one a row."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_text(value)) for value in row))
    return table if table.row_count else f"{title}: {empty}"


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
