"""Read shares: one signature for many, each share checkable alone."""

from __future__ import annotations

from nodes.executor.protocol import QueryAnswer
from nodes.keys import SigningKey
from nodes.replica.reads import COLLECT_US, ReadShares
from nodes.wire import SHARE_LEAVES_MAX, Read, ReadShare, Wire


def test_shares_collected_together_carry_one_signature_and_verify_alone(
    wire: Wire, signing_keys: list[SigningKey]
) -> None:
    sent: list[tuple[bytes, bytes]] = []
    reads = ReadShares(wire, signing_keys[2], lambda connection, message: sent.append((connection, message)))
    assert reads.due_us is None
    for number in range(5):
        read = Read(bytes([number]) * 16, number == 3, b"{}")
        reads.add(b"c%d" % number, read, QueryAnswer(number, b"answer %d" % number, 7, bytes(32), 9), 1000)
    assert sent == []
    assert reads.due_us == 1000 + COLLECT_US
    reads.flush()
    assert [connection for connection, _ in sent] == [b"c%d" % number for number in range(5)]
    shares = [share for _, message in sent for share in wire.decode_answer_frame(message)]
    assert len({share.signature for share in shares if isinstance(share, ReadShare)}) == 1
    for number, share in enumerate(shares):
        assert isinstance(share, ReadShare)
        assert wire.verify_share(share, wire.cluster.members[2].replica)
        assert not wire.verify_share(share, wire.cluster.members[1].replica)
        assert share.result == (b"answer 3" if number == 3 else None)
    assert reads.due_us is None
    assert (reads.sent, reads.signatures) == (5, 1)


def test_full_house_is_sent_without_waiting(wire: Wire, signing_keys: list[SigningKey]) -> None:
    sent: list[bytes] = []
    reads = ReadShares(wire, signing_keys[0], lambda _, message: sent.append(message))
    for number in range(SHARE_LEAVES_MAX):
        reads.add(b"c", Read(number.to_bytes(16, "big"), False, b"{}"), QueryAnswer(1, b"{}", 1, bytes(32), 1), 0)
    assert len(sent) == SHARE_LEAVES_MAX
    reads.flush()
    assert len(sent) == SHARE_LEAVES_MAX
