"""What a liar may cost a replica that catches up (docs/protocol.md section 11): little time, no safety."""

from __future__ import annotations

from collections.abc import Callable

from core_harness import Bench, S, ordered

from nodes.core.messages import Attest, FetchAttest, FetchBlocks, FetchedBlocks, PrePrepare
from nodes.core.types import BatchKind

Answer = Callable[[list[PrePrepare], list[PrePrepare], FetchBlocks], list[PrePrepare]]


def _catch_up(count: int, liars: dict[int, Answer], delay_ms: int, peers: tuple[int, ...] = (0, 1, 2)) -> Bench:
    """Catch up `count` blocks from peers; `liars` answer after `delay_ms` whatever they want."""
    bench = Bench(me=3)
    good = [bench.proposal(s, kind=BatchKind.TICK) for s in range(1, count + 1)]
    bad = [bench.proposal(s, kind=BatchKind.TICK, timestamp_us=1) for s in range(1, count + 1)]
    for peer in peers:
        bench.step(bench.attest(count, bench.chain(good)[-1], peer), peer)
    open_: list[tuple[int, int, FetchBlocks]] = []
    for _ in range(20_000):
        if bench.core.status().last_executed == count:
            break
        bench.pass_time(10)
        for outgoing in bench.sent:
            if isinstance(outgoing.message, FetchBlocks):
                assert outgoing.to is not None
                wait_us = 1000 * delay_ms if outgoing.to in liars else 2000
                open_.append((bench.us + wait_us, outgoing.to, outgoing.message))
        bench.sent.clear()
        for due in [due for due in open_ if due[0] <= bench.us]:
            open_.remove(due)
            _, peer, question = due
            answer = good[question.first - 1 : question.last]
            if peer in liars:
                answer = liars[peer](good, bad, question)
            if answer:
                bench.step(FetchedBlocks(0, tuple(ordered(proposal) for proposal in answer)), peer)
    assert bench.core.status().last_executed == count
    return bench


def _drip(good: list[PrePrepare], bad: list[PrePrepare], question: FetchBlocks) -> list[PrePrepare]:
    return bad[question.first - 1 : question.first]


def _slow_lie(good: list[PrePrepare], bad: list[PrePrepare], question: FetchBlocks) -> list[PrePrepare]:
    return bad[question.first - 1 : question.last]


def _seconds(bench: Bench) -> float:
    return (bench.us - 1_000_000) / 1e6


def test_one_block_for_a_piece_is_a_failure() -> None:
    for liar in (0, 1, 2):
        assert _seconds(_catch_up(300, {liar: _drip}, 350)) < 2.0


def test_whole_answers_just_in_time_do_not_keep_the_turn() -> None:
    for liar in (0, 1, 2):
        assert _seconds(_catch_up(1000, {liar: _slow_lie}, 450)) < 4.0


def test_lie_in_a_mixed_chain_costs_one_pass() -> None:
    """Who poisoned it is not known; a peer that had no part in it comes next."""

    def once(good: list[PrePrepare], bad: list[PrePrepare], question: FetchBlocks) -> list[PrePrepare]:
        return bad[question.first - 1 : question.last] if question.first == 1 else []

    for liar in (0, 1, 2):
        bench = _catch_up(300, {liar: once}, 5)
        assert _seconds(bench) < 3.0
        assert bench.faults == []


def test_slow_and_honest_peers_are_enough() -> None:
    """Patience grows: 700 ms for an answer is more than the first waiting time."""

    def whole(good: list[PrePrepare], bad: list[PrePrepare], question: FetchBlocks) -> list[PrePrepare]:
        return good[question.first - 1 : question.last]

    bench = _catch_up(600, {0: whole, 1: whole, 2: whole}, 700)
    assert bench.faults == []
    assert _seconds(bench) < 40


def test_question_about_a_common_height_is_asked_in_spite_of_a_liar() -> None:
    """f huge ATTESTs must not hide the highest height that w correct peers share."""
    bench = Bench(me=3)
    proposals = [bench.proposal(s, kind=BatchKind.TICK) for s in range(1, 5)]
    hashes = bench.chain(proposals)
    bench.step(bench.attest(1 << 40, b"x" * 32, 0), 0)
    bench.step(bench.attest(4, hashes[3], 1), 1)
    bench.step(bench.attest(2, hashes[1], 2), 2)
    bench.pass_time(300)
    asked = {(o.to, o.message.sequence) for o in bench.sent if isinstance(o.message, FetchAttest)}
    assert (1, S(2)) in asked
    bench.step(bench.attest(2, hashes[1], 1), 1)
    target = bench.core._checkpoints.target
    assert target is not None
    assert target.sequence == 2
    assert bench.said(Attest) == []
