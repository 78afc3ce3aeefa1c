"""The fast path in plain Python: its specification, and the build that runs where no compiler is.

Bytes and integers in, bytes and integers out; nothing here knows the protocol's rules. The compiled
modules must return the same bytes and refuse the same inputs; every test runs on both builds.
Bad values raise ValueError, wrong kinds of object TypeError. Deliberately elsewhere: which build
runs (`fastpath`), and what the fields mean (`nodes.wire`). One file, although long, because a
specification is read in one piece: hashing, Merkle trees, Ed25519, codec, requests, tally, state.
Integers are little-endian. H is SHA-256. A tag is at most 8 ASCII bytes, padded with NUL to 8.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from operator import index
from unicodedata import is_normalized

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

Buffer = bytes | bytearray | memoryview
ParsedRequest = tuple[bytes, bytes, bytes, int, int, int, int, int, bytes]
"""(leaf, digest, client, session, sequence, floor, valid_until_us, kind, record)."""

U8_MAX = 2**8 - 1
U16_MAX = 2**16 - 1
U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1
NUMBER_MAX = 2**53 - 1
"""Largest integer of a request field: the largest that every JSON reader keeps exact."""

HASH_BYTES = 32
REQUEST_FIXED_BYTES = 88
SIGNATURE_BYTES = 64
REQUEST_KIND_MAX = 3
PREFIX_BYTES = 40
MESSAGE_HEADER_BYTES = 16
MESSAGE_MAGIC = 0x0A0B
LANES = 1024
VECTOR_BYTES = 2 * LANES

_REQUEST = struct.Struct("<BBH16s32sQQQQI")
_BATCH = struct.Struct("<BBHI16sIIQQ32s")
_RESULT = struct.Struct("<BQI32sH32s")
_MESSAGE = struct.Struct("<HBBIII")


def _contiguous(data: Buffer) -> bytes:
    """The bytes of `data`. TypeError when it is not bytes-like, BufferError when it has gaps."""
    if type(data) is bytes:
        return data
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the buffer is not contiguous")
    return view.tobytes()


def _sized(data: Buffer, size: int, what: str) -> bytes:
    contiguous = _contiguous(data)
    if len(contiguous) != size:
        raise ValueError(f"{what} is {len(contiguous)} bytes, must be {size}")
    return contiguous


def _unsigned(value: int, limit: int, what: str) -> int:
    number = index(value)
    if not 0 <= number <= limit:
        raise ValueError(f"{what} {number} is not in 0..{limit}")
    return number


def _range(length: int, start: int, end: int) -> tuple[int, int]:
    first, last = index(start), index(end)
    if not 0 <= first <= last <= length:
        raise ValueError(f"range {first}..{last} is not inside {length} bytes")
    return first, last


# Hashing -----------------------------------------------------------------------------------------


def sha256(data: Buffer) -> bytes:
    """SHA-256 (FIPS 180-4), 32 bytes."""
    return hashlib.sha256(_contiguous(data)).digest()


def tagged_hash(tag: Buffer, *parts: Buffer) -> bytes:
    """H(tag padded to 8 bytes || parts). ValueError for a tag of 0 or more than 8 bytes."""
    name = _contiguous(tag)
    if not 1 <= len(name) <= 8:
        raise ValueError("a tag is 1 to 8 bytes")
    return sha256(name.ljust(8, b"\0") + b"".join([_contiguous(part) for part in parts]))


def leaf_hash(data: Buffer) -> bytes:
    """H(0x00 || data): the leaf hash of RFC 6962, section 2.1."""
    return sha256(b"\0" + _contiguous(data))


# Merkle trees ------------------------------------------------------------------------------------
# The shape of RFC 6962: split at the largest power of two below n, no leaf is ever doubled. Pairing
# neighbours level by level, and lifting an odd last one unchanged, gives exactly that shape.


def _levels(leaves: Sequence[Buffer]) -> list[list[bytes]]:
    """All levels of the tree from the leaf hashes up to the root."""
    level = [_sized(leaf, HASH_BYTES, "leaf") for leaf in leaves]
    levels = [level]
    while len(level) > 1:
        above = [sha256(b"\1" + level[i] + level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        levels.append(above)
        level = above
    return levels


def _path(levels: list[list[bytes]], position: int) -> bytes:
    siblings = []
    for level in levels[:-1]:
        sibling = position ^ 1
        if sibling < len(level):
            siblings.append(level[sibling])
        position //= 2
    return b"".join(siblings)


def merkle_root(leaves: Sequence[Buffer]) -> bytes:
    """Root over 32-byte leaf hashes; H("") for none."""
    if not len(leaves):
        return sha256(b"")
    return _levels(leaves)[-1][0]


def merkle_path(leaves: Sequence[Buffer], index: int) -> bytes:
    """Audit path of leaf `index` (RFC 6962, section 2.1.1): the siblings bottom-up, concatenated."""
    return merkle_paths(leaves, [index])[0]


def merkle_paths(leaves: Sequence[Buffer], indices: Iterable[int]) -> list[bytes]:
    """The audit paths of several leaves; the tree is hashed once."""
    levels = _levels(leaves)
    count = len(levels[0])
    positions = [index(position) for position in indices]
    for position in positions:
        if not 0 <= position < count:
            raise ValueError(f"leaf index {position} is not in a tree of {count}")
    return [_path(levels, position) for position in positions]


def merkle_fold(leaf: Buffer, index: int, count: int, path: Buffer) -> bytes:
    """The root that `path` leads to from leaf `index` of `count` (RFC 9162, section 2.1.3.2).

    ValueError when the path has another length than (index, count) demands: so a node can never
    pass for a leaf.
    """
    node = _sized(leaf, HASH_BYTES, "leaf")
    siblings = _contiguous(path)
    last = _unsigned(count, U32_MAX, "leaf count") - 1
    position = _unsigned(index, U32_MAX, "leaf index")
    if position > last:
        raise ValueError(f"leaf index {position} is not in a tree of {last + 1}")
    offset = 0
    while last:
        if position % 2 or position < last:
            sibling = siblings[offset : offset + HASH_BYTES]
            offset += HASH_BYTES
            if len(sibling) != HASH_BYTES:
                raise ValueError("the Merkle path is too short")
            node = sha256(b"\1" + sibling + node) if position % 2 else sha256(b"\1" + node + sibling)
        position //= 2
        last //= 2
    if offset != len(siblings):
        raise ValueError("the Merkle path is too long")
    return node


# Ed25519 -----------------------------------------------------------------------------------------
# RFC 8032 with the strict rules: what the pre-checks refuse must not depend on the library, because
# two replicas that disagree on one signature disagree on a whole batch.

ED25519_P = 2**255 - 19
ED25519_L = 2**252 + 27742317777372353535851937790883648493
_SMALL_ORDER_Y = frozenset(
    {
        0,
        1,
        ED25519_P - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    }
)
"""The y of the eight points whose order divides 8; either sign of x."""


def precheck(encoded: bytes) -> bool:
    """Is a point canonical (y < p) and not of small order? Whether it is on the curve at all, libsodium decides."""
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    return y < ED25519_P and y not in _SMALL_ORDER_Y


def verify(public_key: Buffer, message: Buffer, signature: Buffer) -> bool:
    """Strict cofactorless Ed25519: refuses S >= L, and a non-canonical or small-order A or R.

    `public_key` 32 bytes, `signature` 64 bytes: other lengths are a ValueError.
    """
    key = _sized(public_key, HASH_BYTES, "public key")
    sealed = _sized(signature, SIGNATURE_BYTES, "signature")
    text = _contiguous(message)
    if int.from_bytes(sealed[32:], "little") >= ED25519_L:
        return False
    if not (precheck(key) and precheck(sealed[:32])):
        return False
    try:
        crypto_sign_open(sealed + text, key)
    except BadSignatureError:
        return False
    return True


def verify_many(items: Sequence[tuple[Buffer, Buffer, Buffer]]) -> bytes:
    """One byte for each (public key, message, signature): 1 good, 0 bad."""
    checked = [
        (_sized(key, HASH_BYTES, "public key"), _contiguous(text), _sized(sealed, SIGNATURE_BYTES, "signature"))
        for key, text, sealed in items
    ]
    return bytes([verify(key, text, sealed) for key, text, sealed in checked])


def sign(secret_key: Buffer, message: Buffer) -> bytes:
    """64-byte signature. `secret_key`: 32-byte seed, or seed and public key (64 bytes, twice as fast)."""
    secret = _contiguous(secret_key)
    if len(secret) == 32:
        secret = crypto_sign_seed_keypair(secret)[1]
    elif len(secret) != 64:
        raise ValueError("a secret key is a 32-byte seed or seed and public key, 64 bytes")
    return crypto_sign(_contiguous(message), secret)[:SIGNATURE_BYTES]


def public_key(seed: Buffer) -> bytes:
    """The 32-byte public key of a 32-byte seed."""
    return crypto_sign_seed_keypair(_sized(seed, 32, "seed"))[0]


def public_key_is_valid(public_key: Buffer) -> bool:
    """A canonical point of the prime-order subgroup, not the identity: what key generation makes.

    Stricter than `verify`, which must also judge keys of mixed order. False for any other length.
    """
    key = _contiguous(public_key)
    return len(key) == 32 and precheck(key) and crypto_core_ed25519_is_valid_point(key)


# Codec -------------------------------------------------------------------------------------------


class Reader:
    """Reads packed little-endian fields from buffer[start:end]; ValueError when too little is left."""

    __slots__ = ("_data", "_end", "_position")

    def __init__(self, buffer: Buffer, start: int = 0, end: int | None = None) -> None:
        self._data = _contiguous(buffer)
        self._position, self._end = _range(len(self._data), start, len(self._data) if end is None else end)

    @property
    def position(self) -> int:
        """Offset in the buffer of the next byte to read."""
        return self._position

    def _take(self, size: int) -> bytes:
        first = self._position
        if size > self._end - first:
            raise ValueError(f"truncated: {size} bytes wanted, {self._end - first} left")
        self._position = first + size
        return self._data[first : self._position]

    def u8(self) -> int:
        return self._take(1)[0]

    def u16(self) -> int:
        return int.from_bytes(self._take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self._take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self._take(8), "little")

    def fixed(self, size: int) -> bytes:
        """The next `size` bytes."""
        return self._take(_unsigned(size, U32_MAX, "size"))

    def variable(self, limit: int) -> bytes:
        """A u32 length, at most `limit`, and that many bytes. On error nothing has been read."""
        bound = _unsigned(limit, U32_MAX, "limit")
        before = self._position
        size = self.u32()
        if size > bound or size > self._end - self._position:
            self._position = before
            raise ValueError(f"a field of {size} bytes is over its limit or truncated")
        return self._take(size)

    def rest(self) -> bytes:
        """All bytes that are left."""
        return self._take(self._end - self._position)

    def finish(self) -> None:
        """ValueError when bytes are left over."""
        if self._position != self._end:
            raise ValueError(f"{self._end - self._position} trailing bytes")


class Writer:
    """Appends packed little-endian fields; every method but `finish` returns the writer."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def u8(self, value: int) -> Writer:
        self._data += _unsigned(value, U8_MAX, "u8").to_bytes(1, "little")
        return self

    def u16(self, value: int) -> Writer:
        self._data += _unsigned(value, U16_MAX, "u16").to_bytes(2, "little")
        return self

    def u32(self, value: int) -> Writer:
        self._data += _unsigned(value, U32_MAX, "u32").to_bytes(4, "little")
        return self

    def u64(self, value: int) -> Writer:
        self._data += _unsigned(value, U64_MAX, "u64").to_bytes(8, "little")
        return self

    def fixed(self, data: Buffer, size: int) -> Writer:
        """Bytes whose number the reader knows; ValueError when `data` is not `size` long."""
        self._data += _sized(data, _unsigned(size, U32_MAX, "size"), "field")
        return self

    def variable(self, data: Buffer, limit: int) -> Writer:
        """u32 length and bytes; ValueError above `limit`."""
        field = _contiguous(data)
        if len(field) > _unsigned(limit, U32_MAX, "limit"):
            raise ValueError(f"a field of {len(field)} bytes is over its limit of {limit}")
        self._data += len(field).to_bytes(4, "little") + field
        return self

    def finish(self) -> bytes:
        """Everything written so far."""
        return bytes(self._data)


