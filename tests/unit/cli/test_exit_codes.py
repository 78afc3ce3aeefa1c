"""What a shell sees: the exit code, errors on standard error, JSON for programs and nothing else beside it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from auction.cli.failure import ExitCode, Failure, unreachable, unverified
from auction.cli.main import build, run
from auction.cli.output import Output
from auction.cli.session import Session
from nodes.keys import SigningKey


def arremate(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ARREMATE_E")}
    return subprocess.run(
        [sys.executable, "-m", "auction.cli.main", *words],
        capture_output=True,
        text=True,
        env={**kept, **environment},
        timeout=60,
        check=False,
    )


def failure_of(*words: str) -> Failure:
    with Session(Output(silent=True)) as session, pytest.raises(Failure) as caught:
        run(words, session)
    return caught.value


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster of which no node runs."""
    out = tmp_path_factory.mktemp("dead") / "net"
    with Session(Output(silent=True)) as session:
        run(["testnet", "--out", str(out), "--base-port", "1"], session)
    return out / "endpoints.json"


def test_done_is_zero_and_json_stands_alone_on_standard_output(tmp_path: Path) -> None:
    done = arremate("key", "new", str(tmp_path / "a.key"), "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    value = json.loads(done.stdout)
    assert value["public_key"] == SigningKey.load(tmp_path / "a.key").public_key.hex()


def test_usage_error_is_two_with_the_next_step_on_standard_error() -> None:
    done = arremate("bid")
    assert (done.returncode, done.stdout) == (2, "")
    assert "AUCTION" in done.stderr
    assert "arremate bid --help" in done.stderr


def test_failure_is_json_when_json_is_wanted() -> None:
    done = arremate("bid", "-o", "json")
    assert (done.returncode, done.stdout) == (2, "")
    assert json.loads(done.stderr)["error"]["code"] == "usage"


def test_no_node_that_answers_is_four(endpoints: Path) -> None:
    done = arremate("status", "-o", "json", ARREMATE_ENDPOINTS=str(endpoints))
    assert done.returncode == 4
    assert [node["answers"] for node in json.loads(done.stdout)["nodes"]] == [False] * 4
    assert json.loads(done.stderr)["error"]["code"] == "no_quorum"


def test_unanswered_operation_is_four_and_never_called_refused(endpoints: Path) -> None:
    words = ("mint", "ab" * 16, "1", "--as", "issuer", "--timeout", "0.5", "-e", str(endpoints))
    failure = failure_of(*words)
    assert (failure.exit_code, failure.code) == (ExitCode.NO_QUORUM, "no_quorum")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "usage"),
        (("nonsense",), "usage"),
        (("auction", "nonsense"), "usage"),
        (("auction", "list"), "no_endpoints"),
        (("auction", "list", "-e", "/nonexistent/endpoints.json"), "no_endpoints"),
        (("key", "show", "/nonexistent.key"), "no_key"),
        (("receipt", "verify", "/nonexistent.json", "--genesis", "/nonexistent"), "no_receipt"),
        (("demo", "--execute", "/nonexistent.arremate"), "no_script"),
        (("demo", "--execute", "x", "--random", "1"), "bad_option"),
        (("demo", "--database", "sqlite:///x"), "bad_database"),
        (("demo", "--database", "nonsense"), "bad_database"),
        (("node", "run", "--config", "/nonexistent.toml"), "no_config"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_usage_has_a_code(words: tuple[str, ...], code: str) -> None:
    failure = failure_of(*words)
    assert (failure.exit_code, failure.code) == (ExitCode.USAGE, code)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("bid", "ab" * 16, "1"), "no_key"),
        (("bid", "ab" * 16, "1", "--as", "nobody"), "unknown_key"),
        (("bid", "ab" * 16, "1.5", "--as", "alice"), "invalid_amount"),
        (("bid", "ab" * 16, "ten", "--as", "alice"), "invalid_amount"),
        (("bid", "xyz", "1", "--as", "alice"), "malformed_operation"),
        (("bid", "ab" * 16, "10", "--max", "5", "--as", "alice"), "malformed_operation"),
        (("auction", "list", "--node", "9"), "unknown_node"),
        (("auction", "open", "x", "--start", "1", "--as", "seller"), "bad_option"),
        (("auction", "open", "x", "--start", "1", "--closes-in", "soon", "--as", "seller"), "invalid_duration"),
        (("auction", "open", "x", "--start", "1", "--closes-at", "noon", "--as", "seller"), "invalid_time"),
        (("account", "grant", "ab" * 16, "king", "--as", "admin"), "unknown_role"),
        (("receipt", "fetch", "abc"), "bad_digest"),
        (("watch", "--after", "1-2"), "bad_cursor"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistake_is_found_before_anything_is_sent(endpoints: Path, words: tuple[str, ...], code: str) -> None:
    failure = failure_of(*words, "-e", str(endpoints))
    assert (failure.exit_code, failure.code) == (ExitCode.USAGE, code)


def test_broken_script_is_refused_before_the_cluster_is_started(tmp_path: Path) -> None:
    script = tmp_path / "broken.arremate"
    script.write_text("status\nexpect\n")
    failure = failure_of("demo", "--execute", str(script))
    assert (failure.exit_code, failure.code) == (ExitCode.USAGE, "bad_statement")
    assert "line 2" in failure.detail


def test_file_that_is_no_receipt_is_five(endpoints: Path, tmp_path: Path) -> None:
    path = tmp_path / "receipt.json"
    path.write_text("{}")
    failure = failure_of("receipt", "verify", str(path), "--genesis", str(endpoints.parent / "genesis.json"))
    assert (failure.exit_code, failure.code) == (ExitCode.VERIFICATION_FAILED, "malformed_receipt")


def test_exit_codes_are_those_of_the_contract() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "USAGE": 2,
        "REFUSED": 3,
        "NO_QUORUM": 4,
        "VERIFICATION_FAILED": 5,
        "THRESHOLD": 99,
    }
    assert unreachable("x").exit_code == 4
    assert unverified("x", "y").exit_code == 5


def test_every_command_has_a_help_text_and_an_example() -> None:
    without = []
    groups = [("", build())]
    while groups:
        prefix, group = groups.pop()
        for info in group.registered_commands:
            name = f"{prefix} {info.name}".strip()
            if not (info.callback and info.callback.__doc__ and (info.epilog or "").startswith("Example: arremate")):
                without.append(name)
        groups += [(f"{prefix} {info.name}", info.typer_instance) for info in group.registered_groups]
    assert without == []


def test_output_without_colour_has_no_escape_codes(tmp_path: Path) -> None:
    done = arremate("key", "new", str(tmp_path / "a.key"), NO_COLOR="1", FORCE_COLOR="1")
    assert done.returncode == 0
    assert re.search(r"\x1b\[[0-9;]*(3[0-7]|9[0-7])m", done.stdout) is None
