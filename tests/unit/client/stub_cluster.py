"""Four replicas reduced to what a client sees: real keys, real wire bytes, real CURVE sockets, no agreement.

`StubCluster` makes blocks, attestations and shares as replicas would; `StubServers` puts them behind four
ROUTER sockets in a thread, with the misbehaviour that a test asks for.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import zmq

import fastpath
from nodes.block import BlockHeader, next_order_hash, result_leaf, timer_digest, timer_record
from nodes.config import ClusterConfig, Member
from nodes.core.messages import Attest
from nodes.core.types import ReplicaId, SequenceNumber
from nodes.keys import CurveKeys, SigningKey
from nodes.transport.clients import ClientSocket
from nodes.wire import (
    BlockAnswer,
    BlockQuery,
    Busy,
    BusyReason,
    Outcome,
    Read,
    ReadShare,
    ReceiptQuery,
    Reply,
    ReplyEntry,
    StatusAnswer,
    StatusQuery,
    Submit,
    Subscribe,
    Wire,
    operation_of,
    read_digest,
    share_leaf,
)

GENESIS_TIME_US = 1_700_000_000_000_000


@dataclass(frozen=True, slots=True)
class Leaf:
    digest: bytes
    status: int
    result: bytes
    record: bytes


@dataclass(frozen=True, slots=True)
class Block:
    header: BlockHeader
    leaves: tuple[Leaf, ...]

    def index_of(self, digest: bytes) -> int:
        return next(index for index, leaf in enumerate(self.leaves) if leaf.digest == digest)

    def path(self, index: int) -> bytes:
        return fastpath.merkle_path(_hashes(self.header.sequence, self.leaves), index)


def _hashes(sequence: int, leaves: tuple[Leaf, ...]) -> list[bytes]:
    return [result_leaf(sequence, at, leaf.digest, leaf.status, leaf.result) for at, leaf in enumerate(leaves)]


class StubCluster:
    """Keys of all members, and the chain of blocks."""

    def __init__(
        self,
        n: int = 4,
        ports: list[int] | None = None,
        curve_keys: list[CurveKeys] | None = None,
        https_ports: list[int] | None = None,
    ) -> None:
        self.keys = [SigningKey(bytes([replica + 1]) * 32) for replica in range(n)]
        self.curve_keys = curve_keys or [CurveKeys(bytes([replica + 1]) * 32, bytes(32)) for replica in range(n)]
        members = [
            Member(
                replica=ReplicaId(replica),
                name=f"node{replica}",
                identity_key=SigningKey(bytes([replica + 101]) * 32).public_key,
                consensus_key=self.keys[replica].public_key,
                curve_key=self.curve_keys[replica].public,
                host="127.0.0.1",
                peer_port=10_000 + 10 * replica,
                bulk_port=10_001 + 10 * replica,
                client_port=ports[replica] if ports else 10_002 + 10 * replica,
                https_port=https_ports[replica] if https_ports else 10_003 + 10 * replica,
            )
            for replica in range(n)
        ]
        self.config = ClusterConfig.new(
            members=members, genesis_time_us=GENESIS_TIME_US, application="stub", application_genesis={}
        )
        self.wire = Wire(self.config)
        self.blocks: list[Block] = []

    def execute(self, *leaves: Leaf) -> Block:
        """The next block of the chain, with these results."""
        sequence = len(self.blocks) + 1
        previous = self.blocks[-1].header if self.blocks else None
        genesis = self.config.config_hash
        digest = fastpath.sha256(sequence.to_bytes(8, "little"))
        header = BlockHeader(
            cluster_id=self.config.cluster_id,
            epoch=0,
            sequence=sequence,
            previous_block_hash=previous.hash if previous else genesis,
            order_hash=next_order_hash(previous.order_hash if previous else genesis, sequence, digest),
            digest=digest,
            time_us=GENESIS_TIME_US + 1_000 * sequence,
            result_count=len(leaves),
            results_root=fastpath.merkle_root(_hashes(sequence, leaves)),
            write_set_hash=bytes(32),
            state_sequence=0,
            state_root=bytes(32),
            config_hash=genesis,
        )
        block = Block(header, leaves)
        self.blocks.append(block)
        return block

    def other_leaf(self, number: int) -> Leaf:
        """Somebody else's result, to fill a block."""
        return Leaf(timer_digest(b"other", number), 0, b"{}", timer_record(b"other", number))

    def attest(self, replica: int, header: BlockHeader) -> Attest:
        attest = Attest(0, SequenceNumber(header.sequence), header.order_hash, header.hash)
        return self.wire.sign(attest, self.keys[replica])

    def reply(self, replica: int, block: Block, digest: bytes, *, full: bool = False, record: bool = False) -> Reply:
        """What this replica says of our operation; in full with path and header."""
        index = block.index_of(digest)
        leaf = block.leaves[index]
        outcome = None
        if full:
            outcome = Outcome(leaf.status, leaf.result, block.path(index), leaf.record if record else b"")
        return Reply(
            epoch=0,
            sequence=block.header.sequence,
            order_hash=block.header.order_hash,
            block_hash=block.header.hash,
            signature=self.attest(replica, block.header).signature,
            entries=(ReplyEntry(digest, index, outcome),),
            block_header=block.header.pack() if full else b"",
        )

    def share(self, replica: int, read: Read, result: bytes, *, sequence: int = 7, alone: bool = False) -> ReadShare:
        """This replica's share for a query; signed among two others unless `alone`."""
        digest, block_hash = read_digest(read.query, read.caller), fastpath.sha256(b"block %d" % sequence)
        result_hash = fastpath.sha256(result)
        leaf = share_leaf(read.nonce, digest, result_hash, sequence, block_hash, GENESIS_TIME_US)
        leaves = [leaf] if alone else [fastpath.leaf_hash(b"one"), leaf, fastpath.leaf_hash(b"two")]
        index = leaves.index(leaf)
        return ReadShare(
            nonce=read.nonce,
            read_digest=digest,
            result_hash=result_hash,
            executed=sequence,
            block_hash=block_hash,
            time_us=GENESIS_TIME_US,
            leaf_index=index,
            leaf_count=len(leaves),
            path=fastpath.merkle_path(leaves, index),
            signature=self.wire.sign_shares(leaves, self.keys[replica]),
            result=result if read.want_result else None,
        )

    def frame(self, *messages: Any) -> bytes:
        return b"".join(self.wire.encode_client(message) for message in messages)