def split_messages(frame: Buffer, payload_max: int) -> list[tuple[int, int, int, int]]:
    """(type, epoch, payload start, payload end) of each message of a frame.

    The messages must fill the frame exactly, and there is at least one.
    """
    data = _contiguous(frame)
    limit = _unsigned(payload_max, U32_MAX, "payload limit")
    if not data:
        raise ValueError("an empty frame")
    messages = []
    position = 0
    while position < len(data):
        start = position + MESSAGE_HEADER_BYTES
        if start > len(data):
            raise ValueError("a truncated message header")
        magic, version, kind, epoch, size, reserved = _MESSAGE.unpack_from(data, position)
        if magic != MESSAGE_MAGIC or version != 1 or reserved != 0:
            raise ValueError("not a message header")
        if size > limit or size > len(data) - start:
            raise ValueError(f"a payload of {size} bytes is over its limit or truncated")
        position = start + size
        messages.append((kind, epoch, start, position))
    return messages


def pack_message(type: int, epoch: int, payload: Buffer) -> bytes:
    """Header (16 bytes) and payload."""
    body = _contiguous(payload)
    header = _MESSAGE.pack(
        MESSAGE_MAGIC,
        1,
        _unsigned(type, U8_MAX, "type"),
        _unsigned(epoch, U32_MAX, "epoch"),
        _unsigned(len(body), U32_MAX, "payload length"),
        0,
    )
    return header + body


