"""The client's core against replies of every kind, honest and forged. No sockets, no clocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from types import ModuleType
from typing import Any

import pytest

from nodes.client.core import ClientCore, SignedQuery, operation_bytes
from nodes.client.errors import (
    InvalidRequest,
    NoQuorum,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    Refused,
    VerificationFailed,
)
from nodes.client.options import ClientOptions
from nodes.client.reading import Consistency, QueryResult
from nodes.codes import Status
from nodes.core.types import Now
from nodes.keys import SigningKey
from nodes.receipt import Receipt
from nodes.wire import (
    BlockAnswer,
    BlockQuery,
    Busy,
    BusyReason,
    Outcome,
    Read,
    ReceiptQuery,
    ReplyEntry,
    StatusAnswer,
    Submit,
    Subscribe,
    build_request,
)

WALL_US = 1_700_000_001_000_000
KEY = SigningKey(b"\x07" * 32)
OPERATION = b'{"type":"test"}'
NONCE = b"\x05" * 16


@dataclass
class Bench:
    """A core, its virtual clock, and the frames it has sent."""

    stub: Any
    module: ModuleType
    core: ClientCore
    now: Now

    def sent(self) -> list[list[Any]]:
        """Decoded messages for each replica since the last call."""
        return [
            [message for frame in self.core.frames(replica) for message in self.stub.wire.decode_client_frame(frame)]
            for replica in range(self.stub.config.n)
        ]

    def pass_us(self, microseconds: int) -> None:
        self.now = Now(self.now.monotonic_us + microseconds, self.now.wall_us + microseconds)
        self.core.tick(self.now)

    def receive(self, replica: int, *messages: Any) -> None:
        self.core.receive(replica, self.stub.frame(*messages), self.now)

    def execute(self, record: bytes, status: int = 0, result: bytes = b'{"done":1}', before: int = 2) -> Any:
        """A block with other leaves and ours."""
        digest = self.stub.wire.parse_record(record).digest
        others = [self.stub.other_leaf(1_000 * len(self.stub.blocks) + number) for number in range(before)]
        return self.stub.execute(*others, self.module.Leaf(digest, status, result, record))

    def submit(self) -> tuple[int, bytes, bytes]:
        """(ticket, record, digest) of one operation of our own."""
        ticket = self.core.submit(OPERATION, self.now)
        request = self.sent()[0][0].request
        return ticket, request.record, request.digest


def make_bench(stub: ModuleType, *, n: int = 4, **options: int) -> Bench:
    cluster = stub.StubCluster(n)
    core = ClientCore(cluster.config, KEY, ClientOptions(**options))
    return Bench(cluster, stub, core, Now(1_000_000, WALL_US))


@pytest.fixture
def bench(stub: ModuleType) -> Bench:
    return make_bench(stub)


def codes(bench: Bench) -> list[tuple[int, str]]:
    return [(one.replica, one.code) for one in bench.core.misbehaviour]


# Proofs


@pytest.mark.parametrize("n", [1, 4, 7])
def test_operation_is_proven_by_exactly_a_quorum(stub: ModuleType, n: int) -> None:
    bench = make_bench(stub, n=n)
    ticket, record, digest = bench.submit()
    block = bench.execute(record)
    for replica in range(bench.stub.config.quorum):
        assert bench.core.completed() == []
        bench.receive(replica, bench.stub.reply(replica, block, digest, full=replica == 0))
    [(done, receipt)] = bench.core.completed()
    assert done == ticket
    assert isinstance(receipt, Receipt)
    verified = receipt.verify(bench.stub.config)
    assert (verified.digest, verified.status, verified.result) == (digest, 0, b'{"done":1}')
    assert bench.core.due_us() is None


def test_operation_is_sent_to_every_replica_with_the_same_bytes(bench: Bench) -> None:
    bench.core.submit(OPERATION, bench.now)
    sent = bench.sent()
    assert all(messages == sent[0] for messages in sent)
    assert isinstance(sent[0][0], Submit)


@pytest.mark.parametrize("order", list(combinations(range(4), 3)))
def test_any_three_of_four_replicas_prove_whichever_brings_the_leaf(bench: Bench, order: tuple[int, ...]) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    for replica in order[:-1]:
        bench.receive(replica, bench.stub.reply(replica, block, digest))
    assert bench.core.completed() == []
    bench.receive(order[-1], bench.stub.reply(order[-1], block, digest, full=True))
    [(_, receipt)] = bench.core.completed()
    assert receipt.verify(bench.stub.config).signers == tuple(sorted(order))


def test_one_replica_repeating_itself_is_one_vote(bench: Bench) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    for _ in range(10):
        bench.receive(2, bench.stub.reply(2, block, digest, full=True))
    bench.receive(1, bench.stub.reply(1, block, digest, full=True))
    assert bench.core.completed() == []


def test_forged_attestation_does_not_count_and_is_noted(bench: Bench) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    forged = bench.stub.reply(0, block, digest, full=True)
    bench.receive(0, replace(forged, signature=bench.module.flipped(forged.signature)))
    bench.receive(1, bench.stub.reply(1, block, digest))
    bench.receive(2, bench.stub.reply(2, block, digest))
    assert bench.core.completed() == []
    assert codes(bench) == [(0, "bad_attestation")]
    bench.receive(3, bench.stub.reply(3, block, digest))
    assert bench.core.completed()[0][1].verify(bench.stub.config).signers == (1, 2, 3)


def test_attestation_signed_by_another_replica_does_not_count(bench: Bench) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    borrowed = bench.stub.reply(1, block, digest).signature
    bench.receive(0, replace(bench.stub.reply(0, block, digest), signature=borrowed))
    bench.receive(1, bench.stub.reply(1, block, digest, full=True))
    bench.receive(2, bench.stub.reply(2, block, digest))
    assert bench.core.completed() == []
    assert codes(bench) == [(0, "bad_attestation")]


def test_vote_for_another_index_does_not_count_and_is_noted(bench: Bench) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    lie = bench.stub.reply(0, block, digest)
    bench.receive(0, replace(lie, entries=(ReplyEntry(digest, 0),)))
    bench.receive(1, bench.stub.reply(1, block, digest, full=True))
    bench.receive(2, bench.stub.reply(2, block, digest))
    assert bench.core.completed() == []
    bench.receive(3, bench.stub.reply(3, block, digest))
    assert bench.core.completed()[0][1].verify(bench.stub.config).signers == (1, 2, 3)
    assert codes(bench) == [(0, "wrong_index")]


def test_vote_for_another_block_of_the_same_number_is_noted(bench: Bench) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    other = bench.module.StubCluster(4)
    lie = other.execute(other.other_leaf(5), bench.module.Leaf(digest, 0, b'{"done":2}', record))
    bench.receive(0, bench.stub.reply(0, lie, digest, full=True))
    for replica in (1, 2, 3):
        bench.receive(replica, bench.stub.reply(replica, block, digest, full=replica == 3))
    [(_, receipt)] = bench.core.completed()
    assert receipt.verify(bench.stub.config).result == b'{"done":1}'
    assert codes(bench) == [(0, "other_block")]


def test_two_colluding_replicas_of_four_prove_nothing(bench: Bench) -> None:
    """f+1 equal, genuinely signed lies: more than may be faulty, and still not a quorum."""
    _, record, digest = bench.submit()
    lie = bench.execute(record, result=b'{"done":666}')
    for replica in (0, 1):
        bench.receive(replica, bench.stub.reply(replica, lie, digest, full=True))
    assert bench.core.completed() == []
    bench.pass_us(31_000_000)
    assert isinstance(bench.core.completed()[0][1], OutcomeUnknown)


@pytest.mark.parametrize(
    "change",
    [
        lambda outcome: replace(outcome, result=b'{"done":2}'),
        lambda outcome: replace(outcome, status=100),
        lambda outcome: replace(outcome, path=outcome.path[:-32]),
        lambda outcome: replace(outcome, path=outcome.path + bytes(32)),
        lambda outcome: replace(outcome, path=bytes([outcome.path[0] ^ 1]) + outcome.path[1:]),
        lambda outcome: replace(outcome, path=b""),
    ],
    ids=["result", "status", "short path", "long path", "path byte", "no path"],
)
def test_leaf_that_is_not_under_the_results_root_is_ignored(bench: Bench, change: Any) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    lie = bench.stub.reply(0, block, digest, full=True)
    entry = lie.entries[0]
    bench.receive(0, replace(lie, entries=(replace(entry, outcome=change(entry.outcome)),)))
    bench.receive(1, bench.stub.reply(1, block, digest))
    bench.receive(2, bench.stub.reply(2, block, digest))
    assert bench.core.completed() == []
    assert codes(bench) == [(0, "bad_path")]
    bench.receive(3, bench.stub.reply(3, block, digest, full=True))
    assert bench.core.completed()[0][1].verify(bench.stub.config).result == b'{"done":1}'


def test_header_that_does_not_hash_to_the_attested_block_refuses_the_frame(bench: Bench) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    lie = bench.stub.reply(0, block, digest, full=True)
    bench.core.receive(0, bench.stub.frame(lie).replace(lie.block_header[-32:], bytes(32)), bench.now)
    assert codes(bench) == [(0, "digest_mismatch")]
    assert bench.core.heard_us[0] is None


def test_header_of_another_cluster_is_noted(bench: Bench) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    header = replace(block.header, cluster_id=b"\x01" * 16)
    foreign = replace(bench.stub.reply(0, block, digest, full=True), block_header=header.pack(), block_hash=header.hash)
    bench.receive(0, foreign)
    assert codes(bench) == [(0, "other_cluster")]


def test_more_liars_than_may_be_faulty_is_a_failed_verification(bench: Bench) -> None:
    ticket, record, digest = bench.submit()
    block = bench.execute(record)
    for replica in (0, 1):
        lie = bench.stub.reply(replica, block, digest, full=True)
        outcome = Outcome(0, b'{"done":9}', block.path(2))
        bench.receive(replica, replace(lie, entries=(ReplyEntry(digest, 2, outcome),)))
    [(done, error)] = bench.core.completed()
    assert done == ticket
    assert isinstance(error, VerificationFailed)
    assert (error.code, error.replica) == ("bad_path", 1)


def test_replica_that_names_many_blocks_is_ignored(bench: Bench) -> None:
    _, record, digest = bench.submit()
    for _ in range(5):
        block = bench.execute(record)
        bench.receive(0, bench.stub.reply(0, block, digest))
    assert codes(bench) == [(0, "too_many_blocks")]


def test_bytes_that_are_no_message_are_noted_and_change_nothing(bench: Bench) -> None:
    bench.submit()
    bench.core.receive(3, b"\x00" * 40, bench.now)
    bench.core.receive(3, bench.stub.frame(Subscribe()), bench.now)
    assert [replica for replica, _ in codes(bench)] == [3, 3]
    assert bench.core.completed() == []


def test_answers_about_unknown_operations_are_ignored(bench: Bench) -> None:
    record = build_request(
        KEY, bench.stub.config.cluster_id, session=1, sequence=1, floor=1, valid_until_us=WALL_US, operation=b"x"
    )
    block = bench.execute(record)
    bench.receive(0, bench.stub.reply(0, block, bench.stub.wire.parse_record(record).digest, full=True))
    assert bench.core.completed() == []
    assert codes(bench) == []


def test_signature_of_a_block_is_verified_once_for_all_its_operations(bench: Bench, monkeypatch: Any) -> None:
    import fastpath

    counted: list[int] = []
    verify_many = fastpath.verify_many
    monkeypatch.setattr(fastpath, "verify_many", lambda items: counted.append(len(items)) or verify_many(items))
    tickets = [bench.core.submit(b"operation %d" % number, bench.now) for number in range(10)]
    requests = [message.request for message in bench.sent()[0]]
    leaves = [bench.module.Leaf(request.digest, 0, b"{}", request.record) for request in requests]
    block = bench.stub.execute(*leaves)
    for replica in range(3):
        replies = [bench.stub.reply(replica, block, request.digest, full=replica == 0) for request in requests]
        whole = replace(replies[0], entries=tuple(reply.entries[0] for reply in replies))
        bench.receive(replica, whole)
    assert [ticket for ticket, _ in bench.core.completed()] == tickets
    assert sum(counted) == 3


# Outcomes


def test_refusal_comes_with_a_verifying_receipt(bench: Bench) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record, status=int(Status.UNAUTHORIZED), result=b"{}")
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, block, digest, full=replica == 1))
    [(_, error)] = bench.core.completed()
    assert isinstance(error, Refused)
    assert (error.code, error.status) == ("unauthorized", 8)
    assert error.receipt is not None
    assert error.receipt.verify(bench.stub.config).status == 8


def test_time_out_is_unknown_and_carries_the_bytes_to_retry(bench: Bench) -> None:
    _, record, digest = bench.submit()
    bench.pass_us(30_000_001)
    [(_, error)] = bench.core.completed()
    assert isinstance(error, OutcomeUnknown)
    assert (error.record, error.digest) == (record, digest)
    retry = bench.core.submit_signed(error.record, bench.now)
    block = bench.execute(record)
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, block, digest, full=replica == 1))
    [(done, receipt)] = bench.core.completed()
    assert done == retry
    assert receipt.verify(bench.stub.config).digest == digest


def test_same_bytes_are_sent_again_with_growing_intervals_to_those_who_did_not_answer(bench: Bench) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    times = []
    for _ in range(200):
        bench.pass_us(100_000)
        sent = bench.sent()
        if any(sent):
            times.append(bench.now.monotonic_us - 1_000_000)
            assert all(messages[0].request.record == record for messages in sent)
    assert times == [1_500_000, 4_500_000, 10_500_000]
    bench.receive(0, bench.stub.reply(0, block, digest))
    bench.pass_us(5_000_000)
    sent = bench.sent()
    assert sent[0] == []
    # Somebody has executed it, so the others are also asked for what became of it.
    assert [type(message) for message in sent[1]] == [Submit, ReceiptQuery]


def test_missing_leaf_is_asked_for_at_one_voter_after_the_other(bench: Bench) -> None:
    _, record, digest = bench.submit()
    block = bench.execute(record)
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, block, digest))
    assert not any(bench.sent())
    asked = []
    for _ in range(6):
        bench.pass_us(50_000)
        asked += [replica for replica, messages in enumerate(bench.sent()) if messages == [ReceiptQuery(digest)]]
    assert asked[:2] == [0, 1]
    bench.receive(1, bench.stub.reply(1, block, digest, full=True, record=True))
    assert bench.core.completed()[0][1].verify(bench.stub.config).digest == digest


def test_duplicate_is_followed_to_the_original_receipt(bench: Bench) -> None:
    ticket, record, digest = bench.submit()
    original = bench.execute(record)
    copy = bench.execute(record, status=int(Status.DUPLICATE), result=b'{"index":2,"sequence":1}')
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, copy, digest, full=replica == 0))
    assert bench.core.completed() == []
    assert bench.sent() == [[ReceiptQuery(digest)]] * 4
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, copy, digest, full=True))
    assert bench.core.completed() == []
    for replica in range(1, 4):
        bench.receive(replica, bench.stub.reply(replica, original, digest, full=True, record=True))
    [(done, receipt)] = bench.core.completed()
    assert done == ticket
    assert receipt.verify(bench.stub.config).sequence == original.header.sequence


def test_same_bytes_submitted_twice_at_once_have_one_exchange_and_two_outcomes(bench: Bench) -> None:
    first, record, digest = bench.submit()
    second = bench.core.submit_signed(record, bench.now)
    assert not any(bench.sent())
    block = bench.execute(record)
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, block, digest, full=replica == 1))
    done = bench.core.completed()
    assert [ticket for ticket, _ in done] == [first, second]
    assert done[0][1].to_json() == done[1][1].to_json()


def test_each_caller_of_the_same_bytes_has_its_own_deadline(bench: Bench) -> None:
    first, record, _ = bench.submit()
    second = bench.core.submit_signed(record, bench.now, timeout_ms=5_000)
    bench.pass_us(5_000_000)
    [(done, error)] = bench.core.completed()
    assert done == second
    assert isinstance(error, OutcomeUnknown)
    bench.pass_us(25_000_000)
    assert [ticket for ticket, _ in bench.core.completed()] == [first]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (BusyReason.RATE_LIMITED, "rate_limited"),
        (BusyReason.OVERLOADED, "overloaded"),
        (BusyReason.CATCHING_UP, "catching_up"),
    ],
)
def test_quorum_that_is_busy_is_overloaded(bench: Bench, reason: BusyReason, code: str) -> None:
    _, record, digest = bench.submit()
    for replica in range(3):
        assert bench.core.completed() == []
        bench.receive(replica, Busy(digest, reason, 400 + replica))
    [(_, error)] = bench.core.completed()
    assert isinstance(error, Overloaded)
    assert (error.code, error.retry_after, error.record) == (code, 0.402, record)


def test_busy_replica_is_asked_again_after_the_time_it_named(bench: Bench) -> None:
    _, _, digest = bench.submit()
    bench.receive(2, Busy(digest, BusyReason.OVERLOADED, 200))
    bench.pass_us(199_000)
    assert not any(bench.sent())
    bench.pass_us(1_000)
    assert [type(message) for message in bench.sent()[2]] == [Submit, ReceiptQuery]


def test_expired_before_ordering_is_refused_without_a_receipt(bench: Bench) -> None:
    _, _, digest = bench.submit()
    for replica in range(3):
        bench.receive(replica, Busy(digest, BusyReason.EXPIRED, 0))
    [(_, error)] = bench.core.completed()
    assert isinstance(error, Refused)
    assert (error.code, error.receipt) == ("expired", None)


def test_replica_that_calls_a_good_signature_bad_is_noted(bench: Bench) -> None:
    _, record, digest = bench.submit()
    bench.receive(3, Busy(digest, BusyReason.BAD_SIGNATURE, 0))
    assert codes(bench) == [(3, "false_refusal")]
    block = bench.execute(record)
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, block, digest, full=replica == 1))
    assert isinstance(bench.core.completed()[0][1], Receipt)


def test_unsigned_or_foreign_bytes_are_refused_before_anything_is_sent(bench: Bench) -> None:
    record = bench.submit()[1]
    for bad, code in (
        (record[:-1] + bytes([record[-1] ^ 1]), "bad_signature"),
        (record[:-1], "malformed"),
        (record + b"x", "malformed"),
        (record[:4] + bytes(16) + record[20:], "malformed"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            bench.core.submit_signed(bad, bench.now)
        assert caught.value.code == code
    with pytest.raises(InvalidRequest, match="too_large"):
        bench.core.submit(bytes(65_537), bench.now)
    with pytest.raises(InvalidRequest, match="no_key"):
        ClientCore(bench.stub.config).submit(OPERATION, bench.now)
    assert not any(bench.sent())


# Sessions


def test_sequences_count_up_and_the_floor_follows_what_is_done(bench: Bench) -> None:
    requests = []
    for number in range(3):
        bench.core.submit(b"operation %d" % number, bench.now)
        requests.append(bench.sent()[0][0].request)
    assert [(one.session, one.sequence, one.floor) for one in requests] == [
        (WALL_US // 1_000, 1, 1),
        (WALL_US // 1_000, 2, 1),
        (WALL_US // 1_000, 3, 1),
    ]
    for request in (requests[0], requests[1]):
        block = bench.execute(request.record)
        for replica in range(3):
            bench.receive(replica, bench.stub.reply(replica, block, request.digest, full=True))
    bench.core.submit(b"operation 4", bench.now)
    request = bench.sent()[0][0].request
    assert (request.sequence, request.floor) == (4, 3)


def test_at_most_64_are_outstanding_and_the_next_goes_out_when_one_is_done(bench: Bench) -> None:
    for number in range(70):
        bench.core.submit(b"operation %d" % number, bench.now)
    requests = [message.request for message in bench.sent()[0]]
    assert [request.sequence for request in requests] == list(range(1, 65))
    block = bench.execute(requests[10].record)
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, block, requests[10].digest, full=True))
    [following] = [message.request for message in bench.sent()[0]]
    assert (following.sequence, following.floor) == (65, 1)


def test_more_waiting_than_the_queue_holds_is_overloaded_at_once(stub: ModuleType) -> None:
    bench = make_bench(stub, queue_max=70)
    for number in range(70):
        bench.core.submit(b"operation %d" % number, bench.now)
    with pytest.raises(Overloaded):
        bench.core.submit(b"one more", bench.now)


def test_operation_that_never_got_a_place_is_overloaded_not_unknown(bench: Bench) -> None:
    for number in range(65):
        bench.core.submit(b"operation %d" % number, bench.now)
    bench.pass_us(30_000_000)
    outcomes = [type(outcome) for _, outcome in bench.core.completed()]
    assert outcomes.count(OutcomeUnknown) == 64
    assert outcomes.count(Overloaded) == 1


def test_stale_session_is_left_for_a_new_one_with_the_same_operation(bench: Bench) -> None:
    ticket, record, digest = bench.submit()
    block = bench.execute(record, status=int(Status.STALE_SESSION), result=b"{}")
    bench.now = Now(bench.now.monotonic_us + 1, bench.now.wall_us + 5_000)
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, block, digest, full=True))
    assert bench.core.completed() == []
    request = bench.sent()[0][0].request
    assert (request.session, request.sequence) == (WALL_US // 1_000 + 5, 1)
    again = bench.execute(request.record)
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, again, request.digest, full=True))
    [(done, receipt)] = bench.core.completed()
    assert done == ticket
    assert receipt.verify(bench.stub.config).digest == request.digest


def test_stale_session_twice_is_given_to_the_caller(bench: Bench) -> None:
    _, record, digest = bench.submit()
    for _ in range(2):
        block = bench.execute(record, status=int(Status.STALE_SESSION), result=b"{}")
        for replica in range(3):
            bench.receive(replica, bench.stub.reply(replica, block, digest, full=True))
        sent = bench.sent()[0]
        if sent:
            record, digest = sent[0].request.record, sent[0].request.digest
    assert bench.core.completed()[0][1].code == "stale_session"


def test_raised_floor_cancels_what_is_unknown_and_waits_for_what_is_in_flight(bench: Bench) -> None:
    bench.core.submit(b"lost", bench.now, timeout_ms=1_000)
    bench.sent()
    bench.pass_us(1_000_000)
    assert isinstance(bench.core.completed()[0][1], OutcomeUnknown)
    _, record, digest = bench.submit()
    assert bench.stub.wire.parse_record(record).floor == 1
    bench.core.submit(b"fence", bench.now, raise_floor=True)
    assert not any(bench.sent())
    block = bench.execute(record)
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, block, digest, full=True))
    fence = bench.sent()[0][0].request
    assert (fence.sequence, fence.floor) == (3, 3)


def test_cancelled_call_completes_nothing(bench: Bench) -> None:
    ticket, record, digest = bench.submit()
    bench.core.cancel(ticket)
    block = bench.execute(record)
    for replica in range(3):
        bench.receive(replica, bench.stub.reply(replica, block, digest, full=True))
    assert bench.core.completed() == []
    assert bench.core.due_us() is None


# Receipts, blocks, status, subscription


def test_receipt_is_found_by_digest_also_of_a_timer_and_of_a_refusal(bench: Bench) -> None:
    record = bench.submit()[1]
    bench.core.cancel(1)
    block = bench.execute(record, status=int(Status.UNAUTHORIZED))
    for leaf in (block.leaves[0], block.leaves[2]):
        ticket = bench.core.find_receipt(leaf.digest, bench.now)
        assert bench.sent() == [[ReceiptQuery(leaf.digest)]] * 4
        for replica in range(1, 4):
            bench.receive(replica, bench.stub.reply(replica, block, leaf.digest, full=True, record=True))
        [(done, receipt)] = bench.core.completed()
        assert done == ticket
        assert receipt.verify(bench.stub.config).digest == leaf.digest


def test_receipt_with_a_forged_record_is_not_believed(bench: Bench) -> None:
    record = bench.submit()[1]
    bench.core.cancel(1)
    block = bench.execute(record)
    digest = block.leaves[2].digest
    bench.core.find_receipt(digest, bench.now)
    forged = bench.stub.reply(0, block, digest, full=True)
    other = forged.entries[0].outcome
    assert other is not None
    for lie in (record[:-1] + bytes([record[-1] ^ 1]), block.leaves[0].record, b"junk"):
        outcome = replace(other, record=lie)
        bench.receive(0, replace(forged, entries=(replace(forged.entries[0], outcome=outcome),)))
    assert codes(bench) == [(0, "bad_record")]


def test_receipt_that_a_quorum_does_not_know_is_not_found(bench: Bench) -> None:
    bench.core.find_receipt(bytes(32), bench.now)
    for replica in range(3):
        assert bench.core.completed() == []
        bench.receive(replica, Busy(bytes(32), BusyReason.NOT_FOUND, 0))
    assert isinstance(bench.core.completed()[0][1], NotFound)


def test_block_needs_a_quorum_of_genuine_attestations(bench: Bench) -> None:
    header = bench.stub.execute(bench.stub.other_leaf(1)).header
    bench.core.find_block(1, bench.now)
    assert bench.sent() == [[BlockQuery(1)]] * 4
    for replica in (0, 1, 2):
        signature = bench.stub.attest(replica, header).signature
        if replica == 1:
            signature = bench.module.flipped(signature)
        bench.receive(replica, BlockAnswer(1, header.pack(), signature))
    assert bench.core.completed() == []
    assert codes(bench) == [(1, "bad_attestation")]
    bench.receive(3, BlockAnswer(1, header.pack(), bench.stub.attest(3, header).signature))
    [(_, (found, attestations))] = bench.core.completed()
    assert found == header
    assert [replica for replica, _ in attestations] == [0, 2, 3]


def test_block_that_a_quorum_does_not_have_is_not_found(bench: Bench) -> None:
    bench.core.find_block(9, bench.now)
    for replica in range(3):
        bench.receive(replica, BlockAnswer(9))
    assert isinstance(bench.core.completed()[0][1], NotFound)


def test_status_is_the_word_of_the_replica_that_was_asked(bench: Bench) -> None:
    bench.core.status(2, bench.now)
    assert [len(messages) for messages in bench.sent()] == [0, 0, 1, 0]
    bench.receive(1, StatusAnswer(b'{"view":9}'))
    assert bench.core.completed() == []
    bench.receive(2, StatusAnswer(b'{"view":1}'))
    assert bench.core.completed()[0][1] == {"view": 1}
    bench.core.status(0, bench.now)
    bench.pass_us(5_000_000)
    assert isinstance(bench.core.completed()[0][1], NoQuorum)


def test_attested_blocks_are_reported_once_and_in_order(bench: Bench) -> None:
    bench.core.subscribe(bench.now)
    assert bench.sent() == [[Subscribe()]] * 4
    headers = [bench.stub.execute(bench.stub.other_leaf(number)).header for number in range(3)]
    forged = bench.stub.attest(0, headers[0])
    bench.receive(0, replace(forged, signature=bench.module.flipped(forged.signature)))
    for header in headers:
        for replica in (3, 1, 2, 0):
            bench.receive(replica, bench.stub.attest(replica, header))
    assert bench.core.attested() == [(header.sequence, header.hash) for header in headers]
    assert bench.core.last_attested == 3
    assert codes(bench) == [(0, "bad_attestation")]
    bench.pass_us(10_000_000)
    assert bench.sent() == [[Subscribe()]] * 4


# Queries


def ask(bench: Bench, consistency: Consistency = Consistency.QUORUM) -> list[Read | None]:
    """The Read that each replica got."""
    bench.core.query(b'{"query":"x"}', NONCE, bench.now, consistency=consistency)
    reads = bench.sent()
    return [messages[0] if messages else None for messages in reads]


def test_query_needs_a_quorum_of_equal_shares_and_the_result_of_one(bench: Bench) -> None:
    reads = ask(bench)
    assert sum(read.want_result for read in reads if read) == 1
    for replica in range(3):
        assert bench.core.completed() == []
        read = reads[replica]
        share = bench.stub.share(replica, replace(read, want_result=replica == 1), b'{"a":1}', sequence=5 + replica)
        bench.receive(replica, share)
    [(_, answer)] = bench.core.completed()
    assert isinstance(answer, QueryResult)
    assert (answer.result, answer.executed) == (b'{"a":1}', 5)
    assert [replica for replica, _ in answer.shares] == [0, 1, 2]


def test_two_equal_lies_and_two_truths_are_no_quorum(bench: Bench) -> None:
    reads = ask(bench)
    for replica in range(4):
        result = b'{"a":1}' if replica < 2 else b'{"a":2}'
        bench.receive(replica, bench.stub.share(replica, reads[0], result))
    attempts = 0
    while not (done := bench.core.completed()):
        bench.pass_us(50_000)
        attempts += any(bench.sent())
        assert bench.now.monotonic_us < 10_000_000
    assert isinstance(done[0][1], NoQuorum)
    assert attempts >= 1


def test_query_is_asked_again_soon_when_the_answers_differ_and_the_newest_share_counts(bench: Bench) -> None:
    reads = ask(bench)
    read = replace(reads[0], want_result=True)
    for replica in range(4):
        bench.receive(replica, bench.stub.share(replica, read, b'{"a":%d}' % replica))
    bench.pass_us(50_000)
    assert all(isinstance(messages[0], Read) for messages in bench.sent())
    for replica in (0, 3, 2):
        bench.receive(replica, bench.stub.share(replica, read, b'{"a":7}'))
    assert bench.core.completed()[0][1].result == b'{"a":7}'


def test_result_is_asked_of_another_replica_when_it_does_not_come(bench: Bench) -> None:
    reads = ask(bench)
    full = next(replica for replica, read in enumerate(reads) if read and read.want_result)
    silent = [replica for replica in range(4) if replica != full]
    for replica in silent:
        bench.receive(replica, bench.stub.share(replica, reads[replica], b'{"a":1}'))
    assert bench.core.completed() == []
    bench.pass_us(50_000)
    again = bench.sent()
    others = [replica for replica in silent if again[replica][0].want_result]
    assert others
    bench.receive(others[0], bench.stub.share(others[0], again[others[0]][0], b'{"a":1}'))
    assert bench.core.completed()[0][1].result == b'{"a":1}'


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda share: replace(share, read_digest=bytes(32)), "other_query"),
        (lambda share: replace(share, result=b'{"a":2}'), "bad_result"),
        (lambda share: replace(share, signature=bytes(64)), "bad_share"),
        (lambda share: replace(share, executed=share.executed + 1), "bad_share"),
        (lambda share: replace(share, block_hash=bytes(32)), "bad_share"),
        (lambda share: replace(share, time_us=1), "bad_share"),
        (lambda share: replace(share, path=share.path[:-32]), "bad_share"),
        (lambda share: replace(share, leaf_index=0), "bad_share"),
    ],
)
def test_forged_share_is_ignored_and_noted(bench: Bench, change: Any, code: str) -> None:
    read = replace(ask(bench)[0], want_result=True)
    bench.receive(0, change(bench.stub.share(0, read, b'{"a":1}')))
    for replica in (1, 2):
        bench.receive(replica, bench.stub.share(replica, read, b'{"a":1}'))
    assert bench.core.completed() == []
    assert codes(bench) == [(0, code)]
    bench.receive(3, bench.stub.share(3, read, b'{"a":1}'))
    assert bench.core.completed()[0][1].result == b'{"a":1}'


def test_share_of_another_nonce_or_replica_does_not_count(bench: Bench) -> None:
    read = replace(ask(bench)[0], want_result=True)
    bench.receive(0, bench.stub.share(0, replace(read, nonce=bytes(16)), b'{"a":1}'))
    bench.receive(0, bench.stub.share(1, read, b'{"a":1}'))
    bench.receive(1, bench.stub.share(1, read, b'{"a":1}'))
    bench.receive(2, bench.stub.share(2, read, b'{"a":1}'))
    assert bench.core.completed() == []
    assert codes(bench) == [(0, "bad_share")]


def test_certified_read_needs_the_same_block(bench: Bench) -> None:
    read = replace(ask(bench, Consistency.CERTIFIED)[0], want_result=True)
    for replica, sequence in ((0, 7), (1, 8), (2, 7)):
        bench.receive(replica, bench.stub.share(replica, read, b'{"a":1}', sequence=sequence))
    assert bench.core.completed() == []
    bench.receive(3, bench.stub.share(3, read, b'{"a":1}', sequence=7))
    assert [replica for replica, _ in bench.core.completed()[0][1].shares] == [0, 2, 3]


def test_local_read_asks_one_replica_and_takes_its_signed_word(bench: Bench) -> None:
    reads = ask(bench, Consistency.LOCAL)
    [asked] = [replica for replica, read in enumerate(reads) if read is not None]
    bench.receive(asked, bench.stub.share(asked, reads[asked], b'{"a":1}', alone=True))
    answer = bench.core.completed()[0][1]
    assert (answer.result, answer.consistency) == (b'{"a":1}', Consistency.LOCAL)


def test_signed_query_names_its_caller_and_a_forged_one_is_refused(bench: Bench) -> None:
    bench.core.query(b"{}", NONCE, bench.now, signature=True)
    read = bench.sent()[0][0]
    assert read.caller == KEY.public_key
    assert bench.stub.wire.verify_read(read)
    good = SignedQuery(read.caller, read.valid_until_us, read.signature)
    with pytest.raises(InvalidRequest, match="nonce_in_use"):
        bench.core.query(b"{}", NONCE, bench.now, signature=good)
    with pytest.raises(InvalidRequest, match="bad_signature"):
        bench.core.query(b"{}", bytes(16), bench.now, signature=good)
    with pytest.raises(InvalidRequest, match="malformed"):
        bench.core.query(b"{}", b"short", bench.now)


def test_query_without_answers_ends_with_no_quorum(bench: Bench) -> None:
    ask(bench)
    bench.pass_us(5_000_000)
    assert isinstance(bench.core.completed()[0][1], NoQuorum)


def test_operation_bytes_of_a_dict_do_not_depend_on_its_order() -> None:
    assert operation_bytes({"b": 1, "a": 2}) == operation_bytes({"a": 2, "b": 1}) == b'{"a":2,"b":1}'


def test_frames_are_bundled_and_bounded(stub: ModuleType) -> None:
    bench = make_bench(stub)
    for number in range(20):
        bench.core.submit(b"%d" % number + bytes(20_000), bench.now)
    frames = bench.core.frames(0)
    assert all(len(frame) <= 96 * 1024 for frame in frames)
    assert len(frames) == 5
    assert sum(len(bench.stub.wire.decode_client_frame(frame)) for frame in frames) == 20
