"""A child process with everything it starts: one process group, which dies with us and is waited for whole.

Always: the child is told to end when its parent does (PR_SET_PDEATHSIG, set by the child itself and
checked against the race with a parent that is already gone); orphans of a killed child come to us
(PR_SET_CHILD_SUBREAPER), so waiting ends only when no process of the group is left. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PARENT_VARIABLE = "ARREMATE_PARENT"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def adopt_orphans() -> None:
    """Make this process the new parent of its descendants' orphans."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """In the child: end (SIGTERM) when the process that started us does, if it asked for that."""
    parent = os.environ.pop(PARENT_VARIABLE, None)
    if parent is None:
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        raise SystemExit("the process that started this one is gone")


class ProcessGroup:
    """Started by the constructor. Output goes to the end of `log`."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, PARENT_VARIABLE: str(os.getpid())},
                process_group=0,
            )
        self._gone = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while the leader runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask the leader to end in order."""
        if not self._gone and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9 for the whole group, and wait until none of it is left."""
        if self._gone:
            return
        self._signal_group(signal.SIGKILL)
        self._process.wait()
        while self._group_left():
            self._signal_group(signal.SIGKILL)
            time.sleep(_POLL_S)
        self._gone = True

    def wait_or_kill(self, timeout_s: float) -> bool:
        """Wait for the leader, then make sure of the rest; whether it ended by itself in time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        self.kill()
        return True

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def _group_left(self) -> bool:
        """Reap what has ended; whether any process of the group is still there."""
        try:
            while os.waitpid(-self.pid, os.WNOHANG)[0] != 0:
                continue
        except ChildProcessError:
            pass
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True
