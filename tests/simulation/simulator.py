"""Deterministic simulation of a whole cluster over the real wire bytes, in virtual time.

One seed draws everything: members, options, faults and schedule. Two phases: faults for a while, then
everything is healed and everything submitted must be executed everywhere. Safety is checked at every
vote, log record and block; `trace` hashes every delivery, so equal seeds must give equal traces.

Some seeds have Byzantine backups that omit: they run the honest core, but what they send is lost for
ever, by kind and recipient. Everybody else must finish all the same.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from simulated_disk import Database, Disk
from simulated_members import GENESIS_US, Verifier, cluster_of, key_of, request_of

from nodes.config import Parameters
from nodes.core.messages import (
    Attest,
    AttestCertificate,
    Commit,
    FetchAttest,
    FetchBlocks,
    FetchBody,
    FetchedBlocks,
    FetchedBody,
    Forward,
    OrderedBatch,
    PeerMessage,
    Prepare,
    PrePrepare,
    Status,
)
from nodes.core.options import CoreOptions
from nodes.core.ready import Check, Execute, Outgoing, Ready, Serve
from nodes.core.records import Decided, Prepared, Stable
from nodes.core.replica import Replica
from nodes.core.types import Fault, Lsn, Now, ReplicaId, Request, SequenceNumber
from nodes.wire import Wire

SIGNED = (PrePrepare, Prepare, Commit, Attest)
KINDS = (
    PrePrepare,
    Prepare,
    Commit,
    Attest,
    AttestCertificate,
    Status,
    Forward,
    FetchAttest,
    FetchBlocks,
    FetchBody,
    FetchedBlocks,
    FetchedBody,
)
MS = 1000


class Violation(AssertionError):
    """An invariant does not hold; the text says which, where and when."""


@dataclass(frozen=True, slots=True)
class Omissions:
    """Backups that omit, and a primary whose messages to single backups are lost for a while."""

    members: tuple[int, ...] = ()
    muted: frozenset[tuple[int, str, int]] = frozenset()
    """(member, kind of message, recipient): never arrives, answers to STATUS included."""
    silences: int = 0
    """Times that all messages of the primary to one backup are lost, in the first phase."""

    @staticmethod
    def draw(seed: int, n: int, dead: tuple[int, ...]) -> Omissions:
        """From a generator of its own: the rest of a seed's schedule is as it would be without."""
        rng = random.Random(f"omissions of {seed}")
        room = (n - 1) // 3 - len(dead)
        alive = [member for member in range(1, n) if member not in dead]
        members = tuple(sorted(rng.sample(alive, rng.randint(1, room)))) if room > 0 else ()
        muted: list[tuple[int, str, int]] = []
        for member in members:
            for kind in KINDS:
                share = rng.choice([0.0, 0.5, 0.8, 1.0])
                # Half of them let exactly one member decide: the others depend on its participation.
                heard = rng.randrange(n) if kind is Commit and rng.random() < 0.5 else None
                lost = [to != heard if heard is not None else rng.random() < share for to in range(n)]
                muted += [(member, kind.__name__, to) for to in range(n) if lost[to]]
        return Omissions(members, frozenset(muted), rng.choice([0, 1, 4, 12]) if n > 1 else 0)


