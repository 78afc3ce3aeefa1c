"""What a client may ask for before any signature is verified: token buckets and a fair queue.

Always: bounded in requests and bytes, whatever clients send. A source (a client's or gateway's CURVE
key) that floods fills its own queue and empties its own bucket: when there is no room, whoever holds
most loses, and a source within its share of the room never does. Deliberately elsewhere: what is
known, expired or over a client's quota (`nodes.core.pool`), and the verification.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from nodes.config import Admission
from nodes.core.types import Request

KEYS_MAX = 10_000
"""Buckets kept, of client keys and of sources each; the one that was idle longest goes first."""
SOURCE_REQUESTS_MAX = 2048
"""Waiting for verification, of one source."""
GATEWAY_REQUESTS_MAX = 16_384
REQUESTS_MAX = 20_000
BYTES_MAX = 64 * 1024 * 1024
"""Waiting for verification, of all."""
PLACE_BYTES = BYTES_MAX // REQUESTS_MAX
"""The room is `REQUESTS_MAX` places of this size. A request takes as many as it fills, at least one, so
that one number bounds requests and bytes, and is what a source has its share of."""
GATEWAY_WEIGHT = 8
"""A gateway speaks for many clients: its share of room and turns, in those of another source."""
VISITS_PER_REQUEST = 20
"""Places of the largest request: the turns that a source saves up for it."""
_MICRO = 1_000_000


class TokenBucket:
    """`rate_per_s` tokens a second, at most `burst` saved."""

    __slots__ = ("_burst", "_last_us", "_rate", "_tokens")

    def __init__(self, rate_per_s: int, burst: int, now_us: int) -> None:
        self._rate = rate_per_s
        self._burst = burst * _MICRO
        self._tokens = self._burst
        self._last_us = now_us

    def take(self, now_us: int, count: int = 1) -> bool:
        """Whether `count` tokens were there, and are now gone."""
        elapsed_us = now_us - self._last_us
        if elapsed_us > 0:
            self._tokens = min(self._burst, self._tokens + elapsed_us * self._rate)
            self._last_us = now_us
        if self._tokens < count * _MICRO:
            return False
        self._tokens -= count * _MICRO
        return True

    def spend(self, count: int) -> None:
        """Take tokens that were used already, into debt if need be."""
        self._tokens -= count * _MICRO

    def wait_ms(self) -> int:
        """How long until the next token, at the last look."""
        missing = _MICRO - self._tokens
        return max(1, -(-missing // self._rate) // 1000) if missing > 0 else 0


class SharedBucket:
    """One bucket, of which each source uses its share.

    A source may take a token while it holds fewer than are left, so a lone one takes half of the burst and
    leaves something for whoever comes next (the dynamic thresholds of Choudhury and Hahne, 1998). Time
    gives tokens back to those who hold any, one each in turn. No more than `burst` sources are remembered.
    """

    def __init__(self, rate_per_s: int, burst: int, now_us: int) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._last_us = now_us
        self._saved = 0
        self._held: dict[str, int] = {}
        """Tokens by source; the one whose turn it is to get one back comes first."""
        self._held_total = 0

    def __len__(self) -> int:
        return len(self._held)

    def take(self, source: str, now_us: int) -> bool:
        """Whether there was a token for `source`, which now holds it."""
        self._give_back(now_us)
        held = self._held.get(source, 0)
        if held >= self._burst - self._held_total:
            return False
        self._held[source] = held + 1
        self._held_total += 1
        return True

    def _give_back(self, now_us: int) -> None:
        if now_us > self._last_us:
            self._saved += (now_us - self._last_us) * self._rate
            self._last_us = now_us
        while self._held and self._saved >= _MICRO:
            source = next(iter(self._held))
            held = self._held.pop(source)
            if held > 1:
                self._held[source] = held - 1
            self._held_total -= 1
            self._saved -= _MICRO
        if not self._held:
            self._saved = 0

    def wait_ms(self, source: str) -> int:
        """About how long until `source` may take one, at the last look."""
        missing = self._held.get(source, 0) + 1 - (self._burst - self._held_total)
        return max(1, missing * 1000 // self._rate) if missing > 0 else 0


class _Buckets:
    """A bounded set of buckets by key, least recently used out first."""

    def __init__(self, rate_per_s: int, burst: int) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._buckets: dict[bytes, TokenBucket] = {}

    def of(self, key: bytes, now_us: int) -> TokenBucket:
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = TokenBucket(self._rate, self._burst, now_us)
            if len(self._buckets) >= KEYS_MAX:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[key] = bucket
        return bucket

    def __contains__(self, key: bytes) -> bool:
        return key in self._buckets

    def __len__(self) -> int:
        return len(self._buckets)


class RateLimits:
    """Who may still ask. Sources are CURVE keys, hex text as the transport gives it."""

    def __init__(self, limits: Admission, gateways: Collection[bytes]) -> None:
        self._gateways = frozenset(key.hex() for key in gateways)
        self._clients = _Buckets(limits.rate_per_s, limits.burst)
        self._sources = _Buckets(limits.rate_per_s, limits.burst)
        self._gateway_sources = _Buckets(limits.gateway_rate_per_s, limits.gateway_burst)
        self._unknown = SharedBucket(limits.unknown_rate_per_s, limits.unknown_burst, 0)

    def is_gateway(self, source: str) -> bool:
        return source in self._gateways

    def question(self, source: str, now_us: int) -> int:
        """0: the source may ask one question now; else milliseconds to wait."""
        buckets = self._gateway_sources if source in self._gateways else self._sources
        bucket = buckets.of(source.encode(), now_us)
        return 0 if bucket.take(now_us) else bucket.wait_ms()

    def verification(self, source: str, client: bytes, now_us: int) -> int:
        """0: one signature of `client` may be verified now; else milliseconds to wait.

        Keys whose signature was good before have a bucket each. All others share one, of which each source
        has its part, except behind a known gateway, which answers for what it lets through with its own.
        """
        if client in self._clients:
            bucket = self._clients.of(client, now_us)
        elif source in self._gateways:
            bucket = self._gateway_sources.of(source.encode(), now_us)
        else:
            return 0 if self._unknown.take(source, now_us) else self._unknown.wait_ms(source)
        return 0 if bucket.take(now_us) else bucket.wait_ms()

    def good_signature(self, client: bytes, now_us: int) -> None:
        """`client` is a key that somebody holds."""
        self._clients.of(client, now_us)

    @property
    def known_keys(self) -> int:
        return len(self._clients)


class Waiting(NamedTuple):
    """A request on its way to verification, and where its answers go."""

    request: Request
    connection: bytes
    source: str


@dataclass(slots=True, eq=False)
class _Queue:
    """What one source has waiting."""

    source: str
    weight: int
    requests_max: int
    waiting: deque[Waiting] = field(default_factory=deque)
    load: int = 0
    """Places taken for the weight it has, in eighths: what is compared to find who holds most."""
    saved: int = 0
    """Places' worth of turns not used yet."""


