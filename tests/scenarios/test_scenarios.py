"""Scenario files: commands, and the trace they must give. Rewritten by `pytest --rewrite-scenarios`.

A file is paragraphs: comment lines (#), a command, a line of four dashes, the expected trace.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from stage import Stage

CASES = sorted((Path(__file__).parent / "cases").glob("*.txt"))


def _play(text: str) -> str:
    """The file as it would be if everything it expects were what happens."""
    stage = Stage()
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        head = paragraph.split("\n----")[0].split("\n")
        trace: list[str] = []
        commands = [line for line in head if not line.startswith("#")]
        for command in commands:
            trace += stage.play(command)
        paragraphs.append("\n".join([*head, *(["----", *trace] if commands else [])]))
    return "\n\n".join(paragraphs) + "\n"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_scenario_gives_the_expected_trace(path: Path, rewrites: bool) -> None:
    expected = path.read_text()
    actual = _play(expected)
    if rewrites:
        path.write_text(actual)
    assert actual == expected or rewrites, "run with --rewrite-scenarios and read the diff"


def test_scenarios_exist() -> None:
    assert len(CASES) >= 8


def test_scenario_with_another_trace_is_noticed() -> None:
    text = CASES[0].read_text()
    assert _play(text.replace("log ", "log not ")) != text.replace("log ", "log not ")
