"""The blocking client: the names of `nodes.client.aio` without `await`.

    with Client.connect("genesis.json", signing_key) as client:
        receipt = client.submit({"type": "money.transfer", ...})

Its own poll loop runs inside each call, in the caller's thread. Not thread-safe. `submit_many` keeps many
operations in flight.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from nodes.client.aio import now
from nodes.client.channels import DRAIN_MAX, Channels
from nodes.client.core import ClientCore, SignedQuery, Ticket, library_code_name, operation_bytes
from nodes.client.errors import ClientError, NoQuorum
from nodes.client.events import Cursor, Event, EventReader
from nodes.client.options import ClientOptions
from nodes.client.pending import AttestedBlock
from nodes.client.proof import Misbehaviour
from nodes.client.reading import Consistency, QueryResult
from nodes.config import ClusterConfig
from nodes.keys import CurveKeys
from nodes.receipt import Receipt
from nodes.wire import Signer

POLL_MAX_MS = 1_000


class Client:
    """A client of one cluster; use `connect` and `with`."""

    def __init__(
        self,
        cluster: ClusterConfig,
        signing_key: Signer | None,
        curve_keys: CurveKeys | None,
        options: ClientOptions | None,
        code_name: Callable[[int], str],
        wait: bool,
    ) -> None:
        self.cluster = cluster
        self.core = ClientCore(cluster, signing_key, options, code_name)
        self._curve_keys = curve_keys
        self._wait = wait
        self._channels: Channels | None = None
        self._poller = zmq.Poller()
        self._outcomes: dict[Ticket, Any] = {}
        self._awaited: set[Ticket] = set()

    @classmethod
    def connect(
        cls,
        cluster: ClusterConfig | Path | str,
        signing_key: Signer | None = None,
        *,
        curve_keys: CurveKeys | None = None,
        options: ClientOptions | None = None,
        code_name: Callable[[int], str] = library_code_name,
        wait: bool = True,
    ) -> Client:
        """As `nodes.client.aio.Client.connect`; enter with `with`, or call `open`."""
        if not isinstance(cluster, ClusterConfig):
            cluster = ClusterConfig.load(cluster)
        return cls(cluster, signing_key, curve_keys, options, code_name, wait)

    def open(self) -> Client:
        """Connect to every replica."""
        if self._channels is not None:
            raise RuntimeError("this client is open already")
        self._channels = Channels(self.cluster, self._curve_keys)
        for socket in self._channels.sockets:
            self._poller.register(socket, zmq.POLLIN)
        if self._wait:
            try:
                self.wait_for_quorum(self.core.options.connect_timeout_ms / 1_000)
            except BaseException:
                self.close()
                raise
        return self

    def wait_for_quorum(self, timeout_s: float) -> None:
        """Return once q replicas have answered us; NoQuorum after the time-out."""
        timeout_ms = max(1, int(timeout_s * 1_000))
        tickets = [self.core.status(replica, now(), timeout_ms=timeout_ms) for replica in range(self.cluster.n)]
        outcomes: list[Any] = []
        self._awaited.update(tickets)
        try:
            while len(outcomes) < len(tickets):
                self._step()
                outcomes += [self._outcomes.pop(ticket) for ticket in tickets if ticket in self._outcomes]
                if sum(isinstance(outcome, dict) for outcome in outcomes) >= self.cluster.quorum:
                    return
        finally:
            for ticket in tickets:
                self._forget(ticket)
        raise NoQuorum(
            f"fewer than {self.cluster.quorum} replicas answered in {timeout_s:g} s: check that the nodes run, that "
            "their addresses in the genesis are reachable, and that they admit this client's CURVE key"
        )

    def close(self) -> None:
        """Disconnect."""
        if self._channels is None:
            return
        for socket in self._channels.sockets:
            self._poller.unregister(socket)
        self._channels.close()
        self._channels = None

    def __enter__(self) -> Client:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Calls

    def submit(
        self, operation: bytes | dict[str, Any], *, timeout_ms: int | None = None, raise_floor: bool = False
    ) -> Receipt:
        """Sign, order and prove one operation. Errors as in `nodes.client.aio`."""
        payload = operation_bytes(operation)
        ticket = self.core.submit(payload, now(), timeout_ms=timeout_ms, raise_floor=raise_floor)
        receipt: Receipt = self._call(ticket)
        return receipt

    def submit_many(
        self, operations: Sequence[bytes | dict[str, Any]], *, timeout_ms: int | None = None
    ) -> list[Receipt | ClientError]:
        """Many at a time, as many in flight as the options allow; outcomes in the order given."""
        tickets = [self.core.submit(operation_bytes(one), now(), timeout_ms=timeout_ms) for one in operations]
        self._awaited.update(tickets)
        try:
            while any(ticket not in self._outcomes for ticket in tickets):
                self._step()
            return [self._outcomes[ticket] for ticket in tickets]
        finally:
            for ticket in tickets:
                self._forget(ticket)

    def submit_signed(self, record: bytes, *, timeout_ms: int | None = None) -> Receipt:
        """Order a record that is signed already; the same bytes always give the same outcome."""
        receipt: Receipt = self._call(self.core.submit_signed(record, now(), timeout_ms=timeout_ms))
        return receipt

    def receipt(self, digest: bytes, *, timeout_ms: int | None = None) -> Receipt:
        """The receipt of an executed operation, refused or not, or of a fired timer; NotFound."""
        receipt: Receipt = self._call(self.core.find_receipt(digest, now(), timeout_ms=timeout_ms))
        return receipt

    def query(
        self,
        query: bytes | dict[str, Any],
        signed: bool | SignedQuery = False,
        *,
        nonce: bytes | None = None,
        consistency: Consistency = Consistency.QUORUM,
        replica: int | None = None,
        timeout_ms: int | None = None,
    ) -> QueryResult:
        """Ask a question; NoQuorum when too few replicas give the same answer in time."""
        ticket = self.core.query(
            operation_bytes(query),
            nonce or secrets.token_bytes(16),
            now(),
            consistency=Consistency(consistency),
            signature=signed,
            replica=replica,
            timeout_ms=timeout_ms,
        )
        answer: QueryResult = self._call(ticket)
        return answer

    def block(self, sequence: int, *, timeout_ms: int | None = None) -> AttestedBlock:
        """A block header and q attestations (replica, signature) of it; NotFound."""
        found: AttestedBlock = self._call(self.core.find_block(sequence, now(), timeout_ms=timeout_ms))
        return found

    def status(self, replica: int, *, timeout_ms: int | None = None) -> dict[str, Any]:
        """A replica's own, unsigned word about itself."""
        document: dict[str, Any] = self._call(self.core.status(replica, now(), timeout_ms=timeout_ms))
        return document

    def attested(self) -> Iterator[tuple[int, bytes]]:
        """(sequence, block hash) of blocks as q replicas attest them; numbers rise, some may be skipped."""
        self.core.subscribe(now())
        try:
            while True:
                yield from self.core.attested()
                self._step()
        finally:
            self.core.unsubscribe()

    def events(self, *, after: Cursor | None = None, **filters: Any) -> Iterator[Event]:
        """Events of the application in order, without gap or duplicate, for ever."""
        reader = EventReader(filters, after)
        self.core.subscribe(now())
        try:
            while True:
                more = True
                while more:
                    try:
                        answer = self.query(reader.query(), timeout_ms=reader.timeout_ms)
                    except NoQuorum:
                        reader.disagreed()
                        break
                    found, more = reader.take(answer.result)
                    yield from found
                until_us = now().monotonic_us + int(reader.poll_s * 1e6)
                while not self.core.attested() and now().monotonic_us < until_us:
                    self._step()
        finally:
            self.core.unsubscribe()

    @property
    def misbehaviour(self) -> Sequence[Misbehaviour]:
        """Wrong answers of replicas, oldest first."""
        return tuple(self.core.misbehaviour)

    # The loop

    def _call(self, ticket: Ticket) -> Any:
        self._awaited.add(ticket)
        try:
            while ticket not in self._outcomes:
                self._step()
            outcome = self._outcomes[ticket]
        finally:
            self._forget(ticket)
        if isinstance(outcome, ClientError):
            raise outcome
        return outcome

    def _forget(self, ticket: Ticket) -> None:
        self._awaited.discard(ticket)
        if self._outcomes.pop(ticket, None) is None:
            self.core.cancel(ticket)

    def _step(self) -> None:
        """Send, wait for a frame or the next time, receive, act."""
        if self._channels is None:
            raise RuntimeError("this client is not open: use `with Client.connect(...)`")
        self._exchange(self._channels)
        if not self._deliver():
            due_us = self.core.due_us()
            wait_ms = POLL_MAX_MS
            if due_us is not None:
                wait_ms = min(wait_ms, max(0, (due_us - now().monotonic_us + 999) // 1_000))
            self._poller.poll(wait_ms)
            self._exchange(self._channels)
            self.core.tick(now())
            self._exchange(self._channels)
            self._deliver()

    def _exchange(self, channels: Channels) -> None:
        for replica in range(self.cluster.n):
            for frame in self.core.frames(replica):
                channels.send(replica, frame)
            more = True
            while more:
                frames = channels.receive(replica)
                for frame in frames:
                    self.core.receive(replica, frame, now())
                more = len(frames) >= DRAIN_MAX

    def _deliver(self) -> bool:
        done = self.core.completed()
        self._outcomes.update((ticket, outcome) for ticket, outcome in done if ticket in self._awaited)
        return bool(done)
