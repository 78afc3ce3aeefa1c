"""Real CURVE sockets on loopback: who gets in, who a frame is from, what is dropped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from nodes.core.types import ReplicaId
from nodes.keys import CurveKeys, z85_encode
from nodes.transport import ClientFrame, ClientSocket, Mesh, PeerAddress, PeerFrame, check_user_ids, tcp_endpoint
from nodes.transport.mesh import QUEUE_BYTES_MAX, STALE_US
from nodes.transport.sockets import BULK_FROM_BYTES, CLIENT_BYTES_MAX, CONTROL_BYTES_MAX

ANY_PORT = tcp_endpoint("127.0.0.1", 0)
PATIENCE_S = 10.0
HANDSHAKE_REFUSED = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
)
Raw = zmq.Socket[bytes]


def until(condition: Callable[[], bool], step: Callable[[], object]) -> None:
    """Repeat `step`, which waits for something for a moment, until `condition` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "gave up waiting"
        step()


def now_us() -> int:
    return time.monotonic_ns() // 1000


@pytest.fixture
def raw() -> Iterator[Callable[[int], Raw]]:
    """Makes sockets of a foreign context, as an outsider has them."""
    context: zmq.Context[Raw] = zmq.Context()
    with ExitStack() as stack:

        def make(kind: int) -> Raw:
            socket = stack.enter_context(context.socket(kind))
            socket.linger = 0
            return socket

        yield make
    context.term()


@pytest.fixture
def meshes() -> Iterator[list[Mesh]]:
    """Three connected replicas, 0 to 2."""
    keys = [CurveKeys.generate() for _ in range(3)]

    def address(replica: int, mesh: Mesh | None) -> PeerAddress:
        control, bulk = (mesh.control_endpoint, mesh.bulk_endpoint) if mesh else ("", "")
        return PeerAddress(ReplicaId(replica), keys[replica].public, control, bulk)

    built: list[Mesh] = []
    for me in range(3):
        others = [address(peer, None) for peer in range(3) if peer != me]
        built.append(Mesh(keys[me], others, bind_control=ANY_PORT, bind_bulk=ANY_PORT, start=False))
    for me, mesh in enumerate(built):
        mesh.connect(address(peer, built[peer]) for peer in range(3) if peer != me)
    yield built
    for mesh in built:
        mesh.close()


@pytest.fixture
def clients() -> Iterator[tuple[ClientSocket, CurveKeys]]:
    keys = CurveKeys.generate()
    socket = ClientSocket(keys, ANY_PORT)
    yield socket, keys
    socket.close()


def exchange(senders: list[Mesh], receiver: Mesh, count: int) -> list[PeerFrame]:
    """Flush the senders until the receiver has `count` frames."""
    frames: list[PeerFrame] = []

    def step() -> None:
        for mesh in senders:
            mesh.flush(now_us())
        poller = zmq.Poller()
        poller.register(receiver.control, zmq.POLLIN)
        poller.register(receiver.bulk, zmq.POLLIN)
        poller.poll(20)
        frames.extend(receiver.receive(100, 100))

    until(lambda: len(frames) >= count, step)
    return frames


def secure(socket: Raw, server_key: bytes, keys: CurveKeys) -> Raw:
    socket.curve_serverkey = z85_encode(server_key)
    socket.curve_publickey = keys.public_z85
    socket.curve_secretkey = keys.secret_z85
    return socket


@contextmanager
def monitored(socket: Raw, events: int) -> Iterator[Raw]:
    monitor = socket.get_monitor_socket(events)
    yield monitor
    socket.disable_monitor()
    monitor.close()


def handshake_event(socket: Raw, endpoint: str) -> int:
    """Connect and return the first event that ends the handshake, 0 if none within the patience."""
    with monitored(socket, HANDSHAKE_REFUSED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED) as monitor:
        socket.connect(endpoint)
        return int(recv_monitor_message(monitor)["event"]) if monitor.poll(PATIENCE_S * 1000) else 0


def answer(raw_socket: Raw, socket: ClientSocket) -> list[ClientFrame]:
    frames: list[ClientFrame] = []
    until(lambda: bool(frames), lambda: (socket.socket.poll(20), frames.extend(socket.receive(10))))
    return frames


def test_libraries_tell_two_peers_apart() -> None:
    check_user_ids()


