"""`arremate demo`: a whole cluster on this machine, for as long as the command runs.

Always: however it ends (the prompt's \\quit, Ctrl-C, SIGTERM, a failing script), no process, database or file
of the demo is left, unless --keep names a folder. A second signal does not interrupt the removal.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape

from auction.cli import random_script, sample
from auction.cli.cluster_process import ClusterProcess
from auction.cli.endpoints import Endpoints, write_endpoints
from auction.cli.failure import ExitCode, usage
from auction.cli.free_ports import free_node_ports
from auction.cli.prompt import Prompt
from auction.cli.scratch_database import ScratchDatabases
from auction.cli.script import Line, parse_script
from auction.cli.script_runner import ScriptRunner
from auction.cli.session import Session
from auction.cli.testnet import make_auction_testnet, make_testnet
from nodes.testnet import Application, NodePlan, Testnet

HOST = "127.0.0.1"
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for."""

    nodes: int = 4
    database: str | None = None
    keep: Path | None = None
    endpoints_file: Path | None = None
    application: Application | None = None
    """Instead of the auction."""


def register(app: typer.Typer) -> None:
    @app.command("demo", epilog="Example: arremate demo --execute examples/auction.arremate")
    def demo(
        context: typer.Context,
        execute: Annotated[Path | None, typer.Option(help="Run this script, then remove everything.")] = None,
        random: Annotated[int | None, typer.Option(min=0, help="Run a random script made from this seed.")] = None,
        operations: Annotated[int, typer.Option(min=1, max=100_000, help="Length of the random script.")] = 100,
        database: Annotated[str | None, typer.Option(help="MariaDB or MySQL server URL; SQLite by default.")] = None,
        nodes: Annotated[int, typer.Option(min=1, max=13, help="1, or 4 to 13.")] = 4,
        empty: Annotated[bool, typer.Option("--empty", help="Accounts, but no money and no auction.")] = False,
        keep: Annotated[Path | None, typer.Option(help="New folder to use, and to keep.")] = None,
        endpoints_file: Annotated[Path | None, typer.Option(help="Also write the endpoints file here.")] = None,
    ) -> ExitCode:
        """Run four nodes on this machine with sample data; Ctrl-C removes them."""
        if execute is not None and random is not None:
            raise usage("bad_option", "--execute and --random are two scripts", "give one of them")
        script = None
        if execute is not None:
            script = _read_script(execute)
        elif random is not None:
            script = parse_script(random_script.generate(random, operations))
        session: Session = context.obj
        if endpoints_file is not None and endpoints_file.exists():
            raise usage(
                "file_exists",
                f"{endpoints_file} is there already: another demo uses it, or one was killed",
                "stop that demo, remove the file, or name another with --endpoints-file",
            )
        wishes = Wishes(nodes, database, keep, endpoints_file)
        with _signals(), running_cluster(session, wishes) as cluster:
            runner = ScriptRunner(session, cluster, _execute)
            if script is not None:
                with _announced(cluster.testnet, wishes):
                    _run_script(session, runner, script)
            else:
                auction = None if empty else _fill(session)
                with _announced(cluster.testnet, wishes):
                    _introduce(session, cluster, auction)
                    Prompt(session, runner).run()
        return ExitCode.DONE


def _execute(words: Sequence[str], session: Session) -> Any:
    from auction.cli.main import run

    return run(words, session)


