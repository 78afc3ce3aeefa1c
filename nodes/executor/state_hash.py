"""The state root: bucket vectors at the last boundary, and the net changes since.

Always holds: the vectors describe the state after block `sequence`, a multiple of the state interval
(or genesis), whose root is in the block headers; `changes` is what later blocks made of it, row by
row. Hot rows are so hashed once an interval, not once a block. The journal table keeps the same
changes across a restart, which lets a scan of the rows be checked against the last root at any time.
Deliberately elsewhere: the lattice hash itself (`fastpath.StateHash`), reading the rows (`verify.py`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import fastpath
from nodes.executor.rows import Delta

VECTOR_BYTES = 2048
SIDECAR_TAG = b"VECTORS"
_SIDECAR = struct.Struct("<QI32s")
_COUNT = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_ABSENT = 0xFFFF_FFFF
"""Length that stands for an absent row."""


class StateTracker:
    """State hash of the executed blocks. One block at a time: `advance`, then `commit` or `undo`."""

    def __init__(self, buckets: int, interval: int) -> None:
        self._buckets = buckets
        self._interval = interval
        self._vectors = fastpath.StateHash(buckets)
        self._advanced: list[Delta] | None = None
        self.sequence = 0
        self.root = self._vectors.root()
        self.changes: dict[bytes, tuple[bytes | None, bytes | None]] = {}
        """key -> (row at `sequence`, row now)."""

    def load(self, vectors: fastpath.StateHash, sequence: int, journal: Iterable[bytes]) -> None:
        """Start from vectors of a boundary and the journal of the blocks after it."""
        self._vectors = vectors
        self.sequence = sequence
        self.root = vectors.root()
        self.changes = {}
        for entries in journal:
            self._merge(decode_journal(entries))

    def is_boundary(self, sequence: int) -> bool:
        return sequence % self._interval == 0

    def advance(self, sequence: int, deltas: Sequence[Delta]) -> tuple[int, bytes]:
        """(state sequence, state root) for the header of block `sequence`, which changes these rows."""
        if not self.is_boundary(sequence):
            return self.sequence, self.root
        total = dict(self.changes)
        for key, old, new in deltas:
            first = total.get(key)
            total[key] = (old if first is None else first[0], new)
        self._advanced = [Delta(key, old, new) for key, (old, new) in total.items() if old != new]
        self._vectors.update_many(self._advanced)
        return sequence, self._vectors.root()

    def commit(self, sequence: int, root: bytes, deltas: Sequence[Delta]) -> None:
        """The block handed to `advance` is in the database; `root` is what was answered for it."""
        if self._advanced is None:
            self._merge(deltas)
        else:
            self._advanced = None
            self.changes = {}
            self.sequence, self.root = sequence, root

    def undo(self) -> None:
        """The block handed to `advance`, if any, was rolled back."""
        if self._advanced is not None:
            self._vectors.update_many([(key, new, old) for key, old, new in self._advanced])
            self._advanced = None

    def _merge(self, deltas: Iterable[Delta]) -> None:
        for key, old, new in deltas:
            first = self.changes.get(key)
            self.changes[key] = (old if first is None else first[0], new)

    def write_sidecar(self, path: Path) -> None:
        """Keep the vectors for the next start, so that it needs no scan. Written whole or not at all."""
        content = _SIDECAR.pack(self.sequence, self._buckets, self.root) + b"".join(
            self._vectors.vector(i) for i in range(self._buckets)
        )
        temporary = path.with_suffix(".new")
        temporary.write_bytes(content + fastpath.tagged_hash(SIDECAR_TAG, content))
        os.replace(temporary, path)


def read_sidecar(path: Path, buckets: int, sequence: int, root: bytes) -> fastpath.StateHash | None:
    """The vectors that a clean shutdown left, if they are those of this root; the file is used up."""
    size = _SIDECAR.size + buckets * VECTOR_BYTES + 32
    try:
        with path.open("rb") as file:
            content = file.read(size + 1)
        path.unlink()
    except FileNotFoundError:
        return None
    body, checksum = content[:-32], content[-32:]
    if len(content) != size or fastpath.tagged_hash(SIDECAR_TAG, body) != checksum:
        return None
    if _SIDECAR.unpack_from(body) != (sequence, buckets, root):
        return None
    vectors = fastpath.StateHash(buckets)
    for i in range(buckets):
        start = _SIDECAR.size + i * VECTOR_BYTES
        vectors.load(i, body[start : start + VECTOR_BYTES])
    return vectors if vectors.root() == root else None


def encode_journal(deltas: Sequence[Delta]) -> bytes:
    """Bytes of a block's changes for the journal table."""
    parts = [_COUNT.pack(len(deltas))]
    for delta in deltas:
        for field in delta:
            if field is None:
                parts.append(_LENGTH.pack(_ABSENT))
            else:
                parts.append(_LENGTH.pack(len(field)))
                parts.append(field)
    return b"".join(parts)


def decode_journal(data: bytes) -> list[Delta]:
    """The changes in a journal row. ValueError when it was damaged."""
    position = _COUNT.size
    deltas: list[Delta] = []
    try:
        (count,) = _COUNT.unpack_from(data)
        for _ in range(count):
            fields: list[bytes | None] = []
            for _ in range(3):
                (length,) = _LENGTH.unpack_from(data, position)
                position += _LENGTH.size
                if length == _ABSENT:
                    fields.append(None)
                    continue
                fields.append(data[position : position + length])
                position += length
            key, old, new = fields
            if key is None:
                raise ValueError("a journal entry without a key")
            deltas.append(Delta(key, old, new))
    except struct.error as error:
        raise ValueError(f"a damaged journal: {error}") from error
    if position != len(data):
        raise ValueError("a damaged journal: its length is wrong")
    return deltas
