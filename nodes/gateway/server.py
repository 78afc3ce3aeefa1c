"""The gateway as a process: TLS 1.3 by uvicorn, metrics on a port of their own.

Deliberately elsewhere: restarts (`nodes.supervisor`), the routes (`nodes.gateway.app`).
"""

from __future__ import annotations

import argparse
import ssl
import sys
from collections.abc import Sequence

import structlog
import uvicorn
from prometheus_client import start_http_server

import fastpath
from nodes.config import ClusterConfig, ConfigError, NodeConfig
from nodes.gateway.app import create_app
from nodes.gateway.application import default_name, load_application

CONNECTIONS_MAX = 2_000
BACKLOG = 512
KEEP_ALIVE_S = 30
SHUTDOWN_S = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m nodes.gateway", description="Run a node's HTTPS gateway.")
    parser.add_argument("--config", required=True, help="the node's node.toml")
    parser.add_argument("--http-application", help="module:function that makes the application's routes")
    chosen = parser.parse_args(arguments)
    try:
        config = NodeConfig.load(chosen.config)
        cluster = ClusterConfig.load(config.genesis)
        run(config, cluster, chosen.http_application)
    except (OSError, ConfigError, ImportError, AttributeError, TypeError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def run(config: NodeConfig, cluster: ClusterConfig, http_application: str | None = None) -> None:
    """Serve one node's gateway. ConfigError when its configuration names no certificate."""
    server = make_server(config, cluster, http_application)
    server.run()


def make_server(config: NodeConfig, cluster: ClusterConfig, http_application: str | None = None) -> uvicorn.Server:
    """The server, its TLS context made and its certificate loaded, not running yet."""
    if config.https is None:
        raise ConfigError("https", "missing", "name certificate, key and authority in [https]")
    member = cluster.member(config.replica)
    if member is None:
        raise ConfigError("replica", f"{config.replica} is no member", f"give 0 to {cluster.n - 1}")
    app = create_app(config, cluster, load_application(http_application or default_name(config.application)))
    settings = uvicorn.Config(
        app,
        host=config.listen.https_host,
        port=member.https_port,
        ssl_certfile=config.https.certificate,
        ssl_keyfile=config.https.key,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level=config.log_level,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS_MAX,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    settings.load()
    assert settings.ssl is not None
    settings.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    app.router.on_startup.clear() if hasattr(app.router, "on_startup") else None
    if config.listen.metrics_port:
        _serve_metrics(app, config)
    log = structlog.get_logger("gateway")
    log.info("gateway starts", port=member.https_port, replica=config.replica, fastpath=fastpath.BUILD)
    return uvicorn.Server(settings)


def _serve_metrics(app: object, config: NodeConfig) -> None:
    raise NotImplementedError
