"""Serving peers that catch up, from the executor's archive: ordered batches, attestations, at a bounded rate.

Always: one question a peer at a time, and a byte rate for each, so that none can be kept from catching up by
another. A request beyond that is dropped: the peer asks again, and asks others too. The bytes go out as
they are stored; the receiver checks them against an order hash that it trusts already.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from nodes.block import BlockHeader
from nodes.core.messages import FetchAttest, FetchBlocks, FetchedBlocks, OrderedBatch
from nodes.core.ready import Serve
from nodes.core.types import ReplicaId
from nodes.executor.protocol import Archive, BlockFound, FetchArchive, FindBlock
from nodes.replica.admission import TokenBucket
from nodes.replica.executor_port import Questions
from nodes.replica.replies import attest_of
from nodes.wire import Signer, Wire, WireError
from nodes.wire.parts import read_batch

BYTES_PER_S = 20 * 1024 * 1024
"""To all peers; each has its equal part."""
BURST_BYTES = 8 * 1024 * 1024
"""To one peer."""
REQUEST_BYTES = 64 * 1024
"""What a request costs at least: the executor has looked for up to 64 blocks, however small they are."""
_KIB = 1024

log = structlog.get_logger(__name__)


class ArchiveService:
    def __init__(
        self, wire: Wire, signer: Signer, questions: Questions, send: Callable[[ReplicaId, bytes], None]
    ) -> None:
        """`signer` is this replica's consensus key; `send(peer, encoded message)`."""
        self._wire = wire
        self._signer = signer
        self._questions = questions
        self._send = send
        rate_kib = BYTES_PER_S // _KIB // max(1, wire.cluster.n - 1)
        self._buckets = [TokenBucket(rate_kib, BURST_BYTES // _KIB, 0) for _ in range(wire.cluster.n)]
        self._in_progress: set[ReplicaId] = set()
        self.served_blocks = 0
        self.dropped_requests = 0

    def serve(self, serve: Serve, now_us: int) -> None:
        if serve.to in self._in_progress or not self._buckets[serve.to].take(now_us, REQUEST_BYTES // _KIB):
            self.dropped_requests += 1
            return

        def answered(answer: object) -> None:
            self._in_progress.discard(serve.to)
            if isinstance(answer, Archive) and answer.blocks:
                self._reply(serve.to, answer)
            elif isinstance(answer, BlockFound) and answer.found:
                self._attest(serve.to, BlockHeader.unpack(answer.block_header))

        match serve.request:
            case FetchBlocks(first=first, last=last):
                asked = self._questions.ask(lambda token: FetchArchive(token, first, last), answered, now_us)
            case FetchAttest(sequence=sequence):
                asked = self._questions.ask(lambda token: FindBlock(token, sequence), answered, now_us)
        if asked:
            self._in_progress.add(serve.to)
        else:
            self.dropped_requests += 1

    def _attest(self, to: ReplicaId, header: BlockHeader) -> None:
        self._send(to, self._wire.encode(self._wire.sign(attest_of(header), self._signer)))

    def _reply(self, to: ReplicaId, archive: Archive) -> None:
        size = sum(len(body) for _, body in archive.blocks)
        self._buckets[to].spend(max(0, size - REQUEST_BYTES) // _KIB)
        try:
            blocks = tuple(
                OrderedBatch(read_batch(self._wire.domain, header), (), body) for header, body in archive.blocks
            )
        except (WireError, ValueError) as error:
            # Others hold these batches too; what is damaged here is only a cache.
            log.error("archive_damaged", peer=to, problem=str(error))
            return
        self._send(to, self._wire.encode(FetchedBlocks(self._wire.domain.epoch, blocks)))
        self.served_blocks += len(blocks)
