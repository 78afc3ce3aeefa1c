"""A process that ends with the one that started it. Linux only.

The starter puts its own pid into the child's environment (`child_environment`); the child calls
`die_with_parent` first of all, which asks the kernel for SIGTERM when the parent is gone and checks
the race with a parent that already is.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Mapping

PARENT_VARIABLE = "ARREMATE_PARENT"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def adopt_orphans() -> None:
    """Make this process the new parent of its descendants' orphans."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a child that calls `die_with_parent`."""
    return {**environment, PARENT_VARIABLE: str(os.getpid())}


def die_with_parent() -> None:
    """In the child: end (SIGTERM) when the process that started us does, if it asked for that."""
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None:
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        raise SystemExit("the process that started this one is gone")
