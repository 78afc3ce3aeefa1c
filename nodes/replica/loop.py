"""The loop of one replica: the one place where clock, disk, sockets and the core meet.

One thread. A turn takes votes first, of each peer no more than its allowance (`nodes.replica.inbox`), then
what the log and the executor have finished, then one chunk of client requests, so that votes never wait
for more than a chunk. `_obey` is the one function that
does what the core's `Ready` asks for, in the order of persistence (`nodes.core.ready`).
Deliberately elsewhere: agreement (`nodes.core`), bytes and signatures (`nodes.wire`), the log's thread
(`nodes.wal`), clients (`nodes.replica.clients`).
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import Any, assert_never

import structlog
import zmq

from nodes.block import BlockHeader, block_hash
from nodes.config import NodeConfig
from nodes.core.messages import (
    Attest,
    Commit,
    FetchBlocks,
    FetchBody,
    Hello,
    HelloAnswer,
    NewView,
    Prepare,
    PrePrepare,
    ViewChange,
    Wish,
)
from nodes.core.ready import Execute, Outgoing, Ready
from nodes.core.replica import Replica
from nodes.core.types import Fault, FaultCode, Now, ReplicaId, SequenceNumber
from nodes.executor.protocol import (
    Archive,
    BlockExecuted,
    BlockFound,
    ExecuteBlock,
    ExecutorAlarm,
    QueryAnswer,
    ReceiptFound,
    Up,
)
from nodes.executor.protocol import Ready as ExecutorReady
from nodes.keys import SigningKey
from nodes.replica import status
from nodes.replica.archive import ArchiveService
from nodes.replica.clients import Clients
from nodes.replica.durability import Journal
from nodes.replica.executor_port import ExecutorPort, Questions
from nodes.replica.inbox import Inbox
from nodes.transport import ClientSocket, Mesh
from nodes.wire import Wire, WireError

CLIENT_FRAMES = 64
"""Frames taken in one turn."""
WAIT_MS_MAX = 1000
RETRY_MS = 20
"""How soon to try again with what a peer did not take."""
HOUSEKEEPING_US = 200_000
STATUS_AGE_US = 50_000
FAULTS_LOGGED = 3
"""Of one kind and replica; more are only counted."""

log = structlog.get_logger(__name__)

_VOTES = (PrePrepare, Prepare, Commit, Attest)
_SIGNED = (PrePrepare, Prepare, Commit, Attest, Wish, ViewChange, NewView, Hello, HelloAnswer)


class Loop:
    """Takes over what it is given and closes it. `stop_fd` readable: stop."""

    def __init__(
        self,
        *,
        node: NodeConfig,
        wire: Wire,
        key: SigningKey,
        core: Replica,
        journal: Journal,
        mesh: Mesh,
        client_socket: ClientSocket,
        port: ExecutorPort,
        stop_fd: int,
    ) -> None:
        self._wire = wire
        self._key = key
        self._core = core
        self._me = core.options.me
        self._journal = journal
        self._mesh = mesh
        self._client_socket = client_socket
        self._port = port
        self._stop_fd = stop_fd
        self._questions = Questions(port)
        self._archive = ArchiveService(wire, key, self._questions, mesh.send)
        self._clients = Clients(
            wire=wire,
            key=key,
            core=core,
            socket=client_socket,
            questions=self._questions,
            admission=node.admission,
            gateways=node.gateways,
            may_read=self._may_read,
            status=self._status_bytes,
        )
        now = _now()
        self._deadline_us = 0
        self._housekeeping_us = 0
        self._reads_from = core.status().last_committed
        """No read is answered from a state before this block: what was decided at boot, or attested since."""
        self._loop = status.LoopHealth(started_us=now.monotonic_us)
        self._executor = status.ExecutorHealth()
        self._peers = {
            member.replica: status.PeerHealth() for member in wire.cluster.members if member.replica != self._me
        }
        self._inbox = Inbox(wire, self._peers, self._note_refusal)
        self._status: dict[str, Any] = {}
        self._status_us = -STATUS_AGE_US
        self._poller = zmq.Poller()
        sockets = [mesh.control, mesh.bulk, client_socket.socket, port.socket]
        for waited in [*(socket for socket in sockets if socket is not None), journal.wal.event_fd, stop_fd]:
            self._poller.register(waited, zmq.POLLIN)

    # The loop ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop_fd` is readable. Anything raised here is a bug or a broken disk, and ends the process."""
        self._settle(_now())
        while not self.turn():
            pass

    def turn(self) -> bool:
        """Wait for something, then do what there is. True: asked to stop."""
        readable = dict(self._poller.poll(self._timeout_ms()))
        if self._stop_fd in readable:
            return True
        now = _now()
        if self._journal.wal.event_fd in readable and self._journal.synced():
            self._core.persisted(self._journal.durable)
            self._release(now)
            self._settle(now)
        if self._inbox or self._mesh.control in readable or self._mesh.bulk in readable:
            self._take_peers(now)
        for said in self._port.turn(now.monotonic_us):
            self._on_executor(said, now)
        self._settle(now)
        if self._client_socket.socket in readable:
            for frame in self._client_socket.receive(CLIENT_FRAMES):
                self._clients.take(frame, now)
        if self._clients.waiting_requests:
            self._clients.verify_chunk(now)
            self._settle(now)
        self._clients.tick(now)
        if now.monotonic_us >= self._deadline_us:
            self._core.tick(now)
            self._settle(now)
        if now.monotonic_us >= self._housekeeping_us:
            self._housekeep(now)
        self._mesh.flush(now.monotonic_us)
        self._clients.gone(self._client_socket.flush())
        self._loop.note_turn(_now().monotonic_us - now.monotonic_us)
        return False

    def _timeout_ms(self) -> int:
        if self._clients.waiting_requests or self._port.has_work or self._inbox:
            return 0
        due_us = min(self._deadline_us, self._housekeeping_us)
        clients_us = self._clients.due_us()
        if clients_us is not None:
            due_us = min(due_us, clients_us)
        left_ms = -(-(due_us - _now().monotonic_us) // 1000)
        longest_ms = RETRY_MS if self._mesh.waiting_bytes else WAIT_MS_MAX
        return max(0, min(left_ms, longest_ms))

    def _take_peers(self, now: Now) -> None:
        for sender in self._inbox.fill(self._mesh):
            peer = self._peers[sender]
            peer.heard_us = now.monotonic_us
            peer.frames += 1
        for sender, messages in self._inbox.turn():
            for message in messages:
                self._core.step(message, sender, now)
            self._settle(now)

    def _note_refusal(self, sender: ReplicaId, error: WireError) -> None:
        peer = self._peers[sender]
        peer.refused_frames += 1
        if peer.refused_frames <= FAULTS_LOGGED:
            log.warning("peer_frame_refused", peer=sender, code=error.code, detail=error.detail)

    # Ready ---------------------------------------------------------------------------------------

    def _settle(self, now: Now) -> None:
        """Obey the core until it asks for nothing more."""
        while not (ready := self._core.ready()).is_empty:
            self._obey(ready, now)
        self._journal.flush()
        self._deadline_us = ready.deadline_us

    def _obey(self, ready: Ready, now: Now) -> None:
        """What `Ready` asks for, in its order."""
        self._journal.append(ready.records, ready.lsn)
        for check in ready.checks:
            self._core.verified(check.token, self._wire.verify_checks(check), now)
        for outgoing in ready.messages:
            if self._journal.admits(outgoing):
                self._send(outgoing, now)
        for execute in ready.execute:
            if self._journal.admits(execute):
                self._hand_over(execute)
        for serve in ready.serve:
            self._archive.serve(serve, now.monotonic_us)
        for fault in ready.faults:
            self._note_fault(fault)

    def _release(self, now: Now) -> None:
        """What waited for the records that are durable by now."""
        for item in list(self._journal.release()):
            match item:
                case Outgoing():
                    self._send(item, now)
                case Execute():
                    self._hand_over(item)
                case _:
                    assert_never(item)

    def _send(self, outgoing: Outgoing, now: Now) -> None:
        message = outgoing.message
        if isinstance(message, _SIGNED) and not message.signature:
            message = replace(message, signature=self._key.sign(self._wire.signed_bytes(message)))
        encoded = self._wire.encode(message)
        if outgoing.to is not None:
            if isinstance(message, FetchBlocks | FetchBody):
                self._inbox.asked(message, outgoing.to)
            self._mesh.send(outgoing.to, encoded)
            return
        self._mesh.broadcast(encoded)
        if isinstance(message, _VOTES):
            self._core.step(message, self._me, now)
            if isinstance(message, Attest):
                self._loop.attested = message
                self._clients.attested(message, encoded)

    def _hand_over(self, execute: Execute) -> None:
        batch = execute.block.batch
        self._port.execute(ExecuteBlock(execute.sequence, batch.header, execute.block.body, execute.order_hash))

    def _note_fault(self, fault: Fault) -> None:
        key = (fault.sender, fault.code.name.lower())
        count = self._loop.faults.get(key, 0) + 1
        self._loop.faults[key] = count
        if fault.sender == self._me and fault.code is FaultCode.DIVERGED:
            log.error("own_state_diverged", executed=self._executor.sequence)
        elif count <= FAULTS_LOGGED:
            log.warning("peer_fault", peer=fault.sender, code=key[1], proven=bool(fault.evidence))

    # Executor ------------------------------------------------------------------------------------

    def _on_executor(self, said: Up, now: Now) -> None:
        if not self._executor.is_known and not isinstance(said, ExecutorReady | ExecutorAlarm):
            return  # an answer to this replica's former self
        match said:
            case ExecutorReady():
                self._on_executor_ready(said)
            case BlockExecuted():
                self._on_executed(said, now)
            case QueryAnswer() | Archive() | ReceiptFound() | BlockFound():
                self._questions.answered(said.token, said)
            case ExecutorAlarm(reason):
                self._executor.alarm = reason
                log.error("executor_alarm", reason=reason)
            case _:
                assert_never(said)

    def _on_executor_ready(self, said: ExecutorReady) -> None:
        """It stands after block `said.sequence`; the core hands over what follows."""
        executor = self._executor
        self._reads_from = max(self._reads_from, SequenceNumber(executor.sequence))
        executor.is_known = True
        executor.restarts += 1
        executor.alarm = ""
        executor.build, executor.database = said.build, said.database
        executor.sequence, executor.time_us, executor.block_hash = said.sequence, said.time_us, said.block_hash
        executor.state_sequence, executor.state_root = said.state_sequence, said.state_root
        log.info("executor_ready", sequence=said.sequence, database=said.database, build=said.build)
        self._questions.forget_all()
        self._journal.forget_blocks()
        self._core.executed_through(SequenceNumber(said.sequence), said.block_hash, said.next_timer_us)

    def _on_executed(self, said: BlockExecuted, now: Now) -> None:
        if said.sequence <= self._executor.sequence:
            return  # handed over twice, around a Ready
        header = BlockHeader.unpack(said.block_header)
        executor = self._executor
        executor.sequence, executor.time_us, executor.block_hash = said.sequence, header.time_us, header.hash
        executor.state_sequence, executor.state_root = header.state_sequence, header.state_root
        executor.alarm = ""
        self._clients.replies.executed(said)
        self._core.executed(SequenceNumber(said.sequence), block_hash(said.block_header), said.next_timer_us, now)

    def _may_read(self) -> bool:
        return self._executor.is_known and self._executor.sequence >= self._reads_from

    # Housekeeping --------------------------------------------------------------------------------

    def _housekeep(self, now: Now) -> None:
        self._housekeeping_us = now.monotonic_us + HOUSEKEEPING_US
        self._questions.expire(now.monotonic_us)
        self._clients.housekeep(now)
        self._refresh_status()

    def _status_bytes(self) -> bytes:
        if _now().monotonic_us - self._status_us >= STATUS_AGE_US:
            self._refresh_status()
        return json.dumps(self._status, separators=(",", ":")).encode()

    @property
    def status(self) -> dict[str, Any]:
        """The latest snapshot, replaced and never changed: other threads may read it."""
        return self._status

    def _refresh_status(self) -> None:
        now_us = _now().monotonic_us
        self._status_us = now_us
        core, wal, clients = self._core.status(), self._journal.wal.statistics, self._clients
        attested = self._loop.attested
        members = self._wire.cluster.members
        self._status = {
            "replica": self._me,
            "name": members[self._me].name,
            "cluster_id": self._wire.cluster.cluster_id.hex(),
            **status.software_status(),
            "view": core.view,
            "mode": core.mode.name.lower(),
            "primary": core.primary,
            "sequence": self._executor.sequence,
            "block_hash": self._executor.block_hash.hex(),
            "committed": core.last_committed,
            "stable": core.stable,
            "order_hash": core.order_hash.hex(),
            "block_time_us": self._executor.time_us,
            "attested": None
            if attested is None
            else {"sequence": attested.sequence, "block_hash": attested.block_hash.hex()},
            "state": {"sequence": self._executor.state_sequence, "root": self._executor.state_root.hex()},
            "catching_up": core.is_catching_up,
            "diverged": core.is_diverged,
            "peers": [
                status.peer_status(replica, members[replica].name, peer, now_us)
                for replica, peer in self._peers.items()
            ],
            "executor": status.executor_status(self._executor, core.last_committed),
            "wal": {
                "records": wal.records,
                "bytes": wal.bytes,
                "syncs": wal.syncs,
                "sync_us_mean": wal.sync_us_total // wal.syncs if wal.syncs else 0,
                "sync_us_last": wal.sync_us_last,
                "sync_us_max": wal.sync_us_max,
                "segments": self._journal.wal.segment_count,
            },
            "queues": {
                "pool": core.pool_count,
                "ready": core.ready_count,
                "unverified": clients.waiting_requests,
                "unanswered": clients.replies.waiting,
                "questions": len(self._questions),
                "subscribers": clients.subscribers,
                "peer_bytes": self._mesh.waiting_bytes,
                "peer_frames": self._inbox.waiting,
                "undurable": self._journal.waiting,
            },
            "counters": {
                "requests": clients.statistics.requests,
                "verified": clients.statistics.verified,
                "bad_signatures": clients.statistics.bad_signatures,
                "bad_frames": clients.statistics.bad_frames,
                "busy": clients.statistics.busy,
                "questions": clients.statistics.questions,
                "replies": clients.replies.sent,
                "read_shares": clients.reads.sent,
                "peer_messages_dropped": self._mesh.dropped,
                "peer_messages_ignored": self._inbox.ignored,
                "peer_frames_dropped": self._inbox.dropped,
                "client_messages_dropped": self._client_socket.dropped,
                "connections_refused": self._mesh.refused_connections + self._client_socket.refused_connections,
                "blocks_served": self._archive.served_blocks,
            },
            "faults": [
                {"replica": replica, "code": code, "count": count}
                for (replica, code), count in sorted(self._loop.faults.items())
            ],
            "loop": status.loop_status(self._loop, now_us),
        }

    def close(self) -> None:
        """Sockets first, then the log with all that was appended, then the executor."""
        self._mesh.flush(_now().monotonic_us)
        self._client_socket.flush()
        self._client_socket.close()
        self._mesh.close()
        self._journal.wal.close()
        self._port.close()
        os.close(self._stop_fd)


def _now() -> Now:
    return Now(time.monotonic_ns() // 1000, time.time_ns() // 1000)
