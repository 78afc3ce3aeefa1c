"""The micro-benchmark runs, proves parity first, and writes what it shows."""

from __future__ import annotations

import json
from types import ModuleType

import pytest

from bench import micro


def test_micro_benchmark_writes_every_batch_size(tmp_path, capsys):
    report = tmp_path / "micro.json"
    assert micro.main(["--quick", "--only", "merkle_fold", "--json", str(report)]) == 0
    written = json.loads(report.read_text())
    assert [row["batch"] for row in written["results"]] == list(micro.BATCHES)
    for row in written["results"]:
        for build in ("compiled", "python"):
            assert 0 < row[build]["p10_us"] <= row[build]["median_us"] <= row[build]["p90_us"]
    assert set(written["config"]) == {"machine", "python", "build", "load", "method"}
    assert "merkle_fold" in capsys.readouterr().out


def test_micro_benchmark_stops_when_the_builds_disagree():
    def name_of(build: ModuleType) -> str:
        return build.__name__

    with pytest.raises(AssertionError, match="disagree"):
        micro.measure(micro.Case("name", 1, name_of), 2, 1.0)


def test_micro_benchmark_covers_every_public_function():
    import fastpath

    names = {case.name.partition(".")[0] for case in micro.cases(1)}
    assert names == set(fastpath.__all__) - {"BUILD", "implementations"}
