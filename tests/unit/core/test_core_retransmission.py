"""STATUS, what it brings back, and what bounds it (docs/protocol.md section 11); FORWARD (section 4)."""

from __future__ import annotations

from dataclasses import replace

from core_harness import Bench, R, S, ordered

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
    PeerMessage,
    Prepare,
    PrePrepare,
    SlotStatus,
    Status,
    Wish,
)
from nodes.core.ready import Serve
from nodes.core.records import Accepted
from nodes.core.retransmission import Bucket
from nodes.core.types import FaultCode, Mode, Now, View

SETTLED_MS = 60


def _status(bench: Bench, **fields: object) -> Status:
    status = Status(
        epoch=0,
        view=View(0),
        mode=Mode.NORMAL,
        wish=View(0),
        stable=S(0),
        last_committed=S(0),
        last_executed=S(0),
        order_hash=bench.cluster.config_hash,
        slots=(),
        clock_us=bench.wall_us,
        backlog=0,
        incarnation=0,
        fenced=False,
        recovery_point=0,
    )
    return replace(status, **fields)  # type: ignore[arg-type]


def _answers(bench: Bench, status: Status, sender: int) -> list[PeerMessage]:
    bench.forget()
    bench.step(status, sender)
    assert all(outgoing.to == sender and outgoing.after == 0 for outgoing in bench.sent)
    return [outgoing.message for outgoing in bench.sent]


# Sending -----------------------------------------------------------------------------------------


def test_status_is_sent_at_boot_and_rarely_when_idle() -> None:
    """1 s when idle."""
    bench = Bench(me=1)
    bench.pass_time(4000)
    assert len(bench.said(Status, None)) == 4


def test_status_tells_what_this_replica_has() -> None:
    bench = Bench(me=1)
    bench.decide(bench.proposal(1))
    bench.step(bench.proposal(2), 0)
    bench.step(bench.prepare(bench.proposal(4), 2), 2)
    bench.step(bench.commit(bench.proposal(4), 2), 2)
    bench.core.submit([bench.request(5)], bench.now)
    bench.pass_time(1100)
    status = bench.said(Status)[-1]
    assert (status.last_committed, status.last_executed, status.stable) == (1, 1, 0)
    assert status.order_hash == bench.core.status().order_hash
    assert status.slots == (
        SlotStatus(True, False, False),
        SlotStatus(False, False, False),
        SlotStatus(False, False, False),
    )
    assert (status.backlog, status.view, status.mode) == (1, 0, Mode.NORMAL)


def test_status_is_frequent_while_a_slot_is_stuck() -> None:
    """50 ms while something is missing."""
    bench = Bench(me=1)
    bench.pass_time(20)
    bench.step(bench.proposal(), 0)
    bench.forget()
    bench.pass_time(500)
    assert 8 <= len(bench.said(Status)) <= 10


def test_status_is_frequent_while_a_peer_is_ahead() -> None:
    bench = Bench(me=1)
    bench.pass_time(20)
    bench.step(_status(bench, last_committed=S(3)), 2)
    bench.forget()
    bench.pass_time(500)
    assert 9 <= len(bench.said(Status)) <= 11


def test_status_is_frequent_while_a_peer_knows_of_more_slots() -> None:
    bench = Bench(me=1)
    bench.pass_time(20)
    bench.step(_status(bench, slots=(SlotStatus(True, False, False),)), 2)
    bench.forget()
    bench.pass_time(500)
    assert 9 <= len(bench.said(Status)) <= 11


def test_status_is_regular_while_requests_wait() -> None:
    """250 ms under load."""
    bench = Bench(me=1)
    bench.pass_time(20)
    bench.core.submit([bench.request()], bench.now)
    bench.forget()
    bench.pass_time(1100)
    assert len(bench.said(Status)) == 4


def test_single_replica_sends_no_status() -> None:
    bench = Bench(me=0, n=1)
    bench.pass_time(3000)
    assert bench.sent == []


# Answering ---------------------------------------------------------------------------------------


