"""One way to a cluster, over HTTPS or ZeroMQ, with the same four verbs.

Whatever the way, nothing is believed: a submitted operation comes back as a receipt that has been
verified against the genesis, a query's answer as bytes that q distinct replicas signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from auction.cli.endpoints import Endpoints
from auction.cli.failure import usage
from auction.cli.signing import SignedRequest, Signer
from nodes.config import ClusterConfig, ConfigError
from nodes.receipt import Receipt


class Connection(Protocol):
    """Failures are `Failure`: 4 (nobody answered in time), 5 (an answer did not verify), 2 (refused unread)."""

    cluster: ClusterConfig

    def submit(self, request: SignedRequest, timeout_s: float) -> Receipt:
        """Order it; the verified receipt of this very request, whether the rules accepted or refused it."""

    def query(self, query: dict[str, Any], signer: Signer | None, timeout_s: float) -> dict[str, Any]:
        """A linearizable answer, equal at q replicas. `signer`: ask in the name of this key."""

    def receipt(self, digest: bytes, timeout_s: float) -> Receipt:
        """The verified receipt of an operation (request digest) or of a deadline (timer digest)."""

    def events(self, auction: str | None, after: tuple[int, int, int]) -> Iterator[dict[str, Any]]:
        """Events after the place `after` (sequence, index, effect), and then as they happen, for ever."""

    def close(self) -> None: ...


def connect(endpoints: Endpoints, *, node: int | None, zmq: bool, timeout_s: float) -> Connection:
    """A connection to the cluster of an endpoints file. `node`: only through this one's gateway (HTTPS)."""
    cluster = load_genesis(endpoints)
    if zmq:
        if node is not None:
            raise usage("bad_option", "--zmq talks to all nodes, so it goes with no --node", "leave out one of them")
        from auction.cli.zmq_connection import ZmqConnection

        return ZmqConnection(cluster, timeout_s)
    from auction.cli.https_connection import HttpsConnection

    return HttpsConnection(cluster, endpoints, node)


def load_genesis(endpoints: Endpoints) -> ClusterConfig:
    try:
        return ClusterConfig.load(endpoints.genesis)
    except OSError as error:
        raise usage("no_genesis", f"cannot read {endpoints.genesis}: {error.strerror}") from error
    except ConfigError as error:
        raise usage("bad_genesis", str(error)) from error
