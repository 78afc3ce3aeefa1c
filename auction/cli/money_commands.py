"""`arremate mint` and `arremate transfer`."""

from __future__ import annotations

from typing import Annotated

import typer

from auction import operations
from auction.cli.command import Call, cluster_command
from auction.cli.output import Answer, record
from auction.cli.submission import account_reference, ask, build_operation, submit_and_show

AmountArgument = Annotated[str, typer.Argument(metavar="AMOUNT", help="1250 (minor units) or 12.50.")]
ToArgument = Annotated[str, typer.Argument(metavar="TO", help="Account id or handle.")]
MemoOption = Annotated[str, typer.Option(help="At most 200 characters, stored with the movement.")]


def register(app: typer.Typer) -> None:
    @cluster_command(app, "mint", example="arremate mint alice 100000 --as issuer")
    def mint(call: Call, to: ToArgument, amount: AmountArgument, memo: MemoOption = "") -> Answer:
        """Create money on an account (issuers only)."""
        units = call.currency.parse(amount)
        operation = build_operation(operations.mint, account_reference(call, to), units, memo)
        return submit_and_show(call, f"minted {call.currency.format(units)} for {to}", operation)

    @cluster_command(app, "transfer", example="arremate transfer bob 12.50 --memo lunch --as alice")
    def transfer(call: Call, to: ToArgument, amount: AmountArgument, memo: MemoOption = "") -> Answer:
        """Send money from your account to another."""
        units = call.currency.parse(amount)
        operation = build_operation(operations.transfer, account_reference(call, to), units, memo)
        return submit_and_show(call, f"sent {call.currency.format(units)} to {to}", operation)

    @cluster_command(app, "supply", example="arremate supply")
    def supply(call: Call) -> Answer:
        """Show how much money exists and how much may."""
        value = ask(call, {"query": "supply"})
        shown = {name: call.currency.format(value[name]) for name in ("minted", "supply_limit")}
        return Answer(value, record("supply", shown))