class Intake:
    """Requests that wait for verification.

    Sources take turns by deficit round robin (Shreedhar and Varghese, 1995), in places. When there is no
    room, the newest request of the longest queue goes (longest queue drop): a source with no more than its
    share of the places cannot be it.
    """

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._queues: dict[str, _Queue] = {}
        self._turns: deque[_Queue] = deque()
        self._by_load: dict[int, dict[str, None]] = {}
        """Sources by load; no empty ones."""
        self._load_max = 0
        """No queue's load is higher."""
        self._places = 0
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    def put(self, waiting: Waiting) -> list[Waiting]:
        """Queue it. Returns what found no room or lost it, to be answered: mostly nothing."""
        queue = self._queues.get(waiting.source)
        if queue is None:
            queue = self._queue_of(waiting.source)
        elif len(queue.waiting) >= queue.requests_max:
            return [waiting]
        queue.waiting.append(waiting)
        self._account(queue, waiting.request.record, 1)
        lost: list[Waiting] = []
        while self._places > REQUESTS_MAX:
            lost.append(self._drop(waiting.source))
        if not queue.waiting and self._turns[-1] is queue:
            self._turns.pop()
            del self._queues[queue.source]
        return lost

    def _queue_of(self, source: str) -> _Queue:
        is_gateway = self._limits.is_gateway(source)
        queue = _Queue(
            source,
            GATEWAY_WEIGHT if is_gateway else 1,
            GATEWAY_REQUESTS_MAX if is_gateway else SOURCE_REQUESTS_MAX,
        )
        self._queues[source] = queue
        self._turns.append(queue)
        return queue

    def _drop(self, arriving: str) -> Waiting:
        """Take the newest request of the longest queue; among equals of the one that is growing."""
        while self._load_max not in self._by_load:
            self._load_max -= 1
        longest = self._by_load[self._load_max]
        queue = self._queues[arriving if arriving in longest else next(iter(longest))]
        waiting = queue.waiting.pop()
        self._account(queue, waiting.request.record, -1)
        return waiting

    def _account(self, queue: _Queue, record: bytes, sign: int) -> None:
        places = sign * _places(record)
        self._places += places
        self._count += sign
        self._bytes += sign * len(record)
        if queue.load:
            equals = self._by_load[queue.load]
            del equals[queue.source]
            if not equals:
                del self._by_load[queue.load]
        queue.load += places * (GATEWAY_WEIGHT // queue.weight)
        if queue.load:
            self._by_load.setdefault(queue.load, {})[queue.source] = None
            self._load_max = max(self._load_max, queue.load)

    def take(self, count: int) -> list[Waiting]:
        """The next ones, at most `count`. Fewer, even none, when large ones have to wait for further turns."""
        taken: list[Waiting] = []
        for _ in range(count * VISITS_PER_REQUEST):
            if not self._turns or len(taken) == count:
                break
            queue = self._turns[0]
            if queue.waiting:
                queue.saved += queue.weight
                self._serve(queue, taken, count)
                if len(taken) == count and queue.waiting and queue.saved >= _places(queue.waiting[0].request.record):
                    queue.saved -= queue.weight  # the rest of its turn comes with the next call
                    break
            self._turns.popleft()
            if queue.waiting:
                self._turns.append(queue)
            else:
                del self._queues[queue.source]
        return taken

    def _serve(self, queue: _Queue, taken: list[Waiting], count: int) -> None:
        while queue.waiting and len(taken) < count:
            record = queue.waiting[0].request.record
            places = _places(record)
            if places > queue.saved:
                return
            queue.saved -= places
            taken.append(queue.waiting.popleft())
            self._account(queue, record, -1)


def _places(record: bytes) -> int:
    return max(1, -(-len(record) // PLACE_BYTES))
