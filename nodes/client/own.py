"""Operations of the client's own key: waiting for a place in the session, and in flight at one.

Always: the order of submission is the order of sequences; a session that was refused as stale (or that
another process turns out to use) is left for a new one; an operation refused for that reason is signed once
more in the new session, which the proof of the refusal makes safe. Deliberately elsewhere: the exchange
with the replicas (`nodes.client.pending`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from nodes.client.errors import InvalidRequest, Overloaded, Refused
from nodes.client.options import ClientOptions
from nodes.client.session import Place, Session
from nodes.codes import Status
from nodes.config import ClusterConfig
from nodes.core.types import Now
from nodes.receipt import Receipt
from nodes.wire import Signer, build_request

_SESSION_LOST = (Status.STALE_SESSION, Status.STALE_SEQUENCE, Status.SEQUENCE_REUSED, Status.WINDOW_EXCEEDED)


@dataclass(slots=True, eq=False)
class OwnOperation:
    """One of them, from its submission to its outcome."""

    ticket: int
    operation: bytes
    deadline_us: int
    raise_floor: bool
    place: Place | None = None
    renewed: bool = False


class OwnOperations:
    """The queue, the session, and who is in flight."""

    def __init__(self, cluster: ClusterConfig, key: Signer | None, options: ClientOptions) -> None:
        self._cluster = cluster
        self._key = key
        self._options = options
        self._queue: deque[OwnOperation] = deque()
        self._known: dict[int, OwnOperation] = {}
        self._session: Session | None = None
        self._last_session = 0

    @property
    def key(self) -> Signer:
        """InvalidRequest when the client has none."""
        if self._key is None:
            raise InvalidRequest("no_key", "this client has no signing key: pass one to connect, or sign elsewhere")
        return self._key

    def check(self, operation: bytes) -> None:
        """InvalidRequest or Overloaded when this cannot be taken."""
        assert self.key is not None
        bytes_max = self._cluster.parameters.operation_bytes_max
        if len(operation) > bytes_max:
            raise InvalidRequest("too_large", f"an operation is at most {bytes_max} bytes, not {len(operation)}")
        if len(self._known) >= self._options.queue_max:
            raise Overloaded("overloaded", 1.0, f"{len(self._known)} operations of this client wait already")

    def add(self, own: OwnOperation) -> None:
        """Queue it. `check` has passed."""
        self._known[own.ticket] = own
        self._queue.append(own)

    def next_record(self, now: Now) -> tuple[OwnOperation, bytes] | None:
        """The next operation that may go out, and its signed record."""
        if not self._queue:
            return None
        if self._session is None:
            self._last_session = max(now.wall_us // 1_000, self._last_session + 1)
            self._session = Session(
                self._last_session,
                window=self._cluster.parameters.session_window,
                outstanding_max=self._options.outstanding_max,
            )
        own = self._queue[0]
        if not self._session.has_room() or (own.raise_floor and self._session.outstanding):
            return None
        self._queue.popleft()
        own.place = self._session.take(raise_floor=own.raise_floor)
        record = build_request(
            self.key,
            self._cluster.cluster_id,
            session=own.place.session,
            sequence=own.place.sequence,
            floor=own.place.floor,
            valid_until_us=now.wall_us + self._options.validity_ms * 1_000,
            operation=own.operation,
        )
        return own, record

    def finish(self, ticket: int, outcome: object, now: Now) -> bool:
        """Take note of an outcome. True: it is not the caller's, the operation goes out once more."""
        own = self._known.get(ticket)
        if own is None:
            return False
        refused = outcome if isinstance(outcome, Refused) and outcome.receipt is not None else None
        place = own.place
        self._leave(own, known=refused is not None or isinstance(outcome, Receipt))
        if refused is not None and refused.status in _SESSION_LOST and place is not None:
            if self._session is not None and place.session == self._session.id:
                self._session = None
            if refused.status == Status.STALE_SESSION and not own.renewed and own.deadline_us > now.monotonic_us:
                own.place, own.renewed = None, True
                self._queue.appendleft(own)
                return True
        del self._known[ticket]
        return False

    def cancel(self, ticket: int) -> None:
        """Nobody waits for it any more."""
        own = self._known.pop(ticket, None)
        if own is not None:
            self._leave(own, known=False)

    def expired(self, now_us: int) -> list[int]:
        """Tickets of operations whose time passed while they waited for a place: they were never sent."""
        tickets = []
        while self._queue and self._queue[0].deadline_us <= now_us:
            own = self._queue.popleft()
            del self._known[own.ticket]
            tickets.append(own.ticket)
        return tickets

    def due_us(self) -> int | None:
        """When the one that waits longest expires."""
        return self._queue[0].deadline_us if self._queue else None

    def _leave(self, own: OwnOperation, *, known: bool) -> None:
        if own.place is None:
            if own in self._queue:
                self._queue.remove(own)
        elif self._session is not None and own.place.session == self._session.id:
            if known:
                self._session.finish(own.place.sequence)
            else:
                self._session.lose(own.place.sequence)
