"""When the primary proposes, and what (docs/protocol.md section 5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_harness import Bench, S

from nodes.core.batching import BatchPolicy, Decision, Load
from nodes.core.messages import PrePrepare
from nodes.core.types import BatchKind, Now

NOW = Now(1_000_000, 1_800_000_000_000_000)
IDLE = Load(
    ready_count=1,
    ready_bytes=200,
    oldest_ready_us=NOW.monotonic_us,
    next_sequence=S(1),
    last_committed=S(0),
    last_executed=S(0),
    top=S(256),
    next_timer_us=None,
)


@pytest.fixture
def policy() -> BatchPolicy:
    return BatchPolicy(Bench(me=0, boot=False).options)


def test_idle_primary_proposes_at_once(policy: BatchPolicy) -> None:
    assert policy.decide(IDLE, NOW) is Decision.PROPOSE


def test_idle_blocks_are_spaced(policy: BatchPolicy) -> None:
    """G: an isolated request goes at once, a drizzle is collected."""
    policy.proposed(S(1), Now(NOW.monotonic_us - 500, NOW.wall_us))
    load = replace(IDLE, next_sequence=S(2), last_committed=S(1), last_executed=S(1))
    assert policy.decide(load, NOW) is Decision.WAIT
    assert policy.wake_us == NOW.monotonic_us + 1000
    assert policy.decide(load, Now(NOW.monotonic_us + 1500, NOW.wall_us)) is Decision.PROPOSE


def test_with_a_block_in_flight_requests_wait_for_company(policy: BatchPolicy) -> None:
    """N_NEXT about 24, or the age D."""
    flying = replace(IDLE, next_sequence=S(2))
    assert policy.decide(flying, NOW) is Decision.WAIT
    assert policy.wake_us == NOW.monotonic_us + 1000
    assert policy.decide(replace(flying, ready_count=24), NOW) is Decision.PROPOSE
    assert policy.decide(replace(flying, ready_bytes=1 << 20), NOW) is Decision.PROPOSE
    assert policy.decide(flying, Now(NOW.monotonic_us + 1000, NOW.wall_us)) is Decision.PROPOSE


def test_pipeline_window_and_executor_bound_the_primary(policy: BatchPolicy) -> None:
    """W uncommitted proposals, h + L, and W + E_LAG blocks ahead of the own executor."""
    many = replace(IDLE, ready_count=1000)
    assert policy.decide(replace(many, next_sequence=S(3)), NOW) is Decision.WAIT
    assert policy.decide(replace(many, next_sequence=S(257), last_committed=S(256)), NOW) is Decision.WAIT
    behind = replace(many, next_sequence=S(9), last_committed=S(8))
    assert policy.decide(behind, NOW) is Decision.WAIT
    assert policy.decide(replace(behind, last_executed=S(1)), NOW) is Decision.PROPOSE


def test_due_timer_makes_a_block_even_without_requests(policy: BatchPolicy) -> None:
    """Section 9.5: the primary proposes a TICK when the application's deadline has come."""
    empty = replace(IDLE, ready_count=0, ready_bytes=0, oldest_ready_us=None, next_timer_us=NOW.wall_us + 5000)
    assert policy.decide(empty, NOW) is Decision.WAIT
    assert policy.wake_us == NOW.monotonic_us + 5000
    assert policy.decide(empty, Now(NOW.monotonic_us, NOW.wall_us + 5000)) is Decision.TICK
    due = replace(IDLE, next_sequence=S(2), next_timer_us=NOW.wall_us)
    assert policy.decide(due, NOW) is Decision.PROPOSE
    assert policy.decide(replace(empty, next_timer_us=None), NOW) is Decision.WAIT


def test_batch_size_follows_the_executor(policy: BatchPolicy) -> None:
    """B = clamp(T_EXEC / time of one request, 16, 1024)."""
    assert policy.requests_max == 1024
    policy.handed_over(S(1), 10, NOW)
    policy.executed(S(1), Now(NOW.monotonic_us + 2000, NOW.wall_us))
    assert policy.requests_max == 200
    for sequence in range(2, 40):
        policy.handed_over(S(sequence), 1, NOW)
        policy.executed(S(sequence), Now(NOW.monotonic_us + 1_000_000, NOW.wall_us))
    assert policy.requests_max == 16


