"""Everything between a client's frame and its answer.

Limits come before signatures, signatures before the core: a request is queued per source, asked about
(`core.admit`), counted against its buckets, verified in chunks, and only then submitted. Nothing that
was decoded is dropped without a word: the answer is a REPLY, a share, or BUSY with the reason.
Deliberately elsewhere: rates and queues (`admission`), REPLYs (`replies`), shares (`reads`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import structlog

import fastpath
from nodes.block import BlockHeader
from nodes.config import Admission
from nodes.core.messages import Attest
from nodes.core.pool import Refusal
from nodes.core.replica import Replica
from nodes.core.types import Now
from nodes.executor.protocol import BlockFound, FindBlock, FindReceipt, Query, QueryAnswer, ReceiptFound
from nodes.keys import SigningKey
from nodes.replica.admission import Intake, RateLimits, Waiting
from nodes.replica.executor_port import Questions
from nodes.replica.reads import ReadShares
from nodes.replica.replies import Replies, attest_of
from nodes.transport import ClientFrame, ClientSocket
from nodes.wire import (
    BlockAnswer,
    BlockQuery,
    Busy,
    BusyReason,
    Read,
    ReceiptQuery,
    StatusAnswer,
    StatusQuery,
    Submit,
    Subscribe,
    Wire,
    WireError,
    read_digest,
    signed,
)

VERIFY_CHUNK = 32
"""Signatures verified between two looks at the votes: some 2.5 ms."""
SUBSCRIPTION_US = 30_000_000
SUBSCRIBERS_MAX = 10_000
LOOKUP_AFTER_US = 100_000
"""A known request is looked up in the archive only when its block has not come meanwhile."""
LOOKUPS_MAX = 10_000
ATTESTS_KEPT = 256
OVERLOADED_MS = 200
CATCHING_UP_MS = 500
QUERY_UNAVAILABLE_HASH = bytes(32)
"""Block hash of a query answer that the executor could not take from any state."""

_REFUSALS = {
    Refusal.EXPIRED: (BusyReason.EXPIRED, 0),
    Refusal.TOO_FAR_AHEAD: (BusyReason.EXPIRED, 0),
    Refusal.CLIENT_QUOTA: (BusyReason.RATE_LIMITED, OVERLOADED_MS),
    Refusal.POOL_FULL: (BusyReason.OVERLOADED, OVERLOADED_MS),
}

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ClientStatistics:
    requests: int = 0
    verified: int = 0
    bad_signatures: int = 0
    bad_frames: int = 0
    busy: int = 0
    questions: int = 0


class Clients:
    """`may_read`: is the executed state no older than what this replica attested? `status`: the JSON document."""

    def __init__(
        self,
        *,
        wire: Wire,
        key: SigningKey,
        core: Replica,
        socket: ClientSocket,
        questions: Questions,
        admission: Admission,
        gateways: tuple[bytes, ...],
        may_read: Callable[[], bool],
        status: Callable[[], bytes],
    ) -> None:
        self._wire = wire
        self._key = key
        self._core = core
        self._socket = socket
        self._questions = questions
        self._may_read = may_read
        self._status = status
        self._limits = RateLimits(admission, gateways)
        self._intake = Intake(self._limits)
        self._request_prefix = signed.request_prefix(wire.cluster.cluster_id)
        self._subscribers: dict[bytes, int] = {}
        self._lookups: deque[tuple[int, bytes, bytes]] = deque()
        self._attests: dict[int, Attest] = {}
        self._now = Now(0, 0)
        self.replies = Replies(wire, core.options.me, socket.send)
        self.reads = ReadShares(wire, key, socket.send)
        self.statistics = ClientStatistics()

    @property
    def waiting_requests(self) -> int:
        """Queued for verification."""
        return len(self._intake)

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    @property
    def known_keys(self) -> int:
        return self._limits.known_keys

    def due_us(self) -> int | None:
        """Monotonic time of the next `tick`; None: not before something arrives."""
        due = self.reads.due_us
        if due is not None and len(self._questions) == 0:
            return 0
        if self._lookups and (due is None or self._lookups[0][0] < due):
            due = self._lookups[0][0]
        return due

    # Frames --------------------------------------------------------------------------------------

    def take(self, frame: ClientFrame, now: Now) -> None:
        """One frame; requests are queued, questions passed on."""
        self._now = now
        try:
            messages = self._wire.decode_client_frame(frame.frame)
        except WireError as error:
            self.statistics.bad_frames += 1
            log.debug("client_frame_refused", source=frame.user, code=error.code, detail=error.detail)
            return
        for message in messages:
            match message:
                case Submit(request):
                    self.statistics.requests += 1
                    for lost in self._intake.put(Waiting(request, frame.connection, frame.user)):
                        self._busy(lost.connection, lost.request.digest, BusyReason.OVERLOADED, OVERLOADED_MS)
                case Subscribe():
                    self._subscribe(frame.connection)
                case ReceiptQuery() | Read() | StatusQuery() | BlockQuery():
                    self.statistics.questions += 1
                    wait_ms = self._limits.question(frame.user, now.monotonic_us)
                    if wait_ms:
                        self._busy(frame.connection, _subject(message), BusyReason.RATE_LIMITED, wait_ms)
                    else:
                        self._question(message, frame.connection)
                case _:
                    assert_never(message)

    def _subscribe(self, connection: bytes) -> None:
        self._subscribers.pop(connection, None)
        if len(self._subscribers) < SUBSCRIBERS_MAX:
            self._subscribers[connection] = self._now.monotonic_us + SUBSCRIPTION_US
            if self._attests:
                # What was pushed before, or lost on the way, would otherwise be missed until the next block.
                newest = self._attests[next(reversed(self._attests))]
                self._socket.send(connection, self._wire.encode(newest))

    def _question(self, message: ReceiptQuery | Read | StatusQuery | BlockQuery, connection: bytes) -> None:
        match message:
            case ReceiptQuery(digest):
                self._find_receipt(digest, connection, otherwise=(BusyReason.NOT_FOUND, 0))
            case Read():
                self._read(message, connection)
            case StatusQuery():
                self._socket.send(connection, self._wire.encode_client(StatusAnswer(self._status())))
            case BlockQuery(sequence):
                self._find_block(sequence, connection)
            case _:
                assert_never(message)

    def _busy(self, connection: bytes, digest: bytes, reason: BusyReason, retry_after_ms: int) -> None:
        self.statistics.busy += 1
        self._socket.send(connection, self._wire.encode_client(Busy(digest, reason, retry_after_ms)))

    # Requests ------------------------------------------------------------------------------------

    def verify_chunk(self, now: Now) -> None:
        """Take the next requests to the core: those that are new, within limits and well signed."""
        self._now = now
        chunk = self._intake.take(VERIFY_CHUNK)
        if not chunk:
            return
        waiting_of = {id(waiting.request): waiting for waiting in chunk}
        admission = self._core.admit([waiting.request for waiting in chunk], now)
        for request in admission.known:
            waiting = waiting_of[id(request)]
            if not self.replies.want(request.digest, waiting.connection):
                self._look_up_later(request.digest, waiting.connection)
        for refused in admission.refused:
            waiting = waiting_of[id(refused.request)]
            otherwise = _REFUSALS[refused.reason]
            if refused.reason is Refusal.EXPIRED:
                self._find_receipt(refused.request.digest, waiting.connection, otherwise=otherwise)
            else:
                self._busy(waiting.connection, refused.request.digest, *otherwise)
        candidates: list[Waiting] = []
        for request in admission.accepted:
            waiting = waiting_of[id(request)]
            wait_ms = self._limits.verification(waiting.source, request.client, now.monotonic_us)
            if wait_ms:
                self._busy(waiting.connection, request.digest, BusyReason.RATE_LIMITED, wait_ms)
            else:
                candidates.append(waiting)
        self._verify(candidates, now)

    def _verify(self, candidates: list[Waiting], now: Now) -> None:
        if not candidates:
            return
        flags = fastpath.verify_requests(self._request_prefix, [waiting.request.record for waiting in candidates])
        good = []
        for waiting, flag in zip(candidates, flags, strict=True):
            request = waiting.request
            if flag:
                good.append(request)
                self._limits.good_signature(request.client, now.monotonic_us)
                self.replies.want(request.digest, waiting.connection)
            else:
                self.statistics.bad_signatures += 1
                self._busy(waiting.connection, request.digest, BusyReason.BAD_SIGNATURE, 0)
        self.statistics.verified += len(candidates)
        for request in self._core.submit(good, now):
            for connection in self.replies.drop(request.digest):
                self._busy(connection, request.digest, BusyReason.OVERLOADED, OVERLOADED_MS)

    # Receipts ------------------------------------------------------------------------------------

    def _look_up_later(self, digest: bytes, connection: bytes) -> None:
        if len(self._lookups) < LOOKUPS_MAX:
            self._lookups.append((self._now.monotonic_us + LOOKUP_AFTER_US, digest, connection))

    def _find_receipt(self, digest: bytes, connection: bytes, *, otherwise: tuple[BusyReason, int] | None) -> None:
        """Answer from the archive; when it is not there with BUSY, or (None) not at all."""

        def answered(answer: object) -> None:
            if isinstance(answer, ReceiptFound) and answer.found:
                attest = self._own_attest(answer.block_header)
                if attest is not None:
                    self.replies.forget(digest, connection)
                    self.replies.found(connection, digest, answer, attest)
                    return
            if otherwise is not None:
                reason = otherwise if isinstance(answer, ReceiptFound) else (BusyReason.CATCHING_UP, CATCHING_UP_MS)
                self._busy(connection, digest, *reason)

        if not self._questions.ask(lambda token: FindReceipt(token, digest), answered, self._now.monotonic_us):
            answered(None)

    def _own_attest(self, packed: bytes) -> Attest | None:
        """Our signature on a block of the archive; None when this replica does not vouch for its state."""
        if self._core.status().is_diverged:
            return None
        header = BlockHeader.unpack(packed)
        attest = self._attests.get(header.sequence)
        if attest is None or attest.block_hash != header.hash:
            attest = self._wire.sign(attest_of(header), self._key)
            self._keep_attest(attest)
        return attest

    def _keep_attest(self, attest: Attest) -> None:
        self._attests[attest.sequence] = attest
        if len(self._attests) > ATTESTS_KEPT:
            del self._attests[next(iter(self._attests))]

    def attested(self, attest: Attest, encoded: bytes) -> None:
        """Our own attestation has been signed and sent to the peers."""
        self._keep_attest(attest)
        for connection in self._subscribers:
            self._socket.send(connection, encoded)
        for digest, connections in self.replies.attested(attest):
            for connection in connections:
                self._find_receipt(digest, connection, otherwise=None)

    def _find_block(self, sequence: int, connection: bytes) -> None:
        def answered(answer: object) -> None:
            reply = BlockAnswer(sequence)
            if isinstance(answer, BlockFound) and answer.found:
                attest = self._own_attest(answer.block_header)
                if attest is not None:
                    reply = BlockAnswer(sequence, answer.block_header, attest.signature)
            self._socket.send(connection, self._wire.encode_client(reply))

        if not self._questions.ask(lambda token: FindBlock(token, sequence), answered, self._now.monotonic_us):
            answered(None)

    # Reads ---------------------------------------------------------------------------------------

    def _read(self, read: Read, connection: bytes) -> None:
        digest = read_digest(read.query, read.caller)
        if not self._may_read():
            self._busy(connection, digest, BusyReason.CATCHING_UP, CATCHING_UP_MS)
            return
        if read.caller is not None:
            latest_us = self._now.wall_us + self._core.options.validity_max_us
            if not self._now.wall_us <= read.valid_until_us <= latest_us:
                self._busy(connection, digest, BusyReason.EXPIRED, 0)
                return
            if not self._wire.verify_read(read):
                self.statistics.bad_signatures += 1
                self._busy(connection, digest, BusyReason.BAD_SIGNATURE, 0)
                return

        def answered(answer: object) -> None:
            if isinstance(answer, QueryAnswer) and answer.block_hash != QUERY_UNAVAILABLE_HASH:
                self.reads.add(connection, read, answer, self._now.monotonic_us)
            else:
                self._busy(connection, digest, BusyReason.OVERLOADED, OVERLOADED_MS)

        if not self._questions.ask(
            lambda token: Query(token, read.query, read.caller, read.want_result), answered, self._now.monotonic_us
        ):
            answered(None)

    # Time ----------------------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Once a turn: shares that are due, look-ups that are due."""
        self._now = now
        due_us = self.reads.due_us
        if due_us is not None and (now.monotonic_us >= due_us or len(self._questions) == 0):
            self.reads.flush()
        while self._lookups and self._lookups[0][0] <= now.monotonic_us:
            _, digest, connection = self._lookups.popleft()
            if self.replies.is_waiting(digest):
                self._find_receipt(digest, connection, otherwise=None)

    def housekeep(self, now: Now) -> None:
        """A few times a second: forget subscribers that have not renewed. They are in the order of renewal."""
        while self._subscribers:
            connection = next(iter(self._subscribers))
            if self._subscribers[connection] > now.monotonic_us:
                break
            del self._subscribers[connection]

    def gone(self, connections: list[bytes]) -> None:
        """The transport says that these are not connected any longer."""
        for connection in connections:
            self._subscribers.pop(connection, None)


def _subject(message: ReceiptQuery | Read | StatusQuery | BlockQuery) -> bytes:
    """What a BUSY answers to: 32 bytes, zeros where the question has no digest."""
    match message:
        case ReceiptQuery(digest):
            return digest
        case Read():
            return read_digest(message.query, message.caller)
        case StatusQuery() | BlockQuery():
            return bytes(32)
        case _:
            assert_never(message)
