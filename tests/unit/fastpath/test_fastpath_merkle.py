"""Hashes and Merkle trees: known answers by naive recursion, parity, and what a path may not do."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def naive_root(leaves):
    """RFC 6962, section 2.1, word for word, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(leaves, m):
    """RFC 6962, section 2.1.1."""
    if len(leaves) <= 1:
        return b""
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m < k:
        return naive_path(leaves[:k], m) + naive_root(leaves[k:])
    return naive_path(leaves[k:], m - k) + naive_root(leaves[:k])


def make_leaves(count):
    return [hashlib.sha256(b"\0" + i.to_bytes(4, "big")).digest() for i in range(count)]


def test_sha256_known_answer_holds(build):
    assert build.sha256(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    for size in range(200):
        assert build.sha256(bytes(size)) == hashlib.sha256(bytes(size)).digest()


def test_tagged_hash_pads_the_tag_to_eight_bytes(build):
    assert build.tagged_hash(b"REQ", b"a", b"", bytearray(b"b")) == hashlib.sha256(b"REQ\0\0\0\0\0ab").digest()
    assert build.tagged_hash(b"12345678") == hashlib.sha256(b"12345678").digest()


@pytest.mark.parametrize("tag", [b"", b"123456789"])
def test_tagged_hash_of_a_bad_tag_is_refused(build, tag):
    with pytest.raises(ValueError):
        build.tagged_hash(tag, b"x")


def test_leaf_hash_has_the_leaf_prefix(build):
    assert build.leaf_hash(b"x") == hashlib.sha256(b"\0x").digest()


def test_merkle_root_of_reference_leaves_is_known(build):
    # The eight leaves that the certificate transparency implementations test with.
    inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
    leaves = [build.leaf_hash(bytes.fromhex(text)) for text in inputs]
    assert build.merkle_root(leaves[:1]).hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert build.merkle_root(leaves).hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"


@pytest.mark.parametrize("count", [*range(34), 63, 64, 65, 100, 257, 1024])
def test_merkle_trees_equal_the_recursion_of_the_rfc(build, count):
    leaves = make_leaves(count)
    root = naive_root(leaves)
    assert build.merkle_root(leaves) == root
    indices = list(range(0, count, max(1, count // 40)))
    paths = build.merkle_paths(leaves, indices)
    for index, path in zip(indices, paths, strict=True):
        assert path == naive_path(leaves, index) == build.merkle_path(leaves, index)
        assert build.merkle_fold(leaves[index], index, count, path) == root


def test_merkle_fold_of_a_changed_leaf_index_or_path_does_not_reach_the_root(build):
    leaves = make_leaves(13)
    root = build.merkle_root(leaves)
    for index in range(13):
        path = build.merkle_path(leaves, index)
        assert build.merkle_fold(leaves[index - 1], index, 13, path) != root
        for position in range(len(path)):
            changed = path[:position] + bytes([path[position] ^ 1]) + path[position + 1 :]
            assert build.merkle_fold(leaves[index], index, 13, changed) != root
        for other in range(13):
            if other != index and len(build.merkle_path(leaves, other)) == len(path):
                assert build.merkle_fold(leaves[index], other, 13, path) != root


def test_merkle_fold_refuses_a_path_of_another_length(build):
    leaves = make_leaves(13)
    path = build.merkle_path(leaves, 5)
    for wrong in (b"", path[:-1], path[:-32], path + b"x", path + bytes(32)):
        with pytest.raises(ValueError):
            build.merkle_fold(leaves[5], 5, 13, wrong)


def test_merkle_fold_refuses_a_node_in_the_place_of_a_leaf(build):
    leaves = make_leaves(8)
    node = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
    with pytest.raises(ValueError):
        build.merkle_fold(node, 0, 8, build.merkle_path(leaves, 0)[32:])


@pytest.mark.parametrize(("index", "count"), [(0, 0), (1, 1), (13, 13), (-1, 13), (0, 2**32), (2**40, 2**41)])
def test_merkle_fold_refuses_an_index_outside_the_tree(build, index, count):
    with pytest.raises(ValueError):
        build.merkle_fold(bytes(32), index, count, b"")


def test_merkle_paths_refuse_an_index_outside_the_tree(build):
    for index in (-1, 3, 2**70, -(2**70)):
        with pytest.raises(ValueError):
            build.merkle_path(make_leaves(3), index)
    with pytest.raises(ValueError):
        build.merkle_path([], 0)
    assert build.merkle_paths([], []) == []


def test_merkle_root_does_not_change_its_input(build):
    leaves = make_leaves(5)
    before = [bytes(bytearray(leaf)) for leaf in leaves]
    build.merkle_root(leaves)
    build.merkle_paths(leaves, range(5))
    assert leaves == before


@pytest.mark.parametrize("leaf", [b"", bytes(31), bytes(33)])
def test_merkle_refuses_a_leaf_that_is_no_hash(build, leaf):
    for call in (
        lambda: build.merkle_root([bytes(32), leaf]),
        lambda: build.merkle_paths([leaf], [0]),
        lambda: build.merkle_fold(leaf, 0, 1, b""),
    ):
        with pytest.raises(ValueError):
            call()


def test_buffers_of_any_bytes_like_kind_are_read(build):
    text = bytes(range(64))
    for buffer in (bytearray(text), memoryview(text), memoryview(b"x" + text)[1:], memoryview(text).cast("I")):
        assert build.sha256(buffer) == hashlib.sha256(text).digest()


@pytest.mark.parametrize("wrong", ["text", 5, None, [1, 2]])
def test_hashing_what_is_not_bytes_is_a_type_error(build, wrong):
    with pytest.raises(TypeError):
        build.sha256(wrong)
    with pytest.raises(TypeError):
        build.tagged_hash(b"X", wrong)


def test_a_buffer_with_gaps_is_refused(build):
    with pytest.raises(BufferError):
        build.sha256(memoryview(bytes(8))[::2])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_merkle_parity_holds(same, data):
    count = data.draw(st.integers(0, 70))
    leaves = make_leaves(count)
    index = data.draw(st.integers(-2, count + 2))
    claimed = data.draw(st.integers(0, 2**33))
    path = data.draw(st.binary(max_size=34 * 32))
    same(lambda build: build.merkle_root(leaves))
    same(lambda build: build.merkle_path(leaves, index))
    same(lambda build: build.merkle_fold(bytes(32), index, claimed, path))
    same(lambda build: build.merkle_fold(bytes(32), index, claimed, path[: len(path) // 32 * 32]))


@settings(max_examples=60, deadline=None)
@given(tag=st.binary(max_size=10), parts=st.lists(st.binary(max_size=200), max_size=5))
def test_hash_parity_holds(same, tag, parts):
    same(lambda build: build.tagged_hash(tag, *parts))
    same(lambda build: build.leaf_hash(b"".join(parts)))
