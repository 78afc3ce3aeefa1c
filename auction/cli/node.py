"""`arremate node run`, and its three processes one by one: `replica run`, `executor run`, `gateway run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from auction.cli.failure import ExitCode, usage
from nodes import supervisor
from nodes.config import ConfigError, NodeConfig
from nodes.lifetime import die_with_parent

PROCESSES = {
    "replica": "Run the agreement process of a node alone.",
    "executor": "Run the database process of a node alone.",
    "gateway": "Run the HTTPS process of a node alone.",
}

ConfigOption = Annotated[Path, typer.Option("--config", help="The node's node.toml, as made by arremate testnet.")]


def register(app: typer.Typer) -> None:
    node = typer.Typer(help="Run a node.", no_args_is_help=True)
    app.add_typer(node, name="node")

    @node.command("run", epilog="Example: arremate node run --config node0/node.toml")
    def run(config: ConfigOption) -> ExitCode:
        """Run replica, executor and gateway of one node; what ends is started again."""
        die_with_parent()
        supervisor.main(config.absolute(), load_node(config))
        return ExitCode.DONE

    for name, what in PROCESSES.items():
        single = typer.Typer(help=what, no_args_is_help=True)
        app.add_typer(single, name=name)
        _register_process(single, name, what)


def _register_process(single: typer.Typer, name: str, what: str) -> None:
    def run(config: ConfigOption) -> NoReturn:
        load_node(config)
        os.execv(sys.executable, [sys.executable, "-m", f"nodes.{name}", "--config", str(config.absolute())])  # noqa: S606

    run.__doc__ = what
    single.command("run", epilog=f"Example: arremate {name} run --config node0/node.toml")(run)


def load_node(path: Path) -> NodeConfig:
    """The node's configuration; usage errors that name the field and the fix."""
    try:
        return NodeConfig.load(path)
    except OSError as error:
        raise usage("no_config", f"cannot read {path}: {error.strerror}") from error
    except ConfigError as error:
        raise usage("bad_config", str(error)) from error
