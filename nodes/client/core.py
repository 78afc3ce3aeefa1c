"""The client as a pure core: calls, frames and times in; frames and outcomes out.

Always: what completes a call was proven by q replicas (or is labelled as one replica's word); a call
completes exactly once; a time-out is `OutcomeUnknown` or `NoQuorum`, never a failure of the operation; a
replica whose answer does not verify is noted in `misbehaviour` and not used. Deliberately elsewhere:
sockets, clocks and randomness (`nodes.client.aio`, `nodes.client.sync`), which call

    ticket = core.submit(...); frames = core.frames(replica); core.receive(replica, frame, now);
    core.tick(now) no later than core.due_us(); core.completed()
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from nodes.block import BlockHeader
from nodes.client.attestations import AttestationChecker
from nodes.client.errors import ClientError, InvalidRequest, Overloaded, Refused
from nodes.client.options import ClientOptions
from nodes.client.own import OwnOperation, OwnOperations
from nodes.client.pending import Exchange, Outbox, PendingBlock, PendingOperation, PendingRead, PendingStatus
from nodes.client.proof import Misbehaviour, Proof
from nodes.client.reading import Consistency
from nodes.client.stream import AttestedBlocks
from nodes.codes import Status
from nodes.config import ClusterConfig
from nodes.core.messages import Attest
from nodes.core.types import Now
from nodes.receipt import Receipt
from nodes.wire import (
    QUERY_BYTES_MAX,
    BlockAnswer,
    Busy,
    ClientAnswer,
    Read,
    ReadShare,
    Reply,
    Signer,
    StatusAnswer,
    Submit,
    Subscribe,
    Wire,
    WireError,
)

NONCE_BYTES = 16
MISBEHAVIOUR_MAX = 1000
"""Wrong answers remembered."""
Ticket = int


@dataclass(frozen=True, slots=True)
class SignedQuery:
    """A query signed by somebody else, to be passed on as it is."""

    public_key: bytes
    valid_until_us: int
    signature: bytes


def library_code_name(status: int) -> str:
    """Name of a status number of the library; `application_<n>` for others."""
    try:
        return Status(status).name.lower()
    except ValueError:
        return f"application_{status}"


def operation_bytes(operation: bytes | dict[str, Any]) -> bytes:
    """The bytes to sign: given, or the JSON of a dict with its keys sorted."""
    return operation if isinstance(operation, bytes) else msgspec.json.encode(operation, order="deterministic")


class ClientCore:
    """One client of one cluster. Times are `Now`; time-outs are milliseconds from `now`."""

    def __init__(
        self,
        cluster: ClusterConfig,
        signing_key: Signer | None = None,
        options: ClientOptions | None = None,
        code_name: Callable[[int], str] = library_code_name,
    ) -> None:
        self.cluster = cluster
        self.options = options or ClientOptions()
        self.misbehaviour: deque[Misbehaviour] = deque(maxlen=MISBEHAVIOUR_MAX)
        """The last wrong answers, oldest first."""
        self.heard_us: list[int | None] = [None] * cluster.n
        """Monotonic time of the last well-formed answer of each replica."""
        self.wire = Wire(cluster)
        self._code_name = code_name
        self._checker = AttestationChecker(self.wire)
        self._outbox = Outbox(cluster.n)
        self._completed: list[tuple[Ticket, Any]] = []
        self._timers: list[tuple[int, int, Exchange]] = []
        self._timer_count = 0
        self._next_ticket = 1
        self._first = 0
        self._operations: dict[bytes, PendingOperation] = {}
        self._waiting: dict[bytes, dict[Ticket, int]] = {}
        self._ticket_of: dict[Ticket, bytes] = {}
        self._receipt_only: set[Ticket] = set()
        self._reads: dict[bytes, tuple[PendingRead, Ticket]] = {}
        self._blocks: dict[int, tuple[PendingBlock, list[Ticket]]] = {}
        self._statuses: dict[Ticket, PendingStatus] = {}
        self._own = OwnOperations(cluster, signing_key, self.options)
        self._attested = AttestedBlocks(cluster.n, cluster.quorum)
        self._subscribe_us: int | None = None

    # Calls

    def submit(self, operation: bytes, now: Now, *, timeout_ms: int | None = None, raise_floor: bool = False) -> Ticket:
        """Sign an operation with our key and have it ordered; completes with a Receipt.

        `raise_floor` cancels every earlier operation of unknown outcome: they can no longer happen once this
        one has been executed. It waits until nothing of ours is in flight.
        """
        self._own.check(operation)
        ticket = self._ticket()
        deadline_us = self._deadline(now, timeout_ms or self.options.operation_timeout_ms)
        self._own.add(OwnOperation(ticket, operation, deadline_us, raise_floor))
        self._pump(now)
        return ticket

    def submit_signed(
        self, record: bytes, now: Now, *, timeout_ms: int | None = None, verified: bool = False
    ) -> Ticket:
        """Have a signed record ordered; completes with a Receipt. InvalidRequest unless it is sound and signed.

        `verified`: the caller has verified the signature already.
        """
        try:
            request = self.wire.parse_record(record)
        except WireError as error:
            raise InvalidRequest("malformed", error.detail) from error
        if request.kind != 0:
            raise InvalidRequest("malformed", f"a request of kind {request.kind} is not a client's")
        if not verified and not self.wire.verify_request(request):
            raise InvalidRequest("bad_signature", "the record is not signed by the key inside it")
        ticket = self._ticket()
        deadline_us = self._deadline(now, timeout_ms or self.options.operation_timeout_ms)
        self._operate(request.digest, bytes(record), ticket, deadline_us, now)
        return ticket

    def find_receipt(self, digest: bytes, now: Now, *, timeout_ms: int | None = None) -> Ticket:
        """The receipt of an executed operation or fired timer; completes with a Receipt or NotFound."""
        ticket = self._ticket()
        self._operate(digest, b"", ticket, self._deadline(now, timeout_ms or self.options.query_timeout_ms), now)
        self._receipt_only.add(ticket)
        return ticket

    def query(
        self,
        query: bytes,
        nonce: bytes,
        now: Now,
        *,
        consistency: Consistency = Consistency.QUORUM,
        signature: SignedQuery | bool = False,
        replica: int | None = None,
        timeout_ms: int | None = None,
    ) -> Ticket:
        """Ask all replicas; completes with a QueryResult. `nonce`: 16 fresh random bytes.

        `signature`: True signs with our key; a SignedQuery is passed on. `replica`: whom to ask first for the
        result (and the only one asked at first by a local read).
        """
        if nonce in self._reads:
            raise InvalidRequest("nonce_in_use", "another query with this nonce is in flight; use a fresh one")
        if len(nonce) != NONCE_BYTES or len(query) > QUERY_BYTES_MAX:
            raise InvalidRequest("malformed", f"a nonce is {NONCE_BYTES} bytes, a query at most {QUERY_BYTES_MAX}")
        self._check_bound()
        read = Read(nonce, True, query)
        if isinstance(signature, SignedQuery):
            read = replace(
                read,
                caller=signature.public_key,
                valid_until_us=signature.valid_until_us,
                signature=signature.signature,
            )
            if not self.wire.verify_read(read):
                raise InvalidRequest("bad_signature", "the query is not signed by the key it names")
        elif signature:
            read = self.wire.sign_read(read, self._own.key, now.wall_us + self.options.validity_ms * 1_000)
        deadline_us = self._deadline(now, timeout_ms or self.options.query_timeout_ms)
        first = self._turn() if replica is None else replica
        pending = PendingRead(self.wire, self.options, read, consistency, first, deadline_us)
        ticket = self._ticket()
        self._reads[nonce] = (pending, ticket)
        pending.start(self._outbox, now.monotonic_us)
        self._schedule(pending)
        return ticket

    def find_block(self, sequence: int, now: Now, *, timeout_ms: int | None = None) -> Ticket:
        """Completes with (BlockHeader, attestations) or NotFound."""
        ticket = self._ticket()
        if sequence in self._blocks:
            self._blocks[sequence][1].append(ticket)
            return ticket
        self._check_bound()
        deadline_us = self._deadline(now, timeout_ms or self.options.query_timeout_ms)
        pending = PendingBlock(self.wire, sequence, deadline_us)
        self._blocks[sequence] = (pending, [ticket])
        pending.start(self._outbox, now.monotonic_us)
        self._schedule(pending)
        return ticket

    def status(self, replica: int, now: Now, *, timeout_ms: int | None = None) -> Ticket:
        """Completes with the replica's status document, a dict: its own unsigned word."""
        if self.cluster.member(replica) is None:
            raise InvalidRequest("malformed", f"there is no replica {replica}")
        self._check_bound()
        deadline_us = self._deadline(now, timeout_ms or self.options.query_timeout_ms)
        ticket = self._ticket()
        pending = self._statuses[ticket] = PendingStatus(self.wire, replica, deadline_us)
        pending.start(self._outbox, now.monotonic_us)
        self._schedule(pending)
        return ticket

    def subscribe(self, now: Now) -> None:
        """Have attestations pushed from now on; `attested` reports blocks."""
        if self._subscribe_us is None:
            self._subscribe_us = now.monotonic_us
            self.tick(now)

    def unsubscribe(self) -> None:
        """Let the subscription lapse."""
        self._subscribe_us = None

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for it any more. An operation may happen all the same."""
        self._own.cancel(ticket)
        self._receipt_only.discard(ticket)
        digest = self._ticket_of.pop(ticket, None)
        if digest is not None:
            waiting = self._waiting[digest]
            del waiting[ticket]
            if not waiting:
                self._drop_operation(digest)
        for nonce in [nonce for nonce, (_, one) in self._reads.items() if one == ticket]:
            del self._reads[nonce]
        for sequence, (_, tickets) in list(self._blocks.items()):
            if ticket in tickets:
                tickets.remove(ticket)
                if not tickets:
                    del self._blocks[sequence]
        self._statuses.pop(ticket, None)

    # Events

    def receive(self, replica: int, frame: bytes, now: Now) -> None:
        """Take a frame that came through the channel of `replica`."""
        try:
            answers = self.wire.decode_answer_frame(frame)
        except WireError as error:
            self._note(replica, str(error.code))
            return
        self.heard_us[replica] = now.monotonic_us
        for answer in answers:
            self._take(replica, answer, now)
        self._pump(now)

    def tick(self, now: Now) -> None:
        """Act on every time that has come."""
        now_us = now.monotonic_us
        if self._subscribe_us is not None and now_us >= self._subscribe_us:
            self._outbox.to_all(self.wire.encode_client(Subscribe()))
            self._subscribe_us = now_us + self.options.subscribe_every_ms * 1_000
        while self._timers and self._timers[0][0] <= now_us:
            due_us, _, exchange = heapq.heappop(self._timers)
            if self._is_live(exchange) and due_us == exchange.due_us:
                self._on_time(exchange, now)
        for ticket in self._own.expired(now_us):
            detail = "it was not sent: too many operations of this client are in flight; submit it again"
            self._completed.append((ticket, Overloaded("overloaded", 1.0, detail)))
        self._pump(now)

    def due_us(self) -> int | None:
        """Monotonic time of the next `tick`, or None."""
        while self._timers and not (
            self._is_live(self._timers[0][2]) and self._timers[0][0] == self._timers[0][2].due_us
        ):
            heapq.heappop(self._timers)
        times = [self._timers[0][0]] if self._timers else []
        if self._subscribe_us is not None:
            times.append(self._subscribe_us)
        waiting_us = self._own.due_us()
        if waiting_us is not None:
            times.append(waiting_us)
        return min(times, default=None)

    def frames(self, replica: int) -> list[bytes]:
        """What to send to the replica now."""
        return self._outbox.take(replica)

    def completed(self) -> list[tuple[Ticket, Any]]:
        """(ticket, result or ClientError) since the last call."""
        done = self._completed
        self._completed = []
        return done

    def attested(self) -> list[tuple[int, bytes]]:
        """(sequence, block hash) of blocks with q genuine attestations since the last call."""
        return self._attested.take()

    @property
    def last_attested(self) -> int:
        """Newest attested sequence number seen while subscribed; 0: none."""
        return self._attested.last

    # Answers

    def _take(self, replica: int, answer: ClientAnswer, now: Now) -> None:
        match answer:
            case Reply():
                self._take_reply(replica, answer, now)
            case Busy():
                operation = self._operations.get(answer.digest)
                if operation is not None:
                    ignored = dict(operation.tally.ignored)
                    operation.on_busy(replica, answer, now.monotonic_us)
                    self._note_new(ignored, operation.tally.ignored)
                    self._after_operation(operation, now)
            case ReadShare():
                found = self._reads.get(answer.nonce)
                if found is not None:
                    self._take_share(replica, answer, found[0], now)
            case BlockAnswer():
                block = self._blocks.get(answer.sequence)
                if block is not None:
                    ignored = dict(block[0].ignored)
                    block[0].on_answer(replica, answer, self._checker)
                    self._note_new(ignored, block[0].ignored)
                    self._after(block[0])
            case StatusAnswer():
                for pending in [one for one in self._statuses.values() if one.replica == replica]:
                    pending.on_answer(answer.document)
                    self._after(pending)
            case Attest():
                if self._subscribe_us is not None:
                    self.misbehaviour.extend(self._attested.add(replica, answer, self._checker))

    def _take_reply(self, replica: int, reply: Reply, now: Now) -> None:
        header = BlockHeader.unpack(reply.block_header) if reply.block_header else None
        if header is not None and (header.cluster_id, header.epoch) != (self.cluster.cluster_id, self.cluster.epoch):
            self._note(replica, "other_cluster")
            return
        for entry in reply.entries:
            operation = self._operations.get(entry.digest)
            if operation is None:
                continue
            known = dict(operation.tally.ignored)
            operation.on_reply(replica, reply, entry, header, self._checker, self._outbox, now.monotonic_us)
            self._note_new(known, operation.tally.ignored)
            self._after_operation(operation, now)

    def _take_share(self, replica: int, share: ReadShare, pending: PendingRead, now: Now) -> None:
        known = dict(pending.tally.ignored)
        pending.on_share(replica, share, now.monotonic_us)
        self._note_new(known, pending.tally.ignored)
        self._after(pending)

    def _on_time(self, exchange: Exchange, now: Now) -> None:
        if isinstance(exchange, PendingOperation):
            self._expire_waiting(exchange, now.monotonic_us)
            if self._is_live(exchange):
                exchange.on_time(self._outbox, self._checker, now.monotonic_us)
                self._after_operation(exchange, now)
        elif isinstance(exchange, PendingRead | PendingBlock | PendingStatus):
            exchange.on_time(self._outbox, now.monotonic_us)
            self._after(exchange)

    # Completion

    def _after(self, exchange: Exchange) -> None:
        """Complete a query, block or status that has its outcome; else see to its next time."""
        if exchange.outcome is None:
            self._schedule(exchange)
            return
        match exchange:
            case PendingRead():
                _, ticket = self._reads.pop(exchange.tally.nonce)
                self._completed.append((ticket, exchange.outcome))
            case PendingBlock():
                _, tickets = self._blocks.pop(exchange.sequence)
                self._completed.extend((ticket, exchange.outcome) for ticket in tickets)
            case PendingStatus():
                ticket = next(ticket for ticket, one in self._statuses.items() if one is exchange)
                del self._statuses[ticket]
                self._completed.append((ticket, exchange.outcome))

    def _after_operation(self, operation: PendingOperation, now: Now) -> None:
        if operation.outcome is None:
            self._schedule(operation)
            return
        outcome = operation.outcome
        if isinstance(outcome, Proof):
            outcome = self._receipt_or_refusal(operation, outcome)
        tickets = list(self._waiting[operation.digest])
        self._drop_operation(operation.digest)
        for ticket in tickets:
            self._finish(ticket, outcome, now)

    def _receipt_or_refusal(self, operation: PendingOperation, proof: Proof) -> Receipt | ClientError:
        leaf = proof.leaf
        try:
            receipt = Receipt.build(
                header=leaf.header,
                index=leaf.index,
                status=leaf.status,
                result=leaf.result,
                path=leaf.path,
                record=operation.record or leaf.record,
                attestations=proof.attestations,
            )
        except ValueError as error:
            return ClientError("no_receipt", str(error))
        if leaf.status == Status.OK or not operation.record:
            return receipt
        code = self._code_name(leaf.status)
        detail = f"refused by the rules in block {leaf.header.sequence}; the receipt proves it"
        return Refused(code, leaf.status, receipt, detail)

    def _finish(self, ticket: Ticket, outcome: Any, now: Now) -> None:
        self._ticket_of.pop(ticket, None)
        if ticket in self._receipt_only:
            self._receipt_only.discard(ticket)
            outcome = outcome.receipt if isinstance(outcome, Refused) and outcome.receipt is not None else outcome
        if not self._own.finish(ticket, outcome, now):
            self._completed.append((ticket, outcome))

    def _expire_waiting(self, operation: PendingOperation, now_us: int) -> None:
        """Callers have their own deadlines; the exchange has the latest of them."""
        waiting = self._waiting[operation.digest]
        if now_us >= operation.deadline_us:
            return
        for ticket, deadline_us in list(waiting.items()):
            if deadline_us <= now_us:
                del waiting[ticket]
                self._finish(ticket, operation.unknown(), Now(now_us, 0))
        operation.wake_us = min(waiting.values())

    def _drop_operation(self, digest: bytes) -> None:
        del self._operations[digest]
        for ticket in self._waiting.pop(digest):
            self._ticket_of.pop(ticket, None)

    # Sending

    def _operate(self, digest: bytes, record: bytes, ticket: Ticket, deadline_us: int, now: Now) -> None:
        operation = self._operations.get(digest)
        if operation is None or (record and not operation.record):
            if operation is None:
                self._check_bound()
            message = self.wire.encode_client(Submit(self.wire.parse_record(record))) if record else b""
            operation = PendingOperation(self.wire, self.options, digest, record, message, deadline_us)
            self._operations[digest] = operation
            self._waiting.setdefault(digest, {})
            operation.start(self._outbox, now.monotonic_us)
        self._waiting[digest][ticket] = deadline_us
        self._ticket_of[ticket] = digest
        operation.extend(min(self._waiting[digest].values()), max(self._waiting[digest].values()))
        self._schedule(operation)

    def _pump(self, now: Now) -> None:
        """Give places to waiting operations of our own key."""
        while (following := self._own.next_record(now)) is not None:
            own, record = following
            digest = self.wire.parse_record(record).digest
            self._operate(digest, record, own.ticket, own.deadline_us, now)

    # Small things

    def _ticket(self) -> Ticket:
        ticket = self._next_ticket
        self._next_ticket += 1
        return ticket

    def _turn(self) -> int:
        """The replica to ask for a result: in turn, the ones that answered lately first."""
        self._first += 1
        heard = [replica for replica, heard_us in enumerate(self.heard_us) if heard_us is not None]
        if not heard:
            return self._first % self.cluster.n
        return heard[self._first % len(heard)]

    def _deadline(self, now: Now, timeout_ms: int) -> int:
        return now.monotonic_us + timeout_ms * 1_000

    def _check_bound(self) -> None:
        in_flight = len(self._operations) + len(self._reads) + len(self._blocks) + len(self._statuses)
        if in_flight >= self.options.queue_max:
            raise Overloaded("overloaded", 1.0, f"{in_flight} exchanges of this client are in flight")

    def _is_live(self, exchange: Exchange) -> bool:
        match exchange:
            case PendingOperation():
                return self._operations.get(exchange.digest) is exchange
            case PendingRead():
                return exchange.tally.nonce in self._reads and self._reads[exchange.tally.nonce][0] is exchange
            case PendingBlock():
                return exchange.sequence in self._blocks and self._blocks[exchange.sequence][0] is exchange
            case _:
                return any(exchange is one for one in self._statuses.values())

    def _schedule(self, exchange: Exchange) -> None:
        if exchange.scheduled_us != exchange.due_us:
            exchange.scheduled_us = exchange.due_us
            self._timer_count += 1
            heapq.heappush(self._timers, (exchange.due_us, self._timer_count, exchange))

    def _note(self, replica: int, code: str) -> None:
        self.misbehaviour.append(Misbehaviour(replica, code))

    def _note_new(self, known: dict[int, str], ignored: dict[int, str]) -> None:
        for replica, code in ignored.items():
            if replica not in known:
                self._note(replica, code)
