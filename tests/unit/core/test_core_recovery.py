"""What a core rebuilt from its log does and never does (docs/protocol.md section 15)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_harness import Bench, S, block_hash, ordered

from nodes.core.messages import Attest, Commit, Prepare, PrePrepare, Status
from nodes.core.order import ExecutorBehind
from nodes.core.records import Accepted, Adopted, Decided, Prepared, Record, Stable, ViewEntered
from nodes.core.recovery import BrokenLog
from nodes.core.types import FaultCode, Mode, View


def _reborn(bench: Bench, records: list[Record] | None = None, *, executed: int = 0) -> Bench:
    """The same member, from its log, through the bytes of every record."""
    kept = bench.records if records is None else records
    decoded = [bench.wire.decode_record(*bench.wire.encode_record(record)) for record in kept]
    options = {"window": bench.options.window, "checkpoint_interval": bench.options.checkpoint_interval}
    again = Bench(me=bench.me, n=bench.options.n, records=decoded, boot=False, **options)
    again.us, again.wall_us = bench.us, bench.wall_us
    head = again.core._order.hash_of(S(executed))
    assert head is not None
    again.core.executed_through(S(executed), block_hash(head) if executed else head, None)
    return again


def test_follower_says_its_votes_again() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    bench.step(bench.prepare(proposal, 2), 2)
    said = [(type(m), m.sequence, m.digest) for kind in (Prepare, Commit) for m in bench.said(kind)]
    again = _reborn(bench)
    again.settle()
    assert [(type(m), m.sequence, m.digest) for kind in (Prepare, Commit) for m in again.said(kind)] == said
    assert again.records == [], "nothing is logged twice"
    for peer in (0, 2):
        again.step(again.commit(proposal, peer), peer)
    assert again.core.status().last_executed == 1, "the own COMMIT counts again"


def test_no_second_vote_after_a_restart() -> None:
    """S1: one PREPARE in a (view, sequence), whatever happens to the process."""
    bench = Bench(me=1)
    proposal, other = bench.proposal(), bench.proposal(1, [bench.request(2)])
    bench.step(proposal, 0)
    again = _reborn(bench)
    again.step(other, 0)
    assert {vote.digest for vote in again.said(Prepare)} == {proposal.batch.digest}
    assert again.fault_codes(0) == [FaultCode.CONFLICTING_PROPOSAL]


def test_unlogged_proposal_is_forgotten_with_its_vote_unsent() -> None:
    """Kill between vote written and synced: nobody saw a vote, so another may follow."""
    bench = Bench(me=1)
    bench.step(bench.proposal(), 0, persist=False)
    assert bench.said(Prepare) == []
    again = _reborn(bench, bench.records[:1])
    again.settle()
    other = again.proposal(1, [again.request(2)])
    again.step(other, 0)
    assert [vote.digest for vote in again.said(Prepare)] == [other.batch.digest]


def test_primary_goes_on_after_its_last_proposal() -> None:
    bench = Bench(me=0)
    first, second = bench.request(1), bench.request(2)
    bench.core.submit([first], bench.now)
    bench.settle()
    (proposal,) = bench.said(PrePrepare)
    again = _reborn(bench)
    again.settle()
    (repeated,) = again.said(PrePrepare, None)
    assert repeated == proposal, "the same bytes, signed again"
    again.core.submit([first, second], again.now)
    again.us += 20_000
    again.core.tick(again.now)
    again.settle()
    assert [(p.batch.sequence, p.requests) for p in again.said(PrePrepare)[1:]] == [(2, (second,))]
    again.decide(repeated)
    assert again.core.status().last_executed == 1


def test_prepared_slots_are_not_replayed_as_decided() -> None:
    """Section 15 (MC)."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    bench.step(bench.prepare(proposal, 2), 2)
    again = _reborn(bench)
    again.settle()
    assert again.core.status().last_committed == 0
    assert again.execute == []


