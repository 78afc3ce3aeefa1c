"""`arremate doctor`: what on this machine would keep a node from running, and how to fix it.

Every check is a function that returns a `Finding`; none changes anything. A failed required check makes
the command exit with 5; a missing optional part (a MariaDB server) is only reported.
"""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from auction.cli.command import local_command
from auction.cli.failure import ExitCode, Failure
from auction.cli.output import Answer, listing
from auction.cli.session import Session

SQLITE_MINIMUM = (3, 37, 0)
"""STRICT tables and a WAL mode without the known corruption bugs."""
FREE_BYTES_MINIMUM = 512 * 1024 * 1024
OPEN_FILES_MINIMUM = 1024
CLOCK_EARLIEST_US = 1_735_689_600_000_000
"""2025-01-01: a clock before the program existed is wrong."""
SECRET_NAMES = ("*.key",)


class Level(StrEnum):
    OK = "ok"
    MISSING = "missing"
    """Optional, not there."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    detail: str
    fix: str = ""


def register(app: typer.Typer) -> None:
    @local_command(app, "doctor", example="arremate doctor /srv/arremate/node0")
    def doctor(
        session: Session,
        folder: Annotated[Path | None, typer.Argument(help="Also check the secrets in this folder.")] = None,
    ) -> Answer:
        """Check this machine: compiler, extension build, databases, ports, clock, file permissions."""
        findings = [check() for check in CHECKS]
        if folder is not None:
            findings.extend(check_secrets(folder))
        rows = ((finding.check, finding.level, finding.detail, finding.fix) for finding in findings)
        answer = Answer(
            [asdict(finding) for finding in findings],
            listing("doctor", ("check", "result", "found", "how to fix"), rows),
        )
        failed = [finding for finding in findings if finding.level is Level.FAILED]
        if failed:
            session.output.console.print(answer.rendered)
            names = ", ".join(finding.check for finding in failed)
            raise Failure(ExitCode.VERIFICATION_FAILED, "unhealthy", names, hint=failed[0].fix)
        return answer


def check_python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("python", Level.OK, version)
    return Finding("python", Level.FAILED, version, "install Python 3.11, 3.12 or 3.13 and run make build")


def check_compiler() -> Finding:
    command = (sysconfig.get_config_var("CC") or "cc").split()[0]
    found = shutil.which(command) or shutil.which("cc") or shutil.which("gcc")
    if found is None:
        return Finding("c compiler", Level.MISSING, "none", "apt-get install build-essential python3-dev")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.exists():
        return Finding("c compiler", Level.MISSING, f"{found}, but no Python.h", "apt-get install python3-dev")
    return Finding("c compiler", Level.OK, found)


def check_fastpath() -> Finding:
    """In a process of its own: which build is used is decided at import."""
    environment = {name: value for name, value in os.environ.items() if name != "ARREMATE_FASTPATH"}
    done = subprocess.run(  # our own interpreter, a constant program
        [sys.executable, "-c", "import fastpath; print(fastpath.BUILD)"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    if done.returncode == 0:
        return Finding("fast path", Level.OK, done.stdout.strip())
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    return Finding("fast path", Level.FAILED, reason, "make build (or ARREMATE_FASTPATH=python, much slower)")


def check_sqlite() -> Finding:
    if sqlite3.sqlite_version_info >= SQLITE_MINIMUM:
        return Finding("sqlite", Level.OK, sqlite3.sqlite_version)
    minimum = ".".join(str(part) for part in SQLITE_MINIMUM)
    return Finding("sqlite", Level.FAILED, sqlite3.sqlite_version, f"install SQLite {minimum} or newer")


def check_mariadb() -> Finding:
    found = (
        shutil.which("mariadbd") or shutil.which("mysqld") or shutil.which("mariadbd", path="/usr/sbin:/usr/libexec")
    )
    if found is None:
        return Finding("mariadb", Level.MISSING, "no server here", "optional: apt-get install mariadb-server")
    return Finding("mariadb", Level.OK, found)


def check_loopback() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                return Finding("loopback ports", Level.OK, f"can listen and connect (tried {port})")
    except OSError as error:
        return Finding("loopback ports", Level.FAILED, str(error), "allow TCP on 127.0.0.1")


def check_clock() -> Finding:
    wall_us = time.time_ns() // 1_000
    if wall_us < CLOCK_EARLIEST_US:
        return Finding("clock", Level.FAILED, f"{wall_us} us", "set the clock: timedatectl set-ntp true")
    if Path("/run/systemd/timesync/synchronized").exists():
        return Finding("clock", Level.OK, "synchronised")
    return Finding(
        "clock", Level.OK, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()) + " (not known: synchronised)"
    )


def check_temporary_folder() -> Finding:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"arremate")
            file.flush()
            os.fsync(file.fileno())
        free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    except OSError as error:
        return Finding("temporary folder", Level.FAILED, str(error), "point TMPDIR at a writable folder")
    if free_bytes < FREE_BYTES_MINIMUM:
        return Finding("temporary folder", Level.FAILED, f"{free_bytes >> 20} MiB free", "free some space")
    return Finding("temporary folder", Level.OK, f"{tempfile.gettempdir()}, {free_bytes >> 20} MiB free")


def check_open_files() -> Finding:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES_MINIMUM:
        return Finding("open files", Level.FAILED, f"limit {soft}", f"ulimit -n {OPEN_FILES_MINIMUM}")
    return Finding("open files", Level.OK, f"limit {soft}")


def check_secrets(folder: Path) -> Iterator[Finding]:
    """One finding for each secret file under `folder`: nobody else may read it."""
    if not folder.is_dir():
        yield Finding("secrets", Level.FAILED, f"{folder} is no folder", "name the folder of a node or a testnet")
        return
    paths = sorted({path for pattern in SECRET_NAMES for path in folder.rglob(pattern)})
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield Finding("secrets", Level.FAILED, f"{path} has mode {mode:04o}", f"chmod 600 {path}")
    yield Finding("secrets", Level.OK, f"{len(paths)} key files examined in {folder}")


CHECKS: tuple[Callable[[], Finding], ...] = (
    check_python,
    check_compiler,
    check_fastpath,
    check_sqlite,
    check_mariadb,
    check_loopback,
    check_clock,
    check_temporary_folder,
    check_open_files,
)
