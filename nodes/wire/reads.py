"""Quorum reads: what a replica signs for an answer, and how a client checks it. Pure functions."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import fastpath
from nodes.block import BlockHeader, result_leaf
from nodes.core.types import ReplicaId
from nodes.wire import signed
from nodes.wire.client import ReadShare, Reply, ReplyEntry

_LEAF = struct.Struct("<8s16s32s32sQ32sQ")
_LENGTH = struct.Struct("<I")
_NOBODY = bytes(32)


def read_digest(query: bytes, caller: bytes | None) -> bytes:
    """Identity of a query as asked by `caller` (public key; None: anonymous)."""
    return fastpath.tagged_hash(b"QUERY", _LENGTH.pack(len(query)), query, caller or _NOBODY)


def share_leaf(
    nonce: bytes, digest: bytes, result_hash: bytes, executed: int, block_hash: bytes, time_us: int
) -> bytes:
    """Merkle leaf of one share: 32 bytes; the replica signs the root over up to 256 of them."""
    return fastpath.leaf_hash(_LEAF.pack(b"SHARE", nonce, digest, result_hash, executed, block_hash, time_us))


def share_root(share: ReadShare) -> bytes | None:
    """The root that the share's path leads to; None when path or result do not fit the share."""
    if share.result is not None and fastpath.sha256(share.result) != share.result_hash:
        return None
    leaf = share_leaf(
        share.nonce, share.read_digest, share.result_hash, share.executed, share.block_hash, share.time_us
    )
    try:
        return fastpath.merkle_fold(leaf, share.leaf_index, share.leaf_count, share.path)
    except ValueError:
        return None


def share_is_signed(share: ReadShare, cluster_id: bytes, epoch: int, public_key: bytes) -> bool:
    """Is the share signed by the replica with this consensus key?"""
    root = share_root(share)
    if root is None or len(share.signature) != 64:
        return False
    return fastpath.verify(public_key, signed.read_root_bytes(cluster_id, epoch, root), share.signature)


def equal_shares(shares: Mapping[ReplicaId, ReadShare], *, certified: bool) -> list[ReplicaId]:
    """The largest set of replicas whose (verified) shares agree, ascending.

    They agree on query and result; with `certified` also on the block that the result is the state of.
    Between sets of equal size, the one that the first share in `shares` belongs to.
    """
    groups: dict[tuple[object, ...], list[ReplicaId]] = {}
    for replica, share in shares.items():
        block = (share.executed, share.block_hash) if certified else ()
        groups.setdefault((share.read_digest, share.result_hash, *block), []).append(replica)
    largest: list[ReplicaId] = []
    for replicas in groups.values():
        if len(replicas) > len(largest):
            largest = replicas
    return sorted(largest)


def entry_is_proven(reply: Reply, entry: ReplyEntry) -> bool:
    """Does the entry's Merkle path lead to the results root of the reply's block header?

    Together with a quorum of signatures over that block hash this is a receipt.
    """
    outcome = entry.outcome
    if outcome is None or not reply.block_header:
        return False
    header = BlockHeader.unpack(reply.block_header)
    leaf = result_leaf(header.sequence, entry.index, entry.digest, outcome.status, outcome.result)
    try:
        return fastpath.merkle_fold(leaf, entry.index, header.result_count, outcome.path) == header.results_root
    except ValueError:
        return False
