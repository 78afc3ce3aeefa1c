"""Times every fast-path function on both builds: `python -m bench.micro [--json FILE] [--quick]`.

Before a function is timed, both builds must return the same. A figure is the time of one call; the
calls of a round fill at least a set time, builds take turns round by round so that a noisy host hits
both, and the median, 10th and 90th percentile are those of the rounds. Nothing is thrown away.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

import fastpath

BATCHES = (1, 16, 64, 256)
CLUSTER = bytes(range(16))
PREFIX = b"OAPBFT1\0" + b"\1" + bytes(7) + CLUSTER + bytes(8)
OPERATION = b'{"amount":125000,"auction":"00112233445566778899aabbccddeeff","operation":"bid"}'


@dataclass(frozen=True, slots=True)
class Case:
    """One function at one batch size."""

    name: str
    batch: int
    call: Callable[[ModuleType], Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds a call over the rounds."""

    p10_us: float
    median_us: float
    p90_us: float


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    batch: int
    compiled: Timing
    python: Timing

    @property
    def ratio(self) -> float:
        """How many times as fast the compiled build is, by medians."""
        return self.python.median_us / self.compiled.median_us


def request_records(count: int) -> list[bytes]:
    """Signed requests of one client, as a bid makes them."""
    seed = bytes(range(32))
    secret = seed + fastpath.public_key(seed)
    records = []
    for i in range(count):
        writer = fastpath.Writer().u8(1).u8(0).u16(0).fixed(CLUSTER, 16).fixed(secret[32:], 32)
        writer.u64(1).u64(i + 1).u64(1).u64(2**50).variable(OPERATION, len(OPERATION))
        signed = writer.finish()
        records.append(signed + fastpath.sign(secret, PREFIX + signed))
    return records


def read_fields(build: ModuleType, data: bytes, count: int) -> int:
    reader = build.Reader(data)
    total = 0
    for _ in range(count):
        total += reader.u8() + reader.u64()
        reader.fixed(32)
        reader.variable(100)
    reader.finish()
    return total


def write_fields(build: ModuleType, count: int) -> bytes:
    writer = build.Writer()
    for i in range(count):
        writer.u8(1).u64(i).fixed(PREFIX[:32], 32).variable(OPERATION, 100)
    data: bytes = writer.finish()
    return data


def tally_votes(build: ModuleType, count: int) -> list[int]:
    """`count` slots, each with the votes of four replicas."""
    tallies = [build.Tally(4) for _ in range(count)]
    return [tally.add(sender, PREFIX[:32]) for tally in tallies for sender in range(4)]


def update_rows(build: ModuleType, changes: list[tuple[bytes, bytes, bytes]]) -> bytes:
    state = build.StateHash(1)
    state.update_many(changes)
    vector: bytes = state.vector(0)
    return vector


