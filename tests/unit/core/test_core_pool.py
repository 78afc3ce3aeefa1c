"""The pool: admission, fairness, bounds (docs/protocol.md sections 4 and 5)."""

from __future__ import annotations

from dataclasses import replace

from core_harness import Bench, S
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.core.pool import Pool, Refusal
from nodes.core.types import Now, Request


def _bench(**options: object) -> tuple[Bench, Pool]:
    bench = Bench(**options)  # type: ignore[arg-type]
    return bench, Pool(bench.options)


def test_admission_sorts_new_known_and_refused() -> None:
    """Section 4: the caller learns about each request, so that nothing is dropped silently."""
    bench, pool = _bench()
    new, waiting, old = bench.request(1), bench.request(2), bench.request(3, valid_until_us=bench.wall_us - 1_000_001)
    far = bench.request(4, valid_until_us=bench.wall_us + 601_000_001)
    pool.submit([waiting], bench.now)
    admission = pool.admit([new, waiting, old, far, new], bench.now)
    assert admission.accepted == (new,)
    assert admission.known == (waiting, new)
    assert [(refused.request, refused.reason) for refused in admission.refused] == [
        (old, Refusal.EXPIRED),
        (far, Refusal.TOO_FAR_AHEAD),
    ]


def test_admission_holds_a_client_to_its_quota() -> None:
    """Section 4: at most 64 outstanding requests a client, proposed ones included."""
    bench, pool = _bench(client_requests_max=3)
    mine = [bench.request(1, sequence) for sequence in range(1, 6)]
    admission = pool.admit(mine, bench.now)
    assert admission.accepted == tuple(mine[:3])
    assert {refused.reason for refused in admission.refused} == {Refusal.CLIENT_QUOTA}
    pool.submit(mine[:3], bench.now)
    pool.proposed(S(1), tuple(mine[:2]))
    assert not pool.admit(mine[3:], bench.now).accepted
    assert pool.admit([bench.request(2)], bench.now).accepted


def test_relayed_requests_pass_the_quota() -> None:
    """Section 4, trap 435333bb: a client must not make the primary drop what its followers wait for."""
    bench, pool = _bench(client_requests_max=1)
    pool.submit([bench.request(1, 1)], bench.now)
    late = bench.request(1, 2)
    assert not pool.admit([late], bench.now).accepted
    assert pool.admit([late], bench.now, relayed=True).accepted == (late,)


def test_one_operation_is_held_once_whatever_its_signature() -> None:
    """Section 6: no batch holds a digest twice; the digest does not cover the signature."""
    bench, pool = _bench()
    request = bench.request()
    twin = bench.forged(request)
    assert (twin.digest, twin.leaf != request.leaf) == (request.digest, True)
    pool.submit([request, twin], bench.now)
    assert len(pool) == 1
    assert pool.is_verified(request.leaf)
    assert not pool.is_verified(twin.leaf)


def test_clients_take_turns_and_keep_their_order() -> None:
    """Section 5, pop_fair: round robin over client keys, FIFO by (session, sequence)."""
    bench, pool = _bench()
    first = [bench.request(1, sequence) for sequence in (3, 1, 2)]
    second = [bench.request(2, sequence) for sequence in (1, 2)]
    newer_session = bench.request(2, 1, session=2)
    pool.submit([*first, newer_session, *second], bench.now)
    popped = pool.pop_fair(bench.wall_us, 1024, 1 << 20)
    turns = [(request.client == first[0].client, request.session, request.sequence) for request in popped]
    assert turns == [(True, 1, 1), (False, 1, 1), (True, 1, 2), (False, 1, 2), (True, 1, 3), (False, 2, 1)]


def test_whose_turn_it_is_survives_a_batch() -> None:
    bench, pool = _bench()
    requests = {client: bench.request(client) for client in (1, 2, 3)}
    pool.submit(requests.values(), bench.now)
    popped = pool.pop_fair(bench.wall_us, 1, 1 << 20)
    assert popped == (requests[1],)
    pool.proposed(S(1), popped)
    again = bench.request(1, 2)
    pool.submit([again], bench.now)
    assert pool.pop_fair(bench.wall_us, 3, 1 << 20) == (requests[2], requests[3], again)


def test_batches_respect_bytes_and_time() -> None:
    """Section 3, rule 4: batch.ts <= valid_until <= batch.ts + MAX_VALIDITY; S_MAX bytes."""
    bench, pool = _bench()
    big, small = bench.request(1, operation=bytes(900)), bench.request(2)
    over = bench.request(3, valid_until_us=bench.wall_us - 10)
    early = bench.request(4, valid_until_us=bench.wall_us + 600_000_010)
    pool.submit([big, small, over, early], bench.now)
    assert pool.pop_fair(bench.wall_us, 9, 500) == (small,)
    assert len(pool) == 3, "what has expired leaves the pool"
    assert pool.pop_fair(bench.wall_us + 20, 9, 5000) == (big, early, small), "who had to wait is first"


