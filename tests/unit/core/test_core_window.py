"""Accepting, preparing and committing (docs/protocol.md section 6)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_harness import Bench, R, S, ordered

from nodes.core.messages import Commit, FetchBody, FetchedBody, Prepare, PrePrepare
from nodes.core.order import ExecutorAhead, ExecutorBehind
from nodes.core.records import Accepted, Adopted, Decided, Prepared, ViewEntered
from nodes.core.slot import Candidate
from nodes.core.types import BatchKind, FaultCode, Mode, View


def _digests(messages: list[Prepare] | list[Commit]) -> list[tuple[int, bytes]]:
    return [(message.sequence, message.digest) for message in messages]


# The good case -----------------------------------------------------------------------------------


def test_log_begins_with_the_view() -> None:
    bench = Bench()
    bench.settle()
    assert bench.records == [ViewEntered(View(0), Mode.NORMAL, b"", S(0))]


def test_proposal_is_accepted_prepared_committed_and_executed() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    assert bench.recorded(Accepted) == [Accepted(proposal)]
    assert _digests(bench.said(Prepare, None)) == [(1, proposal.batch.digest)]
    assert bench.said(Commit) == []
    bench.step(bench.prepare(proposal, 2), 2)
    (prepared,) = bench.recorded(Prepared)
    assert isinstance(prepared, Prepared)
    assert [signer for signer, _ in prepared.certificate.signatures] == [0, 1, 2]
    assert bench.wire.verify_prepare_certificate(prepared.certificate, threshold=3, primary=R(0))
    assert _digests(bench.said(Commit, None)) == [(1, proposal.batch.digest)]
    for peer in (2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    (head,) = bench.chain([proposal])
    assert bench.recorded(Decided) == [Decided(S(1), proposal.batch.digest, head)]
    status = bench.core.status()
    assert (status.last_committed, status.last_executed, status.order_hash) == (1, 1, head)
    assert bench.faults == []


@pytest.mark.parametrize(("n", "q"), [(4, 3), (5, 4), (6, 4), (7, 5), (13, 9)])
def test_certificate_and_commit_need_exactly_the_quorum(n: int, q: int) -> None:
    """Section 1: q from the configuration, for prepares and for commits."""
    bench = Bench(me=1, n=n)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    for peer in range(2, q):
        assert bench.recorded(Prepared) == []
        bench.step(bench.prepare(proposal, peer), peer)
    assert len(bench.recorded(Prepared)) == 1
    for peer in range(2, q + 1):
        assert bench.core.status().last_committed == 0
        bench.step(bench.commit(proposal, peer), peer)
    assert bench.core.status().last_committed == 1


def test_single_replica_orders_alone() -> None:
    """Section 1: n = 1 is the unreplicated baseline."""
    bench = Bench(me=0, n=1)
    bench.core.submit([bench.request()], bench.now)
    bench.settle()
    assert bench.core.status().last_executed == 1
    assert bench.sent
    assert bench.faults == []


def test_votes_may_arrive_before_the_proposal() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal()
    for peer in (2, 3):
        bench.step(bench.prepare(proposal, peer), peer)
        bench.step(bench.commit(proposal, peer), peer)
    assert bench.records == [ViewEntered(View(0), Mode.NORMAL, b"", S(0))]
    bench.step(proposal, 0)
    assert bench.core.status().last_committed == 1


# Persistence -------------------------------------------------------------------------------------


def test_prepare_waits_for_its_proposal_to_be_durable() -> None:
    """Section 15, `sync_prepare`: Accepted before PREPARE."""
    bench = Bench(me=1)
    bench.step(bench.proposal(), 0, persist=False)
    assert bench.said(Prepare) == []
    bench.settle()
    assert len(bench.said(Prepare)) == 1


def test_pre_prepare_waits_for_its_own_record() -> None:
    bench = Bench(me=0)
    bench.core.submit([bench.request()], bench.now)
    bench.settle(persist=False)
    assert len(bench.recorded(Accepted)) == 1
    assert bench.said(PrePrepare) == []
    bench.settle()
    assert len(bench.said(PrePrepare)) == 1


def test_without_sync_prepare_the_vote_goes_at_once() -> None:
    bench = Bench(me=1, sync_prepare=False)
    bench.step(bench.proposal(), 0, persist=False)
    assert len(bench.said(Prepare)) == 1


def test_commit_waits_for_its_certificate_to_be_durable() -> None:
    """Section 6, trap c."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    bench.step(bench.prepare(proposal, 2), 2, persist=False)
    assert len(bench.recorded(Prepared)) == 1
    assert bench.said(Commit) == []
    bench.settle()
    (outgoing,) = [o for o in bench.sent if isinstance(o.message, Commit)]
    assert outgoing.after == bench.records.index(bench.recorded(Prepared)[0]) + 1


