"""A small application, a cluster and a maker of ordered batches for the executor's tests."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import MetaData

import fastpath
from nodes import canonical
from nodes.block import BlockHeader, next_order_hash
from nodes.codes import Status
from nodes.config import ClusterConfig, Member, Parameters
from nodes.core.types import BatchKind, ReplicaId
from nodes.executor.executor import Executor
from nodes.executor.protocol import BlockExecuted, ExecuteBlock
from nodes.machine import (
    BlockContext,
    Change,
    Operation,
    Outcome,
    RowReader,
    Rows,
    Timer,
    binary,
    integer,
    replicated_table,
    text,
)
from nodes.wire import unsigned_record

GENESIS_US = 1_700_000_000_000_000
SECOND = 1_000_000
NOT_ENOUGH = 100

METADATA = MetaData()


class Item(NamedTuple):
    owner: bytes
    name: str
    amount: int
    note: str | None
    blob: bytes | None


class Total(NamedTuple):
    id: int
    amount: int
    fired: int


ITEMS = replicated_table(
    METADATA,
    100,
    "items",
    Item,
    binary("owner", 32),
    text("name", 40),
    integer("amount"),
    text("note", 200, nullable=True),
    binary("blob", 20_000, nullable=True),
    key=("owner", "name"),
    indexes=(("amount", "owner", "name"), ("owner", "amount", "name")),
)
TOTALS = replicated_table(
    METADATA, 101, "totals", Total, integer("id"), integer("amount"), integer("fired"), key=("id",)
)


class PantryMachine:
    """Keys keep named items; a total is conserved with them; deadlines throw items away."""

    tables = METADATA
    version = 1

    def code_name(self, status: int) -> str:
        return {NOT_ENOUGH: "not_enough"}.get(status) or Status(status).name.lower()

    def genesis(self, rows: Rows, application_genesis: Mapping[str, Any]) -> None:
        rows.put(TOTALS, Total(0, 0, 0))
        for name, amount in sorted(application_genesis.get("items", {}).items()):
            rows.put(ITEMS, Item(bytes(32), name, amount, None, None))
            self._count(rows, amount)

    def admit(self, public_key: bytes, payload: bytes, rows: Rows) -> Outcome | None:
        if public_key[0] == 0xFF:
            return Outcome(Status.UNAUTHORIZED, b'{"error":"unauthorized"}')
        return None

    def admit_read(self, public_key: bytes, query: bytes, rows: Rows) -> Outcome | None:
        return self.admit(public_key, query, rows)

    def apply(self, operation: Operation, context: BlockContext, rows: Rows) -> Outcome:
        document = json.loads(operation.payload)
        owner, name = operation.public_key, document.get("name", "")
        item: Item | None = rows.get(ITEMS, owner, name)
        match document["do"]:
            case "add":
                amount = document["amount"] + (item.amount if item else 0)
                rows.put(ITEMS, Item(owner, name, amount, document.get("note"), bytes(document.get("blob", 0)) or None))
                self._count(rows, document["amount"])
            case "write":  # without having read
                if item is None:
                    rows.put(ITEMS, Item(owner, name, 0, document.get("note"), None))
            case "remove":
                if item is None or item.amount < document["amount"]:
                    return Outcome(NOT_ENOUGH, b'{"error":"not_enough"}')
                rows.put(ITEMS, item._replace(amount=item.amount - document["amount"]))
                self._count(rows, -document["amount"])
            case "drop":
                if item is None:
                    return Outcome(NOT_ENOUGH, b'{"error":"not_enough"}')
                rows.delete(ITEMS, owner, name)
                self._count(rows, -item.amount)
            case "expire":
                rows.add_timer(Timer(operation.digest[:16], document["due_us"], owner + name.encode()))
            case "cancel":
                rows.cancel_timer(bytes.fromhex(document["timer"]))
            case "raw":
                rows.put(ITEMS, Item(owner, document["name"], document["amount"], document.get("note"), None))
                self._count(rows, document["amount"])
            case "break":
                self._count(rows, 1)
            case "fail":
                raise ZeroDivisionError("a bug of the application")
        return Outcome(
            Status.OK, canonical.encode({"at": [context.sequence, context.index], "time_us": context.time_us})
        )

    def fire(self, timer: Timer, context: BlockContext, rows: Rows) -> Outcome:
        if timer.payload.startswith(b"CANCEL"):
            rows.cancel_timer(timer.payload[6:])
            return Outcome(Status.OK, b"{}")
        total: Total = rows.get(TOTALS, 0)
        rows.put(TOTALS, total._replace(fired=total.fired + 1))
        owner, name = timer.payload[:32], timer.payload[32:].decode()
        item: Item | None = rows.get(ITEMS, owner, name)
        if item is not None:
            rows.delete(ITEMS, owner, name)
            self._count(rows, -item.amount)
        return Outcome(Status.OK, canonical.encode({"dropped": item.amount if item else 0}))

    def check_block(self, changes: Sequence[Change]) -> None:
        difference = 0
        for table, old, new in changes:
            sign = 1 if table is TOTALS else -1
            difference += sign * ((new.amount if new else 0) - (old.amount if old else 0))
        assert difference == 0, "items do not add up to the total"

    def query(self, query: bytes, caller: bytes | None, reader: RowReader) -> bytes:
        document = json.loads(query)
        if "fail" in document:
            raise ZeroDivisionError("a bug of the application")
        if "large" in document:
            return canonical.encode({"large": "x" * document["large"]})
        if "range" in document:
            rows = reader.range(ITEMS, ("amount", "owner", "name"), equal={}, limit=document["range"])
            return canonical.encode({"rows": [[row.owner.hex(), row.name, row.amount] for row in rows]})
        return canonical.encode({"total": reader.get(TOTALS, 0).amount, "sequence": reader.sequence})

    def _count(self, rows: Rows, amount: int) -> None:
        total: Total = rows.get(TOTALS, 0)
        rows.put(TOTALS, total._replace(amount=total.amount + amount))


def make_cluster(genesis: Mapping[str, Any] | None = None, members: int = 4, **parameters: int) -> ClusterConfig:
    """A cluster whose parameters are small where a test needs to reach their end."""
    return ClusterConfig.new(
        members=[
            Member(
                ReplicaId(i),
                f"node{i}",
                fastpath.public_key(bytes([i + 1]) * 32),
                fastpath.public_key(bytes([i + 101]) * 32),
                bytes([i + 201]) * 32,
                "127.0.0.1",
                7000 + 10 * i,
                7001 + 10 * i,
                7002 + 10 * i,
                7003 + 10 * i,
            )
            for i in range(members)
        ],
        genesis_time_us=GENESIS_US,
        application="pantry",
        application_genesis=dict(genesis or {}),
        parameters=Parameters(**parameters),
    )


class Log:
    """Makes the ordered batches of a cluster, each a message for an executor, and remembers them."""

    def __init__(self, cluster: ClusterConfig) -> None:
        self.cluster = cluster
        self.messages: list[ExecuteBlock] = []
        self._order_hash = cluster.config_hash
        self.time_us = GENESIS_US

    def record(
        self,
        operation: Mapping[str, Any] | bytes,
        *,
        key: bytes,
        session: int = 1,
        sequence: int = 1,
        floor: int = 1,
        valid_until_us: int | None = None,
        kind: int = 0,
    ) -> bytes:
        """A request record; the executor does not look at signatures."""
        payload = operation if isinstance(operation, bytes) else canonical.encode(dict(operation))
        until = self.time_us + 600 * SECOND if valid_until_us is None else valid_until_us
        return (
            unsigned_record(self.cluster.cluster_id, key, session, sequence, floor, until, payload, kind) + b"\x55" * 64
        )

    def batch(self, *records: bytes, time_us: int | None = None, kind: BatchKind = BatchKind.NORMAL) -> ExecuteBlock:
        """The next batch; by default a millisecond after the one before."""
        self.time_us = self.time_us + 1000 if time_us is None else time_us
        sequence = len(self.messages) + 1
        parsed = fastpath.parse_requests(
            b"".join(records), 0, sum(map(len, records)), self.cluster.cluster_id, 1024, 65536
        )
        stamp = 0 if kind == BatchKind.NULL else self.time_us
        header, body, digest = fastpath.assemble_batch(
            kind, 0, self.cluster.cluster_id, 0, sequence, stamp, records, [request[0] for request in parsed]
        )
        self._order_hash = next_order_hash(self._order_hash, sequence, digest)
        self.messages.append(ExecuteBlock(sequence, header, body, self._order_hash))
        return self.messages[-1]


def digest_of(record: bytes) -> bytes:
    """The request digest of a record."""
    return fastpath.tagged_hash(b"REQ", record[:-64])


def key_of(number: int) -> bytes:
    """A client key; no signature is looked at here."""
    return bytes([1, number]) * 16


def open_executor(cluster: ClusterConfig, url: str, **options: Any) -> Executor:
    """An executor of replica 0, opened."""
    executor = Executor(cluster, PantryMachine(), url, options.pop("replica_id", 0), **options)
    executor.open()
    return executor


def header_of(executed: BlockExecuted) -> BlockHeader:
    return BlockHeader.unpack(executed.block_header)


def statuses(executed: BlockExecuted) -> list[int]:
    return [entry.status for entry in executed.entries]


def run(executor: Executor, messages: Iterable[ExecuteBlock]) -> list[bytes]:
    """Execute messages; their block headers."""
    return [executor.execute(message).block_header for message in messages]


def random_log(cluster: ClusterConfig, seed: int, blocks: int, requests_max: int = 12) -> Log:
    """A log with every kind of leaf: writes, refusals, duplicates, expiries, timers, null blocks, session mistakes."""
    source = random.Random(seed)
    log = Log(cluster)
    clients = {key_of(number): [1, 0] for number in range(8)}
    old: list[bytes] = []
    timers: list[str] = []
    for _ in range(blocks):
        if source.random() < 0.05:
            log.batch(kind=BatchKind.NULL)
            continue
        log.time_us += source.choice((0, 0, 300, 5_000, 2 * SECOND))
        records: dict[bytes, None] = {}
        for _ in range(source.randrange(requests_max + 1)):
            key = source.choice(list(clients))
            state = clients[key]
            if source.random() < 0.04:
                state[0], state[1] = state[0] + source.randrange(1, 3), 0
            state[1] += source.choice((1, 1, 1, 1, 1, 2, 0))
            name = source.choice(("flour", "salt", "açaí", "牛乳", "x", "sugar loaf", "🍞"))
            operation: dict[str, Any] = {
                "do": source.choice(("add", "add", "add", "remove", "drop", "expire", "write")),
                "name": name,
                "amount": source.randrange(1, 1000),
                "due_us": log.time_us + source.randrange(-5, 4 * SECOND),
                "note": source.choice((None, "", "fine ", "a'b\\c\"%s", "ünïcode\n\t\x00.", "x" * 200)),
            }
            if timers and source.random() < 0.05:
                operation = {"do": "add", "name": "timer " + timers.pop(), "amount": 1}
            used = max(1, state[1] + source.choice((0,) * 12 + (300, -1)))
            record = log.record(
                operation,
                key=b"\xff" * 32 if source.random() < 0.03 else key,
                session=state[0],
                sequence=used,
                floor=max(1, used - source.choice((0, 1, 5, 60))),
                valid_until_us=log.time_us + source.choice((600 * SECOND,) * 9 + (0,)),
                kind=source.choice((0,) * 20 + (1, 2)),
            )
            if old and source.random() < 0.08:
                record = source.choice(old)
            records[record] = None
        log.batch(*records, time_us=log.time_us + 1000)
        old.extend(records)
    return log


def sqlite_file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))
