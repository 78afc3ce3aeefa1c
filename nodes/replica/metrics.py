"""Prometheus metrics of a replica, made from the status document on each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_GAUGES = {
    "sequence": "Last executed block",
    "committed": "Last ordered block",
    "stable": "Stable checkpoint",
    "view": "View",
    "diverged": "1: this replica's state differs from what a quorum attested",
    "catching_up": "1: fetching ordered blocks from peers",
}


class StatusCollector(Collector):
    """`status` returns the newest snapshot; called in the scraping thread."""

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        if not status:
            return
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"arremate_replica_{name}", text, value=float(status[name]))
        queues = GaugeMetricFamily("arremate_replica_queue", "Length of a queue", labels=["queue"])
        for name, length in status["queues"].items():
            queues.add_metric([name], length)
        yield queues
        counters = CounterMetricFamily("arremate_replica_events", "Things counted since the start", labels=["event"])
        for name, count in status["counters"].items():
            counters.add_metric([name], count)
        counters.add_metric(["loop_stalls"], status["loop"]["stalls"])
        counters.add_metric(["wal_syncs"], status["wal"]["syncs"])
        counters.add_metric(["wal_bytes"], status["wal"]["bytes"])
        yield counters
        yield GaugeMetricFamily("arremate_wal_sync_us", "Mean time of a log sync", value=status["wal"]["sync_us_mean"])
        yield GaugeMetricFamily("arremate_executor_lag", "Ordered blocks not executed", value=status["executor"]["lag"])
        heard = GaugeMetricFamily("arremate_peer_heard_ms", "Since the peer's last frame", labels=["peer"])
        for peer in status["peers"]:
            if peer["heard_ms"] is not None:
                heard.add_metric([str(peer["replica"])], peer["heard_ms"])
        yield heard
        faults = CounterMetricFamily("arremate_peer_faults", "Misbehaviour of a replica", labels=["peer", "code"])
        for fault in status["faults"]:
            faults.add_metric([str(fault["replica"]), fault["code"]], fault["count"])
        yield faults


def serve_metrics(host: str, port: int, status: Callable[[], dict[str, Any]]) -> Callable[[], None]:
    """Start the HTTP server in a thread; returns what stops it."""
    registry = CollectorRegistry()
    registry.register(StatusCollector(status))
    server, thread = start_http_server(port, addr=host, registry=registry)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop
