"""Four real nodes for tests that see the product as its users do: over HTTPS, from the command line.

`cluster` starts `arremate demo` once for a module and drives its prompt; everything is asked through public interfaces.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from nodes.config import ClusterConfig
from nodes.keys import SigningKey

START_S = 120.0


def wait_until(condition: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """The first true value of `condition`; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    return pytest.fail(f"not within {seconds} s: {what}")


@dataclass(frozen=True, slots=True)
class Cluster:
    process: subprocess.Popen[str]
    endpoints_path: Path
    document: dict[str, Any]
    genesis_path: Path
    config: ClusterConfig
    http: httpx.Client

    def url(self, node: int, path: str) -> str:
        return str(self.document["nodes"][node]["https"]) + path

    def key(self, name: str) -> SigningKey:
        return SigningKey.load(self.endpoints_path.parent / self.document["keys"][name])

    def prompt(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def arremate(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run a command against this cluster; its JSON answer."""
        done = subprocess.run(
            [sys.executable, "-m", "auction.cli.main", *words, "-o", "json"],
            env={**os.environ, "ARREMATE_ENDPOINTS": str(self.endpoints_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"exit {done.returncode}: {done.stdout}{done.stderr}"
        answer: dict[str, Any] = json.loads(done.stdout or done.stderr)
        return answer

    def status(self, node: int) -> dict[str, Any] | None:
        try:
            answer = self.http.get(self.url(node, "/v1/status"), timeout=5)
        except httpx.TransportError:
            return None
        return dict(answer.json()) if answer.status_code == 200 else None


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