def test_primary_sends_a_lost_proposal_again() -> None:
    bench = Bench(me=0)
    bench.core.submit([bench.request()], bench.now)
    bench.settle()
    (proposal,) = bench.said(PrePrepare)
    assert _answers(bench, _status(bench), 2) == [], "it is on its way"
    bench.pass_time(SETTLED_MS)
    assert _answers(bench, _status(bench), 2) == [proposal]
    assert _answers(bench, _status(bench, slots=(SlotStatus(True, False, False),)), 2) == []


def test_proposal_not_durable_yet_is_not_sent_again() -> None:
    """Section 15: Accepted before PRE-PREPARE, whatever asks for it."""
    bench = Bench(me=0)
    bench.core.submit([bench.request()], bench.now)
    bench.settle(persist=False)
    bench.us += 1_000_000
    bench.forget()
    bench.step(_status(bench), 2, persist=False)
    assert bench.sent == []


def test_everyone_helps_once_a_proposal_stays_missing() -> None:
    """After 2 STATUS rounds whoever has it sends it; the primary's signature is inside."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    bench.pass_time(SETTLED_MS)
    answers = [[m for m in _answers(bench, _status(bench), 3) if isinstance(m, PrePrepare)] for _ in range(3)]
    assert answers == [[], [], [proposal]]
    helped = Bench(me=3)
    helped.step(answers[2][0], 1)
    assert len(helped.recorded(Accepted)) == 1
    assert not [m for m in _answers(bench, _status(bench), 0) if isinstance(m, PrePrepare)], "it is the primary's own"


def test_own_votes_are_sent_again_as_they_were() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    bench.step(bench.prepare(proposal, 2), 2)
    prepare, commit = bench.said(Prepare)[0], bench.said(Commit)[0]
    bench.pass_time(SETTLED_MS)
    assert _answers(bench, _status(bench, slots=(SlotStatus(True, False, False),)), 2) == [prepare, commit]
    assert _answers(bench, _status(bench, slots=(SlotStatus(True, True, False),)), 2) == [commit]
    assert _answers(bench, _status(bench, slots=(SlotStatus(True, True, True),)), 2) == []
    assert _answers(bench, _status(bench, view=View(1)), 2) == [], "another view wants other things"


def test_vote_not_durable_yet_is_not_sent_again() -> None:
    bench = Bench(me=1)
    bench.step(bench.proposal(), 0, persist=False)
    bench.us += 1_000_000
    bench.step(_status(bench), 2, persist=False)
    assert bench.said(Prepare) == []


def test_decided_slot_is_asked_for_while_a_peer_waits_for_it() -> None:
    """Section 11: decided by others' COMMITs, not certified here: a peer may wait for the COMMIT of this replica."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    bench.step(_status(bench), 2)
    bench.pass_time(SETTLED_MS)
    assert bench.said(Status)[-1].last_committed == 1, "its PREPAREs are probably on their way"
    bench.step(_status(bench), 2)
    bench.forget()
    bench.pass_time(500)
    asked = bench.said(Status)
    assert 8 <= len(asked) <= 10
    assert (asked[-1].last_committed, asked[-1].slots) == (0, (SlotStatus(True, False, True),))
    bench.step(bench.prepare(proposal, 2), 2)
    bench.pass_time(1000)
    assert bench.said(Status)[-1].last_committed == 1
    assert [commit.sequence for commit in bench.said(Commit)] == [1]


def test_decided_slot_is_not_asked_for_without_need() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    bench.step(_status(bench), 2)
    bench.pass_time(SETTLED_MS)
    bench.step(_status(bench, slots=(SlotStatus(False, False, True),)), 2)
    bench.forget()
    bench.pass_time(2500)
    assert {status.last_committed for status in bench.said(Status)} == {1}
    assert len(bench.said(Status)) < 6


def test_peer_that_fell_silent_asks_for_nothing() -> None:
    bench = Bench(me=1)
    bench.pass_time(SETTLED_MS)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    bench.pass_time(SETTLED_MS)
    bench.step(_status(bench), 2)
    bench.pass_time(1000)
    assert bench.said(Status)[-1].last_committed == 0
    bench.pass_time(6000)
    assert bench.said(Status)[-1].last_committed == 1