def cases(batch: int) -> Iterator[Case]:
    """All functions with inputs of this batch size; what is not a batch function runs `batch` times."""
    records = request_records(batch)
    data = b"".join(records)
    parsed = fastpath.parse_requests(data, 0, len(data), CLUSTER, batch, 65536)
    leaves = [request[0] for request in parsed]
    digests = [request[1] for request in parsed]
    frame = b"".join(fastpath.pack_message(0x11, 0, record) for record in records)
    fields = write_fields(importlib.import_module("fastpath._py"), batch)
    secret = bytes(range(32)) + fastpath.public_key(bytes(range(32)))
    root_path = fastpath.merkle_path(leaves, batch // 2)
    rows = [(i, digests[i], "caf\u00e9", None, 1 << 40) for i in range(batch)]
    encoded = [fastpath.encode_row(7, row) for row in rows]
    changes = [(digests[i], encoded[i], encoded[i - 1] + b"x") for i in range(batch)]
    votes = [(record[20:52], PREFIX + record[:-64], record[-64:]) for record in records]
    statuses, results = [0] * batch, [OPERATION] * batch
    times = range(batch)

    yield Case("sha256", batch, lambda b: [b.sha256(r) for r in records])
    yield Case("tagged_hash", batch, lambda b: [b.tagged_hash(b"ORD", r) for r in digests])
    yield Case("leaf_hash", batch, lambda b: [b.leaf_hash(r) for r in digests])
    yield Case("merkle_root", batch, lambda b: b.merkle_root(leaves))
    yield Case("merkle_path", batch, lambda b: b.merkle_path(leaves, batch // 2))
    yield Case("merkle_paths", batch, lambda b: b.merkle_paths(leaves, times))
    yield Case("merkle_fold", batch, lambda b: b.merkle_fold(leaves[batch // 2], batch // 2, batch, root_path))
    yield Case("parse_requests", batch, lambda b: b.parse_requests(data, 0, len(data), CLUSTER, batch, 65536))
    yield Case("verify_requests", batch, lambda b: b.verify_requests(PREFIX, records))
    yield Case("verify_many", batch, lambda b: b.verify_many(votes))
    yield Case("verify", batch, lambda b: [b.verify(*vote) for vote in votes])
    yield Case("sign", batch, lambda b: [b.sign(secret, PREFIX) for _ in times])
    yield Case("public_key", batch, lambda b: [b.public_key(digest) for digest in digests])
    yield Case("public_key_is_valid", batch, lambda b: [b.public_key_is_valid(secret[32:]) for _ in times])
    yield Case("has_duplicates", batch, lambda b: b.has_duplicates(digests))
    yield Case("assemble_batch", batch, lambda b: b.assemble_batch(0, 1, CLUSTER, 0, 5, 6, records, leaves))
    yield Case("result_leaves", batch, lambda b: b.result_leaves(5, 0, digests, statuses, results))
    yield Case("split_messages", batch, lambda b: b.split_messages(frame, 65536))
    yield Case("pack_message", batch, lambda b: [b.pack_message(0x11, 0, record) for record in records])
    yield Case("Reader", batch, lambda b: read_fields(b, fields, batch))
    yield Case("Writer", batch, lambda b: write_fields(b, batch))
    yield Case("Tally", batch, lambda b: tally_votes(b, batch))
    yield Case("kth_largest", batch, lambda b: [b.kth_largest((5, 9, 7, 1), 2) for _ in times])
    yield Case("encode_row", batch, lambda b: [b.encode_row(7, row) for row in rows])
    yield Case("write_set_hash", batch, lambda b: b.write_set_hash(list(zip(digests, encoded, strict=True))))
    yield Case("StateHash.update_many", batch, lambda b: update_rows(b, changes))
    yield Case("StateHash.root", batch, lambda b: b.StateHash(batch).root())


def time_call(call: Callable[[], Any], repeats: int) -> float:
    """Microseconds a call, over `repeats` of them."""
    start = time.perf_counter_ns()
    for _ in range(repeats):
        call()
    return (time.perf_counter_ns() - start) / repeats / 1000


def summary(samples: list[float]) -> Timing:
    deciles = quantiles(samples, n=10, method="inclusive")
    return Timing(deciles[0], quantiles(samples, n=2, method="inclusive")[0], deciles[8])


def measure(case: Case, rounds: int, round_us: float) -> Row:
    """Parity first; then the builds take turns, so that a slow moment of the host hits both."""
    builds = fastpath.implementations()
    calls = {name: (lambda build=build: case.call(build)) for name, build in builds.items()}
    if calls["python"]() != calls["compiled"]():
        raise AssertionError(f"{case.name} at {case.batch}: the builds disagree")
    repeats = {name: max(1, int(round_us / max(time_call(call, 1), 0.1))) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in builds}
    for _ in range(rounds):
        for name, call in calls.items():
            samples[name].append(time_call(call, repeats[name]))
    return Row(case.name, case.batch, summary(samples["compiled"]), summary(samples["python"]))


def configuration(rounds: int, round_us: float) -> dict[str, str]:
    """What the figures were measured on."""
    return {
        "machine": f"{processor()}, {os.cpu_count()} logical cores, {platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "build": f"running {fastpath.BUILD}, SHA-256 of {importlib.import_module('fastpath._sodium').SHA256_SOURCE}",
        "load": f"{os.getloadavg()[0]:.2f} (1 minute) at the start",
        "method": f"{rounds} rounds of {round_us / 1000:g} ms a build, in turns; microseconds for the whole batch",
    }


def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def show(console: Console, settings: dict[str, str], rows: list[Row]) -> None:
    console.print("CONFIG", style="bold")
    for name, value in settings.items():
        console.print(f"  {name:<8} {value}", highlight=False)
    table = Table(title="RESULTS: microseconds for the whole batch, median \\[p10 .. p90]")
    table.add_column("function")
    for heading in ("batch", "compiled", "python", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.name, str(row.batch), cell(row.compiled), cell(row.python), f"{row.ratio:.1f}")
    console.print(table)


def cell(timing: Timing) -> str:
    return f"{timing.median_us:.2f} \\[{timing.p10_us:.2f} .. {timing.p90_us:.2f}]"


def as_json(settings: dict[str, str], rows: list[Row]) -> str:
    def times(timing: Timing) -> dict[str, float]:
        return {"p10_us": timing.p10_us, "median_us": timing.median_us, "p90_us": timing.p90_us}

    results = [
        {
            "function": row.name,
            "batch": row.batch,
            "compiled": times(row.compiled),
            "python": times(row.python),
            "ratio": row.ratio,
        }
        for row in rows
    ]
    return json.dumps({"config": settings, "results": results}, indent=2, sort_keys=True) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument("--quick", action="store_true", help="few short rounds: shows that it runs, not how fast")
    parser.add_argument("--only", metavar="TEXT", default="", help="only functions whose name contains TEXT")
    options = parser.parse_args(arguments)
    rounds, round_us = (5, 500.0) if options.quick else (31, 5000.0)
    settings = configuration(rounds, round_us)
    chosen = [case for batch in BATCHES for case in cases(batch) if options.only in case.name]
    chosen.sort(key=lambda case: case.name)
    if not chosen:
        parser.error(f"no function is called like {options.only!r}")
    rows = [measure(case, rounds, round_us) for case in chosen]
    console = Console() if sys.stdout.isatty() else Console(width=110)
    show(console, settings, rows)
    if options.json is not None:
        options.json.write_text(as_json(settings, rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
