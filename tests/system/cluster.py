"""A running demo as a test sees it: over HTTPS, by the command line and by the prompt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from auction.query_forms import get_balance
from nodes.client.sync import Client
from nodes.config import ClusterConfig
from nodes.keys import SigningKey


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

    def balance(self, name: str) -> dict[str, Any]:
        """The account of a key, from a quorum of replicas over ZeroMQ."""
        with Client.connect(self.config, self.key(name)) as client:
            answer: dict[str, Any] = json.loads(client.query(get_balance(), signed=True).result)
        return answer

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
