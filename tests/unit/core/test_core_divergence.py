"""A state that a quorum refuted stays refuted across restarts, until it is the certified one again
(docs/protocol.md section 8)."""

from __future__ import annotations

from core_harness import Bench, S, block_hash

from nodes.core.messages import Attest, FetchAttest, PrePrepare
from nodes.core.records import Record, Stable
from nodes.core.types import BatchKind, FaultCode

K = 2
SMALL = {"window": 16, "checkpoint_interval": K}
OTHER = b"x" * 32


def _decide(bench: Bench, first: int, last: int, *, execute: bool = True) -> None:
    for sequence in range(first, last + 1):
        proposal: PrePrepare = bench.proposal(sequence, kind=BatchKind.TICK)
        bench.step(proposal, 0, execute=execute)
        for peer in (0, 2, 3):
            bench.step(bench.prepare(proposal, peer), peer, execute=execute)
            bench.step(bench.commit(proposal, peer), peer, execute=execute)


def _attest(bench: Bench, sequence: int, block: bytes | None = None) -> None:
    order_hash = bench.core._order.hash_of(S(sequence))
    assert order_hash is not None
    for peer in (0, 2, 3):
        bench.step(bench.attest(sequence, order_hash, peer, block=block), peer)


def _diverged() -> Bench:
    bench = Bench(me=1, **SMALL)
    _decide(bench, 1, K)
    _attest(bench, K, OTHER)
    assert bench.core.status().is_diverged
    return bench


def _reborn(bench: Bench, executed: int, block: bytes | None = None, records: list[Record] | None = None) -> Bench:
    log = [bench.wire.decode_record(*bench.wire.encode_record(r)) for r in records or bench.records]
    again = Bench(me=1, records=log, boot=False, **SMALL)
    again.us, again.wall_us = bench.us, bench.wall_us
    order_hash = again.core._order.hash_of(S(executed))
    assert order_hash is not None
    again.core.executed_through(S(executed), block or block_hash(order_hash), None)
    again.settle()
    return again


def test_diverged_replica_attests_nothing_after_a_restart() -> None:
    bench = _diverged()
    for executed in (K, K + 1):
        if executed > K:
            _decide(bench, K + 1, K + 1)
        again = _reborn(bench, executed)
        assert again.core.status().is_diverged
        assert again.fault_codes(1) == [FaultCode.DIVERGED], "its operator hears of it again"
        _decide(again, executed + 1, executed + 1)
        again.step(FetchAttest(0, S(executed)), 3)
        assert again.said(Attest) == []
        assert again.core.status().stable == K
        third = _reborn(again, executed, records=[*bench.records, *again.records])
        assert third.core.status().is_diverged


def test_executor_whose_block_is_not_the_certified_one_is_found_at_boot() -> None:
    """The certificate in the log is enough; the mark is not needed."""
    bench = _diverged()
    records = [r for r in bench.records if not (isinstance(r, Stable) and len(r.certificate.signatures) < 3)]
    assert len(records) == len(bench.records) - 1
    again = _reborn(bench, K, records=records)
    assert again.core.status().is_diverged
    assert again.said(Attest) == []
    assert len(again.recorded(Stable)) == 1


def test_block_executed_after_its_certificate_is_compared() -> None:
    """A slow executor: the watermark moved on the word of others."""
    bench = Bench(me=1, **SMALL)
    _decide(bench, 1, K, execute=False)
    order_hash = bench.core.status().order_hash
    for peer in (0, 2, 3):
        bench.step(bench.attest(K, order_hash, peer, block=OTHER), peer, execute=False)
    assert bench.core.status().stable == K
    assert not bench.core.status().is_diverged
    bench.run_executor()
    bench.settle()
    assert bench.core.status().is_diverged
    assert S(K) not in [attest.sequence for attest in bench.said(Attest)]
    assert _reborn(bench, K).core.status().is_diverged


def test_repaired_database_attests_again() -> None:
    """An operator replaced it: its block at the refuted height, or above, is the certified one."""
    bench = _diverged()
    again = _reborn(bench, K, OTHER)
    assert not again.core.status().is_diverged
    assert [attest.block_hash for attest in again.said(Attest)] == [OTHER]
    later = _reborn(bench, K)
    _decide(later, K + 1, 2 * K)
    assert later.core.status().is_diverged
    _attest(later, 2 * K)
    assert not later.core.status().is_diverged
    _decide(later, 2 * K + 1, 2 * K + 1)
    assert [attest.sequence for attest in later.said(Attest)] == [2 * K + 1]


def test_database_from_before_the_divergence_is_enough() -> None:
    bench = _diverged()
    again = _reborn(bench, 1)
    assert again.core.status().is_diverged, "nothing tells yet"
    assert again.said(Attest) == []


def test_old_mark_is_void_once_later_heights_were_compared() -> None:
    bench = _diverged()
    later = _reborn(bench, K)
    height = K
    while height < K + 24:
        _decide(later, height + 1, height + K)
        height += K
        _attest(later, height)
    assert not later.core.status().is_diverged
    _decide(later, height + 1, height + 1)
    again = _reborn(later, height + 1, records=[*bench.records, *later.records])
    assert not again.core.status().is_diverged
    assert [attest.sequence for attest in again.said(Attest)] == [height + 1]


def test_other_replicas_log_no_mark() -> None:
    bench = Bench(me=1, **SMALL)
    _decide(bench, 1, K)
    _attest(bench, K)
    (stable,) = bench.recorded(Stable)
    assert isinstance(stable, Stable)
    assert len(stable.certificate.signatures) == bench.core.thresholds.q
    assert not _reborn(bench, K).core.status().is_diverged
