"""The log on a real disk: what was reported durable is read back, damage is told from a torn tail."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nodes.wal import LogIdentity, LogRecord, Wal, WalCorrupt, WalError, WalLocked, WalMismatch
from nodes.wal.segment import (
    HEADER_BYTES,
    RECORD_BYTES_MAX,
    RECORD_HEADER_BYTES,
    SECRET_BYTES,
    Checksum,
    pack_header,
    pack_record,
    proof_of_corruption,
    unpack_header,
    unpack_record,
)

IDENTITY = LogIdentity(bytes(range(16)), 2, b"n" * 16, 1_700_000_000_000_000)
SMALL = 4096


def opened(directory: Path, segment_bytes: int = SMALL) -> tuple[Wal, list[LogRecord]]:
    wal = Wal(directory, IDENTITY, segment_bytes=segment_bytes)
    return wal, list(wal.replay())


def wait_durable(wal: Wal, lsn: int) -> None:
    while wal.durable_lsn < lsn:
        readable, _, _ = select.select([wal.event_fd], [], [], 10)
        assert readable, "the log never became durable"
        wal.take_event()


def secret_of(path: Path) -> bytes:
    header = unpack_header(path.read_bytes())
    assert header is not None
    return header.secret


def packed(directory: Path, lsn: int, synced_lsn: int, kind: int, payload: bytes) -> bytes:
    """A record as this log itself would write it."""
    newest = max(directory.glob("*.wal"))
    return pack_record(Checksum(secret_of(newest)), lsn, synced_lsn, kind, payload)


def write(directory: Path, payloads: list[bytes], segment_bytes: int = SMALL) -> None:
    """One group each, so that every record names the one before as synced; no end mark (a crash)."""
    wal, _ = opened(directory, segment_bytes)
    for payload in payloads:
        wait_durable(wal, wal.append(7, payload))
    mark_lsn = wal.last_lsn + 1
    wal.close()
    (*_, path) = sorted(directory.glob("*.wal"))
    data = path.read_bytes()
    mark = packed(directory, mark_lsn, mark_lsn - 1, 0, b"")
    end = data.rindex(mark)
    path.write_bytes(data[:end] + bytes(len(data) - end))


def test_records_come_back_in_order_after_reopening(tmp_path: Path) -> None:
    wal, records = opened(tmp_path)
    assert records == []
    assert wal.is_new
    assert [wal.append(kind, payload) for kind, payload in ((1, b"a"), (255, b""), (3, b"c" * 500))] == [1, 2, 3]
    wait_durable(wal, 3)
    wal.close()
    wal, records = opened(tmp_path)
    assert not wal.is_new
    assert records == [LogRecord(1, 1, b"a"), LogRecord(2, 255, b""), LogRecord(3, 3, b"c" * 500)]
    lsn = wal.append(9, b"later")
    wait_durable(wal, lsn)
    wal.close()
    wal, records = opened(tmp_path)
    wal.close()
    assert [record.payload for record in records] == [b"a", b"", b"c" * 500, b"later"]
    assert records[-1].lsn == lsn > 3


def test_identity_of_the_first_segment_is_kept(tmp_path: Path) -> None:
    opened(tmp_path)[0].close()
    later = LogIdentity(IDENTITY.cluster_id, IDENTITY.replica, b"m" * 16, 1)
    wal = Wal(tmp_path, later)
    assert wal.identity == IDENTITY
    wal.close()


@pytest.mark.parametrize(("cluster_id", "replica"), [(bytes(16), 2), (bytes(range(16)), 3)])
def test_log_of_another_replica_is_refused(tmp_path: Path, cluster_id: bytes, replica: int) -> None:
    other = LogIdentity(cluster_id, replica, b"n" * 16, 1)
    opened(tmp_path)[0].close()
    with pytest.raises(WalMismatch):
        Wal(tmp_path, other)


def test_second_process_is_locked_out(tmp_path: Path) -> None:
    wal, _ = opened(tmp_path)
    with pytest.raises(WalLocked):
        Wal(tmp_path, IDENTITY)
    wal.close()
    opened(tmp_path)[0].close()


def test_appending_before_replay_is_an_error(tmp_path: Path) -> None:
    wal = Wal(tmp_path, IDENTITY)
    with pytest.raises(WalError):
        wal.append(1, b"x")
    wal.close()


def test_torn_last_record_is_cut_off_at_every_byte(tmp_path: Path) -> None:
    write(tmp_path, [b"first", b"second", b"the last one"])
    (path,) = tmp_path.glob("*.wal")
    whole = path.read_bytes()
    start = whole.rindex(packed(tmp_path, 3, 2, 7, b"the last one"))
    end = start + RECORD_HEADER_BYTES + len(b"the last one")
    for cut in range(start, end):
        path.write_bytes(whole[:cut] + bytes(len(whole) - cut))
        wal, records = opened(tmp_path)
        assert [record.payload for record in records] == [b"first", b"second"], f"cut at byte {cut - start}"
        wal.close()
        path.write_bytes(whole[:cut])  # and the same with a file that ends there
        wal, records = opened(tmp_path)
        assert len(records) == 2
        wal.close()


def test_flipped_bit_in_the_last_record_is_a_torn_tail_and_leaves_no_remains(tmp_path: Path) -> None:
    write(tmp_path, [b"first", b"x" * 600])
    (path,) = tmp_path.glob("*.wal")
    data = bytearray(path.read_bytes())
    data[data.index(b"x" * 600) + 5] ^= 1
    path.write_bytes(data)
    wal, records = opened(tmp_path)
    assert [record.payload for record in records] == [b"first"]
    assert wal.torn_bytes >= 600
    assert b"xxxx" not in path.read_bytes()
    wait_durable(wal, wal.append(1, b"new"))
    wal.close()
    wal, records = opened(tmp_path)
    wal.close()
    assert [record.payload for record in records] == [b"first", b"new"]


def test_flipped_byte_in_the_middle_is_corruption(tmp_path: Path) -> None:
    write(tmp_path, [b"first", b"second", b"third"])
    (path,) = tmp_path.glob("*.wal")
    whole = path.read_bytes()
    start = whole.index(packed(tmp_path, 2, 1, 7, b"second"))
    for offset in range(start, start + RECORD_HEADER_BYTES + len(b"second")):
        data = bytearray(whole)
        data[offset] ^= 0x40
        path.write_bytes(data)
        wal = Wal(tmp_path, IDENTITY, segment_bytes=SMALL)
        with pytest.raises(WalCorrupt):
            list(wal.replay())
        wal.close()
        assert path.read_bytes() == bytes(data), "a corrupt log must be left as it is"


def test_hole_of_zeros_before_synced_records_is_corruption(tmp_path: Path) -> None:
    write(tmp_path, [b"a" * 100, b"b" * 100, b"c" * 100])
    (path,) = tmp_path.glob("*.wal")
    data = path.read_bytes()
    start = data.index(packed(tmp_path, 2, 1, 7, b"b" * 100))
    size = RECORD_HEADER_BYTES + 100
    path.write_bytes(data[:start] + bytes(size) + data[start + size :])
    wal = Wal(tmp_path, IDENTITY, segment_bytes=SMALL)
    with pytest.raises(WalCorrupt):
        list(wal.replay())
    wal.close()


def test_hole_before_records_that_were_never_synced_is_a_torn_tail(tmp_path: Path) -> None:
    opened(tmp_path)[0].close()
    (path,) = tmp_path.glob("*.wal")
    group = [packed(tmp_path, lsn, 1, 7, b"%d" % lsn * 50) for lsn in (1, 2, 3, 4)]
    group[0] = packed(tmp_path, 1, 0, 7, b"1" * 50)
    group[2] = bytes(len(group[2]))
    body = b"".join(group)
    path.write_bytes(pack_header(IDENTITY, secret_of(path), 1) + body + bytes(SMALL - HEADER_BYTES - len(body)))
    wal, records = opened(tmp_path)
    wal.close()
    assert [record.lsn for record in records] == [1, 2]


def test_end_mark_of_a_clean_close_protects_the_last_record(tmp_path: Path) -> None:
    wal, _ = opened(tmp_path)
    wal.append(7, b"the last one")
    wal.close()
    (path,) = tmp_path.glob("*.wal")
    data = bytearray(path.read_bytes())
    data[data.index(b"the last one")] ^= 1
    path.write_bytes(data)
    wal = Wal(tmp_path, IDENTITY, segment_bytes=SMALL)
    with pytest.raises(WalCorrupt):
        list(wal.replay())
    wal.close()


def forged(secret: bytes) -> bytes:
    """A record that says everything up to 2**24 - 2 had been durable."""
    return pack_record(Checksum(secret), 2**24 - 1, 2**24 - 2, 1, b"")


def tear(directory: Path, operation: bytes) -> None:
    """A log whose second record holds `operation`, and a power cut that lost the end of that record."""
    write(directory, [b"first", operation + b"x" * 600])
    (path,) = directory.glob("*.wal")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"x" * 600, b"x" * 300 + bytes(300)))


@pytest.mark.parametrize("secret", [bytes(SECRET_BYTES), b"n" * 16, b""], ids=["zeros", "nonce", "none"])
def test_bytes_a_client_chose_cannot_vouch_for_a_lost_record(tmp_path: Path, secret: bytes) -> None:
    tear(tmp_path, b'{"x":"' + forged(secret) + b'"}')
    wal, records = opened(tmp_path)
    wal.close()
    assert [record.payload for record in records] == [b"first"]
    assert wal.torn_bytes > 300


def test_only_the_secret_stands_between_a_client_and_a_vouching_record(tmp_path: Path) -> None:
    """The control of the test before: the scan does read operation bytes, it just does not believe them."""
    opened(tmp_path)[0].close()
    (path,) = tmp_path.glob("*.wal")
    first, second = packed(tmp_path, 1, 0, 7, b"first"), packed(tmp_path, 2, 1, 7, forged(secret_of(path)) + b"x")
    path.write_bytes(path.read_bytes()[:HEADER_BYTES] + first + second[:-1] + bytes(100))
    wal = Wal(tmp_path, IDENTITY, segment_bytes=SMALL)
    with pytest.raises(WalCorrupt):
        list(wal.replay())
    wal.close()


def test_secret_is_of_one_log_in_all_its_segments_and_not_its_nonce(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write(tmp_path / name, [b"p" * 900] * 8)
    one, other = ({secret_of(path) for path in (tmp_path / name).glob("*.wal")} for name in ("one", "other"))
    assert len(one) == len(other) == 1
    assert one != other
    (secret,) = one
    assert len(secret) == SECRET_BYTES
    assert IDENTITY.nonce not in secret


def test_segment_of_another_log_is_corruption(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write(tmp_path / name, [b"p" * 900] * 8)
    newest = max((tmp_path / "other").glob("*.wal"))
    newest.rename(tmp_path / "one" / newest.name)
    with pytest.raises(WalCorrupt, match="another log"):
        Wal(tmp_path / "one", IDENTITY)


def test_every_byte_of_a_record_is_under_a_checksum() -> None:
    checksum = Checksum(b"s" * SECRET_BYTES)
    whole = pack_record(checksum, 9, 8, 7, b"payload")
    assert unpack_record(checksum, whole, 0) == LogRecord(9, 7, b"payload")
    assert unpack_record(Checksum(b"t" * SECRET_BYTES), whole, 0) is None
    for offset in range(len(whole)):
        data = bytearray(whole)
        data[offset] ^= 0x10
        assert unpack_record(checksum, bytes(data), 0) is None, f"byte {offset}"
    for size in range(len(whole)):
        assert unpack_record(checksum, whole[:size], 0) is None


def test_header_is_under_a_checksum_at_every_byte() -> None:
    whole = pack_header(IDENTITY, b"s" * SECRET_BYTES, 5)
    assert len(whole) == HEADER_BYTES
    assert unpack_header(whole) == (IDENTITY, b"s" * SECRET_BYTES, 5)
    for offset in range(HEADER_BYTES):
        data = bytearray(whole)
        data[offset] ^= 1
        assert unpack_header(bytes(data)) is None, f"byte {offset}"
    assert unpack_header(whole[:-1]) is None


def test_proof_of_corruption_is_found_behind_zeros() -> None:
    checksum = Checksum(b"s" * SECRET_BYTES)
    later = pack_record(checksum, 300, 299, 1, b"z")
    data = bytes(100) + later + bytes(8 * 1024 * 1024)
    assert proof_of_corruption(checksum, data, 0, 280) == 300
    assert proof_of_corruption(checksum, data, 0, 300) is None
    assert proof_of_corruption(checksum, bytes(8 * 1024 * 1024), 0, 1) is None


@pytest.mark.parametrize("lsn", [2**24 - 2, 2**24 - 1, 2**24, 2**32 + 5])
def test_proof_of_corruption_is_found_where_the_number_carries(lsn: int) -> None:
    checksum = Checksum(b"s" * SECRET_BYTES)
    for later in (lsn + 1, lsn + 2, lsn + 3):
        data = bytes(100) + pack_record(checksum, later, later - 1, 1, b"z") + b"\xff"
        assert proof_of_corruption(checksum, data, 0, lsn) == later
        assert proof_of_corruption(checksum, data, 0, later) is None


def test_later_record_vouches_although_its_own_payload_is_lost() -> None:
    """What it knew to be durable when it was written does not depend on the rest of it."""
    checksum = Checksum(b"s" * SECRET_BYTES)
    data = bytes(100) + pack_record(checksum, 3, 2, 1, b"z" * 50)[:-20] + bytes(100)
    assert proof_of_corruption(checksum, data, 0, 2) == 3


def test_scan_of_a_torn_tail_hashes_no_payload_that_a_client_claims() -> None:
    """A million bytes of heads, each of a payload of 16 MiB: read to the end, they would be a terabyte."""
    checksum = Checksum(b"s" * SECRET_BYTES)
    head = pack_record(Checksum(b""), 7, 6, 1, b"")[4:]
    claims = (RECORD_BYTES_MAX.to_bytes(4, "little") + head) * (1_000_000 // RECORD_HEADER_BYTES)
    assert proof_of_corruption(checksum, claims + bytes(RECORD_BYTES_MAX), 0, 5) is None
    zeros = bytes(4_000_000) + b"end"
    assert proof_of_corruption(checksum, zeros, 0, 5) is None


def test_segments_rotate_and_replay_as_one_log(tmp_path: Path) -> None:
    payloads = [bytes([number]) * 900 for number in range(1, 20)]
    wal, _ = opened(tmp_path)
    for payload in payloads:
        wal.append(1, payload)
    wait_durable(wal, len(payloads))
    assert wal.segment_count >= 4
    wal.close()
    wal, records = opened(tmp_path)
    assert [record.payload for record in records] == payloads
    assert [record.lsn for record in records] == list(range(1, 20))
    wait_durable(wal, wal.append(1, b"after"))
    wal.close()


def test_record_larger_than_a_segment_gets_one_of_its_own(tmp_path: Path) -> None:
    wal, _ = opened(tmp_path)
    wait_durable(wal, wal.append(1, b"s"))
    wait_durable(wal, wal.append(1, b"L" * (3 * SMALL)))
    wait_durable(wal, wal.append(1, b"t"))
    wal.close()
    wal, records = opened(tmp_path)
    wal.close()
    assert [len(record.payload) for record in records] == [1, 3 * SMALL, 1]


def test_missing_segment_is_corruption(tmp_path: Path) -> None:
    write(tmp_path, [b"p" * 900] * 12)
    paths = sorted(tmp_path.glob("*.wal"))
    assert len(paths) >= 3
    paths[1].unlink()
    wal = Wal(tmp_path, IDENTITY, segment_bytes=SMALL)
    with pytest.raises(WalCorrupt):
        list(wal.replay())
    wal.close()


def test_short_finished_segment_is_corruption(tmp_path: Path) -> None:
    write(tmp_path, [b"p" * 900] * 12)
    first = sorted(tmp_path.glob("*.wal"))[0]
    first.write_bytes(first.read_bytes()[:-10])
    wal = Wal(tmp_path, IDENTITY, segment_bytes=SMALL)
    with pytest.raises(WalCorrupt):
        list(wal.replay())
    wal.close()


def test_segment_whose_header_was_never_written_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, [b"kept"])
    orphan = tmp_path / f"{2:020d}.wal"
    orphan.write_bytes(bytes(SMALL))
    wal, records = opened(tmp_path)
    wal.close()
    assert [record.payload for record in records] == [b"kept"]
    assert not orphan.exists()


def test_damaged_header_in_front_of_records_is_corruption(tmp_path: Path) -> None:
    write(tmp_path, [b"kept"])
    (path,) = tmp_path.glob("*.wal")
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(WalCorrupt):
        Wal(tmp_path, IDENTITY)


def test_log_of_the_format_before_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / f"{1:020d}.wal").write_bytes(b"ARWAL\x00\x00\x01" + b"r" * 500)
    with pytest.raises(WalMismatch, match="format 1"):
        Wal(tmp_path, IDENTITY)


def test_collect_deletes_only_segments_below_the_lsn(tmp_path: Path) -> None:
    wal, _ = opened(tmp_path)
    for _ in range(16):
        last = wal.append(1, b"p" * 900)
    wait_durable(wal, last)
    firsts = [int(path.stem) for path in sorted(tmp_path.glob("*.wal"))]
    assert len(firsts) >= 4
    wal.collect(firsts[2] + 1)
    wal.close()
    assert min(int(path.stem) for path in tmp_path.glob("*.wal")) == firsts[2]
    wal, records = opened(tmp_path)
    wal.close()
    assert [record.lsn for record in records] == list(range(firsts[2], 17))


def test_collect_never_deletes_the_active_segment(tmp_path: Path) -> None:
    wal, _ = opened(tmp_path)
    wait_durable(wal, wal.append(1, b"x"))
    wal.collect(1_000_000)
    wal.close()
    wal, records = opened(tmp_path)
    wal.close()
    assert len(records) == 1


def test_collect_waits_for_the_records_appended_before_it(tmp_path: Path) -> None:
    """A live record that was repeated is durable before the segment with its original goes."""
    oldest_at_sync: list[int] = []

    def noting_sync(fd: int) -> None:
        entered.set()
        assert release.wait(10)
        oldest_at_sync.append(min(int(path.stem) for path in tmp_path.glob("*.wal")))
        os.fdatasync(fd)

    entered, release = threading.Event(), threading.Event()
    wal = Wal(tmp_path, IDENTITY, segment_bytes=SMALL, synchronize=noting_sync)
    assert list(wal.replay()) == []
    release.set()
    for _ in range(16):
        last = wal.append(1, b"p" * 900)
    wait_durable(wal, last)
    release.clear()
    entered.clear()
    wal.append(1, b"holds the writer up")
    assert entered.wait(10)
    repeated = wal.append(1, b"repeated")  # these two are in the queue together
    wal.collect(last)
    release.set()
    wait_durable(wal, repeated)
    assert oldest_at_sync[-1] == 1, "deleted before what replaces it was durable"
    wal.close()
    assert wal.first_lsn > 1


def test_kept_from_says_what_collect_would_leave(tmp_path: Path) -> None:
    wal, _ = opened(tmp_path)
    assert wal.first_lsn == wal.kept_from(1_000_000) == 1
    for _ in range(16):
        last = wal.append(1, b"p" * 900)
    wait_durable(wal, last)
    firsts = [int(path.stem) for path in sorted(tmp_path.glob("*.wal"))]
    assert len(firsts) >= 4
    assert wal.first_lsn == 1
    assert wal.kept_from(0) == wal.kept_from(1) == wal.kept_from(firsts[1] - 1) == 1
    assert wal.kept_from(firsts[1]) == wal.kept_from(firsts[2] - 1) == firsts[1]
    assert wal.kept_from(1_000_000) == firsts[-1]
    wal.collect(wal.kept_from(firsts[2] + 1))
    wal.close()
    assert wal.first_lsn == firsts[2]
    wal, _ = opened(tmp_path)
    assert wal.first_lsn == firsts[2]
    wal.close()


def test_records_queued_during_a_sync_share_the_next_one(tmp_path: Path) -> None:
    entered = threading.Event()
    release = threading.Event()

    def slow_sync(fd: int) -> None:
        entered.set()
        assert release.wait(10)
        os.fdatasync(fd)

    wal = Wal(tmp_path, IDENTITY, synchronize=slow_sync)
    assert list(wal.replay()) == []
    wal.append(1, b"first")
    assert entered.wait(10)
    for number in range(50):
        wal.append(1, b"%d" % number)
    assert wal.durable_lsn == 0, "nothing is durable before the sync returned"
    release.set()
    wait_durable(wal, 51)
    assert wal.statistics.syncs == 2
    assert wal.statistics.records == 51
    wal.close()


def test_records_appended_together_become_durable_together(tmp_path: Path) -> None:
    wal, _ = opened(tmp_path, 1 << 20)
    assert wal.append_all([(1, b"a"), (2, b"b"), (3, b"c")]) == 3
    assert wal.append_all([]) == 3
    wait_durable(wal, 3)
    assert wal.statistics.syncs == 1
    wal.close()
    wal, records = opened(tmp_path)
    wal.close()
    assert records == [LogRecord(1, 1, b"a"), LogRecord(2, 2, b"b"), LogRecord(3, 3, b"c")]


def test_failed_sync_is_reported_once_and_nothing_becomes_durable(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    failed = threading.Event()
    calls: list[int] = []

    def broken_sync(fd: int) -> None:
        calls.append(fd)
        raise OSError(5, "input/output error")

    def note(error: BaseException) -> None:
        failures.append(error)
        failed.set()

    wal = Wal(tmp_path, IDENTITY, synchronize=broken_sync, on_failure=note)
    assert list(wal.replay()) == []
    wal.append(1, b"x")
    assert failed.wait(10)
    wal.append(1, b"y")
    wal.close()
    assert len(failures) == len(calls) == 1
    assert wal.durable_lsn == 0


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from nodes.wal import LogIdentity, Wal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
wal = Wal(Path(sys.argv[1]), LogIdentity(bytes(16), 0, bytes(16), 0), segment_bytes=4096)
assert list(wal.replay()) == []
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
wal.append(1, b"x" * 100000)
signal.pause()
"""


