"""What breaks around a block: the process, the connection, the answer to a COMMIT, the disk."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from databases import MariaDbServer
from executor_harness import Log, key_of, make_cluster, open_executor, random_log, run, statuses
from sqlalchemy.engine import make_url

from nodes.codes import Status
from nodes.executor.executor import DatabaseUnavailable, ExecutorStopped
from nodes.executor.protocol import Query

SMALL = {"state_interval": 4, "validity_max_us": 2_000_000, "results_lifetime_us": 3_000_000, "timers_max": 3}
BLOCKS = 11

CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from executor_harness import *
from nodes.executor.archive import BlockArchive
from nodes.executor.connection import MySqlConnection, SqliteConnection

point, target = sys.argv[3], int(sys.argv[4])
blocks = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def killing(method, before):
    def run(self, *arguments):
        if point == before and blocks == target:
            if before == "commit":
                self.flush()
            die()
        result = method(self, *arguments)
        if point == "after " + before and blocks == target:
            die()
        return result
    return run

cluster = make_cluster(state_interval=4, validity_max_us=2_000_000, results_lifetime_us=3_000_000, timers_max=3)
log = random_log(cluster, 41, 11)
executor = open_executor(log.cluster, sys.argv[2])
BlockArchive.add = killing(BlockArchive.add, "archive")
for kind in (MySqlConnection, SqliteConnection):
    kind.commit = killing(kind.commit, "commit")
for message in log.messages:
    blocks += 1
    executor.execute(message)
"""


@pytest.mark.parametrize("target", [3, 4], ids=["inside an interval", "at a state root"])
@pytest.mark.parametrize("point", ["archive", "after archive", "commit", "after commit"])
def test_kill_inside_a_block_and_replay_give_the_same_headers(
    point: str, target: int, database_url: str, tmp_path: Path
) -> None:
    log = random_log(make_cluster(**SMALL), 41, BLOCKS)
    reference = open_executor(log.cluster, f"sqlite:///{tmp_path / 'reference.db'}")
    expected = run(reference, log.messages)
    reference.close()
    arguments = [str(Path(__file__).parent), database_url, point, str(target)]
    killed = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    executor = open_executor(log.cluster, database_url)
    assert executor.ready().sequence == (target if point == "after commit" else target - 1)
    assert run(executor, log.messages) == expected
    assert executor.verify_state().problems == []
    executor.close()


