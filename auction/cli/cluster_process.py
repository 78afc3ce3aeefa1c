"""A cluster on this machine: each node is `arremate node run` in a process group of its own.

Waits are for conditions (a process that ended, /readyz that answers), bounded by a deadline. Leaving the
`with` block leaves no process. Deliberately elsewhere: the folder (`nodes.testnet`) and the databases
(`auction.cli.scratch_database`), which outlive the processes and are removed by whoever made them.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from auction.cli.failure import unreachable, usage
from auction.cli.process_group import ProcessGroup
from nodes.lifetime import adopt_orphans
from nodes.testnet import Testnet, https_url

READY_TIMEOUT_S = 100.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.1
LOG_LINES_SHOWN = 5

Notice = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NodeState:
    replica: int
    running: bool
    ready: bool
    detail: str


class NodeProcess:
    """One node: its folder, its URL and, while it runs, its processes."""

    def __init__(self, replica: int, folder: Path, https: str, log: Path) -> None:
        self.replica = replica
        self.folder = folder
        self.https = https
        self.log = log
        self._group: ProcessGroup | None = None

    @property
    def running(self) -> bool:
        return self._group is not None and self._group.exit_code is None

    @property
    def pid(self) -> int | None:
        return None if self._group is None else self._group.pid

    def start(self) -> None:
        command = [sys.executable, "-m", "auction.cli.main", "node", "run", "--config", str(self.folder / "node.toml")]
        self._group = ProcessGroup(command, self.log, os.environ)

    def kill(self) -> None:
        """kill -9, all processes of the node."""
        if self._group is not None:
            self._group.kill()
            self._group = None

    def terminate(self) -> None:
        if self._group is not None:
            self._group.terminate()

    def wait_or_kill(self, timeout_s: float) -> bool:
        if self._group is None:
            return True
        ended = self._group.wait_or_kill(timeout_s)
        self._group = None
        return ended

    def last_log_lines(self) -> str:
        """The end of what the node and each of its processes printed."""
        parts = []
        for path in (self.log, *sorted((self.folder / "data" / "log").glob("*.log"))):
            if path.exists():
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                parts.append("\n".join([f"--- {path.name}", *lines[-LOG_LINES_SHOWN:]]))
        return "\n".join(parts) or "no output"


class ClusterProcess:
    """The nodes of a testnet. Use as a context manager; `start` runs them."""

    def __init__(self, testnet: Testnet) -> None:
        self.testnet = testnet
        logs = testnet.folder / "logs"
        logs.mkdir(exist_ok=True)
        self.nodes = [
            NodeProcess(member.replica, folder, https_url(member.host, member.https_port), logs / f"{folder.name}.log")
            for member, folder in zip(testnet.cluster.members, testnet.nodes, strict=True)
        ]
        context = ssl.create_default_context(cafile=str(testnet.authority))
        self._http = httpx.Client(verify=context, timeout=2.0, trust_env=False)

    def __enter__(self) -> Self:
        adopt_orphans()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    def wait_ready(self, nodes: list[NodeProcess], notice: Notice, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until each answers /readyz with 200. `Failure` with the end of its log when one ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        waiting = {node.replica: node for node in nodes}
        while waiting:
            for node in list(waiting.values()):
                if not node.running:
                    raise unreachable(
                        f"node {node.replica} ended while starting; the end of its log:\n{node.last_log_lines()}",
                        "check this machine with: arremate doctor",
                    )
                ready, detail = self._probe(node)
                if ready:
                    del waiting[node.replica]
                    notice(f"node {node.replica} is ready at {node.https}")
                elif time.monotonic() > deadline:
                    raise unreachable(
                        f"node {node.replica} is not ready after {timeout_s:.0f} s ({detail}); "
                        f"the end of its log:\n{node.last_log_lines()}",
                        "check this machine with: arremate doctor",
                    )
            if waiting:
                time.sleep(POLL_S)

    def node(self, replica: int) -> NodeProcess:
        if not 0 <= replica < len(self.nodes):
            raise usage("unknown_node", f"there is no node {replica}", f"nodes are 0 to {len(self.nodes) - 1}")
        return self.nodes[replica]

    def kill(self, replica: int) -> None:
        self.node(replica).kill()

    def restart(self, replica: int, notice: Notice) -> None:
        """Start a node again (kill -9 first if it still runs) and wait until it is ready."""
        node = self.node(replica)
        node.kill()
        node.start()
        self.wait_ready([node], notice)

    def states(self) -> list[NodeState]:
        """What each node is doing, asked in parallel."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            return list(pool.map(self._state, self.nodes))

    def statuses(self) -> dict[int, dict[str, Any]]:
        """/v1/status of every running node. A node that does not answer is left out."""
        found: dict[int, dict[str, Any]] = {}
        for node in self.nodes:
            if not node.running:
                continue
            try:
                found[node.replica] = self._http.get(f"{node.https}/v1/status").raise_for_status().json()
            except (httpx.HTTPError, ValueError):
                continue
        return found

    def stop(self) -> None:
        """End every process: in order first, by force after a while."""
        try:
            for node in self.nodes:
                node.terminate()
            deadline = time.monotonic() + STOP_TIMEOUT_S
            for node in self.nodes:
                node.wait_or_kill(max(0.1, deadline - time.monotonic()))
        finally:
            for node in self.nodes:
                node.kill()
            self._http.close()

    def _probe(self, node: NodeProcess) -> tuple[bool, str]:
        try:
            answer = self._http.get(f"{node.https}/readyz")
        except httpx.HTTPError as error:
            return False, f"{error or type(error).__name__}"
        return answer.status_code == httpx.codes.OK, answer.text[:200]

    def _state(self, node: NodeProcess) -> NodeState:
        if not node.running:
            return NodeState(node.replica, running=False, ready=False, detail="not running")
        ready, detail = self._probe(node)
        return NodeState(node.replica, running=True, ready=ready, detail="ready" if ready else detail)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll a condition that other processes make true; `Failure` (no quorum or timeout) when they do not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise unreachable(f"{what} took longer than {timeout_s:.0f} s")
        time.sleep(POLL_S)
