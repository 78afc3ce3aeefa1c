"""The open-loop driver: operations leave at fixed times, whether or not earlier ones were answered.

Latency runs from the *intended* send time to the verified receipt, so a stalled cluster shows (no coordinated
omission). The driver shares the machine with the cluster; the signature bound V is measured in the same run,
so that figures of different hosts can be compared: V = cores / (n * t), t the time of one verification.

    python -m bench.load --endpoints FILE [--rate R] [--duration S] [--clients N] [--workload bids|transfers|counter]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hdrh.histogram import HdrHistogram

import fastpath
from auction.cli.endpoints import Endpoints
from auction.codes import code_name
from bench.offered_operations import Bids, Counts, Staff, Transfers, Workload
from nodes.client.aio import Client
from nodes.client.errors import ClientError, Refused
from nodes.config import ClusterConfig
from nodes.keys import SigningKey
from nodes.wire import build_request
from nodes.wire.signed import request_prefix

LATENCY_MAX_US = 120_000_000
DRAIN_S = 30.0
"""How long the last operations may take after the load has ended; later ones count as unanswered."""
VERIFICATIONS = 64
VERIFICATION_ROUNDS = 9


@dataclass(frozen=True, slots=True)
class Plan:
    rate: float
    duration_s: float
    warm_up_s: float
    clients: int
    workload: str
    seed: int


@dataclass(slots=True)
class Tally:
    """What came of the operations that were intended inside the measured interval."""

    latency_us: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, LATENCY_MAX_US, 3))
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    last_answer_s: float = 0.0
    late_sends_us: HdrHistogram = field(default_factory=lambda: HdrHistogram(1, LATENCY_MAX_US, 3))

    @property
    def proven(self) -> int:
        """Operations with a verified receipt, refusals by the rules included."""
        return self.accepted + self.refused.total()


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every operation was answered, 1 otherwise."""
    options = _parser().parse_args(arguments)
    plan = Plan(options.rate, options.duration, options.warm_up, options.clients, options.workload, options.seed)
    endpoints = Endpoints.load(options.endpoints)
    cluster = ClusterConfig.load(endpoints.genesis)
    keys = {name: SigningKey.load(path) for name, path in endpoints.keys.items()}
    before_us = verification_us(cluster)
    _print_config(plan, cluster)
    tally = asyncio.run(_run(plan, cluster, keys))
    verification = statistics.mean((before_us, verification_us(cluster)))
    _print_results(plan, cluster, tally, verification)
    return 1 if tally.failed else 0


def verification_us(cluster: ClusterConfig) -> float:
    """Microseconds of one Ed25519 verification here and now: the median of several rounds over a chunk."""
    key = SigningKey.generate()
    record = build_request(
        key,
        cluster.cluster_id,
        session=1,
        sequence=1,
        floor=1,
        valid_until_us=1,
        operation=b"{}" * 60,
    )
    prefix = request_prefix(cluster.cluster_id)
    rounds = []
    for _ in range(VERIFICATION_ROUNDS):
        started = time.perf_counter_ns()
        flags = fastpath.verify_requests(prefix, [record] * VERIFICATIONS)
        rounds.append((time.perf_counter_ns() - started) / 1_000 / VERIFICATIONS)
        if flags != b"\x01" * VERIFICATIONS:
            raise AssertionError("a genuine signature was refused")
    return statistics.median(rounds)


async def _run(plan: Plan, cluster: ClusterConfig, keys: dict[str, SigningKey]) -> Tally:
    def connect(key: SigningKey) -> Client:
        return Client.connect(cluster, key, code_name=code_name)

    async with contextlib.AsyncExitStack() as stack:
        workload: Workload
        if plan.workload == Counts.name:
            workload = Counts(plan.clients)
        else:
            staff = await stack.enter_async_context(Staff(connect, keys))
            kind = Bids if plan.workload == Bids.name else Transfers
            workload = kind(staff, plan.clients, plan.seed)
        clients = [connect(key) for key in await workload.prepare()]
        for client in clients:
            await stack.enter_async_context(client)
        return await _offer(plan, clients, workload)


