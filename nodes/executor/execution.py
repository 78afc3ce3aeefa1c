"""What a block does to the rows: timers, then requests, one leaf each (protocol.md 3 and 8).

Runs over the rows of one block and touches nothing else, so the same ordered batch on the same rows
gives the same leaves and the same write set everywhere. A refusal is a leaf like any other; an
exception is a bug or a broken database, and the caller rolls the whole block back.
Deliberately elsewhere: transactions and retries (`executor.py`), hashing and headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nodes import canonical
from nodes.block import timer_digest
from nodes.codes import Status
from nodes.config import Parameters
from nodes.core.messages import OrderedBatch
from nodes.core.types import BatchKind, Request
from nodes.executor.schema import Schema
from nodes.executor.sessions import Sessions
from nodes.executor.tables import Result, Session, TimerRow, results, session_owners, sessions, timers
from nodes.executor.timers import Due
from nodes.machine import AdmitsReads, BlockContext, Operation, Outcome, RowReader, StateMachine, Timer
from nodes.wire import operation_of

WRITE = 0
ORDERED_READ = 1
ORDERED_READS_MAX = 64
"""Ordered reads that one block answers; a bound on the work and on the bytes of a block's results."""


class ApplicationError(AssertionError):
    """The application broke its contract with the library: a bug, the same at every replica."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One outcome of a block, in the order of the results root."""

    digest: bytes
    status: int
    result: bytes
    timer: Due | None = None
    """Set for a fired timer."""


def block_time(batch: OrderedBatch, previous_us: int) -> int:
    """Block time: rising by construction, except for a null block, which does not move it."""
    if batch.batch.kind == BatchKind.NULL:
        return previous_us
    return max(batch.batch.timestamp_us, previous_us + 1)


def refusal(status: Status) -> Outcome:
    """The outcome of what the library itself refuses."""
    return _REFUSALS[status]


_REFUSALS = {status: Outcome(status, canonical.encode({"error": status.name.lower()})) for status in Status}
_TOO_LARGE = Outcome(Status.OK, canonical.encode({"error": "result_too_large"}))
_TOO_MANY = Outcome(Status.OK, canonical.encode({"error": "overloaded"}))


class Execution:
    """One block on its way. `leaves` grows; the rows hold the effects."""

    def __init__(
        self,
        machine: StateMachine,
        parameters: Parameters,
        schema: Schema,
        before: RowReader,
        block: OrderedBatch,
        time_us: int,
        order_hash: bytes,
    ) -> None:
        self._machine = machine
        self._parameters = parameters
        self._tables = schema.rows
        self._library_rows = schema.library_rows
        self._rows = schema.application_rows
        self._asking_rows = schema.asking_rows
        self._before = before
        self._block = block
        self._sequence = int(block.batch.sequence)
        self._time_us = time_us
        self._order_hash = order_hash
        self._sessions = Sessions(schema.library_rows, parameters)
        self._reads = 0
        self.leaves: list[Leaf] = []

    def collect(self, old_sessions: Sequence[Session], old_results: Sequence[Result]) -> None:
        """Forget sessions and results that are past their lifetime, before anything else."""
        for session in old_sessions:
            self._sessions.close(session)
        gone = self._tables[results.name]
        for result in old_results:
            gone.set(gone.shape.key_of(result), None)

    def fire(self, due: Sequence[Due]) -> None:
        """Fire the timers that were due when the block began, unless an earlier one cancelled or moved them."""
        rows = self._tables[timers.name]
        rows.prefetch((timer_id,) for _, timer_id in due)
        for due_us, timer_id in due:
            row: TimerRow | None = rows.get((timer_id,))
            if row is None or row.due_us != due_us:
                continue
            rows.set((timer_id,), None)
            outcome = self._machine.fire(Timer(timer_id, due_us, row.payload), self._context(), self._rows)
            self._check(outcome)
            self._add(
                Leaf(timer_digest(timer_id, due_us), int(outcome.status), outcome.result, (due_us, timer_id)), None
            )

    def apply(self) -> None:
        """Execute the requests of the batch, in order."""
        requests = self._block.requests
        self._tables[results.name].prefetch((request.digest,) for request in requests)
        self._tables[session_owners.name].prefetch((request.client,) for request in requests)
        self._tables[sessions.name].prefetch((request.client, request.session) for request in requests)
        for request in requests:
            earlier: Result | None = self._library_rows.get(results, request.digest)
            if earlier is not None:
                place = canonical.encode({"block": earlier.block, "index": earlier.leaf_index})
                self.leaves.append(Leaf(request.digest, Status.DUPLICATE, place))
                continue
            status, result = self._execute(request)
            self._add(Leaf(request.digest, int(status), result), request)

    def _execute(self, request: Request) -> Outcome:
        """exec_one of protocol.md 3, from EXPIRED on."""
        if request.valid_until_us < self._time_us:
            return refusal(Status.EXPIRED)
        payload = operation_of(request)
        if request.kind == WRITE:
            refused = self._machine.admit(request.client, payload, self._asking_rows)
        elif request.kind == ORDERED_READ and isinstance(self._machine, AdmitsReads):
            refused = self._machine.admit_read(request.client, payload, self._asking_rows)
        else:
            return refusal(Status.MALFORMED_OPERATION)
        if refused is not None:
            self._check(refused)
            return refused
        status = self._sessions.take(request, self._time_us)
        if status is not Status.OK:
            return refusal(status)
        if request.kind == ORDERED_READ:
            return self._read(request.client, payload)
        operation = Operation(request.client, payload, request.digest, request.session, request.sequence)
        outcome = self._machine.apply(operation, self._context(), self._rows)
        self._check(outcome)
        return outcome

    def _read(self, caller: bytes, query: bytes) -> Outcome:
        """Answer from the state before this block: every write that was complete when the read was sent is in it."""
        self._reads += 1
        if self._reads > ORDERED_READS_MAX:
            return _TOO_MANY
        result = self._machine.query(query, caller, self._before)
        return Outcome(Status.OK, result) if len(result) <= self._parameters.result_bytes_max else _TOO_LARGE

    def _context(self) -> BlockContext:
        return BlockContext(self._sequence, len(self.leaves), self._time_us, self._order_hash)

    def _check(self, outcome: Outcome) -> None:
        status, result = outcome
        if not isinstance(status, int) or not 0 <= status <= 0xFFFF or status == Status.DUPLICATE:
            raise ApplicationError(f"an outcome with the status {status!r}")
        if type(result) is not bytes or len(result) > self._parameters.result_bytes_max:
            raise ApplicationError(f"an outcome whose result is not at most {self._parameters.result_bytes_max} bytes")

    def _add(self, leaf: Leaf, request: Request | None) -> None:
        """Append a leaf and remember it by its digest; the first result of a digest stays."""
        index = len(self.leaves)
        self.leaves.append(leaf)
        client, session, sequence = (
            (b"", 0, 0) if request is None else (request.client, request.session, request.sequence)
        )
        rows = self._tables[results.name]
        if request is None and rows.get((leaf.digest,)) is not None:
            return  # a timer that was set again with the same id and time
        place = (self._sequence, index, self._time_us)
        rows.set((leaf.digest,), Result(leaf.digest, client, session, sequence, *place, leaf.status, leaf.result))
