"""Requests on their way to verification: what loses its place is told so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from nodes.config import Admission
from nodes.core.options import CoreOptions
from nodes.core.replica import Replica
from nodes.core.types import Now, ReplicaId
from nodes.keys import CurveKeys, SigningKey
from nodes.replica import admission
from nodes.replica.clients import OVERLOADED_MS, Clients
from nodes.replica.executor_port import ProcessPort, Questions
from nodes.transport import ClientFrame, ClientSocket, tcp_endpoint
from nodes.wire import Busy, BusyReason, ClientAnswer, Submit, Wire, build_request

NOW = Now(1_000_000, 1_000_000)


@pytest.fixture
def socket() -> Iterator[ClientSocket]:
    made = ClientSocket(CurveKeys.generate(), tcp_endpoint("127.0.0.1", 0))
    yield made
    made.close()


@pytest.fixture
def clients(wire: Wire, socket: ClientSocket, tmp_path: Path) -> Iterator[Clients]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    port = ProcessPort(context, f"ipc://{tmp_path}/x.ipc")
    cluster = wire.cluster
    options = CoreOptions(
        n=cluster.n,
        me=ReplicaId(1),
        cluster_id=cluster.cluster_id,
        epoch=cluster.epoch,
        config_hash=cluster.config_hash,
    )
    yield Clients(
        wire=wire,
        key=SigningKey(bytes([2]) * 32),
        core=Replica(options),
        socket=socket,
        questions=Questions(port),
        admission=Admission(),
        gateways=(),
        may_read=lambda: True,
        status=lambda: b"{}",
    )
    port.close()
    context.term()


def submit(wire: Wire, number: int) -> Submit:
    record = build_request(
        SigningKey(bytes([50]) * 32),
        wire.cluster.cluster_id,
        session=1,
        sequence=number + 1,
        floor=1,
        valid_until_us=NOW.wall_us + 60_000_000,
        operation=b"",
    )
    return Submit(wire.parse_record(record))


def queued(wire: Wire, socket: ClientSocket, connection: bytes) -> list[ClientAnswer]:
    """What waits to be sent to a connection."""
    return [answer for data in socket._waiting.get(connection, []) for answer in wire.decode_answer_frame(data)]


def test_request_that_loses_its_place_to_another_source_is_answered_overloaded(
    wire: Wire, socket: ClientSocket, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "REQUESTS_MAX", 4)
    submits = [submit(wire, number) for number in range(5)]
    for one in submits[:4]:
        clients.take(ClientFrame(b"loud", "aa", wire.encode_client(one)), NOW)
    assert queued(wire, socket, b"loud") == []
    clients.take(ClientFrame(b"quiet", "bb", wire.encode_client(submits[4])), NOW)
    assert queued(wire, socket, b"quiet") == []
    assert queued(wire, socket, b"loud") == [Busy(submits[3].request.digest, BusyReason.OVERLOADED, OVERLOADED_MS)]
    assert clients.waiting_requests == 4