def encode_row(table_id: int, values: Sequence[int | bytes | str | None]) -> bytes:
    """The canonical bytes of a row, or of a key when `values` are the primary key's columns.

    table_id u16, column count u16, then a type byte each: 0 null; 1 and i64; 2, u32 length and
    bytes; 3, u32 length and UTF-8. Text must be in Unicode NFC already: ValueError otherwise, as
    for a bool, a float, or an integer of more than 64 bits.
    """
    columns = list(values)
    parts = [
        _unsigned(table_id, U16_MAX, "table id").to_bytes(2, "little"),
        _unsigned(len(columns), U16_MAX, "column count").to_bytes(2, "little"),
    ]
    for value in columns:
        match value:
            case None:
                parts.append(b"\0")
            case bool():
                raise ValueError("a bool is not a column value")
            case int():
                if not -(2**63) <= value < 2**63:
                    raise ValueError("an integer column has 64 bits")
                parts.append(b"\1" + value.to_bytes(8, "little", signed=True))
            case bytes():
                parts.append(b"\2" + _unsigned(len(value), U32_MAX, "length").to_bytes(4, "little") + value)
            case str():
                if not is_normalized("NFC", value):
                    raise ValueError("text is not in Unicode NFC")
                text = value.encode()
                parts.append(b"\3" + _unsigned(len(text), U32_MAX, "length").to_bytes(4, "little") + text)
            case _:
                raise ValueError(f"{value.__class__.__name__} is not a column type")
    return b"".join(parts)


