"""Whole batches of signed requests in one call each (see `_py`, the specification).

Lengths and limits are checked for the whole range first; hashing and verifying then run without the
GIL over bytes objects that this call keeps alive.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from fastpath._merkle cimport joined_hashes, root_in_place
from fastpath._sodium cimport as_bytes, as_unsigned, ed25519_accepts, new_bytes, sha256_of, sized

import operator

cdef extern from "endian.h" nogil:
    uint16_t htole16(uint16_t)
    uint32_t htole32(uint32_t)
    uint64_t htole64(uint64_t)
    uint32_t le32toh(uint32_t)
    uint64_t le64toh(uint64_t)

cdef enum:
    HASH = 32
    SIGNATURE = 64
    TAG = 8
    PREFIX = 40
    CLUSTER = 4
    CLIENT = 20
    SESSION = 52
    SEQUENCE = 60
    FLOOR = 68
    VALID_UNTIL = 76
    OPERATION_SIZE = 84
    FIXED = 88
    KIND_MAX = 3
    BATCH_HEADER = 80
    RESULT = 79
    # Below this many hashed bytes the GIL is kept: letting it go may cost a wait of milliseconds.
    RELEASE_BYTES = 65536

cdef uint64_t U32_MAX = 0xFFFFFFFF
cdef uint64_t U64_MAX = 0xFFFFFFFFFFFFFFFF
cdef uint64_t NUMBER_MAX = (1 << 53) - 1
cdef uint8_t no_annex[HASH]
sha256_of(no_annex, <const uint8_t*>"", 0)


cdef struct Record:
    const uint8_t* data
    size_t size


cdef inline uint8_t* octets(bytes data) noexcept:
    return <uint8_t*>PyBytes_AS_STRING(data)


cdef inline uint32_t load32(const uint8_t* data) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, data, 4)
    return le32toh(value)


cdef inline uint64_t load64(const uint8_t* data) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, data, 8)
    return le64toh(value)


cdef inline void store16(uint8_t* data, uint16_t value) noexcept nogil:
    value = htole16(value)
    memcpy(data, &value, 2)


cdef inline void store32(uint8_t* data, uint32_t value) noexcept nogil:
    value = htole32(value)
    memcpy(data, &value, 4)


cdef inline void store64(uint8_t* data, uint64_t value) noexcept nogil:
    value = htole64(value)
    memcpy(data, &value, 8)


cdef Py_ssize_t record_size(const uint8_t* data, Py_ssize_t left, const uint8_t* cluster, uint64_t limit) except -1:
    """Bytes of the request at `data`, of which `left` may be read; ValueError for a broken rule."""
    cdef uint32_t size
    if left < FIXED + SIGNATURE:
        raise ValueError("a truncated request")
    if data[0] != 1 or data[1] > KIND_MAX or data[2] != 0 or data[3] != 0:
        raise ValueError("a request of unknown version, kind or flags")
    if memcmp(data + CLUSTER, cluster, 16) != 0:
        raise ValueError("a request for another cluster")
    if (
        load64(data + SESSION) > NUMBER_MAX
        or load64(data + SEQUENCE) > NUMBER_MAX
        or load64(data + VALID_UNTIL) > NUMBER_MAX
        or load64(data + FLOOR) < 1
        or load64(data + FLOOR) > load64(data + SEQUENCE)
    ):
        raise ValueError("a request whose session fields make no sense")
    size = load32(data + OPERATION_SIZE)
    if size > limit or <Py_ssize_t>size > left - FIXED - SIGNATURE:
        raise ValueError(f"an operation of {size} bytes is over its limit or truncated")
    return FIXED + <Py_ssize_t>size + SIGNATURE


cdef void hash_record(uint8_t* leaf, uint8_t* digest, const Record* record, uint8_t* scratch) noexcept nogil:
    """`scratch`: room for the tag and the record without its signature."""
    cdef uint8_t text[1 + HASH + SIGNATURE + HASH]
    cdef size_t signed_size = record.size - SIGNATURE
    memcpy(scratch, <const char*>b"REQ\0\0\0\0\0", TAG)
    memcpy(scratch + TAG, record.data, signed_size)
    sha256_of(digest, scratch, TAG + signed_size)
    text[0] = 0
    memcpy(text + 1, digest, HASH)
    memcpy(text + 1 + HASH, record.data + signed_size, SIGNATURE)
    memcpy(text + 1 + HASH + SIGNATURE, no_annex, HASH)
    sha256_of(leaf, text, 1 + HASH + SIGNATURE + HASH)


cdef void hash_records(uint8_t* out, const Record* records, size_t count, uint8_t* scratch) noexcept nogil:
    """Leaf and digest of each record, one behind the other."""
    cdef size_t i
    for i in range(count):
        hash_record(out + 2 * HASH * i, out + 2 * HASH * i + HASH, &records[i], scratch)


def parse_requests(buffer, start, end, cluster_id, count_max, operation_bytes_max):
    """The request records that fill buffer[start:end], each with its digest and leaf.

    ValueError for the first record that breaks a stateless rule: version 1, kind 0..3, flags 0, this
    cluster, 1 <= floor <= sequence, numbers <= 2**53-1, operation within its limit; or when there
    are more than `count_max`. Signatures are not looked at (`verify_requests`).
    """
    cdef bytes data = as_bytes(buffer)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(data), position, last, largest = 0, size
    first_position, last_position = operator.index(start), operator.index(end)
    if not 0 <= first_position <= last_position <= length:
        raise ValueError(f"range {first_position}..{last_position} is not inside {length} bytes")
    position = first_position
    last = last_position
    cdef bytes cluster = sized(cluster_id, 16, "cluster id")
    cdef uint64_t operation_limit = as_unsigned(operation_bytes_max, U32_MAX, "operation limit")
    cdef size_t count_limit = as_unsigned(count_max, U32_MAX, "request limit")
    cdef size_t count = 0, i
    # As many as the bytes can hold, and never more than the limit: not what a sender claims.
    cdef size_t room = min(count_limit, <size_t>(last - position) // (FIXED + SIGNATURE))
    cdef bytes table = new_bytes(room * sizeof(Record))
    cdef Record* records = <Record*>octets(table)
    while position < last:
        if count == count_limit:
            raise ValueError(f"more than {count_limit} requests")
        size = record_size(octets(data) + position, last - position, octets(cluster), operation_limit)
        records[count].data = octets(data) + position
        records[count].size = size
        largest = max(largest, size)
        position += size
        count += 1
    cdef bytes hashes = new_bytes(count * 2 * HASH), room_for_one = new_bytes(TAG + largest)
    cdef uint8_t* out = octets(hashes)
    cdef uint8_t* scratch = octets(room_for_one)
    if last_position - first_position < RELEASE_BYTES:
        hash_records(out, records, count, scratch)
    else:
        with nogil:
            hash_records(out, records, count, scratch)
    return [parsed(out + 2 * HASH * i, &records[i]) for i in range(count)]


cdef inline tuple parsed(const uint8_t* hashes, const Record* record):
    return (
        PyBytes_FromStringAndSize(<const char*>hashes, HASH),
        PyBytes_FromStringAndSize(<const char*>hashes + HASH, HASH),
        PyBytes_FromStringAndSize(<const char*>record.data + CLIENT, HASH),
        load64(record.data + SESSION),
        load64(record.data + SEQUENCE),
        load64(record.data + FLOOR),
        load64(record.data + VALID_UNTIL),
        record.data[1],
        PyBytes_FromStringAndSize(<const char*>record.data, record.size),
    )


cdef bint record_is_signed(const uint8_t* prefix, const Record* record, uint8_t* scratch) noexcept nogil:
    """`scratch`: room for the prefix and the record; filled with signature, prefix and fields."""
    cdef size_t signed_size
    if record.size < FIXED + SIGNATURE:
        return False
    signed_size = record.size - SIGNATURE
    if load32(record.data + OPERATION_SIZE) != signed_size - FIXED:
        return False
    memcpy(scratch, record.data + signed_size, SIGNATURE)
    memcpy(scratch + SIGNATURE, prefix, PREFIX)
    memcpy(scratch + SIGNATURE + PREFIX, record.data, signed_size)
    return ed25519_accepts(record.data + CLIENT, scratch, SIGNATURE + PREFIX + signed_size)


def verify_requests(prefix, records):
    """One byte for each request record: 1 when prefix || record without signature is signed by its client.

    `prefix`: the 40 bytes that separate the domain. A record whose length is not the one that it
    states is 0.
    """
    cdef bytes domain = sized(prefix, PREFIX, "prefix")
    cdef list kept = [as_bytes(record) for record in records]
    cdef Py_ssize_t count = len(kept), i
    cdef size_t largest = 0
    cdef bytes table = new_bytes(count * sizeof(Record)), flags = new_bytes(count)
    cdef Record* entries = <Record*>octets(table)
    for i in range(count):
        entries[i].data = octets(<bytes>kept[i])
        entries[i].size = PyBytes_GET_SIZE(<bytes>kept[i])
        largest = max(largest, entries[i].size)
    cdef bytes room_for_one = new_bytes(PREFIX + largest)
    cdef uint8_t* scratch = octets(room_for_one)
    cdef uint8_t* out = octets(flags)
    cdef const uint8_t* domain_octets = octets(domain)
    with nogil:
        for i in range(count):
            out[i] = record_is_signed(domain_octets, &entries[i], scratch)
    return flags


def has_duplicates(digests):
    """Does any 32-byte digest appear twice?"""
    cdef set seen = {sized(digest, HASH, "digest") for digest in digests}
    return len(seen) != len(digests)


def assemble_batch(kind, proposer, cluster_id, epoch, sequence, timestamp_us, records, leaves):
    """(header of 80 bytes, body, digest) of the batch of these records, whose leaves are given."""
    cdef bytes nodes = joined_hashes(leaves, "leaf")
    cdef size_t count = PyBytes_GET_SIZE(nodes) // HASH
    cdef list kept = [as_bytes(record) for record in records]
    if <size_t>len(kept) != count:
        raise ValueError(f"{len(kept)} records and {count} leaves")
    cdef bytes body = b"".join(kept), cluster = sized(cluster_id, 16, "cluster id")
    cdef bytes header = new_bytes(BATCH_HEADER), digest = new_bytes(HASH)
    cdef uint8_t text[TAG + BATCH_HEADER]
    cdef uint8_t* out = text + TAG
    if <uint64_t>PyBytes_GET_SIZE(body) > U32_MAX or count > U32_MAX:
        raise ValueError("a batch has at most 2**32-1 bytes and requests")
    memcpy(text, <const char*>b"BATCH\0\0\0", TAG)
    out[0] = 1
    out[1] = <uint8_t>as_unsigned(kind, 0xFF, "kind")
    store16(out + 2, <uint16_t>as_unsigned(proposer, 0xFFFF, "proposer"))
    store32(out + 4, <uint32_t>count)
    memcpy(out + 8, octets(cluster), 16)
    store32(out + 24, <uint32_t>as_unsigned(epoch, U32_MAX, "epoch"))
    store32(out + 28, <uint32_t>PyBytes_GET_SIZE(body))
    store64(out + 32, as_unsigned(sequence, U64_MAX, "sequence"))
    store64(out + 40, as_unsigned(timestamp_us, U64_MAX, "timestamp"))
    root_in_place(octets(nodes), count, out + 48)
    memcpy(octets(header), out, BATCH_HEADER)
    sha256_of(octets(digest), text, TAG + BATCH_HEADER)
    return header, body, digest


def result_leaves(sequence, first_index, digests, statuses, results):
    """Leaf hash of each result: H(0x00 || ver 1 || sequence u64 || index u32 || digest || status u16 || H(result))."""
    cdef tuple its_digests = tuple(digests), its_statuses = tuple(statuses), its_results = tuple(results)
    cdef Py_ssize_t count = len(its_digests), i
    if len(its_statuses) != count or len(its_results) != count:
        raise ValueError("digests, statuses and results differ in number")
    cdef uint64_t block = as_unsigned(sequence, U64_MAX, "sequence")
    cdef uint64_t first = as_unsigned(first_index, U32_MAX, "first index")
    if first + <uint64_t>count > U32_MAX:
        raise ValueError("the last index is over 2**32-1")
    cdef uint8_t text[1 + RESULT]
    cdef bytes digest, result, leaf
    cdef list leaves = []
    text[0] = 0
    text[1] = 1
    store64(text + 2, block)
    for i in range(count):
        digest = sized(its_digests[i], HASH, "digest")
        result = as_bytes(its_results[i])
        store32(text + 10, <uint32_t>(first + <uint64_t>i))
        memcpy(text + 14, octets(digest), HASH)
        store16(text + 46, <uint16_t>as_unsigned(its_statuses[i], 0xFFFF, "status"))
        sha256_of(text + 48, octets(result), PyBytes_GET_SIZE(result))
        leaf = new_bytes(HASH)
        sha256_of(octets(leaf), text, 1 + RESULT)
        leaves.append(leaf)
    return leaves
