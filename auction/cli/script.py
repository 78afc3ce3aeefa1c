r"""The demo's script language: text in, statements out. Pure: nothing is run here.

One statement a line; `#` starts a comment. A statement is an arremate command (without the word
arremate) or one of these:

    let NAME = COMMAND... | json.path   keep a part of the command's JSON answer
    expect CODE COMMAND...              the rules must refuse it with this code, with a verifying receipt
    try COMMAND...                      accepted or refused, but with a verifying receipt either way
    wait closed AUCTION [within 60s]    until the auction's deadline has been executed
    assert same-state                   all running nodes show the same block and the same state
    assert balance NAME AMOUNT [held AMOUNT]
    assert receipts-explain-balances    every balance is the sum of the effects in the received receipts
    \kill N   \restart N                kill -9 node N; start it again and wait until it is ready

`$NAME` stands for what `let` kept. A name that no earlier `let` set is an error before anything runs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from auction.cli.failure import Failure, usage
from auction.cli.money import parse_duration_us

LINE_LENGTH_MAX = 8_192
WAIT_DEFAULT_US = 60_000_000
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_JSON_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")


@dataclass(frozen=True, slots=True)
class Command:
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Let:
    name: str
    words: tuple[str, ...]
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expect:
    code: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Try:
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WaitClosed:
    auction: str
    timeout_us: int


@dataclass(frozen=True, slots=True)
class AssertSameState:
    pass


@dataclass(frozen=True, slots=True)
class AssertBalance:
    name: str
    available: str
    held: str | None


@dataclass(frozen=True, slots=True)
class AssertReceiptsExplainBalances:
    pass


@dataclass(frozen=True, slots=True)
class Kill:
    replica: int


@dataclass(frozen=True, slots=True)
class Restart:
    replica: int


Statement = (
    Command
    | Let
    | Expect
    | Try
    | WaitClosed
    | AssertSameState
    | AssertBalance
    | AssertReceiptsExplainBalances
    | Kill
    | Restart
)


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    text: str
    statement: Statement


def parse_script(lines: Iterable[str], defined: Iterable[str] = ()) -> list[Line]:
    """All statements of a script; the usage error names the first line that is wrong.

    `defined`: variables that exist before the first line.
    """
    known = set(defined)
    parsed: list[Line] = []
    for number, text in enumerate(lines, 1):
        try:
            statement = parse_statement(text)
            if statement is None:
                continue
            for name in variables_of(statement):
                if name not in known:
                    raise usage("unset_variable", f"${name} is not set", f"set it before: let {name} = COMMAND | path")
            if isinstance(statement, Let):
                known.add(statement.name)
        except Failure as failure:
            raise usage(failure.code, f"line {number}: {failure.detail}", failure.hint) from failure
        parsed.append(Line(number, text.strip(), statement))
    return parsed


def parse_statement(text: str) -> Statement | None:
    """The statement of one line, None for a blank line or a comment."""
    if len(text) > LINE_LENGTH_MAX:
        raise usage("line_too_long", f"a line has at most {LINE_LENGTH_MAX} characters")
    if text.lstrip().startswith("\\"):
        return _parse_control(text.strip()[1:].split())
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    try:
        words = list(lexer)
    except ValueError as error:
        raise usage("bad_quoting", f"{error}".lower()) from error
    match words:
        case []:
            return None
        case ["let", *rest]:
            return _parse_let(rest)
        case ["expect", code, _, *_]:
            return Expect(code, tuple(words[2:]))
        case ["try", _, *_]:
            return Try(tuple(words[1:]))
        case ["wait", "closed", auction]:
            return WaitClosed(auction, WAIT_DEFAULT_US)
        case ["wait", "closed", auction, "within", duration]:
            return WaitClosed(auction, parse_duration_us(duration))
        case ["assert", "same-state"]:
            return AssertSameState()
        case ["assert", "receipts-explain-balances"]:
            return AssertReceiptsExplainBalances()
        case ["assert", "balance", name, available]:
            return AssertBalance(name, available, None)
        case ["assert", "balance", name, available, "held", held]:
            return AssertBalance(name, available, held)
        case ["expect" | "try" | "wait" | "assert" as word, *_]:
            raise usage("bad_statement", f"cannot understand '{text.strip()}'", f"see how to write '{word}': \\help")
        case _:
            return Command(tuple(words))


def _parse_let(words: list[str]) -> Let:
    hint = "write: let NAME = COMMAND... | json.path"
    match words:
        case [name, "=", *command, "|", path] if command:
            if _NAME.match(name) is None:
                raise usage("bad_name", f"'{name}' is not a name", hint)
            if _JSON_PATH.match(path) is None:
                raise usage("bad_path", f"'{path}' is not a path into JSON", hint)
            return Let(name, tuple(command), tuple(path.split(".")))
        case _:
            raise usage("bad_statement", "'let' needs a name, a command and a path", hint)


def _parse_control(words: list[str]) -> Statement:
    match words:
        case ["kill", number] if number.isdecimal():
            return Kill(int(number))
        case ["restart", number] if number.isdecimal():
            return Restart(int(number))
        case _:
            raise usage("bad_statement", f"cannot understand '\\{' '.join(words)}'", "write \\kill N or \\restart N")


def words_of(statement: Statement) -> tuple[str, ...]:
    """Every word of a statement in which `$NAME` is replaced."""
    match statement:
        case Command(words) | Let(_, words) | Expect(_, words) | Try(words):
            return words
        case WaitClosed(auction):
            return (auction,)
        case AssertBalance(name, available, held):
            return (name, available) if held is None else (name, available, held)
        case AssertSameState() | AssertReceiptsExplainBalances() | Kill() | Restart():
            return ()


def variables_of(statement: Statement) -> list[str]:
    return [match[1] or match[2] for word in words_of(statement) for match in _VARIABLE.finditer(word)]


def substitute(word: str, variables: dict[str, str]) -> str:
    """`word` with every `$NAME` replaced; usage error for a name that is not set."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in variables:
            raise usage("unset_variable", f"${name} is not set", f"set it before: let {name} = COMMAND | path")
        return variables[name]

    return _VARIABLE.sub(value, word)