def test_batch_size_never_passes_the_configured_limit() -> None:
    """Seed 6: the lower clamp may not raise it over the validity rule."""
    policy = BatchPolicy(Bench(me=0, boot=False, batch_requests_max=2).options)
    policy.handed_over(S(1), 1, NOW)
    policy.executed(S(1), Now(NOW.monotonic_us + 5_000_000, NOW.wall_us))
    assert policy.requests_max == 2


def test_executor_works_on_one_block_at_a_time(policy: BatchPolicy) -> None:
    policy.handed_over(S(1), 1, NOW)
    policy.handed_over(S(2), 1, NOW)
    policy.executed(S(1), Now(NOW.monotonic_us + 400, NOW.wall_us))
    policy.executed(S(2), Now(NOW.monotonic_us + 800, NOW.wall_us))
    assert policy.requests_max == 100
    policy.handed_over(S(3), 1, NOW)
    policy.executor_restarted()
    policy.executed(S(3), Now(NOW.monotonic_us + 9_000_000, NOW.wall_us))
    assert policy.requests_max == 100


def test_delay_follows_the_commit_latency(policy: BatchPolicy) -> None:
    """D = clamp(EWMA(commit latency) / 2, 1 ms, 10 ms)."""
    assert policy.delay_us == 1000
    policy.proposed(S(1), NOW)
    policy.committed(S(1), Now(NOW.monotonic_us + 8000, NOW.wall_us))
    assert policy.delay_us == 4000
    policy.proposed(S(2), NOW)
    policy.committed(S(2), Now(NOW.monotonic_us + 900_000, NOW.wall_us))
    assert policy.delay_us == 10_000


# Through the core --------------------------------------------------------------------------------


def test_primary_proposes_what_was_submitted() -> None:
    bench = Bench(me=0)
    requests = [bench.request(client) for client in range(3)]
    assert bench.core.admit(requests, bench.now).accepted == tuple(requests)
    bench.core.submit(requests, bench.now)
    bench.settle()
    (proposal,) = bench.said(PrePrepare)
    assert proposal.requests == tuple(requests)
    assert proposal.batch.timestamp_us == bench.wall_us
    assert proposal.batch.kind is BatchKind.NORMAL


def test_followers_propose_nothing() -> None:
    bench = Bench(me=1)
    bench.core.submit([bench.request()], bench.now)
    bench.settle()
    assert bench.said(PrePrepare) == []


def test_pipeline_of_two_is_filled_and_then_waits() -> None:
    bench = Bench(me=0)
    for batch in range(3):
        bench.core.submit([bench.request(client, batch + 1) for client in range(30)], bench.now)
    bench.settle()
    assert [p.batch.sequence for p in bench.said(PrePrepare)] == [1, 2]
    assert bench.core.status().next_sequence == 3


def test_tick_is_proposed_once_for_one_deadline() -> None:
    """Section 9.5; while the block that serves it is not executed, no second one is made."""
    bench = Bench(me=0)
    bench.core.executed_through(S(0), bench.cluster.config_hash, bench.wall_us + 50_000)
    bench.pass_time(40)
    assert bench.said(PrePrepare) == []
    bench.pass_time(300, execute=False)
    (tick,) = bench.said(PrePrepare)
    assert (tick.batch.kind, tick.requests) == (BatchKind.TICK, ())
    bench.decide(tick)
    bench.pass_time(300)
    assert len(bench.said(PrePrepare, None)) == 1


def test_deadline_of_the_core_is_that_of_the_timer() -> None:
    bench = Bench(me=0)
    bench.pass_time(20)
    bench.core.executed_through(S(0), bench.cluster.config_hash, bench.wall_us + 70_000)
    bench.core.tick(bench.now)
    assert bench.core.ready().deadline_us == bench.us + 70_000


def test_expired_requests_make_no_batch() -> None:
    bench = Bench(me=0)
    blocked = [bench.request(9, number) for number in (1, 2)]
    bench.core.submit(blocked, bench.now)
    bench.settle(persist=False)
    bench.core.submit([bench.request(1, valid_until_us=bench.wall_us + 1)], bench.now)
    bench.wall_us += 10
    bench.us += 10_000
    bench.core.tick(bench.now)
    bench.settle()
    assert [len(p.requests) for p in bench.said(PrePrepare)] == [2]
