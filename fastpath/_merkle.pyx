"""Hashes and Merkle trees of the shape of RFC 6962 (see `_py`, the specification)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from fastpath._sodium cimport as_bytes, as_unsigned, new_bytes, sha256_of, sized

import operator

cdef enum:
    HASH = 32


cdef inline uint8_t* octets(bytes data) noexcept:
    return <uint8_t*>PyBytes_AS_STRING(data)


cdef inline void hash_node(uint8_t* out, const uint8_t* left, const uint8_t* right) noexcept nogil:
    cdef uint8_t node[1 + 2 * HASH]
    node[0] = 1
    memcpy(node + 1, left, HASH)
    memcpy(node + 1 + HASH, right, HASH)
    sha256_of(out, node, 1 + 2 * HASH)


cdef void hash_level(uint8_t* above, const uint8_t* level, size_t count) noexcept nogil:
    """Pairs neighbours, lifts an odd last one unchanged. `above` may be `level`."""
    cdef size_t i
    for i in range(count // 2):
        hash_node(above + HASH * i, level + 2 * HASH * i, level + 2 * HASH * i + HASH)
    if count % 2:
        memcpy(above + HASH * (count // 2), level + HASH * (count - 1), HASH)


cdef void root_in_place(uint8_t* nodes, size_t count, uint8_t* out) noexcept nogil:
    if count == 0:
        sha256_of(out, <const uint8_t*>"", 0)
        return
    while count > 1:
        hash_level(nodes, nodes, count)
        count = count // 2 + count % 2
    memcpy(out, nodes, HASH)


cdef bytes joined_hashes(object hashes, str what):
    cdef tuple items = tuple(hashes)
    cdef Py_ssize_t count = len(items), i
    cdef bytes joined = new_bytes(HASH * count)
    cdef bytes item
    for i in range(count):
        item = sized(items[i], HASH, what)
        memcpy(octets(joined) + HASH * i, octets(item), HASH)
    return joined


def sha256(data):
    """SHA-256 (FIPS 180-4), 32 bytes."""
    cdef bytes text = as_bytes(data), out = new_bytes(HASH)
    sha256_of(octets(out), octets(text), PyBytes_GET_SIZE(text))
    return out


def tagged_hash(tag, *parts):
    """H(tag padded to 8 bytes || parts). ValueError for a tag of 0 or more than 8 bytes."""
    cdef bytes name = as_bytes(tag), text, out = new_bytes(HASH)
    if not 1 <= PyBytes_GET_SIZE(name) <= 8:
        raise ValueError("a tag is 1 to 8 bytes")
    cdef list pieces = [name, b"\0\0\0\0\0\0\0\0"[PyBytes_GET_SIZE(name):]]
    for part in parts:
        pieces.append(as_bytes(part))
    text = b"".join(pieces)
    sha256_of(octets(out), octets(text), PyBytes_GET_SIZE(text))
    return out


def leaf_hash(data):
    """H(0x00 || data): the leaf hash of RFC 6962, section 2.1."""
    cdef bytes text = b"\0" + as_bytes(data), out = new_bytes(HASH)
    sha256_of(octets(out), octets(text), PyBytes_GET_SIZE(text))
    return out


def merkle_root(leaves):
    """Root over 32-byte leaf hashes; H("") for none."""
    cdef bytes nodes = joined_hashes(leaves, "leaf"), out = new_bytes(HASH)
    # With the GIL: a batch is at most a few hundred microseconds, letting go may cost a wait of milliseconds.
    root_in_place(octets(nodes), PyBytes_GET_SIZE(nodes) // HASH, octets(out))
    return out


def merkle_path(leaves, index):
    """Audit path of leaf `index` (RFC 6962, section 2.1.1): the siblings bottom-up, concatenated."""
    return merkle_paths(leaves, (index,))[0]


def merkle_paths(leaves, indices):
    """The audit paths of several leaves; the tree is hashed once."""
    cdef bytes bottom = joined_hashes(leaves, "leaf")
    cdef size_t count = PyBytes_GET_SIZE(bottom) // HASH, width, level
    # A level is half the one below, rounded up: all of them together are below 2 * count + 64.
    cdef bytes tree = new_bytes(HASH * (2 * count + 64))
    cdef uint8_t* nodes = octets(tree)
    cdef size_t starts[65]
    cdef size_t widths[65]
    cdef size_t depth = 1
    memcpy(nodes, octets(bottom), HASH * count)
    starts[0] = 0
    widths[0] = count
    while widths[depth - 1] > 1:
        width = widths[depth - 1]
        starts[depth] = starts[depth - 1] + width
        widths[depth] = width // 2 + width % 2
        hash_level(nodes + HASH * starts[depth], nodes + HASH * starts[depth - 1], width)
        depth += 1
    cdef list paths = []
    cdef list positions = []
    cdef uint8_t path[64 * HASH]
    cdef size_t position, sibling, used
    for wanted in indices:
        wanted = operator.index(wanted)
        if not 0 <= wanted < count:
            raise ValueError(f"leaf index {wanted} is not in a tree of {count}")
        positions.append(wanted)
    for wanted in positions:
        position = wanted
        used = 0
        for level in range(depth - 1):
            sibling = position ^ 1
            if sibling < widths[level]:
                memcpy(path + used, nodes + HASH * (starts[level] + sibling), HASH)
                used += HASH
            position //= 2
        paths.append(<bytes>path[:used])
    return paths


def merkle_fold(leaf, index, count, path):
    """The root that `path` leads to from leaf `index` of `count` (RFC 9162, section 2.1.3.2).

    ValueError when the path has another length than (index, count) demands: so a node can never
    pass for a leaf.
    """
    cdef bytes start = sized(leaf, HASH, "leaf"), siblings = as_bytes(path)
    cdef uint64_t leaves = as_unsigned(count, 0xFFFFFFFF, "leaf count")
    cdef uint64_t position = as_unsigned(index, 0xFFFFFFFF, "leaf index"), last
    if position >= leaves:
        raise ValueError(f"leaf index {position} is not in a tree of {leaves}")
    last = leaves - 1
    cdef Py_ssize_t offset = 0, size = PyBytes_GET_SIZE(siblings)
    cdef bytes out = new_bytes(HASH)
    cdef uint8_t* node = octets(out)
    memcpy(node, octets(start), HASH)
    while last:
        if position % 2 or position < last:
            if size - offset < HASH:
                raise ValueError("the Merkle path is too short")
            if position % 2:
                hash_node(node, octets(siblings) + offset, node)
            else:
                hash_node(node, node, octets(siblings) + offset)
            offset += HASH
        position //= 2
        last //= 2
    if offset != size:
        raise ValueError("the Merkle path is too long")
    return out