def test_execution_waits_for_the_decision_to_be_durable() -> None:
    """Section 15: DB COMMIT of s needs BODY and DECIDED durable."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    bench.step(bench.prepare(proposal, 2), 2)
    bench.step(bench.commit(proposal, 2), 2)
    bench.step(bench.commit(proposal, 3), 3, persist=False, execute=False)
    (execute,) = bench.execute
    assert bench.records[execute.after - 1] == bench.recorded(Decided)[0]


def test_own_vote_counts_only_once_it_was_sent() -> None:
    """Section 6 (MC): a vote this run of the process has not sent is not a vote."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0, loop=False)
    bench.step(bench.prepare(proposal, 2), 2, loop=False)
    assert bench.recorded(Prepared) == []
    (vote,) = bench.said(Prepare)
    bench.step(vote, 1, loop=False)
    assert len(bench.recorded(Prepared)) == 1
    bench.step(bench.commit(proposal, 2), 2, loop=False)
    bench.step(bench.commit(proposal, 3), 3, loop=False)
    assert bench.core.status().last_committed == 0


# In-order COMMIT ---------------------------------------------------------------------------------


def test_commits_leave_in_order() -> None:
    """Section 6: no COMMIT above a slot that is neither committed nor prepared and durable."""
    bench = Bench(me=1)
    first, second = bench.proposal(1), bench.proposal(2)
    bench.step(first, 0)
    bench.step(second, 0)
    bench.step(bench.prepare(second, 2), 2)
    assert len(bench.recorded(Prepared)) == 1
    assert bench.said(Commit) == []
    bench.step(bench.prepare(first, 2), 2)
    assert [commit.sequence for commit in bench.said(Commit)] == [1, 2]


def test_committed_predecessor_releases_the_commit() -> None:
    bench = Bench(me=1)
    first, second = bench.proposal(1), bench.proposal(2)
    bench.step(first, 0)
    bench.step(second, 0)
    bench.step(bench.prepare(second, 2), 2)
    for peer in (0, 2, 3):
        bench.step(bench.commit(first, peer), peer)
    assert [commit.sequence for commit in bench.said(Commit)] == [2]


def test_commit_waits_for_a_certificate_below_that_is_not_durable() -> None:
    bench = Bench(me=1, pipeline=3)
    proposals = [bench.proposal(sequence) for sequence in (1, 2, 3)]
    for proposal in proposals:
        bench.step(proposal, 0)
    bench.step(bench.prepare(proposals[2], 2), 2)
    bench.step(bench.prepare(proposals[1], 2), 2, persist=False)
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposals[0], peer), peer, persist=False)
    assert bench.core.status().last_committed == 1
    assert bench.said(Commit) == []
    bench.settle()
    assert [commit.sequence for commit in bench.said(Commit)] == [2, 3]


def test_execution_is_in_order_too() -> None:
    bench = Bench(me=1)
    first, second = bench.proposal(1), bench.proposal(2)
    bench.step(first, 0)
    bench.step(second, 0)
    for peer in (0, 2, 3):
        bench.step(bench.commit(second, peer), peer)
    assert bench.core.status().last_committed == 0
    for peer in (0, 2, 3):
        bench.step(bench.commit(first, peer), peer)
    assert bench.core.status().last_executed == 2


# Votes -------------------------------------------------------------------------------------------


def test_one_sender_counts_once() -> None:
    """Section 6, traps a and b; faults.md: votes are deduplicated by sender."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    for _ in range(3):
        bench.step(bench.prepare(proposal, 0), 0)
    assert bench.recorded(Prepared) == [], "the primary's PREPARE beside its PRE-PREPARE is no second vote"
    bench.step(bench.prepare(proposal, 2), 2)
    for _ in range(3):
        bench.step(bench.commit(proposal, 2), 2)
    assert bench.core.status().last_committed == 0


def test_prepare_of_the_primary_cannot_stand_in_for_its_proposal() -> None:
    """Section 6, trap a: a garbage PREPARE sent first must not end up in the certificate."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(replace(bench.prepare(proposal, 0), signature=bytes(64)), 0)
    bench.step(proposal, 0)
    bench.step(bench.prepare(proposal, 2), 2)
    (prepared,) = bench.recorded(Prepared)
    assert isinstance(prepared, Prepared)
    assert bench.wire.verify_prepare_certificate(prepared.certificate, threshold=3, primary=R(0))