@dataclass(frozen=True, slots=True)
class Swarm:
    """What the seed drew."""

    n: int
    pipeline: int
    window: int
    checkpoint_interval: int
    batch_requests_max: int
    sync_prepare: bool
    clients: int
    requests: int
    faults_us: int
    """Length of the first phase."""
    loss: float
    duplication: float
    delay_us: int
    slow: float
    """Share of messages that take ten times as long."""
    crashes: int
    partitions: int
    executor_restarts: int
    sync_us: int
    execute_us: int
    slow_executor: int | None
    skew_us: int
    dead: tuple[int, ...]
    """Backups that never start: with those that omit at most f, for the whole run."""
    omissions: Omissions = Omissions()

    @staticmethod
    def of(seed: int) -> Swarm:
        """A quarter of the seeds has members that omit."""
        swarm = Swarm.draw(random.Random(seed))
        omits = random.Random(f"share of {seed}").random() < 0.25
        return swarm.omitting(seed) if omits else swarm

    def omitting(self, seed: int) -> Swarm:
        return replace(self, omissions=Omissions.draw(seed, self.n, self.dead))

    @staticmethod
    def draw(rng: random.Random) -> Swarm:
        n = rng.choice([4, 4, 4, 4, 5, 6, 7, 1])
        f = (n - 1) // 3
        interval = rng.choice([1, 2, 4, 16])
        calm = rng.random() < 0.15
        return Swarm(
            n=n,
            pipeline=rng.choice([1, 2, 2, 2, 4, 8]),
            window=interval * rng.choice([8, 16]),
            checkpoint_interval=interval,
            batch_requests_max=rng.choice([1, 2, 8, 1024]),
            sync_prepare=True,
            clients=rng.randint(1, 6),
            requests=rng.randint(1, 50),
            faults_us=rng.randint(200, 3000) * MS,
            loss=0.0 if calm else rng.choice([0.0, 0.02, 0.1, 0.3]),
            duplication=0.0 if calm else rng.choice([0.0, 0.05, 0.3]),
            delay_us=rng.choice([200, 1 * MS, 20 * MS]),
            slow=rng.choice([0.0, 0.05, 0.2]),
            crashes=0 if calm else rng.choice([0, 0, 1, 3, 8]),
            partitions=0 if calm else rng.choice([0, 0, 1, 4]),
            executor_restarts=0 if calm else rng.choice([0, 0, 2]),
            sync_us=rng.choice([50, 500, 8 * MS]),
            execute_us=rng.choice([100, 2 * MS, 15 * MS]),
            slow_executor=rng.choice([None, None, rng.randrange(n)]),
            skew_us=rng.choice([0, 0, 100 * MS]),
            dead=tuple(sorted(rng.sample(range(1, n), rng.randint(0, f)))) if n > 1 and rng.random() < 0.3 else (),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    swarm: Swarm
    trace: str
    blocks: int
    deliveries: int
    virtual_us: int
    duplicates: int
    """Requests that were ordered more than once."""


class Node:
    """A member: core, log, database, and the loop that obeys `Ready`."""

    def __init__(self, simulator: Simulator, replica: ReplicaId) -> None:
        self._sim = simulator
        self.replica = replica
        self.disk = Disk(simulator.wire)
        self.database = Database(simulator.cluster.config_hash)
        self.skew_us = 0
        self.core: Replica | None = None
        self.run = 0
        """Number of this life of the process; events of earlier ones are void."""
        self._lsn_base = 0
        self._waiting: list[Outgoing] = []
        self._to_execute: list[Execute] = []
        self._is_executing = False
        self._executor_run = 0
        self._tick_us: int | None = None

    @property
    def now(self) -> Now:
        return Now(self._sim.now_us, GENESIS_US + self._sim.now_us + self.skew_us)

    def start(self) -> None:
        self.run += 1
        records = self.disk.records()
        self._lsn_base = len(records)
        self.core = Replica(self._sim.options(self.replica), records)
        self._waiting, self._tick_us = [], None
        self.restart_executor()
        self.core.tick(self.now)
        self.pump()

    def crash(self, rng: random.Random) -> None:
        self.core = None
        self.run += 1
        self.disk.crash(rng)
        self.database.lose(rng.choice([0, 0, 1, 3]))

    def restart_executor(self) -> None:
        assert self.core is not None
        self._executor_run += 1
        self._to_execute, self._is_executing = [], False
        database = self.database
        self.core.executed_through(SequenceNumber(database.height), database.block_hash, database.next_timer_us)

    def later(self, delay_us: int, action: Callable[[], None]) -> None:
        """Run `action` in this life of the process, then do what the core wants."""
        run = self.run

        def event() -> None:
            if self.run == run and self.core is not None:
                action()
                self.pump()

        self._sim.after(delay_us, event)

    def receive(self, frame: bytes, sender: ReplicaId) -> None:
        if self.core is None:
            return
        for message in self._sim.wire.decode_frame(frame, sender):
            self.core.step(message, sender, self.now)
        self.pump()

    def submit(self, request: Request) -> None:
        if self.core is None:
            return
        accepted = self.core.admit([request], self.now).accepted
        self.core.submit([r for r in accepted if self._sim.verifier.request(r)], self.now)
        self.pump()

    # What Ready asks for -------------------------------------------------------------------------

    def pump(self) -> None:
        assert self.core is not None
        ready = self.core.ready()
        while not ready.is_empty:
            self._obey(ready)
            ready = self.core.ready()
        due_us = max(ready.deadline_us, self._sim.now_us + 100)
        if self._tick_us is None or due_us < self._tick_us:
            self._tick_us = due_us
            self.later(due_us - self._sim.now_us, lambda due_us=due_us: self._tick(due_us))  # type: ignore[misc]

    def _tick(self, due_us: int) -> None:
        assert self.core is not None
        if self._tick_us == due_us:
            self._tick_us = None
        self.core.tick(self.now)

    def _obey(self, ready: Ready) -> None:
        for record in ready.records:
            self._sim.check_record(self, record)
            self.disk.append(record)
        if ready.records:
            end = len(self.disk)
            self.later(self._sim.jitter(self._sim.swarm.sync_us), lambda: self._synced(end))
        for check in ready.checks:
            self.later(self._sim.jitter(20), lambda check=check: self._verified(check))  # type: ignore[misc]
        self._waiting += ready.messages
        self._to_execute += ready.execute
        for serve in ready.serve:
            self._serve(serve)
        for fault in ready.faults:
            self._sim.report(self, fault)
        self._flush()

    def _synced(self, end: int) -> None:
        assert self.core is not None
        self.disk.sync(end)
        self.core.persisted(Lsn(self.disk.durable - self._lsn_base))
        self._flush()

    def _verified(self, check: Check) -> None:
        assert self.core is not None
        self.core.verified(check.token, self._sim.verifier.flags(check), self.now)

    def is_durable(self, lsn: Lsn) -> bool:
        return lsn == 0 or lsn + self._lsn_base <= self.disk.durable

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for outgoing in waiting:
            if self.is_durable(outgoing.after):
                self._send(outgoing)
            else:
                self._waiting.append(outgoing)
        self._execute_next()

    def _send(self, outgoing: Outgoing) -> None:
        message = outgoing.message
        if isinstance(message, SIGNED) and not message.signature:
            message = self._sim.wire.sign(message, key_of("consensus", self.replica))
        self._sim.check_sent(self, message)
        peers = range(self._sim.swarm.n) if outgoing.to is None else (outgoing.to,)
        self._sim.transmit(self.replica, [ReplicaId(peer) for peer in peers if peer != self.replica], message)
        if outgoing.to is None and isinstance(message, SIGNED):
            self.later(0, lambda: self._loop_back(message))

    def _loop_back(self, message: PeerMessage) -> None:
        assert self.core is not None
        self.core.step(message, self.replica, self.now)

    def _execute_next(self) -> None:
        if self._is_executing or not self._to_execute or not self.is_durable(self._to_execute[0].after):
            return
        self._is_executing = True
        execute = self._to_execute.pop(0)
        executor_run = self._executor_run
        delay_us = self._sim.jitter(self._sim.execute_us(self.replica))
        self.later(delay_us, lambda: self._executed(execute, executor_run))

    def _executed(self, execute: Execute, executor_run: int) -> None:
        if executor_run != self._executor_run:
            return
        assert self.core is not None
        self._is_executing = False
        self.database.execute(execute)
        self._sim.check_executed(self, execute)
        database = self.database
        self.core.executed(execute.sequence, database.block_hash, database.next_timer_us, self.now)
        self._execute_next()

    def _serve(self, serve: Serve) -> None:
        request = serve.request
        if isinstance(request, FetchAttest):
            executed = self.database.blocks[request.sequence - 1]
            attest = Attest(request.epoch, request.sequence, executed.order_hash, executed.block_hash)
            signed = self._sim.wire.sign(attest, key_of("consensus", self.replica))
            self._sim.transmit(self.replica, [serve.to], signed)
            return
        blocks: tuple[OrderedBatch, ...] = tuple(
            executed.block for executed in self.database.blocks[request.first - 1 : request.last]
        )
        if blocks:
            self._sim.transmit(self.replica, [serve.to], FetchedBlocks(request.epoch, blocks))


class Simulator:
    def __init__(self, seed: int, swarm: Swarm | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        Swarm.draw(self.rng)
        self.swarm = swarm or Swarm.of(seed)
        parameters = Parameters(
            window=self.swarm.window,
            checkpoint_interval=self.swarm.checkpoint_interval,
            batch_requests_max=self.swarm.batch_requests_max,
        )
        self.cluster = cluster_of(self.swarm.n, parameters)
        self.wire = Wire(self.cluster)
        self.verifier = Verifier(self.wire)
        self.now_us = 0
        self.deliveries = 0
        self._hash = hashlib.sha256()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._event_count = 0
        self._healed = False
        self._cut: dict[tuple[int, int], int] = {}
        self.nodes = [Node(self, ReplicaId(replica)) for replica in range(self.swarm.n)]
        for node in self.nodes:
            node.skew_us = self.rng.randint(-self.swarm.skew_us, self.swarm.skew_us)
        self.requests: dict[bytes, Request] = {}
        self._done: dict[bytes, int] = {}
        self.order: dict[int, tuple[bytes, bytes]] = {}
        self.block_hashes: dict[int, bytes] = {}
        self._votes: dict[tuple[int, str, int, int], bytes] = {}
        self._highest: list[int] = [0] * self.swarm.n

    # Options and time ----------------------------------------------------------------------------

    def options(self, replica: ReplicaId) -> CoreOptions:
        swarm = self.swarm
        return CoreOptions(
            n=swarm.n,
            me=replica,
            cluster_id=self.cluster.cluster_id,
            epoch=self.cluster.epoch,
            config_hash=self.cluster.config_hash,
            window=swarm.window,
            checkpoint_interval=swarm.checkpoint_interval,
            batch_requests_max=swarm.batch_requests_max,
            pipeline=swarm.pipeline,
            sync_prepare=swarm.sync_prepare,
        )

    def execute_us(self, replica: ReplicaId) -> int:
        slow = replica == self.swarm.slow_executor and not self._healed
        return self.swarm.execute_us * (20 if slow else 1)

    def jitter(self, mean_us: int) -> int:
        return self.rng.randint(mean_us // 2, mean_us + mean_us // 2)

    def after(self, delay_us: int, event: Callable[[], None]) -> None:
        self._event_count += 1
        heapq.heappush(self._events, (self.now_us + delay_us, self._event_count, event))

    # Network -------------------------------------------------------------------------------------

    def transmit(self, sender: ReplicaId, peers: list[ReplicaId], message: PeerMessage) -> None:
        frame = self.wire.encode(message)
        for peer in peers:
            if (sender, type(message).__name__, peer) not in self.swarm.omissions.muted:
                self._transmit(sender, peer, frame)

    def _transmit(self, sender: ReplicaId, to: ReplicaId, frame: bytes) -> None:
        if to in self.swarm.dead:
            return
        swarm = self.swarm
        copies = 1
        if not self._healed:
            if self._cut.get((sender, to), 0) > self.now_us or self.rng.random() < swarm.loss:
                return
            copies += self.rng.random() < swarm.duplication
        for _ in range(copies):
            delay_us = self.jitter(swarm.delay_us)
            if not self._healed and self.rng.random() < swarm.slow:
                delay_us *= 10
            self.after(delay_us, lambda: self._deliver(sender, to, frame))

    def _deliver(self, sender: ReplicaId, to: ReplicaId, frame: bytes) -> None:
        self.deliveries += 1
        self._hash.update(b"%d %d %d " % (self.now_us, sender, to))
        self._hash.update(frame)
        self.nodes[to].receive(frame, sender)

    # Schedule ------------------------------------------------------------------------------------

    def _plan(self) -> None:
        swarm, rng = self.swarm, self.rng
        for node in self.nodes:
            if node.replica not in swarm.dead:
                self.after(rng.randint(0, 5 * MS), node.start)
        for number in range(swarm.requests):
            client, sequence = number % swarm.clients, number // swarm.clients + 1
            request = request_of(self.wire, client, sequence, GENESIS_US + 500_000_000, b"%d" % number)
            self.requests[request.digest] = request
            self.after(rng.randint(0, swarm.faults_us), lambda request=request: self._offer(request))  # type: ignore[misc]
        for _ in range(swarm.crashes):
            self.after(rng.randint(0, swarm.faults_us), self._crash_one)
        for _ in range(swarm.partitions):
            self.after(rng.randint(0, swarm.faults_us), self._partition)
        for _ in range(swarm.executor_restarts):
            self.after(rng.randint(0, swarm.faults_us), self._restart_executor)
        for _ in range(swarm.omissions.silences):
            self.after(rng.randint(0, swarm.faults_us), self._silence)
        self.after(swarm.faults_us, self._heal)

    def _offer(self, request: Request) -> None:
        """A client sends to some or all, and again until some replica has executed it."""
        if request.digest in self._done:
            return
        everyone = [node for node in self.nodes if node.replica not in self.swarm.dead]
        chosen = everyone
        if not self._healed and self.rng.random() < 0.5:
            chosen = [node for node in everyone if self.rng.random() < 0.4]
        for node in chosen:
            self.after(self.jitter(self.swarm.delay_us), lambda node=node: node.submit(request))  # type: ignore[misc]
        self.after(self.rng.randint(500, 1500) * MS, lambda: self._offer(request))

    def _crash_one(self) -> None:
        alive = [node for node in self.nodes if node.core is not None]
        if not alive:
            return
        node = self.rng.choice(alive)
        self._hash.update(b"crash %d" % node.replica)
        node.crash(self.rng)
        self.after(self.rng.randint(1, 800) * MS, lambda: self._restart(node))

    def _restart(self, node: Node) -> None:
        if node.core is None and node.replica not in self.swarm.dead:
            node.start()

    def _partition(self) -> None:
        side = [self.rng.random() < 0.5 for _ in self.nodes]
        until_us = self.now_us + self.rng.randint(50, 1500) * MS
        one_way = self.rng.random() < 0.3
        for a in range(self.swarm.n):
            for b in range(self.swarm.n):
                if side[a] != side[b] and (not one_way or side[a]):
                    self._cut[(a, b)] = until_us

    def _silence(self) -> None:
        """The primary is not heard by one backup for a while."""
        backup = self.rng.randrange(1, self.swarm.n)
        self._cut[(0, backup)] = self.now_us + self.rng.randint(20, 800) * MS

    def _restart_executor(self) -> None:
        node = self.rng.choice(self.nodes)
        if node.core is not None:
            node.restart_executor()
            node.pump()

    def _heal(self) -> None:
        self._healed = True
        for node in self.nodes:
            self._restart(node)

    def is_complete(self) -> bool:
        if not self._healed or len(self._done) < len(self.requests):
            return False
        alive = [node for node in self.nodes if node.replica not in self.swarm.dead]
        if any(node.core is None for node in alive):
            return False
        heights = {node.database.height for node in alive if node.replica not in self.swarm.omissions.members}
        return len(heights) == 1 and heights == {len(self.order)}

    def run(self, limit_us: int = 120_000_000) -> Outcome:
        """Until everything is executed everywhere. Violation when it is not by `limit_us` after healing."""
        self._plan()
        while self._events and not self.is_complete():
            self.now_us, _, event = heapq.heappop(self._events)
            if self.now_us > self.swarm.faults_us + limit_us:
                raise Violation(f"seed {self.seed}: no progress, {self._describe()}")
            event()
        executed = [
            request.digest for node in self.nodes[:1] for b in node.database.blocks for request in b.block.requests
        ]
        return Outcome(
            self.seed,
            self.swarm,
            self._hash.hexdigest(),
            len(self.order),
            self.deliveries,
            self.now_us,
            len(executed) - len(dict.fromkeys(executed)),
        )

    def _describe(self) -> str:
        status = [node.core.status() if node.core is not None else None for node in self.nodes]
        missing = len(self.requests) - len(self._done)
        return f"{missing} requests not executed, {self.swarm}\n" + "\n".join(str(line) for line in status)

    # Invariants ----------------------------------------------------------------------------------

    def _require(self, holds: bool, node: Node, what: str) -> None:
        if not holds:
            raise Violation(f"seed {self.seed}, {self.now_us} us, replica {node.replica}: {what}")

    def report(self, node: Node, fault: Fault) -> None:
        raise Violation(f"seed {self.seed}, {self.now_us} us: replica {node.replica} blames a correct one: {fault}")

    def check_record(self, node: Node, record: object) -> None:
        thresholds = self.cluster.thresholds
        match record:
            case Prepared(certificate):
                primary = thresholds.primary(certificate.view)
                valid = self.wire.verify_prepare_certificate(certificate, threshold=thresholds.q, primary=primary)
                self._require(valid, node, f"certificate of {certificate.batch.sequence} is not valid")
            case Stable(certificate):
                valid = self.wire.verify_attest_certificate(certificate, threshold=thresholds.q)
                self._require(valid, node, f"stable certificate of {certificate.sequence} is not valid")
                known = self.order.get(certificate.sequence)
                self._require(known is not None and known[1] == certificate.order_hash, node, "stable, not ordered")
            case Decided(sequence, digest, order_hash):
                self._agree(node, sequence, digest, order_hash)
            case _:
                pass

    def _agree(self, node: Node, sequence: int, digest: bytes, order_hash: bytes) -> None:
        agreed = self.order.setdefault(sequence, (digest, order_hash))
        self._require(agreed == (digest, order_hash), node, f"another batch decided at {sequence}")

    def check_sent(self, node: Node, message: PeerMessage) -> None:
        match message:
            case PrePrepare(view=view, batch=batch):
                if self.cluster.thresholds.primary(view) == node.replica:
                    self._one_vote(node, "proposal", view, batch.sequence, batch.digest)
            case Prepare(view=view, sequence=sequence, digest=digest):
                self._one_vote(node, "prepare", view, sequence, digest)
            case Commit(view=view, sequence=sequence, digest=digest):
                self._one_vote(node, "commit", view, sequence, digest)
                self._require(node.disk.holds_certificate(sequence, digest), node, f"COMMIT {sequence} too early")
            case Attest(sequence=sequence, order_hash=order_hash, block_hash=block_hash):
                known = self.block_hashes.get(sequence)
                self._require(known == block_hash, node, f"ATTEST {sequence} of a block nobody executed")
                self._require(self.order[sequence][1] == order_hash, node, f"ATTEST {sequence} of another order")
            case _:
                pass

    def _one_vote(self, node: Node, phase: str, view: int, sequence: int, digest: bytes) -> None:
        first = self._votes.setdefault((node.replica, phase, view, sequence), digest)
        self._require(first == digest, node, f"two {phase}s in view {view} at {sequence}")

    def check_executed(self, node: Node, execute: Execute) -> None:
        batch = execute.block.batch
        self._agree(node, execute.sequence, batch.digest, execute.order_hash)
        block_hash = self.block_hashes.setdefault(execute.sequence, node.database.block_hash)
        self._require(block_hash == node.database.block_hash, node, f"another state after {execute.sequence}")
        for request in execute.block.requests:
            known = self.requests.get(request.digest)
            self._require(known is not None and known.record == request.record, node, "a request nobody submitted")
            before = self._done.setdefault(request.digest, execute.sequence)
            # Tombstones last 2 L blocks; later copies are ordered again, and the sessions answer DUPLICATE.
            is_late = execute.sequence > before + 2 * self.swarm.window
            self._require(execute.sequence <= before or is_late, node, "a request ordered twice, close together")


def run_seed(seed: int) -> Outcome:
    return Simulator(seed).run()


def with_options(seed: int, **changes: object) -> Simulator:
    """The seed's schedule with some options fixed, and nobody who omits."""
    return Simulator(seed, replace(Swarm.draw(random.Random(seed)), **changes))  # type: ignore[arg-type]


def with_omissions(seed: int, **changes: object) -> Simulator:
    """The seed's schedule with some options fixed, and members that omit where f allows it."""
    return Simulator(seed, replace(Swarm.draw(random.Random(seed)), **changes).omitting(seed))  # type: ignore[arg-type]
