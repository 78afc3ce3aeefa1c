"""How a command fails: a stable code, what happened, what to do next, and the exit code that says which kind.

Exit codes are a contract with scripts: 0 done, 2 usage, 3 refused by the rules, 4 no quorum or
timeout, 5 verification failed, 99 threshold crossed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    DONE = 0
    USAGE = 2
    REFUSED = 3
    NO_QUORUM = 4
    VERIFICATION_FAILED = 5
    THRESHOLD = 99


class Failure(Exception):
    """A command that did not do what was asked.

    `code` is stable and machine-readable; `detail` says what happened; `hint` says what to do next;
    `value` is what is known anyway (the receipt of a refusal, for example).
    """

    def __init__(
        self,
        exit_code: ExitCode,
        code: str,
        detail: str,
        *,
        hint: str = "",
        value: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.exit_code = exit_code
        self.code = code
        self.detail = detail
        self.hint = hint
        self.value = dict(value or {})


def usage(code: str, detail: str, hint: str = "") -> Failure:
    """The caller asked for something that cannot be understood or is not there."""
    return Failure(ExitCode.USAGE, code, detail, hint=hint)


def unreachable(detail: str, hint: str = "") -> Failure:
    """Nobody answered in time, or too few did: the outcome is unknown, never 'failed'."""
    return Failure(
        ExitCode.NO_QUORUM,
        "no_quorum",
        detail,
        hint=hint or "see which nodes are ready with: arremate status",
    )


def unverified(code: str, detail: str, hint: str = "") -> Failure:
    """An answer whose proof does not hold."""
    return Failure(ExitCode.VERIFICATION_FAILED, code, detail, hint=hint)