def test_votes_for_other_digests_do_not_add_up() -> None:
    bench = Bench(me=1, n=7)
    proposal, other = bench.proposal(), bench.proposal(1, [bench.request(2)])
    bench.step(proposal, 0)
    for peer, vote in ((2, proposal), (3, other), (4, other)):
        bench.step(bench.prepare(vote, peer), peer)
        bench.step(bench.commit(vote, peer), peer)
    assert bench.recorded(Prepared) == []
    assert bench.core.status().last_committed == 0


def test_second_vote_for_another_digest_is_evidence() -> None:
    """Section 6: the first vote counts; the second is proof when both signatures hold."""
    bench = Bench(me=1)
    proposal, other = bench.proposal(), bench.proposal(1, [bench.request(2)])
    first, second = bench.prepare(proposal, 2), bench.prepare(other, 2)
    bench.step(first, 2)
    bench.step(second, 2)
    bench.step(second, 2)
    (fault,) = bench.faults
    assert (fault.sender, fault.code, fault.evidence) == (2, FaultCode.CONFLICTING_VOTE, (first, second))
    commits = bench.commit(proposal, 3), bench.commit(other, 3)
    bench.step(commits[0], 3)
    bench.step(commits[1], 3)
    assert bench.faults[-1].evidence == commits


def test_conflicting_vote_with_a_bad_signature_proves_nothing() -> None:
    bench = Bench(me=1)
    proposal, other = bench.proposal(), bench.proposal(1, [bench.request(2)])
    bench.step(bench.prepare(proposal, 2), 2)
    bench.step(replace(bench.prepare(other, 2), signature=bytes(64)), 2)
    (fault,) = bench.faults
    assert (fault.sender, fault.code, fault.evidence) == (2, FaultCode.BAD_SIGNATURE, ())


def test_prepare_with_a_bad_signature_never_enters_a_certificate() -> None:
    """Section 7: verified lazily, at the quorum, before COMMIT; a bad one is dropped and another awaited."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    bench.checks = []
    bench.step(replace(bench.prepare(proposal, 2), signature=bytes(64)), 2)
    assert bench.fault_codes(2) == [FaultCode.BAD_SIGNATURE]
    assert bench.recorded(Prepared) == []
    bench.step(bench.prepare(proposal, 2), 2)
    assert bench.recorded(Prepared) == [], "its first vote was its vote"
    bench.step(bench.prepare(proposal, 3), 3)
    (prepared,) = bench.recorded(Prepared)
    assert isinstance(prepared, Prepared)
    assert [signer for signer, _ in prepared.certificate.signatures] == [0, 1, 3]


def test_just_enough_prepares_are_verified() -> None:
    """Section 7: q - 1 foreign signatures, the primary's at acceptance; none of commits."""
    bench = Bench(me=1, n=7)
    proposal = bench.proposal()
    bench.step(proposal, 0, verify=True)
    bench.checks = []
    for peer in (2, 3, 4, 5, 6):
        bench.step(bench.prepare(proposal, peer), peer)
        bench.step(replace(bench.commit(proposal, peer), signature=bytes(64)), peer)
    assert [item.signer for check in bench.checks for item in check.signatures] == [2, 3, 4]
    assert bench.core.status().last_committed == 1


def test_votes_outside_the_window_are_dropped() -> None:
    """Section 10: (h, h + L]; STATUS brings them back when they matter."""
    bench = Bench(me=1)
    for sequence in (0, 257, 1 << 52):
        for kind in (Prepare, Commit):
            bench.step(bench.sign(kind(0, View(0), S(sequence), bytes(32)), 2), 2)
    assert bench.core._window.highest() == 0
    bench.step(bench.sign(Commit(0, View(0), S(256), bytes(32)), 2), 2)
    assert bench.core._window.highest() == 256


def test_votes_of_other_views_do_not_mix() -> None:
    """Section 4: PREPARE of this view and the next are kept, COMMIT up to the next; never counted together."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    for view in (1, 2):
        bench.step(bench.prepare(proposal, 2, view), 2)
        bench.step(bench.prepare(proposal, 3, view), 3)
        bench.step(bench.commit(proposal, 2, view), 2)
    bench.step(bench.commit(proposal, 3), 3)
    bench.step(bench.commit(proposal, 0), 0)
    assert bench.recorded(Prepared) == []
    assert bench.core.status().last_committed == 0
    assert bench.faults == []


def test_quorum_of_commits_decides_without_own_preparation() -> None:
    """Section 6, try_commit: among q there are f + 1 correct certificate holders."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    assert bench.recorded(Prepared) == []
    assert bench.core.status().last_executed == 1


