"""Which attestations of a block are genuine, each signature verified at most once.

Always: a signature counts only for the replica whose channel it came through, for one exact
(sequence, order hash, block hash). Verification is put off until enough claims are there to matter, so
that an answer costs q verifications a block and not one an operation. The cache is bounded: losing an entry
costs one more verification, nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import fastpath
from nodes.core.messages import Attest
from nodes.core.types import SequenceNumber
from nodes.wire import Wire

CACHE_MAX = 8192
"""Verified signatures remembered: the last some 2,000 blocks of four replicas."""


class BlockKey(NamedTuple):
    """What an attestation is about."""

    sequence: int
    order_hash: bytes
    block_hash: bytes


class AttestationChecker:
    """Verifies ATTEST signatures of one cluster; pure but for its cache."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._keys = tuple(member.consensus_key for member in wire.cluster.members)
        self._known: OrderedDict[tuple[BlockKey, int, bytes], bool] = OrderedDict()

    def genuine(self, key: BlockKey, claims: Mapping[int, bytes]) -> tuple[list[int], list[int]]:
        """Split the claims {replica: signature} for a block into (genuine, forged), both ascending."""
        unknown = [one for one in claims.items() if (key, *one) not in self._known]
        judged = {replica: self._known.get((key, replica, signature), False) for replica, signature in claims.items()}
        if unknown:
            attest = Attest(self._wire.cluster.epoch, SequenceNumber(key.sequence), key.order_hash, key.block_hash)
            statement = self._wire.signed_bytes(attest)
            flags = fastpath.verify_many(
                [(self._keys[replica], statement, signature) for replica, signature in unknown]
            )
            for (replica, signature), flag in zip(unknown, flags, strict=True):
                judged[replica] = self._known[key, replica, signature] = flag == 1
            while len(self._known) > CACHE_MAX:
                self._known.popitem(last=False)
        good = [replica for replica in sorted(judged) if judged[replica]]
        return good, [replica for replica in sorted(judged) if not judged[replica]]
