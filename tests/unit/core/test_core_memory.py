"""Bodies in memory are bounded, in a long catch-up and at boot; what is gone comes from the archives
(docs/protocol.md sections 11 and 15)."""

from __future__ import annotations

import pytest
from core_harness import Bench, S, block_hash, ordered

from nodes.core.messages import FetchBlocks, FetchedBlocks, PrePrepare
from nodes.core.order import ExecutorBehind
from nodes.core.records import Adopted, Decided, Record, Stable
from nodes.core.types import BatchKind, FaultCode

L = 16
SMALL = {"window": L, "checkpoint_interval": 2}


def _ticks(bench: Bench, count: int) -> tuple[list[PrePrepare], list[bytes]]:
    proposals = [bench.proposal(sequence, kind=BatchKind.TICK) for sequence in range(1, count + 1)]
    return proposals, bench.chain(proposals)


def _serve(bench: Bench, proposals: list[PrePrepare], *, execute: bool = True) -> None:
    """Answer every question that was asked, once."""
    asked = [(o.to, o.message) for o in bench.sent if isinstance(o.message, FetchBlocks)]
    bench.sent = [o for o in bench.sent if not isinstance(o.message, FetchBlocks)]
    for source, question in asked:
        assert source is not None
        blocks = tuple(ordered(proposal) for proposal in proposals[question.first - 1 : question.last])
        bench.step(FetchedBlocks(0, blocks), source, execute=execute)


def _log(bench: Bench, proposals: list[PrePrepare], hashes: list[bytes], stable: int) -> list[Record]:
    records: list[Record] = []
    for proposal, order_hash in zip(proposals, hashes, strict=True):
        batch = proposal.batch
        records += [Adopted(ordered(proposal)), Decided(batch.sequence, batch.digest, order_hash)]
        if batch.sequence == stable:
            records.append(Stable(bench.certificate(stable, order_hash, (0, 1, 2))))
    return records


def test_bodies_of_a_long_catch_up_are_bounded_while_nothing_becomes_stable() -> None:
    bench = Bench(me=3, **SMALL)
    proposals, hashes = _ticks(bench, 300)
    for peer in (1, 2):
        bench.step(bench.attest(300, hashes[-1], peer), peer)
    for _ in range(30):
        bench.pass_time(60)
        _serve(bench, proposals)
    status = bench.core.status()
    assert (status.last_executed, status.stable) == (300, 0)
    assert len(bench.core._order._blocks) <= 2 * L
    assert bench.core._order.owed_bytes == 0


