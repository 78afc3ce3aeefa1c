"""A gateway over TLS in a thread, in front of four stub replicas."""

from __future__ import annotations

import base64
import datetime
import importlib.util
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from auction.api import create_router
from nodes.config import Admission, HttpsFiles, KeyFiles, Listen, NodeConfig
from nodes.core.types import ReplicaId
from nodes.gateway.app import create_app
from nodes.gateway.server import make_server
from nodes.keys import Authority, SigningKey
from nodes.wire import build_request, parse_record, signature_of

KEY = SigningKey(b"\x07" * 32)
STUB = Path(__file__).parent.parent / "client" / "stub_cluster.py"


@pytest.fixture(scope="session")
def stub() -> ModuleType:
    """The module of the stub replicas, shared with the client's tests."""
    name = f"arremate_test_{STUB.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, STUB)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@dataclass
class Running:
    """A gateway at work."""

    servers: Any
    http: httpx.Client
    app: Any
    config: NodeConfig
    tls: ssl.SSLContext
    sequence: int = 0

    def body(self, operation: bytes = b'{"type":"test"}', **changes: Any) -> dict[str, Any]:
        """A signed operation as JSON, new each time, with fields changed after signing."""
        self.sequence += 1
        fields = {"session": 5, "sequence": self.sequence, "floor": 1, "valid_until_us": 2**52}
        record = build_request(KEY, self.servers.cluster.cluster_id, operation=operation, **fields)
        signature = signature_of(parse_record(record, self.servers.cluster.cluster_id))
        return {
            "public_key": text(KEY.public_key),
            **fields,
            "operation": text(operation),
            "signature": text(signature),
            **changes,
        }

    def digest(self, body: dict[str, Any]) -> bytes:
        names = ("session", "sequence", "floor", "valid_until_us")
        record = build_request(
            KEY,
            self.servers.cluster.cluster_id,
            operation=base64.b64decode(body["operation"]),
            **{name: body[name] for name in names},
        )
        return parse_record(record, self.servers.cluster.cluster_id).digest


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def gateway(stub: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gateway")
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority.generate("test", now=now)
    authority.issue("node0", ("127.0.0.1",), now=now).save(folder / "tls.pem", folder / "tls.key")
    (folder / "ca.pem").write_bytes(authority.certificate)
    with stub.StubServers() as servers:
        config = NodeConfig(
            replica=ReplicaId(0),
            genesis=folder / "genesis.json",
            keys=KeyFiles(consensus=folder / "none", curve=folder / "none"),
            https=HttpsFiles(folder / "tls.pem", folder / "tls.key", folder / "ca.pem"),
            data_dir=folder,
            database_url="sqlite:///none",
            application="auction.machine:AuctionMachine",
            listen=Listen(),
            admission=Admission(rate_per_s=10_000, burst=10_000),
        )
        app = create_app(config, servers.cluster, create_router())
        server = make_server(config, servers.cluster, app)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            deadline = time.monotonic() + 10
            while not server.started:
                assert thread.is_alive(), "the server ended"
                assert time.monotonic() < deadline
                thread.join(0.01)
            tls = ssl.create_default_context(cadata=authority.certificate.decode())
            port = servers.cluster.members[0].https_port
            with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=tls, trust_env=False, timeout=15) as http:
                yield Running(servers, http, app, config, tls)
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(autouse=True)
def as_at_the_start(gateway: Running, stub: ModuleType) -> Iterator[None]:
    """Each test gets well-behaved replicas."""
    yield
    servers = gateway.servers
    servers.execute, servers.answer = stub.accept, stub.echo
    servers.silent, servers.busy, servers.twist, servers.withhold_full = set(), {}, {}, False