def _read_script(path: Path) -> list[Line]:
    try:
        return parse_script(path.read_text(encoding="utf-8").splitlines())
    except OSError as error:
        raise usage("no_script", f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise usage("no_script", f"{path} is not UTF-8 text") from error


def _run_script(session: Session, runner: ScriptRunner, script: list[Line]) -> None:
    session.output.silent = True
    runner.run_lines(script)
    session.output.console.print(f"done: {len(script)} lines, {runner.receipts} receipts verified", style="bold green")


def _fill(session: Session) -> str:
    session.output.silent = True
    try:
        with session.output.console.status("minting money and opening a sample auction"):
            return sample.fill(lambda words: _execute(words, session))
    finally:
        session.output.silent = False


@contextlib.contextmanager
def running_cluster(session: Session, wishes: Wishes) -> Iterator[ClusterProcess]:
    """Folder, databases and nodes; ready when entered, gone when left. Points the session at it."""
    console = session.output.console
    with contextlib.ExitStack() as stack:
        stack.enter_context(_removal_notice(session, wishes.keep))
        folder = stack.enter_context(_scratch_folder(wishes.keep))
        databases = None
        if wishes.database is not None:
            databases = stack.enter_context(ScratchDatabases(wishes.database, wishes.nodes))
        plans = _plans(wishes.nodes, databases)
        if wishes.application is None:
            testnet = make_auction_testnet(folder, plans, sample.make_keys())
        else:
            testnet = make_testnet(folder, plans, wishes.application, {})
        session.endpoints_path = testnet.folder / "endpoints.json"
        cluster = stack.enter_context(ClusterProcess(testnet))
        stack.callback(session.forget_connections)
        with console.status(f"starting {wishes.nodes} nodes"):
            cluster.start()
            cluster.wait_ready(cluster.nodes, lambda text: console.print(f"[green]ok[/] {escape(text)}"))
        yield cluster


@contextlib.contextmanager
def _announced(testnet: Testnet, wishes: Wishes) -> Iterator[None]:
    """Write the endpoints file that the user asked for, now that there is something behind it."""
    if wishes.endpoints_file is None:
        yield
        return
    with _endpoints_copy(testnet, wishes.endpoints_file, keep=wishes.keep is not None):
        yield


def _plans(nodes: int, databases: ScratchDatabases | None) -> list[NodePlan]:
    ports = free_node_ports(HOST, nodes)
    return [
        NodePlan(
            name=f"node{replica}",
            host=HOST,
            ports=ports[replica],
            listen_host=HOST,
            certificate_hosts=("localhost",),
            **({} if databases is None else {"database_url": databases.urls[replica]}),
        )
        for replica in range(nodes)
    ]


@contextlib.contextmanager
def _scratch_folder(keep: Path | None) -> Iterator[Path]:
    """The folder to fill: the user's, or a temporary one that is deleted in the end."""
    if keep is not None:
        yield keep
        return
    parent = Path(tempfile.mkdtemp(prefix="arremate-"))
    try:
        yield parent / "demo"
    finally:
        shutil.rmtree(parent)


@contextlib.contextmanager
def _endpoints_copy(testnet: Testnet, path: Path, *, keep: bool) -> Iterator[None]:
    """The endpoints file once more, with absolute paths, where the user wants it."""
    own = Endpoints.load(testnet.folder / "endpoints.json")
    try:
        write_endpoints(
            path,
            genesis=str(own.genesis),
            ca=str(own.ca),
            nodes={node.replica: (node.name, node.https) for node in own.nodes},
            keys={name: str(file) for name, file in own.keys.items()},
            receipts=str(own.receipts),
        )
    except OSError as error:
        raise usage("cannot_write", f"{path}: {error.strerror}") from error
    try:
        yield
    finally:
        if not keep:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _removal_notice(session: Session, keep: Path | None) -> Iterator[None]:
    try:
        yield
    finally:
        what = "everything of the demo is removed" if keep is None else f"stopped; its files are kept in {keep}"
        session.output.console.print(what, style="dim")


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT, SIGTERM and a closed terminal end the demo in order; once it is ending they are ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> NoReturn:
        for ending in ENDING_SIGNALS:
            signal.signal(ending, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    before = [(ending, signal.signal(ending, end)) for ending in ENDING_SIGNALS]
    try:
        yield
    finally:
        for ending, handler in before:
            signal.signal(ending, handler)


def _introduce(session: Session, cluster: ClusterProcess, auction: str | None) -> None:
    testnet = cluster.testnet
    console = session.output.console
    console.print("\n[bold]four endpoints[/]" if len(cluster.nodes) == 4 else "\n[bold]endpoints[/]")
    for node in cluster.nodes:
        console.print(f"  node {node.replica}  {node.https}   documentation: {node.https}/docs")
    console.print(f"[bold]CA[/]       {testnet.authority}")
    console.print(f"[bold]genesis[/]  {testnet.genesis}")
    console.print(f"[bold]keys[/]     {testnet.folder / 'clients'}: {', '.join(testnet.clients)}")
    console.print("\n[bold]from another terminal[/]")
    console.print(f"  export ARREMATE_ENDPOINTS={testnet.folder / 'endpoints.json'}")
    console.print("  arremate status")
    console.print("  arremate auction list")
    if auction is not None:
        console.print(f"  arremate bid {auction} 12000 --max 20000 --as alice")
        console.print(f"  arremate bid {auction} 15000 --as bob --node 2")
        console.print(f"  arremate auction show {auction}")
    console.print(f"  arremate receipt verify {testnet.folder / 'receipts'}/*.json --genesis {testnet.genesis}")
    console.print(f"  curl --cacert {testnet.authority} {cluster.nodes[0].https}/v1/status\n")
