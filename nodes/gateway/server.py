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
from fastapi import FastAPI
from prometheus_client import start_http_server

import fastpath
from nodes.config import ClusterConfig, ConfigError, NodeConfig
from nodes.gateway.app import create_app
from nodes.gateway.application import default_name, load_application
from nodes.gateway.connection import BoundedConnection
from nodes.keys import KeyFileError
from nodes.lifetime import die_with_parent
from nodes.logs import configure_logs

BACKLOG = 512
KEEP_ALIVE_S = 30
SHUTDOWN_S = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    die_with_parent()
    parser = argparse.ArgumentParser(prog="python -m nodes.gateway", description="Run a node's HTTPS gateway.")
    parser.add_argument("--config", required=True, help="the node's node.toml")
    parser.add_argument("--http-application", help="module:function that makes the application's routes")
    parser.add_argument("--metrics-port", type=int, default=0, help="serve /metrics there, on listen.metrics_host")
    chosen = parser.parse_args(arguments)
    try:
        config = NodeConfig.load(chosen.config)
        cluster = ClusterConfig.load(config.genesis)
        configure_logs("gateway", config.replica, config.log_level)
        app = create_app(config, cluster, load_application(chosen.http_application or default_name(config.application)))
        server = make_server(config, cluster, app)
        if chosen.metrics_port:
            start_http_server(chosen.metrics_port, config.listen.metrics_host, app.state.metrics.registry)
    except (OSError, ConfigError, KeyFileError, ImportError, AttributeError, TypeError) as error:
        print(f"gateway: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    server.run()


def make_server(config: NodeConfig, cluster: ClusterConfig, app: FastAPI) -> uvicorn.Server:
    """The server, its certificate loaded, not running yet. ConfigError when none is named."""
    if config.https is None:
        raise ConfigError("https", "missing", "name certificate, key and authority in [https]")
    member = cluster.member(config.replica)
    if member is None:
        raise ConfigError("replica", f"{config.replica} is no member", f"give 0 to {cluster.n - 1}")
    settings = uvicorn.Config(
        app,
        host=config.listen.https_host,
        port=member.https_port,
        ssl_certfile=config.https.certificate,
        ssl_keyfile=config.https.key,
        http=BoundedConnection,
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    settings.load()
    assert settings.ssl is not None
    settings.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    log = structlog.get_logger("gateway")
    log.info("gateway starts", port=member.https_port, fastpath=fastpath.BUILD)
    return uvicorn.Server(settings)
