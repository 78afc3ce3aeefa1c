"""The state hash: SHAKE128 by hashlib as the known answer, order independence, parity."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def element(key, row):
    text = b"ROW\0\0\0\0\0" + len(key).to_bytes(4, "little") + key + len(row).to_bytes(4, "little") + row
    data = hashlib.shake_128(text).digest(2048)
    return [int.from_bytes(data[i : i + 2], "little") for i in range(0, 2048, 2)]


def vector_of(rows):
    lanes = [0] * 1024
    for key, row in rows:
        lanes = [(a + b) % 2**16 for a, b in zip(lanes, element(key, row), strict=True)]
    return b"".join(lane.to_bytes(2, "little") for lane in lanes)


def bucket_of(key, buckets):
    return int.from_bytes(hashlib.sha256(key).digest()[:2], "little") % buckets


@pytest.mark.parametrize("size", [0, 1, 100, 143, 144, 145, 151, 152, 153, 167, 168, 169, 320, 321, 5000])
def test_state_hash_vector_is_the_sum_of_shake128(build, size):
    # 8 + 4 + 1 + 4 + size bytes are absorbed: the sizes stand on both sides of the 168-byte rate.
    state = build.StateHash(1)
    state.update(b"k", None, bytes(size))
    state.update(b"l", None, b"other")
    assert state.vector(0) == vector_of([(b"k", bytes(size)), (b"l", b"other")])


@pytest.mark.parametrize("count", range(1, 21))
def test_state_hash_of_any_number_of_rows_at_once_is_the_sum(build, count):
    rows = [(bytes([i]), bytes([i]) * (i * 37 % 400)) for i in range(count)]
    state = build.StateHash(1)
    state.update_many([(key, None, row) for key, row in rows])
    assert state.vector(0) == vector_of(rows)


def test_state_hash_puts_a_row_in_the_bucket_of_its_key(build):
    rows = [(i.to_bytes(2, "big"), b"row") for i in range(300)]
    state = build.StateHash(256)
    state.update_many([(key, None, row) for key, row in rows])
    for bucket in range(256):
        expected = vector_of([(key, row) for key, row in rows if bucket_of(key, 256) == bucket])
        assert state.vector(bucket) == expected
        assert state.bucket_digest(bucket) == hashlib.sha256(expected).digest()
    leaves = [hashlib.sha256(b"\0" + state.bucket_digest(i)).digest() for i in range(256)]
    assert state.root() == build.merkle_root(leaves)


def test_state_hash_depends_on_the_rows_and_not_on_their_history(build):
    one, other = build.StateHash(16), build.StateHash(16)
    for i in range(40):
        one.update(bytes([i]), None, b"first")
    for i in range(40):
        one.update(bytes([i]), b"first", bytes([i]) if i % 2 else None)
    other.update_many([(bytes([i]), None, bytes([i])) for i in reversed(range(1, 40, 2))])
    assert one.root() == other.root()
    assert all(one.vector(i) == other.vector(i) for i in range(16))
    other.update(b"\1", b"\1", b"\2")
    assert one.root() != other.root()


def test_state_hash_root_follows_every_update(build):
    state = build.StateHash(4)
    empty = state.root()
    state.update(b"key", None, b"row")
    full = state.root()
    assert full != empty
    state.update(b"key", b"row", b"row")
    state.update(b"key", None, None)
    assert state.root() == full
    state.update(b"key", b"row", None)
    assert state.root() == empty


def test_state_hash_load_restores_a_vector(build):
    state, copy = build.StateHash(8), build.StateHash(8)
    state.update_many([(bytes([i]), None, bytes(i)) for i in range(50)])
    copy.root()
    for i in range(8):
        copy.load(i, state.vector(i))
    assert copy.root() == state.root()


def test_state_hash_separates_key_and_row(build):
    one, other = build.StateHash(1), build.StateHash(1)
    one.update(b"ab", None, b"c")
    other.update(b"a", None, b"bc")
    assert one.root() != other.root()


@pytest.mark.parametrize("buckets", [0, -1, 2**16 + 1, 2**70])
def test_state_hash_of_a_bad_number_of_buckets_is_refused(build, buckets):
    with pytest.raises(ValueError):
        build.StateHash(buckets)


def test_state_hash_refuses_unknown_buckets_and_bad_vectors(build):
    state = build.StateHash(4)
    for i in (-1, 4, 2**70):
        for call in (state.vector, state.bucket_digest, lambda i: state.load(i, bytes(2048))):
            with pytest.raises(ValueError):
                call(i)
    for size in (0, 2047, 2049):
        with pytest.raises(ValueError):
            state.load(0, bytes(size))


def test_state_hash_update_many_does_all_or_nothing(build):
    state = build.StateHash(2)
    before = state.root()
    for bad in (("key", None, b""), (b"key", None, 5), (b"key", None)):
        with pytest.raises((TypeError, ValueError)):
            state.update_many([(b"good", None, b"row"), bad])
        assert state.root() == before


ROW = st.none() | st.binary(max_size=350)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 5), st.lists(st.tuples(st.binary(max_size=4), ROW, ROW), max_size=12))
def test_state_hash_parity_holds(same, buckets, changes):
    def run(build):
        at_once, one_by_one = build.StateHash(buckets), build.StateHash(buckets)
        at_once.update_many(changes)
        for change in changes:
            one_by_one.update(*change)
        assert at_once.root() == one_by_one.root()
        return at_once.root(), [at_once.vector(i) for i in range(buckets)]

    same(run)