def test_messages_of_another_epoch_are_faults() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal()
    for message in (proposal, bench.prepare(proposal, 2), bench.commit(proposal, 2)):
        bench.step(replace(message, epoch=1), 2)
    assert bench.fault_codes(2) == [FaultCode.WRONG_EPOCH] * 3


# Proposals ---------------------------------------------------------------------------------------


def test_proposals_of_other_views_or_sequences_are_ignored() -> None:
    """Section 6, step 1: view, and max(h, b*) < seq <= h + L."""
    bench = Bench(me=1)
    for message in (bench.proposal(view=1, signer=1, proposer=1), bench.proposal(257), bench.proposal(6)):
        bench.step(message, 0)
    assert bench.recorded(Accepted) == []
    assert bench.checks == []
    assert bench.faults == []


def test_no_vote_at_or_below_the_base_of_the_view() -> None:
    """Section 6 (MC): max(h, b*) < seq; at or below b* slots are only adopted."""
    bench = Bench(me=1)
    bench.core._window.base = S(1)
    bench.step(bench.proposal(1), 0)
    assert bench.recorded(Accepted) == []
    bench.step(bench.proposal(2), 0)
    assert len(bench.recorded(Accepted)) == 1


def test_nothing_is_accepted_or_committed_during_a_view_change() -> None:
    """Section 12.1, enter(v): frozen, but others' commits still count."""
    bench = Bench(me=1)
    first, second = bench.proposal(1), bench.proposal(2)
    bench.step(first, 0)
    bench.step(bench.prepare(first, 2), 2, persist=False)
    bench.core._window.mode = Mode.VIEW_CHANGE
    bench.step(second, 0)
    assert bench.said(Commit) == []
    assert len(bench.recorded(Accepted)) == 1
    for peer in (0, 2, 3):
        bench.step(bench.commit(first, peer), peer)
    assert bench.core.status().last_committed == 1


def test_proposals_are_accepted_in_sequence() -> None:
    """Section 6, step 2: contiguous, else buffered up to 2 W."""
    bench = Bench(me=1)
    proposals = [bench.proposal(sequence) for sequence in (1, 2, 3)]
    for proposal in reversed(proposals):
        bench.step(proposal, 0)
    assert [r.proposal.batch.sequence for r in bench.recorded(Accepted) if isinstance(r, Accepted)] == [1, 2, 3]


def test_repeated_proposal_is_ignored() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal()
    for sender in (0, 0, 2):
        bench.step(proposal, sender)
    assert len(bench.recorded(Accepted)) == 1
    assert len(bench.checks) == 1
    assert bench.faults == []


def test_second_proposal_is_evidence_against_the_primary() -> None:
    """Section 6, step 3: equivocation, proven by two signed PR-bytes, whoever relays the second."""
    bench = Bench(me=1)
    proposal, other = bench.proposal(), bench.proposal(1, [bench.request(2)])
    bench.step(proposal, 0)
    bench.step(other, 3)
    bench.step(other, 3)
    (fault,) = bench.faults
    assert (fault.sender, fault.code) == (0, FaultCode.CONFLICTING_PROPOSAL)
    assert [vote.digest for vote in fault.evidence if isinstance(vote, Prepare)] == [
        proposal.batch.digest,
        other.batch.digest,
    ]
    assert len(bench.said(Prepare)) == 1


def test_forged_second_proposal_blames_its_bearer() -> None:
    """Section 6, step 0: else any follower could depose every primary by relaying garbage."""
    bench = Bench(me=1)
    bench.step(bench.proposal(), 0)
    bench.step(bench.proposal(1, [bench.request(2)], signer=3), 3)
    assert [(fault.sender, fault.code) for fault in bench.faults] == [(3, FaultCode.BAD_SIGNATURE)]


def test_proposal_with_a_bad_signature_blames_the_channel() -> None:
    bench = Bench(me=1)
    forged = bench.proposal(signer=2)
    bench.step(forged, 2)
    bench.step(replace(forged, signature=bytes(64)), 0)
    assert [(fault.sender, fault.code) for fault in bench.faults] == [
        (2, FaultCode.BAD_SIGNATURE),
        (0, FaultCode.BAD_SIGNATURE),
    ]
    bench.step(bench.proposal(), 0)
    assert len(bench.recorded(Accepted)) == 1


