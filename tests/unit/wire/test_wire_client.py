"""Messages between clients and replicas: bytes, limits, signatures and proofs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastpath
from nodes.block import BlockHeader
from nodes.core.messages import Attest
from nodes.core.types import ReplicaId, SequenceNumber
from nodes.vectors import cluster, example_receipts, signing_key
from nodes.wire import (
    CLIENT_FRAME_MAX,
    BlockAnswer,
    BlockQuery,
    Busy,
    BusyReason,
    ClientAnswer,
    ClientRequest,
    MessageType,
    Outcome,
    Read,
    ReadShare,
    ReceiptQuery,
    Reply,
    ReplyEntry,
    StatusAnswer,
    StatusQuery,
    Submit,
    Subscribe,
    Wire,
    WireCode,
    WireError,
    build_request,
    entry_is_proven,
    equal_shares,
    operation_of,
    parse_record,
    read_digest,
    request_is_signed,
    share_leaf,
    signature_of,
)

CLUSTER = cluster()
WIRE = Wire(CLUSTER)
ALICE = signing_key("alice")
NODES = tuple(signing_key(f"consensus {replica}") for replica in range(4))
NUMBER_MAX = 2**53 - 1
numbers = st.one_of(st.integers(0, 300), st.integers(0, NUMBER_MAX))
hashes = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=16, max_size=16)
signatures = st.binary(min_size=64, max_size=64)
short = st.binary(max_size=50)


def header_of(sequence: int) -> BlockHeader:
    fill = bytes([sequence % 251 + 1]) * 32
    return BlockHeader(CLUSTER.cluster_id, 0, sequence, fill, fill, fill, 5, 1, fill, fill, 0, fill, fill)


def submit(sequence: int, operation: bytes) -> Submit:
    record = build_request(
        ALICE,
        CLUSTER.cluster_id,
        session=5,
        sequence=sequence,
        floor=1,
        valid_until_us=NUMBER_MAX,
        operation=operation,
    )
    return Submit(WIRE.parse_record(record))


def reply(sequence: int, signature: bytes, entries: tuple[ReplyEntry, ...], *, with_header: bool) -> Reply:
    header = header_of(sequence)
    packed = header.pack() if with_header else b""
    return Reply(0, sequence, header.order_hash, header.hash, signature, entries, packed)


outcomes = st.builds(Outcome, st.integers(0, 65_535), short, short, short)
entries = st.builds(ReplyEntry, hashes, st.integers(0, 2**32 - 1), st.one_of(st.none(), outcomes))
REQUESTS: dict[str, st.SearchStrategy[ClientRequest]] = {
    "Submit": st.builds(submit, st.integers(1, NUMBER_MAX), short),
    "ReceiptQuery": st.builds(ReceiptQuery, hashes),
    "Subscribe": st.just(Subscribe()),
    "StatusQuery": st.just(StatusQuery()),
    "BlockQuery": st.builds(BlockQuery, numbers),
    "Read": st.builds(Read, nonces, st.booleans(), short),
    "signed Read": st.builds(Read, nonces, st.booleans(), short, hashes, numbers, signatures),
}
ANSWERS: dict[str, st.SearchStrategy[ClientAnswer]] = {
    "Reply": st.builds(
        reply, st.integers(1, 10**6), signatures, st.lists(entries, max_size=4).map(tuple), with_header=st.booleans()
    ),
    "Busy": st.builds(Busy, hashes, st.sampled_from(BusyReason), st.integers(0, 2**32 - 1)),
    "Attest": st.builds(Attest, st.just(0), st.integers(1, NUMBER_MAX), hashes, hashes, signatures),
    "ReadShare": st.builds(
        ReadShare,
        nonces,
        hashes,
        hashes,
        numbers,
        hashes,
        numbers,
        st.integers(0, 99),
        st.integers(100, 256),
        short,
        signatures,
        st.one_of(st.none(), short),
    ),
    "StatusAnswer": st.builds(StatusAnswer, short),
    "BlockAnswer": st.integers(0, 10**6).flatmap(
        lambda sequence: st.one_of(
            st.just(BlockAnswer(sequence)),
            st.builds(BlockAnswer, st.just(sequence), st.just(header_of(sequence).pack()), signatures),
        )
    ),
}
SEAL = bytes(range(64))
SIGNED_READ = WIRE.sign_read(Read(bytes(16), True, b"{}"), ALICE, 10**15)
REQUEST_EXAMPLES: tuple[ClientRequest, ...] = (
    submit(1, b"operation"),
    ReceiptQuery(bytes(range(32))),
    Subscribe(),
    StatusQuery(),
    BlockQuery(9),
    Read(bytes(16), False, b"{}"),
    SIGNED_READ,
)
ANSWER_EXAMPLES: tuple[ClientAnswer, ...] = (
    reply(
        3,
        SEAL,
        (ReplyEntry(bytes(32), 0), ReplyEntry(bytes(32), 1, Outcome(9, b"{}", bytes(32), b"record"))),
        with_header=True,
    ),
    reply(3, SEAL, (ReplyEntry(bytes(32), 0),), with_header=False),
    Busy(bytes(32), BusyReason.OVERLOADED, 50),
    Attest(0, SequenceNumber(7), bytes(32), bytes(32), SEAL),
    ReadShare(bytes(16), bytes(32), bytes(32), 4, bytes(32), 5, 1, 2, bytes(32), SEAL, b"result"),
    StatusAnswer(b"{}"),
    BlockAnswer(9, header_of(9).pack(), SEAL),
    BlockAnswer(9),
)


def decode(message: ClientRequest | ClientAnswer, frame: bytes) -> list[ClientRequest] | list[ClientAnswer]:
    return WIRE.decode_client_frame(frame) if isinstance(message, ClientRequest) else WIRE.decode_answer_frame(frame)


def name(value: object) -> str:
    return type(value).__name__


@pytest.mark.parametrize("kind", [*REQUESTS, *ANSWERS])
def test_client_message_comes_back_equal(kind: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given((REQUESTS | ANSWERS)[kind])
    def check(message: ClientRequest | ClientAnswer) -> None:
        assert decode(message, WIRE.encode_client(message)) == [message]

    check()


@pytest.mark.parametrize("message", [*REQUEST_EXAMPLES, *ANSWER_EXAMPLES], ids=name)
def test_client_message_with_any_byte_changed_is_refused_or_another(message: ClientRequest | ClientAnswer) -> None:
    frame = WIRE.encode_client(message)
    for position in range(len(frame)):
        for flip in (0x01, 0x80, 0xFF):
            altered = frame[:position] + bytes([frame[position] ^ flip]) + frame[position + 1 :]
            try:
                (other,) = decode(message, altered)
            except WireError:
                continue
            assert other != message
            assert WIRE.encode_client(other) == altered


@pytest.mark.parametrize("message", [*REQUEST_EXAMPLES, *ANSWER_EXAMPLES], ids=name)
def test_client_message_cut_or_lengthened_is_refused(message: ClientRequest | ClientAnswer) -> None:
    frame = WIRE.encode_client(message)
    payload = frame[16:]
    cuts = [frame[:length] for length in range(len(frame))]
    cuts += [fastpath.pack_message(frame[3], 0, payload[:length]) for length in range(len(payload))]
    for altered in [*cuts, frame + b"\x00", fastpath.pack_message(frame[3], 0, payload + b"\x00")]:
        with pytest.raises(WireError):
            decode(message, altered)


def test_client_frame_may_hold_many_messages() -> None:
    frame = b"".join(WIRE.encode_client(message) for message in REQUEST_EXAMPLES)
    assert WIRE.decode_client_frame(frame) == list(REQUEST_EXAMPLES)
    frame = b"".join(WIRE.encode_client(message) for message in ANSWER_EXAMPLES)
    assert WIRE.decode_answer_frame(frame) == list(ANSWER_EXAMPLES)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(MessageType)), st.binary(max_size=300))
def test_random_client_payload_is_refused_or_the_one_encoding_of_its_value(kind: int, payload: bytes) -> None:
    frame = fastpath.pack_message(kind, 0, payload)
    for decoder in (WIRE.decode_client_frame, WIRE.decode_answer_frame):
        try:
            (message,) = decoder(frame)
        except WireError:
            continue
        assert WIRE.encode_client(message) == frame


def test_answers_are_no_requests_and_peers_messages_are_neither() -> None:
    for frame in (WIRE.encode_client(ANSWER_EXAMPLES[2]), fastpath.pack_message(MessageType.PREPARE, 0, bytes(112))):
        with pytest.raises(WireError) as caught:
            WIRE.decode_client_frame(frame)
        assert caught.value.code is WireCode.UNKNOWN_TYPE


def test_client_frame_over_its_limit_is_refused() -> None:
    with pytest.raises(WireError) as caught:
        WIRE.decode_client_frame(bytes(CLIENT_FRAME_MAX + 1))
    assert caught.value.code is WireCode.BAD_FRAME


def test_largest_operation_fits_a_client_frame() -> None:
    message = submit(1, bytes(65_536))
    assert WIRE.decode_client_frame(WIRE.encode_client(message)) == [message]


def test_reply_whose_header_is_of_another_block_is_refused() -> None:
    good = ANSWER_EXAMPLES[0]
    assert isinstance(good, Reply)
    for altered in (
        replace(good, block_header=header_of(4).pack()),
        replace(good, block_hash=bytes(32)),
        replace(good, order_hash=bytes(32)),
        replace(good, sequence=9),
    ):
        with pytest.raises(WireError) as caught:
            WIRE.decode_answer_frame(WIRE.encode_client(altered))
        assert caught.value.code is WireCode.DIGEST_MISMATCH
    with pytest.raises(WireError) as caught:
        WIRE.decode_answer_frame(WIRE.encode_client(BlockAnswer(8, header_of(9).pack(), SEAL)))
    assert caught.value.code is WireCode.DIGEST_MISMATCH


def test_reply_of_more_entries_than_a_block_has_is_refused() -> None:
    payload = WIRE.encode_client(reply(3, SEAL, (), with_header=False))[16:-4] + (1281).to_bytes(4, "little")
    with pytest.raises(WireError) as caught:
        WIRE.decode_answer_frame(fastpath.pack_message(MessageType.REPLY, 0, payload))
    assert caught.value.code is WireCode.MALFORMED


def test_unsigned_read_that_names_a_caller_is_refused() -> None:
    frame = bytearray(WIRE.encode_client(Read(bytes(16), False, b"{}")))
    frame[16 + 18] = 1
    with pytest.raises(WireError, match="names a caller"):
        WIRE.decode_client_frame(bytes(frame))


@pytest.mark.parametrize(
    "message",
    [
        ReceiptQuery(b""),
        Read(b"", False, b"{}"),
        Read(bytes(16), False, bytes(16_385)),
        Read(bytes(16), False, b"{}", None, 5),
        Read(bytes(16), False, b"{}", ALICE.public_key),
        StatusAnswer(bytes(65_537)),
        reply(3, SEAL, (ReplyEntry(bytes(32), 0),) * 1281, with_header=False),
        reply(3, SEAL, (ReplyEntry(bytes(32), 0, Outcome(0, bytes(65_537), b"")),), with_header=False),
        reply(3, SEAL, (ReplyEntry(bytes(32), 0, Outcome(0, bytes(65_000), b"")),) * 200, with_header=False),
        replace(reply(3, SEAL, (), with_header=False), epoch=1),
        BlockAnswer(9, header_of(9).pack()),
    ],
    ids=name,
)
def test_client_message_that_would_be_refused_is_not_sent(message: ClientRequest | ClientAnswer) -> None:
    with pytest.raises(ValueError):
        WIRE.encode_client(message)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, NUMBER_MAX),
    st.integers(1, NUMBER_MAX),
    st.integers(0, NUMBER_MAX),
    st.integers(0, 3),
    st.binary(max_size=80),
)
def test_built_request_is_parsed_and_signed(session: int, sequence: int, until: int, kind: int, body: bytes) -> None:
    record = build_request(
        ALICE,
        CLUSTER.cluster_id,
        session=session,
        sequence=sequence,
        floor=sequence,
        valid_until_us=until,
        operation=body,
        kind=kind,
    )
    request = parse_record(record, CLUSTER.cluster_id)
    fields = (request.client, request.session, request.sequence, request.floor, request.valid_until_us, request.kind)
    assert fields == (ALICE.public_key, session, sequence, sequence, until, kind)
    assert (operation_of(request), signature_of(request), request.record) == (body, record[-64:], record)
    assert WIRE.verify_request(request)


def test_request_with_any_bit_changed_is_refused_or_unsigned() -> None:
    record = submit(3, b"bid").request.record
    for position in range(len(record)):
        for bit in (1, 16, 128):
            altered = record[:position] + bytes([record[position] ^ bit]) + record[position + 1 :]
            try:
                request = parse_record(altered, CLUSTER.cluster_id)
            except WireError:
                continue
            assert not request_is_signed(request.record, CLUSTER.cluster_id)


@pytest.mark.parametrize(
    "change",
    [
        {"floor": 0},
        {"floor": 3},
        {"session": -1},
        {"valid_until_us": 2**53},
        {"operation": bytes(65_537)},
        {"kind": 4},
        {"cluster_id": b"short"},
    ],
    ids=str,
)
def test_request_that_every_replica_would_refuse_is_not_built(change: dict[str, object]) -> None:
    fields = {"cluster_id": CLUSTER.cluster_id, "session": 1, "sequence": 2, "floor": 1, "valid_until_us": 9}
    with pytest.raises(ValueError):
        build_request(ALICE, **{**fields, "operation": b"", **change})


def test_record_of_another_cluster_or_none_or_two_is_refused() -> None:
    record = submit(1, b"").request.record
    for data, cluster_id in ((record, bytes(16)), (b"", CLUSTER.cluster_id), (record * 2, CLUSTER.cluster_id)):
        with pytest.raises(WireError):
            parse_record(data, cluster_id)


def test_signed_query_is_bound_to_every_field() -> None:
    assert WIRE.verify_read(SIGNED_READ)
    assert not WIRE.verify_read(Read(bytes(16), True, b"{}"))
    for change in (
        {"nonce": b"\x01" * 16},
        {"query": b"[]"},
        {"valid_until_us": 10**15 + 1},
        {"caller": signing_key("bob").public_key},
        {"signature": b""},
    ):
        assert not WIRE.verify_read(replace(SIGNED_READ, **change))
    other = Wire(cluster(5))
    assert not other.verify_read(SIGNED_READ)


def shares_of(replica: int, results: list[bytes], executed: int = 7) -> list[ReadShare]:
    """What one replica answers to `results`, collected under one signature."""
    digests = [read_digest(b"query %d" % index, None) for index in range(len(results))]
    leaves = [
        share_leaf(bytes(16), digest, fastpath.sha256(result), executed, bytes(32), 99)
        for digest, result in zip(digests, results, strict=True)
    ]
    signature = WIRE.sign_shares(leaves, NODES[replica])
    return [
        ReadShare(
            nonce=bytes(16),
            read_digest=digests[index],
            result_hash=fastpath.sha256(result),
            executed=executed,
            block_hash=bytes(32),
            time_us=99,
            leaf_index=index,
            leaf_count=len(results),
            path=path,
            signature=signature,
            result=result,
        )
        for index, (result, path) in enumerate(
            zip(results, fastpath.merkle_paths(leaves, range(len(leaves))), strict=True)
        )
    ]


def test_read_shares_under_one_signature_each_verify() -> None:
    for share in shares_of(1, [b"a", b"b", b"c"]):
        assert WIRE.verify_share(share, ReplicaId(1))
        assert WIRE.verify_share(replace(share, result=None), ReplicaId(1))
        assert not WIRE.verify_share(share, ReplicaId(0))
        assert not WIRE.verify_share(share, ReplicaId(4))


def test_read_share_is_bound_to_every_field() -> None:
    share = shares_of(1, [b"a", b"b", b"c"])[1]
    for change in (
        {"nonce": b"\x01" * 16},
        {"read_digest": bytes(32)},
        {"result_hash": bytes(32), "result": None},
        {"result": b"z"},
        {"executed": 8},
        {"block_hash": b"\x01" * 32},
        {"time_us": 98},
        {"leaf_index": 0},
        {"leaf_count": 2},
        {"path": share.path[:-1]},
        {"path": share.path + bytes(32)},
        {"signature": bytes(64)},
        {"signature": b""},
    ):
        assert not WIRE.verify_share(replace(share, **change), ReplicaId(1))


def test_equal_shares_are_the_largest_agreeing_set() -> None:
    right, wrong = shares_of(0, [b"right"])[0], shares_of(1, [b"wrong"])[0]
    later = replace(right, executed=8)
    shares = {ReplicaId(3): wrong, ReplicaId(2): right, ReplicaId(1): later, ReplicaId(0): right}
    assert equal_shares(shares, certified=False) == [0, 1, 2]
    assert equal_shares(shares, certified=True) == [0, 2]
    assert equal_shares({}, certified=False) == []


def test_read_digest_tells_callers_and_queries_apart() -> None:
    digests = {read_digest(query, caller) for query in (b"", b"a") for caller in (None, ALICE.public_key)}
    assert len(digests) == 4


def test_reply_entry_is_proven_only_by_its_own_path() -> None:
    receipt = example_receipts(CLUSTER)[2]
    outcome = Outcome(receipt.status, receipt.result, receipt.path)
    entry = ReplyEntry(receipt.digest, receipt.index, outcome)
    header = receipt.header
    proven = Reply(0, header.sequence, header.order_hash, header.hash, SEAL, (entry,), header.pack())
    assert entry_is_proven(proven, entry)
    assert not entry_is_proven(replace(proven, block_header=b""), entry)
    for change in (
        {"digest": bytes(32)},
        {"index": 3},
        {"outcome": None},
        {"outcome": replace(outcome, status=outcome.status + 1)},
        {"outcome": replace(outcome, result=b"{}")},
        {"outcome": replace(outcome, path=outcome.path[:-32])},
    ):
        assert not entry_is_proven(proven, replace(entry, **change))


def test_attestation_in_a_reply_is_verified_by_the_members_key() -> None:
    receipt = example_receipts(CLUSTER)[0]
    header = receipt.header
    (replica, signature), *_ = receipt.attestations
    answer = Reply(0, header.sequence, header.order_hash, header.hash, signature, ())
    assert WIRE.verify_attest(answer, replica)
    assert not WIRE.verify_attest(answer, ReplicaId(3))
    assert not WIRE.verify_attest(replace(answer, sequence=8), replica)
    assert not WIRE.verify_attest(replace(answer, signature=b""), replica)
