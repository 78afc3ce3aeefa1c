"""The counter over HTTPS: no routes of its own, for the gateway's (operations, queries, receipts) suffice."""

from __future__ import annotations

from nodes.demo.counter import CounterMachine
from nodes.gateway.application import ApplicationRouter


def create_router() -> ApplicationRouter:
    """What the gateway of a counter cluster needs to know: the names of status numbers."""
    return ApplicationRouter(code_name=CounterMachine().code_name)
