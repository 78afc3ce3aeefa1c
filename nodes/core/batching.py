"""When the primary proposes: at once when idle, else it collects while the pipeline is busy (section 5).

A pure policy: it is told the state and answers with a decision. Always: at most W proposals are
uncommitted, none beyond the window, and none while the own executor is W + E_LAG blocks behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from nodes.core.options import CoreOptions
from nodes.core.types import Now, SequenceNumber

EWMA_WEIGHT = 8
"""New values count one eighth."""
GAP_MAX_US = 10_000


class Decision(Enum):
    PROPOSE = "propose"
    TICK = "tick"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Load:
    """What the decision depends on."""

    ready_count: int
    ready_bytes: int
    oldest_ready_us: int | None
    next_sequence: SequenceNumber
    last_committed: SequenceNumber
    last_executed: SequenceNumber
    top: SequenceNumber
    next_timer_us: int | None
    """Wall time at which the application needs a block, or None; None too while a proposal serves it."""


class BatchPolicy:
    def __init__(self, options: CoreOptions) -> None:
        self._options = options
        self._operation_us = 0
        """Moving average of the executor's time for one request; 0: not known."""
        self._commit_us = 0
        self._last_propose_us: int | None = None
        self._proposed_at: dict[SequenceNumber, int] = {}
        self._handed_over_at: dict[SequenceNumber, tuple[int, int]] = {}
        self.wake_us: int | None = None
        """Monotonic time at which a WAIT may turn into something else by time alone."""

    @property
    def requests_max(self) -> int:
        """B: as many requests as the executor does in T_EXEC."""
        options = self._options
        if not self._operation_us:
            return options.batch_requests_max
        wanted = options.execution_target_us // self._operation_us
        return min(max(options.batch_requests_min, wanted), options.batch_requests_max)

    @property
    def delay_us(self) -> int:
        """D: how long a request may wait for company."""
        options = self._options
        return max(options.batch_delay_min_us, min(self._commit_us // 2, options.batch_delay_max_us))

    @property
    def gap_us(self) -> int:
        """G: blocks of an idle system are this far apart at least."""
        return min(4 * self._options.block_cost_us, GAP_MAX_US)

    def decide(self, load: Load, now: Now) -> Decision:
        self.wake_us = None
        in_flight = load.next_sequence - 1 - load.last_committed
        if in_flight >= self._options.pipeline or load.next_sequence > load.top:
            return Decision.WAIT
        if load.next_sequence - 1 - load.last_executed >= self._options.pipeline + self._options.execution_lag:
            return Decision.WAIT
        is_due = load.next_timer_us is not None and load.next_timer_us <= now.wall_us
        if not load.ready_count:
            if is_due:
                return Decision.TICK
            if load.next_timer_us is not None:
                self.wake_us = now.monotonic_us + load.next_timer_us - now.wall_us
            return Decision.WAIT
        if is_due or self._is_time(load, in_flight, now):
            return Decision.PROPOSE
        return Decision.WAIT

    def _is_time(self, load: Load, in_flight: int, now: Now) -> bool:
        options = self._options
        if load.ready_count >= self.requests_max or load.ready_bytes >= options.batch_bytes_max:
            return True
        if load.ready_count >= options.batch_next:
            return True
        aged_us = (load.oldest_ready_us or 0) + self.delay_us
        free_us = 0 if self._last_propose_us is None else self._last_propose_us + self.gap_us
        if now.monotonic_us >= aged_us or (not in_flight and now.monotonic_us >= free_us):
            return True
        self.wake_us = aged_us if in_flight else min(aged_us, free_us)
        return False

    # Measurements --------------------------------------------------------------------------------

    def proposed(self, sequence: SequenceNumber, now: Now) -> None:
        self._last_propose_us = now.monotonic_us
        self._proposed_at[sequence] = now.monotonic_us

    def committed(self, sequence: SequenceNumber, now: Now) -> None:
        started = self._proposed_at.pop(sequence, None)
        if started is not None:
            self._commit_us = _average(self._commit_us, now.monotonic_us - started)

    def handed_over(self, sequence: SequenceNumber, requests: int, now: Now) -> None:
        self._handed_over_at[sequence] = (now.monotonic_us, requests)

    def executed(self, sequence: SequenceNumber, now: Now) -> None:
        started = self._handed_over_at.pop(sequence, None)
        if started is None:
            return
        # The executor works on one block at a time: the next one starts now.
        following = self._handed_over_at.get(SequenceNumber(sequence + 1))
        if following is not None:
            self._handed_over_at[SequenceNumber(sequence + 1)] = (now.monotonic_us, following[1])
        if started[1]:
            self._operation_us = _average(self._operation_us, max(1, (now.monotonic_us - started[0]) // started[1]))

    def executor_restarted(self) -> None:
        self._handed_over_at.clear()


def _average(average: int, value: int) -> int:
    return value if not average else average + (value - average) // EWMA_WEIGHT
