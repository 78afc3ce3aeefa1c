"""Packed little-endian fields, message headers, canonical rows (see `_py`, the specification).

Every length is compared with what is left before a byte is touched; nothing is allocated for a
length that the input only claims.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLong, PyLong_Check
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.unicode cimport PyUnicode_Check
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from fastpath._sodium cimport as_bytes, as_unsigned, new_bytes, sha256_of, sized

import operator
from operator import itemgetter
from unicodedata import is_normalized

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    Py_ssize_t PY_SSIZE_T_MAX

cdef extern from "endian.h" nogil:
    uint16_t htole16(uint16_t)
    uint32_t htole32(uint32_t)
    uint64_t htole64(uint64_t)
    uint16_t le16toh(uint16_t)
    uint32_t le32toh(uint32_t)
    uint64_t le64toh(uint64_t)

cdef enum:
    HEADER = 16
    MAGIC = 0x0A0B
    U8_MAX = 0xFF
    U16_MAX = 0xFFFF

cdef uint64_t U32_MAX = 0xFFFFFFFF
cdef uint64_t U64_MAX = 0xFFFFFFFFFFFFFFFF


cdef inline uint8_t* octets(bytes data) noexcept:
    return <uint8_t*>PyBytes_AS_STRING(data)


cdef inline uint32_t load32(const uint8_t* data) noexcept:
    cdef uint32_t value
    memcpy(&value, data, 4)
    return le32toh(value)


cdef inline void store32(uint8_t* data, uint32_t value) noexcept:
    value = htole32(value)
    memcpy(data, &value, 4)


cdef inline void store64(uint8_t* data, uint64_t value) noexcept:
    value = htole64(value)
    memcpy(data, &value, 8)


cdef class Reader:
    """Reads packed little-endian fields from buffer[start:end]; ValueError when too little is left."""

    cdef bytes data
    cdef Py_ssize_t next
    cdef Py_ssize_t end

    def __cinit__(self, buffer, start=0, end=None):
        self.data = as_bytes(buffer)
        cdef Py_ssize_t length = PyBytes_GET_SIZE(self.data)
        first = operator.index(start)
        last = length if end is None else operator.index(end)
        if not 0 <= first <= last <= length:
            raise ValueError(f"range {first}..{last} is not inside {length} bytes")
        self.next = first
        self.end = last

    cdef const uint8_t* take(self, Py_ssize_t size) except NULL:
        """The next `size` bytes; the only way forward."""
        if size > self.end - self.next:
            raise ValueError(f"truncated: {size} bytes wanted, {self.end - self.next} left")
        cdef const uint8_t* field = octets(self.data) + self.next
        self.next += size
        return field

    @property
    def position(self):
        """Offset in the buffer of the next byte to read."""
        return self.next

    def u8(self):
        return self.take(1)[0]

    def u16(self):
        cdef uint16_t value
        memcpy(&value, self.take(2), 2)
        return le16toh(value)

    def u32(self):
        return load32(self.take(4))

    def u64(self):
        cdef uint64_t value
        memcpy(&value, self.take(8), 8)
        return le64toh(value)

    def fixed(self, size):
        """The next `size` bytes."""
        cdef Py_ssize_t wanted = as_unsigned(size, U32_MAX, "size")
        return PyBytes_FromStringAndSize(<const char*>self.take(wanted), wanted)

    def variable(self, limit):
        """A u32 length, at most `limit`, and that many bytes. On error nothing has been read."""
        cdef uint64_t bound = as_unsigned(limit, U32_MAX, "limit")
        cdef Py_ssize_t before = self.next
        cdef uint32_t size = load32(self.take(4))
        if size > bound or <Py_ssize_t>size > self.end - self.next:
            self.next = before
            raise ValueError(f"a field of {size} bytes is over its limit or truncated")
        return PyBytes_FromStringAndSize(<const char*>self.take(size), size)

    def rest(self):
        """All bytes that are left."""
        cdef Py_ssize_t size = self.end - self.next
        return PyBytes_FromStringAndSize(<const char*>self.take(size), size)

    def finish(self):
        """ValueError when bytes are left over."""
        if self.next != self.end:
            raise ValueError(f"{self.end - self.next} trailing bytes")


cdef class Writer:
    """Appends packed little-endian fields; every method but `finish` returns the writer."""

    cdef uint8_t* data
    cdef size_t used
    cdef size_t room

    def __cinit__(self):
        self.room = 256
        self.data = <uint8_t*>PyMem_Malloc(self.room)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef uint8_t* extend(self, size_t size) except NULL:
        """Room for `size` more bytes, which the caller fills."""
        cdef size_t wanted = self.used + size, room = self.room
        cdef uint8_t* grown
        if wanted < size or wanted > PY_SSIZE_T_MAX // 2:
            raise MemoryError
        if wanted > room:
            while room < wanted:
                room *= 2
            grown = <uint8_t*>PyMem_Realloc(self.data, room)
            if grown == NULL:
                raise MemoryError
            self.data = grown
            self.room = room
        cdef uint8_t* field = self.data + self.used
        self.used = wanted
        return field

    def u8(self, value):
        cdef uint64_t number = as_unsigned(value, U8_MAX, "u8")
        self.extend(1)[0] = <uint8_t>number
        return self

    def u16(self, value):
        cdef uint16_t number = htole16(<uint16_t>as_unsigned(value, U16_MAX, "u16"))
        memcpy(self.extend(2), &number, 2)
        return self

    def u32(self, value):
        cdef uint64_t number = as_unsigned(value, U32_MAX, "u32")
        store32(self.extend(4), <uint32_t>number)
        return self

    def u64(self, value):
        cdef uint64_t number = as_unsigned(value, U64_MAX, "u64")
        store64(self.extend(8), number)
        return self

    def fixed(self, data, size):
        """Bytes whose number the reader knows; ValueError when `data` is not `size` long."""
        cdef bytes field = sized(data, as_unsigned(size, U32_MAX, "size"), "field")
        memcpy(self.extend(PyBytes_GET_SIZE(field)), octets(field), PyBytes_GET_SIZE(field))
        return self

    def variable(self, data, limit):
        """u32 length and bytes; ValueError above `limit`."""
        cdef bytes field = as_bytes(data)
        cdef uint64_t size = PyBytes_GET_SIZE(field)
        if size > as_unsigned(limit, U32_MAX, "limit"):
            raise ValueError(f"a field of {size} bytes is over its limit of {limit}")
        cdef uint8_t* out = self.extend(4 + size)
        store32(out, <uint32_t>size)
        memcpy(out + 4, octets(field), size)
        return self

    def finish(self):
        """Everything written so far."""
        return PyBytes_FromStringAndSize(<const char*>self.data, self.used)


def split_messages(frame, payload_max):
    """(type, epoch, payload start, payload end) of each message of a frame.

    The messages must fill the frame exactly, and there is at least one.
    """
    cdef bytes data = as_bytes(frame)
    cdef const uint8_t* its = octets(data)
    cdef Py_ssize_t length = PyBytes_GET_SIZE(data), position = 0, start
    cdef uint64_t limit = as_unsigned(payload_max, U32_MAX, "payload limit")
    cdef uint32_t size
    cdef list messages = []
    if length == 0:
        raise ValueError("an empty frame")
    while position < length:
        if length - position < HEADER:
            raise ValueError("a truncated message header")
        start = position + HEADER
        if (
            its[position] != MAGIC & 0xFF
            or its[position + 1] != MAGIC >> 8
            or its[position + 2] != 1
            or load32(its + position + 12) != 0
        ):
            raise ValueError("not a message header")
        size = load32(its + position + 8)
        if size > limit or <Py_ssize_t>size > length - start:
            raise ValueError(f"a payload of {size} bytes is over its limit or truncated")
        messages.append((its[position + 3], load32(its + position + 4), start, start + <Py_ssize_t>size))
        position = start + size
    return messages


def pack_message(type, epoch, payload):
    """Header (16 bytes) and payload."""
    cdef bytes body = as_bytes(payload)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
    cdef uint64_t kind = as_unsigned(type, U8_MAX, "type"), its_epoch = as_unsigned(epoch, U32_MAX, "epoch")
    if <uint64_t>size > U32_MAX:
        raise ValueError("a payload has at most 2**32-1 bytes")
    cdef bytes message = new_bytes(HEADER + size)
    cdef uint8_t* out = octets(message)
    out[0] = MAGIC & 0xFF
    out[1] = MAGIC >> 8
    out[2] = 1
    out[3] = <uint8_t>kind
    store32(out + 4, <uint32_t>its_epoch)
    store32(out + 8, <uint32_t>size)
    store32(out + 12, 0)
    memcpy(out + HEADER, octets(body), size)
    return message


cdef int put_bytes(Writer writer, uint8_t type, const char* data, Py_ssize_t size) except -1:
    if <uint64_t>size > U32_MAX:
        raise ValueError("a column has at most 2**32-1 bytes")
    cdef uint8_t* out = writer.extend(5 + <size_t>size)
    out[0] = type
    store32(out + 1, <uint32_t>size)
    memcpy(out + 5, data, size)
    return 0


def encode_row(table_id, values):
    """The canonical bytes of a row, or of a key when `values` are the primary key's columns.

    table_id u16, column count u16, then a type byte each: 0 null; 1 and i64; 2, u32 length and
    bytes; 3, u32 length and UTF-8. Text must be in Unicode NFC already: ValueError otherwise, as
    for a bool, a float, or an integer of more than 64 bits.
    """
    cdef tuple columns = tuple(values)
    cdef Writer writer = Writer.__new__(Writer)
    cdef uint8_t* out
    cdef int64_t number
    cdef Py_ssize_t size
    cdef const char* text
    writer.u16(table_id)
    if len(columns) > U16_MAX:
        raise ValueError("a row has at most 2**16-1 columns")
    writer.u16(len(columns))
    for value in columns:
        if value is None:
            writer.extend(1)[0] = 0
        elif PyLong_Check(value):
            if value is True or value is False:
                raise ValueError("a bool is not a column value")
            try:
                number = PyLong_AsLongLong(value)
            except OverflowError:
                raise ValueError("an integer column has 64 bits") from None
            out = writer.extend(9)
            out[0] = 1
            store64(out + 1, <uint64_t>number)
        elif PyBytes_Check(value):
            put_bytes(writer, 2, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
        elif PyUnicode_Check(value):
            if not (<str>value).isascii() and not is_normalized("NFC", value):
                raise ValueError("text is not in Unicode NFC")
            text = PyUnicode_AsUTF8AndSize(value, &size)
            put_bytes(writer, 3, text, size)
        else:
            raise ValueError(f"{value.__class__.__name__} is not a column type")
    return writer.finish()


def write_set_hash(entries):
    """H(tag8("WS") || for each (key, row or None) sorted by key: u32 length, key, present u8 [, u32 length, row]).

    ValueError when a key appears twice.
    """
    cdef list rows = [(as_bytes(key), None if row is None else as_bytes(row)) for key, row in entries]
    cdef Writer writer = Writer.__new__(Writer)
    cdef bytes out = new_bytes(32), key_bytes, row_bytes, previous = None
    cdef uint8_t* field
    rows.sort(key=itemgetter(0))
    memcpy(writer.extend(8), <const char*>b"WS\0\0\0\0\0\0", 8)
    for key, row in rows:
        if key == previous:
            raise ValueError("a key appears twice in the write set")
        previous = key
        key_bytes = key
        writer.variable(key_bytes, U32_MAX)
        field = writer.extend(1)
        field[0] = row is not None
        if row is not None:
            row_bytes = row
            writer.variable(row_bytes, U32_MAX)
    sha256_of(octets(out), writer.data, writer.used)
    return out
