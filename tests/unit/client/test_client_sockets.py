"""Both shells of the client over real CURVE sockets, against four stub replicas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from types import ModuleType
from typing import Any, TypeVar

import pytest

from nodes.client import aio, sync
from nodes.client.core import SignedQuery
from nodes.client.errors import ClientError, NoQuorum, NotFound, OutcomeUnknown, Overloaded, Refused
from nodes.client.options import ClientOptions
from nodes.client.reading import Consistency
from nodes.keys import CurveKeys, SigningKey
from nodes.wire import BusyReason, Read, ReadShare, build_request

KEY = SigningKey(b"\x07" * 32)
OPERATION = {"type": "test"}
T = TypeVar("T")


@pytest.fixture
def servers(stub: ModuleType) -> Iterator[Any]:
    with stub.StubServers() as servers:
        yield servers


def with_client(servers: Any, work: Callable[[aio.Client], Awaitable[T]], **options: int) -> T:
    async def run() -> T:
        async with aio.Client.connect(servers.cluster, KEY, options=ClientOptions(**options)) as client:
            return await work(client)

    return asyncio.run(run())


def test_aio_operation_is_proven(servers: Any) -> None:
    receipt = with_client(servers, lambda client: client.submit(OPERATION))
    verified = receipt.verify(servers.cluster)
    assert json.loads(verified.result) == {"effects": [], "size": 15}


def test_aio_many_operations_at_once_are_all_proven(servers: Any) -> None:
    async def work(client: aio.Client) -> list[Any]:
        return await asyncio.gather(*(client.submit({"number": number}) for number in range(150)))

    receipts = with_client(servers, work)
    assert len({receipt.verify(servers.cluster).digest for receipt in receipts}) == 150
    sequences = [receipt.subject.sequence for receipt in receipts]
    assert sorted(sequences) == list(range(1, 151))


def test_aio_result_withheld_by_its_replica_is_asked_of_another(servers: Any) -> None:
    servers.withhold_full = True
    receipt = with_client(servers, lambda client: client.submit(OPERATION))
    assert receipt.verify(servers.cluster).status == 0


def test_aio_one_silent_and_one_forging_replica(servers: Any, stub: ModuleType) -> None:
    """One fault of four is masked; with two there is no proof, and the outcome is unknown."""
    servers.twist[1] = stub.forge_signature

    async def work(client: aio.Client) -> None:
        receipt = await client.submit(OPERATION)
        assert {replica for replica, _ in receipt.attestations} == {0, 2, 3}
        servers.silent.add(3)
        with pytest.raises(OutcomeUnknown) as unknown:
            await client.submit({"type": "second"}, timeout_ms=300)
        servers.silent.clear()
        again = await client.submit_signed(unknown.value.record)
        assert again.digest == unknown.value.digest
        assert {(one.replica, one.code) for one in client.misbehaviour} == {(1, "bad_attestation")}

    with_client(servers, work)


def test_aio_refusal_busy_and_missing_are_told_apart(servers: Any) -> None:
    servers.execute = lambda key, operation: (100, b"{}") if b"low" in operation else (0, b"{}")

    async def work(client: aio.Client) -> None:
        with pytest.raises(Refused) as refused:
            await client.submit({"type": "low"})
        receipt = refused.value.receipt
        assert receipt is not None
        assert refused.value.code == "application_100"
        assert await client.receipt(receipt.digest) is not None
        with pytest.raises(NotFound):
            await client.receipt(bytes(32))
        servers.busy = dict.fromkeys(range(3), (BusyReason.RATE_LIMITED, 250))
        with pytest.raises(Overloaded) as overloaded:
            await client.submit(OPERATION)
        assert (overloaded.value.code, overloaded.value.retry_after) == ("rate_limited", 0.25)

    with_client(servers, work)


def test_aio_queries_blocks_and_status(servers: Any) -> None:
    async def work(client: aio.Client) -> None:
        await client.submit(OPERATION)
        answer = await client.query({"query": "auctions"})
        assert json.loads(answer.result) == {"caller": None, "query": {"query": "auctions"}}
        signed = await client.query({"query": "balance"}, signed=True)
        assert json.loads(signed.result)["caller"] == KEY.public_key.hex()
        for consistency in Consistency:
            assert (await client.query(b"{}", consistency=consistency)).consistency is consistency
        header, attestations = await client.block(1)
        assert (header.sequence, len(attestations)) == (1, 3)
        with pytest.raises(NotFound):
            await client.block(99)
        assert (await client.status(2))["replica"] == 2

    with_client(servers, work)


def test_aio_query_signed_elsewhere_is_passed_on(servers: Any) -> None:
    async def work(client: aio.Client) -> None:
        wire, nonce = client.core.wire, b"\x09" * 16
        read = wire.sign_read(Read(nonce, False, b"{}"), SigningKey(b"\x08" * 32), 5)
        signed = SignedQuery(read.caller or b"", 5, read.signature)
        answer = await client.query(b"{}", signed, nonce=nonce)
        assert json.loads(answer.result)["caller"] == SigningKey(b"\x08" * 32).public_key.hex()
        assert answer.nonce == nonce

    with_client(servers, work)


def test_aio_attested_blocks_stream_while_operations_run(servers: Any) -> None:
    async def work(client: aio.Client) -> dict[int, bytes]:
        submitted: dict[int, bytes] = {}
        seen: dict[int, bytes] = {}

        async def watch() -> None:
            async with aclosing(client.attested()) as blocks:
                async for sequence, block_hash in blocks:
                    assert sequence > max(seen, default=0)
                    seen[sequence] = block_hash
                    if len(seen) == 3:
                        return

        watching = asyncio.ensure_future(watch())
        while not watching.done():
            receipt = await client.submit({"number": len(submitted)})
            submitted[receipt.header.sequence] = receipt.header.hash
        await watching
        assert seen.items() <= submitted.items()
        return seen

    assert len(with_client(servers, work)) == 3


def test_aio_events_come_in_order_without_gap_across_pages(servers: Any, stub: ModuleType) -> None:
    events = [{"sequence": number // 3 + 1, "index": 0, "effect": number % 3, "kind": "x"} for number in range(300)]

    def answer(query: bytes, caller: bytes | None) -> bytes:
        asked = json.loads(query)
        after = tuple(asked.get("after", (0, 0, -1)))
        rest = [one for one in events if (one["sequence"], one["index"], one["effect"]) > after]
        page = rest[: asked["limit"]]
        cursor = None if len(page) == len(rest) else [page[-1]["sequence"], page[-1]["index"], page[-1]["effect"]]
        return json.dumps({"events": page, "next": cursor}, sort_keys=True, separators=(",", ":")).encode()

    servers.answer = answer

    async def work(client: aio.Client) -> list[Any]:
        async with aclosing(client.events(after=(1, 0, 0))) as stream:
            seen = [await anext(stream) for _ in range(299)]
            events.append({"sequence": 500, "index": 1, "effect": 0, "kind": "late"})
            late = asyncio.ensure_future(anext(stream))
            await client.submit(OPERATION)
            return [*seen, await late]

    assert with_client(servers, work) == events[1:]


def test_aio_refused_events_query_ends_the_stream(servers: Any) -> None:
    servers.answer = lambda query, caller: b'{"error":"unknown_auction"}'

    async def work(client: aio.Client) -> None:
        async with aclosing(client.events(auction="ff")) as stream:
            with pytest.raises(ClientError) as caught:
                await anext(stream)
        assert caught.value.code == "unknown_auction"

    with_client(servers, work)


def test_aio_lying_result_is_not_believed(servers: Any) -> None:
    def lie(answer: Any) -> Any:
        if isinstance(answer, ReadShare):
            return servers.stub.share(2, Read(answer.nonce, True, b"{}"), b'{"lie":1}')
        return answer

    servers.twist[2] = lie
    answer = with_client(servers, lambda client: client.query(b"{}"))
    assert json.loads(answer.result) == {"caller": None, "query": {}}


def test_aio_unreachable_cluster_is_no_quorum(stub: ModuleType) -> None:
    async def run() -> None:
        client = aio.Client.connect(stub.StubCluster(4).config, options=ClientOptions(connect_timeout_ms=200))
        with pytest.raises(NoQuorum, match="0 of the 3"):
            await client.open()
        with pytest.raises(RuntimeError):
            await client.status(0)

    asyncio.run(run())


def test_aio_server_with_another_curve_key_is_not_spoken_to(servers: Any, stub: ModuleType) -> None:
    """The genesis pins each replica's key: an impostor at its address gets nothing."""
    strangers = [CurveKeys.generate() for _ in range(4)]
    ports = [member.client_port for member in servers.cluster.members]
    impostors = stub.StubCluster(4, ports, strangers).config

    async def run() -> None:
        with pytest.raises(NoQuorum):
            await aio.Client.connect(impostors, options=ClientOptions(connect_timeout_ms=300)).open()

    asyncio.run(run())


