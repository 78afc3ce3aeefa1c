"""Four real nodes for tests that see the product as its users do.

`cluster` starts `arremate demo` once for a module; everything is asked through public interfaces.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from nodes.config import ClusterConfig
from tests.system.cluster import Cluster

START_S = 120.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    endpoints_path = tmp_path_factory.mktemp("cluster") / "endpoints.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "auction.cli.main", "demo", "--endpoints-file", str(endpoints_path)],
        stdin=subprocess.PIPE,
        stdout=(log := (endpoints_path.parent / "demo.log").open("w")),
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + START_S
        while not endpoints_path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("the demo did not start:\n" + (endpoints_path.parent / "demo.log").read_text())
            time.sleep(0.1)
        document = json.loads(endpoints_path.read_text())
        folder = endpoints_path.parent
        context = ssl.create_default_context(cafile=str(folder / document["ca"]))
        with httpx.Client(verify=context, timeout=30) as http:
            genesis = folder / document["genesis"]
            yield Cluster(process, endpoints_path, document, genesis, ClusterConfig.load(genesis), http)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            log.close()
