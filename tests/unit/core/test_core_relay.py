"""What one replica may make others hold by FORWARD (docs/protocol.md section 4)."""

from __future__ import annotations

from core_harness import Bench, R, S

from nodes.core.messages import Forward
from nodes.core.pool import Pool
from nodes.core.relay import FORWARDED_MAX, FORWARDED_PER_S
from nodes.core.types import Request


def _forward(bench: Bench, requests: list[Request], sender: int) -> None:
    for first in range(0, len(requests), FORWARDED_MAX):
        bench.step(Forward(0, True, tuple(requests[first : first + FORWARDED_MAX])), sender)


def test_forward_waiting_requests_of_one_relay_are_bounded() -> None:
    """A backup with keys of its own cannot fill the pool, and costs no other relay its share."""
    bench = Bench(me=1)
    _forward(bench, [bench.request(100 + i) for i in range(200)], 3)
    assert bench.core.status().pool_count == FORWARDED_MAX
    _forward(bench, [bench.request(400 + i) for i in range(10)], 2)
    assert bench.core.status().pool_count == FORWARDED_MAX + 10
    assert bench.core.admit([bench.request(1)], bench.now).accepted


def test_forward_share_is_free_again_when_proposals_name_its_requests() -> None:
    bench = Bench(me=1)
    requests = [bench.request(100 + i) for i in range(FORWARDED_MAX + 1)]
    _forward(bench, requests, 3)
    bench.step(bench.proposal(1, requests[:10]), 0)
    bench.pass_time(100)
    _forward(bench, requests[FORWARDED_MAX:], 3)
    assert bench.core._pool.relayed_by(R(3)) == FORWARDED_MAX - 10 + 1


def test_forward_rate_is_bounded_however_fast_proposals_take_the_requests() -> None:
    bench = Bench(me=0, pipeline=8)
    requests = [bench.request(100 + i) for i in range(3 * FORWARDED_MAX)]
    _forward(bench, requests, 3)
    taken = len(bench.core._pool)
    assert taken == FORWARDED_MAX
    bench.pass_time(100)
    _forward(bench, requests, 3)
    assert len(bench.core._pool) - taken <= FORWARDED_PER_S // 10


def test_forward_known_requests_do_not_take_the_room_of_new_ones() -> None:
    bench = Bench(me=1)
    known = [bench.request(100 + i) for i in range(60)]
    bench.core.submit(known, bench.now)
    new = [bench.request(200 + i) for i in range(4)]
    _forward(bench, [*known, *new], 3)
    assert bench.core.status().pool_count == 64


def test_forward_brings_a_client_to_twice_its_quota_at_most() -> None:
    bench = Bench(me=1, client_requests_max=4)
    _forward(bench, [bench.request(1, sequence) for sequence in range(1, 11)], 2)
    _forward(bench, [bench.request(1, sequence) for sequence in range(11, 21)], 3)
    assert bench.core.status().pool_count == 8


def test_forwarded_requests_are_relayed_by_their_first_relay_only() -> None:
    """Else a liar would use up the shares that correct replicas have elsewhere."""
    bench = Bench(me=1)
    theirs, mine = bench.request(1), bench.request(2)
    _forward(bench, [theirs], 3)
    bench.core.submit([mine], bench.now)
    bench.pass_time(1100)
    assert bench.said(Forward) == [Forward(0, True, (mine,))]


def test_forwarded_request_that_its_client_sends_too_is_relayed() -> None:
    """Else a liar could keep a client's request from a primary that only this replica reaches."""
    bench = Bench(me=1)
    request = bench.request(1)
    _forward(bench, [request], 3)
    assert bench.core.admit([request], bench.now).known == (request,)
    assert bench.core._pool.relayed_by(R(3)) == 0
    bench.pass_time(1100)
    assert bench.said(Forward) == [Forward(0, True, (request,))]


def test_relayed_count_follows_every_way_out_of_the_pool() -> None:
    bench = Bench(me=1)
    pool = Pool(bench.options)
    lost, ordered, old = bench.request(1), bench.request(2), bench.request(3, valid_until_us=bench.wall_us + 1)
    pool.submit([lost, ordered, old], bench.now, R(3))
    assert pool.relayed_by(R(3)) == 3
    pool.proposed(S(1), (lost, ordered))
    assert pool.relayed_by(R(3)) == 1
    pool.ordered(S(1), (ordered,))
    assert pool.relayed_by(R(3)) == 2
    bench.wall_us += 2_000_000
    pool.expire(bench.now)
    assert pool.relayed_by(R(3)) == 1
