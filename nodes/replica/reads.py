"""Shares of quorum reads: many answers under one signature (docs/protocol.md section 17).

An answer waits for company at most 2 ms, and not at all when no other is on its way. The Merkle path
in each share leads to the signed root, so a client checks its own share alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import fastpath
from nodes.executor.protocol import QueryAnswer
from nodes.keys import SigningKey
from nodes.wire import SHARE_LEAVES_MAX, Read, ReadShare, Wire, read_digest, share_leaf

COLLECT_US = 2_000


class _Answered(NamedTuple):
    connection: bytes
    read: Read
    answer: QueryAnswer


class ReadShares:
    def __init__(self, wire: Wire, key: SigningKey, send: Callable[[bytes, bytes], None]) -> None:
        """`send(connection, encoded message)`."""
        self._wire = wire
        self._key = key
        self._send = send
        self._answered: list[_Answered] = []
        self._due_us = 0
        self.sent = 0
        self.signatures = 0

    @property
    def due_us(self) -> int | None:
        """Monotonic time of the next `flush`; None when nothing waits."""
        return self._due_us if self._answered else None

    def add(self, connection: bytes, read: Read, answer: QueryAnswer, now_us: int) -> None:
        if not self._answered:
            self._due_us = now_us + COLLECT_US
        self._answered.append(_Answered(connection, read, answer))
        if len(self._answered) >= SHARE_LEAVES_MAX:
            self.flush()

    def flush(self) -> None:
        """Sign and send what waits."""
        answered, self._answered = self._answered, []
        if not answered:
            return
        digests = [read_digest(read.query, read.caller) for _, read, _ in answered]
        hashes = [fastpath.sha256(answer.result) for _, _, answer in answered]
        leaves = [
            share_leaf(read.nonce, digest, result_hash, answer.sequence, answer.block_hash, answer.time_us)
            for (_, read, answer), digest, result_hash in zip(answered, digests, hashes, strict=True)
        ]
        signature = self._wire.sign_shares(leaves, self._key)
        paths = fastpath.merkle_paths(leaves, range(len(leaves)))
        for index, (connection, read, answer) in enumerate(answered):
            share = ReadShare(
                nonce=read.nonce,
                read_digest=digests[index],
                result_hash=hashes[index],
                executed=answer.sequence,
                block_hash=answer.block_hash,
                time_us=answer.time_us,
                leaf_index=index,
                leaf_count=len(leaves),
                path=paths[index],
                signature=signature,
                result=answer.result if read.want_result else None,
            )
            self._send(connection, self._wire.encode_client(share))
        self.sent += len(answered)
        self.signatures += 1
