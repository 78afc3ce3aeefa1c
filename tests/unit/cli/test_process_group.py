"""A child and all it starts are gone when we say so, and when we are gone: real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from auction.cli.process_group import ProcessGroup
from nodes.lifetime import adopt_orphans

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("family", child.pid, flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""
OBEDIENT = """
from nodes.lifetime import die_with_parent
import time
die_with_parent()
print("ready", flush=True)
time.sleep(600)
"""
PARENT = """
import os, sys, time
from pathlib import Path
from auction.cli.process_group import ProcessGroup
group = ProcessGroup([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]), os.environ)
print(group.pid, flush=True)
time.sleep(600)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Runs, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(autouse=True)
def _subreaper() -> None:
    adopt_orphans()


def started(program: str, log: Path) -> ProcessGroup:
    group = ProcessGroup([sys.executable, "-c", program], log, os.environ)
    wait_for(lambda: log.read_text().endswith("\n"))
    return group


def test_kill_ends_grandchildren_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    group = started(FAMILY, log)
    grandchild = int(log.read_text().split()[1])
    assert alive(grandchild)
    group.kill()
    assert not alive(group.pid)
    assert not alive(grandchild)
    group.kill()


def test_orphan_of_a_leader_that_died_is_ended_and_waited_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    group = started(FAMILY, log)
    grandchild = int(log.read_text().split()[1])
    os.kill(group.pid, signal.SIGKILL)
    assert group.wait_or_kill(30) is True
    assert not alive(grandchild)


def test_one_that_ignores_the_request_to_end_is_ended_by_force(tmp_path: Path) -> None:
    group = started(STUBBORN, tmp_path / "log")
    group.terminate()
    assert group.exit_code is None
    assert group.wait_or_kill(0.3) is False
    assert not alive(group.pid)


def test_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, OBEDIENT, str(log)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(lambda: log.exists() and log.read_text() == "ready\n")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not alive(child))


def test_output_is_appended_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    group = ProcessGroup([sys.executable, "-c", "print('after')"], log, os.environ)
    assert group.wait_or_kill(30) is True
    assert log.read_text() == "before\nafter\n"