def test_relayed_proposal_is_accepted_on_its_primarys_signature() -> None:
    """Section 6: j may be anyone; requests are verified only after the primary's signature."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 3)
    assert [(len(check.signatures), len(check.requests)) for check in bench.checks] == [(1, 0), (1, 1)]
    assert len(bench.recorded(Accepted)) == 1


def test_requests_verified_before_are_not_verified_again() -> None:
    """Section 7: once a replica, cached by leaf."""
    bench = Bench(me=1)
    known, new = bench.request(1), bench.request(2)
    bench.core.submit([known], bench.now)
    bench.step(bench.proposal(1, [known, new]), 0)
    assert [check.requests for check in bench.checks] == [(new,)]


def _duplicate(bench: Bench) -> PrePrepare:
    request = bench.request()
    return bench.proposal(1, [request, bench.forged(request)])


def _wrong_count(bench: Bench) -> PrePrepare:
    proposal = bench.proposal()
    return replace(proposal, batch=replace(proposal.batch, count=2))


INVALID = {
    "no request": (lambda b: b.proposal(1, []), FaultCode.INVALID_BATCH),
    "tick with requests": (lambda b: b.proposal(1, [b.request()], kind=BatchKind.TICK), FaultCode.INVALID_BATCH),
    "null with a time": (lambda b: b.proposal(1, kind=BatchKind.NULL), FaultCode.INVALID_BATCH),
    "fence": (lambda b: b.proposal(1, [b.request()], kind=BatchKind.FENCE), FaultCode.INVALID_BATCH),
    "another proposer": (lambda b: b.proposal(proposer=2), FaultCode.INVALID_BATCH),
    "tick of another": (lambda b: b.proposal(kind=BatchKind.TICK, proposer=2), FaultCode.INVALID_BATCH),
    "count": (_wrong_count, FaultCode.INVALID_BATCH),
    "too many": (lambda b: b.proposal(1, [b.request(1, s) for s in range(1, 6)]), FaultCode.INVALID_BATCH),
    "too large": (lambda b: b.proposal(1, [b.request(operation=bytes(4000))]), FaultCode.INVALID_BATCH),
    "duplicate": (_duplicate, FaultCode.DUPLICATE_REQUEST),
    "expired": (lambda b: b.proposal(1, [b.request(valid_until_us=b.wall_us - 1)]), FaultCode.BAD_TIMESTAMP),
    "too valid": (
        lambda b: b.proposal(1, [b.request(valid_until_us=b.wall_us + 600_000_001)]),
        FaultCode.BAD_TIMESTAMP,
    ),
    "signature": (lambda b: b.proposal(1, [b.forged(b.request())]), FaultCode.INVALID_REQUEST_SIGNATURE),
}


@pytest.mark.parametrize("sender", [0, 3])
@pytest.mark.parametrize("case", INVALID)
def test_invalid_content_is_evidence_against_the_primary(case: str, sender: int) -> None:
    """Section 6, steps 4 to 7: contents that match the signed digest prove the primary wrong."""
    make, code = INVALID[case]
    bench = Bench(me=1, batch_requests_max=4, batch_bytes_max=2000)
    proposal = make(bench)
    bench.step(proposal, sender)
    bench.step(proposal, sender)
    assert [(fault.sender, fault.code, fault.evidence) for fault in bench.faults] == [(0, code, (proposal,))]
    assert bench.recorded(Accepted) == []


def test_batch_of_another_epoch_is_invalid() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(replace(proposal, batch=replace(proposal.batch, epoch=7)), 0)
    assert bench.fault_codes(0) == [FaultCode.WRONG_EPOCH]


def test_null_and_tick_batches_are_valid() -> None:
    """Section 5: NULL has no time, no proposer and no request; TICK has a time."""
    bench = Bench(me=1)
    bench.step(bench.proposal(1, kind=BatchKind.NULL, timestamp_us=0), 0)
    bench.step(bench.proposal(2, kind=BatchKind.TICK), 0)
    assert [vote.sequence for vote in bench.said(Prepare)] == [1, 2]


def test_window_leaves_a_view_that_nobody_asked_for_alone() -> None:
    """A primary gets no proposals; its own come back as votes only."""
    bench = Bench(me=0)
    bench.step(bench.proposal(), 2)
    stranger = bench.proposal(3)
    bench.step(stranger, 0)
    assert bench.records == [ViewEntered(View(0), Mode.NORMAL, b"", S(0))]


# Decided slots -----------------------------------------------------------------------------------


def _decided_by_others(bench: Bench) -> PrePrepare:
    """Commits and the body came first: decided, and nothing said."""
    proposal = bench.proposal()
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    bench.step(FetchedBody(0, ordered(proposal)), 3)
    assert bench.core.status().last_executed == 1
    assert bench.said(Prepare) == []
    return proposal


@pytest.mark.parametrize("sender", [0, 3])
def test_decided_slot_still_gets_proposal_vote_certificate_and_commit(sender: int) -> None:
    """Section 6: only the stable checkpoint ends participation. Others may need this COMMIT to decide."""
    bench = Bench(me=1)
    proposal = _decided_by_others(bench)
    bench.wall_us += 60_000_000
    bench.step(proposal, sender)
    assert bench.recorded(Accepted) == [Accepted(proposal)]
    assert _digests(bench.said(Prepare, None)) == [(1, proposal.batch.digest)]
    (vote,) = [o for o in bench.sent if isinstance(o.message, Prepare)]
    assert bench.records[vote.after - 1] == Accepted(proposal)
    bench.step(bench.prepare(proposal, 2), 2)
    assert len(bench.recorded(Prepared)) == 1
    assert _digests(bench.said(Commit, None)) == [(1, proposal.batch.digest)]
    assert len(bench.recorded(Decided)) == 1
    assert bench.faults == []


def test_decided_slot_accepts_nothing_but_its_decision() -> None:
    bench = Bench(me=1)
    _decided_by_others(bench)
    bench.checks = []
    bench.step(bench.proposal(1, [bench.request(2)]), 0)
    assert (bench.checks, bench.recorded(Accepted), bench.said(Prepare)) == ([], [], [])


def test_decided_slot_without_its_body_knows_its_decision_by_the_order_hash() -> None:
    """Bodies may be dropped before they are stable."""
    bench = Bench(me=1)
    proposal = _decided_by_others(bench)
    slot = bench.core._window.get(S(1))
    assert slot is not None
    slot.decided = None
    bench.core._order._blocks.clear()
    bench.step(bench.proposal(1, [bench.request(2)]), 0)
    assert bench.recorded(Accepted) == []
    bench.step(proposal, 0)
    assert bench.recorded(Accepted) == [Accepted(proposal)]


def test_late_proposal_of_a_decided_slot_takes_no_request_out_of_the_pool() -> None:
    """Its requests are ordered; nothing would ever give them back."""
    bench = Bench(me=1)
    proposal = _decided_by_others(bench)
    bench.step(proposal, 0)
    assert bench.core._pool._proposals == {}
    assert bench.core.admit(proposal.requests, bench.now).known == proposal.requests


def test_decided_slot_takes_part_no_more_once_it_is_stable() -> None:
    bench = Bench(me=1, window=16, checkpoint_interval=1)
    proposal = _decided_by_others(bench)
    for peer in (0, 2, 3):
        bench.step(bench.attest(1, bench.core.status().order_hash, peer), peer)
    assert bench.core.status().stable == 1
    bench.step(proposal, 0)
    assert bench.recorded(Accepted) == []


# Answers to checks -------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead_us", "back_us"), [(10_000_000, 0), (1_000_000, 5_000_000)])
def test_answer_for_one_proposal_does_not_count_for_another(ahead_us: int, back_us: int) -> None:
    """One sender, two proposals of one slot while the check of the first is open: primary 0 and backup 6 collude."""
    bench = Bench(me=1, n=7)
    held = bench.proposal(2, [], kind=BatchKind.TICK, timestamp_us=bench.wall_us + ahead_us)
    bench.step(held, 0)
    first = bench.proposal(1, [], kind=BatchKind.TICK, timestamp_us=bench.wall_us - 5_000_000)
    for peer in (0, 2, 3, 4, 5):
        bench.step(bench.commit(first, peer), peer)
    good = bench.proposal(2, [], kind=BatchKind.TICK)
    bench.wall_us -= back_us
    forged = bench.proposal(2, [], kind=BatchKind.TICK, timestamp_us=bench.wall_us - 77)
    forged = replace(forged, signature=bytes(64))
    for message in (good, first, forged):
        bench.core.step(message, R(6), bench.now)
    bench.settle()
    assert forged.batch.digest not in [vote.digest for vote in bench.said(Prepare)]
    assert Accepted(forged) not in bench.records


def test_answer_is_about_the_very_proposal_that_was_checked() -> None:
    bench = Bench(me=1)
    good = bench.proposal()
    forged = replace(bench.proposal(1, [bench.forged(bench.request(2))]), signature=bytes(64))
    bench.core.step(good, R(0), bench.now)
    slot = bench.core._window.get(S(1))
    assert slot is not None
    slot.candidates = {R(0): Candidate(forged, None)}
    bench.settle()
    assert bench.recorded(Accepted) == []
    assert bench.said(Prepare) == []


def _checking_prepares(bench: Bench) -> tuple[PrePrepare, int]:
    """A certificate whose signatures are being checked."""
    proposal = bench.proposal()
    bench.step(proposal, 0)
    bench.step(bench.prepare(proposal, 2), 2, verify=False)
    return proposal, bench.checks[-1].token


def test_answer_about_prepares_of_another_view_changes_nothing() -> None:
    bench = Bench(me=1)
    proposal, token = _checking_prepares(bench)
    window = bench.core._window
    window.view = View(4)
    bench.step(bench.prepare(proposal, 2, 4), 2)
    bench.core.verified(token, b"\x01", bench.now)
    bench.settle()
    slot = window.get(S(1))
    assert slot is not None
    assert bench.recorded(Prepared) == []
    assert not slot.prepares(View(4)).is_verified(R(2))
    assert slot.checking_prepares is None, "the next check is not held up"


def test_answers_about_a_collected_slot_change_nothing() -> None:
    bench = Bench(me=1)
    _, token = _checking_prepares(bench)
    bench.core._window.advance_stable(S(1))
    bench.core.verified(token, b"\x01", bench.now)
    bench.settle()
    assert bench.recorded(Prepared) == []
    assert bench.core._window.get(S(1)) is None


# Time --------------------------------------------------------------------------------------------


def test_proposal_from_the_future_waits_until_its_time() -> None:
    """Section 9.1: held until within 250 ms of the local clock."""
    bench = Bench(me=1)
    bench.pass_time(20)
    bench.step(bench.proposal(timestamp_us=bench.wall_us + 300_000), 0)
    assert bench.recorded(Accepted) == []
    assert bench.core.ready().deadline_us <= bench.us + 50_000
    bench.pass_time(40)
    assert bench.recorded(Accepted) == []
    bench.pass_time(20)
    assert len(bench.said(Prepare)) == 1


def test_proposal_from_far_in_the_future_is_not_held() -> None:
    """Section 9.1: at most T_req / 2; it comes again with STATUS."""
    bench = Bench(me=1)
    far = bench.proposal(timestamp_us=bench.wall_us + 1_250_001)
    bench.step(far, 0)
    bench.step(far, 0)
    assert bench.recorded(Accepted) == []
    assert bench.faults == [], "clocks are not provable"
    assert bench.checks == [], "no signature is worth checking yet"
    bench.pass_time(1010)
    bench.step(far, 0)
    assert len(bench.recorded(Accepted)) == 1


def test_held_proposal_can_be_decided_by_others() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal(timestamp_us=bench.wall_us + 400_000)
    bench.step(proposal, 0)
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    assert bench.core.status().last_executed == 1
    assert bench.recorded(Adopted) == []
    kinds = [type(record) for record in bench.records[1:]]
    assert kinds == [Accepted, Decided], "its body is in the log first, once"
    assert len(bench.said(Prepare)) == 1, "its time is agreed on"


def test_old_proposal_gets_no_vote_but_is_kept() -> None:
    """Section 9.1: too old: no PREPARE, no evidence; others may still decide it."""
    bench = Bench(me=1)
    proposal = bench.proposal(timestamp_us=bench.wall_us - 1_000_001)
    bench.step(proposal, 0)
    assert bench.said(Prepare) == []
    assert bench.faults == []
    for peer in (2, 3):
        bench.step(bench.prepare(proposal, peer), peer)
    assert len(bench.recorded(Prepared)) == 1
    assert len(bench.said(Commit)) == 1


def test_age_is_judged_at_the_first_naming() -> None:
    """Section 9.1: so that a proposal that is sent again is not "too old"."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(bench.commit(proposal, 2), 2)
    bench.wall_us += 5_000_000
    bench.step(proposal, 0)
    assert len(bench.said(Prepare)) == 1


