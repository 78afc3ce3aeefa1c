"""A child's output: kept within bounds, and never a reason for the child to stand still."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from nodes import supervisor
from nodes.supervisor import Child

TALKS = "import sys; [print('x' * 99, flush=False) for _ in range(20_000)]; sys.stderr.write('last words\\n')"


def run_to_the_end(child: Child) -> None:
    """Start it once and wait until it has ended."""
    child.tend(time.monotonic())
    process = child._process
    assert process is not None
    ended = threading.Timer(30, process.kill)
    ended.start()
    try:
        assert process.wait() == 0, "it had to be killed: it stood still"
    finally:
        ended.cancel()
        child.stop()


def test_child_goes_on_when_its_log_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "talker.log").symlink_to("/dev/full")
    run_to_the_end(Child("talker", [sys.executable, "-c", TALKS], tmp_path))


def test_log_is_bounded_and_ends_with_the_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES_MAX", 300_000)
    run_to_the_end(Child("talker", [sys.executable, "-c", TALKS], tmp_path))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["talker.log", "talker.log.1"]
    assert all(path.stat().st_size <= 300_000 for path in tmp_path.iterdir())
    assert (tmp_path / "talker.log").read_bytes().endswith(b"last words\n")