async def _offer(plan: Plan, clients: list[Client], workload: Workload) -> Tally:
    """Send each operation at its time; wait for the answers of all."""
    tally = Tally()
    started = time.perf_counter()
    measured_from = plan.warm_up_s
    total = int(plan.rate * (plan.warm_up_s + plan.duration_s))
    calls: set[asyncio.Task[None]] = set()

    async def one(client: int, intended_s: float) -> None:
        measured = intended_s >= measured_from
        if measured:
            tally.late_sends_us.record_value(_microseconds(time.perf_counter() - started - intended_s))
        try:
            await clients[client].submit(workload.operation(client))
            code = "ok"
        except Refused as error:
            code = error.code if error.receipt is not None else f"unordered {error.code}"
        except ClientError as error:
            code = f"failed {error.code}"
        if not measured:
            return
        answered_s = time.perf_counter() - started
        if code.startswith(("failed ", "unordered ")):
            tally.failed[code] += 1
            return
        if code == "ok":
            tally.accepted += 1
        else:
            tally.refused[code] += 1
        tally.latency_us.record_value(_microseconds(answered_s - intended_s))
        tally.last_answer_s = max(tally.last_answer_s, answered_s)

    for number in range(total):
        intended_s = number / plan.rate
        delay_s = started + intended_s - time.perf_counter()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        call = asyncio.create_task(one(number % len(clients), intended_s))
        calls.add(call)
        call.add_done_callback(calls.discard)
    if calls:
        _, unanswered = await asyncio.wait(set(calls), timeout=DRAIN_S)
        tally.failed["unanswered"] += len(unanswered)
        for call in unanswered:
            call.cancel()
        await asyncio.gather(*unanswered, return_exceptions=True)
    tally.failed += Counter()
    return tally


def _cores() -> int:
    """Cores that this process (and the cluster it shares the machine with) may use."""
    return len(os.sched_getaffinity(0))


def _microseconds(seconds: float) -> int:
    return min(LATENCY_MAX_US, max(1, int(seconds * 1e6)))


def _print_config(plan: Plan, cluster: ClusterConfig) -> None:
    _block(
        "CONFIG",
        {
            "workload": f"{plan.workload} (seed {plan.seed})",
            "offered rate": f"{plan.rate:g} operations/s, open loop",
            "warm-up, duration": f"{plan.warm_up_s:g} s, {plan.duration_s:g} s",
            "clients": f"{plan.clients} over ZeroMQ, each sends to all replicas",
            "replicas": f"{cluster.n} (f = {cluster.f}, quorum = {cluster.quorum})",
            "machine": f"{_cores()} cores, {platform.machine()}, Python {platform.python_version()}",
            "fast path": fastpath.BUILD,
        },
    )


def _print_results(plan: Plan, cluster: ClusterConfig, tally: Tally, verification: float) -> None:
    bound = _cores() * 1e6 / (cluster.n * verification)
    interval_s = max(plan.duration_s, tally.last_answer_s - plan.warm_up_s)
    achieved = tally.proven / interval_s
    refused = ", ".join(f"{code} {count}" for code, count in sorted(tally.refused.items())) or "none"
    failed = ", ".join(f"{code} {count}" for code, count in sorted(tally.failed.items())) or "none"
    _block(
        "RESULTS",
        {
            "offered": f"{plan.rate:.1f} operations/s",
            "achieved": f"{achieved:.1f} operations/s with a verified receipt",
            "latency p50": _milliseconds(tally.latency_us, 50),
            "latency p90": _milliseconds(tally.latency_us, 90),
            "latency p99": _milliseconds(tally.latency_us, 99),
            "latency max": _milliseconds(tally.latency_us, 100),
            "sent late p99": _milliseconds(tally.late_sends_us, 99),
            "refused by the rules": refused,
            "errors": failed,
            "one verification t": f"{verification:.1f} us",
            "bound V = cores/(n*t)": f"{bound:.0f} operations/s",
            "share of V": f"{achieved / bound:.3f}",
        },
    )


def _milliseconds(histogram: HdrHistogram, percentile: float) -> str:
    if histogram.get_total_count() == 0:
        return "-"
    return f"{histogram.get_value_at_percentile(percentile) / 1_000:.1f} ms"


def _block(title: str, fields: dict[str, str]) -> None:
    width = max(len(name) for name in fields)
    lines = [title, *(f"  {name:<{width}}  {value}" for name, value in fields.items())]
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.load", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--endpoints", type=Path, required=True, help="endpoints file of a running cluster")
    parser.add_argument("--rate", type=float, default=300.0, help="operations per second")
    parser.add_argument("--duration", type=float, default=15.0, help="seconds that count")
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds before them")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--workload", choices=("bids", "transfers", "counter"), default="bids")
    parser.add_argument("--seed", type=int, default=1)
    return parser


if __name__ == "__main__":
    sys.exit(main())
