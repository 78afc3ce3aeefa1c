"""Token buckets in front of the client, by key or by address; bounded in number.

A bucket that is forgotten is a full one: forgetting can only be too kind, and replicas have their own.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from nodes.gateway.problem import Problem, retry_headers

BUCKETS_MAX = 10_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at_s: float


class RateLimit:
    """`rate_per_s` tokens a second for each name, at most `burst` saved up."""

    def __init__(self, name: str, rate_per_s: int, burst: int) -> None:
        self._name = name
        self._rate = rate_per_s
        self._burst = burst
        self._buckets: OrderedDict[bytes | str, _Bucket] = OrderedDict()

    def take(self, name: bytes | str, now_s: float) -> None:
        """Take one token; a Problem `rate_limited` when there is none."""
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._burst, now_s)
            if len(self._buckets) > BUCKETS_MAX:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
            bucket.tokens = min(self._burst, bucket.tokens + (now_s - bucket.filled_at_s) * self._rate)
            bucket.filled_at_s = now_s
        if bucket.tokens < 1:
            wait_s = (1 - bucket.tokens) / self._rate
            headers = self.headers(0) | retry_headers(wait_s)
            raise Problem("rate_limited", f"more than {self._rate} a second; wait {wait_s:.3f} s", headers=headers)
        bucket.tokens -= 1

    def headers(self, remaining: int) -> dict[str, str]:
        """RateLimit fields (draft-ietf-httpapi-ratelimit-headers)."""
        window_s = max(1, self._burst // self._rate)
        return {
            "ratelimit-policy": f'"{self._name}";q={self._burst};w={window_s}',
            "ratelimit": f'"{self._name}";r={remaining};t=1',
        }
