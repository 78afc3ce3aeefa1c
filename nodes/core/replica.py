"""The replication core: values in, a `Ready` out; no I/O, no clock (docs/protocol.md sections 4 to 11).

An arm of `step` is one call on a part (window, checkpoints, catch-up, retransmission, relay), which
returns effects; `_apply` numbers the log records among them, hands out check tokens and tells the
neighbours what they must know. Same inputs in the same order, same outputs, byte for byte.

This version has one view: replica 0 is the primary for ever. Views are carried, logged and checked
everywhere, so that the view change is another part and another arm, not another core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import assert_never

from nodes.core.batching import BatchPolicy, Decision, Load
from nodes.core.catch_up import CatchUp
from nodes.core.checkpoint import Checkpoints
from nodes.core.effects import (
    AttestsPurpose,
    CertificatePurpose,
    ConflictPurpose,
    Effects,
    ForwardPurpose,
    HandOver,
    Ordered,
    PreparesPurpose,
    ProposalPurpose,
    Proposed,
    Purpose,
    Report,
    Send,
    ServeArchive,
    Stabilised,
    Verify,
    Write,
    conflict_verified,
)
from nodes.core.messages import (
    Attest,
    AttestCertificate,
    Commit,
    Evidence,
    FetchAttest,
    FetchBlocks,
    FetchBody,
    FetchedBlocks,
    FetchedBody,
    Forward,
    Hello,
    HelloAnswer,
    NewView,
    PeerMessage,
    Prepare,
    PrepareCertificate,
    PrePrepare,
    Status,
    ViewChange,
    Wish,
)
from nodes.core.options import CoreOptions
from nodes.core.order import Order
from nodes.core.pool import Admission, Pool
from nodes.core.proposal import build_batch
from nodes.core.quorum import Thresholds
from nodes.core.ready import Check, Execute, Outgoing, Ready, Serve
from nodes.core.records import Decided, Prepared, Record, ViewEntered
from nodes.core.recovery import recover
from nodes.core.relay import Relay
from nodes.core.retransmission import Retransmission
from nodes.core.status import CoreStatus
from nodes.core.types import BatchKind, Fault, Lsn, Mode, Now, ReplicaId, Request, SequenceNumber
from nodes.core.window import Window

HOUSEKEEPING_US = 200_000
"""How often the pool is searched for expired and overdue requests."""


class Replica:
    """One member's core. `records` is the log of its earlier runs, oldest first.

    Log records are numbered from 1 in each run; what `records` brought is durable.
    """

    def __init__(self, options: CoreOptions, records: Iterable[Record] = ()) -> None:
        self.options = options
        self.thresholds = Thresholds(options.n)
        self._order = Order(options.config_hash, options.window, has_peers=options.n > 1)
        self._window = Window(options, self.thresholds, self._order)
        self._checkpoints = Checkpoints(options, self.thresholds)
        self._catch_up = CatchUp(options)
        self._retransmission = Retransmission(options)
        self._relay = Relay(options)
        self._pool = Pool(options)
        self._policy = BatchPolicy(options)
        self._peers = [ReplicaId(peer) for peer in range(options.n) if peer != options.me]

        self._lsn = Lsn(0)
        self._unsynced: deque[tuple[Lsn, PrepareCertificate]] = deque()
        self._decided_lsn: dict[SequenceNumber, Lsn] = {}
        self._token = 0
        self._purposes: dict[int, Purpose] = {}
        self._next_timer_us: int | None = None
        self._timer_sequence = SequenceNumber(0)
        """The proposal that serves the timer; until it is executed, no other is made for it."""
        self._housekeeping_us = 0
        self._tried_target = SequenceNumber(0)
        self._clear()

        if recover(records, self._window, self._order, self._checkpoints, self._pool):
            self._apply(self._window.recovered())
        else:
            self._apply([Write(ViewEntered(self._window.view, Mode.NORMAL, b"", SequenceNumber(0)))])
        self._timer_sequence = self._window.frontier

    # Inputs --------------------------------------------------------------------------------------

    def step(self, message: PeerMessage, sender: ReplicaId, now: Now) -> None:
        """A message whose sender the channel authenticated, or an own broadcast that was sent."""
        assert 0 <= sender < self.options.n
        self._apply(self._on_message(message, sender, now), now)
        self._settle(now)

    def _on_message(self, message: PeerMessage, sender: ReplicaId, now: Now) -> Effects:
        order, window, checkpoints = self._order, self._window, self._checkpoints
        match message:
            case Prepare():
                return window.on_prepare(message, sender, now)
            case Commit():
                return window.on_commit(message, sender, now)
            case Attest():
                return checkpoints.on_attest(message, sender, order)
            case PrePrepare():
                return window.on_pre_prepare(message, sender, now, self._pool.is_verified)
            case Status():
                return self._retransmission.on_status(message, sender, window, checkpoints, order, now)
            case Forward():
                return self._relay.on_forward(message, sender, self._pool, now)
            case FetchBlocks():
                return self._retransmission.on_fetch_blocks(message, sender, order, now)
            case FetchAttest():
                return self._retransmission.on_fetch_attest(message, sender, checkpoints, order, now)
            case FetchBody():
                return self._retransmission.on_fetch_body(message, sender, window, order, now)
            case FetchedBlocks():
                return self._catch_up.on_blocks(message, sender, order)
            case FetchedBody():
                return window.on_body(message.block, now)
            case AttestCertificate():
                return checkpoints.on_certificate(message, sender, order)
            case Wish() | ViewChange() | NewView() | Hello() | HelloAnswer() | Evidence():
                # Formats of the view change and of recovery: nothing in this version asks for them.
                return []
            case _ as unknown:
                assert_never(unknown)

    def admit(self, requests: Iterable[Request], now: Now) -> Admission:
        """Which requests are new and worth verifying, which are known, which are refused and why."""
        return self._pool.admit(requests, now)

    def submit(self, requests: Iterable[Request], now: Now) -> tuple[Request, ...]:
        """Requests whose signatures hold. Returns those that found no room, or lost it: to be answered BUSY."""
        dropped = self._pool.submit(requests, now)
        self._propose(now)
        return dropped

    def verified(self, token: int, flags: bytes, now: Now) -> None:
        """The answer to a Check: one byte an item, 1 valid, 0 not."""
        purpose = self._purposes.pop(token)
        match purpose:
            case ProposalPurpose():
                effects = self._window.on_proposal_verified(purpose, flags, now, self._pool.is_verified)
            case PreparesPurpose():
                effects = self._window.on_prepares_verified(purpose, flags)
            case AttestsPurpose():
                effects = self._checkpoints.on_attests_verified(purpose, flags, self._order)
            case CertificatePurpose():
                effects = self._checkpoints.on_certificate_verified(purpose, flags, self._order)
            case ConflictPurpose():
                effects = [conflict_verified(purpose, flags)]
            case ForwardPurpose():
                good, effects = self._relay.verified(purpose, flags, now)
                self._pool.submit(good, now, purpose.sender)
            case _ as unknown:
                assert_never(unknown)
        self._apply(effects, now)
        self._settle(now)

    def persisted(self, lsn: Lsn) -> None:
        """Record `lsn` and all before it are durable."""
        while self._unsynced and self._unsynced[0][0] <= lsn:
            number, certificate = self._unsynced.popleft()
            self._apply(self._window.on_prepared_durable(certificate), after=number)

    def executed(self, sequence: SequenceNumber, block_hash: bytes, next_timer_us: int | None, now: Now) -> None:
        """The database has committed `sequence`. Repeated answers are ignored."""
        if sequence <= self._order.last_executed:
            return
        effects = self._order.executed(sequence)
        self._policy.executed(sequence, now)
        self._decided_lsn.pop(sequence, None)
        self._next_timer_us = next_timer_us
        effects += self._checkpoints.executed(sequence, block_hash, self._order)
        self._apply(effects, now)
        self._order.forget(self._window.stable)
        self._settle(now)

    def executed_through(self, sequence: SequenceNumber, block_hash: bytes, next_timer_us: int | None) -> None:
        """Where the executor stands, at boot and whenever it has been restarted; blocks follow from there.

        Raises ExecutorAhead and ExecutorBehind (`nodes.core.order`) when log and database do not fit.
        """
        effects = self._order.executed_through(sequence)
        # What was asked of its predecessor and not fetched from here yet is asked again below.
        self._execute.clear()
        self._policy.executor_restarted()
        self._next_timer_us = next_timer_us
        self._apply(self._checkpoints.executed(sequence, block_hash, self._order) + effects)
        self._order.forget(self._window.stable)

    def tick(self, now: Now) -> None:
        """Time has passed: at the latest at `Ready.deadline_us`."""
        self._apply([*self._window.accept_ready(now), *self._window.vote_late(now)], now)
        if now.monotonic_us >= self._housekeeping_us:
            self._housekeeping_us = now.monotonic_us + HOUSEKEEPING_US
            self._pool.expire(now)
            self._apply(self._relay.send_overdue(self._pool, now), now)
        self._settle(now)
        status = self._retransmission.status(
            self._window,
            self._checkpoints,
            self._order,
            backlog=self._pool.ready_count,
            is_catching_up=self._catch_up.is_active,
            now=now,
        )
        self._apply(status, now)

    # Output --------------------------------------------------------------------------------------

    def ready(self) -> Ready:
        """Everything asked for since the last call."""
        ready = Ready(
            records=tuple(self._records),
            lsn=self._lsn,
            checks=tuple(self._checks),
            messages=tuple(self._messages),
            execute=tuple(self._execute),
            serve=tuple(self._serve),
            faults=tuple(self._faults),
            deadline_us=self._deadline_us(),
        )
        self._clear()
        return ready

    def status(self) -> CoreStatus:
        return CoreStatus(
            replica=self.options.me,
            view=self._window.view,
            mode=self._window.mode,
            primary=self._window.primary,
            stable=self._checkpoints.stable,
            last_committed=self._order.last_committed,
            last_executed=self._order.last_executed,
            order_hash=self._order.head,
            next_sequence=self._next_sequence(),
            pool_count=len(self._pool),
            ready_count=self._pool.ready_count,
            is_catching_up=self._catch_up.is_active,
            is_diverged=self._checkpoints.is_diverged,
            executor_known=self._order.executor_known,
        )

    def _clear(self) -> None:
        self._records: list[Record] = []
        self._checks: list[Check] = []
        self._messages: list[Outgoing] = []
        self._execute: list[Execute] = []
        self._serve: list[Serve] = []
        self._faults: list[Fault] = []

    def _deadline_us(self) -> int:
        status_us = self._retransmission.due_us(
            self._window,
            self._order,
            backlog=self._pool.ready_count,
            is_catching_up=self._catch_up.is_active,
        )
        deadlines = [status_us]
        if len(self._pool):
            deadlines.append(self._housekeeping_us)
        for other in (self._window.deadline_us(), self._catch_up.deadline_us(), self._policy.wake_us):
            if other is not None:
                deadlines.append(other)
        return min(deadlines)

    # Effects -------------------------------------------------------------------------------------

    def _apply(self, effects: Effects, now: Now | None = None, after: Lsn = Lsn(0)) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._messages.append(Outgoing(effect.message, effect.to, self._lsn if effect.durable else after))
                case Write():
                    self._write(effect.record)
                case Verify():
                    self._token += 1
                    self._purposes[self._token] = effect.purpose
                    self._checks.append(Check(self._token, effect.signatures, effect.requests))
                case HandOver():
                    lsn = self._decided_lsn.get(effect.sequence, Lsn(0))
                    self._execute.append(Execute(effect.sequence, effect.block, effect.order_hash, lsn))
                    if now is not None:
                        self._policy.handed_over(effect.sequence, len(effect.block.requests), now)
                case Proposed():
                    self._pool.proposed(effect.sequence, effect.requests)
                case Ordered():
                    self._pool.ordered(effect.sequence, effect.requests)
                    if now is not None:
                        self._policy.committed(effect.sequence, now)
                        self._retransmission.progressed(now)
                case Stabilised():
                    self._window.advance_stable(effect.sequence)
                    self._order.forget(effect.sequence)
                case ServeArchive():
                    self._serve.append(Serve(effect.to, effect.request))
                case Report():
                    self._faults.append(effect.fault)
                case _ as unknown:
                    assert_never(unknown)

    def _write(self, record: Record) -> None:
        self._lsn = Lsn(self._lsn + 1)
        self._records.append(record)
        match record:
            case Prepared():
                self._unsynced.append((self._lsn, record.certificate))
            case Decided():
                self._decided_lsn[record.sequence] = self._lsn
            case _:
                pass

    # Progress ------------------------------------------------------------------------------------

    def _settle(self, now: Now) -> None:
        """What may follow from any input: catching up, then proposing."""
        target = self._checkpoints.target
        if target is not None and target.sequence > self._order.last_committed:
            if self._tried_target < target.sequence <= self._window.frontier:
                # Proposals that are here may be all that was missing.
                self._tried_target = target.sequence
                self._apply(self._window.adopt_accepted(target.sequence, target.order_hash, now), now)
        elif self._catch_up.is_idle:
            target = None
        if target is not None:
            self._pursue(now)
        missing = self._window.missing_bodies()
        if missing or self._catch_up.waits_for_bodies:
            self._apply(self._catch_up.pursue_bodies(missing, self._peers, now), now)
        self._apply(self._catch_up.replay(self._order, self._peers, now), now)
        self._propose(now)

    def _pursue(self, now: Now) -> None:
        target = self._checkpoints.target
        sources = self._checkpoints.sources(target.sequence) if target is not None else self._peers
        self._apply(self._catch_up.pursue(target, sources, self._order, now), now)
        adopted = False
        while (block := self._catch_up.take(self._order)) is not None:
            adopted = True
            self._apply(self._window.adopt(block, now), now)
        if adopted:
            self._apply(self._checkpoints.reconsider(self._order), now)
            self._apply(self._catch_up.pursue(target, sources, self._order, now), now)

    def _next_sequence(self) -> SequenceNumber:
        return SequenceNumber(self._window.frontier + 1)

    def _propose(self, now: Now) -> None:
        """maybe_propose of section 5."""
        if self._window.primary != self.options.me or self._window.mode is not Mode.NORMAL:
            return
        while (decision := self._policy.decide(self._load(), now)) is not Decision.WAIT:
            requests: tuple[Request, ...] = ()
            if decision is Decision.PROPOSE:
                count_max = self._policy.requests_max
                requests = self._pool.pop_fair(now.wall_us, count_max, self.options.batch_bytes_max)
            timer_us = self._load().next_timer_us
            serves_timer = timer_us is not None and timer_us <= now.wall_us
            if not requests and not serves_timer:
                break
            sequence = self._next_sequence()
            kind = BatchKind.NORMAL if requests else BatchKind.TICK
            batch, body = build_batch(kind, sequence, now.wall_us, requests, self.options)
            if serves_timer:
                self._timer_sequence = sequence
            self._policy.proposed(sequence, now)
            self._apply(self._window.propose(batch, requests, body, now), now)

    def _load(self) -> Load:
        is_served = self._timer_sequence > self._order.last_executed
        return Load(
            ready_count=self._pool.ready_count,
            ready_bytes=self._pool.ready_bytes,
            oldest_ready_us=self._pool.oldest_ready_us(),
            next_sequence=self._next_sequence(),
            last_committed=self._order.last_committed,
            last_executed=self._order.last_executed,
            top=self._window.top,
            next_timer_us=None if is_served else self._next_timer_us,
        )
