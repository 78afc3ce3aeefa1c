"""`arremate bench`: the open-loop driver (`bench.load`) against a scratch cluster, or against one that runs.

The driver is a program of its own, in a process of its own: it must not share a Python with the terminal.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from enum import StrEnum
from typing import Annotated

import typer

from auction.cli.command import EndpointsOption
from auction.cli.demo import Wishes, running_cluster
from auction.cli.failure import ExitCode, Failure
from auction.cli.session import Session
from nodes.testnet import Application

COUNTER = Application("counter", "nodes.demo.counter:CounterMachine", 1, {})


class WorkloadName(StrEnum):
    BIDS = "bids"
    TRANSFERS = "transfers"
    COUNTER = "counter"
    """Of a cluster that replicates nodes.demo.counter and nothing else."""


def register(app: typer.Typer) -> None:
    @app.command("bench", epilog="Example: arremate bench --rate 500 --duration 20")
    def bench(
        context: typer.Context,
        rate: Annotated[float, typer.Option(min=1, max=100_000, help="Offered operations per second.")] = 300.0,
        duration: Annotated[float, typer.Option(min=1, max=3_600, help="Seconds of load.")] = 15.0,
        warm_up: Annotated[float, typer.Option(min=0, max=600, help="Seconds before it, not counted.")] = 3.0,
        clients: Annotated[int, typer.Option(min=1, max=64, help="Connections, each with accounts of its own.")] = 4,
        workload: Annotated[WorkloadName, typer.Option(help="What is offered.")] = WorkloadName.BIDS,
        endpoints: EndpointsOption = None,
        database: Annotated[str | None, typer.Option(help="Server URL for the scratch cluster.")] = None,
    ) -> ExitCode:
        """Offer operations at a fixed rate through ZeroMQ and measure latency from the intended send time."""
        session: Session = context.obj
        with contextlib.ExitStack() as stack:
            if endpoints is None:
                wishes = Wishes(database=database, application=COUNTER if workload is WorkloadName.COUNTER else None)
                stack.enter_context(running_cluster(session, wishes))
            path = session.endpoints(endpoints).path
            _drive(
                [
                    f"--endpoints={path}",
                    f"--rate={rate}",
                    f"--duration={duration}",
                    f"--warm-up={warm_up}",
                    f"--clients={clients}",
                    f"--workload={workload.value}",
                ]
            )
        return ExitCode.DONE


def _drive(options: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "bench.load", *options], check=False)
    if done.returncode != 0:
        raise Failure(ExitCode.NO_QUORUM, "bench_failed", f"the load driver ended with {done.returncode}")
