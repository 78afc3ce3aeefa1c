"""The four exchanges with the replicas that wait for answers: operation, query, block, status.

Each is a small state machine: messages and times in, messages for the `Outbox` out, and in the end an
`outcome`. Nothing is concluded from fewer than q replicas but what is labelled so (a local read, a status).
Times are monotonic microseconds. Deliberately elsewhere: sessions and tickets (`nodes.client.core`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from nodes.block import BlockHeader, parse_timer_record, timer_digest
from nodes.client.attestations import AttestationChecker, BlockKey
from nodes.client.errors import ClientError, NoQuorum, NotFound, OutcomeUnknown, Overloaded, Refused, VerificationFailed
from nodes.client.options import ClientOptions
from nodes.client.proof import Proof, ProofTally, leaf_in_block
from nodes.client.reading import Consistency, QueryResult, ReadTally
from nodes.codes import Status
from nodes.wire import (
    CLIENT_FRAME_MAX,
    BlockAnswer,
    BlockQuery,
    Busy,
    BusyReason,
    Read,
    ReadShare,
    ReceiptQuery,
    Reply,
    ReplyEntry,
    StatusQuery,
    Wire,
    read_digest,
)

_RETRYABLE = {
    BusyReason.RATE_LIMITED: "rate_limited",
    BusyReason.OVERLOADED: "overloaded",
    BusyReason.CATCHING_UP: "catching_up",
}
AttestedBlock = tuple[BlockHeader, tuple[tuple[int, bytes], ...]]
"""A header and the (replica, signature) of q replicas over it."""
RETRY_AFTER_MIN_US = 50_000
ASK_AGAIN_US = 500_000
"""Interval of repeated questions for a block."""


class Outbox:
    """Messages for each replica, joined into frames."""

    def __init__(self, replicas: int) -> None:
        self._messages: list[list[bytes]] = [[] for _ in range(replicas)]

    def to(self, replica: int, message: bytes) -> None:
        self._messages[replica].append(message)

    def to_all(self, message: bytes) -> None:
        for messages in self._messages:
            messages.append(message)

    def take(self, replica: int) -> list[bytes]:
        """Frames of at most `CLIENT_FRAME_MAX` bytes."""
        messages = self._messages[replica]
        if not messages:
            return []
        self._messages[replica] = []
        if sum(map(len, messages)) <= CLIENT_FRAME_MAX:
            return [b"".join(messages)]
        frames: list[list[bytes]] = [[]]
        size = 0
        for message in messages:
            if size + len(message) > CLIENT_FRAME_MAX:
                frames.append([])
                size = 0
            frames[-1].append(message)
            size += len(message)
        return [b"".join(frame) for frame in frames if frame]


class Exchange:
    """What all have in common: a time to act, a deadline, and an outcome in the end."""

    def __init__(self, wire: Wire, deadline_us: int) -> None:
        self.wire = wire
        self.n = wire.cluster.n
        self.quorum = wire.cluster.quorum
        self.deadline_us = deadline_us
        self.due_us = deadline_us
        self.scheduled_us: int | None = None
        """The time for which the core has set its timer."""
        self.outcome: Any = None
        """The result, or a ClientError; None while it is not known."""

    def too_many_liars(self, ignored: dict[int, str]) -> None:
        """More ignored replicas than may be faulty: no answer will ever come."""
        if self.outcome is None and len(ignored) > self.n - self.quorum:
            replica, code = list(ignored.items())[-1]
            self.outcome = VerificationFailed(
                code,
                replica,
                f"the answers of replicas {sorted(ignored)} do not verify; check that the genesis is this cluster's",
            )


def record_is_genuine(wire: Wire, digest: bytes, record: bytes) -> bool:
    """Is this the signed request, or the timer, that the digest names?"""
    try:
        if record[0] == 0:
            return timer_digest(*parse_timer_record(record)) == digest
        request = wire.parse_record(record)
    except ValueError:
        return False
    return request.digest == digest and wire.verify_request(request)


class PendingOperation(Exchange):
    """A signed request, or only its digest, for which a proof is wanted."""

    def __init__(
        self, wire: Wire, options: ClientOptions, digest: bytes, record: bytes, message: bytes, deadline_us: int
    ) -> None:
        super().__init__(wire, deadline_us)
        self.digest = digest
        self.record = record
        """Empty when only the receipt is asked for; then the proof must bring the record."""
        self.tally = ProofTally(digest, self.quorum)
        self._message = message
        self._question = wire.encode_client(ReceiptQuery(digest))
        self._following = False
        self._busy: dict[int, Busy] = {}
        self._interval_us = options.resend_first_ms * 1_000
        self._interval_max_us = options.resend_max_ms * 1_000
        self._leaf_wait_us = options.ask_leaf_after_ms * 1_000
        self.wake_us = deadline_us
        """When the first of those who wait gives up."""
        self._resend_us = 0
        self._ask_us: int | None = None
        self._asked = 0

    def start(self, outbox: Outbox, now_us: int) -> None:
        outbox.to_all(self._message or self._question)
        self._resend_us = now_us + self._interval_us
        self._schedule()

    def extend(self, wake_us: int, deadline_us: int) -> None:
        """The first and the last deadline of those who wait."""
        self.wake_us = wake_us
        self.deadline_us = deadline_us
        self._schedule()

    def on_reply(
        self, replica: int, reply: Reply, entry: ReplyEntry, header: BlockHeader | None, checker: AttestationChecker,
        outbox: Outbox, now_us: int,
    ) -> None:  # fmt: skip
        """A replica's vote for a place of our digest, with the leaf when it is this replica's turn."""
        key = BlockKey(reply.sequence, reply.order_hash, reply.block_hash)
        self._busy.pop(replica, None)
        self.tally.vote(replica, key, entry.index, reply.signature)
        outcome = entry.outcome
        if outcome is not None and header is not None and replica not in self.tally.ignored:
            leaf = leaf_in_block(
                header, self.digest, entry.index, outcome.status, outcome.result, outcome.path, outcome.record
            )
            if leaf is None:
                self.tally.ignore(replica, "bad_path")
            elif leaf.record and not self.record and not record_is_genuine(self.wire, self.digest, leaf.record):
                self.tally.ignore(replica, "bad_record")
            else:
                self.tally.add_leaf(key, leaf)
        self._conclude(checker, outbox, now_us)

    def on_busy(self, replica: int, busy: Busy, now_us: int) -> None:
        """A replica does not take it, or does not know it."""
        if busy.reason in (BusyReason.BAD_SIGNATURE, BusyReason.MALFORMED):
            # The signature and the form were checked here before sending: the replica is wrong.
            self.tally.ignore(replica, "false_refusal")
            self.too_many_liars(self.tally.ignored)
            return
        if replica in self.tally.voted() or (busy.reason is BusyReason.NOT_FOUND and self._message):
            return
        self._busy[replica] = busy
        if busy.reason in _RETRYABLE:
            again_us = now_us + max(busy.retry_after_ms * 1_000, RETRY_AFTER_MIN_US)
            self._resend_us = min(self._resend_us, again_us)
        if len(self._busy) >= self.quorum:
            self._refused_by_quorum()
        self._schedule()

    def on_time(self, outbox: Outbox, checker: AttestationChecker, now_us: int) -> None:
        """Send again what has not been answered."""
        if now_us >= self.deadline_us:
            self.outcome = self.unknown()
            return
        if now_us >= self._resend_us:
            self._resend(outbox)
            self._interval_us = min(2 * self._interval_us, self._interval_max_us)
            self._resend_us = now_us + self._interval_us
        if self._ask_us is not None and now_us >= self._ask_us:
            _, holders = self.tally.conclude(checker, with_record=not self.record)
            if holders:
                outbox.to(holders[self._asked % len(holders)], self._question)
                self._asked += 1
                self._ask_us = now_us + self._leaf_wait_us * min(2**self._asked, 32)
        self._schedule()

    def _resend(self, outbox: Outbox) -> None:
        voted = self.tally.voted()
        executed = self._following or bool(voted) or not self._message
        for replica in range(self.n):
            if replica in voted or replica in self.tally.ignored:
                continue
            if self._message and not self._following:
                outbox.to(replica, self._message)
            if executed or replica in self._busy:
                outbox.to(replica, self._question)
        self._busy.clear()

    def _conclude(self, checker: AttestationChecker, outbox: Outbox, now_us: int) -> None:
        proof, holders = self.tally.conclude(checker, with_record=not self.record)
        self.too_many_liars(self.tally.ignored)
        if proof is not None:
            if proof.leaf.status == Status.DUPLICATE:
                self._follow(proof, outbox, now_us)
            else:
                self.outcome = proof
        elif holders and self._ask_us is None:
            self._ask_us = now_us + self._leaf_wait_us
            self._schedule()

    def _follow(self, proof: Proof, outbox: Outbox, now_us: int) -> None:
        """The proven leaf says "executed before": the same bytes must give the receipt of that time."""
        self.tally.set_aside(proof.leaf)
        self._following = True
        outbox.to_all(self._question)
        self._resend_us = now_us + self._interval_us
        self._ask_us = None
        self._schedule()

    def _refused_by_quorum(self) -> None:
        reasons = Counter(busy.reason for busy in self._busy.values())
        reason = reasons.most_common(1)[0][0]
        replicas = f"replicas {sorted(self._busy)}"
        if all(one is BusyReason.NOT_FOUND for one in reasons):
            self.outcome = NotFound(f"{replicas} know no operation with digest {self.digest.hex()}")
        elif all(one is BusyReason.EXPIRED for one in reasons):
            detail = f"valid_until has passed by the clocks of {replicas}; sign it anew with a later time"
            self.outcome = Refused("expired", Status.EXPIRED, None, detail)
        elif all(one in _RETRYABLE for one in reasons):
            wait_s = max(busy.retry_after_ms for busy in self._busy.values()) / 1_000
            detail = f"{replicas} do not take it now; send the same bytes again in {wait_s:.3g} s"
            self.outcome = Overloaded(_RETRYABLE[reason], wait_s, detail, self.record)

    def unknown(self) -> ClientError:
        """What to tell somebody whose time is up."""
        votes = len(self.tally.voted())
        detail = f"{votes} of {self.quorum} replicas needed answered in time; retry the same bytes at any node"
        return OutcomeUnknown(self.digest, self.record, detail)

    def _schedule(self) -> None:
        self.due_us = min(self.wake_us, self.deadline_us, self._resend_us)
        if self._ask_us is not None:
            self.due_us = min(self.due_us, self._ask_us)


class PendingRead(Exchange):
    """A query that goes to all replicas (a local read: to one), the result in full from one at a time."""

    def __init__(
        self,
        wire: Wire,
        options: ClientOptions,
        read: Read,
        consistency: Consistency,
        first: int,
        deadline_us: int,
    ) -> None:
        super().__init__(wire, deadline_us)
        digest = read_digest(read.query, read.caller)
        self.tally = ReadTally(wire, read.nonce, digest, consistency)
        self._with_result = self._encoded(read, True)
        self._without_result = self._encoded(read, False)
        self._local = consistency is Consistency.LOCAL
        self._turn = first
        self._retry_us = options.query_retry_ms * 1_000
        self._attempts = 0
        self._attempts_max = options.query_attempts_max

    def _encoded(self, read: Read, want_result: bool) -> bytes:
        fields = (read.query, read.caller, read.valid_until_us, read.signature)
        return self.wire.encode_client(Read(read.nonce, want_result, *fields))

    def start(self, outbox: Outbox, now_us: int) -> None:
        self._ask(outbox, now_us)

    def on_share(self, replica: int, share: ReadShare, now_us: int) -> None:
        """A replica's newest answer."""
        self.tally.add(replica, share)
        agreement = self.tally.agreement()
        self.too_many_liars(self.tally.ignored)
        if agreement is not None:
            shares, result = agreement
            if result is not None:
                self.outcome = QueryResult(result, tuple(shares), self.tally.nonce, self.tally.consistency)
                return
        if self.tally.answered() + len(self.tally.ignored) >= self.n or agreement is not None:
            # Everybody answered, differently; or only the result itself is missing: soon again.
            self.due_us = min(self.due_us, now_us + self._retry_us)

    def on_time(self, outbox: Outbox, now_us: int) -> None:
        if now_us >= self.deadline_us or self._attempts >= self._attempts_max:
            answered = self.tally.answered()
            self.outcome = NoQuorum(
                f"{answered} of {self.n} replicas answered and {self.tally.needed} equal answers are needed; try again"
            )
            return
        self._ask(outbox, now_us)

    def _ask(self, outbox: Outbox, now_us: int) -> None:
        # One more replica is asked for the whole result in each attempt, beginning with another.
        full = {(self._turn + offset) % self.n for offset in range(self._attempts + 1)}
        for replica in range(self.n):
            if replica in full:
                outbox.to(replica, self._with_result)
            elif not self._local:
                outbox.to(replica, self._without_result)
        self._turn += 1
        self._attempts += 1
        self._retry_us *= 2 if self._attempts > 1 else 1
        # Without any answer, wait longer than for one that only differs.
        self.due_us = min(self.deadline_us, now_us + 10 * self._retry_us)