def write_set_hash(entries: Iterable[tuple[Buffer, Buffer | None]]) -> bytes:
    """H(tag8("WS") || for each (key, row or None) sorted by key: u32 length, key, present u8 [, u32 length, row]).

    ValueError when a key appears twice.
    """
    rows = sorted(
        ((_contiguous(key), None if row is None else _contiguous(row)) for key, row in entries),
        key=lambda entry: entry[0],
    )
    parts = []
    previous = None
    for key, row in rows:
        if key == previous:
            raise ValueError("a key appears twice in the write set")
        previous = key
        parts.append(len(key).to_bytes(4, "little") + key)
        parts.append(b"\0" if row is None else b"\1" + len(row).to_bytes(4, "little") + row)
    return tagged_hash(b"WS", *parts)


# Requests and batches ----------------------------------------------------------------------------

_NO_ANNEX = hashlib.sha256(b"").digest()


def parse_requests(
    buffer: Buffer, start: int, end: int, cluster_id: Buffer, count_max: int, operation_bytes_max: int
) -> list[ParsedRequest]:
    """The request records that fill buffer[start:end], each with its digest and leaf.

    ValueError for the first record that breaks a stateless rule: version 1, kind 0..3, flags 0, this
    cluster, 1 <= floor <= sequence, numbers <= 2**53-1, operation within its limit; or when there
    are more than `count_max`. Signatures are not looked at (`verify_requests`).
    """
    data = _contiguous(buffer)
    position, last = _range(len(data), start, end)
    cluster = _sized(cluster_id, 16, "cluster id")
    operation_limit = _unsigned(operation_bytes_max, U32_MAX, "operation limit")
    count_limit = _unsigned(count_max, U32_MAX, "request limit")
    requests: list[ParsedRequest] = []
    while position < last:
        if len(requests) == count_limit:
            raise ValueError(f"more than {count_limit} requests")
        if last - position < REQUEST_FIXED_BYTES + SIGNATURE_BYTES:
            raise ValueError("a truncated request")
        version, kind, flags, its_cluster, client, session, sequence, floor, valid_until_us, size = (
            _REQUEST.unpack_from(data, position)
        )
        if version != 1 or kind > REQUEST_KIND_MAX or flags != 0:
            raise ValueError("a request of unknown version, kind or flags")
        if its_cluster != cluster:
            raise ValueError("a request for another cluster")
        if max(session, sequence, floor, valid_until_us) > NUMBER_MAX or not 1 <= floor <= sequence:
            raise ValueError("a request whose session fields make no sense")
        if size > operation_limit or size > last - position - REQUEST_FIXED_BYTES - SIGNATURE_BYTES:
            raise ValueError(f"an operation of {size} bytes is over its limit or truncated")
        body_end = position + REQUEST_FIXED_BYTES + size
        record_end = body_end + SIGNATURE_BYTES
        digest = tagged_hash(b"REQ", data[position:body_end])
        leaf = leaf_hash(digest + data[body_end:record_end] + _NO_ANNEX)
        record = data[position:record_end]
        requests.append((leaf, digest, client, session, sequence, floor, valid_until_us, kind, record))
        position = record_end
    return requests


