"""Fields, message headers, rows: known answers, limits, parity on hostile bytes."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HEADER = struct.Struct("<HBBIII")


def test_writer_and_reader_are_little_endian_and_inverse(build):
    data = (
        build.Writer().u8(0x12).u16(0x1234).u32(0x12345678).u64(2**64 - 2).fixed(b"abc", 3).variable(b"de", 2).finish()
    )
    assert data == bytes.fromhex("12 3412 78563412 feffffffffffffff 616263 02000000 6465")
    reader = build.Reader(b"xx" + data + b"yyy", 2, 2 + len(data))
    assert reader.position == 2
    assert (reader.u8(), reader.u16(), reader.u32(), reader.u64()) == (0x12, 0x1234, 0x12345678, 2**64 - 2)
    assert reader.fixed(3) == b"abc"
    assert reader.variable(2) == b"de"
    assert reader.position == 2 + len(data)
    assert reader.rest() == b""
    assert reader.finish() is None


def test_writer_grows_without_bound_of_its_own(build):
    writer = build.Writer()
    for i in range(3000):
        writer.u32(i).variable(bytes(i % 50), 50)
    data = writer.finish()
    reader = build.Reader(data)
    for i in range(3000):
        assert reader.u32() == i
        assert len(reader.variable(50)) == i % 50
    reader.finish()
    assert build.Writer().finish() == b""


@pytest.mark.parametrize("size", range(8))
def test_reader_refuses_truncated_fields_and_stays_where_it_was(build, size):
    for name, width in (("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)):
        if size < width:
            reader = build.Reader(bytes(20), 3, 3 + size)
            with pytest.raises(ValueError):
                getattr(reader, name)()
            assert reader.position == 3
    reader = build.Reader(bytes(size))
    with pytest.raises(ValueError):
        reader.fixed(size + 1)


def test_reader_refuses_a_variable_field_over_its_limit_or_truncated(build):
    for data, limit in ((b"\3\0\0\0abc", 2), (b"\3\0\0\0ab", 3), (b"\xff\xff\xff\xff", 2**32 - 1), (b"\0\0\0", 9)):
        reader = build.Reader(data)
        with pytest.raises(ValueError):
            reader.variable(limit)
        assert reader.position == 0


def test_reader_refuses_trailing_bytes(build):
    reader = build.Reader(b"abc")
    reader.fixed(2)
    with pytest.raises(ValueError):
        reader.finish()
    assert reader.rest() == b"c"


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 1), (0, 4), (4, 4), (0, 2**70), (-(2**70), 1)])
def test_reader_refuses_a_range_outside_the_buffer(build, start, end):
    with pytest.raises(ValueError):
        build.Reader(b"abc", start, end)


def test_writer_refuses_values_that_do_not_fit_and_writes_nothing(build):
    writer = build.Writer().u8(1)
    for name, limit in (("u8", 2**8), ("u16", 2**16), ("u32", 2**32), ("u64", 2**64)):
        for value in (-1, limit, 2**80, -(2**80)):
            with pytest.raises(ValueError):
                getattr(writer, name)(value)
        with pytest.raises(TypeError):
            getattr(writer, name)(1.0)
    for call in (
        lambda: writer.fixed(b"abc", 2),
        lambda: writer.fixed(b"abc", 4),
        lambda: writer.fixed(b"", -1),
        lambda: writer.variable(b"abc", 2),
        lambda: writer.variable(b"", -1),
    ):
        with pytest.raises(ValueError):
            call()
    assert writer.finish() == b"\1"


def test_split_messages_gives_back_what_pack_message_made(build):
    payloads = [b"", b"a" * 100, b"b"]
    frame = b"".join(build.pack_message(0x10 + i, 2**32 - 1 - i, payload) for i, payload in enumerate(payloads))
    found = build.split_messages(frame, 100)
    assert [(kind, epoch) for kind, epoch, _, _ in found] == [(0x10 + i, 2**32 - 1 - i) for i in range(3)]
    assert [frame[start:end] for _, _, start, end in found] == payloads


def test_pack_message_has_the_header_of_the_protocol(build):
    assert build.pack_message(0x11, 7, b"xyz") == HEADER.pack(0x0A0B, 1, 0x11, 7, 3, 0) + b"xyz"
    for wrong in ((256, 0), (-1, 0), (0, 2**32), (0, -1)):
        with pytest.raises(ValueError):
            build.pack_message(*wrong, b"")


def test_split_messages_refuses_every_changed_header_byte_but_type_and_epoch(build):
    frame = build.pack_message(0x11, 7, b"xyz")
    for position in range(16):
        for bit in range(8):
            changed = bytearray(frame)
            changed[position] ^= 1 << bit
            if 3 <= position <= 7:
                assert build.split_messages(changed, 100) != build.split_messages(frame, 100)
            else:
                with pytest.raises(ValueError):
                    build.split_messages(changed, 100)


def test_split_messages_refuses_truncation_surplus_and_payloads_over_the_limit(build):
    frame = build.pack_message(1, 0, b"x" * 20)
    for size in range(len(frame)):
        with pytest.raises(ValueError):
            build.split_messages(frame[:size], 100)
    with pytest.raises(ValueError):
        build.split_messages(frame + b"\0", 100)
    with pytest.raises(ValueError):
        build.split_messages(frame, 19)
    assert build.split_messages(frame, 20) == [(1, 0, 16, 36)]


def test_encode_row_known_answer_holds(build):
    row = build.encode_row(0x0102, (1, -1, b"ab", "\u00e9", None, 2**63 - 1, -(2**63), b"", ""))
    assert row.hex() == (
        "0201"
        "0900"
        "010100000000000000"
        "01ffffffffffffffff"
        "02020000006162"
        "0302000000c3a9"
        "00"
        "01ffffffffffffff7f"
        "010000000000000080"
        "0200000000"
        "0300000000"
    )


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        1.0,
        2**63,
        -(2**63) - 1,
        2**100,
        "e\u0301",
        "\ud800",
        bytearray(b"x"),
        memoryview(b"x"),
        (1,),
        object(),
    ],
)
def test_encode_row_refuses_what_is_no_column(build, value):
    with pytest.raises(ValueError):
        build.encode_row(1, (1, value))


def test_encode_row_refuses_a_bad_table_id_and_too_many_columns(build):
    for table_id in (-1, 2**16):
        with pytest.raises(ValueError):
            build.encode_row(table_id, ())
    with pytest.raises(ValueError):
        build.encode_row(1, (None,) * 2**16)
    assert len(build.encode_row(1, (None,) * (2**16 - 1))) == 4 + 2**16 - 1


def test_write_set_hash_known_answer_holds_in_any_order(build):
    entries = [(b"b", b"row"), (b"a", None), (b"ab", b"")]
    text = b"WS".ljust(8, b"\0")
    text += b"\1\0\0\0a" + b"\0"
    text += b"\2\0\0\0ab" + b"\1" + b"\0\0\0\0"
    text += b"\1\0\0\0b" + b"\1" + b"\3\0\0\0row"
    assert build.write_set_hash(entries) == hashlib.sha256(text).digest()
    assert build.write_set_hash(reversed(entries)) == hashlib.sha256(text).digest()
    assert build.write_set_hash([]) == hashlib.sha256(b"WS".ljust(8, b"\0")).digest()


def test_write_set_hash_refuses_a_key_twice(build):
    with pytest.raises(ValueError):
        build.write_set_hash([(b"a", None), (b"b", None), (b"a", b"x")])


COLUMN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=40),
    st.text(max_size=20),
    st.floats(),
)


@settings(max_examples=100, deadline=None)
@given(table_id=st.integers(-1, 2**16), values=st.lists(COLUMN, max_size=6))
def test_encode_row_parity_holds(same, table_id, values):
    same(lambda build: build.encode_row(table_id, tuple(values)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=6), st.none() | st.binary(max_size=30)), max_size=12))
def test_write_set_hash_parity_holds(same, entries):
    same(lambda build: build.write_set_hash(entries))


@settings(max_examples=100, deadline=None)
@given(
    messages=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=30)), max_size=4),
    position=st.integers(0, 200),
    byte=st.integers(0, 255),
    cut=st.integers(0, 5),
)
def test_split_messages_parity_holds_on_changed_frames(same, messages, position, byte, cut):
    frame = bytearray(b"".join(same(lambda build, m=m: build.pack_message(*m)) for m in messages))
    if frame:
        frame[position % len(frame)] = byte
    same(lambda build: build.split_messages(frame[: len(frame) - cut], 30))


STEP = st.one_of(
    st.tuples(st.sampled_from(["u8", "u16", "u32", "u64", "rest", "finish"])),
    st.tuples(st.just("fixed"), st.integers(-1, 12)),
    st.tuples(st.just("variable"), st.integers(-1, 300)),
)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=40), start=st.integers(-1, 5), steps=st.lists(STEP, max_size=8))
def test_reader_parity_holds_step_by_step(same, data, start, steps):
    def run(build):
        reader = build.Reader(data, start, len(data))
        trace = []
        for name, *arguments in steps:
            try:
                trace.append(getattr(reader, name)(*arguments))
            except ValueError:
                trace.append("refused")
            trace.append(reader.position)
        return trace

    same(run)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["u8", "u16", "u32", "u64"]), st.integers(-1, 2**65)),
            st.tuples(st.sampled_from(["u8", "u16", "u32", "u64"]), st.integers(0, 255)),
            st.tuples(st.sampled_from(["fixed", "variable"]), st.binary(max_size=20), st.integers(0, 20)),
        ),
        max_size=10,
    )
)
def test_writer_parity_holds_step_by_step(same, steps):
    def run(build):
        writer = build.Writer()
        for name, *arguments in steps:
            try:
                assert getattr(writer, name)(*arguments) is writer
            except ValueError:
                writer.u8(0xEE)
        return writer.finish()

    same(run)
