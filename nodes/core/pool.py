"""Requests that wait to be ordered (docs/protocol.md sections 4 and 5).

NEW -> CHECKED (`admit` said yes, the caller verifies) -> PENDING (`submit`) -> PROPOSED -> ordered
(a tombstone for 2 L blocks). Always: bounded in requests and bytes; an operation is in it once,
whatever its signature bytes; whoever holds most loses first when it is full; nothing that was
accepted disappears without the caller being told. Deliberately elsewhere: rate limits by client key
and the signatures themselves (`nodes.replica`), exactly-once (the executor's sessions).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from nodes.core.options import CoreOptions
from nodes.core.types import Now, ReplicaId, Request, SequenceNumber

CLOCK_SLACK_US = 1_000_000
"""Tolerance of `valid_until` at admission, for clients whose clock is a little off."""


class Refusal(IntEnum):
    EXPIRED = 1
    TOO_FAR_AHEAD = 2
    """valid_until is beyond now + MAX_VALIDITY."""
    CLIENT_QUOTA = 3
    POOL_FULL = 4


@dataclass(frozen=True, slots=True)
class Refused:
    request: Request
    reason: Refusal


@dataclass(frozen=True, slots=True)
class Admission:
    accepted: tuple[Request, ...]
    """New: verify their signatures and `submit` those that hold."""
    known: tuple[Request, ...]
    """Waiting, proposed or recently ordered; their answer comes, or can be asked for."""
    refused: tuple[Refused, ...]


class State(IntEnum):
    PENDING = 0
    PROPOSED = 1
    GONE = 2


@dataclass(slots=True, eq=False)
class Entry:
    request: Request
    arrived_us: int
    relayed_us: int
    """Monotonic time of the last relay, or of the arrival."""
    relay: ReplicaId | None = None
    """The replica that relayed it. None: a client sent it here, so relaying it is up to this replica."""
    state: State = State.PENDING


@dataclass(slots=True)
class Client:
    """What one client key holds. `ready` is ordered by (session, sequence)."""

    ready: list[Entry] = field(default_factory=list)
    proposed: int = 0


class Pool:
    def __init__(self, options: CoreOptions) -> None:
        self._options = options
        self._entries: dict[bytes, Entry] = {}
        """By leaf: these very bytes, signature verified."""
        self._leaves: dict[bytes, bytes] = {}
        """Digest to leaf, for the entries."""
        self._clients: dict[bytes, Client] = {}
        self._holders: list[dict[bytes, None]] = [{}]
        """Client keys by number of ready requests: the last non-empty one holds the largest holders."""
        self._rotation: deque[bytes] = deque()
        """Client keys, each once: whose turn it is. Keys without ready requests leave when their turn comes."""
        self._in_rotation: dict[bytes, None] = {}
        self._arrivals: deque[Entry] = deque()
        self._relayed = [0] * options.n
        self._bytes = 0
        self.ready_count = 0
        self.ready_bytes = 0
        self._proposals: dict[SequenceNumber, tuple[Request, ...]] = {}
        self._proposed: dict[bytes, SequenceNumber] = {}
        self._tombstones: dict[bytes, SequenceNumber] = {}
        self._ordered: deque[tuple[SequenceNumber, tuple[bytes, ...]]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def is_verified(self, leaf: bytes) -> bool:
        return leaf in self._entries

    # Admission -----------------------------------------------------------------------------------

    def admit(self, requests: Iterable[Request], now: Now, *, relayed: bool = False) -> Admission:
        """Sort out what is worth a signature check. Changes nothing, but that a request which waits here for
        another replica's sake waits for its client's from then on, within the client's quota.

        A relayed request (already checked by another replica) is held to twice the client's quota, so
        that a client cannot make this primary drop what its own followers wait for.
        """
        accepted: list[Request] = []
        known: list[Request] = []
        refused: list[Refused] = []
        seen: dict[bytes, None] = {}
        added: dict[bytes, int] = {}
        for request in requests:
            if self._is_known(request.digest) or request.leaf in seen:
                known.append(request)
                if not relayed:
                    self._take_over(request.digest)
                continue
            reason = self._refusal(request, now, added.get(request.client, 0), relayed)
            if reason is not None:
                refused.append(Refused(request, reason))
                continue
            seen[request.leaf] = None
            added[request.client] = added.get(request.client, 0) + 1
            accepted.append(request)
        return Admission(tuple(accepted), tuple(known), tuple(refused))

    def _is_known(self, digest: bytes) -> bool:
        return digest in self._tombstones or digest in self._leaves or digest in self._proposed

    def _refusal(self, request: Request, now: Now, added: int, relayed: bool) -> Refusal | None:
        if request.valid_until_us < now.wall_us - CLOCK_SLACK_US:
            return Refusal.EXPIRED
        if request.valid_until_us > now.wall_us + self._options.validity_max_us + CLOCK_SLACK_US:
            return Refusal.TOO_FAR_AHEAD
        client = self._clients.get(request.client)
        held = (len(client.ready) + client.proposed if client is not None else 0) + added
        if held >= self._options.client_requests_max * (2 if relayed else 1):
            return Refusal.CLIENT_QUOTA
        if self._is_full(len(request.record)):
            ready = len(client.ready) if client is not None else 0
            if ready + added + 1 >= self._largest_holding():
                return Refusal.POOL_FULL
        return None

    def _take_over(self, digest: bytes) -> None:
        """Its client sent it here too: the share of the replica that relayed it first is free again."""
        leaf = self._leaves.get(digest)
        entry = self._entries.get(leaf) if leaf is not None else None
        if entry is None or entry.relay is None:
            return
        client = self._clients[entry.request.client]
        if len(client.ready) + client.proposed <= self._options.client_requests_max:
            if entry.state is State.PENDING:
                self._relayed[entry.relay] -= 1
            entry.relay = None

    def relayed_by(self, relay: ReplicaId) -> int:
        """Requests that wait here for a proposal because `relay` forwarded them."""
        return self._relayed[relay]

    def _is_full(self, size: int) -> bool:
        too_many = len(self._entries) >= self._options.pool_requests_max
        return too_many or self._bytes + size > self._options.pool_bytes_max

    def submit(self, requests: Iterable[Request], now: Now, relay: ReplicaId | None = None) -> tuple[Request, ...]:
        """Add requests whose signatures hold. Returns those that are not, or no longer, in the pool."""
        dropped: list[Request] = []
        for request in requests:
            if self._is_known(request.digest):
                continue
            client = self._clients.setdefault(request.client, Client())
            while self._is_full(len(request.record)):
                if len(client.ready) + 1 >= self._largest_holding():
                    break
                dropped.append(self._evict())
            if self._is_full(len(request.record)):
                dropped.append(request)
                self._forget_idle(request.client, client)
                continue
            entry = Entry(request, now.monotonic_us, now.monotonic_us, relay)
            self._entries[request.leaf] = entry
            self._leaves[request.digest] = request.leaf
            self._bytes += len(request.record)
            self._make_ready(entry)
        return tuple(dropped)

    def _largest_holding(self) -> int:
        while len(self._holders) > 1 and not self._holders[-1]:
            self._holders.pop()
        return len(self._holders) - 1

    def _evict(self) -> Request:
        """Longest queue drops its newest."""
        largest = next(iter(self._holders[self._largest_holding()]))
        entry = self._clients[largest].ready[-1]
        self._remove(entry)
        return entry.request

    # Entries -------------------------------------------------------------------------------------

    def _make_ready(self, entry: Entry) -> None:
        request = entry.request
        client = self._clients.setdefault(request.client, Client())
        position = len(client.ready)
        while position and _turn(client.ready[position - 1].request) > _turn(request):
            position -= 1
        client.ready.insert(position, entry)
        entry.state = State.PENDING
        if request.client not in self._in_rotation:
            self._in_rotation[request.client] = None
            self._rotation.append(request.client)
        self._count(request.client, len(client.ready) - 1, len(client.ready))
        if entry.relay is not None:
            self._relayed[entry.relay] += 1
        self.ready_count += 1
        self.ready_bytes += len(request.record)
        self._arrivals.append(entry)
        if len(self._arrivals) > 2 * len(self._entries) + 1024:
            self._arrivals = deque(e for e in self._arrivals if e.state is State.PENDING)

    def _take_ready(self, entry: Entry) -> None:
        request = entry.request
        client = self._clients[request.client]
        client.ready.remove(entry)
        self._count(request.client, len(client.ready) + 1, len(client.ready))
        if entry.relay is not None:
            self._relayed[entry.relay] -= 1
        self.ready_count -= 1
        self.ready_bytes -= len(request.record)

    def _count(self, client: bytes, before: int, after: int) -> None:
        self._holders[before].pop(client, None)
        while len(self._holders) <= after:
            self._holders.append({})
        if after:
            self._holders[after][client] = None

    def _remove(self, entry: Entry) -> None:
        request = entry.request
        client = self._clients[request.client]
        if entry.state is State.PENDING:
            self._take_ready(entry)
        else:
            client.proposed -= 1
        entry.state = State.GONE
        del self._entries[request.leaf]
        del self._leaves[request.digest]
        self._bytes -= len(request.record)
        self._forget_idle(request.client, client)

    def _forget_idle(self, key: bytes, client: Client) -> None:
        if not client.ready and not client.proposed:
            self._clients.pop(key, None)

    # Proposing -----------------------------------------------------------------------------------

    def oldest_ready_us(self) -> int | None:
        """Monotonic arrival time of the request that has waited longest for a proposal."""
        while self._arrivals and self._arrivals[0].state is not State.PENDING:
            self._arrivals.popleft()
        return self._arrivals[0].arrived_us if self._arrivals else None

    def pop_fair(self, timestamp_us: int, count_max: int, bytes_max: int) -> tuple[Request, ...]:
        """Requests for one batch: client keys take turns, each in the order of (session, sequence).

        They stay in the pool and are still ready until `proposed` is called for them.
        """
        taken: list[Request] = []
        expired: list[Entry] = []
        waiting: list[bytes] = []
        cursors: dict[bytes, int] = {}
        size = 0
        while self._rotation and len(taken) < count_max:
            key = self._rotation.popleft()
            client = self._clients.get(key)
            if client is None or not client.ready:
                del self._in_rotation[key]
                continue
            cursor = cursors.get(key, 0)
            entry = client.ready[cursor] if cursor < len(client.ready) else None
            if entry is None or not self._fits(entry.request, timestamp_us, bytes_max - size):
                waiting.append(key)
                continue
            if entry.request.valid_until_us < timestamp_us:
                expired.append(entry)
            else:
                taken.append(entry.request)
                size += len(entry.request.record)
            cursors[key] = cursor + 1
            self._rotation.append(key)
        self._rotation.extend(waiting)
        for entry in expired:
            self._remove(entry)
        return tuple(taken)

    def _fits(self, request: Request, timestamp_us: int, room: int) -> bool:
        if request.valid_until_us < timestamp_us:
            return True
        return request.valid_until_us <= timestamp_us + self._options.validity_max_us and len(request.record) <= room

    def proposed(self, sequence: SequenceNumber, requests: tuple[Request, ...]) -> None:
        """A proposal names them: they wait for its decision, not for a proposal."""
        self._proposals[sequence] = requests
        for request in requests:
            self._proposed[request.digest] = sequence
            leaf = self._leaves.get(request.digest)
            entry = self._entries.get(leaf) if leaf is not None else None
            if entry is not None and entry.state is State.PENDING:
                self._take_ready(entry)
                entry.state = State.PROPOSED
                self._clients[entry.request.client].proposed += 1

    def ordered(self, sequence: SequenceNumber, requests: tuple[Request, ...]) -> None:
        """They are decided: gone from here, remembered as tombstones for 2 L blocks."""
        for request in requests:
            self._proposed.pop(request.digest, None)
            self._tombstones[request.digest] = sequence
            leaf = self._leaves.get(request.digest)
            if leaf is not None:
                self._remove(self._entries[leaf])
        self._return_others(sequence)
        self._ordered.append((sequence, tuple(request.digest for request in requests)))
        while self._ordered and self._ordered[0][0] <= sequence - 2 * self._options.window:
            old, digests = self._ordered.popleft()
            for digest in digests:
                if self._tombstones.get(digest) == old:
                    del self._tombstones[digest]

    def _return_others(self, sequence: SequenceNumber) -> None:
        """Requests of a proposal that lost its sequence to another wait for the next one."""
        for request in self._proposals.pop(sequence, ()):
            if self._proposed.get(request.digest) != sequence:
                continue
            del self._proposed[request.digest]
            leaf = self._leaves.get(request.digest)
            entry = self._entries.get(leaf) if leaf is not None else None
            if entry is not None and entry.state is State.PROPOSED:
                self._clients[request.client].proposed -= 1
                self._make_ready(entry)

    # Time ----------------------------------------------------------------------------------------

    def expire(self, now: Now) -> None:
        """Drop what can no longer be ordered; its client sees from block time that it is over."""
        limit = now.wall_us - CLOCK_SLACK_US
        gone = [e for e in self._entries.values() if e.state is State.PENDING and e.request.valid_until_us < limit]
        for entry in gone:
            self._remove(entry)

    def overdue(self, now: Now, count_max: int) -> tuple[Request, ...]:
        """Pending requests that no proposal named for T_FWD: to be relayed, and not again for as long.

        What another replica relayed is left to it: every replica's share elsewhere is for its own clients.
        """
        due: list[Request] = []
        oldest = self.oldest_ready_us()
        if oldest is None or now.monotonic_us - oldest < self._options.forward_after_us:
            return ()
        for entry in self._arrivals:
            if len(due) == count_max or now.monotonic_us - entry.arrived_us < self._options.forward_after_us:
                break
            waited = now.monotonic_us - entry.relayed_us
            if entry.state is State.PENDING and entry.relay is None and waited >= self._options.forward_after_us:
                entry.relayed_us = now.monotonic_us
                due.append(entry.request)
        return tuple(due)


def _turn(request: Request) -> tuple[int, int]:
    return request.session, request.sequence
