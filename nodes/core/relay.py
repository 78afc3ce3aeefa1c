"""FORWARD: requests passed on between replicas (docs/protocol.md sections 4 and 12.2).

A replica relays what it verified and no proposal named for T_FWD. Always: a relaying replica has at
most 64 unchecked requests here at once, and pays with a pause for signatures that prove bad.
"""

from __future__ import annotations

from nodes.core.effects import Effects, ForwardPurpose, Report, Send, Verify
from nodes.core.messages import Forward
from nodes.core.options import CoreOptions
from nodes.core.pool import Pool
from nodes.core.types import Fault, FaultCode, Now, ReplicaId, Request

FORWARDED_MAX = 64
"""Requests of one FORWARD, and unchecked requests of one relaying replica."""
BAD_MAX = 3
PAUSE_US = 60_000_000


class Relay:
    def __init__(self, options: CoreOptions) -> None:
        self._options = options
        self._unchecked = [0] * options.n
        self._bad = [0] * options.n
        self._paused_until_us = [0] * options.n

    def on_forward(self, message: Forward, sender: ReplicaId, pool: Pool, now: Now) -> Effects:
        if now.monotonic_us < self._paused_until_us[sender]:
            return []
        room = FORWARDED_MAX - self._unchecked[sender]
        accepted = pool.admit(message.requests[:room], now, relayed=message.relay).accepted
        if not accepted:
            return []
        self._unchecked[sender] += len(accepted)
        return [Verify(ForwardPurpose(sender, accepted), (), accepted)]

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
