"""`create_app`: the HTTPS interface of a node as an ASGI application.

Application-neutral: operations, receipts, queries, blocks, status and events are here; what the routes of
an auction are, `ApplicationRouter` says. The gateway reaches replicas only as a client does (invariant I5).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from nodes.client.aio import Client
from nodes.client.options import ClientOptions
from nodes.config import ClusterConfig, NodeConfig
from nodes.gateway import observation, openapi, operations, queries
from nodes.gateway.application import ApplicationRouter
from nodes.gateway.guard import Guard
from nodes.gateway.problem import Problem
from nodes.gateway.service import Gateway, Metrics
from nodes.keys import CurveKeys

VERSION = "1.0.0"
"""Version of the interface."""
IN_FLIGHT_MAX = 20_000
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_DOCS_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def create_app(
    config: NodeConfig,
    cluster: ClusterConfig,
    application_router: ApplicationRouter | None = None,
) -> FastAPI:
    """The application; it connects to the replicas when it starts, and is ready when q of them answer."""
    application = application_router or ApplicationRouter()
    metrics = Metrics()
    title = f"{cluster.application} on a Byzantine-fault-tolerant cluster"

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        client = Client.connect(
            cluster,
            curve_keys=_curve_keys(config),
            options=ClientOptions(queue_max=IN_FLIGHT_MAX),
            code_name=application.code_name,
            wait=False,
        )
        async with client:
            gateway = app.state.gateway = Gateway(config, cluster, client, application, metrics)
            try:
                yield
            finally:
                await gateway.close()

    app = FastAPI(
        title=title,
        version=VERSION,
        description="Every answer carries its proof: receipts and shares that are checked against genesis.json.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.metrics = metrics
    app.include_router(operations.router)
    app.include_router(queries.router)
    app.include_router(observation.router)
    app.include_router(application)
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_middleware(Guard)
    _add_description(app)
    return app


def _add_description(app: FastAPI) -> None:
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not made:
            generated = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                openapi_version="3.1.0",
            )
            made.update(openapi.add_schemas(generated))
        return made

    app.openapi = document  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    async def get_openapi_document() -> dict[str, Any]:
        return document()

    @app.get("/docs", include_in_schema=False)
    async def get_docs() -> Response:
        return HTMLResponse(openapi.page(document()), headers={"content-security-policy": _DOCS_POLICY})


def _curve_keys(config: NodeConfig) -> CurveKeys | None:
    return None if config.keys.gateway is None else CurveKeys.load(config.keys.gateway)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "malformed")
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}; the routes are in /openapi.json"
    return Problem(code, detail, headers=error.headers).response()


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return Problem("malformed", f"{place}: {first['msg']}; see /openapi.json").response()
