"""The supervisor with a node of a cluster of one: restarts what crashes, takes everything down with it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.client.aio import Client
from nodes.keys import SigningKey
from nodes.testnet import Application, NodePlan, consecutive_ports, create_testnet
from tests.system.counter_cluster import CounterCluster, free_base_port, until

pytestmark = pytest.mark.system

RUN = """
import sys
from pathlib import Path
from nodes.config import NodeConfig
from nodes.supervisor import main
raise SystemExit(main(Path(sys.argv[1]), NodeConfig.load(sys.argv[1])))
"""


class Supervised:
    def __init__(self, folder: Path) -> None:
        self.testnet = create_testnet(
            folder,
            plans=[NodePlan("alone", "127.0.0.1", consecutive_ports(free_base_port(), 1)[0], "127.0.0.1")],
            application=Application("counter", "nodes.demo.counter:CounterMachine", 1, {}),
            clients={},
        )
        self.cluster = CounterCluster(self.testnet, "process")
        config = self.testnet.nodes[0] / "node.toml"
        text = config.read_text()
        config.write_text(text[: text.index("[https]")] + text[text.index("[listen]") :])  # no gateway
        self.process = subprocess.Popen([sys.executable, "-c", RUN, str(config)])

    def children(self) -> dict[str, int]:
        """Pids by name of the module that they run."""
        pid = self.process.pid
        found = {}
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"-m" in words:
                found[words[words.index(b"-m") + 1].decode()] = int(child)
        return found

    def add(self) -> None:
        async def one() -> None:
            async with Client.connect(self.testnet.cluster, SigningKey.generate()) as client:
                await client.submit({"add": 1})

        asyncio.run(one())


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    node = Supervised(tmp_path / "net")
    try:
        until(lambda: node.cluster.agree((0,)), "the node answers")
        yield node
    finally:
        node.process.kill()
        node.process.wait()


def test_crashed_processes_are_started_again_and_go_on(supervised: Supervised) -> None:
    supervised.add()
    for name in ("nodes.replica", "nodes.executor"):
        before = supervised.children()[name]
        os.kill(before, signal.SIGKILL)
        until(lambda name=name, old=before: supervised.children().get(name, old) != old, f"{name} is started again")
        until(lambda: supervised.cluster.agree((0,), at_least=1), "the node answers again")
        supervised.add()
    log = supervised.testnet.nodes[0] / "data" / "log"
    assert "replica_started" in (log / "replica.log").read_text()
    assert (log / "executor.log").exists()


def test_sigterm_stops_the_children_and_returns_zero(supervised: Supervised) -> None:
    pids = list(supervised.children().values())
    assert len(pids) == 2
    supervised.process.send_signal(signal.SIGTERM)
    assert supervised.process.wait(30) == 0
    assert not any(map(is_running, pids))
    assert "replica_stopped" in (supervised.testnet.nodes[0] / "data" / "log" / "replica.log").read_text()


def test_children_die_with_a_killed_supervisor(supervised: Supervised) -> None:
    pids = list(supervised.children().values())
    supervised.process.kill()
    supervised.process.wait()
    until(lambda: not any(map(is_running, pids)), "no child is left")