def test_no_peer_makes_the_digests_of_others_look_new() -> None:
    """Each sender has room for two names in a slot, whatever others named."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    for number in range(20):
        bench.step(bench.sign(Prepare(0, View(0), S(1), bytes([number]) * 32), 3), 3)
    bench.step(bench.commit(proposal, 2), 2)
    bench.wall_us += 5_000_000
    bench.step(proposal, 0)
    assert len(bench.said(Prepare)) == 1


def test_tolerance_for_age_grows_while_a_slot_is_stuck() -> None:
    """Section 9.1: a wrong bound cannot stop the system for ever (seed 44): doubled every T_req."""
    bench = Bench(me=1)
    bench.step(bench.proposal(timestamp_us=bench.wall_us - 3_500_000), 0)
    bench.pass_time(3900)
    assert bench.said(Prepare) == []
    bench.pass_time(200)
    assert len(bench.said(Prepare)) == 1


def test_vote_withheld_for_age_is_cast_once_others_decided() -> None:
    """Section 6: being decided ends no participation; and the time is agreed on."""
    bench = Bench(me=1)
    proposal = bench.proposal(timestamp_us=bench.wall_us - 3_500_000)
    bench.step(proposal, 0)
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    assert bench.core.ready().deadline_us <= bench.us
    bench.pass_time(10)
    assert len(bench.said(Prepare)) == 1
    bench.pass_time(5000)
    assert len(bench.said(Prepare)) == 1


# Bodies ------------------------------------------------------------------------------------------


def test_decided_body_that_is_missing_is_fetched() -> None:
    """Section 11: FETCH by digest, from one peer after the other."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    bench.pass_time(400)
    asked = [o.to for o in bench.sent if o.message == FetchBody(0, S(1), proposal.batch.digest)]
    assert asked[:3] == [2, 3, 0]
    assert len(asked) < 6, "with growing pauses"
    bench.step(FetchedBody(0, ordered(bench.proposal(1, [bench.request(2)]))), 3)
    assert bench.core.status().last_committed == 0
    bench.step(FetchedBody(0, ordered(proposal)), 3)
    assert bench.core.status().last_executed == 1
    assert bench.recorded(Adopted) == [Adopted(ordered(proposal))]