class PendingBlock(Exchange):
    """A block header with q attestations."""

    def __init__(self, wire: Wire, sequence: int, deadline_us: int) -> None:
        super().__init__(wire, deadline_us)
        self.sequence = sequence
        self.ignored: dict[int, str] = {}
        self._message = wire.encode_client(BlockQuery(sequence))
        self._claims: dict[BlockKey, dict[int, bytes]] = {}
        self._headers: dict[BlockKey, BlockHeader] = {}
        self._missing: set[int] = set()

    def start(self, outbox: Outbox, now_us: int) -> None:
        self.on_time(outbox, now_us)

    def on_answer(self, replica: int, answer: BlockAnswer, checker: AttestationChecker) -> None:
        """A replica's header and signature, or its word that there is no such block."""
        if not answer.block_header:
            self._missing.add(replica)
            if len(self._missing) >= self.quorum:
                self.outcome = NotFound(f"replicas {sorted(self._missing)} have no block {self.sequence}")
            return
        header = BlockHeader.unpack(answer.block_header)
        key = BlockKey(self.sequence, header.order_hash, header.hash)
        if any(replica in claims for claims in self._claims.values()) or replica in self.ignored:
            return
        self._missing.discard(replica)
        claims = self._claims.setdefault(key, {})
        claims[replica] = answer.signature
        self._headers[key] = header
        if len(claims) < self.quorum:
            return
        good, forged = checker.genuine(key, claims)
        for liar in forged:
            self.ignored[liar] = "bad_attestation"
            del claims[liar]
        if len(good) >= self.quorum:
            self.outcome = (self._headers[key], tuple((one, claims[one]) for one in good))
        self.too_many_liars(self.ignored)

    def on_time(self, outbox: Outbox, now_us: int) -> None:
        if now_us >= self.deadline_us:
            self.outcome = NoQuorum(f"fewer than {self.quorum} replicas attested block {self.sequence} in time")
            return
        outbox.to_all(self._message)
        self.due_us = min(self.deadline_us, now_us + ASK_AGAIN_US)


class PendingStatus(Exchange):
    """One replica's word about itself."""

    def __init__(self, wire: Wire, replica: int, deadline_us: int) -> None:
        super().__init__(wire, deadline_us)
        self.replica = replica
        self._message = wire.encode_client(StatusQuery())

    def start(self, outbox: Outbox, now_us: int) -> None:
        self.on_time(outbox, now_us)

    def on_answer(self, document: bytes) -> None:
        try:
            value = msgspec.json.decode(document)
        except msgspec.DecodeError:
            value = None
        if isinstance(value, dict):
            self.outcome = value
        else:
            self.outcome = VerificationFailed("bad_status", self.replica, "the status is not a JSON object")

    def on_time(self, outbox: Outbox, now_us: int) -> None:
        if now_us >= self.deadline_us:
            self.outcome = NoQuorum(f"replica {self.replica} did not answer in time")
            return
        outbox.to(self.replica, self._message)
        self.due_us = min(self.deadline_us, now_us + ASK_AGAIN_US)
