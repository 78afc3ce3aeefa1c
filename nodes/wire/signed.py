"""The bytes that are signed, each in a domain of its own (docs/receipts.md has the offsets).

A prefix of 40 bytes names the protocol, the kind of statement, the cluster and the epoch, so that a
signature made for one purpose, cluster or epoch is worthless for any other.
"""

from __future__ import annotations

import struct

import fastpath

_PREFIX = struct.Struct("<8sB7x16sQ")
_VOTE = struct.Struct("<QQ32s")
_ATTEST = struct.Struct("<Q32s32s")
_U64 = struct.Struct("<Q")
_HELLO = struct.Struct("<H16s16sQ")
_U16 = struct.Struct("<H")

REQUEST = 0x01
PREPARE = 0x11
COMMIT = 0x12
ATTEST = 0x13
WISH = 0x20
VIEW_CHANGE = 0x21
NEW_VIEW = 0x22
READ_ROOT = 0x30
QUERY = 0x33
HELLO = 0x50
HELLO_ANSWER = 0x51


def prefix(kind: int, cluster_id: bytes, epoch: int) -> bytes:
    """The 40 bytes in front of every signed statement."""
    if len(cluster_id) != 16:
        raise ValueError(f"a cluster id is 16 bytes, not {len(cluster_id)}")
    return _PREFIX.pack(b"OAPBFT1\0", kind, cluster_id, epoch)


def request_prefix(cluster_id: bytes) -> bytes:
    """Prefix of a client's request; epoch 0, so that requests survive a reconfiguration."""
    return prefix(REQUEST, cluster_id, 0)


def prepare_bytes(cluster_id: bytes, epoch: int, view: int, sequence: int, digest: bytes) -> bytes:
    """Signed by the primary in a PREPREPARE and by the others in a PREPARE."""
    return prefix(PREPARE, cluster_id, epoch) + _VOTE.pack(view, sequence, digest)


def commit_bytes(cluster_id: bytes, epoch: int, view: int, sequence: int, digest: bytes) -> bytes:
    return prefix(COMMIT, cluster_id, epoch) + _VOTE.pack(view, sequence, digest)


def attest_bytes(cluster_id: bytes, epoch: int, sequence: int, order_hash: bytes, block_hash: bytes) -> bytes:
    """What q signatures over make a receipt."""
    return prefix(ATTEST, cluster_id, epoch) + _ATTEST.pack(sequence, order_hash, block_hash)


def wish_bytes(cluster_id: bytes, epoch: int, view: int) -> bytes:
    return prefix(WISH, cluster_id, epoch) + _U64.pack(view)


def view_change_bytes(cluster_id: bytes, epoch: int, view: int, body: bytes) -> bytes:
    return prefix(VIEW_CHANGE, cluster_id, epoch) + _U64.pack(view) + fastpath.sha256(body)


def new_view_bytes(cluster_id: bytes, epoch: int, view: int, body: bytes) -> bytes:
    return prefix(NEW_VIEW, cluster_id, epoch) + _U64.pack(view) + fastpath.sha256(body)


def read_root_bytes(cluster_id: bytes, epoch: int, root: bytes) -> bytes:
    """One signature for all read shares collected within two milliseconds."""
    return prefix(READ_ROOT, cluster_id, epoch) + root


def query_bytes(cluster_id: bytes, nonce: bytes, public_key: bytes, valid_until_us: int, query: bytes) -> bytes:
    """Signed by the caller of a private query; epoch 0."""
    fixed = nonce + public_key + _U64.pack(valid_until_us)
    return prefix(QUERY, cluster_id, 0) + fixed + fastpath.sha256(query)


def hello_bytes(cluster_id: bytes, epoch: int, replica: int, nonce: bytes, wal_nonce: bytes, incarnation: int) -> bytes:
    return prefix(HELLO, cluster_id, epoch) + _HELLO.pack(replica, nonce, wal_nonce, incarnation)


def hello_answer_bytes(cluster_id: bytes, epoch: int, replica: int, answer: bytes) -> bytes:
    """`answer`: nonce, u32 length and body, so that the asker's nonce is signed as well."""
    return prefix(HELLO_ANSWER, cluster_id, epoch) + _U16.pack(replica) + fastpath.sha256(answer)
