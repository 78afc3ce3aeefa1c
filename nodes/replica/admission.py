"""What a client may ask for before any signature is verified: token buckets and a fair queue.

Always: bounded, whatever clients send. A source (a client's or gateway's CURVE key) that floods
fills its own queue and empties its own bucket. Deliberately elsewhere: what is known, expired or
over a client's quota (`nodes.core.pool`), and the verification.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from nodes.config import Admission
from nodes.core.types import Request

KEYS_MAX = 10_000
"""Buckets kept, of client keys and of sources each; the one that was idle longest goes first."""
SOURCE_REQUESTS_MAX = 2048
"""Waiting for verification, of one source."""
GATEWAY_REQUESTS_MAX = 16_384
REQUESTS_MAX = 20_000
"""Waiting for verification, of all."""
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
        self._unknown = TokenBucket(limits.unknown_rate_per_s, limits.unknown_burst, 0)

    def is_gateway(self, source: str) -> bool:
        return source in self._gateways

    def question(self, source: str, now_us: int) -> int:
        """0: the source may ask one question now; else milliseconds to wait."""
        buckets = self._gateway_sources if source in self._gateways else self._sources
        bucket = buckets.of(source.encode(), now_us)
        return 0 if bucket.take(now_us) else bucket.wait_ms()

    def verification(self, source: str, client: bytes, now_us: int) -> int:
        """0: one signature of `client` may be verified now; else milliseconds to wait.

        Keys whose signature was good before have a bucket each. All others share one, except behind
        a known gateway, which answers for what it lets through with its own bucket.
        """
        if client in self._clients:
            bucket = self._clients.of(client, now_us)
        elif source in self._gateways:
            bucket = self._gateway_sources.of(source.encode(), now_us)
        else:
            bucket = self._unknown
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


class Intake:
    """Requests that wait for verification; sources take turns."""

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._queues: dict[str, deque[Waiting]] = {}
        self._turns: deque[str] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, waiting: Waiting) -> bool:
        """False: there is no room for this source, or for anybody."""
        queue = self._queues.get(waiting.source)
        if queue is None:
            queue = self._queues[waiting.source] = deque()
            self._turns.append(waiting.source)
        bound = GATEWAY_REQUESTS_MAX if self._limits.is_gateway(waiting.source) else SOURCE_REQUESTS_MAX
        if len(queue) >= bound or self._count >= REQUESTS_MAX:
            return False
        queue.append(waiting)
        self._count += 1
        return True

    def take(self, count: int) -> list[Waiting]:
        """The next ones, at most `count`, one of each source in turn."""
        taken: list[Waiting] = []
        while self._turns and len(taken) < count:
            source = self._turns.popleft()
            queue = self._queues[source]
            if queue:
                taken.append(queue.popleft())
                self._turns.append(source)
            else:
                del self._queues[source]
        self._count -= len(taken)
        return taken
