"""`arremate demo` runs the user's script on four real nodes, proves it, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from auction.cli.receipt_ledger import balances_of_receipts
from auction.codes import code_name
from nodes.config import ClusterConfig
from nodes.receipt import FiredTimer, Receipt, SignedOperation
from tests.databases import USER, MariaDbServer
from tests.unit.auction.auction_model import Model

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN_S = 240


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "auction.cli.main", *words]


def environment(scratch: Path) -> dict[str, str]:
    """Temporary files of the demo go to `scratch`, so that what is left can be seen.

    The variables name another cluster, as in a terminal where somebody uses one: a demo must not touch it.
    """
    other = {"ARREMATE_ENDPOINTS": str(scratch / "another.json"), "ARREMATE_AS": "nobody"}
    return {**os.environ, **other, "TMPDIR": str(scratch), "NO_COLOR": "1"}


def arremate(scratch: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), env=environment(scratch), capture_output=True, text=True, timeout=RUN_S, check=False
    )


def processes_of(scratch: Path) -> list[str]:
    """Command lines of the processes that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(scratch) in line and path.parent.name != str(os.getpid()):
            found.append(line)
    return found


def assert_nothing_left(scratch: Path) -> None:
    assert processes_of(scratch) == []
    assert list(scratch.iterdir()) == []


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a short name: the nodes' sockets are in it, and a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        yield Path(folder)


def receipts_of(folder: Path) -> list[Receipt]:
    """All kept receipts, verified, in the order of the log."""
    cluster = ClusterConfig.load(folder / "genesis.json")
    found = [Receipt.from_json(path.read_bytes()) for path in sorted((folder / "receipts").glob("*.json"))]
    for receipt in found:
        receipt.verify(cluster)
    return sorted(found, key=lambda receipt: (receipt.header.sequence, receipt.index))


def replayed(folder: Path, receipts: Sequence[Receipt]) -> Model:
    """The plain model after the operations of these receipts; every outcome must be the model's."""
    model = Model(dict(ClusterConfig.load(folder / "genesis.json").application_genesis))
    for receipt in receipts:
        model.advance(receipt.header.time_us)
        if isinstance(receipt.subject, SignedOperation):
            code = model.execute(
                receipt.subject.public_key, receipt.subject.operation, receipt.digest, receipt.header.time_us
            )
            assert code == code_name(receipt.status), receipt.subject.operation
    return model


def test_script_of_the_story_holds_and_every_receipt_verifies(scratch: Path, tmp_path: Path) -> None:
    folder = tmp_path / "k"
    done = arremate(scratch, "demo", "--execute", str(EXAMPLES / "auction.arremate"), "--keep", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_nothing_left(scratch)
    receipts = receipts_of(folder)
    closings = [receipt for receipt in receipts if isinstance(receipt.subject, FiredTimer)]
    assert [json.loads(receipt.result)["outcome"] for receipt in closings] == ["sold"]
    refusals = sorted(code_name(receipt.status) for receipt in receipts if receipt.status)
    assert refusals == ["auction_closed", "bid_too_low", "own_auction", "unauthorized"]
    genesis = ("--genesis", str(folder / "genesis.json"))
    files = [str(path) for path in sorted((folder / "receipts").glob("*.json"))]
    assert arremate(scratch, "receipt", "verify", *files, *genesis).returncode == 0
    tested = arremate(scratch, "receipt", "verify", files[-1], *genesis, "--self-test", "-o", "json")
    assert tested.returncode == 0, tested.stderr
    assert {row["code"] for row in json.loads(tested.stdout)["self_test"]} >= {"bad_merkle_path", "bad_attestation"}
    data = bytearray(Path(files[0]).read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "changed.json").write_bytes(data)
    assert arremate(scratch, "receipt", "verify", str(tmp_path / "changed.json"), *genesis).returncode == 5


@pytest.mark.parametrize("seed", [20260])
def test_random_script_ends_in_the_balances_of_the_plain_model(scratch: Path, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "k"
    done = arremate(scratch, "demo", "--random", str(seed), "--operations", "90", "--keep", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    model = replayed(folder, receipts_of(folder))
    shown = balances_of_receipts(folder / "receipts", folder / "genesis.json")
    expected = {name: (account["free"], account["held"]) for name, account in model.accounts.items()}
    assert {name: tuple(shown.get(name, (0, 0))) for name in expected} == expected
    assert sum(available + held for available, held in expected.values()) == model.minted > 0
    assert {auction["state"] for auction in model.auctions.values()} <= {"closed", "cancelled"}


@pytest.mark.mariadb
def test_script_of_the_story_holds_on_four_mariadb_databases(scratch: Path, mariadb_server: MariaDbServer) -> None:
    before = mariadb_server.run("SHOW DATABASES")
    url = f"mysql+pymysql://{USER}:{mariadb_server.password}@127.0.0.1:{mariadb_server.port}/"
    done = arremate(scratch, "demo", "--execute", str(EXAMPLES / "auction.arremate"), "--database", url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert mariadb_server.password not in done.stdout + done.stderr
    assert_nothing_left(scratch)
    assert mariadb_server.run("SHOW DATABASES") == before


@pytest.mark.slow
def test_killed_backup_comes_back_and_takes_part(scratch: Path) -> None:
    done = arremate(scratch, "demo", "--execute", str(EXAMPLES / "crash.arremate"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert_nothing_left(scratch)


@pytest.mark.slow
def test_failing_script_names_its_line_and_removes_everything(scratch: Path, tmp_path: Path) -> None:
    script = tmp_path / "wrong.arremate"
    script.write_text("mint alice 5 --as issuer\nassert balance alice 6\n")
    done = arremate(scratch, "demo", "--execute", str(script))
    assert done.returncode == 5, done.stdout + done.stderr
    assert "line 2" in done.stderr
    assert_nothing_left(scratch)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_leaves_no_process_and_no_file(scratch: Path, tmp_path: Path, number: int, code: int) -> None:
    announced = tmp_path / "endpoints.json"
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            command("demo", "--endpoints-file", str(announced)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(scratch),
            process_group=0,
        )
        try:
            deadline = time.monotonic() + RUN_S
            while not announced.exists():
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.1)
            assert len(processes_of(scratch)) == 16, "four nodes of four processes"
            os.killpg(process.pid, number)
            assert process.wait(60) == code
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    assert not announced.exists()
    assert_nothing_left(scratch)


@pytest.mark.slow
def test_demo_killed_with_9_takes_its_processes_with_it(scratch: Path, tmp_path: Path) -> None:
    announced = tmp_path / "endpoints.json"
    process = subprocess.Popen(
        command("demo", "--empty", "--endpoints-file", str(announced)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(scratch),
    )
    deadline = time.monotonic() + RUN_S
    while not announced.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.wait()
    while processes_of(scratch):
        assert time.monotonic() < deadline, processes_of(scratch)
        time.sleep(0.1)
