"""The simulator in every test run: safety under faults, progress after healing, equal traces.

docs/protocol.md section 23; `run.py` runs any number of further seeds.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from simulated_disk import Database, Disk
from simulator import Simulator, Violation, run_seed, with_omissions, with_options

from nodes.core.quorum import Thresholds
from nodes.core.window import Window

HERE = Path(__file__).parent
FAILED = [line for line in (HERE / "failed_seeds.txt").read_text().splitlines() if not line.startswith("#")]
FAILED_ONCE = [int(line.split()[0]) for line in FAILED if "/" not in line.split()[0]]
FAILED_WITH_OMISSIONS = [tuple(map(int, line.split()[0].split("/"))) for line in FAILED if "/" in line.split()[0]]
"""Seed and members."""
SEEDS = 120
CHUNK = 10


@pytest.mark.parametrize("first", range(1000, 1000 + SEEDS, CHUNK))
def test_schedules_keep_every_invariant_and_finish(first: int) -> None:
    """Sections 6, 10, 11, 15: agreement, no gaps, one vote, valid certificates, everything executed after healing."""
    for seed in range(first, first + CHUNK):
        outcome = run_seed(seed)
        assert outcome.blocks > 0


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_schedules_that_failed_once_hold(seed: int) -> None:
    assert run_seed(seed).blocks > 0


def _omitting(seed: int, n: int) -> Simulator:
    return with_omissions(seed, n=n, dead=(), slow_executor=None)


@pytest.mark.parametrize("first", range(0, 24, 6))
@pytest.mark.parametrize("n", [4, 7])
def test_members_that_omit_messages_cannot_stop_the_others(n: int, first: int) -> None:
    """Sections 6 and 11: up to f backups send some kinds of message to some members only, for ever."""
    for seed in range(first, first + 6):
        assert _omitting(seed, n).run().blocks > 0


@pytest.mark.parametrize(("seed", "n"), FAILED_WITH_OMISSIONS)
def test_omissions_that_stopped_the_others_once_hold(seed: int, n: int) -> None:
    assert _omitting(seed, n).run().blocks > 0


@pytest.mark.parametrize("pipeline", range(1, 9))
def test_every_pipeline_depth_makes_progress(pipeline: int) -> None:
    """Section 0: W = 1 to 8."""
    outcome = with_options(77, pipeline=pipeline, n=4, dead=(), requests=40, crashes=2).run()
    assert outcome.swarm.pipeline == pipeline
    assert outcome.blocks > 0


@pytest.mark.parametrize("n", [1, 4, 5, 6, 7, 10, 13])
def test_every_cluster_size_makes_progress(n: int) -> None:
    """Section 1: with f backups that never start, the others go on."""
    f = (n - 1) // 3
    dead = tuple(range(n - f, n))
    outcome = with_options(5, n=n, dead=dead, slow_executor=None, requests=12, faults_us=300_000, crashes=1).run()
    assert outcome.blocks > 0


def _traces(fastpath: str, hash_seed: str) -> list[str]:
    environment = {**os.environ, "ARREMATE_FASTPATH": fastpath, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, str(HERE / "run.py"), "--seeds", "4", "--from", "200", "--trace"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()[:4]


def test_traces_are_equal_over_runs_hash_seeds_and_builds() -> None:
    """Invariant I2: same inputs, same outputs."""
    first = _traces("compiled", "1")
    assert len(set(first)) == 4
    assert first == _traces("compiled", "2")
    assert first == _traces("python", "3")
    assert [line.split()[1] for line in first] == [run_seed(seed).trace for seed in range(200, 204)]


# Controls: the harness must see what is wrong ----------------------------------------------------


def _expect_violation(text: str, **changes: object) -> None:
    for seed in range(300, 330):
        try:
            with_options(seed, n=4, dead=(), requests=20, **changes).run(limit_us=10_000_000)
        except Violation as violation:
            assert text in str(violation)  # noqa: PT017
            return
    pytest.fail("the fault was not noticed")


def test_simulator_notices_a_state_that_differs() -> None:
    simulator = with_options(1, n=4, dead=(), crashes=0)
    simulator.nodes[2].database = Database(bytes(32))
    with pytest.raises(Violation, match="another state after 1"):
        simulator.run()


def test_simulator_notices_a_quorum_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Thresholds.__post_init__

    def two_of_four(self: Thresholds) -> None:
        honest(self)
        object.__setattr__(self, "q", 2)

    simulator = with_options(1, n=4, dead=())
    thresholds = simulator.cluster.thresholds
    monkeypatch.setattr(Thresholds, "__post_init__", two_of_four)
    monkeypatch.setattr(type(simulator.cluster), "thresholds", thresholds)
    with pytest.raises(Violation, match="is not valid"):
        simulator.run()


def test_simulator_notices_a_commit_before_its_certificate_is_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    certify = Window._certify

    def hasty(self: Window, *arguments: object) -> object:
        effects = certify(self, *arguments)  # type: ignore[arg-type]
        return effects + self.on_prepared_durable(effects[0].record.certificate)  # type: ignore[union-attr]

    monkeypatch.setattr(Window, "_certify", hasty)
    _expect_violation("too early")


def test_simulator_notices_a_primary_that_forgets_what_it_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wiped disk with a live key is equivocation waiting to happen (section 15)."""

    def wipe(self: Disk, rng: random.Random) -> None:
        self.__init__(self._wire)  # type: ignore[misc]

    monkeypatch.setattr(Disk, "crash", wipe)
    monkeypatch.setattr(Database, "lose", lambda self, count: self.blocks.clear())
    _expect_violation("two proposals", crashes=8)


def test_simulator_is_reproducible_within_a_process() -> None:
    assert Simulator(42).run() == Simulator(42).run()
