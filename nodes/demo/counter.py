"""A replicated counter: the smallest application, and what is left of a load when the application costs nothing.

Anybody may add. Shows that `nodes` stands alone as a library: this file is all that an application needs,
`NodeConfig.application = "nodes.demo.counter:CounterMachine"` all that names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import MetaData

from nodes import canonical
from nodes.codes import APPLICATION_CODES_FROM, Status
from nodes.machine import (
    BlockContext,
    Change,
    Operation,
    Outcome,
    RowReader,
    Rows,
    Timer,
    integer,
    replicated_table,
)

OUT_OF_RANGE = APPLICATION_CODES_FROM
LIMIT = 2**53 - 1
_NAMES = {**{int(status): status.name.lower() for status in Status}, OUT_OF_RANGE: "out_of_range"}


class CounterRow(NamedTuple):
    id: int
    value: int
    operations: int


METADATA = MetaData()
COUNTERS = replicated_table(
    METADATA, 100, "counters", CounterRow, integer("id"), integer("value"), integer("operations"), key=("id",)
)


def add(amount: int) -> bytes:
    """The operation that adds `amount`."""
    return canonical.encode({"add": amount})


class CounterMachine:
    """StateMachine with one row."""

    tables = METADATA
    version = 1

    def code_name(self, status: int) -> str:
        return _NAMES[status]

    def genesis(self, rows: Rows, application_genesis: Mapping[str, Any]) -> None:
        start = application_genesis.get("start", 0)
        if type(start) is not int or abs(start) > LIMIT:
            raise ValueError(f"application_genesis.start is an integer of at most {LIMIT}, not {start!r}")
        rows.put(COUNTERS, CounterRow(0, start, 0))

    def admit(self, public_key: bytes, payload: bytes, rows: Rows) -> Outcome | None:
        return None

    def apply(self, operation: Operation, context: BlockContext, rows: Rows) -> Outcome:
        try:
            document = json.loads(operation.payload)
        except (ValueError, RecursionError):
            return _refusal(Status.MALFORMED_OPERATION)
        if not isinstance(document, dict) or list(document) != ["add"] or type(document["add"]) is not int:
            return _refusal(Status.MALFORMED_OPERATION)
        row: CounterRow = rows.get(COUNTERS, 0)
        value = row.value + document["add"]
        if abs(value) > LIMIT:
            return _refusal(OUT_OF_RANGE)
        rows.put(COUNTERS, CounterRow(0, value, row.operations + 1))
        return Outcome(Status.OK, canonical.encode({"value": value}))

    def fire(self, timer: Timer, context: BlockContext, rows: Rows) -> Outcome:
        raise AssertionError("the counter sets no timers")

    def check_block(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.table is COUNTERS and change.old is not None:
                assert change.new is not None
                assert change.new.operations > change.old.operations

    def query(self, query: bytes, caller: bytes | None, reader: RowReader) -> bytes:
        row: CounterRow = reader.get(COUNTERS, 0)
        return canonical.encode({"operations": row.operations, "value": row.value})


def _refusal(status: int) -> Outcome:
    return Outcome(status, b"{}")