def verify_requests(prefix: Buffer, records: Sequence[Buffer]) -> bytes:
    """One byte for each request record: 1 when prefix || record without signature is signed by its client.

    `prefix`: the 40 bytes that separate the domain. A record whose length is not the one that it
    states is 0.
    """
    domain = _sized(prefix, PREFIX_BYTES, "prefix")
    flags = bytearray()
    for record in [_contiguous(record) for record in records]:
        size = len(record) - REQUEST_FIXED_BYTES - SIGNATURE_BYTES
        good = (
            size >= 0
            and int.from_bytes(record[84:88], "little") == size
            and verify(record[20:52], domain + record[:-SIGNATURE_BYTES], record[-SIGNATURE_BYTES:])
        )
        flags.append(good)
    return bytes(flags)


def has_duplicates(digests: Sequence[Buffer]) -> bool:
    """Does any 32-byte digest appear twice?"""
    seen = {_sized(digest, HASH_BYTES, "digest") for digest in digests}
    return len(seen) != len(digests)


def assemble_batch(
    kind: int,
    proposer: int,
    cluster_id: Buffer,
    epoch: int,
    sequence: int,
    timestamp_us: int,
    records: Sequence[Buffer],
    leaves: Sequence[Buffer],
) -> tuple[bytes, bytes, bytes]:
    """(header of 80 bytes, body, digest) of the batch of these records, whose leaves are given."""
    if len(records) != len(leaves):
        raise ValueError(f"{len(records)} records and {len(leaves)} leaves")
    body = b"".join([_contiguous(record) for record in records])
    header = _BATCH.pack(
        1,
        _unsigned(kind, U8_MAX, "kind"),
        _unsigned(proposer, U16_MAX, "proposer"),
        _unsigned(len(records), U32_MAX, "request count"),
        _sized(cluster_id, 16, "cluster id"),
        _unsigned(epoch, U32_MAX, "epoch"),
        _unsigned(len(body), U32_MAX, "body length"),
        _unsigned(sequence, U64_MAX, "sequence"),
        _unsigned(timestamp_us, U64_MAX, "timestamp"),
        merkle_root(leaves),
    )
    return header, body, tagged_hash(b"BATCH", header)


def result_leaves(
    sequence: int, first_index: int, digests: Sequence[Buffer], statuses: Sequence[int], results: Sequence[Buffer]
) -> list[bytes]:
    """Leaf hash of each result: H(0x00 || ver 1 || sequence u64 || index u32 || digest || status u16 || H(result))."""
    if not len(digests) == len(statuses) == len(results):
        raise ValueError("digests, statuses and results differ in number")
    block = _unsigned(sequence, U64_MAX, "sequence")
    first = _unsigned(first_index, U32_MAX, "first index")
    _unsigned(first + len(digests), U32_MAX, "last index")
    return [
        leaf_hash(
            _RESULT.pack(
                1,
                block,
                first + i,
                _sized(digest, HASH_BYTES, "digest"),
                _unsigned(status, U16_MAX, "status"),
                sha256(result),
            )
        )
        for i, (digest, status, result) in enumerate(zip(digests, statuses, results, strict=True))
    ]


# Votes -------------------------------------------------------------------------------------------