def test_frames_carry_the_member_that_sent_them(meshes: list[Mesh]) -> None:
    meshes[1].send(ReplicaId(0), b"from one")
    meshes[2].send(ReplicaId(0), b"from two")
    frames = exchange(meshes[1:], meshes[0], 2)
    assert sorted(frames) == [(1, b"from one"), (2, b"from two")]


def test_broadcast_reaches_every_peer(meshes: list[Mesh]) -> None:
    meshes[0].broadcast(b"news")
    assert exchange([meshes[0]], meshes[1], 1) == [(0, b"news")]
    assert exchange([meshes[0]], meshes[2], 1) == [(0, b"news")]


def test_messages_of_one_tick_travel_as_one_frame_in_order(meshes: list[Mesh]) -> None:
    meshes[1].send(ReplicaId(0), b"hello")
    exchange([meshes[1]], meshes[0], 1)
    for number in range(10):
        meshes[1].send(ReplicaId(0), b"%d" % number)
    assert exchange([meshes[1]], meshes[0], 1) == [(1, b"0123456789")]


def test_bundles_stay_below_the_frame_limit(meshes: list[Mesh]) -> None:
    part = bytes(BULK_FROM_BYTES)
    for _ in range(8):
        meshes[1].send(ReplicaId(0), part)
    frames: list[PeerFrame] = []
    while sum(len(frame.frame) for frame in frames) < 8 * len(part):
        frames += exchange([meshes[1]], meshes[0], 1)
    assert len(frames) > 1
    assert all(len(frame.frame) <= CONTROL_BYTES_MAX for frame in frames)


def test_bulk_is_received_however_many_small_frames_there_are(meshes: list[Mesh]) -> None:
    message = bytes(BULK_FROM_BYTES + 1)
    meshes[2].send(ReplicaId(0), message)
    until(lambda: bool(meshes[0].bulk.poll(20)), lambda: meshes[2].flush(now_us()))
    for number in range(3):
        meshes[1].send(ReplicaId(0), b"%d" % number)
        until(lambda: meshes[1].waiting_bytes == 0, lambda: meshes[1].flush(now_us()))
    assert meshes[0].control.poll(PATIENCE_S * 1000)
    assert [frame.sender for frame in meshes[0].receive(1, 1)] == [1, 2]


def test_frame_without_room_is_dropped_and_that_of_another_taken(meshes: list[Mesh]) -> None:
    received: list[PeerFrame] = []
    refused: list[tuple[int, int]] = []

    def has_room(sender: ReplicaId, size: int) -> bool:
        if sender == 1:
            refused.append((sender, size))
        return sender != 1

    def step() -> None:
        for mesh in meshes[1:]:
            mesh.flush(now_us())
        meshes[0].control.poll(20)
        received.extend(meshes[0].receive(10, 10, has_room))

    meshes[1].send(ReplicaId(0), b"flood")
    meshes[2].send(ReplicaId(0), b"vote")
    until(lambda: bool(refused and received), step)
    assert (refused, received) == ([(1, 5)], [(2, b"vote")])


def test_large_message_goes_by_the_bulk_socket(meshes: list[Mesh]) -> None:
    message = bytes(BULK_FROM_BYTES + 1)
    meshes[2].send(ReplicaId(1), message)
    until(lambda: bool(meshes[1].bulk.poll(20)), lambda: meshes[2].flush(now_us()))
    assert meshes[1].control.poll(0) == 0
    assert meshes[1].receive(10, 10) == [(2, message)]


def test_peer_that_restarts_is_reached_again(meshes: list[Mesh]) -> None:
    keys = [CurveKeys.generate() for _ in range(2)]
    peer = PeerAddress(ReplicaId(1), keys[1].public, "", "")
    first = Mesh(keys[0], [peer], bind_control=ANY_PORT, bind_bulk=ANY_PORT, start=False)
    there = PeerAddress(ReplicaId(0), keys[0].public, first.control_endpoint, first.bulk_endpoint)
    sender = Mesh(keys[1], [there], bind_control=ANY_PORT, bind_bulk=ANY_PORT)
    sender.send(ReplicaId(0), b"before")
    assert exchange([sender], first, 1) == [(1, b"before")]
    first.close()
    again = Mesh(keys[0], [peer], bind_control=there.control, bind_bulk=there.bulk, start=False)
    received: list[PeerFrame] = []

    def step() -> None:
        sender.send(ReplicaId(0), b"after")
        sender.flush(now_us())
        again.control.poll(20)
        received.extend(again.receive(100, 100))

    until(lambda: bool(received), step)
    assert received[0].sender == 1
    sender.close()
    again.close()


