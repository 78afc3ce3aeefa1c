"""What an application adds to the gateway: its routes and the meaning of its codes.

The gateway finds it by name (`package.api:create_router` beside the state machine) and knows nothing else
of the application.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter

from nodes.client.core import library_code_name

_LIBRARY_HTTP_STATUS = {
    "ok": 201,
    "unauthorized": 403,
    "expired": 410,
    "stale_session": 409,
    "stale_sequence": 409,
    "window_exceeded": 409,
    "sequence_reused": 409,
}


def library_http_status(code: str) -> int:
    """HTTP status of the library's own codes; 422 for others."""
    return _LIBRARY_HTTP_STATUS.get(code, 422)


class ApplicationRouter(APIRouter):
    """Routes below /v1, the names and HTTP statuses of codes, and the filters of the event stream."""

    def __init__(
        self,
        *,
        code_name: Callable[[int], str] = library_code_name,
        http_status: Callable[[str], int] = library_http_status,
        event_filters: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        """`event_filters`: field of an event -> regular expression that a value asked for must match."""
        super().__init__(**options)
        self.code_name = code_name
        self.http_status = http_status
        self.event_filters = dict(event_filters or {})


def load_application(name: str) -> ApplicationRouter:
    """Call `module:function`, which makes the router. ImportError, AttributeError or TypeError say what is wrong."""
    module, _, function = name.partition(":")
    router = getattr(importlib.import_module(module), function)()
    if not isinstance(router, ApplicationRouter):
        raise TypeError(f"{name} gave a {type(router).__name__}, not an ApplicationRouter")
    return router


def default_name(application: str) -> str:
    """Where the HTTP part of a state machine `package.module:Class` is: `package.api:create_router`."""
    package = application.partition(":")[0].rpartition(".")[0]
    return f"{package}.api:create_router" if package else "api:create_router"
