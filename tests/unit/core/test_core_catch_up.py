"""Adopting and fetching what was ordered without this replica (docs/protocol.md section 11)."""

from __future__ import annotations

import pytest
from core_harness import Bench, R, S, ordered

from nodes.core.catch_up import CatchUp
from nodes.core.checkpoint import Target
from nodes.core.messages import Attest, FetchAttest, FetchBlocks, FetchedBlocks, Prepare, PrePrepare
from nodes.core.records import Adopted, Decided
from nodes.core.types import FaultCode, ReplicaId

GRACE_MS = 60


def _history(bench: Bench, count: int, size: int = 2) -> tuple[list[PrePrepare], list[bytes]]:
    proposals = [
        bench.proposal(sequence, [bench.request(1, sequence, bytes(size))]) for sequence in range(1, count + 1)
    ]
    return proposals, bench.chain(proposals)


def _attest(bench: Bench, sequence: int, order_hash: bytes, *peers: int) -> None:
    for peer in peers:
        bench.step(bench.attest(sequence, order_hash, peer), peer)


def _asked(bench: Bench) -> list[tuple[ReplicaId | None, int, int]]:
    return [(o.to, o.message.first, o.message.last) for o in bench.sent if isinstance(o.message, FetchBlocks)]


def _fetched(proposals: list[PrePrepare], first: int, last: int) -> FetchedBlocks:
    return FetchedBlocks(0, tuple(ordered(proposal) for proposal in proposals[first - 1 : last]))


def test_accepted_proposals_are_adopted_on_a_weak_quorum() -> None:
    """w = f + 1 attesters: one of them is correct and executed it. No fetch is needed."""
    bench = Bench(me=1)
    proposals, hashes = _history(bench, 2)
    for proposal in proposals:
        bench.step(proposal, 0)
    _attest(bench, 2, hashes[1], 2)
    assert bench.core.status().last_committed == 0
    _attest(bench, 2, hashes[1], 3)
    assert bench.core.status().last_executed == 2
    assert bench.recorded(Adopted) == [], "the bodies are in the log as proposals"
    assert len(bench.recorded(Decided)) == 2
    bench.pass_time(200)
    assert _asked(bench) == []


def test_dark_replica_catches_up_from_its_peers() -> None:
    """The hole of Berger, Reiser and Bessani: f + 1 correct executors are enough for everybody."""
    bench = Bench(me=3)
    proposals, hashes = _history(bench, 5)
    _attest(bench, 5, hashes[4], 1, 2)
    bench.pass_time(GRACE_MS)
    ((source, first, last),) = _asked(bench)
    assert (source in (1, 2), first, last) == (True, 1, 5)
    assert source is not None
    bench.step(_fetched(proposals, 1, 5), source)
    status = bench.core.status()
    assert (status.last_executed, status.order_hash) == (5, hashes[4])
    assert bench.recorded(Adopted) == [Adopted(ordered(proposal)) for proposal in proposals]
    assert [attest.sequence for attest in bench.said(Attest)] == [1, 2, 3, 4, 5]
    assert bench.said(Prepare) == []
    assert all(not check.requests for check in bench.checks), "no client signature is checked again"
    assert not status.is_catching_up


def test_votes_may_win_while_a_fetch_is_still_in_its_grace() -> None:
    bench = Bench(me=3)
    proposals, hashes = _history(bench, 1)
    _attest(bench, 1, hashes[0], 1, 2)
    bench.decide(proposals[0])
    bench.pass_time(200)
    assert _asked(bench) == []
    assert bench.core.status().last_executed == 1


def test_one_attester_is_not_enough() -> None:
    bench = Bench(me=3)
    _, hashes = _history(bench, 3)
    _attest(bench, 3, hashes[2], 1)
    _attest(bench, 2, hashes[1], 2)
    bench.pass_time(200)
    assert _asked(bench) == []


def test_different_orders_do_not_add_up() -> None:
    bench = Bench(me=3)
    _, hashes = _history(bench, 3)
    _attest(bench, 3, hashes[2], 1)
    _attest(bench, 3, b"x" * 32, 2)
    bench.pass_time(200)
    assert _asked(bench) == []


