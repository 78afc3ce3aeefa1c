"""Attestations, stable checkpoints, divergence (docs/protocol.md sections 8 and 10)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_harness import Bench, R, S, block_hash, ordered

from nodes.core.messages import Attest, AttestCertificate, Commit, FetchAttest, FetchedBlocks, Prepare
from nodes.core.records import Decided, Stable
from nodes.core.types import FaultCode

K = 2
SMALL = {"window": 16, "checkpoint_interval": K}


def _run(bench: Bench, count: int, first: int = 1) -> list[bytes]:
    """Decide and execute `count` blocks; the order hashes."""
    hashes = []
    for sequence in range(first, first + count):
        bench.decide(bench.proposal(sequence))
        hashes.append(bench.core.status().order_hash)
    return hashes


def test_attestation_follows_execution() -> None:
    """Section 8: signed only after the database has the block."""
    bench = Bench(me=1, **SMALL)
    proposal = bench.proposal()
    bench.step(proposal, 0, execute=False)
    for peer in (0, 2, 3):
        bench.step(bench.commit(proposal, peer), peer, execute=False)
    assert bench.said(Attest) == []
    bench.run_executor()
    bench.settle()
    (attest,) = bench.said(Attest, None)
    (head,) = bench.chain([proposal])
    assert (attest.sequence, attest.order_hash, attest.block_hash) == (1, head, block_hash(head))
    assert isinstance(bench.recorded(Decided)[0], Decided)


@pytest.mark.parametrize(("n", "q"), [(4, 3), (5, 4), (6, 4), (7, 5)])
def test_checkpoint_is_stable_on_a_quorum_of_verified_attestations(n: int, q: int) -> None:
    """Section 10: q, not f + 1: else the bodies may exist on one correct replica only."""
    bench = Bench(me=1, n=n, **SMALL)
    hashes = _run(bench, K)
    bench.forget()
    voters = [peer for peer in range(n) if peer != 1]
    for peer in voters[: q - 1]:
        assert bench.core.status().stable == 0
        bench.step(bench.attest(K, hashes[-1], peer), peer)
    assert bench.core.status().stable == K
    (record,) = bench.recorded(Stable)
    assert isinstance(record, Stable)
    assert bench.wire.verify_attest_certificate(record.certificate, threshold=q)
    assert sum(len(check.signatures) for check in bench.checks) == q - 1, "its own needs no check"


def test_only_multiples_of_the_interval_become_stable() -> None:
    bench = Bench(me=1, **SMALL)
    hashes = _run(bench, 1)
    for peer in (0, 2, 3):
        bench.step(bench.attest(1, hashes[0], peer), peer)
    assert bench.core.status().stable == 0


def test_bad_signatures_do_not_move_the_watermark() -> None:
    bench = Bench(me=1, **SMALL)
    hashes = _run(bench, K)
    bench.step(bench.attest(K, hashes[-1], 0), 0)
    bench.step(replace(bench.attest(K, hashes[-1], 2), signature=bytes(64)), 2)
    assert bench.fault_codes(2) == [FaultCode.BAD_SIGNATURE]
    assert bench.core.status().stable == 0
    bench.step(bench.attest(K, hashes[-1], 3), 3)
    assert bench.core.status().stable == K


def test_stable_moves_the_window_and_collects_what_is_below() -> None:
    """Section 10: slots, votes and bodies at or below h are gone; votes up to h + L are taken."""
    bench = Bench(me=1, **SMALL)
    hashes = _run(bench, K)
    far = bench.sign(Commit(0, bench.core.status().view, S(16 + K), bytes(32)), 2)
    bench.step(far, 2)
    assert bench.core._window.get(S(16 + K)) is None
    for peer in (0, 2):
        bench.step(bench.attest(K, hashes[-1], peer), peer)
    assert [bench.core._window.get(S(s)) for s in range(1, K + 1)] == [None] * K
    assert bench.core._order.block_of(S(1)) is None
    bench.step(far, 2)
    assert bench.core._window.get(S(16 + K)) is not None
    bench.step(bench.sign(Prepare(0, bench.core.status().view, S(1), bytes(32)), 2), 2)
    assert bench.core._window.get(S(1)) is None


def test_attestations_may_arrive_before_the_own_execution() -> None:
    bench = Bench(me=1, **SMALL)
    proposals = [bench.proposal(sequence) for sequence in range(1, K + 1)]
    hashes = bench.chain(proposals)
    for proposal in proposals:
        bench.step(proposal, 0)
    bench.step(bench.attest(K, hashes[-1], 0), 0)
    assert bench.core.status().last_committed == 0
    bench.step(bench.attest(K, hashes[-1], 2), 2)
    assert bench.core.status().last_executed == K, "adopted on w attestations, from accepted proposals"
    assert bench.core.status().stable == K


def test_watermark_waits_for_the_own_executor_within_a_window() -> None:
    """Section 10 e: a slow executor delays nobody else, and here no more than L bodies are kept."""
    bench = Bench(me=1, boot=False, **SMALL)
    for sequence in range(1, 33):
        proposal = bench.proposal(sequence)
        bench.decide(proposal)
        head = bench.core.status().order_hash
        for peer in (0, 2, 3):
            bench.step(bench.attest(sequence, head, peer), peer)
    status = bench.core.status()
    assert (status.stable, status.last_committed) == (16, 32)
    assert bench.core._order.block_of(S(1)) is not None
    bench.core.executed_through(S(0), bench.cluster.config_hash, None)
    bench.settle()
    assert bench.core.status().last_executed == 32
    assert bench.core.status().stable == 32
    assert bench.core._order.block_of(S(32)) is None


def test_two_attestations_of_one_sequence_are_evidence() -> None:
    bench = Bench(me=1, **SMALL)
    first, second = bench.attest(1, bytes(32), 2), bench.attest(1, b"x" * 32, 2)
    bench.step(first, 2)
    bench.step(first, 2)
    bench.step(second, 2)
    bench.step(second, 2)
    (fault,) = bench.faults
    assert (fault.code, fault.evidence) == (FaultCode.CONFLICTING_ATTESTATION, (first, second))


def test_other_state_after_the_same_order_is_reported() -> None:
    """Section 8: the same order hash and another block hash: non-determinism, or a liar."""
    bench = Bench(me=1, **SMALL)
    (head,) = _run(bench, 1)
    bench.step(bench.attest(1, head, 2, block=b"x" * 32), 2)
    assert bench.fault_codes(2) == [FaultCode.DIVERGED]
    later = Bench(me=1, **SMALL)
    later.step(later.attest(1, head, 2, block=b"x" * 32), 2)
    assert later.faults == []
    _run(later, 1)
    assert later.fault_codes(2) == [FaultCode.DIVERGED]
    assert not later.core.status().is_diverged, "one voice is no quorum"


def test_replica_refuted_by_a_quorum_stops_attesting_and_goes_on_voting() -> None:
    """Section 8: keep voting in agreement, which needs no state."""
    bench = Bench(me=1, **SMALL)
    hashes = _run(bench, K)
    for peer in (0, 2, 3):
        bench.step(bench.attest(K, hashes[-1], peer, block=b"x" * 32), peer)
    assert bench.core.status().is_diverged
    assert bench.fault_codes(1) == [FaultCode.DIVERGED]
    assert bench.core.status().stable == K, "the order is certified all the same"
    bench.forget()
    _run(bench, 1, first=K + 1)
    assert bench.said(Attest) == []
    assert len(bench.said(Commit)) == 1


def test_certified_other_order_stops_the_watermark() -> None:
    """A quorum for another order than the own one: more than f are faulty; stop attesting, move nothing."""
    bench = Bench(me=1, **SMALL)
    _run(bench, K)
    for peer in (0, 2, 3):
        bench.step(bench.attest(K, b"y" * 32, peer), peer)
    assert bench.core.status().is_diverged
    assert bench.core.status().stable == 0


def test_execution_that_repeats_differently_is_a_divergence() -> None:
    """Section 16: a replayed block must give the recorded hash."""
    bench = Bench(me=1, **SMALL)
    _run(bench, 1)
    bench.core.executed_through(S(0), bench.cluster.config_hash, None)
    bench.settle(execute=False)
    bench.core.executed(S(1), b"z" * 32, None, bench.now)
    bench.settle()
    assert bench.core.status().is_diverged
    assert len(bench.said(Attest)) == 1


def test_peer_asks_for_one_attestation() -> None:
    """Section 11: FETCH_ATTEST(seq)."""
    bench = Bench(me=1, **SMALL)
    _run(bench, 2)
    bench.forget()
    bench.step(FetchAttest(0, S(1)), 3)
    bench.step(FetchAttest(0, S(9)), 3)
    (outgoing,) = bench.sent
    assert isinstance(outgoing.message, Attest)
    assert (outgoing.to, outgoing.message.sequence, len(outgoing.message.signature)) == (3, 1, 64)


# Certificates ------------------------------------------------------------------------------------


def test_certificate_makes_stable_what_is_committed_here() -> None:
    bench = Bench(me=1, **SMALL)
    hashes = _run(bench, K)
    certificate = bench.certificate(K, hashes[-1], (0, 2, 3))
    bench.step(certificate, 2)
    assert bench.core.status().stable == K
    assert bench.recorded(Stable) == [Stable(certificate)]
    bench.checks = []
    bench.step(certificate, 2)
    assert bench.checks == [], "no news"


def test_certificate_of_f_plus_one_is_a_target_only() -> None:
    """Section 11: any verified certificate of w signatures says what to adopt; only q move the watermark."""
    bench = Bench(me=1, **SMALL)
    hashes = _run(bench, K)
    bench.step(bench.certificate(K, hashes[-1], (0, 2)), 2)
    assert bench.core.status().stable == 0
    ahead = bench.certificate(8, b"h" * 32, (0, 2))
    bench.step(ahead, 2)
    target = bench.core._checkpoints.target
    assert target is not None
    assert (target.sequence, target.order_hash) == (8, b"h" * 32)


def test_bad_certificates_are_refused() -> None:
    """faults.md 8: unique signers, of the cluster, every signature good (concord 84e6225f9)."""
    bench = Bench(me=1, **SMALL)
    sound = bench.certificate(8, b"h" * 32, (0, 2, 3))
    (zero, two, three) = sound.signatures
    for signatures, code in (
        ((zero, zero, zero), FaultCode.BAD_BYTES),
        ((two, zero), FaultCode.BAD_BYTES),
        (((R(9), zero[1]), (R(10), zero[1])), FaultCode.BAD_BYTES),
        ((zero, two, (R(3), two[1])), FaultCode.BAD_SIGNATURE),
    ):
        bench.step(replace(sound, signatures=signatures), 3)
        assert bench.fault_codes(3)[-1:] == [code]
    bench.step(replace(sound, epoch=4), 3)
    assert bench.fault_codes(3)[-1] is FaultCode.WRONG_EPOCH
    bench.checks = []
    bench.step(replace(sound, signatures=(three,)), 3)
    assert bench.checks == [], "fewer than w prove nothing"
    assert bench.core._checkpoints.target is None


def test_attestation_of_another_epoch_is_a_fault() -> None:
    bench = Bench(me=1, **SMALL)
    bench.step(replace(bench.attest(1, bytes(32), 2), epoch=3), 2)
    assert bench.fault_codes(2) == [FaultCode.WRONG_EPOCH]


def test_far_attestations_are_bounded_and_enter_with_the_window() -> None:
    """Invariant I9, and section 11: a replica far behind still learns what w peers executed."""
    bench = Bench(me=1, **SMALL)
    for sequence in range(100, 200):
        bench.step(bench.attest(sequence, b"q" * 32, 2), 2)
        bench.step(bench.attest(sequence, b"q" * 32, 2), 2)
    assert len(bench.core._checkpoints._far[2]) == 16
    assert bench.core._checkpoints.target is None
    bench.step(bench.attest(199, b"q" * 32, 3), 3)
    target = bench.core._checkpoints.target
    assert target is not None
    assert target.sequence == 199
    other = Bench(me=1, **SMALL)
    hashes = _run(other, K)
    other.step(other.attest(17, b"q" * 32, 2), 2)
    for peer in (0, 2):
        other.step(other.attest(K, hashes[-1], peer), peer)
    assert other.core._checkpoints._boxes[S(17)].attests[2] is not None
    assert not other.core._checkpoints._far[2]


def test_late_check_results_are_harmless() -> None:
    """The window may have moved while signatures were verified."""
    bench = Bench(me=1, **SMALL)
    proposals = [bench.proposal(sequence) for sequence in range(1, K + 1)]
    hashes = bench.chain(proposals)
    for proposal in proposals:
        bench.decide(proposal)
    bench.step(bench.attest(K, hashes[-1], 0), 0, verify=False)
    bench.step(bench.attest(K, hashes[-1], 2), 2, verify=False)
    (check,) = bench.checks[-1:]
    bench.step(bench.certificate(K, hashes[-1], (0, 2, 3)), 3)
    assert bench.core.status().stable == K
    bench.core.verified(check.token, b"\x01" * len(check.signatures), bench.now)
    bench.settle()
    assert len(bench.recorded(Stable)) == 1
    with pytest.raises(KeyError):
        bench.core.verified(check.token, b"\x01", bench.now)


def test_blocks_and_certificates_that_nobody_asked_for_change_nothing() -> None:
    bench = Bench(me=1, **SMALL)
    bench.step(FetchedBlocks(0, (ordered(bench.proposal()),)), 2)
    assert bench.core.status().last_committed == 0
    assert isinstance(bench.certificate(8, b"h" * 32, (0, 2)), AttestCertificate)
