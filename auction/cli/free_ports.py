"""Ports for a scratch cluster: free now, and outside the range from which the kernel gives out its own."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from auction.cli.failure import ExitCode, Failure
from nodes.testnet import PORTS_PER_NODE, NodePorts

LOWEST = 20_000
HIGHEST = 60_999
_TRIES = 2_000


def free_node_ports(host: str, nodes: int) -> list[NodePorts]:
    """Distinct ports of `host` that can be bound now, five a node."""
    chosen: list[int] = []
    generator = random.SystemRandom()
    highest = _ephemeral_start() - 1
    for _ in range(_TRIES):
        if len(chosen) == nodes * PORTS_PER_NODE:
            break
        port = generator.randint(LOWEST, highest)
        if port not in chosen and _is_free(host, port):
            chosen.append(port)
    else:
        raise Failure(ExitCode.USAGE, "no_ports", f"not enough free ports between {LOWEST} and {highest} on {host}")
    groups = zip(*[iter(chosen)] * PORTS_PER_NODE, strict=True)
    return [NodePorts(*group) for group in groups]


def _ephemeral_start() -> int:
    """First port that the kernel gives to outgoing connections (it would race with ours)."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except OSError:
        return HIGHEST + 1
    return first if first > LOWEST + 1_000 else HIGHEST + 1


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        try:
            trial.bind((host, port))
        except OSError:
            return False
        return True