def test_commit_order_is_kept_after_a_restart() -> None:
    """A replica rebuilt from certificates obeys the in-order rule."""
    bench = Bench(me=1)
    first, second = bench.proposal(1), bench.proposal(2)
    for proposal in (first, second):
        bench.step(proposal, 0)
    bench.step(bench.prepare(second, 2), 2)
    again = _reborn(bench)
    again.settle()
    assert again.said(Commit) == []
    again.step(again.prepare(first, 2), 2)
    assert [commit.sequence for commit in again.said(Commit)] == [1, 2]


def test_executor_is_brought_up_to_the_log() -> None:
    """Section 16: D < X: bodies D + 1 .. X from the log."""
    bench = Bench(me=1)
    for sequence in (1, 2, 3):
        bench.decide(bench.proposal(sequence))
    again = _reborn(bench, executed=1)
    assert again.core.status().last_committed == 3
    again.settle(execute=False)
    assert [execute.sequence for execute in again.execute] == [2, 3]
    again.run_executor()
    again.settle()
    assert [attest.sequence for attest in again.said(Attest)] == [1, 2, 3]
    assert again.core.status().order_hash == bench.core.status().order_hash


def test_certificates_of_decided_slots_are_offered_again() -> None:
    """Others may have crashed before they decided: COMMITs above h are repeated."""
    bench = Bench(me=1)
    bench.decide(bench.proposal())
    again = _reborn(bench, executed=1)
    again.settle()
    assert [commit.sequence for commit in again.said(Commit)] == [1]
    assert again.said(Prepare) == []
    again.us += 1_000_000
    again.forget()
    status = Status(
        0, View(0), Mode.NORMAL, View(0), S(0), S(0), S(0), again.cluster.config_hash, (), 0, 0, 0, False, 0
    )
    again.step(status, 2)
    assert [type(message) for message in (o.message for o in again.sent)][:2] == [Prepare, Commit]


def _without_certificate(bench: Bench) -> list[Record]:
    return [record for record in bench.records if not isinstance(record, Prepared)]


def test_votes_of_decided_slots_without_certificate_are_said_again() -> None:
    """Section 6: being decided ends no participation, over restarts too: certificate and COMMIT still come."""
    bench = Bench(me=1)
    proposal = bench.proposal()
    bench.step(proposal, 0)
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer)
    again = _reborn(bench, executed=1)
    again.settle()
    assert [vote.sequence for vote in again.said(Prepare, None)] == [1]
    again.step(again.prepare(proposal, 2), 2)
    assert len(again.recorded(Prepared)) == 1
    assert [commit.sequence for commit in again.said(Commit, None)] == [1]


def test_primary_repeats_the_proposal_of_a_decided_slot_without_certificate() -> None:
    bench = Bench(me=0)
    bench.core.submit([bench.request()], bench.now)
    bench.settle()
    (proposal,) = bench.said(PrePrepare)
    bench.decide(proposal)
    again = _reborn(bench, _without_certificate(bench), executed=1)
    again.settle()
    assert again.said(PrePrepare, None) == [proposal]
    for peer in (1, 2):
        again.step(again.prepare(proposal, peer), peer)
    assert [commit.sequence for commit in again.said(Commit, None)] == [1]


def test_proposal_accepted_after_its_decision_is_recovered() -> None:
    bench = Bench(me=1)
    proposal = bench.proposal()
    (head,) = bench.chain([proposal])
    bench.settle()
    late: list[Record] = [Adopted(ordered(proposal)), Decided(S(1), proposal.batch.digest, head), Accepted(proposal)]
    again = _reborn(bench, [*bench.records, *late], executed=1)
    again.settle()
    assert [vote.sequence for vote in again.said(Prepare)] == [1]
    assert again.core._pool._proposals == {}, "its requests are ordered"


