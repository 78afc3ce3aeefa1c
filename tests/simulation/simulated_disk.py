"""A log that loses what was not synced, and a database that may lose its last blocks."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import fastpath
from nodes.core.messages import OrderedBatch, PrepareCertificate
from nodes.core.ready import Execute
from nodes.core.records import Prepared, Record
from nodes.core.types import BatchKind
from nodes.wire import Wire


class Disk:
    """The bytes of log records, oldest first. `durable` counts those that survive a crash."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._written: list[tuple[int, bytes]] = []
        self._certificates: list[tuple[int, PrepareCertificate]] = []
        self.durable = 0

    def __len__(self) -> int:
        return len(self._written)

    def append(self, record: Record) -> int:
        self._written.append(self._wire.encode_record(record))
        if isinstance(record, Prepared):
            self._certificates.append((len(self._written), record.certificate))
        return len(self._written)

    def holds_certificate(self, sequence: int, digest: bytes) -> bool:
        """Is a certificate for it durable?"""
        return any(
            number <= self.durable and certificate.batch.sequence == sequence and certificate.batch.digest == digest
            for number, certificate in reversed(self._certificates)
        )

    def sync(self, through: int) -> None:
        self.durable = max(self.durable, min(through, len(self._written)))

    def crash(self, rng: random.Random) -> None:
        """What was not synced is lost, but for some first part of it."""
        survives = self.durable + rng.randint(0, len(self._written) - self.durable)
        del self._written[survives:]
        self._certificates = [(number, held) for number, held in self._certificates if number <= survives]
        self.durable = survives

    def records(self) -> list[Record]:
        return [self._wire.decode_record(kind, payload) for kind, payload in self._written]


@dataclass(slots=True)
class Executed:
    block: OrderedBatch
    order_hash: bytes
    block_hash: bytes
    time_us: int
    timers: tuple[int, ...]


@dataclass(slots=True)
class Database:
    """A machine whose state is a hash chain; some requests set a timer that a later block must fire."""

    genesis: bytes
    blocks: list[Executed] = field(default_factory=list)

    @property
    def height(self) -> int:
        return len(self.blocks)

    @property
    def block_hash(self) -> bytes:
        return self.blocks[-1].block_hash if self.blocks else self.genesis

    @property
    def next_timer_us(self) -> int | None:
        return min(self.blocks[-1].timers, default=None) if self.blocks else None

    def execute(self, execute: Execute) -> None:
        if execute.sequence != self.height + 1:
            raise AssertionError(f"block {execute.sequence} executed at height {self.height}")
        batch = execute.block.batch
        before = self.blocks[-1] if self.blocks else None
        time_us = before.time_us if before else 0
        if batch.kind is not BatchKind.NULL:
            time_us = max(batch.timestamp_us, time_us + 1)
        timers = list(before.timers) if before else []
        fired = [due for due in timers if due <= time_us]
        timers = [due for due in timers if due > time_us]
        timers += [
            time_us + 1000 * request.digest[1] for request in execute.block.requests if request.digest[0] % 8 == 0
        ]
        state = b"".join(due.to_bytes(8, "little") for due in (*fired, *sorted(timers), time_us))
        block_hash = fastpath.tagged_hash(b"BLOCK", self.block_hash, execute.order_hash, batch.digest, state)
        self.blocks.append(Executed(execute.block, execute.order_hash, block_hash, time_us, tuple(sorted(timers))))

    def lose(self, count: int) -> None:
        del self.blocks[max(0, len(self.blocks) - count) :]
