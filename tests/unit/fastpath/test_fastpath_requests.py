"""Request records and batches: known answers, every rule, every byte, parity."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastpath

FIXED, SIGNATURE = 88, 64


def parse(build, data, cluster, count_max=1024, operation_bytes_max=65536):
    return build.parse_requests(data, 0, len(data), cluster, count_max, operation_bytes_max)


def test_parse_requests_returns_fields_digest_and_leaf(build, make_request, cluster):
    record = make_request(kind=2, session=2**53 - 1, sequence=9, floor=4, valid_until_us=77, operation=b"hello")
    signed, signature = record[:-64], record[-64:]
    digest = hashlib.sha256(b"REQ\0\0\0\0\0" + signed).digest()
    leaf = hashlib.sha256(b"\0" + digest + signature + hashlib.sha256(b"").digest()).digest()
    client = build.public_key(bytes(range(32)))
    assert parse(build, record, cluster) == [(leaf, digest, client, 2**53 - 1, 9, 4, 77, 2, record)]


def test_parse_requests_reads_many_between_two_offsets(build, make_request, cluster):
    records = [make_request(sequence=i + 1, operation=bytes(i * 7)) for i in range(30)]
    data = b"before" + b"".join(records) + b"after"
    found = build.parse_requests(memoryview(data), 6, len(data) - 5, cluster, 30, 65536)
    assert [request[8] for request in found] == records
    assert [request[4] for request in found] == list(range(1, 31))
    assert build.parse_requests(data, 6, 6, cluster, 0, 0) == []


def test_parse_requests_of_a_large_batch_equals_one_by_one(same, make_request, cluster):
    record = make_request(operation=bytes(65536))
    records = [record, make_request(), record]
    whole = same(lambda build: parse(build, b"".join(records), cluster))
    assert whole == [same(lambda build, r=r: parse(build, r, cluster)[0]) for r in records]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"version": 2},
        {"kind": 4},
        {"kind": 255},
        {"flags": 1},
        {"flags": 256},
        {"cluster_id": bytes(16)},
        {"floor": 0},
        {"floor": 4, "sequence": 3},
        {"sequence": 0, "floor": 0},
        {"sequence": 2**53},
        {"sequence": 2**64 - 1},
        {"session": 2**53},
        {"valid_until_us": 2**53},
        {"operation_length": 18},
        {"operation_length": 20},
        {"operation_length": 2**32 - 1},
        {"operation_length": 2**31},
    ],
    ids=str,
)
def test_parse_requests_refuses_a_record_that_breaks_a_rule(build, make_request, cluster, changes):
    bad = make_request(signature=bytes(64), **changes)
    for data in (bad, make_request() + bad):
        with pytest.raises(ValueError):
            parse(build, data, cluster)


@pytest.mark.parametrize(
    "changes",
    [{"kind": 3}, {"floor": 3, "sequence": 3}, {"session": 0}, {"valid_until_us": 0}, {"operation": b""}],
    ids=str,
)
def test_parse_requests_takes_what_is_just_inside_the_rules(build, make_request, cluster, changes):
    assert len(parse(build, make_request(**changes), cluster)) == 1


def test_parse_requests_refuses_more_than_the_limits(build, make_request, cluster):
    record = make_request(operation=b"12345")
    with pytest.raises(ValueError):
        parse(build, record * 3, cluster, count_max=2)
    with pytest.raises(ValueError):
        parse(build, record, cluster, operation_bytes_max=4)
    assert len(parse(build, record * 2, cluster, count_max=2, operation_bytes_max=5)) == 2
    for wrong in ((-1, 5), (2, -1), (2**40, 5), (2, 2**40)):
        with pytest.raises(ValueError):
            parse(build, record, cluster, *wrong)
    with pytest.raises(ValueError):
        parse(build, record, cluster + b"\0")


def test_parse_requests_refuses_every_truncation(build, make_request, cluster):
    record = make_request()
    for size in range(1, len(record)):
        with pytest.raises(ValueError):
            parse(build, record[:size], cluster)
        with pytest.raises(ValueError):
            parse(build, record + record[:size], cluster)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 4), (0, 10**6), (2**70, 2**70)])
def test_parse_requests_refuses_a_range_outside_the_buffer(build, make_request, cluster, start, end):
    with pytest.raises(ValueError):
        build.parse_requests(make_request(), start, end, cluster, 10, 65536)


def test_every_byte_of_a_request_is_bound_by_digest_leaf_and_signature(same, make_request, cluster, prefix):
    record = make_request()
    ((leaf, digest, *_),) = same(lambda build: parse(build, record, cluster))
    assert same(lambda build: build.verify_requests(prefix, [record])) == b"\1"
    for position in range(len(record)):
        changed = bytearray(record)
        changed[position] ^= 1 << position % 8
        changed = bytes(changed)
        assert same(lambda build, c=changed: build.verify_requests(prefix, [c])) == b"\0"
        found = same(lambda build, c=changed: parse(build, c, cluster))
        if found is not ValueError:
            assert found[0][0] != leaf
            assert (found[0][1] == digest) == (position >= len(record) - SIGNATURE)


def test_every_byte_of_the_prefix_is_signed(same, make_request, prefix):
    record = make_request()
    for position in range(len(prefix)):
        changed = bytearray(prefix)
        changed[position] ^= 1
        assert same(lambda build, c=changed: build.verify_requests(c, [record])) == b"\0"


def test_verify_requests_flags_each_record(build, make_request, prefix):
    good = [make_request(sequence=i + 1, operation=bytes(i * 300)) for i in range(12)]
    bad = [record[:100] + b"?" + record[101:] for record in good]
    mixed = [pair[i % 2] for i, pair in enumerate(zip(good, bad, strict=True))]
    assert build.verify_requests(prefix, mixed) == bytes([1, 0] * 6)
    assert build.verify_requests(prefix, []) == b""


def test_verify_requests_flags_records_of_a_wrong_length(build, make_request, prefix):
    record = make_request()
    wrong = [b"", record[:-1], record + b"\0", record[:151], bytes(152), record[:88], record[10:]]
    assert build.verify_requests(prefix, [*wrong, record]) == bytes(len(wrong)) + b"\1"


def test_verify_requests_refuses_a_prefix_of_another_length(build, make_request, prefix):
    for wrong in (prefix[:-1], prefix + b"\0", b""):
        with pytest.raises(ValueError):
            build.verify_requests(wrong, [make_request()])


def test_has_duplicates_finds_equal_digests(build):
    digests = [hashlib.sha256(bytes([i])).digest() for i in range(100)]
    assert build.has_duplicates(digests) is False
    assert build.has_duplicates([*digests, bytes(bytearray(digests[50]))]) is True
    assert build.has_duplicates([]) is False
    with pytest.raises(ValueError):
        build.has_duplicates([bytes(31)])


def test_assemble_batch_known_answer_holds(build, make_request, cluster):
    records = [make_request(sequence=i + 1) for i in range(5)]
    leaves = [request[0] for request in parse(build, b"".join(records), cluster)]
    header, body, digest = build.assemble_batch(0, 3, cluster, 9, 2**40, 123456789, records, leaves)
    assert body == b"".join(records)
    assert header == struct.pack(
        "<BBHI16sIIQQ32s", 1, 0, 3, 5, cluster, 9, len(body), 2**40, 123456789, build.merkle_root(leaves)
    )
    assert len(header) == 80
    assert digest == hashlib.sha256(b"BATCH\0\0\0" + header).digest()


def test_assemble_batch_of_nothing_has_the_empty_root(build, cluster):
    header, body, digest = build.assemble_batch(1, 0, cluster, 0, 5, 0, [], [])
    assert body == b""
    assert header[48:] == hashlib.sha256(b"").digest()
    assert digest == hashlib.sha256(b"BATCH\0\0\0" + header).digest()


def test_every_byte_of_a_batch_header_changes_the_digest(build, cluster):
    header, _, digest = build.assemble_batch(1, 0, cluster, 0, 5, 0, [], [])
    for position in range(80):
        changed = bytearray(header)
        changed[position] ^= 1
        assert build.tagged_hash(b"BATCH", changed) != digest


@pytest.mark.parametrize(
    ("position", "value"),
    [(0, 256), (0, -1), (1, 2**16), (2, bytes(15)), (3, 2**32), (4, 2**64), (5, -1), (5, 2**64), (7, [bytes(32)])],
)
def test_assemble_batch_refuses_fields_that_do_not_fit(build, cluster, position, value):
    arguments = [0, 0, cluster, 0, 1, 1, [], []]
    arguments[position] = value
    with pytest.raises(ValueError):
        build.assemble_batch(*arguments)


def test_result_leaves_known_answer_holds(build):
    digests = [hashlib.sha256(bytes([i])).digest() for i in range(3)]
    results = [b"", b"{}", bytes(1000)]
    expected = [
        hashlib.sha256(
            b"\0"
            + struct.pack("<BQI32sH32s", 1, 2**50, 7 + i, digests[i], 100 + i, hashlib.sha256(results[i]).digest())
        ).digest()
        for i in range(3)
    ]
    assert build.result_leaves(2**50, 7, digests, [100, 101, 102], results) == expected
    assert build.result_leaves(1, 0, [], [], []) == []


@pytest.mark.parametrize(
    "arguments",
    [
        (2**64, 0, [bytes(32)], [0], [b""]),
        (0, 2**32, [bytes(32)], [0], [b""]),
        (0, 2**32 - 1, [bytes(32)], [0], [b""]),
        (0, 0, [bytes(31)], [0], [b""]),
        (0, 0, [bytes(32)], [2**16], [b""]),
        (0, 0, [bytes(32)], [-1], [b""]),
        (0, 0, [bytes(32)], [], [b""]),
        (0, 0, [bytes(32)], [0], []),
    ],
)
def test_result_leaves_refuse_what_does_not_fit(build, arguments):
    with pytest.raises(ValueError):
        build.result_leaves(*arguments)


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(1, 3),
    position=st.integers(0, 600),
    patch=st.binary(max_size=10),
    start=st.integers(-1, 3),
    cut=st.integers(0, 3),
    count_max=st.integers(0, 4),
    operation_max=st.integers(0, 40),
)
def test_parse_and_verify_parity_holds_on_patched_bytes(
    same, make_request, cluster, prefix, count, position, patch, start, cut, count_max, operation_max
):
    data = bytearray(b"".join(make_request(sequence=i + 1, signature=bytes(64)) for i in range(count)))
    position %= len(data)
    data[position : position + len(patch)] = patch
    end = len(data) - cut
    same(lambda build: build.parse_requests(data, start, end, cluster, count_max, operation_max))
    same(lambda build: build.parse_requests(data, 0, len(data), cluster, 4, 65536))
    same(lambda build: build.verify_requests(prefix, [data, data[:171], data[171:]]))


@settings(max_examples=60, deadline=None)
@given(
    sequence=st.integers(-1, 2**64),
    first=st.integers(-1, 2**32),
    entries=st.lists(
        st.tuples(st.binary(min_size=31, max_size=33), st.integers(-1, 2**16), st.binary(max_size=50)), max_size=3
    ),
)
def test_result_leaves_parity_holds(same, sequence, first, entries):
    digests, statuses, results = ([entry[i] for entry in entries] for i in range(3))
    same(lambda build: build.result_leaves(sequence, first, digests, statuses, results))
    same(lambda build: build.result_leaves(5, 5, [d[:32].ljust(32, b"\0") for d in digests], statuses, results))


@pytest.mark.parametrize("name", ["verify_requests", "verify_many", "parse_requests"])
def test_batch_functions_let_other_threads_run(make_request, cluster, prefix, name):
    # With an endless switch interval another thread runs only where the GIL is given up.
    compiled = fastpath.implementations()["compiled"]
    record = make_request(operation=bytes(60000))
    call = {
        "verify_requests": lambda: compiled.verify_requests(prefix, [record] * 100),
        "verify_many": lambda: compiled.verify_many([(record[20:52], prefix + record[:-64], record[-64:])] * 100),
        "parse_requests": lambda: parse(compiled, record * 300, cluster),
    }[name]
    steps = 0
    stop = threading.Event()

    def count_steps():
        nonlocal steps
        while not stop.is_set():
            steps += 1
            os.sched_yield()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    thread = threading.Thread(target=count_steps)
    try:
        thread.start()
        for _ in range(50):
            before = steps
            call()
            if steps > before:
                break
        assert steps > before
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()
