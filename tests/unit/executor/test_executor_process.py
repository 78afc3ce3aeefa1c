"""The executor as a process: its messages, its end, and what it does while its database is away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import zmq
from executor_harness import Log, digest_of, header_of, key_of, make_cluster

from nodes.config import ClusterConfig, KeyFiles, NodeConfig
from nodes.core.types import ReplicaId
from nodes.demo.counter import add
from nodes.executor.executor import SIDECAR_NAME
from nodes.executor.process import EXIT_REFUSED, EXIT_STOPPED
from nodes.executor.protocol import (
    Archive,
    BlockExecuted,
    BlockFound,
    Down,
    ExecuteBlock,
    ExecutorAlarm,
    FetchArchive,
    FindBlock,
    FindReceipt,
    Hello,
    Query,
    QueryAnswer,
    Ready,
    ReceiptFound,
    Up,
    decode_up,
    encode,
)

TIMEOUT_MS = 20_000
Message = TypeVar("Message", bound=Up)


class Node:
    """The replica's end of the socket, and the process at the other."""

    def __init__(self, directory: Path, cluster: ClusterConfig, database_url: str) -> None:
        self.directory = directory
        self.cluster = cluster
        self.log = Log(cluster)
        data = directory / "data"
        data.mkdir()
        (directory / "genesis.json").write_bytes(cluster.to_bytes())
        self.config = NodeConfig(
            replica=ReplicaId(0),
            genesis=directory / "genesis.json",
            keys=KeyFiles(directory / "consensus.key", directory / "curve.key"),
            data_dir=data,
            database_url=database_url,
            application="nodes.demo.counter:CounterMachine",
        )
        (directory / "node.toml").write_text(self.config.to_toml(directory))
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.ROUTER)
        self.peer = b""
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(self.config.executor_endpoint)
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", "nodes.executor", "--config", str(self.directory / "node.toml")]

    def start(self) -> subprocess.Popen[bytes]:
        self.processes.append(subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return self.processes[-1]

    def send(self, message: Down) -> None:
        self.socket.send_multipart((self.peer, encode(message)))

    def receive(self, kind: type[Message]) -> Message:
        """The next message, which must be of this kind."""
        data = b""
        while not data:  # an empty message is a connection that says which it is
            assert self.socket.poll(TIMEOUT_MS), f"no {kind.__name__} came"
            self.peer, data = self.socket.recv_multipart()
        message = decode_up(data)
        assert isinstance(message, kind), message
        return message

    def add(self, sequence: int, amount: int = 1) -> ExecuteBlock:
        return self.log.batch(self.log.record(add(amount), key=key_of(1), sequence=sequence))

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.socket.close()
        self.context.term()


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Nodes in directories with short names: the path of an ipc socket has 107 bytes at most."""
    made: list[Node] = []
    with tempfile.TemporaryDirectory(prefix="arr-") as short:

        def make(database_url: str, **genesis: int) -> Node:
            directory = Path(short) / str(len(made))
            directory.mkdir()
            made.append(Node(directory, make_cluster(genesis), database_url))
            return made[-1]

        yield make
        for node in made:
            node.close()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_process_serves_every_message(make_node: Callable[..., Node], database_url: str) -> None:
    node = make_node(database_url, start=5)
    process = node.start()
    ready = node.receive(Ready)
    assert (ready.sequence, ready.block_hash) == (0, node.cluster.config_hash)
    block = node.add(1, 37)
    node.send(block)
    executed = node.receive(BlockExecuted)
    assert (executed.sequence, len(executed.entries)) == (1, 1)
    node.send(Query(7, b"", None, True))
    answer = node.receive(QueryAnswer)
    assert (answer.token, json.loads(answer.result), answer.sequence) == (7, {"operations": 1, "value": 42}, 1)
    digest = executed.entries[0].digest
    node.send(FindReceipt(8, digest))
    assert digest_of(node.receive(ReceiptFound).record) == digest
    node.send(FindBlock(9, 1))
    assert header_of(node.receive(BlockFound)).sequence == 1  # type: ignore[arg-type]
    node.send(FetchArchive(10, 1, 5))
    assert node.receive(Archive) == Archive(10, [(block.batch_header, block.body)])
    node.send(block)
    assert node.receive(BlockExecuted) == executed, "a replay"
    node.send(Hello())
    assert node.receive(Ready).block_hash == header_of(executed).hash
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert (node.config.data_dir / SIDECAR_NAME).exists()


def test_process_killed_and_started_again_says_where_to_go_on(make_node: Callable[..., Node], sqlite_url: str) -> None:
    node = make_node(sqlite_url)
    process = node.start()
    node.receive(Ready)
    messages = [node.add(i) for i in range(1, 8)]
    for message in messages[:4]:
        node.send(message)
    expected = [node.receive(BlockExecuted) for _ in range(4)]
    process.kill()
    process.wait()
    node.start()
    assert node.receive(Ready).sequence == 4
    node.send(messages[6])
    assert node.receive(Ready).sequence == 4, "a gap is answered by where to go on"
    for message in messages:
        node.send(message)
    again = [node.receive(BlockExecuted) for _ in messages]
    assert again[:4] == expected


def test_process_executes_blocks_before_it_answers(make_node: Callable[..., Node], sqlite_url: str) -> None:
    node = make_node(sqlite_url)
    process = node.start()
    node.receive(Ready)
    process.send_signal(signal.SIGSTOP)
    for token in range(50):
        node.send(Query(token, b""))
    node.send(node.add(1))
    process.send_signal(signal.SIGCONT)
    assert node.receive(BlockExecuted).sequence == 1
    answers = [node.receive(QueryAnswer) for _ in range(50)]
    assert [answer.token for answer in answers] == list(range(50))
    assert {answer.sequence for answer in answers} == {1}


def test_process_refuses_the_database_of_another_cluster(make_node: Callable[..., Node], sqlite_url: str) -> None:
    node = make_node(sqlite_url, start=1)
    process = node.start()
    node.receive(Ready)
    process.terminate()
    assert process.wait(20) == 0
    other = make_node(sqlite_url, start=2)
    refused = other.start()
    assert "cluster_id" in other.receive(ExecutorAlarm).reason
    assert refused.wait(20) == EXIT_REFUSED


def test_process_stops_when_it_is_handed_another_history(make_node: Callable[..., Node], sqlite_url: str) -> None:
    node = make_node(sqlite_url)
    process = node.start()
    node.receive(Ready)
    node.send(node.add(1))
    node.receive(BlockExecuted)
    node.log = Log(node.cluster)
    node.send(node.add(1, 99))
    assert "another batch" in node.receive(ExecutorAlarm).reason
    assert process.wait(20) == EXIT_STOPPED


def test_process_ends_with_its_parent(make_node: Callable[..., Node], sqlite_url: str) -> None:
    node = make_node(sqlite_url)
    program = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); sys.stdin.read()"
    parent = subprocess.Popen(
        [sys.executable, "-c", program, *node.command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    node.processes.append(parent)
    assert parent.stdout is not None
    identity = int(parent.stdout.readline())
    node.receive(Ready)
    parent.kill()
    parent.wait()

    def gone() -> bool:
        try:
            os.kill(identity, 0)
        except ProcessLookupError:
            return True
        return Path(f"/proc/{identity}/stat").read_text().rpartition(")")[2].split()[0] == "Z"

    wait_until(gone)


@pytest.mark.mariadb
def test_process_waits_for_a_database_that_is_away(make_node: Callable[..., Node], mariadb_url: str) -> None:
    port = int(mariadb_url.rpartition(":")[2].partition("/")[0])
    away = mariadb_url.replace(f":{port}/", ":1/")
    node = make_node(away)
    process = node.start()
    assert "cannot be opened" in node.receive(ExecutorAlarm).reason
    assert process.poll() is None
    process.terminate()
    assert process.wait(20) == 0


@pytest.mark.parametrize("content", [None, "not toml ["])
def test_process_with_a_bad_configuration_says_so(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    if content is not None:
        file.write_text(content)
    done = subprocess.run(
        [sys.executable, "-m", "nodes.executor", "--config", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_REFUSED
    assert done.stderr.startswith("executor: ")