def test_stable_and_adopted_records_are_recovered() -> None:
    bench = Bench(me=1, window=16, checkpoint_interval=2)
    proposals = [bench.proposal(sequence) for sequence in (1, 2, 3)]
    hashes = bench.chain(proposals)
    bench.settle()
    adopted = [Adopted(ordered(proposal)) for proposal in proposals]
    decided = [Decided(S(i + 1), p.batch.digest, hashes[i]) for i, p in enumerate(proposals)]
    stable = Stable(bench.certificate(2, hashes[1], (0, 2, 3)))
    log: list[Record] = [*bench.records, adopted[0], decided[0], adopted[1], decided[1], stable, adopted[2], decided[2]]
    again = _reborn(bench, log, executed=2)
    status = again.core.status()
    assert (status.stable, status.last_committed, status.order_hash) == (2, 3, hashes[2])
    again.settle()
    assert again.core.status().last_executed == 3
    assert again.core.admit(proposals[0].requests, again.now).known == proposals[0].requests, "tombstones too"


def test_log_whose_beginning_was_collected_is_enough() -> None:
    """Section 10: segments below h and the durable database go; live records are repeated later."""
    bench = Bench(me=1, window=16, checkpoint_interval=2)
    proposals = [bench.proposal(sequence) for sequence in (1, 2, 3)]
    hashes = bench.chain(proposals)
    tail: list[Record] = [
        Accepted(proposals[1]),
        Decided(S(2), proposals[1].batch.digest, hashes[1]),
        Adopted(ordered(proposals[2])),
        Decided(S(3), proposals[2].batch.digest, hashes[2]),
    ]
    again = _reborn(bench, tail, executed=2)
    again.settle()
    assert again.core.status().last_executed == 3
    stable = Stable(bench.certificate(2, hashes[1], (0, 2, 3)))
    from_stable = _reborn(bench, [ViewEntered(View(0), Mode.NORMAL, b"", S(0)), stable, *tail[2:]], executed=2)
    from_stable.settle()
    assert (from_stable.core.status().stable, from_stable.core.status().last_executed) == (2, 3)
    with pytest.raises(ExecutorBehind):
        from_stable.core.executed_through(S(1), bytes(32), None)


def test_records_at_or_below_stable_make_no_slots() -> None:
    bench = Bench(me=1, window=16, checkpoint_interval=2)
    proposals = [bench.proposal(sequence) for sequence in (1, 2)]
    for proposal in proposals:
        bench.decide(proposal)
    for peer in (0, 2):
        bench.step(bench.attest(2, bench.core.status().order_hash, peer), peer)
    prepared = bench.recorded(Prepared)
    again = _reborn(bench, [*bench.records, Accepted(proposals[0]), prepared[0], bench.recorded(Stable)[0]], executed=2)
    again.settle()
    assert again.said(Commit) == []
    assert again.core.status().stable == 2


@pytest.mark.parametrize("damage", ["gap", "no body", "other hash", "stable above"])
def test_log_that_contradicts_itself_stops_the_replica(damage: str) -> None:
    bench = Bench(me=1)
    bench.decide(bench.proposal(1))
    bench.decide(bench.proposal(2))
    records = list(bench.records)
    (first, second) = (i for i, record in enumerate(records) if isinstance(record, Decided))
    match damage:
        case "gap":
            decided = records[second]
            assert isinstance(decided, Decided)
            records.append(replace(decided, sequence=S(9)))
        case "no body":
            records = [r for r in records if not (isinstance(r, Accepted) and r.proposal.batch.sequence == 2)]
        case "other hash":
            decided = records[first]
            assert isinstance(decided, Decided)
            records[first] = replace(decided, order_hash=bytes(32))
        case _:
            records.append(Stable(bench.certificate(16, bytes(32), (0, 2, 3))))
    with pytest.raises(BrokenLog):
        _reborn(bench, records)


def test_every_prefix_of_a_log_recovers() -> None:
    """A torn tail loses the last records only; whatever is left is a state this replica was in."""
    bench = Bench(me=1)
    for sequence in (1, 2, 3):
        bench.decide(bench.proposal(sequence))
    votes = {vote.sequence: vote.digest for vote in bench.said(Prepare)}
    for length in range(len(bench.records) + 1):
        again = _reborn(bench, bench.records[:length])
        again.settle()
        assert all(votes[vote.sequence] == vote.digest for vote in again.said(Prepare))
        decided = sum(isinstance(record, Decided) for record in bench.records[:length])
        assert again.core.status().last_executed == decided