def test_write_that_does_not_fit_stops_the_process(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, timeout=30, check=False)
    assert ran.returncode == 74
    assert b"write-ahead log failed" in ran.stderr


ENDLESS_WRITER = """
import select, sys
from pathlib import Path
from nodes.wal import LogIdentity, Wal
wal = Wal(Path(sys.argv[1]), LogIdentity(bytes(16), 0, bytes(16), 0), segment_bytes=65536)
last = max((record.lsn for record in wal.replay()), default=0)
number = wal.last_lsn
while True:
    while number < wal.durable_lsn + 40:
        number = wal.append(1 + number % 200, b"%d:" % (number + 1) + bytes(number % 997))
    select.select([wal.event_fd], [], [])
    sys.stdout.write("%d\\n" % wal.take_event())
    sys.stdout.flush()
"""


def test_kill_of_the_writer_keeps_everything_reported_durable(tmp_path: Path) -> None:
    identity = LogIdentity(bytes(16), 0, bytes(16), 0)
    reported = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", ENDLESS_WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(60):
            reported = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split(b"\n")[:-1]
        process.wait(10)
        process.stdout.close()
        reported = int(rest[-1]) if rest else reported
        wal = Wal(tmp_path, identity, segment_bytes=65536)
        records = list(wal.replay())
        assert wal.last_lsn >= reported
        assert all(record.payload.startswith(b"%d:" % record.lsn) for record in records)
        wal.close()
    assert reported > 100
