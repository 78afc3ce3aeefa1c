"""`arremate testnet`: the folders of a new cluster, one for each node, and the keys of a few users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from auction.cli import sample
from auction.cli.command import local_command
from auction.cli.endpoints import write_endpoints
from auction.cli.failure import usage
from auction.cli.output import Answer, record
from auction.cli.session import Session
from auction.machine import AuctionMachine
from nodes.config import ConfigError
from nodes.core.quorum import Thresholds
from nodes.keys import SigningKey
from nodes.testnet import Application, NodePlan, Testnet, consecutive_ports, create_testnet, https_url

DEFAULT_BASE_PORT = 7400


def register(app: typer.Typer) -> None:
    @local_command(app, "testnet", example="arremate testnet --out cluster --host a.example --host b.example ...")
    def testnet(
        session: Session,
        out: Annotated[Path, typer.Option(help="New folder.")],
        nodes: Annotated[int, typer.Option(min=1, max=13, help="1, or 4 to 13.")] = 4,
        host: Annotated[
            list[str] | None, typer.Option(help="Where nodes are found; once for all, or once a node.")
        ] = None,
        listen: Annotated[str | None, typer.Option(help="Address to bind; the host if it is an address.")] = None,
        base_port: Annotated[int, typer.Option(min=1, max=65_000, help="Node N uses base + 10 N and the next 4.")] = (
            DEFAULT_BASE_PORT
        ),
        database: Annotated[
            list[str] | None, typer.Option(help="Database URL, once a node; SQLite in its folder by default.")
        ] = None,
    ) -> Answer:
        """Make keys, certificates, genesis and one folder a node. Nobody's folder holds another node's secrets."""
        plans = _plans(nodes, host or ["127.0.0.1"], listen, base_port, database)
        made = make_auction_testnet(out, plans, sample.make_keys())
        value = {
            "folder": str(made.folder),
            "cluster": made.cluster.cluster_id.hex(),
            "endpoints": str(made.folder / "endpoints.json"),
            "genesis": str(made.genesis),
            "ca": str(made.authority),
            "nodes": [str(node) for node in made.nodes],
            "keys": {name: str(path) for name, path in made.clients.items()},
        }
        shown = {
            **value,
            "tolerates": f"{Thresholds(nodes).f} faulty of {nodes}",
            "nodes": ", ".join(node.name for node in made.nodes),
            "keys": ", ".join(made.clients),
            "start each with": f"arremate node run --config {made.nodes[0]}/node.toml",
            "then": f"export ARREMATE_ENDPOINTS={made.folder / 'endpoints.json'}",
        }
        return Answer(value, record("a new cluster", shown))


def make_auction_testnet(out: Path, plans: Sequence[NodePlan], keys: Mapping[str, SigningKey]) -> Testnet:
    """The folder of an auction cluster with an endpoints file; usage errors for what makes no sense."""
    application = Application("auction", sample.MACHINE, AuctionMachine.version, sample.application_genesis(keys))
    return make_testnet(out, plans, application, keys)


def make_testnet(
    out: Path, plans: Sequence[NodePlan], application: Application, keys: Mapping[str, SigningKey]
) -> Testnet:
    """The same for any application."""
    try:
        made = create_testnet(out, plans=plans, application=application, clients=keys)
    except FileExistsError as error:
        raise usage("folder_exists", str(error), "name a new folder") from error
    except (ConfigError, ValueError) as error:
        raise usage("bad_testnet", str(error)) from error
    except OSError as error:
        raise usage("cannot_write", f"{error.filename}: {error.strerror}") from error
    write_endpoints(
        made.folder / "endpoints.json",
        genesis="genesis.json",
        ca="ca.pem",
        nodes={
            member.replica: (member.name, https_url(member.host, member.https_port)) for member in made.cluster.members
        },
        keys={name: f"clients/{name}.key" for name in made.clients},
        receipts="receipts",
    )
    return made


def _plans(
    nodes: int, hosts: Sequence[str], listen: str | None, base_port: int, databases: Sequence[str] | None
) -> list[NodePlan]:
    if len(hosts) not in (1, nodes):
        raise usage("bad_option", f"{len(hosts)} hosts for {nodes} nodes", "give --host once, or once a node")
    if databases and len(databases) != nodes:
        raise usage("bad_option", f"{len(databases)} databases for {nodes} nodes", "give --database once a node")
    try:
        ports = consecutive_ports(base_port, nodes)
    except ValueError as error:
        raise usage("bad_option", str(error), "choose a lower --base-port") from error
    plans = []
    for replica, node_ports in enumerate(ports):
        host = hosts[replica % len(hosts)]
        plan = NodePlan(
            name=f"node{replica}",
            host=host,
            ports=node_ports,
            listen_host=listen or (host if _is_address(host) else "0.0.0.0"),  # noqa: S104  # a name says no interface
            certificate_hosts=("localhost", "127.0.0.1"),
            **({"database_url": databases[replica]} if databases else {}),
        )
        plans.append(plan)
    return plans


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdecimal()
