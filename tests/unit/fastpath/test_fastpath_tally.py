"""Votes: the first of each sender counts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

A, B = bytes(32), b"\1" * 32


def test_tally_counts_the_first_vote_of_each_sender(build):
    tally = build.Tally(4)
    assert [tally.add(2, A), tally.add(0, A), tally.add(1, B), tally.add(3, A)] == [1, 2, 1, 3]
    assert tally.add(2, A) == 0
    assert tally.add(2, B) == -1
    assert tally.add(1, A) == -1
    assert (tally.count(A), tally.count(B), tally.count(b"\2" * 32)) == (3, 1, 0)
    assert tally.voters(A) == [0, 2, 3]
    assert tally.voters(b"\2" * 32) == []
    assert (tally.vote_of(1), tally.vote_of(0)) == (B, A)


def test_tally_starts_empty_and_does_not_take_zeros_for_a_vote(build):
    tally = build.Tally(3)
    assert tally.count(bytes(32)) == 0
    assert tally.voters(bytes(32)) == []
    assert tally.vote_of(0) is None


def test_tally_keeps_its_own_copy_of_a_digest(build):
    digest = bytearray(32)
    tally = build.Tally(1)
    tally.add(0, digest)
    digest[0] = 9
    assert tally.vote_of(0) == bytes(32)


@pytest.mark.parametrize("senders", [0, -1, 2**16, 2**70])
def test_tally_of_a_bad_number_of_senders_is_refused(build, senders):
    with pytest.raises(ValueError):
        build.Tally(senders)


def test_tally_refuses_unknown_senders_and_bad_digests(build):
    tally = build.Tally(4)
    for sender in (-1, 4, 2**70):
        with pytest.raises(ValueError):
            tally.add(sender, A)
        with pytest.raises(ValueError):
            tally.vote_of(sender)
    for digest in (b"", bytes(31), bytes(33)):
        for call in (lambda d: tally.add(0, d), tally.count, tally.voters):
            with pytest.raises(ValueError):
                call(digest)
    assert tally.vote_of(0) is None


def test_kth_largest_counts_from_one_and_counts_equal_values(build):
    values = [5, 9, 9, 2]
    assert [build.kth_largest(values, k) for k in (1, 2, 3, 4)] == [9, 9, 5, 2]
    assert values == [5, 9, 9, 2]
    for k in (0, 5, -1):
        with pytest.raises(ValueError):
            build.kth_largest(values, k)
    with pytest.raises(ValueError):
        build.kth_largest([], 1)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 7), st.sampled_from([A, B, b"\2" * 32, b"short"])), max_size=30))
def test_tally_parity_holds(same, votes):
    def run(build):
        tally = build.Tally(7)
        trace = []
        for sender, digest in votes:
            try:
                trace.append(tally.add(sender, digest))
            except ValueError:
                trace.append("refused")
        return trace, [tally.vote_of(i) for i in range(7)], tally.voters(A), tally.count(B)

    same(run)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(-(2**70), 2**70), max_size=14), st.integers(-1, 15))
def test_kth_largest_parity_holds(same, values, k):
    same(lambda build: build.kth_largest(values, k))
