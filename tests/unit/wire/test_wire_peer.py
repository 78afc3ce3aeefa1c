"""Peer messages and log records: one value, one byte string, and nothing else gets through."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastpath
from nodes.block import BlockHeader
from nodes.core import catch_up, relay, retransmission
from nodes.core.messages import (
    Attest,
    AttestCertificate,
    Commit,
    Evidence,
    FetchAttest,
    FetchBlocks,
    FetchBody,
    FetchedBlocks,
    FetchedBody,
    Forward,
    Hello,
    HelloAnswer,
    NewView,
    OrderedBatch,
    PeerMessage,
    Prepare,
    PrepareCertificate,
    PrePrepare,
    SlotStatus,
    Status,
    ViewChange,
    Wish,
)
from nodes.core.records import Accepted, Adopted, Decided, Prepared, Record, Stable, ViewEntered
from nodes.core.types import Batch, BatchKind, Mode, ReplicaId, Request, SequenceNumber, View
from nodes.vectors import cluster, signing_key
from nodes.wire import (
    BULK_FRAME_MAX,
    CONTROL_FRAME_MAX,
    MessageType,
    Wire,
    WireCode,
    WireError,
    build_request,
)
from nodes.wire.format import FETCHED_BLOCKS_MAX, FORWARD_REQUESTS_MAX

CLUSTER = cluster()
WIRE = Wire(CLUSTER)
SENDER = ReplicaId(2)
NUMBER_MAX = 2**53 - 1
REQUESTS = tuple(
    WIRE.parse_record(
        build_request(
            signing_key(f"client {index}"),
            CLUSTER.cluster_id,
            session=index,
            sequence=index + 1,
            floor=1,
            valid_until_us=10**15,
            operation=b"x" * (index * 7),
        )
    )
    for index in range(4)
)


def batch_of(
    requests: tuple[Request, ...], sequence: int, kind: BatchKind, proposer: int, time_us: int
) -> OrderedBatch:
    header, body, digest = fastpath.assemble_batch(
        kind,
        proposer,
        CLUSTER.cluster_id,
        CLUSTER.epoch,
        sequence,
        time_us,
        [request.record for request in requests],
        [request.leaf for request in requests],
    )
    root = fastpath.merkle_root([request.leaf for request in requests])
    batch = Batch(
        kind, ReplicaId(proposer), len(requests), 0, len(body), SequenceNumber(sequence), time_us, root, digest, header
    )
    return OrderedBatch(batch, requests, body)


def null_batch(sequence: int) -> OrderedBatch:
    return batch_of((), sequence, BatchKind.NULL, 0, 0)


def block_header(sequence: int) -> BlockHeader:
    fill = bytes([sequence % 251 + 1]) * 32
    return BlockHeader(CLUSTER.cluster_id, 0, sequence, fill, fill, fill, 5, 1, fill, fill, 0, fill, fill)


numbers = st.one_of(st.integers(0, 300), st.integers(0, NUMBER_MAX))
views = numbers.map(View)
sequences = st.one_of(st.integers(1, 300), st.integers(1, NUMBER_MAX)).map(SequenceNumber)
hashes = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=16, max_size=16)
signatures = st.binary(min_size=64, max_size=64)
replicas = st.integers(0, 3).map(ReplicaId)
signature_lists = st.dictionaries(replicas, signatures).map(lambda chosen: tuple(sorted(chosen.items())))
request_lists = st.lists(st.sampled_from(REQUESTS), max_size=4, unique=True).map(tuple)
ordered = st.one_of(
    sequences.map(null_batch),
    st.builds(
        batch_of,
        request_lists,
        sequences,
        st.sampled_from((BatchKind.NORMAL, BatchKind.FENCE, BatchKind.TICK)),
        replicas,
        numbers,
    ),
)
prepare_certificates = st.builds(
    PrepareCertificate, st.just(0), views, ordered.map(lambda block: block.batch), signature_lists
)
attest_certificates = st.builds(AttestCertificate, st.just(0), sequences, hashes, hashes, signature_lists)
proposals = st.builds(
    lambda view, block, signature: PrePrepare(0, view, block.batch, block.requests, block.body, signature),
    views,
    ordered,
    signatures,
)
slots = st.builds(SlotStatus, st.booleans(), st.booleans(), st.booleans())


@st.composite
def view_changes(draw: st.DrawFn, view: int | None = None, replica: ReplicaId = SENDER) -> ViewChange:
    wished = draw(st.integers(1, 50)) if view is None else view
    base_sequence = draw(st.integers(0, 20))
    header = block_header(base_sequence)
    base = None
    if base_sequence:
        signed = draw(signature_lists)
        base = AttestCertificate(0, SequenceNumber(base_sequence), header.order_hash, header.hash, signed)
    chosen = sorted(draw(st.sets(st.integers(base_sequence + 1, base_sequence + 40), max_size=3)))
    certificates = tuple(
        PrepareCertificate(0, View(draw(st.integers(0, wished - 1))), null_batch(place).batch, draw(signature_lists))
        for place in chosen
    )
    return ViewChange(
        0,
        View(wished),
        replica,
        draw(numbers),
        header.pack() if base else b"",
        base,
        certificates,
        draw(signatures),
    )


@st.composite
def new_views(draw: st.DrawFn) -> NewView:
    view = draw(st.integers(1, 50))
    members = sorted(draw(st.sets(replicas, max_size=3)))
    changes = tuple(draw(view_changes(view=view, replica=ReplicaId(member))) for member in members)
    return NewView(0, View(view), changes, tuple(draw(st.lists(signatures, max_size=3))), draw(signatures))


@st.composite
def consecutive(draw: st.DrawFn) -> tuple[OrderedBatch, ...]:
    first = draw(st.integers(1, 1000))
    return tuple(
        batch_of(draw(request_lists), first + offset, BatchKind.NORMAL, 1, 7)
        for offset in range(draw(st.integers(1, 3)))
    )


MESSAGES: dict[str, st.SearchStrategy[PeerMessage]] = {
    "PrePrepare": proposals,
    "Prepare": st.builds(Prepare, st.just(0), views, sequences, hashes, signatures),
    "Commit": st.builds(Commit, st.just(0), views, sequences, hashes, signatures),
    "Attest": st.builds(Attest, st.just(0), sequences, hashes, hashes, signatures),
    "Status": st.builds(
        Status,
        epoch=st.just(0),
        view=views,
        mode=st.sampled_from(Mode),
        wish=views,
        stable=numbers.map(SequenceNumber),
        last_committed=numbers.map(SequenceNumber),
        last_executed=numbers.map(SequenceNumber),
        order_hash=hashes,
        slots=st.lists(slots, max_size=64).map(tuple),
        clock_us=numbers,
        backlog=numbers,
        incarnation=numbers,
        fenced=st.booleans(),
        recovery_point=st.one_of(numbers, st.just(2**64 - 1)),
    ),
    "FetchBlocks": st.tuples(sequences, sequences).map(
        lambda pair: FetchBlocks(0, SequenceNumber(min(pair)), SequenceNumber(max(pair)))
    ),
    "FetchAttest": st.builds(FetchAttest, st.just(0), sequences),
    "FetchBody": st.builds(FetchBody, st.just(0), sequences, hashes),
    "FetchedBlocks": st.builds(FetchedBlocks, st.just(0), consecutive()),
    "AttestCertificate": attest_certificates,
    "FetchedBody": st.builds(FetchedBody, st.just(0), ordered),
    "Forward": st.builds(
        Forward, st.just(0), st.booleans(), st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=4).map(tuple)
    ),
    "Wish": st.builds(Wish, st.just(0), views, numbers.map(SequenceNumber), st.integers(0, 255), signatures),
    "ViewChange": view_changes(),
    "NewView": new_views(),
    "Hello": st.builds(Hello, st.just(SENDER), nonces, nonces, numbers, signatures),
    "HelloAnswer": st.builds(HelloAnswer, st.just(SENDER), nonces, st.binary(max_size=40), signatures),
    "Evidence": st.builds(Evidence, st.integers(0, 255), st.binary(max_size=40)),
}
RECORDS: dict[str, st.SearchStrategy[Record]] = {
    "Accepted": st.builds(Accepted, proposals),
    "Accepted unsigned": st.builds(Accepted, proposals.map(lambda proposal: replace(proposal, signature=b""))),
    "Prepared": st.builds(Prepared, prepare_certificates),
    "Adopted": st.builds(Adopted, ordered),
    "Decided": st.builds(Decided, sequences, hashes, hashes),
    "Stable": st.builds(Stable, attest_certificates),
    "ViewEntered": st.builds(
        ViewEntered, views, st.sampled_from(Mode), st.binary(max_size=40), numbers.map(SequenceNumber)
    ),
}


def fill(text: str) -> bytes:
    return fastpath.sha256(text.encode())


SEAL = fill("a") + fill("b")
BLOCKS = (batch_of(REQUESTS[:2], 7, BatchKind.NORMAL, 1, 99), batch_of(REQUESTS[2:], 8, BatchKind.NORMAL, 1, 100))
PROPOSAL = PrePrepare(0, View(1), BLOCKS[0].batch, BLOCKS[0].requests, BLOCKS[0].body, SEAL)
SIGNED_BY_THREE = tuple((ReplicaId(replica), fill(f"s{replica}") * 2) for replica in (0, 1, 3))
CERTIFICATE = PrepareCertificate(0, View(1), BLOCKS[0].batch, SIGNED_BY_THREE)
BASE = AttestCertificate(0, SequenceNumber(5), block_header(5).order_hash, block_header(5).hash, SIGNED_BY_THREE)
CHANGE = ViewChange(0, View(2), SENDER, 77, block_header(5).pack(), BASE, (CERTIFICATE,), SEAL)
GENESIS_CHANGE = replace(CHANGE, replica=ReplicaId(3), base=None, base_header=b"", certificates=())
EXAMPLES: tuple[PeerMessage, ...] = (
    PROPOSAL,
    Prepare(0, View(1), SequenceNumber(7), fill("d"), SEAL),
    Commit(0, View(1), SequenceNumber(7), fill("d"), SEAL),
    Attest(0, SequenceNumber(7), fill("o"), fill("b"), SEAL),
    Status(
        0,
        View(1),
        Mode.VIEW_CHANGE,
        View(2),
        SequenceNumber(1),
        SequenceNumber(2),
        SequenceNumber(3),
        fill("o"),
        (SlotStatus(True, False, True), SlotStatus(False, False, False)),
        4,
        5,
        6,
        True,
        2**64 - 1,
    ),
    FetchBlocks(0, SequenceNumber(3), SequenceNumber(9)),
    FetchAttest(0, SequenceNumber(3)),
    FetchBody(0, SequenceNumber(3), fill("d")),
    FetchedBlocks(0, BLOCKS),
    FetchedBody(0, BLOCKS[0]),
    BASE,
    Forward(0, True, REQUESTS),
    Wish(0, View(3), SequenceNumber(9), 2, SEAL),
    CHANGE,
    replace(CHANGE, base=None, base_header=b"", certificates=()),
    NewView(0, View(2), (CHANGE, GENESIS_CHANGE), (SEAL, SEAL), SEAL),
    Hello(SENDER, fill("n")[:16], fill("w")[:16], 9, SEAL),
    HelloAnswer(SENDER, fill("n")[:16], b"answer", SEAL),
    Evidence(3, b"proof"),
)
RECORD_EXAMPLES: tuple[Record, ...] = (
    Accepted(PROPOSAL),
    Accepted(replace(PROPOSAL, signature=b"")),
    Prepared(CERTIFICATE),
    Adopted(BLOCKS[0]),
    Decided(SequenceNumber(7), fill("d"), fill("o")),
    Stable(BASE),
    ViewEntered(View(2), Mode.NORMAL, b"new view", SequenceNumber(64)),
)


def name(value: object) -> str:
    return type(value).__name__


def test_every_type_of_message_and_record_is_tried() -> None:
    assert {type(message) for message in EXAMPLES} == set(PeerMessage.__args__)
    assert set(MESSAGES) == {kind.__name__ for kind in PeerMessage.__args__}
    assert {type(record) for record in RECORD_EXAMPLES} == set(Record.__args__)
    assert set(RECORDS) - {"Accepted unsigned"} == {kind.__name__ for kind in Record.__args__}


@pytest.mark.parametrize("kind", MESSAGES)
def test_message_comes_back_equal(kind: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(MESSAGES[kind])
    def check(message: PeerMessage) -> None:
        assert WIRE.decode_frame(WIRE.encode(message), SENDER) == [message]

    check()


@pytest.mark.parametrize("kind", RECORDS)
def test_record_comes_back_equal(kind: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(RECORDS[kind])
    def check(record: Record) -> None:
        assert WIRE.decode_record(*WIRE.encode_record(record)) == record

    check()


def test_frame_of_many_messages_keeps_their_order() -> None:
    frame = b"".join(WIRE.encode(message) for message in EXAMPLES)
    assert WIRE.decode_frame(frame, SENDER) == list(EXAMPLES)


@pytest.mark.parametrize("message", EXAMPLES, ids=name)
def test_message_with_any_byte_changed_is_refused_or_another(message: PeerMessage) -> None:
    frame = WIRE.encode(message)
    for position in range(len(frame)):
        for flip in (0x01, 0x80, 0xFF):
            altered = frame[:position] + bytes([frame[position] ^ flip]) + frame[position + 1 :]
            try:
                (other,) = WIRE.decode_frame(altered, SENDER)
            except WireError:
                continue
            assert other != message
            assert WIRE.encode(other) == altered


@pytest.mark.parametrize("record", RECORD_EXAMPLES, ids=name)
def test_record_with_any_byte_changed_is_refused_or_another(record: Record) -> None:
    kind, payload = WIRE.encode_record(record)
    for position in range(len(payload)):
        for flip in (0x01, 0x80, 0xFF):
            altered = payload[:position] + bytes([payload[position] ^ flip]) + payload[position + 1 :]
            try:
                other = WIRE.decode_record(kind, altered)
            except WireError:
                continue
            assert other != record
            assert WIRE.encode_record(other) == (kind, altered)


@pytest.mark.parametrize("message", EXAMPLES, ids=name)
def test_message_cut_or_lengthened_is_refused(message: PeerMessage) -> None:
    frame = WIRE.encode(message)
    kind = frame[3]
    for length in range(len(frame)):
        with pytest.raises(WireError):
            WIRE.decode_frame(frame[:length], SENDER)
    payload = frame[16:]
    for length in range(len(payload)):
        with pytest.raises(WireError):
            WIRE.decode_frame(fastpath.pack_message(kind, 0, payload[:length]), SENDER)
    with pytest.raises(WireError):
        WIRE.decode_frame(fastpath.pack_message(kind, 0, payload + b"\x00"), SENDER)
    with pytest.raises(WireError):
        WIRE.decode_frame(frame + b"\x00", SENDER)


@pytest.mark.parametrize("record", RECORD_EXAMPLES, ids=name)
def test_record_cut_or_lengthened_is_refused(record: Record) -> None:
    kind, payload = WIRE.encode_record(record)
    for length in range(len(payload)):
        with pytest.raises(WireError):
            WIRE.decode_record(kind, payload[:length])
    with pytest.raises(WireError):
        WIRE.decode_record(kind, payload + b"\x00")


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(MessageType)), st.binary(max_size=300))
def test_random_payload_is_refused_or_the_one_encoding_of_its_value(kind: int, payload: bytes) -> None:
    frame = fastpath.pack_message(kind, 0, payload)
    try:
        (message,) = WIRE.decode_frame(frame, SENDER)
    except WireError:
        return
    assert WIRE.encode(message) == frame


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_random_frame_raises_only_wire_errors(frame: bytes) -> None:
    with pytest.raises(WireError):
        WIRE.decode_frame(frame, SENDER)


def refusal(frame: bytes, sender: int = SENDER) -> WireCode:
    with pytest.raises(WireError) as caught:
        WIRE.decode_frame(frame, ReplicaId(sender))
    assert str(caught.value).startswith(caught.value.code)
    assert caught.value.detail
    return caught.value.code


def test_frame_of_another_epoch_type_or_magic_is_refused() -> None:
    frame = WIRE.encode(EXAMPLES[1])
    assert refusal(fastpath.pack_message(frame[3], 1, frame[16:])) is WireCode.WRONG_EPOCH
    assert refusal(fastpath.pack_message(0x7F, 0, frame[16:])) is WireCode.UNKNOWN_TYPE
    assert refusal(fastpath.pack_message(MessageType.REQUEST, 0, frame[16:])) is WireCode.UNKNOWN_TYPE
    assert refusal(b"\x00" + frame[1:]) is WireCode.BAD_FRAME
    assert refusal(frame[:2] + b"\x02" + frame[3:]) is WireCode.BAD_FRAME
    assert refusal(b"") is WireCode.BAD_FRAME


def test_frame_over_its_limit_is_refused_before_it_is_read() -> None:
    assert refusal(bytes(BULK_FRAME_MAX + 1)) is WireCode.BAD_FRAME
    frame = WIRE.encode(EXAMPLES[1])
    with pytest.raises(WireError, match="at most"):
        WIRE.decode_frame(frame, SENDER, len(frame) - 1)


def test_fetched_and_forward_hold_no_more_than_the_core_asks_for_or_takes() -> None:
    assert FETCHED_BLOCKS_MAX == catch_up.PIECE_BLOCKS == retransmission.SERVED_BLOCKS_MAX
    assert FORWARD_REQUESTS_MAX == relay.FORWARDED_MAX
    blocks = tuple(batch_of((), sequence, BatchKind.TICK, 1, 7) for sequence in range(1, FETCHED_BLOCKS_MAX + 2))
    with pytest.raises(ValueError, match="65"):
        WIRE.encode(FetchedBlocks(0, blocks))
    frame = WIRE.encode(FetchedBlocks(0, blocks[:-1]))
    assert WIRE.decode_frame(frame, SENDER) == [FetchedBlocks(0, blocks[:-1])]
    payload = frame[16:17] + len(blocks).to_bytes(4, "little") + frame[21:] + blocks[-1].batch.header
    assert refusal(fastpath.pack_message(MessageType.FETCHED, 0, payload)) is WireCode.MALFORMED
    requests = (REQUESTS[0],) * (FORWARD_REQUESTS_MAX + 1)
    with pytest.raises(ValueError, match="65"):
        WIRE.encode(Forward(0, True, requests))
    frame = WIRE.encode(Forward(0, True, requests[:-1]))
    payload = frame[16:17] + len(requests).to_bytes(4, "little") + frame[21:] + requests[0].record
    assert refusal(fastpath.pack_message(MessageType.FORWARD, 0, payload)) is WireCode.MALFORMED


def test_message_of_an_ignored_type_is_skipped_unread_and_the_others_come_through() -> None:
    junk = fastpath.pack_message(MessageType.VIEWCHANGE, 0, bytes(1000))
    vote, fetched = WIRE.encode(EXAMPLES[1]), WIRE.encode(FetchedBlocks(0, BLOCKS))
    size = len(fetched) - 16

    def read(frame: bytes, fetched_max: int) -> list[tuple[PeerMessage | None, int]]:
        ignored = {MessageType.VIEWCHANGE}
        return list(WIRE.read_frame(frame, SENDER, ignored=ignored, fetched_max=lambda: fetched_max))

    expected = [(EXAMPLES[1], len(vote) - 16), (None, 1000)]
    assert read(vote + junk + fetched, size - 1) == [*expected, (None, size)]
    assert read(vote + junk + fetched, size) == [*expected, (FetchedBlocks(0, BLOCKS), size)]
    assert refusal(vote + junk) is WireCode.MALFORMED, "where nothing is ignored"


def test_frame_is_read_up_to_its_first_bad_message() -> None:
    frame = WIRE.encode(EXAMPLES[1]) + fastpath.pack_message(0x7F, 0, b"")
    messages = WIRE.read_frame(frame, SENDER, ignored=(), fetched_max=lambda: 0)
    assert next(messages)[0] == EXAMPLES[1]
    with pytest.raises(WireError):
        next(messages)


def test_frame_over_the_control_limit_is_one_message_or_refused() -> None:
    def read(frame: bytes) -> list[tuple[PeerMessage | None, int]]:
        return list(WIRE.read_frame(frame, SENDER, ignored={MessageType.WISH}, fetched_max=lambda: 0))

    empty = fastpath.pack_message(MessageType.WISH, 0, b"")
    assert len(read(empty * (CONTROL_FRAME_MAX // 16))) == CONTROL_FRAME_MAX // 16
    with pytest.raises(WireError, match="several"):
        read(empty * (CONTROL_FRAME_MAX // 16 + 1))
    assert read(fastpath.pack_message(MessageType.WISH, 0, bytes(CONTROL_FRAME_MAX))) == [(None, CONTROL_FRAME_MAX)]


def test_message_that_names_another_sender_is_refused() -> None:
    for message in (CHANGE, EXAMPLES[16], EXAMPLES[17]):
        assert refusal(WIRE.encode(message), sender=1) is WireCode.WRONG_SENDER


def test_batch_of_another_cluster_or_epoch_is_refused() -> None:
    header = BLOCKS[0].batch.header
    for start, stop, code in ((8, 24, WireCode.WRONG_CLUSTER), (24, 28, WireCode.WRONG_EPOCH)):
        other = header[:start] + b"\x09" * (stop - start) + header[stop:]
        payload = b"\x02" + (1).to_bytes(4, "little") + other + BLOCKS[0].body
        assert refusal(fastpath.pack_message(MessageType.FETCHED, 0, payload)) is code


def test_body_that_is_not_the_headers_is_refused() -> None:
    first, second = (batch_of((request,), 7, BatchKind.NORMAL, 1, 9) for request in (REQUESTS[1], REQUESTS[2]))
    both = batch_of(REQUESTS[1:3], 7, BatchKind.NORMAL, 1, 9)
    head = b"\x02" + (1).to_bytes(4, "little")
    same_length = REQUESTS[1].record[:-64] + bytes(64)
    forged = fastpath.pack_message(MessageType.FETCHED, 0, head + first.batch.header + same_length)
    assert refusal(forged) is WireCode.DIGEST_MISMATCH
    count_of_one = both.batch.header[:4] + (1).to_bytes(4, "little") + both.batch.header[8:]
    forged = fastpath.pack_message(MessageType.FETCHED, 0, head + count_of_one + both.body)
    assert refusal(forged) is WireCode.DIGEST_MISMATCH
    proposal = PrePrepare(0, View(0), first.batch, first.requests, first.body, SEAL)
    frame = WIRE.encode(proposal)
    with_other_header = frame[:128] + second.batch.header + second.body
    assert refusal(fastpath.pack_message(frame[3], 0, with_other_header[16:])) is WireCode.DIGEST_MISMATCH


@pytest.mark.parametrize(
    ("kind", "proposer", "count", "time_us", "length"),
    [(1, 1, 0, 0, 0), (1, 0, 0, 1, 0), (4, 0, 0, 0, 0), (0, 4, 0, 0, 0), (0, 0, 1025, 0, 0), (0, 0, 0, 2**53, 0)],
    ids=["null of a proposer", "null with a time", "kind", "proposer", "count", "time"],
)
def test_batch_header_out_of_range_is_refused(kind: int, proposer: int, count: int, time_us: int, length: int) -> None:
    header, _, _ = fastpath.assemble_batch(kind, proposer, CLUSTER.cluster_id, 0, 7, time_us, [], [])
    header = header[:4] + count.to_bytes(4, "little") + header[8:]
    payload = b"\x02" + (1).to_bytes(4, "little") + header
    assert refusal(fastpath.pack_message(MessageType.FETCHED, 0, payload)) is WireCode.MALFORMED


def test_batch_body_length_is_limited_before_it_is_read() -> None:
    header = BLOCKS[0].batch.header[:28] + (1_048_577).to_bytes(4, "little") + BLOCKS[0].batch.header[32:]
    payload = b"\x02" + (1).to_bytes(4, "little") + header
    assert refusal(fastpath.pack_message(MessageType.FETCHED, 0, payload)) is WireCode.MALFORMED


def test_fetched_blocks_must_be_consecutive_and_bodies_alone() -> None:
    apart = FetchedBlocks(0, (BLOCKS[0], batch_of(REQUESTS[:1], 9, BatchKind.NORMAL, 1, 9)))
    assert refusal(WIRE.encode(apart)) is WireCode.MALFORMED
    two = WIRE.encode(FetchedBlocks(0, BLOCKS))
    assert refusal(fastpath.pack_message(MessageType.FETCHED, 0, b"\x02" + two[17:])) is WireCode.MALFORMED


def test_sequence_number_zero_and_numbers_beyond_2_53_are_refused() -> None:
    for number in (0, 2**53):
        payload = bytes(8) + number.to_bytes(8, "little") + bytes(96)
        assert refusal(fastpath.pack_message(MessageType.PREPARE, 0, payload)) is WireCode.MALFORMED


def test_forward_of_fewer_requests_than_it_says_is_refused() -> None:
    frame = bytearray(WIRE.encode(Forward(0, False, REQUESTS[:1])))
    frame[17] = 2
    assert refusal(bytes(frame)) is WireCode.MALFORMED


def test_signers_must_be_distinct_members_in_order() -> None:
    for signers in ((0, 0), (1, 0), (0, 4)):
        listed = tuple((ReplicaId(signer), SEAL) for signer in signers)
        kind, payload = WIRE.encode_record(Stable(replace(BASE, signatures=listed)))
        with pytest.raises(WireError) as caught:
            WIRE.decode_record(kind, payload)
        assert caught.value.code is WireCode.MALFORMED
    many = tuple((ReplicaId(signer), SEAL) for signer in range(5))
    with pytest.raises(WireError, match="5 signatures"):
        WIRE.decode_record(*WIRE.encode_record(Stable(replace(BASE, signatures=many))))


def test_view_change_certificates_must_ascend_above_the_base_and_below_the_view() -> None:
    low = replace(CERTIFICATE, batch=null_batch(5).batch)
    late = replace(CERTIFICATE, view=View(2))
    for certificates in ((low,), (CERTIFICATE, CERTIFICATE), (late,)):
        assert refusal(WIRE.encode(replace(CHANGE, certificates=certificates))) is WireCode.MALFORMED
    many = tuple(replace(CERTIFICATE, batch=null_batch(place).batch, signatures=()) for place in range(6, 6 + 257))
    assert refusal(WIRE.encode(replace(CHANGE, certificates=many))) is WireCode.MALFORMED


def test_base_of_another_cluster_or_epoch_is_refused() -> None:
    for change, code in (
        ({"cluster_id": bytes(16)}, WireCode.WRONG_CLUSTER),
        ({"epoch": 1}, WireCode.WRONG_EPOCH),
        ({"sequence": 0}, WireCode.MALFORMED),
    ):
        header = replace(block_header(5), **change)
        base = replace(BASE, sequence=SequenceNumber(header.sequence), block_hash=header.hash)
        assert refusal(WIRE.encode(replace(CHANGE, base_header=header.pack(), base=base))) is code


def test_new_view_takes_only_view_changes_of_its_view_and_distinct_replicas() -> None:
    def new_view(*changes: ViewChange) -> bytes:
        return WIRE.encode(NewView(0, View(2), changes, (), SEAL))

    assert refusal(new_view(replace(CHANGE, view=View(3)))) is WireCode.MALFORMED
    assert refusal(new_view(CHANGE, CHANGE)) is WireCode.MALFORMED
    assert refusal(new_view(*[CHANGE] * 5)) is WireCode.MALFORMED
    assert refusal(WIRE.encode(NewView(0, View(2), (), (SEAL,) * 257, SEAL))) is WireCode.MALFORMED


def test_largest_new_view_fits_a_bulk_frame() -> None:
    largest = Wire(cluster(13))
    assert largest.domain.new_view_bytes_max < BULK_FRAME_MAX - 16
    assert largest.domain.answer_bytes_max < BULK_FRAME_MAX


def test_log_record_of_unknown_type_or_another_epoch_is_refused() -> None:
    with pytest.raises(WireError) as caught:
        WIRE.decode_record(9, b"")
    assert caught.value.code is WireCode.UNKNOWN_TYPE
    kind, payload = WIRE.encode_record(Stable(BASE))
    with pytest.raises(WireError) as caught:
        WIRE.decode_record(kind, b"\x01" + payload[1:])
    assert caught.value.code is WireCode.WRONG_EPOCH


@pytest.mark.parametrize(
    "message",
    [
        replace(PROPOSAL, signature=b""),
        replace(PROPOSAL, body=b""),
        replace(PROPOSAL, epoch=1),
        Prepare(0, View(1), SequenceNumber(7), fill("d")),
        Status(
            0,
            View(0),
            Mode.NORMAL,
            View(0),
            *[SequenceNumber(0)] * 3,
            bytes(32),
            (SlotStatus(True, True, True),) * 65,
            0,
            0,
            0,
            False,
            0,
        ),
        FetchedBlocks(0, ()),
        Forward(0, False, ()),
        Forward(0, False, REQUESTS * 257),
        FetchedBlocks(0, (batch_of(REQUESTS[:1], 9, BatchKind.NORMAL, 1, 9),) * 40_000),
        replace(CHANGE, signature=b""),
        replace(CHANGE, base=None),
        replace(CHANGE, base=replace(BASE, block_hash=bytes(32))),
        NewView(0, View(2), (), ()),
        HelloAnswer(SENDER, bytes(16), b""),
        Evidence(1, bytes(WIRE.domain.answer_bytes_max + 1)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_message_that_no_peer_would_accept_is_not_sent(message: PeerMessage) -> None:
    with pytest.raises(ValueError):
        WIRE.encode(message)