def test_aio_cancelled_call_leaves_nothing_behind(servers: Any) -> None:
    async def work(client: aio.Client) -> None:
        servers.silent = {0, 1, 2, 3}
        call = asyncio.ensure_future(client.submit(OPERATION))
        query = asyncio.ensure_future(client.query(b"{}"))
        done, _ = await asyncio.wait([call, query], timeout=0.05)
        assert not done
        call.cancel()
        query.cancel()
        await asyncio.gather(call, query, return_exceptions=True)
        assert client.core.due_us() is None

    with_client(servers, work)


def test_sync_twin_does_the_same(servers: Any) -> None:
    servers.execute = lambda key, operation: (100, b"{}") if b"low" in operation else (0, b"{}")
    with sync.Client.connect(servers.cluster, KEY) as client:
        receipt = client.submit(OPERATION)
        assert receipt.verify(servers.cluster).status == 0
        outcomes = client.submit_many([{"number": number} for number in range(80)] + [{"type": "low"}])
        assert isinstance(outcomes[-1], Refused)
        assert len({one.digest for one in outcomes[:-1] if not isinstance(one, ClientError)}) == 80
        assert client.receipt(receipt.digest).digest == receipt.digest
        assert json.loads(client.query({"query": "x"}, signed=True).result)["caller"] == KEY.public_key.hex()
        assert client.block(1)[0].sequence == 1
        assert client.status(1)["replica"] == 1
        with pytest.raises(NotFound):
            client.receipt(bytes(32))
        assert client.misbehaviour == ()


def test_sync_attested_blocks_and_time_out(servers: Any) -> None:
    record = build_request(
        KEY,
        servers.cluster.cluster_id,
        session=1,
        sequence=1,
        floor=1,
        valid_until_us=1,
        operation=b"{}",
    )
    with sync.Client.connect(servers.cluster, KEY) as client, sync.Client.connect(servers.cluster) as watcher:
        blocks = watcher.attested()
        watcher.core.subscribe(aio.now())
        for replica in range(servers.cluster.n):
            # Answered after the subscription, which was sent before on the same socket.
            watcher.status(replica)
        receipt = client.submit_signed(record)
        servers.silent = {1, 2}
        with pytest.raises(OutcomeUnknown):
            client.submit(OPERATION, timeout_ms=200)
        servers.silent = set()
        assert next(blocks) == (receipt.header.sequence, receipt.header.hash)


def test_sync_unreachable_cluster_is_no_quorum(stub: ModuleType) -> None:
    client = sync.Client.connect(stub.StubCluster(4).config, options=ClientOptions(connect_timeout_ms=200))
    with pytest.raises(NoQuorum):
        client.open()
