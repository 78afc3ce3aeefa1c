"""`arremate status`: what every node says of itself, side by side. Unsigned words; receipts are the proof."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, NamedTuple

import httpx
import typer
from rich.live import Live
from rich.table import Table

from auction.cli.command import Call, cluster_command
from auction.cli.endpoints import Endpoints, NodeEndpoint
from auction.cli.failure import unreachable, usage
from auction.cli.output import Answer, OutputFormat, listing

REFRESH_S = 1.0
TIMEOUT_S = 3.0
HASH_CHARACTERS = 12
COLUMNS = ("node", "answers", "view", "primary", "block", "block hash", "state at", "state root", "detail")


class NodeView(NamedTuple):
    """What must be equal at all nodes once they are at rest."""

    sequence: int
    block_hash: str
    state_sequence: int
    state_root: str


def node_view(document: Mapping[str, Any]) -> NodeView:
    """From a node's status document."""
    state = document["state"]
    return NodeView(document["sequence"], document["block_hash"], state["sequence"], state["root"])


def register(app: typer.Typer) -> None:
    @cluster_command(app, "status", example="arremate status --watch")
    def status(
        call: Call,
        watch: Annotated[bool, typer.Option("--watch", "-w", help="Again every second, until Ctrl-C.")] = False,
    ) -> Answer:
        """Show view, block and state of every node. Exit code 4 when fewer than a quorum answer."""
        with StatusReader(call.endpoints, call.node) as reader:
            if watch:
                _watch(call, reader)
            documents = reader.read()
        answer = Answer({"nodes": documents}, _table(documents))
        answering = sum(document["answers"] for document in documents)
        needed = 1 if call.node is not None else call.connection.cluster.quorum
        if answering < needed:
            call.session.output.show(answer, call.output_format)
            raise unreachable(f"{answering} nodes answer, {needed} are needed", "start the others: arremate node run")
        return answer


class StatusReader:
    """Asks all nodes in parallel."""

    def __init__(self, endpoints: Endpoints, node: int | None) -> None:
        self._nodes = list(endpoints.nodes) if node is None else [endpoints.node(node)]
        try:
            context = ssl.create_default_context(cafile=str(endpoints.ca))
        except OSError as error:
            raise usage("no_ca", f"cannot use {endpoints.ca}: {error.strerror}") from error
        self._http = httpx.Client(verify=context, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> StatusReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def read(self) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(len(self._nodes)) as pool:
            return list(pool.map(self._one, self._nodes))

    def _one(self, node: NodeEndpoint) -> dict[str, Any]:
        base = {"node": node.replica, "https": node.https}
        try:
            answer = self._http.get(f"{node.https}/v1/status").raise_for_status()
            document = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            return {**base, "answers": False, "detail": f"{error or type(error).__name__}"}
        return {**base, "answers": True, **document}


def _watch(call: Call, reader: StatusReader) -> None:
    """Ends with Ctrl-C, as KeyboardInterrupt."""
    if call.output_format is OutputFormat.JSON:
        while True:
            call.session.output.show(Answer({"nodes": reader.read()}), call.output_format)
            time.sleep(REFRESH_S)
    with Live(_table(reader.read()), console=call.session.output.console, auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_S)
            live.update(_table(reader.read()), refresh=True)


def _table(documents: list[dict[str, Any]]) -> Table | str:
    rows = [
        (
            document["node"],
            document["answers"],
            *_described(document),
        )
        for document in documents
    ]
    return listing("nodes", COLUMNS, rows)


def _described(document: dict[str, Any]) -> tuple[object, ...]:
    if not document["answers"]:
        return (None,) * 6 + (document["detail"],)
    sequence, block_hash, state_sequence, state_root = node_view(document)
    notes = [name.replace("_", " ") for name in ("catching_up", "diverged") if document.get(name)]
    if document["executor"]["alarm"]:
        notes.append(document["executor"]["alarm"])
    return (
        document["view"],
        document["primary"],
        sequence,
        _short(block_hash),
        state_sequence,
        _short(state_root),
        ", ".join(notes) or document["mode"],
    )


def _short(value: object) -> str:
    return str(value)[:HASH_CHARACTERS] if value else "-"
