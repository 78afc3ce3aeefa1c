"""What one peer may cost the others: allowances, room, and what is skipped unread."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest

import fastpath
from nodes.core.messages import (
    FetchBlocks,
    FetchBody,
    FetchedBlocks,
    FetchedBody,
    OrderedBatch,
    PeerMessage,
    Prepare,
    Wish,
)
from nodes.core.types import BatchKind, ReplicaId, SequenceNumber, View
from nodes.replica.inbox import (
    BYTES_MAX,
    CHECKED_COST,
    FRAMES_MAX,
    MESSAGE_COST,
    NOT_IN_USE,
    TURN_COST,
    Inbox,
)
from nodes.transport import PeerFrame
from nodes.wire import BULK_FRAME_MAX, CONTROL_FRAME_MAX, MessageType, Wire, WireError
from nodes.wire.parts import read_batch

EVIL, GOOD = ReplicaId(3), ReplicaId(2)
TURN_MESSAGES = TURN_COST // MESSAGE_COST
VOTE = Prepare(0, View(0), SequenceNumber(7), bytes(32), bytes(64))


@dataclass
class Bench:
    wire: Wire
    refused: list[tuple[ReplicaId, WireError]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.wire, [GOOD, EVIL], lambda peer, error: self.refused.append((peer, error)))

    def put(self, sender: ReplicaId, frame: bytes) -> bool:
        """As the mesh does it. False: there was no room."""
        has_room = self.inbox.has_room(sender, len(frame))
        if has_room:
            self.inbox.put(PeerFrame(sender, frame))
        return has_room

    def turn(self) -> dict[ReplicaId, list[PeerMessage]]:
        return {sender: list(messages) for sender, messages in self.inbox.turn()}

    def all(self, sender: ReplicaId) -> tuple[list[PeerMessage], int]:
        """Everything it can say, and the turns that takes."""
        messages: list[PeerMessage] = []
        turns = 0
        while self.inbox:
            messages += self.turn().get(sender, [])
            turns += 1
        return messages, turns

    def empty_batches(self, count: int, first: int = 1) -> tuple[OrderedBatch, ...]:
        root = fastpath.merkle_root([])
        layout = struct.Struct("<BBHI16sIIQQ32s")
        cluster_id = self.wire.cluster.cluster_id
        headers = (
            layout.pack(1, BatchKind.TICK, 0, 0, cluster_id, 0, 0, first + number, 1, root) for number in range(count)
        )
        return tuple(OrderedBatch(read_batch(self.wire.domain, header), (), b"") for header in headers)


@pytest.fixture
def bench(wire: Wire) -> Bench:
    return Bench(wire)


def test_frame_of_repeated_votes_costs_the_others_one_allowance(bench: Bench) -> None:
    vote = bench.wire.encode(VOTE)
    flood = vote * (CONTROL_FRAME_MAX // len(vote))
    while bench.put(EVIL, flood):
        pass
    assert bench.put(GOOD, vote)
    first = bench.turn()
    assert len(first[EVIL]) <= TURN_MESSAGES
    assert first[GOOD] == [VOTE]
    assert bench.inbox, "the rest of the frame comes in later turns"
    assert bench.turn()[EVIL]


def test_whole_frame_arrives_in_order_over_several_turns(bench: Bench) -> None:
    votes = [Prepare(0, View(0), SequenceNumber(number), bytes(32), bytes(64)) for number in range(1, 501)]
    bench.put(EVIL, b"".join(map(bench.wire.encode, votes)))
    messages, turns = bench.all(EVIL)
    assert messages == votes
    assert turns >= 500 // TURN_MESSAGES


def test_ordinary_bundle_is_read_in_one_turn(bench: Bench) -> None:
    bench.put(GOOD, bench.wire.encode(VOTE) * 64)
    assert len(bench.turn()[GOOD]) == 64
    assert not bench.inbox
    assert bench.turn() == {}


def test_large_message_is_paid_for_in_later_turns(bench: Bench) -> None:
    junk = fastpath.pack_message(MessageType.VIEWCHANGE, 0, bytes(8 * TURN_COST))
    bench.put(EVIL, junk)
    bench.put(EVIL, bench.wire.encode(VOTE))
    messages, turns = bench.all(EVIL)
    assert messages == [VOTE]
    assert turns >= 8


def test_what_is_refused_is_paid_for_too(bench: Bench) -> None:
    bad = fastpath.pack_message(MessageType.PREPREPARE, 0, bytes(4 * TURN_COST))
    for _ in range(4):
        bench.put(EVIL, bad)
    bench.turn()
    assert len(bench.refused) == 1
    bench.turn()
    assert len(bench.refused) == 1
    assert CHECKED_COST > MESSAGE_COST
    bench.all(EVIL)
    assert [peer for peer, _ in bench.refused] == [EVIL] * 4


def test_room_of_a_peer_is_bounded_in_frames_and_bytes_and_not_shared(bench: Bench) -> None:
    assert sum(bench.put(EVIL, b"x") for _ in range(2 * FRAMES_MAX)) == FRAMES_MAX
    assert bench.inbox.dropped == FRAMES_MAX
    assert bench.put(GOOD, b"x")
    large = Bench(bench.wire)
    assert sum(large.put(EVIL, bytes(BULK_FRAME_MAX)) for _ in range(5)) == BYTES_MAX // BULK_FRAME_MAX


@pytest.mark.parametrize("kind", sorted(NOT_IN_USE))
def test_type_without_a_use_is_skipped_whatever_it_holds(bench: Bench, kind: MessageType) -> None:
    bench.put(EVIL, fastpath.pack_message(kind, 0, b"\xff" * 100) + bench.wire.encode(VOTE))
    assert bench.turn() == {EVIL: [VOTE]}
    assert bench.inbox.ignored == 1
    assert bench.refused == []


def test_well_formed_message_without_a_use_is_skipped_too(bench: Bench) -> None:
    bench.put(GOOD, bench.wire.encode(Wish(0, View(1), SequenceNumber(0), 0, bytes(64))))
    assert bench.turn() == {GOOD: []}
    assert bench.inbox.ignored == 1


def test_bodies_that_were_not_asked_for_are_skipped(bench: Bench) -> None:
    fetched = FetchedBlocks(0, bench.empty_batches(64))
    bench.put(EVIL, bench.wire.encode(fetched))
    assert bench.turn() == {EVIL: []}
    assert bench.inbox.ignored == 1


def test_blocks_are_read_from_the_peer_that_was_asked_last_and_once(bench: Bench) -> None:
    fetched = FetchedBlocks(0, bench.empty_batches(64))
    question = FetchBlocks(0, SequenceNumber(1), SequenceNumber(64))
    bench.inbox.asked(question, EVIL)
    bench.inbox.asked(question, GOOD)
    for sender in (EVIL, GOOD, GOOD):
        bench.put(sender, bench.wire.encode(fetched))
    assert bench.turn() == {GOOD: [fetched], EVIL: []}
    assert bench.inbox.ignored == 2


def test_answer_that_is_none_uses_the_question_up(bench: Bench) -> None:
    bench.inbox.asked(FetchBlocks(0, SequenceNumber(1), SequenceNumber(64)), EVIL)
    bad = fastpath.pack_message(MessageType.FETCHED, 0, b"\x00" + (64).to_bytes(4, "little") + bytes(5000))
    bench.put(EVIL, bad)
    bench.put(EVIL, bad)
    assert bench.all(EVIL)[0] == []
    assert len(bench.refused) == 1
    assert bench.inbox.ignored == 1


def test_body_that_was_asked_for_is_read_and_no_run_of_blocks_in_its_place(bench: Bench) -> None:
    batch = bench.empty_batches(1)[0]
    bench.inbox.asked(FetchBody(0, SequenceNumber(1), batch.batch.digest), GOOD)
    payload = bytes(bench.wire.domain.batch_bytes_max + 2000)
    bench.put(GOOD, fastpath.pack_message(MessageType.FETCHED, 0, payload))
    assert bench.all(GOOD)[0] == []
    assert bench.inbox.ignored == 1
    bench.put(GOOD, bench.wire.encode(FetchedBody(0, batch)))
    assert bench.turn() == {GOOD: [FetchedBody(0, batch)]}
