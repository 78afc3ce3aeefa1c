"""The log of one replica: a thread that appends and syncs, replay at boot, collection.

Always: a record is reported durable only after `fdatasync` returned for it and all before it.
An error of the disk ends the process and is never retried: after a failed sync the kernel may
have marked the pages clean, so a second, successful sync would be a lie (Rebello et al.,
Can Applications Recover from fsync Failures?, ATC 2020). One process at a time owns a log (flock).
Not here: which record must be durable before what (`nodes.core.ready`), and repeating records
that are still needed before `collect` (the caller decides the lsn).
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import NamedTuple

from nodes.wal.segment import (
    HEADER_BYTES,
    MAGIC_BEFORE,
    MARK,
    RECORD_BYTES_MAX,
    RECORD_HEADER_BYTES,
    SECRET_BYTES,
    SEGMENT_BYTES,
    Checksum,
    LogIdentity,
    LogRecord,
    SegmentHeader,
    WalCorrupt,
    WalError,
    WalLocked,
    WalMismatch,
    pack_header,
    pack_record,
    proof_of_corruption,
    segment_path,
    segment_paths,
    unpack_header,
    unpack_record,
)

GROUP_BYTES_MAX = 8 * 1024 * 1024
"""One write and sync takes at most about this much, so that the first of a burst does not wait for the last."""
EXIT_DISK_FAILURE = 74
"""EX_IOERR of sysexits.h."""


class _Append(NamedTuple):
    first_lsn: int
    records: Sequence[tuple[int, bytes]]


class _Collect(NamedTuple):
    below_lsn: int


class _Close(NamedTuple):
    pass


class _Group:
    """Records that are written and synced together."""

    __slots__ = ("chunks", "lsn", "size")

    def __init__(self, lsn: int) -> None:
        self.lsn = lsn
        """Of the last record."""
        self.chunks: list[bytes] = []
        self.size = 0

    def add(self, lsn: int, chunk: bytes) -> None:
        self.lsn = lsn
        self.chunks.append(chunk)
        self.size += len(chunk)


@dataclass(slots=True)
class WalStatistics:
    """Counters of the writer thread; read without a lock, each field is one word."""

    syncs: int = 0
    records: int = 0
    bytes: int = 0
    sync_us_total: int = 0
    sync_us_last: int = 0
    sync_us_max: int = 0


def stop_process(error: BaseException) -> None:
    """The default answer to a disk that failed: end the process at once, without any clean-up."""
    sys.stderr.write(f"write-ahead log failed, stopping the process: {error!r}\n")
    sys.stderr.flush()
    os._exit(EXIT_DISK_FAILURE)


class Wal:
    """Open with the constructor, read everything with `replay`, then append.

    `identity` is used when the log is new; an existing log must be of the same cluster and replica
    and keeps its own nonce and creation time (`self.identity`). `event_fd` becomes readable whenever
    `durable_lsn` has grown. `append`, `collect` and `close` belong to one thread.
    """

    def __init__(
        self,
        directory: Path,
        identity: LogIdentity,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        synchronize: Callable[[int], None] = os.fdatasync,
        on_failure: Callable[[BaseException], None] = stop_process,
    ) -> None:
        """Raises WalLocked, WalMismatch, WalCorrupt (a damaged header), OSError."""
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._synchronize = synchronize
        self._on_failure = on_failure
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_fd = _lock(directory)
        try:
            self._segments, existing = _read_headers(directory, identity)
        except BaseException:
            os.close(self._lock_fd)
            raise
        self.identity = existing.identity if existing is not None else identity
        self._secret = existing.secret if existing is not None else secrets.token_bytes(SECRET_BYTES)
        self._checksum = Checksum(self._secret)
        self.is_new = existing is None
        self.statistics = WalStatistics()
        self.durable_lsn = 0
        self.last_lsn = 0
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.torn_bytes = 0
        """How much of an unfinished tail `replay` cut off."""
        self._queue: SimpleQueue[_Append | _Collect | _Close] = SimpleQueue()
        self._fd = -1
        self._offset = 0
        self._thread: threading.Thread | None = None

    def replay(self) -> Iterator[LogRecord]:
        """Every record, oldest first; to be exhausted once, before the first append.

        Cuts a torn tail off, then starts the writer. Raises WalCorrupt when a record that had been
        durable is damaged or missing.
        """
        if self._fd >= 0:
            raise WalError("this log has been replayed already")
        expected = self._segments[0][0] if self._segments else 1
        end = 0
        for position, (first_lsn, path) in enumerate(self._segments):
            if first_lsn != expected:
                raise WalCorrupt(f"{path.name}: expected the segment that begins with record {expected}")
            data = path.read_bytes()
            end = HEADER_BYTES
            while (record := unpack_record(self._checksum, data, end)) is not None:
                if record.lsn != expected:
                    raise WalCorrupt(f"{path.name}: record {record.lsn} at byte {end} should be {expected}")
                expected += 1
                end += RECORD_HEADER_BYTES + len(record.payload)
                if record.type != MARK:
                    yield record
            last = position == len(self._segments) - 1
            witness = proof_of_corruption(self._checksum, data, end, expected)
            if witness is not None or (not last and end != len(data)):
                later = f"record {witness}" if witness is not None else "a later segment"
                raise WalCorrupt(f"{path.name}: bad record {expected} at byte {end}; {later} says it was durable")
            if last:
                self.torn_bytes = len(data[end:].rstrip(b"\x00"))
        self.last_lsn = self.durable_lsn = expected - 1
        self._open_active(end)
        self._thread = threading.Thread(target=self._run, name="wal", daemon=True)
        self._thread.start()

    def append(self, type: int, payload: bytes) -> int:
        """`append_all` of one record."""
        return self.append_all([(type, payload)])

    def append_all(self, records: Sequence[tuple[int, bytes]]) -> int:
        """Queue (type, payload) pairs for writing, together; the lsn of the last. `type` is 1..255.

        A record is durable when `durable_lsn` reaches its lsn. The queue has no bound of its own: what a
        caller may owe the disk is bounded by the window of slots it accepts.
        """
        if self._thread is None:
            raise WalError("replay the log before appending to it")
        for type, payload in records:
            if not 0 < type < 256 or len(payload) > RECORD_BYTES_MAX:
                raise ValueError("record type or payload size out of range")
        if records:
            self._queue.put(_Append(self.last_lsn + 1, records))
            self.last_lsn += len(records)
        return self.last_lsn

    def collect(self, below_lsn: int) -> None:
        """Delete the finished segments whose records are all below `below_lsn`.

        The writer thread does it, when what was appended before this call is durable. What is still needed
        of those records is to be appended again first: see `kept_from`.
        """
        self._queue.put(_Collect(below_lsn))

    def take_event(self) -> int:
        """Reset `event_fd` and return `durable_lsn`."""
        try:
            os.eventfd_read(self.event_fd)
        except BlockingIOError:
            pass  # nothing new; the number below is right all the same
        return self.durable_lsn

    def close(self) -> None:
        """Write and sync what is queued, mark the end, release the lock."""
        if self._thread is not None:
            self._queue.put(_Close())
            self._thread.join()
            self._thread = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            os.close(self.event_fd)
            self._lock_fd = -1

    def kept_from(self, below_lsn: int) -> int:
        """The first lsn that `collect(below_lsn)` would leave.

        To collect: take this, append again what is live below it, and `collect` it rather than `below_lsn`,
        since the writer may begin another segment meanwhile.
        """
        firsts = [first_lsn for first_lsn, _ in list(self._segments)]
        return max((first_lsn for first_lsn in firsts if first_lsn <= below_lsn), default=firsts[0])

    @property
    def first_lsn(self) -> int:
        """The oldest record there is, or will be."""
        return self._segments[0][0]

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    # ---- the writer thread

    def _run(self) -> None:
        try:
            while self._write_group():
                pass
        except BaseException as error:  # noqa: BLE001 - whatever it was, nothing more may be reported durable
            self._on_failure(error)

    def _write_group(self) -> bool:
        """Wait for work, do all there is, report it. False when the log is closed."""
        item = self._queue.get()
        group = _Group(self.durable_lsn)
        is_open = True
        while True:
            match item:
                case _Append(first_lsn, records):
                    for lsn, (kind, payload) in enumerate(records, first_lsn):
                        self._gather(group, lsn, kind, payload)
                case _Collect():
                    self._finish(group)  # what was repeated, before its original goes
                    self._delete_segments(item.below_lsn)
                case _Close():
                    is_open = False
                    break
            if group.size >= GROUP_BYTES_MAX:
                break
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
        self._finish(group)
        if not is_open:
            group.add(group.lsn + 1, pack_record(self._checksum, group.lsn + 1, group.lsn, MARK, b""))
            self._write(group.chunks, group.size)
        return is_open

    def _gather(self, group: _Group, lsn: int, kind: int, payload: bytes) -> None:
        """Add a record to the group, in a new segment when it does not fit this one."""
        chunk = pack_record(self._checksum, lsn, self.durable_lsn, kind, payload)
        end = self._offset + group.size
        if end + len(chunk) > self._segment_bytes and end > HEADER_BYTES:
            self._finish(group)
            self._rotate(lsn)
            chunk = pack_record(self._checksum, lsn, self.durable_lsn, kind, payload)
        group.add(lsn, chunk)

    def _finish(self, group: _Group) -> None:
        """Write and sync the group, report it, and begin it anew."""
        self._write(group.chunks, group.size)
        group.chunks, group.size = [], 0
        if group.lsn > self.durable_lsn:
            self.durable_lsn = group.lsn
            os.eventfd_write(self.event_fd, 1)

    def _write(self, chunks: list[bytes], size: int) -> None:
        if not chunks:
            return
        started = time.perf_counter_ns()
        written = os.pwrite(self._fd, b"".join(chunks), self._offset)
        if written != size:
            raise OSError(f"short write: {written} of {size} bytes")
        self._synchronize(self._fd)
        self._offset += size
        took_us = (time.perf_counter_ns() - started) // 1000
        statistics = self.statistics
        statistics.syncs += 1
        statistics.records += len(chunks)
        statistics.bytes += size
        statistics.sync_us_total += took_us
        statistics.sync_us_last = took_us
        statistics.sync_us_max = max(statistics.sync_us_max, took_us)

    def _rotate(self, first_lsn: int) -> None:
        """Begin a new segment. Everything before it is durable, which its header therefore proves."""
        os.ftruncate(self._fd, self._offset)
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._create_segment(first_lsn)

    def _delete_segments(self, below_lsn: int) -> None:
        while len(self._segments) > 1 and self._segments[1][0] <= below_lsn:
            _, path = self._segments.pop(0)
            path.unlink()
            _sync_directory(self._directory)  # one by one: no later segment may be gone before an earlier one

    # ---- files

    def _create_segment(self, first_lsn: int) -> None:
        path = segment_path(self._directory, first_lsn)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.posix_fallocate(self._fd, 0, self._segment_bytes)
        header = pack_header(self.identity, self._secret, first_lsn)
        if os.pwrite(self._fd, header, 0) != len(header):
            raise OSError("short write of a segment header")
        os.fsync(self._fd)
        _sync_directory(self._directory)
        self._offset = HEADER_BYTES
        self._segments.append((first_lsn, path))

    def _open_active(self, end: int) -> None:
        if not self._segments:
            self._create_segment(1)
            return
        self._fd = os.open(self._segments[-1][1], os.O_RDWR | os.O_CLOEXEC)
        # cutting and growing again leaves zeros behind `end`: no remains of a torn tail can be read later
        os.ftruncate(self._fd, end)
        os.posix_fallocate(self._fd, 0, max(self._segment_bytes, end))
        os.fsync(self._fd)
        self._offset = end


def _lock(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise WalLocked(f"{directory}: in use by another process") from error
    return fd


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_headers(directory: Path, identity: LogIdentity) -> tuple[list[tuple[int, Path]], SegmentHeader | None]:
    """Segments as (first lsn, path), and a header with what they share (None: there is no log yet)."""
    segments: list[tuple[int, Path]] = []
    found: SegmentHeader | None = None
    paths = segment_paths(directory)
    for path in paths:
        with path.open("rb") as file:
            data = file.read(HEADER_BYTES)
        header = unpack_header(data)
        if header is None:
            if data.startswith(MAGIC_BEFORE):
                raise WalMismatch(f"{path.name}: is a log of format 1, which this version does not read")
            if path != paths[-1]:
                raise WalCorrupt(f"{path.name}: damaged segment header")
            if not _is_unfinished(path):
                raise WalCorrupt(f"{path.name}: damaged header in front of records")
            path.unlink()  # the crash came between creating the file and syncing its header
            _sync_directory(directory)
            break
        identity_found, secret, first_lsn = header
        if (identity_found.cluster_id, identity_found.replica) != (identity.cluster_id, identity.replica):
            owner = f"replica {identity_found.replica} of cluster {identity_found.cluster_id.hex()}"
            raise WalMismatch(f"{path.name}: belongs to {owner}")
        if found is not None and (identity_found, secret) != (found.identity, found.secret):
            raise WalCorrupt(f"{path.name}: is from another log than the segment before it")
        if path.name != segment_path(directory, first_lsn).name:
            raise WalCorrupt(f"{path.name}: holds the segment that begins with record {first_lsn}")
        found = header
        segments.append((first_lsn, path))
    return segments, found


def _is_unfinished(path: Path) -> bool:
    """Nothing but (part of) a header has ever been written to this file."""
    return not path.read_bytes()[HEADER_BYTES:].strip(b"\x00")