def test_queue_for_an_absent_peer_is_bounded_in_bytes_and_age() -> None:
    keys = [CurveKeys.generate() for _ in range(2)]
    absent = PeerAddress(ReplicaId(1), keys[1].public, "tcp://127.0.0.1:9", "tcp://127.0.0.1:9")
    mesh = Mesh(keys[0], [absent], bind_control=ANY_PORT, bind_bulk=ANY_PORT)
    message = bytes(BULK_FROM_BYTES)
    for _ in range(QUEUE_BYTES_MAX // len(message) + 5):
        mesh.send(ReplicaId(1), message)
    assert mesh.waiting_bytes <= QUEUE_BYTES_MAX
    assert mesh.dropped == 5
    mesh.flush(0)
    assert mesh.waiting_bytes > 0
    mesh.flush(STALE_US + 1)
    assert mesh.waiting_bytes == 0
    mesh.close()


def test_strangers_key_is_refused_on_the_mesh(meshes: list[Mesh], raw: Callable[[int], Raw]) -> None:
    stranger = secure(raw(zmq.DEALER), meshes[0]._keys.public, CurveKeys.generate())
    assert handshake_event(stranger, meshes[0].control_endpoint) & HANDSHAKE_REFUSED
    assert meshes[0].refused_connections >= 1
    stranger = secure(raw(zmq.DEALER), meshes[0]._keys.public, CurveKeys.generate())
    assert handshake_event(stranger, meshes[0].bulk_endpoint) & HANDSHAKE_REFUSED
    assert meshes[0].receive(10, 10) == []


def test_own_key_is_refused_on_the_mesh(meshes: list[Mesh], raw: Callable[[int], Raw]) -> None:
    mirror = secure(raw(zmq.DEALER), meshes[0]._keys.public, meshes[0]._keys)
    assert handshake_event(mirror, meshes[0].control_endpoint) & HANDSHAKE_REFUSED


def test_null_and_plain_clients_are_refused_everywhere(
    meshes: list[Mesh], clients: tuple[ClientSocket, CurveKeys], raw: Callable[[int], Raw]
) -> None:
    for endpoint in (meshes[0].control_endpoint, meshes[0].bulk_endpoint, clients[0].endpoint):
        assert handshake_event(raw(zmq.DEALER), endpoint) not in (0, zmq.EVENT_HANDSHAKE_SUCCEEDED)
        plain = raw(zmq.DEALER)
        plain.plain_username = b"admin"
        plain.plain_password = b"secret"
        assert handshake_event(plain, endpoint) not in (0, zmq.EVENT_HANDSHAKE_SUCCEEDED)


def test_wrong_server_key_never_completes_a_handshake(
    clients: tuple[ClientSocket, CurveKeys], raw: Callable[[int], Raw]
) -> None:
    socket = secure(raw(zmq.DEALER), CurveKeys.generate().public, CurveKeys.generate())
    assert handshake_event(socket, clients[0].endpoint) not in (0, zmq.EVENT_HANDSHAKE_SUCCEEDED)


def test_members_key_in_the_client_domain_is_a_client_like_any_other(
    clients: tuple[ClientSocket, CurveKeys], raw: Callable[[int], Raw]
) -> None:
    member = CurveKeys.generate()
    mesh = Mesh(
        clients[1],
        [PeerAddress(ReplicaId(1), member.public, "tcp://127.0.0.1:9", "tcp://127.0.0.1:9")],
        bind_control=ANY_PORT,
        bind_bulk=ANY_PORT,
    )
    socket = secure(raw(zmq.DEALER), clients[1].public, member)
    socket.connect(clients[0].endpoint)
    socket.send(b"vote")
    (frame,) = answer(socket, clients[0])
    assert frame.user == member.public.hex()
    assert frame.user not in mesh._sender_of
    mesh.close()


def test_allow_list_of_clients_is_kept(raw: Callable[[int], Raw]) -> None:
    server, known = CurveKeys.generate(), CurveKeys.generate()
    socket = ClientSocket(server, ANY_PORT, allowed=[known.public])
    unknown = secure(raw(zmq.DEALER), server.public, CurveKeys.generate())
    assert handshake_event(unknown, socket.endpoint) & HANDSHAKE_REFUSED
    friend = secure(raw(zmq.DEALER), server.public, known)
    assert handshake_event(friend, socket.endpoint) == zmq.EVENT_HANDSHAKE_SUCCEEDED
    socket.close()


def test_client_gets_its_answers_and_nobody_elses(
    clients: tuple[ClientSocket, CurveKeys], raw: Callable[[int], Raw]
) -> None:
    socket, keys = clients
    ends = [secure(raw(zmq.DEALER), keys.public, CurveKeys.generate()) for _ in range(2)]
    for number, end in enumerate(ends):
        end.connect(socket.endpoint)
        end.send(b"ask %d" % number)
        (frame,) = answer(end, socket)
        assert frame.frame == b"ask %d" % number
        socket.send(frame.connection, b"answer %d." % number)
        socket.send(frame.connection, b"more.")
        assert socket.flush() == []
    for number, end in enumerate(ends):
        assert end.poll(PATIENCE_S * 1000)
        assert end.recv() == b"answer %d.more." % number


def test_connection_that_is_gone_is_reported(
    clients: tuple[ClientSocket, CurveKeys], raw: Callable[[int], Raw]
) -> None:
    socket, keys = clients
    end = secure(raw(zmq.DEALER), keys.public, CurveKeys.generate())
    end.connect(socket.endpoint)
    end.send(b"ask")
    (frame,) = answer(end, socket)
    end.close()
    gone: list[bytes] = []

    def step() -> None:
        socket.send(frame.connection, b"too late")
        gone.extend(socket.flush())
        socket.socket.poll(20)

    until(lambda: bool(gone), step)
    assert gone == [frame.connection]


def test_oversize_frame_drops_the_connection_of_its_sender(
    clients: tuple[ClientSocket, CurveKeys], raw: Callable[[int], Raw]
) -> None:
    socket, keys = clients
    big = secure(raw(zmq.DEALER), keys.public, CurveKeys.generate())
    with monitored(big, zmq.EVENT_DISCONNECTED) as monitor:
        big.connect(socket.endpoint)
        big.send(bytes(CLIENT_BYTES_MAX + 1))
        assert monitor.poll(PATIENCE_S * 1000)
    good = secure(raw(zmq.DEALER), keys.public, CurveKeys.generate())
    good.connect(socket.endpoint)
    good.send(bytes(CLIENT_BYTES_MAX))
    (frame,) = answer(good, socket)
    assert len(frame.frame) == CLIENT_BYTES_MAX


def test_oversize_frame_on_the_mesh_drops_the_peer(raw: Callable[[int], Raw]) -> None:
    server, peer = CurveKeys.generate(), CurveKeys.generate()
    nowhere = "tcp://127.0.0.1:9"
    mesh = Mesh(
        server,
        [PeerAddress(ReplicaId(1), peer.public, nowhere, nowhere)],
        bind_control=ANY_PORT,
        bind_bulk=ANY_PORT,
    )
    socket = secure(raw(zmq.DEALER), server.public, peer)
    with monitored(socket, zmq.EVENT_DISCONNECTED) as monitor:
        socket.connect(mesh.control_endpoint)
        socket.send(bytes(CONTROL_BYTES_MAX + 1))
        assert monitor.poll(PATIENCE_S * 1000)
    assert mesh.receive(10, 10) == []
    mesh.close()


def test_client_frames_beyond_the_bytes_of_a_turn_wait(
    clients: tuple[ClientSocket, CurveKeys], raw: Callable[[int], Raw]
) -> None:
    socket, keys = clients
    end = secure(raw(zmq.DEALER), keys.public, CurveKeys.generate())
    end.connect(socket.endpoint)
    for _ in range(4):
        end.send(bytes(1000))
    sizes: list[int] = []
    until(
        lambda: sum(sizes) == 4,
        lambda: (socket.socket.poll(20), sizes.append(len(socket.receive(10, 1001)))),
    )
    assert max(sizes) <= 2


def test_frame_of_several_parts_is_refused_and_the_next_one_read(
    clients: tuple[ClientSocket, CurveKeys], raw: Callable[[int], Raw]
) -> None:
    socket, keys = clients
    end = secure(raw(zmq.DEALER), keys.public, CurveKeys.generate())
    end.connect(socket.endpoint)
    end.send_multipart([b"a", b"b", b"c"])
    end.send(b"whole")
    assert [frame.frame for frame in answer(end, socket)] == [b"whole"]
    assert socket.frames_refused == 1