class Tally:
    """Votes of `senders` replicas, numbered from 0, for 32-byte digests. The first vote of each counts."""

    __slots__ = ("_votes",)

    def __init__(self, senders: int) -> None:
        number = _unsigned(senders, U16_MAX, "number of senders")
        if number == 0:
            raise ValueError("a tally needs a sender")
        self._votes: list[bytes | None] = [None] * number

    def _sender(self, sender: int) -> int:
        return _unsigned(sender, len(self._votes) - 1, "sender")

    def add(self, sender: int, digest: Buffer) -> int:
        """The number of votes for `digest` with this one; 0: a repetition; -1: it voted otherwise before."""
        position = self._sender(sender)
        vote = _sized(digest, HASH_BYTES, "digest")
        earlier = self._votes[position]
        if earlier is None:
            self._votes[position] = vote
            return self._votes.count(vote)
        return 0 if earlier == vote else -1

    def count(self, digest: Buffer) -> int:
        """Votes for `digest`."""
        return self._votes.count(_sized(digest, HASH_BYTES, "digest"))

    def voters(self, digest: Buffer) -> list[int]:
        """Who voted for `digest`, ascending."""
        vote = _sized(digest, HASH_BYTES, "digest")
        return [sender for sender, its in enumerate(self._votes) if its == vote]

    def vote_of(self, sender: int) -> bytes | None:
        """What this sender voted for, or None."""
        return self._votes[self._sender(sender)]


def kth_largest(values: Iterable[int], k: int) -> int:
    """The k-th largest value, counted from 1; equal values count each."""
    ordered = sorted(values, reverse=True)
    position = index(k)
    if not 1 <= position <= len(ordered):
        raise ValueError(f"there is no {position}-th of {len(ordered)} values")
    return ordered[position - 1]


# State hash --------------------------------------------------------------------------------------


class StateHash:
    """LtHash16 of a set of rows in `buckets` vectors (Bellare and Micciancio 1997; Lewi et al. 2019).

    A row's element is SHAKE128(tag8("ROW") || u32 length || key || u32 length || row), 2048 bytes read
    as 1024 u16 lanes; a bucket is the lane-wise sum mod 2**16 of its rows' elements, so that adding
    and removing commute. The set is as the caller says: an old row that was never added is not noticed.
    """

    __slots__ = ("_digests", "_vectors")

    def __init__(self, buckets: int) -> None:
        number = _unsigned(buckets, 2**16, "number of buckets")
        if number == 0:
            raise ValueError("a state hash needs a bucket")
        self._vectors = [[0] * LANES for _ in range(number)]
        self._digests: list[bytes | None] = [None] * number

    def _add(self, bucket: int, sign: int, key: bytes, row: bytes) -> None:
        text = b"ROW".ljust(8, b"\0") + len(key).to_bytes(4, "little") + key + len(row).to_bytes(4, "little") + row
        lanes = struct.unpack(f"<{LANES}H", hashlib.shake_128(text).digest(VECTOR_BYTES))
        vector = self._vectors[bucket]
        vector[:] = [(a + sign * b) & 0xFFFF for a, b in zip(vector, lanes, strict=True)]
        self._digests[bucket] = None

    def update(self, key: Buffer, old_row: Buffer | None, new_row: Buffer | None) -> None:
        """Take the old row out (None: there was none) and put the new one in (None: deleted)."""
        self.update_many([(key, old_row, new_row)])

    def update_many(self, changes: Iterable[tuple[Buffer, Buffer | None, Buffer | None]]) -> None:
        """`update` for each (key, old row, new row); on an error none has been done."""
        checked = [
            (_contiguous(key), None if old is None else _contiguous(old), None if new is None else _contiguous(new))
            for key, old, new in changes
        ]
        for key, old, new in checked:
            bucket = int.from_bytes(sha256(key)[:2], "little") % len(self._vectors)
            if old == new:
                continue
            if old is not None:
                self._add(bucket, -1, key, old)
            if new is not None:
                self._add(bucket, +1, key, new)

    def _bucket(self, i: int) -> int:
        return _unsigned(i, len(self._vectors) - 1, "bucket")

    def vector(self, i: int) -> bytes:
        """The 2048 bytes of bucket `i`."""
        return struct.pack(f"<{LANES}H", *self._vectors[self._bucket(i)])

    def load(self, i: int, vector: Buffer) -> None:
        """Replace the vector of bucket `i`."""
        lanes = struct.unpack(f"<{LANES}H", _sized(vector, VECTOR_BYTES, "vector"))
        bucket = self._bucket(i)
        self._vectors[bucket] = list(lanes)
        self._digests[bucket] = None

    def bucket_digest(self, i: int) -> bytes:
        """H(vector of bucket `i`)."""
        bucket = self._bucket(i)
        digest = self._digests[bucket]
        if digest is None:
            digest = self._digests[bucket] = sha256(self.vector(bucket))
        return digest

    def root(self) -> bytes:
        """Merkle root over H(0x00 || bucket digest) of all buckets."""
        return merkle_root([leaf_hash(self.bucket_digest(i)) for i in range(len(self._vectors))])
