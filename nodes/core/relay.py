"""FORWARD: requests passed on between replicas (docs/protocol.md sections 4 and 12.2).

A replica relays what its clients sent, it verified, and no proposal named for T_FWD. Always: of what
one replica relayed at most 64 requests are here at once, unchecked or waiting for a proposal, and no
more than 320 a second are taken; signatures that prove bad cost it a pause. What finds no room is
relayed again.
"""

from __future__ import annotations

from nodes.core.effects import Effects, ForwardPurpose, Report, Send, Verify
from nodes.core.messages import Forward
from nodes.core.options import CoreOptions
from nodes.core.pool import Pool
from nodes.core.types import Fault, FaultCode, Now, ReplicaId, Request

FORWARDED_MAX = 64
"""Requests of one FORWARD, and of one relaying replica: those unchecked and those that wait."""
FORWARDED_PER_S = 320
"""As many as a correct replica sends: `FORWARDED_MAX` at every search of its pool, five times a second."""
BAD_MAX = 3
PAUSE_US = 60_000_000
MICRO = 1_000_000


class Relay:
    def __init__(self, options: CoreOptions) -> None:
        self._options = options
        self._unchecked = [0] * options.n
        self._tokens = [FORWARDED_MAX * MICRO] * options.n
        """In millionths of a request, so that integers suffice."""
        self._refilled_us = [0] * options.n
        self._bad = [0] * options.n
        self._paused_until_us = [0] * options.n

    def on_forward(self, message: Forward, sender: ReplicaId, pool: Pool, now: Now) -> Effects:
        if now.monotonic_us < self._paused_until_us[sender]:
            return []
        room = min(FORWARDED_MAX - self._unchecked[sender] - pool.relayed_by(sender), self._allowance(sender, now))
        if room <= 0:
            return []
        accepted = pool.admit(message.requests[:FORWARDED_MAX], now, relayed=True).accepted[:room]
        if not accepted:
            return []
        self._unchecked[sender] += len(accepted)
        self._tokens[sender] -= len(accepted) * MICRO
        return [Verify(ForwardPurpose(sender, accepted), (), accepted)]

    def _allowance(self, sender: ReplicaId, now: Now) -> int:
        """Requests that `sender` may still bring now."""
        elapsed_us = max(0, now.monotonic_us - self._refilled_us[sender])
        self._refilled_us[sender] += elapsed_us
        self._tokens[sender] = min(FORWARDED_MAX * MICRO, self._tokens[sender] + elapsed_us * FORWARDED_PER_S)
        return self._tokens[sender] // MICRO

    def verified(self, purpose: ForwardPurpose, flags: bytes, now: Now) -> tuple[tuple[Request, ...], Effects]:
        """The requests that hold, and what the others cost their relay."""
        sender = purpose.sender
        self._unchecked[sender] -= len(purpose.requests)
        good = tuple(request for request, flag in zip(purpose.requests, flags, strict=True) if flag)
        if len(good) == len(purpose.requests):
            return good, []
        self._bad[sender] += 1
        if self._bad[sender] >= BAD_MAX:
            self._bad[sender] = 0
            self._paused_until_us[sender] = now.monotonic_us + PAUSE_US
        return good, [Report(Fault(sender, FaultCode.INVALID_REQUEST_SIGNATURE))]

    def send_overdue(self, pool: Pool, now: Now) -> Effects:
        if self._options.n == 1:
            return []
        overdue = pool.overdue(now, min(FORWARDED_MAX, self._options.batch_requests_max))
        return [Send(Forward(self._options.epoch, True, overdue))] if overdue else []