Answer = Callable[[bytes, bytes | None], bytes]
Execute = Callable[[bytes, bytes], tuple[int, bytes]]


def accept(public_key: bytes, operation: bytes) -> tuple[int, bytes]:
    """The default application: all is well."""
    return 0, json.dumps({"effects": [], "size": len(operation)}, sort_keys=True, separators=(",", ":")).encode()


def echo(query: bytes, caller: bytes | None) -> bytes:
    """The default query: the query itself, and who asked."""
    value = {"caller": None if caller is None else caller.hex(), "query": json.loads(query)}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@dataclass
class StubServers:
    """Four replicas behind sockets. Settings may be changed while it runs."""

    execute: Execute = accept
    answer: Answer = echo
    silent: set[int] = field(default_factory=set)
    busy: dict[int, tuple[BusyReason, int]] = field(default_factory=dict)
    withhold_full: bool = False
    """Nobody sends a result in full unless asked."""
    twist: dict[int, Callable[[Any], Any]] = field(default_factory=dict)
    """A replica's answers, changed before they are sent."""

    def __enter__(self) -> StubServers:
        curve_keys = [CurveKeys.generate() for _ in range(4)]
        self.sockets = [ClientSocket(keys, "tcp://127.0.0.1:*") for keys in curve_keys]
        ports = [int(server.endpoint.rsplit(":", 1)[1]) for server in self.sockets]
        self.stub = StubCluster(4, ports, curve_keys, free_ports(4))
        self.executed: dict[bytes, Block] = {}
        self.requests_seen: list[int] = [0] * 4
        self._subscribers: list[set[bytes]] = [set() for _ in range(4)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for server in self.sockets:
            server.close()

    @property
    def cluster(self) -> ClusterConfig:
        return self.stub.config

    def _run(self) -> None:
        poller = zmq.Poller()
        for server in self.sockets:
            poller.register(server.socket, zmq.POLLIN)
        while not self._stopping.is_set():
            poller.poll(20)
            for replica, server in enumerate(self.sockets):
                for received in server.receive(64):
                    for message in self.stub.wire.decode_client_frame(received.frame):
                        self._take(replica, received.connection, message)
                server.flush()

    def _take(self, replica: int, connection: bytes, message: Any) -> None:
        if replica in self.silent:
            return
        answer: Any = None
        match message:
            case Submit(request):
                self.requests_seen[replica] += 1
                if replica in self.busy:
                    answer = Busy(request.digest, *self.busy[replica])
                else:
                    if request.digest not in self.executed:
                        status, result = self.execute(request.client, operation_of(request))
                        leaf = Leaf(request.digest, status, result, request.record)
                        self._append(self.stub.other_leaf(len(self.executed)), leaf)
                    block = self.executed[request.digest]
                    turn = (block.index_of(request.digest) + block.header.sequence) % 4 == replica
                    full = turn and not self.withhold_full
                    answer = self.stub.reply(replica, block, request.digest, full=full)
            case ReceiptQuery(digest) if digest in self.executed:
                answer = self.stub.reply(replica, self.executed[digest], digest, full=True, record=True)
            case ReceiptQuery(digest):
                answer = Busy(digest, BusyReason.NOT_FOUND, 0)
            case Read():
                if message.caller is None or self.stub.wire.verify_read(message):
                    result = self.answer(message.query, message.caller)
                    answer = self.stub.share(replica, message, result, sequence=len(self.stub.blocks))
            case StatusQuery():
                answer = StatusAnswer(json.dumps({"replica": replica, "view": 0, "sequence": 0}).encode())
            case BlockQuery(sequence):
                answer = BlockAnswer(sequence)
                if 1 <= sequence <= len(self.stub.blocks):
                    header = self.stub.blocks[sequence - 1].header
                    answer = BlockAnswer(sequence, header.pack(), self.stub.attest(replica, header).signature)
            case Subscribe():
                self._subscribers[replica].add(connection)
        if answer is not None:
            self._send(replica, connection, answer)

    def _append(self, *leaves: Leaf) -> None:
        block = self.stub.execute(*leaves)
        for leaf in leaves:
            self.executed[leaf.digest] = block
        for replica, connections in enumerate(self._subscribers):
            for connection in connections:
                if replica not in self.silent:
                    self._send(replica, connection, self.stub.attest(replica, block.header))
            self.sockets[replica].flush()

    def _send(self, replica: int, connection: bytes, answer: Any) -> None:
        answer = self.twist.get(replica, lambda unchanged: unchanged)(answer)
        if answer is not None:
            self.sockets[replica].send(connection, self.stub.wire.encode_client(answer))


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def flipped(data: bytes) -> bytes:
    """The same bytes with one bit changed."""
    return bytes([data[0] ^ 1]) + data[1:]


def forge_signature(answer: Any) -> Any:
    """A twist: the attestation is not genuine."""
    return replace(answer, signature=flipped(answer.signature)) if isinstance(answer, Reply) else answer
