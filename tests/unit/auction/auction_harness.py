"""A plain `Rows` and `RowReader` in memory, and a house that executes blocks on it.

Stricter than a database: every value's type is checked, a refusal that wrote a row fails the test, and the
machine's own check of the block is run. The executor with real databases has tests of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Table

import fastpath
from auction.accounts import account_id
from auction.genesis import Founder, build
from auction.machine import AuctionMachine
from auction.tables import metadata
from nodes import canonical
from nodes.machine import BlockContext, Change, Operation, Outcome, Timer, Value

START_US = 1_700_000_000_000_000
SECOND = 1_000_000
TIMERS_MAX = 256


class MemoryRows:
    """`nodes.machine.Rows` in dicts."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[tuple[Any, ...], Any]] = {name: {} for name in metadata.tables}
        self.timers: dict[bytes, Timer] = {}
        self.before: dict[tuple[str, tuple[Any, ...]], Any] = {}
        self.writes = 0

    def get(self, table: Table, *key: Value) -> Any:
        assert len(key) == len(table.info["key"])
        return self.rows[table.name].get(key)

    def put(self, table: Table, row: tuple[Any, ...]) -> None:
        assert type(row) is table.info["row_type"]
        for value, column in zip(row, table.columns, strict=True):
            assert type(value) in (int, bytes, str) or (value is None and column.nullable), (column.name, value)
            length = getattr(column.type, "length", None)
            assert value is None or length is None or len(value) <= length, (column.name, value)
        fastpath.encode_row(table.info["table_id"], row)
        self._write(table, tuple(row[position] for position in table.info["key"]), row)

    def delete(self, table: Table, *key: Value) -> None:
        if key not in self.rows[table.name]:
            raise KeyError(key)
        self._write(table, key, None)

    def add_timer(self, timer: Timer) -> None:
        self.writes += 1
        self.timers[timer.id] = timer

    def cancel_timer(self, timer_id: bytes) -> None:
        self.writes += 1
        del self.timers[timer_id]

    def _write(self, table: Table, key: tuple[Any, ...], row: Any) -> None:
        self.writes += 1
        rows = self.rows[table.name]
        self.before.setdefault((table.name, key), rows.get(key))
        if row is None:
            del rows[key]
        else:
            rows[key] = row

    def changes(self) -> list[Change]:
        """The write set since the last call."""
        changes = [
            Change(metadata.tables[name], old, self.rows[name].get(key))
            for (name, key), old in self.before.items()
            if old != self.rows[name].get(key)
        ]
        self.before = {}
        return changes


class MemoryReader:
    """`nodes.machine.RowReader` over the same dicts."""

    def __init__(self, rows: MemoryRows, sequence: int, time_us: int) -> None:
        self._rows = rows
        self.sequence = sequence
        self.block_hash = hashlib.sha256(sequence.to_bytes(8, "little")).digest()
        self.time_us = time_us

    def get(self, table: Table, *key: Value) -> Any:
        return self._rows.get(table, *key)

    def range(
        self,
        table: Table,
        index: Sequence[str],
        *,
        equal: Mapping[str, Value],
        after: Sequence[Value] | None = None,
        descending: bool = False,
        limit: int,
    ) -> list[Any]:
        def place(row: Any) -> tuple[Any, ...]:
            return tuple(getattr(row, name) for name in index)

        rows = [row for row in self.scan(table) if all(getattr(row, name) == value for name, value in equal.items())]
        assert len({place(row) for row in rows}) == len(rows), "the index does not give a total order"
        rows.sort(key=place, reverse=descending)
        if after is not None:
            start = tuple(after)
            rows = [row for row in rows if (place(row) < start if descending else place(row) > start)]
        return rows[:limit]

    def scan(self, table: Table) -> Iterator[Any]:
        rows = self._rows.rows[table.name]
        return iter([rows[key] for key in sorted(rows)])


class Person:
    """Somebody with a real Ed25519 key."""

    def __init__(self, name: str, *roles: str) -> None:
        self.name = name
        self.roles = roles
        self.seed = hashlib.sha256(name.encode()).digest()
        self.key = fastpath.public_key(self.seed)
        self.id = account_id(self.key).hex()
        self.account = bytes.fromhex(self.id)

    def founder(self) -> Founder:
        return Founder(self.key, self.name, self.name.title(), self.roles)


