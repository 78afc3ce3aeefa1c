"""Four real replica processes of the demo counter, and raw access to their client ports."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from nodes.config import ClusterConfig
from nodes.config.node import Executor
from nodes.keys import CurveKeys, SigningKey, z85_encode
from nodes.testnet import Application, NodePlan, Testnet, consecutive_ports, create_testnet
from nodes.transport import tcp_endpoint
from nodes.transport.sockets import Socket, connect_client, new_socket
from nodes.wire import ClientAnswer, ClientRequest, StatusAnswer, StatusQuery, Wire

PATIENCE_S = 30.0
NODES = 4


def free_base_port() -> int:
    """A base below which nobody listens now on the ports of four nodes."""
    for base in range(23_000 + (time.time_ns() // 1000) % 500 * 40, 60_000, 40):
        try:
            for ports in consecutive_ports(base, NODES):
                for port in (ports.peer, ports.bulk, ports.client, ports.metrics):
                    with socket.socket() as probe:
                        probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError("no free ports")


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


@dataclass
class CounterCluster:
    testnet: Testnet
    mode: Executor
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def config(self) -> ClusterConfig:
        return self.testnet.cluster

    def start(self, node: int, *, executor: bool = True) -> None:
        self._spawn("replica", node)
        if self.mode == "process" and executor:
            self.start_executor(node)

    def start_executor(self, node: int) -> None:
        self._spawn("executor", node)

    def _spawn(self, kind: str, node: int) -> None:
        with (self.testnet.folder / f"{kind}{node}.log").open("ab") as log:
            self.processes[f"{kind}{node}"] = subprocess.Popen(
                [sys.executable, "-m", f"nodes.{kind}", "--config", str(self.testnet.nodes[node] / "node.toml")],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self, name: str) -> int:
        self.processes[name].send_signal(signal.SIGTERM)
        return self.processes[name].wait(PATIENCE_S)

    def log(self, name: str) -> list[dict[str, Any]]:
        lines = (self.testnet.folder / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def status(self, node: int) -> dict[str, Any] | None:
        """The node's status document; None when it does not answer soon."""
        with RawClient(self.config, node) as client:
            client.socket.sndtimeo = 2000
            try:
                client.send(StatusQuery())
            except zmq.Again:
                return None
            answer = client.receive(2.0)
        return json.loads(answer.document) if isinstance(answer, StatusAnswer) else None

    def agree(self, nodes: tuple[int, ...] = (0, 1, 2, 3), at_least: int = 0) -> bool:
        """Have all executed the same block, and the ordered ones too?"""
        found = [self.status(node) for node in nodes]
        if not all(found):
            return False
        blocks = {(one["sequence"], one["block_hash"], one["committed"]) for one in found if one}
        return len(blocks) == 1 and next(iter(blocks))[0] >= at_least and next(iter(blocks))[0] == next(iter(blocks))[2]

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


@contextmanager
def counter_cluster(folder: Path, mode: Executor) -> Iterator[CounterCluster]:
    """Four started replicas."""
    ports = consecutive_ports(free_base_port(), NODES)
    testnet = create_testnet(
        folder / "net",
        plans=[NodePlan(f"node{index}", "127.0.0.1", ports[index], "127.0.0.1") for index in range(NODES)],
        application=Application("counter", "nodes.demo.counter:CounterMachine", 1, {"start": 0}),
        clients={"alice": SigningKey.generate()},
        executor=mode,
    )
    cluster = CounterCluster(testnet, mode)
    try:
        for node in range(NODES):
            cluster.start(node)
        yield cluster
    finally:
        cluster.close()


class RawClient:
    """One DEALER to one replica, saying what no decent client would."""

    def __init__(self, config: ClusterConfig, node: int, keys: CurveKeys | None = None) -> None:
        self.wire = Wire(config)
        member = config.members[node]
        self._context: zmq.Context[Socket] = zmq.Context()
        self.socket = new_socket(
            self._context, zmq.DEALER, keys or CurveKeys.generate(), frame_bytes_max=1 << 23, high_water_mark=10_000
        )
        connect_client(self.socket, z85_encode(member.curve_key), tcp_endpoint(member.host, member.client_port))
        self.socket.sndtimeo = int(PATIENCE_S * 1000)
        self._answers: list[ClientAnswer] = []

    def send(self, *messages: ClientRequest) -> None:
        self.socket.send(b"".join(self.wire.encode_client(message) for message in messages))

    def receive(self, seconds: float = PATIENCE_S) -> ClientAnswer | None:
        """The next answer; None when there is none in time."""
        if not self._answers:
            if not self.socket.poll(seconds * 1000):
                return None
            self._answers = self.wire.decode_answer_frame(self.socket.recv())
        return self._answers.pop(0)

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self._context.term()
