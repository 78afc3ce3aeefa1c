"""`arremate`: the command line. Builds the command tree and turns every failure into text and an exit code.

Nouns have files of their own; this one only lists them. Nothing else in the project calls sys.exit.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from auction.cli import (
    account,
    auction_commands,
    benchmark,
    demo,
    doctor,
    key,
    money_commands,
    node,
    receipt,
    status,
    testnet,
    watch,
)
from auction.cli.failure import ExitCode, Failure
from auction.cli.output import Output, OutputFormat
from auction.cli.session import Session

INTERRUPTED = 130
"""128 + SIGINT, what a shell expects of a program that the user stopped."""


def build() -> typer.Typer:
    """The whole command tree. Commands expect a `Session` as the context's object."""
    app = typer.Typer(
        name="arremate",
        help="An auction house on replicas that do not trust each other: bids are signed, ordered and proven.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog="Start here: arremate demo",
    )
    for noun in (
        demo,
        testnet,
        node,
        key,
        account,
        money_commands,
        auction_commands,
        watch,
        receipt,
        status,
        doctor,
        benchmark,
    ):
        noun.register(app)
    return app


def run(words: Sequence[str], session: Session) -> Any:
    """Run one command in this process; its JSON value. Raises `Failure`, also for wrong usage."""
    try:
        value = command_tree()(
            list(words), prog_name="arremate", standalone_mode=False, obj=session, complete_var="_ARREMATE_COMPLETE"
        )
    except typer.TyperException as error:
        text = error.format_message()
        raise Failure(
            ExitCode.USAGE, "usage", text, hint=f"arremate {' '.join(_command_path(words))} --help".replace("  ", " ")
        ) from error
    if type(value) is int and value == INTERRUPTED:
        raise KeyboardInterrupt  # typer catches it and returns its exit code instead
    return value


@functools.cache
def command_tree() -> Any:
    return typer.main.get_command(build())


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with the codes of `ExitCode`."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    output = Output()
    code: int = ExitCode.DONE
    try:
        with Session(output) as session:
            value = run(words, session)
            code = value if isinstance(value, ExitCode) else ExitCode.DONE
    except Failure as failure:
        output.fail(failure, _wanted_format(words))
        code = failure.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = INTERRUPTED
    sys.exit(code)


def _wanted_format(words: Sequence[str]) -> OutputFormat:
    """How to print a failure, also one that happened before the options were understood."""
    pairs = zip(words, [*words[1:], ""], strict=True)
    chosen = any(
        word in ("-ojson", "--output=json") or (word in ("-o", "--output") and value == "json") for word, value in pairs
    )
    if chosen or os.environ.get("ARREMATE_OUTPUT") == "json":
        return OutputFormat.JSON
    return OutputFormat.TABLE


def _command_path(words: Sequence[str]) -> list[str]:
    """The leading words that name a command, for the hint."""
    path: list[str] = []
    command = command_tree()
    for word in words:
        commands = getattr(command, "commands", {})
        if word not in commands:
            break
        path.append(word)
        command = commands[word]
    return path


if __name__ == "__main__":
    main()