def test_peer_that_sends_another_chain_is_blamed_and_replaced() -> None:
    bench = Bench(me=3)
    proposals, hashes = _history(bench, 2)
    lies = [bench.proposal(sequence, [bench.request(7, sequence)]) for sequence in (1, 2)]
    _attest(bench, 2, hashes[1], 1, 2)
    bench.pass_time(GRACE_MS)
    (liar, _, _) = _asked(bench)[0]
    assert liar is not None
    bench.step(_fetched(lies, 1, 2), liar)
    assert bench.fault_codes(liar) == [FaultCode.BAD_CHAIN]
    assert bench.core.status().last_committed == 0
    bench.pass_time(GRACE_MS)
    (other, first, last) = _asked(bench)[-1]
    assert other not in (None, liar)
    assert (first, last) == (1, 2)
    assert other is not None
    bench.step(_fetched(proposals, 1, 2), other)
    assert bench.core.status().last_executed == 2


def test_silent_peer_is_replaced() -> None:
    """Rotation by sequence and attempt: deterministic, and every source has its turn."""
    bench = Bench(me=3)
    _, hashes = _history(bench, 2)
    _attest(bench, 2, hashes[1], 0, 1, 2)
    bench.pass_time(3000)
    sources = [source for source, _, _ in _asked(bench)]
    assert sources[:3] == [1, 2, 0]
    assert len(sources) < 7, "with growing pauses"


def test_mixed_sources_blame_nobody() -> None:
    bench = Bench(me=3)
    proposals, hashes = _history(bench, 65)
    lie = bench.proposal(65, [bench.request(7)])
    _attest(bench, 65, hashes[64], 1, 2)
    bench.pass_time(GRACE_MS)
    first_source = _asked(bench)[-1][0]
    assert first_source is not None
    bench.step(_fetched(proposals, 1, 64), first_source)
    bench.pass_time(600)
    second_source = _asked(bench)[-1][0]
    assert second_source not in (None, first_source)
    assert second_source is not None
    bench.step(FetchedBlocks(0, (ordered(lie),)), second_source)
    assert bench.faults == []
    bench.pass_time(GRACE_MS)
    assert _asked(bench)[-1][1] == 1, "from the beginning"


def test_blocks_of_others_or_out_of_order_are_ignored() -> None:
    bench = Bench(me=3)
    proposals, hashes = _history(bench, 3)
    _attest(bench, 3, hashes[2], 1, 2)
    bench.pass_time(GRACE_MS)
    source = _asked(bench)[-1][0]
    assert source is not None
    bench.step(_fetched(proposals, 1, 3), 3 - source)
    bench.step(_fetched(proposals, 2, 3), source)
    assert bench.core.status().last_committed == 0
    bench.step(_fetched(proposals, 1, 3), source)
    assert bench.core.status().last_executed == 3


def test_long_gap_is_fetched_in_pieces() -> None:
    bench = Bench(me=3)
    proposals, hashes = _history(bench, 150)
    _attest(bench, 150, hashes[149], 1, 2)
    bench.pass_time(GRACE_MS)
    while bench.core.status().last_executed < 150:
        source, first, last = _asked(bench)[-1]
        assert last - first < 64
        assert source is not None
        bench.step(_fetched(proposals, first, last), source)
    assert [first for _, first, _ in _asked(bench)] == [1, 65, 129]


