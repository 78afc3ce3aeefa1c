"""The same order gives the same bytes: on every database, with every setting, cache, build and restart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from databases import MariaDbServer
from executor_harness import Log, make_cluster, open_executor, random_log, run

from nodes.executor.executor import Executor

SMALL = {
    "state_interval": 4,
    "validity_max_us": 2_000_000,
    "results_lifetime_us": 3_000_000,
    "timers_max": 3,
    "sessions_max": 3,
}
BLOCKS = 60


def reference(log: Log, path: Path) -> list[bytes]:
    executor = open_executor(log.cluster, f"sqlite:///{path}")
    headers = run(executor, log.messages)
    assert executor.verify_state().problems == []
    executor.close()
    return headers


@pytest.mark.parametrize("seed", range(2))
def test_headers_do_not_depend_on_the_cache(seed: int, tmp_path: Path) -> None:
    log = random_log(make_cluster(**SMALL), seed, BLOCKS)
    expected = reference(log, tmp_path / "large.db")
    for rows in (0, 2, 6):
        executor = open_executor(log.cluster, f"sqlite:///{tmp_path / f'{rows}.db'}", cache_rows=rows)
        assert run(executor, log.messages) == expected
        executor.close()


@pytest.mark.parametrize("seed", [1])
def test_headers_do_not_depend_on_restarts(seed: int, database_url: str, tmp_path: Path) -> None:
    log = random_log(make_cluster(**SMALL), seed, 14)
    expected = reference(log, tmp_path / "reference.db")
    for i, message in enumerate(log.messages):
        executor = open_executor(log.cluster, database_url, data_dir=tmp_path if i % 3 else None)
        assert executor.execute(message).block_header == expected[i]
        executor.close()


@pytest.mark.mariadb
def test_headers_do_not_depend_on_the_database(mariadb_server: MariaDbServer, tmp_path: Path) -> None:
    log = random_log(make_cluster({"items": {"ämne": 7}}, **SMALL), 11, BLOCKS)
    expected = reference(log, tmp_path / "reference.db")
    plain = open_executor(log.cluster, mariadb_server.fresh())
    assert run(plain, log.messages) == expected
    plain.close()
    strange = {
        "time_zone": "+05:45",
        "sql_mode": "ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,HIGH_NOT_PRECEDENCE",
        "collation_server": "latin1_swedish_ci",
        "tx_isolation": "READ-UNCOMMITTED",
        "div_precision_increment": 9,
        "lc_time_names": "de_DE",
    }
    with mariadb_server.settings(strange):
        other = open_executor(log.cluster, mariadb_server.fresh("CHARACTER SET latin1 COLLATE latin1_german2_ci"))
        assert run(other, log.messages) == expected
        assert other.verify_state().problems == []
        other.close()


def test_headers_do_not_depend_on_build_hash_seed_and_locale(tmp_path: Path) -> None:
    log = random_log(make_cluster(**SMALL), 21, 12, requests_max=5)
    expected = b"".join(reference(log, tmp_path / "reference.db")).hex()
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from executor_harness import *\n"
        f"log = random_log(make_cluster(**{SMALL!r}), 21, 12, requests_max=5)\n"
        "executor = open_executor(log.cluster, sys.argv[2])\n"
        "print(executor.ready().build, b''.join(run(executor, log.messages)).hex())\n"
    )
    for build, seed in (("python", "1"), ("compiled", "2")):
        environment = {**os.environ, "ARREMATE_FASTPATH": build, "PYTHONHASHSEED": seed, "TZ": "Asia/Kathmandu"}
        url = f"sqlite:///{tmp_path / build}.db"
        done = subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent), url],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == f"{build} {expected}"


def test_headers_continue_after_a_rollback(tmp_path: Path, sqlite_url: str) -> None:
    """A block that fails in its last statement is executed again as if nothing had been."""
    log = random_log(make_cluster(**SMALL), 31, 24)
    expected = reference(log, tmp_path / "reference.db")
    executor = open_executor(log.cluster, sqlite_url, pause=lambda _seconds: _unblock(executor))
    for i, message in enumerate(log.messages):
        _block(executor, message.sequence)
        assert executor.execute(message).block_header == expected[i]
    assert executor.verify_state().problems == []
    executor.close()


def _block(executor: Executor, sequence: int) -> None:
    """Make the INSERT of this block's body fail."""
    executor._writer.execute("INSERT INTO bodies VALUES (?, ?)", (sequence, b"in the way"))


def _unblock(executor: Executor) -> None:
    executor._writer.open()
    executor._writer.execute("DELETE FROM bodies WHERE body = ?", (b"in the way",))
