"""What one process keeps between its commands: connections, request signers and received receipts.

A single command makes one and closes it; a demo script and the interactive prompt run many commands
over the same one, so that one key has one client session and sockets are opened once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from auction.cli.connection import Connection
from auction.cli.endpoints import Endpoints
from auction.cli.failure import usage
from auction.cli.output import Output
from auction.cli.signing import Signer

ConnectionKey = tuple[Path, str, int | None, bool]


@dataclass
class Session:
    """`endpoints_path`: what commands use when they name no endpoints file themselves."""

    output: Output = field(default_factory=Output)
    endpoints_path: Path | None = None
    default_node: int | None = None
    _endpoints: dict[Path, Endpoints] = field(default_factory=dict)
    _signers: dict[Path, Signer] = field(default_factory=dict)
    _connections: dict[ConnectionKey, Connection] = field(default_factory=dict)

    def endpoints(self, path: Path | None) -> Endpoints:
        chosen = path or self.endpoints_path
        if chosen is None:
            raise usage(
                "no_endpoints",
                "which cluster is not known",
                "give --endpoints FILE, or: export ARREMATE_ENDPOINTS=FILE",
            )
        if chosen not in self._endpoints:
            self._endpoints[chosen] = Endpoints.load(chosen)
        return self._endpoints[chosen]

    def signer(self, key_path: Path) -> Signer:
        """One signer a key: sequence numbers of one client session are given out in one place."""
        path = key_path.resolve()
        if path not in self._signers:
            self._signers[path] = Signer.load(path)
        return self._signers[path]

    def connection(self, key: ConnectionKey, connect: Callable[[], Connection]) -> Connection:
        if key not in self._connections:
            self._connections[key] = connect()
        return self._connections[key]

    def forget_connections(self) -> None:
        """Close every connection (a node was restarted); signers and their sessions stay."""
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.forget_connections()