def test_bodies_beyond_the_buffer_are_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a gap larger than the buffer only digests are kept; bodies come later, against these."""
    bench = Bench(me=3)
    proposals, hashes = _history(bench, 70, size=60_000)
    assert sum(len(proposal.body) for proposal in proposals) < 8 << 20
    monkeypatch.setattr("nodes.core.catch_up.HELD_BYTES_MAX", 1 << 20)
    _attest(bench, 70, hashes[69], 1, 2)
    bench.pass_time(GRACE_MS)
    for _ in range(20):
        if bench.core.status().last_executed == 70:
            break
        source, first, last = _asked(bench)[-1]
        assert source is not None
        bench.step(_fetched(proposals, first, last), source)
    assert bench.core.status().last_executed == 70
    assert [first for _, first, _ in _asked(bench)] == [1, 65, 18, 35, 52, 69]


def test_lie_after_the_proof_is_seen_at_once() -> None:
    bench = Bench(me=3)
    catch_up = CatchUp(bench.options)
    proposals, hashes = _history(bench, 3)
    sources = [R(1), R(2)]
    order = bench.core._order
    catch_up.pursue(Target(S(3), hashes[2]), sources, order, bench.now)
    bench.us += 100_000
    catch_up.pursue(Target(S(3), hashes[2]), sources, order, bench.now)
    catch_up.on_blocks(_fetched(proposals, 1, 3), R(2), order)
    assert catch_up._pass is not None
    catch_up._pass.held.clear()
    (asked,) = catch_up.pursue(Target(S(3), hashes[2]), sources, order, bench.now)
    lie = ordered(bench.proposal(1, [bench.request(7)]))
    foreign = ordered(bench.proposal(9))
    assert catch_up.on_blocks(FetchedBlocks(0, (foreign,)), R(2), order) == []
    (report,) = catch_up.on_blocks(FetchedBlocks(0, (lie,)), R(2), order)
    assert getattr(report, "fault").code is FaultCode.BAD_CHAIN  # noqa: B009
    assert getattr(asked, "to") == 2  # noqa: B009
    assert catch_up._pass is None


def test_gap_beyond_the_limit_waits_for_state_transfer() -> None:
    """Section 16 level 2 is for gaps that blocks cannot bridge; nothing spins meanwhile."""
    bench = Bench(me=3)
    _attest(bench, 1 << 21, b"x" * 32, 1, 2)
    bench.pass_time(GRACE_MS)
    assert _asked(bench) == []
    bench.core.tick(bench.now)
    assert bench.core.ready().deadline_us > bench.us


def test_target_passed_by_votes_ends_the_pass() -> None:
    bench = Bench(me=3)
    proposals, hashes = _history(bench, 3)
    _attest(bench, 1, hashes[0], 1, 2)
    bench.pass_time(GRACE_MS)
    assert bench.core.status().is_catching_up
    _attest(bench, 3, hashes[2], 1, 2)
    bench.decide(proposals[0])
    bench.pass_time(GRACE_MS)
    assert _asked(bench)[-1][1:] == (2, 3)
    source = _asked(bench)[-1][0]
    assert source is not None
    bench.step(_fetched(proposals, 2, 3), source)
    assert bench.core.status().last_executed == 3


def test_slow_executor_sets_the_pace() -> None:
    """Invariant I9: adopted bodies wait for the executor, at most L of them."""
    bench = Bench(me=3, window=16, checkpoint_interval=2)
    proposals, hashes = _history(bench, 40)
    _attest(bench, 40, hashes[39], 1, 2)
    bench.pass_time(GRACE_MS, execute=False)
    source, first, last = _asked(bench)[-1]
    assert source is not None
    bench.step(_fetched(proposals, first, last), source, execute=False)
    assert bench.core.status().last_committed == 16
    bench.run_executor()
    bench.settle()
    assert bench.core.status().last_executed == 40


def test_replica_asks_peers_above_a_common_height_what_they_executed() -> None:
    """Section 11: FETCH_ATTEST lets helpers at different heights be matched."""
    bench = Bench(me=3)
    _, hashes = _history(bench, 4)
    _attest(bench, 4, hashes[3], 1)
    _attest(bench, 2, hashes[1], 2)
    bench.pass_time(300)
    assert {(o.to, o.message.sequence) for o in bench.sent if isinstance(o.message, FetchAttest)} == {(1, 2)}
    _attest(bench, 2, hashes[1], 1)
    bench.pass_time(GRACE_MS)
    assert _asked(bench)[-1][1:] == (1, 2)


def test_adopted_block_that_contradicts_a_decided_one_is_an_alarm() -> None:
    """More than f are faulty: never execute two orders."""
    bench = Bench(me=3)
    second = bench.proposal(2)
    bench.step(bench.proposal(1), 0)
    bench.step(second, 0)
    for peer in (0, 1, 2):
        bench.step(bench.commit(second, peer), peer)
    effects = bench.core._window.adopt(ordered(bench.proposal(2, [bench.request(8)])), bench.now)
    (report,) = effects
    assert getattr(report, "fault").code is FaultCode.DIVERGED  # noqa: B009