def test_bodies_of_a_catch_up_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held, adopted and executed ones; the executor sets the pace."""
    monkeypatch.setattr("nodes.core.catch_up.HELD_BYTES_MAX", 1 << 20)
    monkeypatch.setattr("nodes.core.order.KEPT_BYTES_MAX", 1 << 20)
    bench = Bench(me=3, window=256, checkpoint_interval=16)
    count, size = 120, 60_000
    proposals = [bench.proposal(s, [bench.request(1, s, bytes(size))]) for s in range(1, count + 1)]
    hashes = bench.chain(proposals)
    for peer in (1, 2):
        bench.step(bench.attest(count, hashes[-1], peer), peer)
    order, most = bench.core._order, 0
    for _ in range(100):
        bench.pass_time(60, execute=False)
        _serve(bench, proposals, execute=False)
        current = bench.core._catch_up._pass
        most = max(most, order.owed_bytes + (current.held_bytes if current is not None else 0))
        bench.run_executor()
        bench.settle(execute=False)
        assert order._bytes - order.owed_bytes <= 1 << 20
        if bench.core.status().last_executed == count:
            break
    assert bench.core.status().last_executed == count
    assert most <= (1 << 20) + 2 * size


def test_bodies_of_a_long_log_are_not_all_kept_at_boot() -> None:
    bench = Bench(me=3, boot=False, **SMALL)
    proposals, hashes = _ticks(bench, 300)
    for stable in (0, 298):
        again = Bench(me=3, records=_log(bench, proposals, hashes, stable), boot=False, **SMALL)
        order = again.core._order
        assert len(order._blocks) <= 3 * L
        assert len(order._hashes) <= 2 * L
        assert sum(again.core._window.get(S(s)) is not None for s in range(1, 301)) <= L
        again.core.executed_through(S(299), block_hash(hashes[298]), None)
        again.settle()
        assert again.core.status().last_executed == 300
        assert order._trail is None


def test_single_replica_keeps_what_only_its_log_has() -> None:
    bench = Bench(me=0, n=1, boot=False, **SMALL)
    proposals, hashes = _ticks(bench, 100)
    again = Bench(me=0, n=1, records=_log(bench, proposals, hashes, 0), **SMALL)
    again.settle()
    assert again.core.status().last_executed == 100


def test_executor_far_behind_its_log_is_served_from_the_archives_of_peers() -> None:
    """Section 15: the rest is executed from the log or fetched; each block is proven by its order hash."""
    bench = Bench(me=3, boot=False, **SMALL)
    proposals, hashes = _ticks(bench, 300)
    again = Bench(me=3, records=_log(bench, proposals, hashes, 298), boot=False, **SMALL)
    again.core.executed_through(S(5), block_hash(hashes[4]), None)
    again.settle()
    for _ in range(60):
        again.pass_time(20)
        assert len(again.core._order._blocks) <= 3 * L + 64 + 8
        _serve(again, proposals)
    assert again.core.status().last_executed == 300
    assert again.core._order._trail is None
    assert again.core._order.owed_bytes == 0
    assert again.faults == []


def test_executor_gets_no_block_that_was_not_decided() -> None:
    bench = Bench(me=3, boot=False, **SMALL)
    proposals, hashes = _ticks(bench, 300)
    lies = [bench.proposal(s, kind=BatchKind.TICK, timestamp_us=1) for s in range(1, 301)]
    again = Bench(me=3, records=_log(bench, proposals, hashes, 298), boot=False, **SMALL)
    again.core.executed_through(S(0), bench.cluster.config_hash, None)
    again.pass_time(20)
    (liar,) = [o.to for o in again.sent if isinstance(o.message, FetchBlocks)]
    assert liar is not None
    _serve(again, lies)
    assert again.core.status().last_executed == 0
    assert again.fault_codes(liar) == [FaultCode.BAD_CHAIN]
    again.sent = [o for o in again.sent if o.to != liar]
    for _ in range(60):
        again.pass_time(20)
        assert liar not in [o.to for o in again.sent if isinstance(o.message, FetchBlocks)]
        _serve(again, proposals)
    assert again.core.status().last_executed == 300


def test_silent_archive_is_replaced_and_executor_may_restart_meanwhile() -> None:
    bench = Bench(me=3, boot=False, **SMALL)
    proposals, hashes = _ticks(bench, 300)
    again = Bench(me=3, records=_log(bench, proposals, hashes, 298), boot=False, **SMALL)
    again.core.executed_through(S(5), block_hash(hashes[4]), None)
    again.pass_time(700)
    asked = [o.to for o in again.sent if isinstance(o.message, FetchBlocks)]
    assert len(asked) == 2
    assert len(set(asked)) == 2
    _serve(again, proposals)
    assert 5 < again.core.status().last_executed < 250
    again.core.executed_through(S(3), block_hash(hashes[2]), None)
    for _ in range(60):
        again.pass_time(20)
        _serve(again, proposals)
    assert again.core.status().last_executed == 300


def test_executor_before_the_beginning_of_the_log_is_refused_with_the_reason() -> None:
    bench = Bench(me=3, boot=False, **SMALL)
    proposals, hashes = _ticks(bench, 100)
    tail = _log(bench, proposals, hashes, 98)[100:]
    again = Bench(me=3, records=tail, boot=False, **SMALL)
    with pytest.raises(ExecutorBehind, match="seeded"):
        again.core.executed_through(S(3), block_hash(hashes[2]), None)
