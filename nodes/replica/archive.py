"""Serving ordered batches to peers that catch up, from the executor's archive, at a bounded rate for each.

Always: one question a peer at a time, and a byte rate for each, so that none can be kept from catching up by
another. A request beyond that is dropped: the peer asks again, and asks others too. The bytes go out as
they are stored; the receiver checks them against an order hash that it trusts already.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from nodes.core.messages import FetchedBlocks, OrderedBatch
from nodes.core.ready import Serve
from nodes.core.types import ReplicaId
from nodes.executor.protocol import Archive, FetchArchive
from nodes.replica.admission import TokenBucket
from nodes.replica.executor_port import Questions
from nodes.wire import Wire, WireError
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
    def __init__(self, wire: Wire, questions: Questions, send: Callable[[ReplicaId, bytes], None]) -> None:
        """`send(peer, encoded message)`."""
        self._wire = wire
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
        first, last = serve.request.first, serve.request.last

        def answered(answer: object) -> None:
            self._in_progress.discard(serve.to)
            if isinstance(answer, Archive) and answer.blocks:
                self._reply(serve.to, answer)

        if self._questions.ask(lambda token: FetchArchive(token, first, last), answered, now_us):
            self._in_progress.add(serve.to)
        else:
            self.dropped_requests += 1

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