@contextmanager
def cutting_proxy(port: int, drop_answer: bool) -> Iterator[tuple[int, threading.Event]]:
    """A way to a database server that, while the event is set, cuts the connection at a COMMIT.

    With `drop_answer` the server executes the COMMIT, and only its answer is lost.
    """
    cut, done = threading.Event(), threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    threads: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            dying = False

            def back() -> None:
                while data := _receive(server):
                    if dying:
                        break
                    client.sendall(data)
                _shut(client)
                _shut(server)

            answering = threading.Thread(target=back)
            answering.start()
            while data := _receive(client):
                if cut.is_set() and data.endswith(b";COMMIT"):
                    cut.clear()
                    dying = True
                    if not drop_answer:
                        break
                server.sendall(data)
            _shut(server)
            answering.join()

    def accept() -> None:
        while not done.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            client.settimeout(None)
            threads.append(threading.Thread(target=serve, args=(client,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()[1], cut
    finally:
        done.set()
        accepting.join()
        for thread in threads:
            thread.join(10)
        listener.close()


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""


def _shut(channel: socket.socket) -> None:
    try:
        channel.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@pytest.mark.mariadb
@pytest.mark.parametrize("drop_answer", [False, True], ids=["COMMIT lost", "answer lost"])
def test_commit_without_an_answer_is_settled_by_looking(
    drop_answer: bool, mariadb_server: MariaDbServer, tmp_path: Path
) -> None:
    log = random_log(make_cluster(**SMALL), 41, BLOCKS)
    reference = open_executor(log.cluster, f"sqlite:///{tmp_path / 'reference.db'}")
    expected = [reference.execute(message) for message in log.messages]
    reference.close()
    url = make_url(mariadb_server.fresh())
    with cutting_proxy(mariadb_server.port, drop_answer) as (port, cut):
        executor = open_executor(log.cluster, url.set(port=port).render_as_string(hide_password=False))
        for message, answer in zip(log.messages, expected, strict=True):
            cut.set()
            assert executor.execute(message) == answer
            assert not cut.is_set(), "the connection was cut"
        assert executor.verify_state().problems == []
        executor.close()


@pytest.mark.mariadb
def test_lost_connections_are_opened_again(mariadb_server: MariaDbServer) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, mariadb_server.fresh())
    for i in range(3):
        for connection in (executor._writer, executor._reader):
            ((identity,),) = connection.rows("SELECT CONNECTION_ID()")
            mariadb_server.run(f"KILL {identity}")
        record = log.record({"do": "add", "amount": 1}, key=key_of(1), sequence=i + 1)
        assert statuses(executor.execute(log.batch(record))) == [Status.OK]
        assert executor.query(Query(1, b"{}")).sequence == i + 1
    executor.close()


@pytest.mark.mariadb
def test_lock_wait_timeout_rolls_back_the_whole_block(mariadb_server: MariaDbServer) -> None:
    """Error 1205 undoes one statement only: the executor must undo the rest."""
    cluster = make_cluster()
    log = Log(cluster)
    url = mariadb_server.fresh()
    blocker = mariadb_server.connect(make_url(url).database)
    executor = open_executor(cluster, url, pause=lambda _seconds: blocker.rollback())
    first = log.record({"do": "add", "amount": 1}, key=key_of(1), sequence=1)
    executor.execute(log.batch(first))
    executor._writer.execute("SET SESSION innodb_lock_wait_timeout=1")
    blocker.begin()
    with blocker.cursor() as cursor:
        cursor.execute("SELECT * FROM totals FOR UPDATE")
    second = log.record({"do": "add", "amount": 1}, key=key_of(1), sequence=2)
    assert statuses(executor.execute(log.batch(second))) == [Status.OK]
    report = executor.verify_state()
    assert (report.problems, report.rows["results"]) == ([], 2)
    blocker.close()
    executor.close()


def test_database_that_stays_broken_is_reported_and_the_block_done_later(sqlite_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    pauses: list[float] = []
    executor = open_executor(cluster, sqlite_url, pause=pauses.append)
    message = log.batch(log.record({"do": "add", "amount": 1}, key=key_of(1)))
    executor._writer.execute("INSERT INTO bodies VALUES (1, 'in the way')")
    with pytest.raises(DatabaseUnavailable, match="UNIQUE"):
        executor.execute(message)
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    executor._writer.open()
    executor._writer.execute("DELETE FROM bodies")
    assert statuses(executor.execute(message)) == [Status.OK]
    executor.close()


def test_full_disk_rolls_the_block_back(sqlite_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url, pause=lambda _seconds: None)
    ((pages,),) = executor._writer.rows("PRAGMA page_count")
    executor._writer.execute(f"PRAGMA max_page_count={pages + 2}")  # of this connection; a new one has room
    records = [log.record({"do": "add", "amount": 1, "blob": 9000}, key=key_of(i)) for i in range(20)]
    assert statuses(executor.execute(log.batch(*records))) == [Status.OK] * 20
    assert executor.verify_state().problems == []
    executor.close()


def test_database_that_went_back_stops_the_executor(sqlite_url: str) -> None:
    cluster = make_cluster()
    log = Log(cluster)
    executor = open_executor(cluster, sqlite_url)
    run(executor, [log.batch(), log.batch()])
    executor._writer.execute("DELETE FROM blocks WHERE sequence = 2")
    executor._writer.close()
    with pytest.raises(ExecutorStopped, match="went back"):
        executor.execute(log.batch())
    executor.close()


def test_process_end_without_close_frees_the_database(sqlite_url: str) -> None:
    """The lock file's lock goes with the process, the file may stay."""
    program = "import sys, os; sys.path.insert(0, sys.argv[1]); from executor_harness import *\n"
    program += "open_executor(make_cluster(), sys.argv[2]); os._exit(0)"
    subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent), sqlite_url], check=True, env=dict(os.environ)
    )
    executor = open_executor(make_cluster(), sqlite_url)
    assert executor.ready().sequence == 0
    executor.close()
