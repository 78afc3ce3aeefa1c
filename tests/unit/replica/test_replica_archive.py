"""Serving blocks to peers that catch up: a place and a rate for each, over a real socket to the executor."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

import fastpath
from nodes.block import BlockHeader
from nodes.core.messages import Attest, FetchAttest, FetchBlocks, FetchedBlocks
from nodes.core.ready import Serve
from nodes.core.types import BatchKind, ReplicaId, SequenceNumber
from nodes.executor.protocol import Archive, BlockFound, FetchArchive, FindBlock, Ready, decode_down, encode
from nodes.keys import SigningKey
from nodes.replica.archive import BURST_BYTES, BYTES_PER_S, REQUEST_BYTES, ArchiveService
from nodes.replica.executor_port import ProcessPort, Questions
from nodes.wire import Wire

ME = ReplicaId(0)
READY = Ready(7, bytes(32), None, 0, bytes(32), 1, bytes(32), "python", "sqlite 3")
GREEDY, LAGGARD, THIRD = ReplicaId(1), ReplicaId(2), ReplicaId(3)
SECOND_US = 1_000_000


class Bench:
    """An archive service, and the test in the place of the executor process."""

    def __init__(self, wire: Wire, key: SigningKey, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.port = ProcessPort(self._context, endpoint)
        self.executor = self._context.socket(zmq.DEALER)
        self.executor.linger = 0
        self.executor.probe_router = True
        self.executor.connect(endpoint)
        self.executor.send(encode(READY))
        deadline = time.monotonic() + 10
        while not self.port.turn(0):
            assert time.monotonic() < deadline
            self.port.socket.poll(20)
        self.wire = wire
        self.questions = Questions(self.port)
        self.sent: list[tuple[ReplicaId, bytes]] = []
        self.service = ArchiveService(wire, key, self.questions, lambda to, data: self.sent.append((to, data)))

    def serve(self, to: ReplicaId, now_us: int = 0) -> bool:
        """Whether the executor was asked."""
        dropped = self.service.dropped_requests
        self.service.serve(Serve(to, FetchBlocks(0, SequenceNumber(1), SequenceNumber(64))), now_us)
        return self.service.dropped_requests == dropped

    def asked(self) -> FetchArchive:
        while True:
            assert self.executor.poll(10_000)
            message = decode_down(self.executor.recv())
            if isinstance(message, FetchArchive):
                return message

    def answer(self, body_bytes: int) -> None:
        """Answer the oldest question with one batch; its body is not looked at here."""
        layout = struct.Struct("<BBHI16sIIQQ32s")
        domain = self.wire.domain
        root = fastpath.merkle_root([])
        header = layout.pack(1, BatchKind.NORMAL, 0, 1, domain.cluster_id, 0, body_bytes, 1, 1, root)
        token = self.asked().token
        self.questions.answered(token, Archive(token, [(header, bytes(body_bytes))]))

    def close(self) -> None:
        self.executor.close()
        self.port.close()
        self._context.term()


@pytest.fixture
def bench(wire: Wire, signing_keys: list[SigningKey], tmp_path: Path) -> Iterator[Bench]:
    made = Bench(wire, signing_keys[ME], f"ipc://{tmp_path}/x.ipc")
    yield made
    made.close()


def test_peer_that_asks_and_asks_leaves_the_places_of_others(bench: Bench) -> None:
    assert [bench.serve(GREEDY) for _ in range(4)] == [True, False, False, False]
    assert bench.serve(LAGGARD)
    assert bench.serve(THIRD)
    bench.answer(10)
    assert bench.serve(GREEDY)


def test_bytes_are_counted_for_each_peer(bench: Bench) -> None:
    size = bench.wire.domain.batch_bytes_max
    served = 0
    while bench.serve(GREEDY):
        bench.answer(size)
        served += 1
        assert served < 100
    assert served * size >= BURST_BYTES - REQUEST_BYTES
    assert served * size <= BURST_BYTES + size
    assert bench.serve(LAGGARD), "another peer has its own allowance"
    bench.answer(size)
    assert not bench.serve(GREEDY, 1)
    share = BYTES_PER_S // (bench.wire.cluster.n - 1)
    assert bench.serve(GREEDY, SECOND_US * 2 * (size + REQUEST_BYTES) // share)
    assert {to for to, _ in bench.sent} == {GREEDY, LAGGARD}
    assert len(bench.sent) == served + 1


def test_request_costs_something_even_when_there_is_nothing(bench: Bench) -> None:
    served = 0
    while bench.serve(GREEDY):
        token = bench.asked().token
        bench.questions.answered(token, Archive(token, []))
        served += 1
    assert served == BURST_BYTES // REQUEST_BYTES
    assert bench.sent == []


def test_place_is_free_again_when_the_executor_is_gone(bench: Bench) -> None:
    assert bench.serve(GREEDY)
    bench.questions.forget_all()
    assert bench.serve(GREEDY)


def test_answer_is_what_the_archive_holds(bench: Bench) -> None:
    layout = struct.Struct("<BBHI16sIIQQ32s")
    cluster_id, root = bench.wire.cluster.cluster_id, fastpath.merkle_root([])
    header = layout.pack(1, BatchKind.TICK, 0, 0, cluster_id, 0, 0, 5, 1, root)
    assert bench.serve(LAGGARD)
    token = bench.asked().token
    bench.questions.answered(token, Archive(token, [(header, b"")]))
    ((to, data),) = bench.sent
    (message,) = bench.wire.decode_frame(data, ReplicaId(0))
    assert to == LAGGARD
    assert isinstance(message, FetchedBlocks)
    assert [block.batch.header for block in message.blocks] == [header]
    assert bench.service.served_blocks == 1


def test_attestation_is_signed_over_what_the_archive_holds(bench: Bench) -> None:
    cluster = bench.wire.cluster
    header = BlockHeader(
        cluster_id=cluster.cluster_id,
        epoch=0,
        sequence=5,
        previous_block_hash=bytes(32),
        order_hash=b"o" * 32,
        digest=b"d" * 32,
        time_us=1,
        result_count=0,
        results_root=fastpath.merkle_root([]),
        write_set_hash=bytes(32),
        state_sequence=0,
        state_root=bytes(32),
        config_hash=cluster.config_hash,
    )
    bench.service.serve(Serve(LAGGARD, FetchAttest(0, SequenceNumber(5))), 0)
    assert bench.executor.poll(10_000)
    asked = decode_down(bench.executor.recv())
    while not isinstance(asked, FindBlock):
        assert bench.executor.poll(10_000)
        asked = decode_down(bench.executor.recv())
    assert asked.sequence == 5
    bench.questions.answered(asked.token, BlockFound(asked.token, True, header.pack()))
    ((to, data),) = bench.sent
    (message,) = bench.wire.decode_frame(data, ME)
    assert to == LAGGARD
    assert isinstance(message, Attest)
    assert (message.sequence, message.order_hash, message.block_hash) == (5, b"o" * 32, header.hash)
    assert bench.wire.verify_attest(message, ME)