class House:
    """The auction machine on memory rows, block by block."""

    def __init__(self, *people: Person, **settings: Any) -> None:
        self.machine = AuctionMachine()
        self.rows = MemoryRows()
        self.machine.genesis(self.rows, build([person.founder() for person in people], **settings))
        self.machine.check_block(self.rows.changes())
        self.sequence = 0
        self.time_us = START_US
        self.requests = 0
        self.fired: list[tuple[Timer, Outcome]] = []

    def block(self, *operations: tuple[bytes, bytes], at_us: int | None = None) -> list[Outcome]:
        """Execute (public key, payload) pairs in a block at a time; outcomes without those of timers."""
        self.sequence += 1
        self.time_us = max(self.time_us + 1, self.time_us if at_us is None else at_us)
        due = sorted(
            (timer for timer in self.rows.timers.values() if timer.due_us <= self.time_us),
            key=lambda timer: (timer.due_us, timer.id),
        )[:TIMERS_MAX]
        index = 0
        for timer in due:
            del self.rows.timers[timer.id]
            outcome = self.machine.fire(timer, self._context(index), self.rows)
            canonical.decode(outcome.result, 65_536)
            self.fired.append((timer, outcome))
            index += 1
        outcomes = []
        for public_key, payload in operations:
            outcomes.append(self._execute(public_key, payload, self._context(index)))
            index += 1
        self.machine.check_block(self.rows.changes())
        return outcomes

    def digest(self, request: int) -> bytes:
        """The digest that stands for the request with this number, counted from 1."""
        return hashlib.sha256(b"request" + request.to_bytes(8, "little")).digest()

    def _execute(self, public_key: bytes, payload: bytes, context: BlockContext) -> Outcome:
        self.requests += 1
        before = self.rows.writes
        outcome = self.machine.admit(public_key, payload, self.rows)
        assert self.rows.writes == before, "admit wrote a row"
        if outcome is None:
            operation = Operation(public_key, payload, self.digest(self.requests), 1, self.requests)
            outcome = self.machine.apply(operation, context, self.rows)
        result = canonical.decode(outcome.result, 65_536)
        assert type(outcome.status) is int
        assert isinstance(result["effects"], list)
        if outcome.status:
            assert self.rows.writes == before, "a refusal wrote a row"
            assert result["error"] == self.machine.code_name(outcome.status)
            assert result["effects"] == []
        return outcome

    def _context(self, index: int) -> BlockContext:
        return BlockContext(self.sequence, index, self.time_us, hashlib.sha256(b"order").digest())

    # What tests say most often.

    def do(self, who: Person, payload: bytes, at_us: int | None = None) -> tuple[str, dict[str, Any]]:
        """Execute one operation in a block of its own: code and result."""
        (outcome,) = self.block((who.key, payload), at_us=at_us)
        return self.machine.code_name(outcome.status), canonical.decode(outcome.result, 65_536)

    def ok(self, who: Person, payload: bytes, at_us: int | None = None) -> dict[str, Any]:
        code, result = self.do(who, payload, at_us)
        assert code == "ok", (code, result)
        return result

    def refused(self, who: Person, payload: bytes, at_us: int | None = None) -> str:
        code, _ = self.do(who, payload, at_us)
        assert code != "ok"
        return code

    def account(self, who: Person | str) -> Any:
        return self.rows.get(metadata.tables["accounts"], bytes.fromhex(who if isinstance(who, str) else who.id))

    def money(self, who: Person) -> tuple[int, int]:
        """Available and held."""
        account = self.account(who)
        return account.available, account.held

    def auction(self, auction: str) -> Any:
        return self.rows.get(metadata.tables["auctions"], bytes.fromhex(auction))

    def closing(self, auction: str) -> Any:
        return self.rows.get(metadata.tables["closings"], bytes.fromhex(auction))

    def query(self, caller: Person | None = None, /, **query: Any) -> Any:
        return self.query_bytes(canonical.encode(query), None if caller is None else caller.key)

    def query_bytes(self, query: bytes, caller: bytes | None = None) -> Any:
        reader = MemoryReader(self.rows, self.sequence, self.time_us)
        return canonical.decode(self.machine.query(query, caller, reader), 65_536)
