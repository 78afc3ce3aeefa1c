"""A real cluster configuration, keys and log for the parts of a replica."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.config import ClusterConfig, Member
from nodes.core.types import ReplicaId
from nodes.keys import CurveKeys, SigningKey
from nodes.wal import LogIdentity, Wal
from nodes.wire import Wire

MEMBERS = 4


@pytest.fixture(scope="session")
def signing_keys() -> list[SigningKey]:
    return [SigningKey(bytes([number + 1]) * 32) for number in range(MEMBERS)]


@pytest.fixture(scope="session")
def wire(signing_keys: list[SigningKey]) -> Wire:
    members = [
        Member(
            replica=ReplicaId(number),
            name=f"node{number}",
            identity_key=SigningKey(bytes([number + 101]) * 32).public_key,
            consensus_key=key.public_key,
            curve_key=CurveKeys.generate().public,
            host="127.0.0.1",
            peer_port=30_000 + 10 * number,
            bulk_port=30_001 + 10 * number,
            client_port=30_002 + 10 * number,
            https_port=30_003 + 10 * number,
        )
        for number, key in enumerate(signing_keys)
    ]
    return Wire(
        ClusterConfig.new(members=members, genesis_time_us=1, application="counter", application_genesis={"start": 0})
    )


@pytest.fixture
def wal(wire: Wire, tmp_path: Path) -> Iterator[Wal]:
    log = Wal(tmp_path / "wal", LogIdentity(wire.cluster.cluster_id, 1, bytes(16), 1), segment_bytes=1 << 20)
    assert list(log.replay()) == []
    yield log
    log.close()
