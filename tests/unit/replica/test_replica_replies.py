"""Who gets which REPLY, read back from its bytes as a client would."""

from __future__ import annotations

import fastpath
from nodes.block import BlockHeader, result_leaf
from nodes.codes import Status
from nodes.core.messages import Attest
from nodes.core.types import SequenceNumber
from nodes.executor.protocol import BlockExecuted, Entry
from nodes.keys import SigningKey
from nodes.replica.replies import LEAVES_KEPT, REPLY_BYTES, WAITING_MAX, Replies, attest_of
from nodes.wire import Reply, Wire, entry_is_proven

ME = 1


class Sent:
    """Collects what is sent, decoded."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.replies: list[tuple[bytes, Reply]] = []

    def __call__(self, connection: bytes, message: bytes) -> None:
        for answer in self._wire.decode_answer_frame(message):
            assert isinstance(answer, Reply)
            self.replies.append((connection, answer))


def digest(sequence: int, number: int) -> bytes:
    return fastpath.sha256(b"%d %d" % (sequence, number))


def executed(
    wire: Wire, sequence: int, count: int, *, status: int = 0, size: int = 10, subjects: list[bytes] | None = None
) -> BlockExecuted:
    """A block of `count` results, with real leaves, paths and header."""
    subjects = subjects or [digest(sequence, number) for number in range(count)]
    results = [b"r" * size for _ in range(count)]
    leaves = [result_leaf(sequence, n, subjects[n], status, results[n]) for n in range(count)]
    header = BlockHeader(
        cluster_id=wire.cluster.cluster_id,
        epoch=0,
        sequence=sequence,
        previous_block_hash=bytes(32),
        order_hash=bytes(32),
        digest=bytes(32),
        time_us=sequence,
        result_count=count,
        results_root=fastpath.merkle_root(leaves),
        write_set_hash=bytes(32),
        state_sequence=0,
        state_root=bytes(32),
        config_hash=wire.cluster.config_hash,
    )
    entries = [
        Entry(subjects[n], n, status, results[n], fastpath.merkle_path(leaves, n))
        if (n + sequence) % wire.cluster.n == ME
        else Entry(subjects[n], n, status, b"", b"")
        for n in range(count)
    ]
    return BlockExecuted(sequence, header.pack(), None, entries)


def attest(wire: Wire, key: SigningKey, block: BlockExecuted) -> Attest:
    return wire.sign(attest_of(BlockHeader.unpack(block.block_header)), key)


def test_each_connection_gets_one_reply_with_its_own_operations(wire: Wire, signing_keys: list[SigningKey]) -> None:
    sent = Sent(wire)
    replies = Replies(wire, ME, sent)
    for number in range(8):
        assert not replies.want(digest(1, number), b"even" if number % 2 == 0 else b"odd")
    block = executed(wire, 1, 8)
    replies.executed(block)
    assert sent.replies == [], "nothing before the attestation is signed"
    signed = attest(wire, signing_keys[ME], block)
    assert replies.attested(signed) == []
    assert sorted(connection for connection, _ in sent.replies) == [b"even", b"odd"]
    for connection, reply in sent.replies:
        assert [entry.index % 2 for entry in reply.entries] == [0 if connection == b"even" else 1] * 4
        assert wire.verify_attest(reply, wire.cluster.members[ME].replica)
        for entry in reply.entries:
            is_ours = (entry.index + 1) % 4 == ME
            assert (entry.outcome is not None) == is_ours
            assert not is_ours or entry_is_proven(reply, entry)
        assert bool(reply.block_header) == any(entry.outcome for entry in reply.entries)
    assert replies.waiting == 0


def test_late_copy_is_answered_from_the_recent_blocks(wire: Wire, signing_keys: list[SigningKey]) -> None:
    sent = Sent(wire)
    replies = Replies(wire, ME, sent)
    block = executed(wire, 5, 4)
    replies.executed(block)
    replies.attested(attest(wire, signing_keys[ME], block))
    assert sent.replies == []
    assert replies.want(digest(5, 0), b"late")
    ((connection, reply),) = sent.replies
    assert connection == b"late"
    assert reply.entries[0].digest == digest(5, 0)
    assert not replies.is_waiting(digest(5, 0))


def test_same_request_by_two_connections_is_answered_to_both(wire: Wire, signing_keys: list[SigningKey]) -> None:
    sent = Sent(wire)
    replies = Replies(wire, ME, sent)
    for connection in (b"one", b"two", b"one"):
        replies.want(digest(1, 0), connection)
    block = executed(wire, 1, 1)
    replies.executed(block)
    replies.attested(attest(wire, signing_keys[ME], block))
    assert sorted(connection for connection, _ in sent.replies) == [b"one", b"two"]


def test_operation_ordered_twice_is_left_to_the_archive(wire: Wire, signing_keys: list[SigningKey]) -> None:
    sent = Sent(wire)
    replies = Replies(wire, ME, sent)
    replies.want(digest(9, 0), b"c")
    block = executed(wire, 9, 1, status=int(Status.DUPLICATE))
    replies.executed(block)
    assert replies.attested(attest(wire, signing_keys[ME], block)) == [(digest(9, 0), [b"c"])]
    assert sent.replies == []


def test_attestation_without_a_block_answers_nobody(wire: Wire, signing_keys: list[SigningKey]) -> None:
    sent = Sent(wire)
    replies = Replies(wire, ME, sent)
    replies.want(digest(1, 0), b"c")
    unrelated = Attest(0, SequenceNumber(1), bytes(32), bytes(32))
    assert replies.attested(wire.sign(unrelated, signing_keys[ME])) == []
    assert sent.replies == []
    assert replies.is_waiting(digest(1, 0))


def test_large_reply_is_split_and_every_part_is_sound(wire: Wire, signing_keys: list[SigningKey]) -> None:
    sent = Sent(wire)
    replies = Replies(wire, ME, sent)
    for number in range(64):
        replies.want(digest(2, number), b"c")
    block = executed(wire, 2, 64, size=60_000)
    replies.executed(block)
    replies.attested(attest(wire, signing_keys[ME], block))
    assert len(sent.replies) > 1
    entries = [entry for _, reply in sent.replies for entry in reply.entries]
    assert sorted(entry.index for entry in entries) == list(range(64))
    for _, reply in sent.replies:
        assert len(wire.encode_client(reply)) < REPLY_BYTES + 70_000
        assert all(entry_is_proven(reply, entry) for entry in reply.entries if entry.outcome)


def test_waiting_digests_are_bounded_and_the_oldest_go(wire: Wire) -> None:
    replies = Replies(wire, ME, Sent(wire))
    for number in range(WAITING_MAX + 3):
        replies.want(number.to_bytes(32, "big"), b"c")
    assert replies.waiting == WAITING_MAX
    assert not replies.is_waiting((2).to_bytes(32, "big"))
    assert replies.is_waiting((3).to_bytes(32, "big"))


def test_recent_leaves_are_bounded(wire: Wire, signing_keys: list[SigningKey]) -> None:
    replies = Replies(wire, ME, Sent(wire))
    blocks = LEAVES_KEPT // 1024 + 2
    for sequence in range(1, blocks + 1):
        block = executed(wire, sequence, 1024, size=0)
        replies.executed(block)
        replies.attested(attest(wire, signing_keys[ME], block))
    assert not replies.want(digest(1, 0), b"c"), "forgotten: it waits for the archive"
    assert replies.want(digest(blocks, 0), b"c")
