"""Runs the processes of one node: executor, replica, gateway. What ends is started again, with back-off.

Always: a child dies with the supervisor; stopping is in the order gateway, replica, executor, so that
nobody is asked for what is gone already; every line a child prints goes to data_dir/log/NAME.log, which is
bounded. Deliberately elsewhere: what the processes do. A crash is reported, never hidden.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from nodes.config import NodeConfig
from nodes.lifetime import child_environment

LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_CHUNK_BYTES = 64 * 1024
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
HEALTHY_AFTER_S = 60.0
"""A process that ran this long starts again with the first back-off."""
STOP_TIMEOUT_S = 8.0
POLL_S = 0.1

log = structlog.get_logger("supervisor")


class LogFile:
    """A file that takes bytes up to LOG_BYTES_MAX, then begins anew; the former one is kept as NAME.1.

    What cannot be written (a full disk) is dropped and counted: output must be taken from the process all the
    same, or it would stand still at its next line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dropped_bytes = 0
        self._file = path.open("ab", buffering=0)

    def append(self, data: bytes) -> None:
        try:
            if self._file.tell() + len(data) > LOG_BYTES_MAX:
                self._file.close()
                self.path.replace(self.path.with_name(self.path.name + ".1"))
                self._file = self.path.open("ab", buffering=0)
            self.dropped_bytes += len(data) - self._file.write(data)
        except (OSError, ValueError):
            # ValueError: closed, because it could not be opened anew after the last time.
            self.dropped_bytes += len(data)

    def close(self) -> None:
        self._file.close()


class Child:
    """One process and its log; restarted by `tend`."""

    def __init__(self, name: str, command: Sequence[str], log_dir: Path) -> None:
        self.name = name
        self._command = command
        self._output = LogFile(log_dir / f"{name}.log")
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._backoff_s = BACKOFF_FIRST_S
        self._reader: threading.Thread | None = None

    def tend(self, now: float) -> None:
        """Start the process when it is due; notice when it has ended."""
        if self._process is None:
            if now >= self._start_at:
                self._start(now)
            return
        code = self._process.poll()
        if code is None:
            return
        self._settle()
        if now - self._started_at >= HEALTHY_AFTER_S:
            self._backoff_s = BACKOFF_FIRST_S
        log.error("process ended", name=self.name, code=code, restart_in_s=self._backoff_s, log=str(self._output.path))
        self._start_at = now + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_MAX_S)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL when it does not end in time."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                log.error("process did not stop in time", name=self.name)
                self._process.kill()
                self._process.wait()
            self._settle()
        self._output.close()

    def _start(self, now: float) -> None:
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environment(os.environ),
        )
        self._process = process
        self._started_at = now
        self._reader = threading.Thread(target=self._copy, args=(process,), name=f"log of {self.name}", daemon=True)
        self._reader.start()
        log.info("process started", name=self.name, pid=process.pid)

    def _copy(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        while data := os.read(process.stdout.fileno(), LOG_CHUNK_BYTES):
            self._output.append(data)

    def _settle(self) -> None:
        """Read the last lines of a process that has ended."""
        if self._reader is not None:
            self._reader.join(STOP_TIMEOUT_S)
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        if self._output.dropped_bytes:
            log.error("log incomplete", name=self.name, dropped_bytes=self._output.dropped_bytes)
        self._process = None
        self._reader = None


def main(config_path: Path, config: NodeConfig) -> int:
    """Run the node until SIGTERM or SIGINT. Returns 0 after an orderly stop."""
    log_dir = config.data_dir / "log"
    log_dir.mkdir(parents=True, exist_ok=True)
    names = [
        *(["executor"] if config.executor == "process" else []),
        "replica",
        *(["gateway"] if config.https is not None else []),
    ]
    children = [
        Child(name, [sys.executable, "-m", f"nodes.{name}", "--config", str(config_path)], log_dir) for name in names
    ]
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        while not stopping.is_set():
            now = time.monotonic()
            for child in children:
                child.tend(now)
            stopping.wait(POLL_S)
    finally:
        for child in reversed(children):
            child.stop()
    log.info("node stopped")
    return 0
