"""Server-sent events over HTTPS: (id, event) pairs, resumable by id at any node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

SILENCE_S = 60.0
"""A node sends at least a comment more often than this; after it, the stream is taken for dead."""
LINE_CHARACTERS_MAX = 65_536


def read_events(
    http: httpx.Client, url: str, auction: str | None, last_id: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events after `last_id` until the server ends the stream. httpx.HTTPError when it breaks."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last_id}
    parameters = {} if auction is None else {"auction": auction}
    timeout = httpx.Timeout(SILENCE_S, connect=3.0)
    with http.stream("GET", f"{url}/v1/events", params=parameters, headers=headers, timeout=timeout) as answer:
        answer.raise_for_status()
        identifier, kind, data = "", "", ""
        for line in answer.iter_lines():
            if len(line) > LINE_CHARACTERS_MAX:
                raise httpx.ReadError("an event is longer than any event")
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if line == "":
                if kind == "problem":
                    raise httpx.ReadError(f"the node ended the stream: {data}")
                if data:
                    yield identifier, json.loads(data)
                kind, data = "", ""
            elif name == "id":
                identifier = value
            elif name == "event":
                kind = value
            elif name == "data":
                data += value
