"""`Gateway`: what the routes share. One client of the cluster, limits, counters, the event hub.

It holds no secret of any user and no way into a replica that another client would not have.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.requests import HTTPConnection, Request

from nodes.client.aio import Client
from nodes.config import ClusterConfig, NodeConfig
from nodes.gateway.application import ApplicationRouter
from nodes.gateway.events import EventHub
from nodes.gateway.limits import RateLimit

BAD_SIGNATURES_PER_S = 50
"""An address that sends more forged signatures is refused before they are verified."""


class Metrics:
    """Counters of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.operations = Counter("gateway_operations", "Operations by outcome code", ["code"], registry=self.registry)
        self.queries = Counter("gateway_queries", "Queries by consistency and code", ["code"], registry=self.registry)
        self.seconds = Histogram(
            "gateway_operation_seconds", "From the body to the proof of the outcome", registry=self.registry
        )


class Gateway:
    """State of one gateway process."""

    def __init__(
        self,
        config: NodeConfig,
        cluster: ClusterConfig,
        client: Client,
        application: ApplicationRouter,
        metrics: Metrics,
    ) -> None:
        admission = config.admission
        self.config = config
        self.cluster = cluster
        self.client = client
        self.application = application
        self.hub = EventHub(client)
        self.metrics = metrics
        self.key_limit = RateLimit("key", admission.rate_per_s, admission.burst)
        self.read_limit = RateLimit("reads", admission.rate_per_s, admission.burst)
        self.forgery_limit = RateLimit("signatures", BAD_SIGNATURES_PER_S, BAD_SIGNATURES_PER_S)
        self.started_us = time.time_ns() // 1_000
        self._unattended: set[asyncio.Task[None]] = set()

    def take_read(self, request: Request) -> None:
        """Count a read against its address."""
        self.read_limit.take(address_of(request), time.monotonic())

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold a task that nobody waits for; the client bounds how many operations are in flight."""
        self._unattended.add(task)
        task.add_done_callback(self._unattended.discard)

    async def close(self) -> None:
        """End the event streams and the unattended operations."""
        await self.hub.close()
        for task in list(self._unattended):
            task.cancel()
        await asyncio.gather(*self._unattended, return_exceptions=True)


def gateway_of(connection: HTTPConnection) -> Gateway:
    """The gateway that a request is at."""
    gateway: Any = connection.app.state.gateway
    assert isinstance(gateway, Gateway)
    return gateway


def address_of(request: Request) -> str:
    """The peer's address; behind a proxy, the proxy's."""
    return request.client.host if request.client is not None else ""
