"""Block headers and leaves: fixed layouts."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.block import (
    HEADER_BYTES,
    BlockHeader,
    next_order_hash,
    parse_timer_record,
    result_leaf,
    timer_digest,
    timer_record,
)

hashes = st.binary(min_size=32, max_size=32)
u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
HEADER = BlockHeader(
    cluster_id=bytes(16),
    epoch=0,
    sequence=5,
    previous_block_hash=b"\1" * 32,
    order_hash=b"\2" * 32,
    digest=b"\3" * 32,
    time_us=6,
    result_count=7,
    results_root=bytes(32),
    write_set_hash=bytes(32),
    state_sequence=0,
    state_root=bytes(32),
    config_hash=bytes(32),
)


@settings(max_examples=40, deadline=None)
@given(
    st.builds(
        BlockHeader,
        st.binary(min_size=16, max_size=16),
        u32,
        u64,
        hashes,
        hashes,
        hashes,
        u64,
        u32,
        hashes,
        hashes,
        u64,
        hashes,
        hashes,
    )
)
def test_header_comes_back_equal(header: BlockHeader) -> None:
    packed = header.pack()
    assert len(packed) == HEADER_BYTES == 277
    assert BlockHeader.unpack(packed) == header
    assert header.hash == hashlib.sha256(b"BLOCK\0\0\0" + packed).digest()


def test_header_has_the_documented_offsets() -> None:
    packed = HEADER.pack()
    assert packed[0] == 1
    assert struct.unpack_from("<QQ", packed, 17) == (0, 5)
    assert packed[33:129] == b"\1" * 32 + b"\2" * 32 + b"\3" * 32
    assert struct.unpack_from("<QI", packed, 129) == (6, 7)


def test_bytes_that_are_no_header_are_refused() -> None:
    packed = HEADER.pack()
    for data in (packed[:-1], packed + b"\0", b"\2" + packed[1:], b""):
        with pytest.raises(ValueError):
            BlockHeader.unpack(data)


@pytest.mark.parametrize(
    "change", [{"cluster_id": b""}, {"order_hash": bytes(31)}, {"sequence": -1}, {"sequence": 2**64}], ids=str
)
def test_header_with_a_field_of_the_wrong_size_is_not_packed(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        replace(HEADER, **change).pack()


def test_hashes_are_those_of_the_documented_bytes() -> None:
    result = hashlib.sha256(b"result").digest()
    leaf = b"\0\1" + struct.pack("<QI", 7, 2) + bytes(32) + struct.pack("<H", 9) + result
    assert result_leaf(7, 2, bytes(32), 9, b"result") == hashlib.sha256(leaf).digest()
    order = b"ORD" + bytes(5) + bytes(32) + struct.pack("<Q", 7) + b"\1" * 32
    assert next_order_hash(bytes(32), 7, b"\1" * 32) == hashlib.sha256(order).digest()
    timer = b"SYS" + bytes(5) + struct.pack("<I", 2) + b"id" + struct.pack("<Q", 8)
    assert timer_digest(b"id", 8) == hashlib.sha256(timer).digest()


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=64), u64)
def test_timer_record_comes_back_equal(timer_id: bytes, due_us: int) -> None:
    assert parse_timer_record(timer_record(timer_id, due_us)) == (timer_id, due_us)


def test_bytes_that_are_no_timer_record_are_refused() -> None:
    record = timer_record(b"id", 8)
    for data in (b"", record[:-1], record + b"\0", b"\1" + record[1:], bytes(13)):
        with pytest.raises(ValueError):
            parse_timer_record(data)
    for timer_id in (b"", bytes(65)):
        with pytest.raises(ValueError):
            timer_record(timer_id, 0)