def test_full_pool_drops_from_the_largest_holder() -> None:
    """Section 4: longest-queue-drop; a client below its share loses nothing."""
    bench, pool = _bench(pool_requests_max=4)
    greedy = [bench.request(1, sequence) for sequence in range(1, 5)]
    modest = bench.request(2)
    assert pool.submit(greedy, bench.now) == ()
    refused = pool.admit([bench.request(1, 5)], bench.now).refused
    assert [entry.reason for entry in refused] == [Refusal.POOL_FULL]
    assert pool.admit([modest], bench.now).accepted == (modest,)
    assert pool.submit([modest], bench.now) == (greedy[3],)
    assert pool.submit([bench.request(1, 9)], bench.now) == (bench.request(1, 9),)
    assert len(pool) == 4


def test_full_pool_counts_bytes_too() -> None:
    bench, pool = _bench(pool_bytes_max=1000)
    large = bench.request(1, operation=bytes(700))
    assert pool.submit([large], bench.now) == ()
    second = bench.request(2, operation=bytes(200))
    assert pool.submit([second], bench.now) == (second,)
    assert pool.admit([second], bench.now).refused[0].reason is Refusal.POOL_FULL


def test_ordered_requests_leave_tombstones_for_two_windows() -> None:
    """Section 6, trap g: a copy that arrives after its own decision is known, not new."""
    bench, pool = _bench(window=128)
    request = bench.request()
    pool.submit([request], bench.now)
    pool.proposed(S(1), (request,))
    pool.ordered(S(1), (request,))
    assert len(pool) == 0
    for sequence in range(2, 258):
        assert pool.admit([request], bench.now).known == (request,)
        pool.ordered(S(sequence), ())
    assert pool.admit([request], bench.now).accepted == (request,)


def test_proposed_requests_are_known_even_if_they_never_arrived() -> None:
    bench, pool = _bench()
    request = bench.request()
    pool.proposed(S(1), (request,))
    assert pool.admit([request], bench.now).known == (request,)
    assert pool.submit([request], bench.now) == ()
    assert len(pool) == 0


def test_requests_of_a_proposal_that_lost_wait_again() -> None:
    """Section 4 (fabric#1485): what was proposed and not ordered goes back to PENDING."""
    bench, pool = _bench()
    lost, won, unseen = bench.request(1), bench.request(2), bench.request(3)
    pool.submit([lost, won], bench.now)
    pool.proposed(S(1), (lost, won, unseen))
    assert pool.ready_count == 0
    pool.ordered(S(1), (won,))
    assert pool.pop_fair(bench.wall_us, 9, 1 << 20) == (lost,)
    assert pool.admit([unseen], bench.now).accepted == (unseen,)


def test_overdue_requests_are_relayed_once_in_a_while() -> None:
    """Section 4: not proposed for T_FWD: sent on, and again only after as long."""
    bench, pool = _bench()
    old, young = bench.request(1), bench.request(2)
    pool.submit([old], bench.now)
    later = Now(bench.us + 500_000, bench.wall_us)
    pool.submit([young], later)
    assert pool.overdue(later, 64) == ()
    due = Now(bench.us + 800_000, bench.wall_us)
    assert pool.overdue(due, 64) == (old,)
    assert pool.overdue(due, 64) == ()
    assert pool.overdue(Now(bench.us + 1_700_000, bench.wall_us), 64) == (old, young)


def test_expired_requests_leave_the_pool() -> None:
    bench, pool = _bench()
    request = bench.request(valid_until_us=bench.wall_us + 10)
    pool.submit([request], bench.now)
    pool.expire(Now(bench.us, bench.wall_us + 1_000_000))
    assert len(pool) == 1
    pool.expire(Now(bench.us, bench.wall_us + 1_000_011))
    assert (len(pool), pool.ready_count, pool.ready_bytes, pool.oldest_ready_us()) == (0, 0, 0, None)


def test_arrival_record_does_not_grow_behind_one_old_request() -> None:
    """Invariant I9: everything has a bound."""
    bench, pool = _bench()
    pool.submit([bench.request(1)], bench.now)
    for sequence in range(1, 1200):
        request = bench.request(2, sequence)
        pool.submit([request], bench.now)
        pool.ordered(S(sequence), (request,))
    assert len(pool._arrivals) <= 1027
    assert pool.oldest_ready_us() == bench.us


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 12), st.integers(0, 3)), max_size=60))
def test_pool_accounts_for_every_request(actions: list[tuple[int, int, int]]) -> None:
    """Counts, bytes and the sets of ready requests agree whatever is done in whatever order."""
    bench = Bench(boot=False)
    pool = Pool(replace(bench.options, pool_requests_max=10, client_requests_max=6))
    sequence = 0
    pending: dict[bytes, Request] = {}
    for client, number, action in actions:
        request = bench.request(client, number)
        if action < 2:
            dropped = pool.submit([request], bench.now)
            if not pool.is_verified(request.leaf):
                assert request in dropped or pool.admit([request], bench.now).known
            pending[request.leaf] = request
        else:
            sequence += 1
            popped = pool.pop_fair(bench.wall_us, number, 1 << 20)
            assert len({r.digest for r in popped}) == len(popped)
            pool.proposed(S(sequence), popped)
            pool.ordered(S(sequence), popped[: len(popped) // 2] if action == 2 else popped)
        held = [r for r in pending.values() if pool.is_verified(r.leaf)]
        assert len(held) == len(pool) <= 10
        assert pool.ready_count <= len(pool)
        taken = pool.pop_fair(bench.wall_us, 1000, 1 << 20)
        assert len(taken) == pool.ready_count
        assert sum(len(r.record) for r in taken) == pool.ready_bytes
