"""The asyncio client.

    async with Client.connect("genesis.json", signing_key) as client:
        receipt = await client.submit({"type": "money.transfer", ...})
        answer = await client.query({"query": "auctions"})

A shell around `nodes.client.core`: raw ZeroMQ sockets whose file descriptors are watched by the loop (one
Future a call, none a frame). ZeroMQ's descriptors are edge-triggered: after each turn of sending or
receiving the sockets are looked at again, so no frame waits for the next one. Not thread-safe: one client
belongs to one loop.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from nodes.client.channels import DRAIN_MAX, Channels
from nodes.client.core import ClientCore, SignedQuery, Ticket, library_code_name, operation_bytes
from nodes.client.errors import ClientError, NoQuorum
from nodes.client.events import Cursor, Event, EventReader
from nodes.client.options import ClientOptions
from nodes.client.pending import AttestedBlock
from nodes.client.proof import Misbehaviour
from nodes.client.reading import Consistency, QueryResult
from nodes.config import ClusterConfig
from nodes.core.types import Now
from nodes.keys import CurveKeys
from nodes.receipt import Receipt
from nodes.wire import Signer

CONNECT_POLL_S = 0.05


def now() -> Now:
    """Both clocks."""
    return Now(time.monotonic_ns() // 1_000, time.time_ns() // 1_000)


class Client:
    """A client of one cluster; use `connect` and `async with`."""

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
        self._descriptors: list[int] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._futures: dict[Ticket, asyncio.Future[Any]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0
        self._turn_wanted = False
        self._subscribers: set[asyncio.Queue[tuple[int, bytes]]] = set()

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
        """A client to enter with `async with` (or `await client.open()`).

        `cluster`: a genesis or the path of one. `signing_key`: for `submit` and signed queries.
        `code_name`: names of the application's status numbers. `wait`: on entering, wait until q replicas
        answer, NoQuorum when they do not in time.
        """
        if not isinstance(cluster, ClusterConfig):
            cluster = ClusterConfig.load(cluster)
        return cls(cluster, signing_key, curve_keys, options, code_name, wait)

    async def open(self) -> Client:
        """Connect to every replica."""
        if self._channels is not None:
            raise RuntimeError("this client is open already")
        self._loop = asyncio.get_running_loop()
        self._channels = Channels(self.cluster, self._curve_keys)
        self._descriptors = self._channels.descriptors()
        for replica, descriptor in enumerate(self._descriptors):
            self._loop.add_reader(descriptor, self._on_readable, replica)
        if self._wait:
            try:
                await self.wait_for_quorum(self.core.options.connect_timeout_ms / 1_000)
            except BaseException:
                await self.close()
                raise
        return self

    async def wait_for_quorum(self, timeout_s: float) -> None:
        """Return once q replicas have answered us; NoQuorum after the time-out."""
        timeout_ms = max(1, int(timeout_s * 1_000))
        calls = [
            asyncio.ensure_future(self.status(replica, timeout_ms=timeout_ms)) for replica in range(self.cluster.n)
        ]
        answered = 0
        try:
            for call in asyncio.as_completed(calls):
                try:
                    await call
                    answered += 1
                except ClientError:
                    continue
                if answered >= self.cluster.quorum:
                    return
        finally:
            for one in calls:
                one.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        raise NoQuorum(
            f"{answered} of the {self.cluster.quorum} replicas needed answered in {timeout_s:g} s: check that the "
            "nodes run, that their addresses in the genesis are reachable, and that they admit this client's CURVE key"
        )

    async def close(self) -> None:
        """Disconnect; calls in flight end with CancelledError."""
        if self._channels is None:
            return
        assert self._loop is not None
        for descriptor in self._descriptors:
            self._loop.remove_reader(descriptor)
        if self._timer is not None:
            self._timer.cancel()
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()
        self._channels.close()
        self._channels = None

    async def __aenter__(self) -> Client:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Calls

    async def submit(
        self, operation: bytes | dict[str, Any], *, timeout_ms: int | None = None, raise_floor: bool = False
    ) -> Receipt:
        """Sign, order and prove one operation.

        Errors: Refused (with receipt), OutcomeUnknown, Overloaded, VerificationFailed. `raise_floor`: all
        earlier operations of unknown outcome are cancelled by this one.
        """
        payload = operation_bytes(operation)
        ticket = self.core.submit(payload, now(), timeout_ms=timeout_ms, raise_floor=raise_floor)
        receipt: Receipt = await self._call(ticket)
        return receipt

    async def submit_signed(self, record: bytes, *, timeout_ms: int | None = None, verified: bool = False) -> Receipt:
        """Order a record that is signed already; the same bytes always give the same outcome.

        `verified`: the caller has verified its signature, so it is not done again.
        """
        ticket = self.core.submit_signed(record, now(), timeout_ms=timeout_ms, verified=verified)
        receipt: Receipt = await self._call(ticket)
        return receipt

    async def receipt(self, digest: bytes, *, timeout_ms: int | None = None) -> Receipt:
        """The receipt of an executed operation, refused or not, or of a fired timer; NotFound."""
        receipt: Receipt = await self._call(self.core.find_receipt(digest, now(), timeout_ms=timeout_ms))
        return receipt

    async def query(
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
        answer: QueryResult = await self._call(ticket)
        return answer

    async def block(self, sequence: int, *, timeout_ms: int | None = None) -> AttestedBlock:
        """A block header and q attestations (replica, signature) of it; NotFound."""
        found: AttestedBlock = await self._call(self.core.find_block(sequence, now(), timeout_ms=timeout_ms))
        return found

    async def status(self, replica: int, *, timeout_ms: int | None = None) -> dict[str, Any]:
        """A replica's own, unsigned word about itself."""
        document: dict[str, Any] = await self._call(self.core.status(replica, now(), timeout_ms=timeout_ms))
        return document

    async def attested(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """(sequence, block hash) of blocks as q replicas attest them; numbers rise, some may be skipped."""
        queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(maxsize=1_024)
        self._subscribers.add(queue)
        self.core.subscribe(now())
        self._want_turn()
        try:
            while True:
                yield await queue.get()
        finally:
            self._subscribers.discard(queue)
            if not self._subscribers:
                self.core.unsubscribe()

    async def events(self, *, after: Cursor | None = None, **filters: Any) -> AsyncGenerator[Event, None]:
        """Events of the application in order, without gap or duplicate, for ever.

        `after`: (sequence, index, effect) of the last one seen; None: from the beginning. `filters` are
        fields of the application's query `events`, e.g. auction="3f2a...".
        """
        reader = EventReader(filters, after)
        blocks = self.attested()
        newest = asyncio.ensure_future(anext(blocks))
        try:
            while True:
                more = True
                while more:
                    try:
                        answer = await self.query(reader.query(), timeout_ms=reader.timeout_ms)
                    except NoQuorum:
                        reader.disagreed()
                        break
                    found, more = reader.take(answer.result)
                    for event in found:
                        yield event
                await asyncio.wait([newest], timeout=reader.poll_s)
                if newest.done():
                    newest = asyncio.ensure_future(anext(blocks))
        finally:
            newest.cancel()
            await asyncio.gather(newest, return_exceptions=True)
            await blocks.aclose()

    @property
    def misbehaviour(self) -> Sequence[Misbehaviour]:
        """Wrong answers of replicas, oldest first."""
        return tuple(self.core.misbehaviour)

    # The loop

    async def _call(self, ticket: Ticket) -> Any:
        if self._loop is None or self._channels is None:
            raise RuntimeError("this client is not open: use `async with Client.connect(...)`")
        future: asyncio.Future[Any] = self._loop.create_future()
        self._futures[ticket] = future
        self._want_turn()
        try:
            return await future
        finally:
            if self._futures.pop(ticket, None) is not None:
                self.core.cancel(ticket)

    def _want_turn(self) -> None:
        """Send what this tick of the loop gathers in one frame a replica."""
        if not self._turn_wanted and self._loop is not None:
            self._turn_wanted = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_wanted = False
        if self._channels is None:
            return
        again = False
        for replica in range(self.cluster.n):
            again |= self._receive(replica)
            for frame in self.core.frames(replica):
                self._channels.send(replica, frame)
            again |= self._receive(replica)
        self._deliver()
        self._set_timer()
        if again:
            self._want_turn()

    def _on_readable(self, replica: int) -> None:
        # The descriptor stays readable until EVENTS is read, which `receive` does.
        if self._channels is not None:
            self._receive(replica)
            self._want_turn()

    def _receive(self, replica: int) -> bool:
        """Feed the core; True when there may be more."""
        assert self._channels is not None
        frames = self._channels.receive(replica)
        if frames:
            moment = now()
            for frame in frames:
                self.core.receive(replica, frame, moment)
            self._want_turn()
        return len(frames) >= DRAIN_MAX

    def _deliver(self) -> None:
        for ticket, outcome in self.core.completed():
            future = self._futures.pop(ticket, None)
            if future is None or future.done():
                continue
            if isinstance(outcome, ClientError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        for block in self.core.attested():
            for queue in self._subscribers:
                if queue.full():
                    queue.get_nowait()
                queue.put_nowait(block)

    def _set_timer(self) -> None:
        due_us = self.core.due_us()
        if self._timer is not None:
            if due_us == self._timer_us:
                return
            self._timer.cancel()
            self._timer = None
        if due_us is not None and self._loop is not None:
            self._timer_us = due_us
            delay_s = max(0.0, (due_us - now().monotonic_us) / 1e6)
            self._timer = self._loop.call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self.core.tick(now())
        self._want_turn()
