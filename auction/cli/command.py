"""The options that every cluster command has, declared once.

`cluster_command(app, "name")` registers a function whose first parameter is a `Call`; the options that
make the call (which cluster, whose key, which node, which format) are added to its signature, so they
stand in its --help. `local_command` does the same for commands that talk to no cluster.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from auction.cli.connection import Connection, connect
from auction.cli.endpoints import Endpoints
from auction.cli.failure import usage
from auction.cli.money import Currency
from auction.cli.output import Answer, OutputFormat
from auction.cli.session import Session
from auction.cli.signing import Signer

P = ParamSpec("P")

CONNECTION_PANEL = "Cluster and key"

EndpointsOption = Annotated[
    Path | None,
    typer.Option(
        "--endpoints",
        "-e",
        envvar="ARREMATE_ENDPOINTS",
        help="File that names the cluster.",
        rich_help_panel=CONNECTION_PANEL,
    ),
]
AsOption = Annotated[
    str | None,
    typer.Option("--as", envvar="ARREMATE_AS", help="Name of your key in it.", rich_help_panel=CONNECTION_PANEL),
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key", envvar="ARREMATE_KEY", help="Your key file.", rich_help_panel=CONNECTION_PANEL),
]
NodeOption = Annotated[
    int | None,
    typer.Option("--node", min=0, help="Use this node only (HTTPS).", rich_help_panel=CONNECTION_PANEL),
]
ZmqOption = Annotated[
    bool,
    typer.Option("--zmq", help="ZeroMQ to all nodes instead of HTTPS to one.", rich_help_panel=CONNECTION_PANEL),
]
TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", min=0.1, max=600, help="Seconds to wait.", rich_help_panel=CONNECTION_PANEL),
]
FormatOption = Annotated[
    OutputFormat,
    typer.Option("--output", "-o", envvar="ARREMATE_OUTPUT", help="For people or for programs."),
]


@dataclass(frozen=True, slots=True)
class Call:
    """One command's way to the cluster."""

    session: Session
    endpoints: Endpoints
    key_path: Path | None
    node: int | None
    zmq: bool
    timeout_s: float
    output_format: OutputFormat

    @property
    def connection(self) -> Connection:
        """Connected at first use, shared by the commands of a process."""
        name = "" if self.key_path is None else str(self.key_path)
        key = (self.endpoints.path, name, self.node, self.zmq)
        return self.session.connection(
            key, lambda: connect(self.endpoints, node=self.node, zmq=self.zmq, timeout_s=self.timeout_s)
        )

    @property
    def signer(self) -> Signer:
        if self.key_path is None:
            raise usage("no_key", "this needs your signature", "give --as NAME or --key FILE")
        return self.session.signer(self.key_path)

    @property
    def currency(self) -> Currency:
        return Currency.from_genesis(self.connection.cluster.application_genesis)


def cluster_command(
    app: typer.Typer, name: str, *, example: str
) -> Callable[[Callable[Concatenate[Call, P], Answer]], Callable[..., Any]]:
    """Register a command that talks to a cluster. `example` is shown under its --help."""

    def register(function: Callable[Concatenate[Call, P], Answer]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(
            context: typer.Context,
            endpoints: Path | None,
            as_name: str | None,
            key: Path | None,
            node: int | None,
            zmq: bool,
            timeout: float,
            output_format: OutputFormat,
            **arguments: Any,
        ) -> Any:
            session: Session = context.obj
            if session.endpoints_path is not None:
                # A demo's own commands: what the environment names is another cluster, and keys of it.
                endpoints = None if _is_from_environment(context, "endpoints") else endpoints
                as_name = None if _is_from_environment(context, "as_name") else as_name
                key = None if _is_from_environment(context, "key") else key
            loaded = session.endpoints(endpoints)
            if key is None and as_name is not None:
                key = loaded.key_path(as_name)
            if node is not None:
                loaded.node(node)
            chosen = session.default_node if node is None else node
            call = Call(session, loaded, key, chosen, zmq, timeout, output_format)
            answer = function(call, **arguments)  # type: ignore[call-arg]  # P is what typer parsed for it
            session.output.show(answer, output_format)
            return answer.value

        common = (
            _keyword("endpoints", EndpointsOption, None),
            _keyword("as_name", AsOption, None),
            _keyword("key", KeyOption, None),
            _keyword("node", NodeOption, None),
            _keyword("zmq", ZmqOption, False),
            _keyword("timeout", TimeoutOption, 15.0),
            _keyword("output_format", FormatOption, OutputFormat.TABLE),
        )
        _set_signature(run, function, common)
        app.command(name, epilog=f"Example: {example}")(run)
        return run

    return register


def local_command(
    app: typer.Typer, name: str, *, example: str
) -> Callable[[Callable[Concatenate[Session, P], Answer]], Callable[..., Any]]:
    """Register a command that needs no cluster."""

    def register(function: Callable[Concatenate[Session, P], Answer]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(context: typer.Context, output_format: OutputFormat, **arguments: Any) -> Any:
            session: Session = context.obj
            answer = function(session, **arguments)  # type: ignore[call-arg]  # P is what typer parsed for it
            session.output.show(answer, output_format)
            return answer.value

        _set_signature(run, function, (_keyword("output_format", FormatOption, OutputFormat.TABLE),))
        app.command(name, epilog=f"Example: {example}")(run)
        return run

    return register


def _is_from_environment(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "ENVIRONMENT"


def _keyword(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _set_signature(
    run: Callable[..., Any], function: Callable[..., Any], common: tuple[inspect.Parameter, ...]
) -> None:
    """Give `run` the parameters of `function` (without its first), then the common ones."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    signature = inspect.Signature([context, *keywords, *common])
    run.__signature__ = signature  # type: ignore[attr-defined]  # typer reads it to build the parser
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
    del run.__wrapped__  # type: ignore[attr-defined]  # else inspect would look through to `function`
