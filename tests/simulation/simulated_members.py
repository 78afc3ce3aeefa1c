"""Clusters, keys and requests that are the same in every run: everything follows from small integers."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from nodes.config import ClusterConfig, Member, Parameters
from nodes.core.ready import Check
from nodes.core.types import ReplicaId, Request
from nodes.keys import SigningKey
from nodes.wire import Wire, build_request

GENESIS_US = 1_800_000_000_000_000
"""Wall time at which every simulation begins."""


@lru_cache(maxsize=1024)
def key_of(kind: str, number: int) -> SigningKey:
    return SigningKey(hashlib.sha256(f"{kind} {number}".encode()).digest())


@lru_cache(maxsize=64)
def cluster_of(n: int, parameters: Parameters | None = None) -> ClusterConfig:
    members = [
        Member(
            replica=ReplicaId(replica),
            name=f"node{replica}",
            identity_key=key_of("identity", replica).public_key,
            consensus_key=key_of("consensus", replica).public_key,
            curve_key=hashlib.sha256(f"curve {replica}".encode()).digest(),
            host="127.0.0.1",
            peer_port=20000 + 4 * replica,
            bulk_port=20001 + 4 * replica,
            client_port=20002 + 4 * replica,
            https_port=20003 + 4 * replica,
        )
        for replica in range(n)
    ]
    return ClusterConfig.new(
        members=members,
        genesis_time_us=GENESIS_US,
        application="simulation",
        application_genesis={},
        parameters=parameters,
    )


class Verifier:
    """`Wire.verify_checks` with a memory: replicas of one simulation share what was verified once."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._signatures: dict[tuple[int, bytes, bytes], int] = {}
        self._requests: dict[bytes, int] = {}
        self.verified = 0

    def flags(self, check: Check) -> bytes:
        flags = bytearray()
        for item in check.signatures:
            statement = self.wire.signed_bytes(item.message)
            key = (item.signer, statement, item.message.signature)
            if key not in self._signatures:
                self.verified += 1
                self._signatures[key] = self.wire.verify_checks(Check(0, (item,), ()))[0]
            flags.append(self._signatures[key])
        flags += bytes(self.request(request) for request in check.requests)
        return bytes(flags)

    def request(self, request: Request) -> int:
        if request.leaf not in self._requests:
            self.verified += 1
            self._requests[request.leaf] = int(self.wire.verify_request(request))
        return self._requests[request.leaf]


def request_of(
    wire: Wire, client: int, sequence: int, valid_until_us: int, operation: bytes = b"op", session: int = 1
) -> Request:
    record = build_request(
        key_of("client", client),
        wire.domain.cluster_id,
        session=session,
        sequence=sequence,
        floor=1,
        valid_until_us=valid_until_us,
        operation=operation,
    )
    return wire.parse_record(record)
