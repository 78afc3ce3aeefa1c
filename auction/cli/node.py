"""`arremate node run`, and its three processes one by one: `replica run`, `executor run`, `gateway run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auction.cli.failure import ExitCode, usage
from nodes.config import ConfigError, NodeConfig
from nodes.lifetime import die_with_parent

ConfigOption = Annotated[Path, typer.Option("--config", help="The node's node.toml, as made by arremate testnet.")]


def register(app: typer.Typer) -> None:
    node = typer.Typer(help="Run a node.", no_args_is_help=True)
    app.add_typer(node, name="node")

    @node.command("run", epilog="Example: arremate node run --config node0/node.toml")
    def run(config: ConfigOption) -> ExitCode:
        """Run replica, executor and gateway of one node; what ends is started again."""
        die_with_parent()
        loaded = load_node(config)
        from nodes import supervisor

        supervisor.main(config, loaded)
        return ExitCode.DONE


def load_node(path: Path) -> NodeConfig:
    """The node's configuration; usage errors that name the field and the fix."""
    try:
        return NodeConfig.load(path)
    except OSError as error:
        raise usage("no_config", f"cannot read {path}: {error.strerror}") from error
    except ConfigError as error:
        raise usage("bad_config", str(error)) from error
