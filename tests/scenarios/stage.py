"""A cluster on a stage: first in, first out, no chance, nothing happens but what a command says.

Commands (one a line; see `cases/`):
    cluster n=4 [window=16 interval=2 pipeline=2 batch=1024]   begin
    submit client=1 sequence=1 [to=0,2]      a client's request reaches replicas (default: all)
    run                                      deliver and sync until nothing moves
    advance ms=60                            let time pass, then run
    cut 0 3 | join 0 3                       drop, or carry again, what one sends the other (both ways)
    lose TYPE [from=0] [to=3]                drop messages of a type; `lose nothing` ends it
    hold 1 | sync 1                          a disk stops, or goes on, syncing
    pause 2 | resume 2                       an executor stops, or goes on
    crash 3 | start 3                        a process dies with what was not synced; comes back with the rest
    equivocate 0 sequence=1 to=3             a second, signed proposal of that replica is sent to one
    forge 2 sequence=1                       replica 2's next PREPARE for the sequence has a bad signature
    status                                   where everybody stands
The answer is the trace: log records, messages (not STATUS), blocks executed, faults noticed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

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
    PeerMessage,
    Prepare,
    PrePrepare,
    Status,
)
from nodes.core.options import CoreOptions
from nodes.core.proposal import build_batch
from nodes.core.ready import Execute, Outgoing
from nodes.core.records import Accepted, Adopted, Decided, Prepared, Record, Stable, ViewEntered
from nodes.core.replica import Replica
from nodes.core.types import BatchKind, Lsn, Now, ReplicaId, SequenceNumber, View
from nodes.wire import Wire

SIGNED = (PrePrepare, Prepare, Commit, Attest)
TYPES: dict[str, type[PeerMessage]] = {
    "PRE-PREPARE": PrePrepare,
    "PREPARE": Prepare,
    "COMMIT": Commit,
    "ATTEST": Attest,
    "STATUS": Status,
    "FETCHED": FetchedBlocks,
}
STEP_US = 10_000


class Actor:
    """One replica: core, disk, executor."""

    def __init__(self, stage: Stage, replica: int) -> None:
        self.stage = stage
        self.replica = ReplicaId(replica)
        self.disk = Disk(stage.wire)
        self.database = Database(stage.cluster.config_hash)
        self.core: Replica | None = None
        self.holds_sync = self.is_paused = False
        self.forged: set[int] = set()
        self._base = 0
        self._waiting: list[Outgoing] = []
        self._blocks: deque[Execute] = deque()

    def start(self) -> None:
        records = self.disk.records()
        self._base, self._waiting, self._blocks = len(records), [], deque()
        self.core = Replica(self.stage.options(self.replica), records)
        database = self.database
        self.core.executed_through(SequenceNumber(database.height), database.block_hash, database.next_timer_us)
        self.core.tick(self.stage.now)

    def crash(self) -> None:
        self.core = None
        self.disk.crash(_NoLuck())  # type: ignore[arg-type]

    def move(self) -> bool:
        """Do what the core wants and can have. False: it wants nothing."""
        if self.core is None:
            return False
        ready = self.core.ready()
        for record in ready.records:
            self.disk.append(record)
            self.stage.note(f"{self.replica} log {self.stage.describe_record(record)}")
        self._waiting += ready.messages
        self._blocks += ready.execute
        for check in ready.checks:
            self.core.verified(check.token, self.stage.verifier.flags(check), self.stage.now)
        for fault in ready.faults:
            proven = ", proven" if fault.evidence else ""
            self.stage.note(f"{self.replica} blames {fault.sender}: {fault.code.name}{proven}")
        for serve in ready.serve:
            assert isinstance(serve.request, FetchBlocks), "scenarios do not restart what has attested"
            blocks = self.database.blocks[serve.request.first - 1 : serve.request.last]
            self.stage.send(self.replica, serve.to, FetchedBlocks(0, tuple(executed.block for executed in blocks)))
        moved = not ready.is_empty
        if not self.holds_sync and self.disk.durable < len(self.disk):
            self.disk.sync(len(self.disk))
            self.core.persisted(Lsn(self.disk.durable - self._base))
            moved = True
        return self._send_due() or self._execute_due() or moved

    def _send_due(self) -> bool:
        waiting, self._waiting = self._waiting, []
        moved = False
        for outgoing in waiting:
            if outgoing.after + self._base > self.disk.durable and outgoing.after:
                self._waiting.append(outgoing)
                continue
            moved = True
            self._send(outgoing)
        return moved

    def _send(self, outgoing: Outgoing) -> None:
        assert self.core is not None
        message = outgoing.message
        if isinstance(message, SIGNED) and not message.signature:
            message = self.stage.wire.sign(message, key_of("consensus", self.replica))
            if isinstance(message, Prepare) and message.sequence in self.forged:
                message = replace(message, signature=bytes(64))
        self.stage.send(self.replica, outgoing.to, message)
        if outgoing.to is None and isinstance(message, SIGNED):
            self.core.step(message, self.replica, self.stage.now)

    def _execute_due(self) -> bool:
        assert self.core is not None
        if self.is_paused or not self._blocks or self._blocks[0].after + self._base > self.disk.durable:
            return False
        execute = self._blocks.popleft()
        self.database.execute(execute)
        self.stage.note(f"{self.replica} execute {execute.sequence} {self.stage.name(execute.block.batch.digest)}")
        database = self.database
        self.core.executed(execute.sequence, database.block_hash, database.next_timer_us, self.stage.now)
        return True


class _NoLuck:
    def randint(self, low: int, high: int) -> int:
        return low


class Stage:
    def __init__(self) -> None:
        self.us = 1_000_000
        self.trace: list[str] = []
        self.actors: list[Actor] = []
        self._mail: deque[tuple[ReplicaId, ReplicaId, bytes]] = deque()
        self._cut: set[tuple[int, int]] = set()
        self._lost: list[tuple[type[PeerMessage], int | None, int | None]] = []
        self._names: dict[bytes, str] = {}

    @property
    def now(self) -> Now:
        return Now(self.us, GENESIS_US + self.us)

    def play(self, line: str) -> list[str]:
        """Obey one command; what it made happen."""
        self.trace = []
        verb, *words = line.split()
        options = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        action: Callable[..., None] = getattr(self, f"do_{verb}")
        action(*plain, **options)
        return self.trace

    def note(self, line: str) -> None:
        self.trace.append(line)

    # Commands ------------------------------------------------------------------------------------

    def do_cluster(
        self, n: str, window: str = "256", interval: str = "16", pipeline: str = "2", batch: str = "1024"
    ) -> None:
        parameters = Parameters(window=int(window), checkpoint_interval=int(interval), batch_requests_max=int(batch))
        self.cluster = cluster_of(int(n), parameters)
        self.wire = Wire(self.cluster)
        self.verifier = Verifier(self.wire)
        self._pipeline = int(pipeline)
        self.actors = [Actor(self, replica) for replica in range(int(n))]
        for actor in self.actors:
            actor.start()
        self.do_run()

    def do_submit(self, client: str, sequence: str, to: str = "") -> None:
        request = request_of(self.wire, int(client), int(sequence), GENESIS_US + 60_000_000)
        chosen = [self.actors[int(replica)] for replica in to.split(",")] if to else self.actors
        for actor in chosen:
            if actor.core is not None:
                admission = actor.core.admit([request], self.now)
                actor.core.submit(admission.accepted, self.now)
                self.note(f"{actor.replica} {'takes it' if admission.accepted else 'knows it'}")

    def do_run(self) -> None:
        moved = True
        while moved:
            moved = False
            for actor in self.actors:
                while actor.move():
                    moved = True
            while self._mail:
                sender, to, frame = self._mail.popleft()
                core = self.actors[to].core
                for message in self.wire.decode_frame(frame, sender):
                    if core is not None:
                        core.step(message, sender, self.now)
                        moved = True

    def do_advance(self, ms: str) -> None:
        end = self.us + int(ms) * 1000
        while self.us < end:
            self.us += STEP_US
            for actor in self.actors:
                if actor.core is not None:
                    actor.core.tick(self.now)
            self.do_run()

    def do_cut(self, one: str, other: str) -> None:
        self._cut |= {(int(one), int(other)), (int(other), int(one))}

    def do_join(self, one: str, other: str) -> None:
        self._cut -= {(int(one), int(other)), (int(other), int(one))}

    def do_lose(self, kind: str, to: str | None = None, **words: str) -> None:
        if kind == "nothing":
            self._lost = []
            return
        sender = words.get("from")
        self._lost.append((TYPES[kind], None if sender is None else int(sender), None if to is None else int(to)))

    def do_hold(self, replica: str) -> None:
        self.actors[int(replica)].holds_sync = True

    def do_sync(self, replica: str) -> None:
        self.actors[int(replica)].holds_sync = False
        self.do_run()

    def do_pause(self, replica: str) -> None:
        self.actors[int(replica)].is_paused = True

    def do_resume(self, replica: str) -> None:
        self.actors[int(replica)].is_paused = False
        self.do_run()

    def do_crash(self, replica: str) -> None:
        self.actors[int(replica)].crash()

    def do_start(self, replica: str) -> None:
        self.actors[int(replica)].start()
        self.do_run()

    def do_equivocate(self, replica: str, sequence: str, to: str) -> None:
        options = self.options(ReplicaId(int(replica)))
        request = request_of(self.wire, 99, int(sequence), GENESIS_US + 60_000_000)
        stamp = self.now.wall_us
        batch, body = build_batch(BatchKind.NORMAL, SequenceNumber(int(sequence)), stamp, (request,), options)
        proposal = PrePrepare(0, View(0), batch, (request,), body)
        signed = self.wire.sign(proposal, key_of("consensus", int(replica)))
        self.send(ReplicaId(int(replica)), ReplicaId(int(to)), signed)

    def do_forge(self, replica: str, sequence: str) -> None:
        self.actors[int(replica)].forged.add(int(sequence))

    def do_status(self) -> None:
        for actor in self.actors:
            if actor.core is None:
                self.note(f"{actor.replica} is down")
                continue
            status = actor.core.status()
            self.note(
                f"{actor.replica} view={status.view} stable={status.stable} committed={status.last_committed} "
                f"executed={status.last_executed} pool={status.pool_count} order={self.name(status.order_hash)}"
            )

    # The world -----------------------------------------------------------------------------------

    def options(self, replica: ReplicaId) -> CoreOptions:
        parameters = self.cluster.parameters
        return CoreOptions(
            n=self.cluster.n,
            me=replica,
            cluster_id=self.cluster.cluster_id,
            epoch=0,
            config_hash=self.cluster.config_hash,
            window=parameters.window,
            checkpoint_interval=parameters.checkpoint_interval,
            batch_requests_max=parameters.batch_requests_max,
            pipeline=self._pipeline,
        )

    def send(self, sender: ReplicaId, to: ReplicaId | None, message: PeerMessage) -> None:
        if not isinstance(message, Status):
            self.note(f"{sender} -> {'*' if to is None else to} {self.describe(message)}")
        frame = self.wire.encode(message)
        for peer in range(len(self.actors)) if to is None else (to,):
            lost = (sender, peer) in self._cut or any(
                isinstance(message, kind) and source in (None, sender) and target in (None, peer)
                for kind, source, target in self._lost
            )
            if peer != sender and not lost:
                self._mail.append((sender, ReplicaId(peer), frame))

    # Words ---------------------------------------------------------------------------------------

    def name(self, digest: bytes) -> str:
        """Digests as #1, #2, ... in the order of their appearance."""
        return self._names.setdefault(digest, f"#{len(self._names) + 1}")

    def describe(self, message: PeerMessage) -> str:
        match message:
            case PrePrepare(view=view, batch=batch):
                kind = "" if batch.kind is BatchKind.NORMAL else f" {batch.kind.name}"
                return f"PRE-PREPARE v{view} s{batch.sequence} {self.name(batch.digest)}{kind} of {batch.count}"
            case Prepare(view=view, sequence=sequence, digest=digest):
                return f"PREPARE v{view} s{sequence} {self.name(digest)}"
            case Commit(view=view, sequence=sequence, digest=digest):
                return f"COMMIT v{view} s{sequence} {self.name(digest)}"
            case Attest(sequence=sequence, order_hash=order_hash):
                return f"ATTEST s{sequence} {self.name(order_hash)}"
            case AttestCertificate(sequence=sequence, signatures=signatures):
                return f"CERTIFICATE s{sequence} of {', '.join(str(signer) for signer, _ in signatures)}"
            case FetchBlocks(first=first, last=last):
                return f"FETCH blocks {first}..{last}"
            case FetchAttest(sequence=sequence):
                return f"FETCH attestation {sequence}"
            case FetchBody(sequence=sequence, digest=digest):
                return f"FETCH body s{sequence} {self.name(digest)}"
            case FetchedBlocks(blocks=blocks):
                return "FETCHED " + " ".join(f"s{b.batch.sequence} {self.name(b.batch.digest)}" for b in blocks)
            case FetchedBody(block=block):
                return f"FETCHED body s{block.batch.sequence} {self.name(block.batch.digest)}"
            case Forward(requests=requests):
                return f"FORWARD of {len(requests)}"
            case _:
                return type(message).__name__

    def describe_record(self, record: Record) -> str:
        match record:
            case Accepted(proposal):
                return f"Accepted s{proposal.batch.sequence} {self.name(proposal.batch.digest)}"
            case Prepared(certificate):
                signers = ", ".join(str(signer) for signer, _ in certificate.signatures)
                return f"Prepared s{certificate.batch.sequence} {self.name(certificate.batch.digest)} of {signers}"
            case Adopted(block):
                return f"Adopted s{block.batch.sequence} {self.name(block.batch.digest)}"
            case Decided(sequence, digest, order_hash):
                return f"Decided s{sequence} {self.name(digest)} order {self.name(order_hash)}"
            case Stable(certificate):
                return f"Stable s{certificate.sequence} of {', '.join(str(s) for s, _ in certificate.signatures)}"
            case ViewEntered(view, mode):
                return f"ViewEntered v{view} {mode.name}"
