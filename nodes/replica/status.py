"""The status document: what a replica says about itself. JSON, unsigned, local knowledge, no secrets.

Field names are an interface (`arremate status`, the gateway, tests); times are milliseconds, sizes bytes.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass, field
from typing import Any

import fastpath
from nodes.core.messages import Attest
from nodes.core.types import ReplicaId

STALL_US = 100_000
"""A turn of the loop longer than this has kept votes waiting."""


@dataclass(slots=True)
class PeerHealth:
    """What is known of one peer's links."""

    heard_us: int | None = None
    """Monotonic time of its last frame."""
    frames: int = 0
    refused_frames: int = 0
    """Frames that `nodes.wire` refused."""


@dataclass(slots=True)
class ExecutorHealth:
    """The executor as this replica sees it."""

    is_known: bool = False
    sequence: int = 0
    """Last block it has executed."""
    time_us: int = 0
    """Time of that block."""
    block_hash: bytes = b""
    state_sequence: int = 0
    state_root: bytes = b""
    build: str = ""
    database: str = ""
    restarts: int = 0
    alarm: str = ""


@dataclass(slots=True)
class LoopHealth:
    started_us: int = 0
    turns: int = 0
    stalls: int = 0
    stall_us_max: int = 0
    faults: dict[tuple[ReplicaId, str], int] = field(default_factory=dict)
    """Misbehaviour by replica and kind; bounded, as both are."""
    attested: Attest | None = None
    """Own attestation sent last."""

    def note_turn(self, took_us: int) -> None:
        self.turns += 1
        if took_us > STALL_US:
            self.stalls += 1
            self.stall_us_max = max(self.stall_us_max, took_us)


def software_version() -> str:
    """Of the installed distribution; "source" when run from a checkout."""
    try:
        return importlib.metadata.version("arremate")
    except importlib.metadata.PackageNotFoundError:
        return "source"


VERSION = software_version()


def executor_status(executor: ExecutorHealth, last_committed: int) -> dict[str, Any]:
    return {
        "ready": executor.is_known,
        "sequence": executor.sequence,
        "lag": max(0, last_committed - executor.sequence),
        "fastpath": executor.build,
        "database": executor.database,
        "starts": executor.restarts,
        "alarm": executor.alarm,
    }


def peer_status(replica: ReplicaId, name: str, peer: PeerHealth, now_us: int) -> dict[str, Any]:
    return {
        "replica": replica,
        "name": name,
        "heard_ms": None if peer.heard_us is None else (now_us - peer.heard_us) // 1000,
        "frames": peer.frames,
        "refused_frames": peer.refused_frames,
    }


def loop_status(loop: LoopHealth, now_us: int) -> dict[str, Any]:
    return {
        "uptime_ms": (now_us - loop.started_us) // 1000,
        "turns": loop.turns,
        "stalls": loop.stalls,
        "stall_ms_max": loop.stall_us_max // 1000,
    }


def software_status() -> dict[str, Any]:
    return {"version": VERSION, "fastpath": fastpath.BUILD}
