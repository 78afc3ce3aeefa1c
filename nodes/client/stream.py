"""The stream of attested blocks: (sequence, block hash) once q replicas have signed it.

Always: numbers only rise; a block is reported once. Blocks may be skipped (a frame was lost, or the client
was slow): whoever needs each one asks for it by number. Bounded: of each replica the newest
`PER_REPLICA_MAX` attestations are kept, so that none can push out another's.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from nodes.client.attestations import AttestationChecker, BlockKey
from nodes.client.proof import Misbehaviour
from nodes.core.messages import Attest

PER_REPLICA_MAX = 512
REPORTED_MAX = 4096
"""Blocks waiting to be read; the oldest are dropped."""


class AttestedBlocks:
    """Tallies pushed attestations."""

    def __init__(self, replicas: int, quorum: int) -> None:
        self._quorum = quorum
        self._claims: list[OrderedDict[int, tuple[BlockKey, bytes]]] = [OrderedDict() for _ in range(replicas)]
        self._reported: deque[tuple[int, bytes]] = deque(maxlen=REPORTED_MAX)
        self.last = 0
        """Newest sequence number reported."""

    def add(self, replica: int, attest: Attest, checker: AttestationChecker) -> list[Misbehaviour]:
        """Count one; returns who forged, found out when q claimed the same."""
        key = BlockKey(attest.sequence, attest.order_hash, attest.block_hash)
        claims = self._claims[replica]
        if key.sequence <= self.last or key.sequence in claims:
            return []
        claims[key.sequence] = (key, attest.signature)
        if len(claims) > PER_REPLICA_MAX:
            claims.popitem(last=False)
        voters: dict[int, bytes] = {}
        for other, others in enumerate(self._claims):
            claimed, signature = others.get(key.sequence, (None, b""))
            if claimed == key:
                voters[other] = signature
        if len(voters) < self._quorum:
            return []
        good, forged = checker.genuine(key, voters)
        for liar in forged:
            del self._claims[liar][key.sequence]
        if len(good) >= self._quorum:
            self.last = key.sequence
            self._reported.append((key.sequence, key.block_hash))
            for others in self._claims:
                for sequence in [one for one in others if one <= self.last]:
                    del others[sequence]
        return [Misbehaviour(liar, "bad_attestation") for liar in forged]

    def take(self) -> list[tuple[int, bytes]]:
        """Blocks reported since the last call, ascending."""
        blocks = list(self._reported)
        self._reported.clear()
        return blocks