def test_peer_that_decided_gets_what_it_lacks_for_its_votes() -> None:
    """Section 11: whoever certified answers, decided or not."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.decide(proposal)
    prepare = bench.said(Prepare)[0]
    bench.pass_time(SETTLED_MS)
    without_votes = _status(bench, slots=(SlotStatus(True, False, True),))
    assert [m for m in _answers(bench, without_votes, 2) if isinstance(m, Prepare | Commit)] == [prepare]
    without_proposal = _status(bench, slots=(SlotStatus(False, False, True),))
    answers = [_answers(bench, without_proposal, 2) for _ in range(3)]
    assert [m for m in answers[2] if isinstance(m, PrePrepare | Prepare)] == [proposal, prepare]


def test_proposals_for_decided_slots_are_few_at_a_time() -> None:
    bench = Bench(me=1)
    for sequence in range(1, 9):
        bench.decide(bench.proposal(sequence))
    bench.pass_time(SETTLED_MS)
    lacking = _status(bench, slots=(SlotStatus(False, False, True),) * 8)
    answers = [_answers(bench, lacking, 2) for _ in range(3)]
    assert [m.batch.sequence for m in answers[2] if isinstance(m, PrePrepare)] == [1, 2, 3, 4]


def test_one_decider_and_the_stuck_finish_together() -> None:
    """The stall of the attack review: 2 decided on the COMMIT of 3, which omits its own to 0 and 1; 2 heard no
    PREPARE and not the proposal. All that was lost comes back by STATUS, 3 says nothing more."""
    benches = [Bench(me=me) for me in range(3)]
    primary = benches[0]
    primary.core.submit([primary.request()], primary.now)
    primary.settle()
    (proposal,) = primary.said(PrePrepare)
    benches[1].step(proposal, 0)
    for bench in benches[:2]:
        for peer in {0, 1, 3} - {bench.me, 0}:
            bench.step(bench.prepare(proposal, peer), peer)
    for peer in (0, 1, 3):
        benches[2].step(benches[2].commit(proposal, peer), peer)
    benches[2].step(FetchedBody(0, ordered(proposal)), 0)
    for one in benches[:2]:
        one.step(one.commit(proposal, 1 - one.me), 1 - one.me)
    assert [bench.core.status().last_committed for bench in benches] == [0, 0, 1]
    for bench in benches:
        bench.forget()
    for _ in range(60):
        for bench in benches:
            bench.pass_time(SETTLED_MS)
            said, bench.sent = bench.sent, []
            for outgoing in said:
                for other in benches:
                    if other is not bench and outgoing.to in (None, other.me):
                        other.step(outgoing.message, bench.me)
    assert [bench.core.status().last_executed for bench in benches] == [1, 1, 1]


def test_laggard_gets_the_newest_attestation_and_the_stable_certificate() -> None:
    bench = Bench(me=1, window=16, checkpoint_interval=2)
    for sequence in (1, 2, 3):
        bench.decide(bench.proposal(sequence))
    head = bench.core._order.hash_of(S(2))
    assert head is not None
    for peer in (0, 2):
        bench.step(bench.attest(2, head, peer), peer)
    bench.pass_time(SETTLED_MS)
    answers = _answers(bench, _status(bench), 3)
    assert [type(m) for m in answers if not isinstance(m, PrePrepare | Prepare | Commit)] == [
        AttestCertificate,
        Attest,
        Attest,
    ]
    assert [m.sequence for m in answers if isinstance(m, Attest)] == [3, 2]
    current = _status(
        bench, last_committed=S(3), last_executed=S(3), order_hash=bench.core.status().order_hash, stable=S(2)
    )
    assert _answers(bench, current, 3) == []
    without_stable = replace(current, stable=S(0))
    assert [m.sequence for m in _answers(bench, without_stable, 3) if isinstance(m, Attest)] == [2]


def test_other_order_at_the_same_height_is_reported() -> None:
    bench = Bench(me=1)
    bench.decide(bench.proposal())
    bench.step(_status(bench, last_committed=S(1), last_executed=S(1), order_hash=bytes(32)), 2)
    assert bench.fault_codes(2) == [FaultCode.DIVERGED]
    bench.step(_status(bench, epoch=1), 2)
    assert bench.fault_codes(2)[1:] == [FaultCode.WRONG_EPOCH]


def test_answers_are_bounded_for_each_peer() -> None:
    """Token bucket per peer: 200 messages a second, 4 MiB a second."""
    bench = Bench(me=0, status_messages_per_s=3)
    bench.core.submit([bench.request()], bench.now)
    bench.settle()
    bench.pass_time(SETTLED_MS)
    assert [len(_answers(bench, _status(bench), 2)) for _ in range(5)] == [1, 1, 1, 0, 0]
    assert len(_answers(bench, _status(bench), 3)) == 1
    bench.us += 400_000
    assert [len(_answers(bench, _status(bench), 2)) for _ in range(2)] == [1, 0]


def test_bucket_counts_bytes_and_messages() -> None:
    bucket = Bucket(messages_per_s=10, bytes_per_s=1000)
    start = Now(1_000_000, 0)
    assert bucket.take(900, start)
    assert bucket.take(900, start), "the last one may overdraw"
    assert not bucket.take(1, start)
    assert not bucket.take(1, Now(1_700_000, 0))
    assert bucket.take(1, Now(1_900_000, 0))
    assert not Bucket(0, 1000).take(1, start)


def test_lost_messages_of_every_kind_come_back() -> None:
    """Everything that was lost is recovered by STATUS alone: two cores, nothing delivered at first."""
    primary, follower = Bench(me=0), Bench(me=1)
    primary.core.submit([primary.request()], primary.now)
    primary.settle()
    for bench in (primary, follower):
        bench.pass_time(SETTLED_MS)
    (proposal,) = primary.said(PrePrepare)
    for peer in (2, 3):
        primary.step(primary.prepare(proposal, peer), peer)
        primary.step(primary.commit(proposal, peer), peer)
    for _ in range(6):
        for one, other in ((primary, follower), (follower, primary)):
            one.pass_time(SETTLED_MS)
            for outgoing in one.sent:
                if outgoing.to == other.me or isinstance(outgoing.message, Status):
                    other.step(outgoing.message, one.me)
            one.forget()
    assert primary.core.status().last_executed == 1
    follower.step(follower.attest(1, primary.core.status().order_hash, 2), 2)
    assert follower.core.status().last_executed == 1


# Fetches -----------------------------------------------------------------------------------------


def test_attestation_from_before_a_restart_is_served_from_the_archive() -> None:
    """Section 11: a laggard needs w equal attestations of one height, whoever restarted meanwhile."""
    bench = Bench(me=1)
    for sequence in (1, 2):
        bench.decide(bench.proposal(sequence))
    remembered = bench.core._checkpoints.own(S(2))
    assert remembered is not None
    del bench.core._checkpoints._own[S(1)]
    bench.forget()
    bench.step(FetchAttest(0, S(2)), 3)
    assert ([o.message for o in bench.sent], bench.serve) == ([remembered], [])
    bench.forget()
    bench.step(FetchAttest(0, S(1)), 3)
    assert (bench.sent, bench.serve) == ([], [Serve(R(3), FetchAttest(0, S(1)))])
    bench.forget()
    for request in (FetchAttest(0, S(3)), FetchAttest(1, S(1))):
        bench.step(request, 3)
    assert (bench.sent, bench.serve) == ([], [])


def test_blocks_are_served_from_memory_or_from_the_archive() -> None:
    bench = Bench(me=1, window=16, checkpoint_interval=2)
    proposals = [bench.proposal(sequence) for sequence in range(1, 5)]
    for proposal in proposals:
        bench.decide(proposal)
    head = bench.core._order.hash_of(S(2))
    assert head is not None
    for peer in (0, 2):
        bench.step(bench.attest(2, head, peer), peer)
    served = _answers(bench, replace(_status(bench), last_executed=S(0)), 3)
    assert served
    bench.forget()
    bench.step(FetchBlocks(0, S(3), S(900)), 3)
    assert [o.message for o in bench.sent] == [FetchedBlocks(0, tuple(ordered(p) for p in proposals[2:]))]
    bench.forget()
    bench.step(FetchBlocks(0, S(1), S(900)), 3)
    assert bench.sent == []
    assert bench.serve == [Serve(R(3), FetchBlocks(0, S(1), S(4)))]
    bench.forget()
    for request in (FetchBlocks(0, S(5), S(9)), FetchBlocks(1, S(1), S(2)), FetchBlocks(0, S(4), S(3))):
        bench.step(request, 3)
    assert (bench.sent, bench.serve) == ([], [])


def test_large_blocks_are_served_a_few_at_a_time() -> None:
    bench = Bench(me=1)
    for sequence in range(1, 5):
        bench.decide(bench.proposal(sequence, [bench.request(c, sequence, bytes(60_000)) for c in range(15)]))
    bench.forget()
    bench.step(FetchBlocks(0, S(1), S(4)), 3)
    (outgoing,) = bench.sent
    assert isinstance(outgoing.message, FetchedBlocks)
    assert [block.batch.sequence for block in outgoing.message.blocks] == [1, 2]


def test_bodies_are_served_by_digest() -> None:
    bench = Bench(me=1)
    decided, open_ = bench.proposal(1), bench.proposal(2)
    bench.decide(decided)
    bench.step(open_, 0)
    for proposal in (decided, open_):
        bench.forget()
        bench.step(FetchBody(0, proposal.batch.sequence, proposal.batch.digest), 3)
        assert [o.message for o in bench.sent] == [FetchedBody(0, ordered(proposal))]
    bench.forget()
    bench.step(FetchBody(0, S(1), bytes(32)), 3)
    bench.step(FetchBody(0, S(77), bytes(32)), 3)
    assert bench.sent == []


def test_fetches_are_bounded_like_answers() -> None:
    bench = Bench(me=1, status_messages_per_s=1)
    proposal = bench.proposal()
    bench.decide(proposal)
    bench.forget()
    for _ in range(3):
        bench.step(FetchBody(0, S(1), proposal.batch.digest), 2)
        bench.step(FetchBlocks(0, S(1), S(1)), 3)
    assert len(bench.sent) == 2


def test_messages_of_later_versions_change_nothing() -> None:
    bench = Bench(me=1)
    bench.settle()
    bench.forget()
    bench.step(Wish(0, View(1), S(0), 0), 2)
    bench.step(Evidence(1, b""), 2)
    assert (bench.sent, bench.records, bench.faults) == ([], [], [])


# FORWARD -----------------------------------------------------------------------------------------


def test_overdue_requests_are_relayed_to_all() -> None:
    """Section 4: not proposed for T_FWD = 0.8 s."""
    bench = Bench(me=1)
    request = bench.request()
    bench.core.submit([request], bench.now)
    bench.pass_time(700)
    assert bench.said(Forward) == []
    bench.pass_time(400)
    assert bench.said(Forward, None) == [Forward(0, True, (request,))]


def test_single_replica_relays_nothing() -> None:
    bench = Bench(me=0, n=1)
    bench.core.submit([bench.request()], bench.now)
    bench.settle(persist=False)
    bench.core.submit([bench.request(2)], bench.now)
    bench.pass_time(2000, persist=False)
    assert bench.said(Forward) == []


def test_forwarded_requests_are_verified_and_proposed() -> None:
    bench = Bench(me=0)
    good, bad = bench.request(1), bench.forged(bench.request(2))
    bench.step(Forward(0, True, (good, bad)), 2)
    assert bench.fault_codes(2) == [FaultCode.INVALID_REQUEST_SIGNATURE]
    assert [p.requests for p in bench.said(PrePrepare)] == [(good,)]
    bench.checks = []
    bench.step(Forward(0, True, (good,)), 3)
    assert bench.checks == [], "it is known"


def test_relay_of_bad_signatures_is_paused() -> None:
    """Section 4: it costs the relaying replica, because it had to check."""
    bench = Bench(me=0)
    for number in range(1, 4):
        bench.step(Forward(0, True, (bench.forged(bench.request(2, number)),)), 2)
    bench.checks = []
    bench.step(Forward(0, True, (bench.request(1),)), 2)
    assert bench.checks == []
    bench.us += 60_000_000
    bench.step(Forward(0, True, (bench.request(1),)), 2)
    assert len(bench.checks) == 1


def test_unchecked_requests_of_a_relay_are_bounded() -> None:
    """Section 4: 64 for each relaying replica."""
    bench = Bench(me=0)
    for client in range(3):
        many = tuple(bench.request(client, number) for number in range(1, 41))
        bench.step(Forward(0, True, many), 2, verify=False)
    assert sum(len(check.requests) for check in bench.checks) == 64