def test_body_arriving_as_a_proposal_decides_too() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal()
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    bench.step(proposal, 3)
    assert bench.core.status().last_executed == 1


# The executor ------------------------------------------------------------------------------------


def test_nothing_is_handed_over_before_the_executor_is_known() -> None:
    bench = Bench(me=1, boot=False)
    bench.decide(bench.proposal())
    assert bench.core.status().last_committed == 1
    assert bench.execute == []
    bench.core.executed_through(S(0), bench.cluster.config_hash, None)
    bench.settle()
    assert bench.core.status().last_executed == 1


def test_executor_gets_a_bounded_number_of_blocks() -> None:
    bench = Bench(me=1)
    for sequence in range(1, 13):
        proposal = bench.proposal(sequence)
        bench.step(proposal, 0, execute=False)
        for peer in (0, 2, 3):
            bench.step(bench.commit(proposal, peer), peer, execute=False)
    assert [execute.sequence for execute in bench.execute] == list(range(1, 9))
    bench.run_executor()
    bench.settle()
    assert bench.core.status().last_executed == 12


def test_restarted_executor_gets_its_blocks_again() -> None:
    """Section 16, D < X: replayed from what is in memory."""
    bench = Bench(me=1)
    for sequence in (1, 2, 3):
        bench.decide(bench.proposal(sequence))
    head = bench.core._order.hash_of(S(1))
    assert head is not None
    bench.core.executed_through(S(1), bytes(byte ^ 0x5A for byte in head), None)
    bench.settle(execute=False)
    assert [execute.sequence for execute in bench.execute] == [2, 3]
    bench.run_executor()
    assert bench.core.status().last_executed == 3


def test_repeated_and_foreign_executions_are_told_apart() -> None:
    bench = Bench(me=1)
    bench.decide(bench.proposal())
    bench.core.executed(S(1), bytes(32), None, bench.now)
    assert bench.core.status().last_executed == 1
    with pytest.raises(ValueError, match="is next"):
        bench.core.executed(S(2), bytes(32), None, bench.now)


def test_executor_that_does_not_fit_the_log_is_refused() -> None:
    """Section 16: D > X is impossible unless the log was lost; D below memory needs the log again."""
    bench = Bench(me=1)
    bench.decide(bench.proposal())
    with pytest.raises(ExecutorAhead):
        bench.core.executed_through(S(2), bytes(32), None)
    bench.core._order._pruned = S(1)
    with pytest.raises(ExecutorBehind):
        bench.core.executed_through(S(0), bytes(32), None)
