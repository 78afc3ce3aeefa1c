"""Collecting the proof of one operation: q attestations of one block, and our leaf in it.

Always: a replica's vote is (block, index); it counts once per such pair and only with a genuine ATTEST
signature; a leaf counts only when its Merkle path leads to the results root of a header that hashes to the
attested block hash. So no f replicas, whatever they send, can make a proof. Deliberately elsewhere: when to
send again (`nodes.client.core`), the file format (`nodes.receipt`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import fastpath
from nodes.block import BlockHeader, result_leaf
from nodes.client.attestations import AttestationChecker, BlockKey

CANDIDATES_MAX = 4
"""Different (block, index) pairs one replica may name for one digest: the original and a few duplicates."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A result and its place, its path checked against `header`."""

    header: BlockHeader
    index: int
    status: int
    result: bytes
    path: bytes
    record: bytes
    """The request or timer record when it was asked for, else empty."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A leaf and at least q genuine attestations of its block."""

    leaf: Leaf
    attestations: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Misbehaviour:
    """Something a correct replica never sends."""

    replica: int
    code: str


def leaf_in_block(
    header: BlockHeader, digest: bytes, index: int, status: int, result: bytes, path: bytes, record: bytes
) -> Leaf | None:
    """The leaf, or None when the path does not lead to the header's results root."""
    try:
        hashed = result_leaf(header.sequence, index, digest, status, result)
        root = fastpath.merkle_fold(hashed, index, header.result_count, path)
    except ValueError:
        return None
    return Leaf(header, index, status, result, path, record) if root == header.results_root else None


Candidate = tuple[BlockKey, int]


@dataclass(slots=True)
class ProofTally:
    """Votes and leaves for one digest."""

    digest: bytes
    quorum: int
    _votes: dict[Candidate, dict[int, bytes]] = field(default_factory=dict)
    _leaves: dict[Candidate, Leaf] = field(default_factory=dict)
    _set_aside: set[Candidate] = field(default_factory=set)
    ignored: dict[int, str] = field(default_factory=dict)
    """Replicas whose answers about this digest are not used any more, and why."""

    def vote(self, replica: int, key: BlockKey, index: int, signature: bytes) -> None:
        """Count a replica's statement that the digest is at `index` of the block. Unverified so far."""
        candidate = (key, index)
        if replica in self.ignored or candidate in self._set_aside:
            return
        voters = self._votes.get(candidate)
        if voters is None:
            if sum(replica in other for other in self._votes.values()) >= CANDIDATES_MAX:
                self.ignore(replica, "too_many_blocks")
                return
            voters = self._votes[candidate] = {}
        elif replica not in voters and sum(replica in other for other in self._votes.values()) >= CANDIDATES_MAX:
            self.ignore(replica, "too_many_blocks")
            return
        voters.setdefault(replica, signature)

    def add_leaf(self, key: BlockKey, leaf: Leaf) -> None:
        """A checked leaf of a block that hashes to the key's block hash. A record replaces a leaf without one."""
        candidate = (key, leaf.index)
        if candidate in self._votes and (candidate not in self._leaves or leaf.record):
            self._leaves[candidate] = leaf

    def ignore(self, replica: int, code: str) -> None:
        """The replica lied: forget its votes for this digest."""
        self.ignored.setdefault(replica, code)
        for voters in self._votes.values():
            voters.pop(replica, None)

    def set_aside(self, leaf: Leaf) -> None:
        """This leaf (a DUPLICATE) is proven but is not the one that is wanted."""
        for candidate in [one for one in self._leaves if self._leaves[one] is leaf]:
            self._set_aside.add(candidate)
            del self._leaves[candidate]
            self._votes.pop(candidate, None)

    def voted(self) -> set[int]:
        """Replicas that have named a block, all candidates together."""
        return {replica for voters in self._votes.values() for replica in voters}

    def conclude(self, checker: AttestationChecker, *, with_record: bool) -> tuple[Proof | None, list[int]]:
        """(proof, []) when there is one; else (None, voters of a proven block whose leaf is missing).

        Signatures are verified here, when q replicas claim the same. Forgers are ignored from then on, and
        so is whoever puts the digest elsewhere in a proven block or names another block of its number.
        """
        for candidate, voters in list(self._votes.items()):
            key, _index = candidate
            if len(voters) < self.quorum:
                continue
            good, forged = checker.genuine(key, voters)
            for replica in forged:
                self.ignore(replica, "bad_attestation")
            if len(good) < self.quorum:
                continue
            leaf = self._leaves.get(candidate)
            if leaf is None or (with_record and not leaf.record):
                return None, good
            self._blame_contradiction(candidate)
            return Proof(leaf, tuple((replica, voters[replica]) for replica in good)), []
        return None, []

    def _blame_contradiction(self, proven: Candidate) -> None:
        key, index = proven
        for (other, other_index), voters in list(self._votes.items()):
            if other.sequence != key.sequence or (other, other_index) == proven:
                continue
            code = "wrong_index" if other == key and other_index != index else "other_block"
            for replica in list(voters):
                self.ignore(replica, code)
