"""Four replica processes of the counter: orders, answers, survives crashes of its parts."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from nodes.client.aio import Client
from nodes.core.messages import Attest
from nodes.demo.counter import add
from nodes.keys import SigningKey
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
    Submit,
    Subscribe,
    build_request,
    entry_is_proven,
)
from tests.system.counter_cluster import CounterCluster, RawClient, counter_cluster, until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CounterCluster]:
    with counter_cluster(tmp_path_factory.mktemp("inline"), "inline") as cluster:
        until(cluster.agree, "four replicas answer")
        yield cluster


def increment(cluster: CounterCluster, clients: int, each: int) -> None:
    """`clients` keys add 1 `each` times; every operation must come back with a receipt."""

    async def one() -> None:
        async with Client.connect(cluster.config, SigningKey.generate()) as client:
            receipts = await asyncio.gather(*(client.submit({"add": 1}) for _ in range(each)))
            assert all(receipt.verify(cluster.config) for receipt in receipts)
            assert client.misbehaviour == ()

    async def every() -> None:
        await asyncio.gather(*(one() for _ in range(clients)))

    asyncio.run(every())


def value(cluster: CounterCluster) -> int:
    async def ask() -> int:
        async with Client.connect(cluster.config) as client:
            return int(json.loads((await client.query({"query": "value"})).result)["value"])

    return asyncio.run(ask())


def request(cluster: CounterCluster, key: SigningKey, sequence: int = 1, *, valid_us: int = 60_000_000) -> Submit:
    record = build_request(
        key,
        cluster.config.cluster_id,
        session=1,
        sequence=sequence,
        floor=1,
        valid_until_us=time.time_ns() // 1000 + valid_us,
        operation=add(0),
    )
    with RawClient(cluster.config, 0) as client:
        return Submit(client.wire.parse_record(record))


def test_operations_of_many_clients_are_ordered_alike_and_proven(running: CounterCluster) -> None:
    before = value(running)
    increment(running, clients=4, each=25)
    assert value(running) == before + 100
    until(lambda: running.agree(at_least=1), "all replicas stand at the same block")


def test_subscriber_of_an_idle_cluster_gets_the_newest_block(running: CounterCluster) -> None:
    async def submit_and_watch() -> None:
        async with Client.connect(running.config, SigningKey.generate()) as client:
            receipt = await client.submit({"add": 0})
        until(lambda: running.agree(at_least=receipt.header.sequence), "all replicas stand at the same block")
        async with Client.connect(running.config) as watcher:
            first = await asyncio.wait_for(anext(watcher.attested()), 10)
        assert first == (receipt.header.sequence, receipt.header.hash)

    asyncio.run(submit_and_watch())


def test_same_bytes_sent_again_give_the_same_receipt(running: CounterCluster) -> None:
    record = request(running, SigningKey.generate()).request.record

    async def twice() -> None:
        async with Client.connect(running.config) as client:
            first = await client.submit_signed(record)
            again = await client.submit_signed(record)
            asked = await client.receipt(first.digest)
            assert (first.digest, first.index, first.status) == (again.digest, again.index, again.status)
            assert first.header == again.header == asked.header

    asyncio.run(twice())


def test_late_copy_of_a_request_is_answered_by_a_replica_that_never_got_it(running: CounterCluster) -> None:
    submit = request(running, SigningKey.generate())
    with RawClient(running.config, 0) as first:
        first.send(submit)
        reply = first.receive()
        assert isinstance(reply, Reply)
    with RawClient(running.config, 2) as late:
        late.send(submit)
        again = late.receive()
    assert isinstance(again, Reply)
    assert (again.sequence, again.block_hash) == (reply.sequence, reply.block_hash)


def test_receipt_query_is_answered_in_full_with_its_proof(running: CounterCluster) -> None:
    submit = request(running, SigningKey.generate())
    with RawClient(running.config, 0) as client:
        client.send(submit)
        assert isinstance(client.receive(), Reply)
        client.send(ReceiptQuery(submit.request.digest))
        answer = client.receive()
        assert isinstance(answer, Reply)
        (entry,) = answer.entries
        assert isinstance(entry.outcome, Outcome)
        assert entry.outcome.record == submit.request.record
        assert entry_is_proven(answer, entry)
        assert client.wire.verify_attest(answer, running.config.members[0].replica)


def test_bad_signature_gets_busy_and_is_never_ordered(running: CounterCluster) -> None:
    good = request(running, SigningKey.generate())
    forged = good.request.record[:-1] + bytes([good.request.record[-1] ^ 1])
    with RawClient(running.config, 0) as client:
        client.send(Submit(client.wire.parse_record(forged)))
        assert client.receive() == Busy(good.request.digest, BusyReason.BAD_SIGNATURE, 0)
        client.send(ReceiptQuery(good.request.digest))
        assert client.receive() == Busy(good.request.digest, BusyReason.NOT_FOUND, 0)
        client.send(good)
        assert isinstance(client.receive(), Reply), "a forged copy must not keep the real one out"


@pytest.mark.parametrize("valid_us", [-60_000_000, 86_400_000_000])
def test_request_outside_its_validity_gets_busy(running: CounterCluster, valid_us: int) -> None:
    submit = request(running, SigningKey.generate(), valid_us=valid_us)
    with RawClient(running.config, 1) as client:
        client.send(submit)
        assert client.receive() == Busy(submit.request.digest, BusyReason.EXPIRED, 0)


def test_garbage_is_counted_and_does_not_end_the_connection(running: CounterCluster) -> None:
    before = running.status(0)
    assert before is not None
    with RawClient(running.config, 0) as client:
        client.socket.send(b"garbage")
        client.socket.send(b"")
        client.send(ReceiptQuery(bytes(32)))
        assert client.receive() == Busy(bytes(32), BusyReason.NOT_FOUND, 0)
    expected = before["counters"]["bad_frames"] + 2
    until(lambda: (running.status(0) or before)["counters"]["bad_frames"] == expected, "both are counted")


def test_flood_of_new_keys_is_limited_before_signatures_are_verified(running: CounterCluster) -> None:
    before = running.status(3)
    submits = [request(running, SigningKey.generate()) for _ in range(900)]
    reasons: dict[BusyReason, int] = {}
    with RawClient(running.config, 3) as client:
        for submit in submits:
            client.send(submit)
        answered = 0
        while answered < len(submits):
            answer = client.receive()
            assert isinstance(answer, Reply | Busy)
            if isinstance(answer, Busy):
                reasons[answer.reason] = reasons.get(answer.reason, 0) + 1
                assert answer.retry_after_ms > 0
            answered += len(answer.entries) if isinstance(answer, Reply) else 1
    assert set(reasons) <= {BusyReason.RATE_LIMITED, BusyReason.OVERLOADED}
    assert reasons[BusyReason.RATE_LIMITED] > 100
    after = running.status(3)
    assert before is not None
    assert after is not None
    assert after["counters"]["verified"] - before["counters"]["verified"] < len(submits) - 100


def test_subscriber_gets_an_attestation_of_each_block(running: CounterCluster) -> None:
    with RawClient(running.config, 1) as subscriber, RawClient(running.config, 1) as other:
        subscriber.send(Subscribe())
        subscriber.send(ReceiptQuery(bytes(32)))
        answer = subscriber.receive()
        if isinstance(answer, Attest):
            answer = subscriber.receive()
        assert isinstance(answer, Busy), "at most the newest block comes before, and the subscription has been taken"
        submit = request(running, SigningKey.generate())
        other.send(submit)
        reply = other.receive()
        assert isinstance(reply, Reply)
        attest = subscriber.receive()
        while isinstance(attest, Attest) and attest.sequence < reply.sequence:
            attest = subscriber.receive()
        assert isinstance(attest, Attest)
        assert (attest.sequence, attest.block_hash) == (reply.sequence, reply.block_hash)
        assert subscriber.wire.verify_attest(attest, running.config.members[1].replica)


def test_block_query_returns_the_header_and_our_signature(running: CounterCluster) -> None:
    increment(running, clients=1, each=1)
    with RawClient(running.config, 2) as client:
        client.send(BlockQuery(1))
        answer = client.receive()
        assert isinstance(answer, BlockAnswer)
        assert len(answer.signature) == 64
        client.send(BlockQuery(10**9))
        assert client.receive() == BlockAnswer(10**9)


def test_read_share_is_signed_also_in_company(running: CounterCluster) -> None:
    member = running.config.members[1].replica
    with RawClient(running.config, 1) as client:
        reads = [Read(bytes([number]) * 16, number % 2 == 0, b'{"query":"value"}') for number in range(20)]
        client.send(*reads)
        shares = [client.receive() for _ in reads]
        assert {share.nonce for share in shares if isinstance(share, ReadShare)} == {read.nonce for read in reads}
        for share in shares:
            assert isinstance(share, ReadShare)
            assert client.wire.verify_share(share, member)
            assert (share.result is not None) == (share.nonce[0] % 2 == 0)


def test_read_with_a_forged_or_stale_signature_gets_busy(running: CounterCluster) -> None:
    key = SigningKey.generate()
    now_us = time.time_ns() // 1000
    with RawClient(running.config, 0) as client:
        read = Read(bytes(16), True, b'{"query":"value"}')
        good = client.wire.sign_read(read, key, now_us + 10_000_000)
        client.send(good)
        assert isinstance(client.receive(), ReadShare)
        client.send(client.wire.sign_read(read, key, now_us - 1_000_000))
        stale = client.receive()
        assert isinstance(stale, Busy)
        assert stale.reason is BusyReason.EXPIRED
        client.send(replace(good, caller=SigningKey.generate().public_key))
        refused = client.receive()
        assert isinstance(refused, Busy)
        assert refused.reason is BusyReason.BAD_SIGNATURE


def test_killed_backup_catches_up_after_its_restart(running: CounterCluster) -> None:
    running.kill("replica3")
    increment(running, clients=2, each=40)
    running.start(3)
    until(running.agree, "replica 3 has the blocks that it missed")
    increment(running, clients=1, each=2)


def test_second_process_on_the_same_log_refuses_to_start(running: CounterCluster) -> None:
    first = running.processes["replica2"]
    running.start(2)
    second = running.processes["replica2"]
    running.processes["replica2"] = first
    assert second.wait(30) != 0
    assert any("another process" in line.get("problem", "") for line in running.log("replica2"))
    assert running.status(2) is not None


def test_power_cut_of_all_four_loses_nothing_that_was_proven(tmp_path: Path) -> None:
    with counter_cluster(tmp_path, "inline") as cluster:
        until(cluster.agree, "four replicas answer")
        for round_number in range(1, 3):
            increment(cluster, clients=2, each=20)
            for node in range(4):
                cluster.kill(f"replica{node}")
            for node in range(4):
                cluster.start(node)
            until(cluster.agree, "four replicas stand at the same block again")
            assert value(cluster) == 40 * round_number
        increment(cluster, clients=1, each=1)
        assert [cluster.stop(f"replica{node}") for node in range(4)] == [0, 0, 0, 0]


def test_replica_and_executor_survive_each_others_death(tmp_path: Path) -> None:
    with counter_cluster(tmp_path, "process") as cluster:
        until(cluster.agree, "four replicas answer")
        increment(cluster, clients=2, each=10)
        cluster.kill("executor1")
        increment(cluster, clients=2, each=10)
        cluster.start_executor(1)
        until(cluster.agree, "the new executor has executed what the old one did not")
        cluster.kill("replica2")
        increment(cluster, clients=2, each=10)
        cluster.start(2, executor=False)
        until(cluster.agree, "the new replica uses the executor that is there")
        cluster.kill("executor0")
        cluster.kill("replica0")
        cluster.start(0)
        until(cluster.agree, "the primary is back with both its processes")
        increment(cluster, clients=1, each=1)
        assert value(cluster) == 61


def committed(cluster: CounterCluster, node: int) -> int:
    status = cluster.status(node)
    return -1 if status is None else int(status["committed"])


def test_replica_without_its_executor_still_votes(tmp_path: Path) -> None:
    """With one more replica gone its vote is needed: blocks are ordered, and proven once its executor is back."""
    with counter_cluster(tmp_path, "process") as cluster:
        until(cluster.agree, "four replicas answer")
        increment(cluster, clients=1, each=1)
        cluster.kill("replica3")
        for _ in range(2):
            cluster.kill("executor1")
            until(lambda: cluster.agree((0, 2)), "nothing is on its way")
            before = committed(cluster, 0)
            submits = [request(cluster, SigningKey.generate()) for _ in range(5)]
            with RawClient(cluster.config, 0) as client:
                client.send(*submits)
                for node in (0, 1):
                    has_grown = partial(lambda node, before: committed(cluster, node) > before, node, before)
                    until(has_grown, f"replica {node} has ordered a block without the executor of 1")
                status = cluster.status(1)
                assert status is not None
                assert status["sequence"] <= before, "replica 1 has executed nothing meanwhile"
                cluster.start_executor(1)
                until(lambda: cluster.agree((0, 1, 2)), "the new executor has caught up")
                answered = 0
                while answered < len(submits):
                    reply = client.receive()
                    assert isinstance(reply, Reply)
                    answered += len(reply.entries)
        increment(cluster, clients=1, each=1)


def test_replica_with_a_damaged_log_says_so_and_does_not_start(tmp_path: Path) -> None:
    with counter_cluster(tmp_path, "inline") as cluster:
        until(cluster.agree, "four replicas answer")
        increment(cluster, clients=1, each=3)
        assert cluster.stop("replica3") == 0
        (path,) = (cluster.testnet.nodes[3] / "data" / "wal").glob("*.wal")
        data = bytearray(path.read_bytes())
        data[120] ^= 1
        path.write_bytes(data)
        cluster.start(3)
        assert cluster.processes["replica3"].wait(30) == 65
        assert cluster.log("replica3")[-1]["event"] == "log_damaged"


def test_replica_with_another_members_key_does_not_start(tmp_path: Path) -> None:
    with counter_cluster(tmp_path, "inline") as cluster:
        until(cluster.agree, "four replicas answer")
        assert cluster.stop("replica3") == 0
        key = cluster.testnet.nodes[3] / "consensus.key"
        key.write_bytes((cluster.testnet.nodes[2] / "consensus.key").read_bytes())
        cluster.start(3)
        assert cluster.processes["replica3"].wait(30) == 78
        assert "keys.consensus" in cluster.log("replica3")[-1]["problem"]
