"""Fixtures that give a test a fresh database: an SQLite file, or one of a private MariaDB server.

The server is started once a process, on a free loopback port with a throw-away password, and ended by its
own id. Where no server binary is installed its tests are skipped with a reason, and the last lines of the
run say which databases were tested; ARREMATE_REQUIRE_MARIADB=1 makes the absence a failure.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
import pytest

REQUIRE = "ARREMATE_REQUIRE_MARIADB"
START_TIMEOUT_S = 60
USER = "arremate"

_tested: set[str] = set()


@dataclass
class MariaDbServer:
    """One running server and the way to its databases."""

    process: subprocess.Popen[bytes]
    directory: Path
    port: int
    password: str
    version: str = ""
    _count: int = field(default=0)

    def fresh(self, options: str = "") -> str:
        """URL of a new, empty database; `options` are those of CREATE DATABASE."""
        self._count += 1
        name = f"test_{self._count}"
        self.run(f"CREATE DATABASE {name} {options}")
        return f"mariadb+pymysql://{USER}:{self.password}@127.0.0.1:{self.port}/{name}"

    def connect(self, database: str | None = None) -> Any:
        """A connection of the driver with all rights on every database."""
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user=USER, password=self.password, database=database, autocommit=True
        )

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements; the rows of the last one."""
        rows: list[tuple[Any, ...]] = []
        with self.connect() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = list(cursor.fetchall())
        return rows

    @contextmanager
    def settings(self, values: Mapping[str, object]) -> Iterator[None]:
        """Global settings for new connections, put back afterwards."""
        before = {name: self.run(f"SELECT @@GLOBAL.{name}")[0][0] for name in values}
        try:
            self._set(values)
            yield
        finally:
            self._set(before)

    def _set(self, values: Mapping[str, object]) -> None:
        self.run(
            *(
                f"SET GLOBAL {name} = {value if isinstance(value, int) else repr(value)}"
                for name, value in values.items()
            )
        )

    def stop(self) -> None:
        """End the server by its own id."""
        self.process.terminate()
        try:
            self.process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_mariadb(server: str, install: str, directory: Path) -> MariaDbServer:
    """Install and start a private server in `directory`. RuntimeError with its log when it does not come up."""
    data = directory / "data"
    options = ["--no-defaults", f"--datadir={data}", *(["--user=root"] if os.geteuid() == 0 else [])]
    installed = subprocess.run(
        [install, *options, "--auth-root-authentication-method=normal", "--skip-test-db"],
        capture_output=True,
        check=False,
    )
    if installed.returncode:
        raise RuntimeError(f"mariadb-install-db failed: {installed.stderr.decode(errors='replace')}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    password = secrets.token_hex(16)
    first = directory / "first.sql"
    first.write_text(
        f"CREATE USER '{USER}'@'127.0.0.1' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'127.0.0.1';\n"
        f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{password}';\n"
    )
    first.chmod(0o600)
    with_parent = [shutil.which("setpriv") or "", "--pdeathsig", "TERM"]  # a killed test run leaves no server
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(with_parent if with_parent[0] else []),
                server,
                *options,
                f"--socket={directory / 'db.sock'}",
                f"--pid-file={directory / 'db.pid'}",
                f"--port={port}",
                "--bind-address=127.0.0.1",
                "--skip-networking=0",
                "--skip-name-resolve",
                "--skip-log-bin",
                "--innodb-flush-log-at-trx-commit=2",
                "--innodb-flush-method=nosync",  # nothing here outlives the run
                "--innodb-file-per-table=OFF",
                "--innodb-buffer-pool-size=64M",
                "--performance-schema=OFF",
                f"--init-file={first}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    started = MariaDbServer(process, directory, port, password)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not started.version:
        try:
            started.version = ".".join(started.run("SELECT VERSION()")[0][0].split("-")[0].split("."))
        except pymysql.err.Error as error:
            if process.poll() is not None or time.monotonic() > deadline:
                started.stop()
                raise RuntimeError(f"mariadbd did not start: {log.read_text(errors='replace')}") from error
            time.sleep(0.05)
    return started


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDbServer]:
    """The private server of this process; skips (or fails, see above) where none is installed."""
    server = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    install = shutil.which("mariadb-install-db")
    if server is None or install is None:
        reason = "no MariaDB server is installed (mariadbd, mariadb-install-db)"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{reason}, and {REQUIRE}=1")
        pytest.skip(reason)
    directory = Path(tempfile.mkdtemp(prefix="arremate-db-"))
    try:
        running = start_mariadb(server, install, directory)
        _tested.add(f"mariadb {running.version}")
        yield running
        running.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A fresh SQLite database."""
    _tested.add("sqlite")
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def mariadb_url(mariadb_server: MariaDbServer) -> str:
    """A fresh MariaDB database. Mark its tests `mariadb`."""
    return mariadb_server.fresh()


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["databases"] = sorted(_tested)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist is done: its databases were tested too."""
    _tested.update(getattr(node, "workeroutput", {}).get("databases", []))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _tested:
        terminalreporter.write_line(f"databases tested: {', '.join(sorted(_tested, reverse=True))}")
