"""Putting a replica together from its configuration, and taking it apart in order.

Exit codes follow sysexits.h: 78 a configuration that cannot be used, 65 a damaged log, 74 a failed
disk (`nodes.wal`), 70 a bug of ours; 0 after SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import gc
import os
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
import zmq

from nodes.config import ClusterConfig, ConfigError, NodeConfig
from nodes.core.options import CoreOptions
from nodes.core.order import ExecutorAhead, ExecutorBehind
from nodes.core.recovery import BrokenLog
from nodes.core.replica import Replica
from nodes.executor.executor import DatabaseUnavailable, Executor, ExecutorStopped
from nodes.executor.process import load_machine
from nodes.executor.store import DatabaseRefused
from nodes.keys import CurveKeys, KeyFileError, SigningKey
from nodes.lifetime import die_with_parent
from nodes.logs import configure_logs
from nodes.replica.durability import Journal
from nodes.replica.executor_port import ExecutorPort, InlinePort, ProcessPort
from nodes.replica.loop import Loop
from nodes.replica.metrics import serve_metrics
from nodes.transport import ClientSocket, Mesh, PeerAddress, check_user_ids, tcp_endpoint
from nodes.wal import LogIdentity, Wal, WalCorrupt, WalError
from nodes.wire import Wire, WireError

EXIT_DATA, EXIT_BUG, EXIT_CONFIG = 65, 70, 78

log = structlog.get_logger(__name__)


def core_options(node: NodeConfig, cluster: ClusterConfig) -> CoreOptions:
    """What the core is told; both arguments have been checked."""
    parameters, timeouts = cluster.parameters, node.timeouts
    return CoreOptions(
        n=cluster.n,
        me=node.replica,
        cluster_id=cluster.cluster_id,
        epoch=cluster.epoch,
        config_hash=cluster.config_hash,
        window=parameters.window,
        checkpoint_interval=parameters.checkpoint_interval,
        validity_max_us=parameters.validity_max_us,
        batch_bytes_max=parameters.batch_bytes_max,
        batch_requests_max=parameters.batch_requests_max,
        pipeline=node.pipeline,
        sync_prepare=node.sync_prepare,
        clock_future_us=timeouts.future_ms * 1000,
        clock_past_us=timeouts.past_ms * 1000,
        request_timeout_us=timeouts.request_ms * 1000,
        forward_after_us=timeouts.forward_ms * 1000,
        status_interval_us=timeouts.status_ms * 1000,
    )


def load_keys(node: NodeConfig, cluster: ClusterConfig) -> tuple[SigningKey, CurveKeys]:
    """This member's keys; ConfigError when they are not those of the genesis."""
    if node.replica >= cluster.n:
        raise ConfigError("replica", f"{node.replica}, of {cluster.n} members", "use the node.toml of this cluster")
    member = cluster.members[node.replica]
    key, curve = SigningKey.load(node.keys.consensus), CurveKeys.load(node.keys.curve)
    for name, mine, genesis in (
        ("consensus", key.public_key, member.consensus_key),
        ("curve", curve.public, member.curve_key),
    ):
        if mine != genesis:
            raise ConfigError(f"keys.{name}", "not the key of this member in the genesis", "use its own key file")
    return key, curve


