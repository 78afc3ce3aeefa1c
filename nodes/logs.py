"""Structured logs of a node's processes: one JSON object a line on standard output.

Every line carries the process and the replica; nothing is logged per message at `info`. The
supervisor puts the lines into files; a container's engine may take them as they are.
"""

from __future__ import annotations

import logging
import sys

import structlog

from nodes.config.node import LogLevel


def configure_logs(process: str, replica: int, level: LogLevel) -> None:
    """Call once, at the start of a process."""
    numeric = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(numeric),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process, replica=replica)
