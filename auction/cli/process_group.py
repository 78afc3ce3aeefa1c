"""A child process with everything it starts: one process group, which dies with us and is waited for whole.

Always: the child is told to end when its parent does (`nodes.lifetime`); once `adopt_orphans` was called,
orphans of a killed child come to us, so waiting ends only when no process of the group is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from nodes.lifetime import child_environment

_POLL_S = 0.05


class ProcessGroup:
    """Started by the constructor. Output goes to the end of `log`."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=child_environment(environment),
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
