"""Collecting equal answers to one query: quorum, certified and local reads (protocol.md section 17).

Always: a share is signed over our nonce, so it was made after we asked; of each replica only the newest
share counts, and a share of an earlier attempt with the same nonce is as good as one of a later attempt,
for both were made after the query began. The result's bytes are hashed here, never trusted. Deliberately
elsewhere: attempts and their timing (`nodes.client.pending`), the signed bytes (`nodes.wire.reads`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import fastpath
from nodes.core.types import ReplicaId
from nodes.wire import ReadShare, Wire


class Consistency(StrEnum):
    """What equal answers are asked for."""

    QUORUM = "quorum"
    """q equal results: linearizable."""
    CERTIFIED = "certified"
    """q equal results that also agree on the executed block: a snapshot "as of block s"."""
    LOCAL = "local"
    """One replica's word, without any guarantee."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The canonical JSON bytes of an answer, and the shares (replica, share without result) that vouch for it."""

    result: bytes
    shares: tuple[tuple[int, ReadShare], ...]
    nonce: bytes
    consistency: Consistency

    @property
    def digest(self) -> bytes:
        """SHA-256 of the result."""
        return fastpath.sha256(self.result)

    @property
    def executed(self) -> int:
        """The lowest block among the shares: the answer is at least as new as this."""
        return min(share.executed for _, share in self.shares)


def share_to_json(replica: int, share: ReadShare) -> dict[str, Any]:
    """A share for JSON: integers and lower-case hex."""
    return {
        "replica": replica,
        "query_digest": share.read_digest.hex(),
        "result_digest": share.result_hash.hex(),
        "sequence": share.executed,
        "block_hash": share.block_hash.hex(),
        "block_time_us": share.time_us,
        "leaf_index": share.leaf_index,
        "leaf_count": share.leaf_count,
        "path": [share.path[at : at + 32].hex() for at in range(0, len(share.path), 32)],
        "signature": share.signature.hex(),
    }


@dataclass(slots=True)
class ReadTally:
    """Shares for one nonce."""

    wire: Wire
    nonce: bytes
    digest: bytes
    """The read digest that every share must name."""
    consistency: Consistency
    ignored: dict[int, str] = field(default_factory=dict)
    """Replicas whose answers are not used any more, and why."""
    _shares: dict[int, ReadShare] = field(default_factory=dict)
    _verified: dict[int, ReadShare] = field(default_factory=dict)
    _results: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def needed(self) -> int:
        return 1 if self.consistency is Consistency.LOCAL else self.wire.cluster.quorum

    def add(self, replica: int, share: ReadShare) -> None:
        """Take a replica's newest share and, if it sent one, the result."""
        if replica in self.ignored:
            return
        if share.read_digest != self.digest:
            self._ignore(replica, "other_query")
            return
        if share.result is not None:
            if fastpath.sha256(share.result) != share.result_hash:
                self._ignore(replica, "bad_result")
                return
            self._results[share.result_hash] = share.result
        self._shares[replica] = replace(share, result=None)
        named = {one.result_hash for one in self._shares.values()}
        self._results = {digest: result for digest, result in self._results.items() if digest in named}

    def answered(self) -> int:
        """Replicas that gave a share that still counts."""
        return len(self._shares)

    def agreement(self) -> tuple[list[tuple[int, ReadShare]], bytes | None] | None:
        """(shares, result or None when nobody sent it yet) once enough genuine shares are equal."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for replica, share in sorted(self._shares.items()):
            name: tuple[object, ...] = (share.result_hash,)
            if self.consistency is Consistency.CERTIFIED:
                name += (share.executed, share.block_hash)
            groups.setdefault(name, []).append(replica)
        for replicas in groups.values():
            if len(replicas) < self.needed:
                continue
            genuine = [(replica, self._shares[replica]) for replica in replicas if self._genuine(replica)]
            if len(genuine) >= self.needed:
                return genuine, self._results.get(genuine[0][1].result_hash)
        return None

    def _genuine(self, replica: int) -> bool:
        share = self._shares[replica]
        if self._verified.get(replica) == share:
            return True
        if self.wire.verify_share(share, ReplicaId(replica)):
            self._verified[replica] = share
            return True
        self._ignore(replica, "bad_share")
        return False

    def _ignore(self, replica: int, code: str) -> None:
        self.ignored.setdefault(replica, code)
        self._shares.pop(replica, None)