def open_core(node: NodeConfig, wire: Wire) -> tuple[Replica, Journal]:
    """Replay the log into a new core. WalError, WireError, BrokenLog."""
    cluster = wire.cluster
    identity = LogIdentity(cluster.cluster_id, node.replica, secrets.token_bytes(16), time.time_ns() // 1000)
    wal = Wal(node.wal_dir, identity)
    try:
        records = (wire.decode_record(record.type, record.payload) for record in wal.replay())
        core = Replica(core_options(node, cluster), records)
        return core, Journal(wal, wire)
    except BaseException:
        wal.close()
        raise


def open_mesh(node: NodeConfig, cluster: ClusterConfig, curve: CurveKeys) -> Mesh:
    me = cluster.members[node.replica]
    return Mesh(
        curve,
        [
            PeerAddress(
                member.replica,
                member.curve_key,
                tcp_endpoint(member.host, member.peer_port),
                tcp_endpoint(member.host, member.bulk_port),
            )
            for member in cluster.members
            if member.replica != node.replica
        ],
        bind_control=tcp_endpoint(node.listen.peer_host, me.peer_port),
        bind_bulk=tcp_endpoint(node.listen.peer_host, me.bulk_port),
    )


def run(node: NodeConfig, stop_fd: int) -> None:
    """Run the replica until `stop_fd` is readable."""
    cluster = ClusterConfig.load(node.genesis)
    key, curve = load_keys(node, cluster)
    check_user_ids()
    wire = Wire(cluster)
    started = time.monotonic()
    core, journal = open_core(node, wire)
    status = core.status()
    log.info(
        "log_replayed",
        records=journal.wal.last_lsn,
        committed=status.last_committed,
        stable=status.stable,
        torn_bytes=journal.wal.torn_bytes,
        took_ms=int((time.monotonic() - started) * 1000),
    )
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    port: ExecutorPort
    if node.executor == "inline":
        machine = load_machine(node.application)
        port = InlinePort(Executor(cluster, machine, node.database_url, node.replica, data_dir=node.data_dir))
    else:
        port = ProcessPort(context, node.executor_endpoint)
    member = cluster.members[node.replica]
    loop = Loop(
        node=node,
        wire=wire,
        key=key,
        core=core,
        journal=journal,
        mesh=open_mesh(node, cluster, curve),
        client_socket=ClientSocket(curve, tcp_endpoint(node.listen.client_host, member.client_port)),
        port=port,
        stop_fd=stop_fd,
    )
    stop_metrics: Callable[[], None] | None = None
    if node.listen.metrics_port:
        stop_metrics = serve_metrics(node.listen.metrics_host, node.listen.metrics_port, lambda: loop.status)
    gc.collect()
    gc.freeze()  # what was made so far stays; the collector need not look at it again
    log.info("replica_started", name=member.name, cluster_id=cluster.cluster_id.hex(), executor=node.executor)
    try:
        loop.run()
    finally:
        if stop_metrics is not None:
            stop_metrics()
        loop.close()
        context.term()
    log.info("replica_stopped")


def main(arguments: Sequence[str] | None = None) -> int:
    """The process. Returns its exit code."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m nodes.replica", description="Run one replica.")
    parser.add_argument("--config", type=Path, required=True, help="node.toml of this node")
    path: Path = parser.parse_args(arguments).config
    stop_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.eventfd_write(stop_fd, 1))
    try:
        node = NodeConfig.load(path)
    except (ConfigError, OSError) as error:
        log.error("configuration_refused", problem=str(error))
        return EXIT_CONFIG
    configure_logs("replica", node.replica, node.log_level)
    try:
        run(node, stop_fd)
    except (ConfigError, KeyFileError) as error:
        log.error("configuration_refused", problem=str(error))
        return EXIT_CONFIG
    except (WalCorrupt, WireError, BrokenLog) as error:
        log.error(
            "log_damaged",
            problem=str(error),
            fix="this replica can no longer prove what it promised: keep the files, and have an operator replace it",
        )
        return EXIT_DATA
    except (DatabaseRefused, DatabaseUnavailable, ExecutorStopped) as error:
        log.error("database_cannot_be_used", problem=str(error))
        return EXIT_DATA
    except (ExecutorAhead, ExecutorBehind) as error:
        log.error("database_does_not_fit_log", problem=str(error))
        return EXIT_DATA
    except (WalError, OSError, zmq.ZMQError) as error:
        log.error("replica_cannot_run", problem=f"{type(error).__name__}: {error}")
        return EXIT_BUG if isinstance(error, zmq.ZMQError) else EXIT_CONFIG
    except Exception:
        log.exception("replica_failed")
        return EXIT_BUG
    return 0
