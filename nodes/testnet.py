"""Everything that a new cluster needs on disk: keys, certificates, genesis and one folder a node.

Always: a node's folder holds its own secrets and nobody else's, so it can be handed to one organisation
as it is; secrets have mode 0600 in folders of mode 0700; the whole appears at once or not at all.
Knows no application: its genesis and its Python class are passed in. Deliberately elsewhere: who the
users are (the application's genesis names them), starting the nodes (`nodes.supervisor`).

    DIR/genesis.json ca.pem ca.key clients/NAME.key
    DIR/nodeN/{node.toml genesis.json ca.pem consensus.key identity.key curve.key tls.key tls.pem data/}
"""

from __future__ import annotations

import datetime
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodes.config import ClusterConfig, HttpsFiles, KeyFiles, Listen, Member, NodeConfig, Parameters
from nodes.config.node import Executor
from nodes.core.types import ReplicaId
from nodes.keys import Authority, CurveKeys, SigningKey, write_new_file, write_secret_file

IPC_PATH_BYTES_MAX = 107
"""Linux's sun_path without its final NUL: the sockets under data/ must fit."""
PORTS_PER_NODE = 5
PORT_STRIDE = 10


@dataclass(frozen=True, slots=True)
class NodePorts:
    peer: int
    bulk: int
    client: int
    https: int
    metrics: int


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What the operator decides about one node. `host`: where the others and the clients find it."""

    name: str
    host: str
    ports: NodePorts
    listen_host: str
    metrics_host: str = "127.0.0.1"
    database_url: str = "sqlite:///data/node.sqlite"
    certificate_hosts: tuple[str, ...] = ()
    """Further names and addresses for which its HTTPS certificate holds."""


@dataclass(frozen=True, slots=True)
class Application:
    """What is replicated. `machine` is module:Class of its StateMachine."""

    name: str
    machine: str
    version: int
    genesis: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Testnet:
    """What was made. `nodes`: each node's folder, by replica id; `clients`: key files by name."""

    __test__ = False

    folder: Path
    cluster: ClusterConfig
    nodes: tuple[Path, ...]
    clients: Mapping[str, Path]

    @property
    def genesis(self) -> Path:
        return self.folder / "genesis.json"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.pem"


def consecutive_ports(base_port: int, nodes: int) -> list[NodePorts]:
    """Ports base_port + 10 * replica + 0..4. ValueError when they do not fit below 65,536."""
    last = base_port + (nodes - 1) * PORT_STRIDE + PORTS_PER_NODE - 1
    if base_port < 1 or last > 65_535:
        raise ValueError(f"ports {base_port} to {last} are not all between 1 and 65535")
    return [NodePorts(*range(first, first + PORTS_PER_NODE)) for first in range(base_port, last + 1, PORT_STRIDE)]


def https_url(host: str, port: int) -> str:
    """Base URL of a gateway."""
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def create_testnet(
    folder: Path,
    *,
    plans: Sequence[NodePlan],
    application: Application,
    clients: Mapping[str, SigningKey],
    parameters: Parameters | None = None,
    executor: Executor = "process",
    genesis_time_us: int | None = None,
) -> Testnet:
    """Make the folder. FileExistsError when it exists and is not empty, ConfigError when a plan makes no sense."""
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not empty")
    for index in range(len(plans)):
        _check_ipc_path(folder / f"node{index}" / "data" / "executor.ipc")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    partial.mkdir(mode=0o700)
    try:
        cluster = _write(partial, plans, application, clients, parameters, executor, genesis_time_us)
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return Testnet(
        folder,
        cluster,
        tuple(folder / f"node{index}" for index in range(len(plans))),
        {name: folder / "clients" / f"{name}.key" for name in clients},
    )


def _check_ipc_path(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > IPC_PATH_BYTES_MAX:
        raise ValueError(f"{path} is {length} bytes long, over {IPC_PATH_BYTES_MAX} for a socket; use a shorter folder")


def _write(
    folder: Path,
    plans: Sequence[NodePlan],
    application: Application,
    clients: Mapping[str, SigningKey],
    parameters: Parameters | None,
    executor: Executor,
    genesis_time_us: int | None,
) -> ClusterConfig:
    authority = Authority.generate(f"{application.name} cluster", now=datetime.datetime.now(datetime.UTC))
    members = []
    gateways = []
    for index, plan in enumerate(plans):
        node = folder / f"node{index}"
        members.append(_write_node_secrets(node, ReplicaId(index), plan, authority))
        gateway = CurveKeys.generate()
        gateway.save(node / "gateway.key")
        gateways.append(gateway.public)
    cluster = ClusterConfig.new(
        members=members,
        genesis_time_us=genesis_time_us or time.time_ns() // 1_000,
        application=application.name,
        application_version=application.version,
        application_genesis=application.genesis,
        parameters=parameters,
    )
    genesis = cluster.to_bytes()
    for index, plan in enumerate(plans):
        node = folder / f"node{index}"
        write_new_file(node / "genesis.json", genesis)
        write_new_file(node / "ca.pem", authority.certificate)
        config = _node_config(node, ReplicaId(index), plan, application, executor, tuple(gateways))
        write_secret_file(node / "node.toml", config.to_toml(node).encode("utf-8"))
    write_new_file(folder / "genesis.json", genesis)
    write_new_file(folder / "ca.pem", authority.certificate)
    write_secret_file(folder / "ca.key", authority.key)
    (folder / "clients").mkdir(mode=0o700)
    for name, key in clients.items():
        key.save(folder / "clients" / f"{name}.key")
    return cluster


def _write_node_secrets(node: Path, replica: ReplicaId, plan: NodePlan, authority: Authority) -> Member:
    node.mkdir(mode=0o700)
    (node / "data").mkdir(mode=0o700)
    identity, consensus, curve = SigningKey.generate(), SigningKey.generate(), CurveKeys.generate()
    identity.save(node / "identity.key")
    consensus.save(node / "consensus.key")
    curve.save(node / "curve.key")
    hosts = tuple(dict.fromkeys((plan.host, *plan.certificate_hosts)))
    certificate = authority.issue(plan.name, hosts, now=datetime.datetime.now(datetime.UTC))
    certificate.save(node / "tls.pem", node / "tls.key")
    return Member(
        replica=replica,
        name=plan.name,
        identity_key=identity.public_key,
        consensus_key=consensus.public_key,
        curve_key=curve.public,
        host=plan.host,
        peer_port=plan.ports.peer,
        bulk_port=plan.ports.bulk,
        client_port=plan.ports.client,
        https_port=plan.ports.https,
    )


def _node_config(
    node: Path,
    replica: ReplicaId,
    plan: NodePlan,
    application: Application,
    executor: Executor,
    gateways: tuple[bytes, ...],
) -> NodeConfig:
    return NodeConfig(
        replica=replica,
        gateways=gateways,
        genesis=node / "genesis.json",
        keys=KeyFiles(
            consensus=node / "consensus.key",
            curve=node / "curve.key",
            identity=node / "identity.key",
            gateway=node / "gateway.key",
        ),
        https=HttpsFiles(certificate=node / "tls.pem", key=node / "tls.key", authority=node / "ca.pem"),
        data_dir=node / "data",
        database_url=plan.database_url,
        application=application.machine,
        executor=executor,
        listen=Listen(
            peer_host=plan.listen_host,
            client_host=plan.listen_host,
            https_host=plan.listen_host,
            metrics_host=plan.metrics_host,
            metrics_port=plan.ports.metrics,
        ),
    )
