"""The way to the executor, with a real socket at the other end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from nodes.executor.protocol import (
    BlockFound,
    Down,
    ExecuteBlock,
    FindBlock,
    Hello,
    Ready,
    Up,
    decode_down,
    encode,
)
from nodes.replica.executor_port import QUESTION_US, QUESTIONS_MAX, ProcessPort, Questions

READY = Ready(7, bytes(32), None, 0, bytes(32), 1, bytes(32), "python", "sqlite 3")
BLOCK = ExecuteBlock(8, bytes(80), b"", bytes(32))
Socket = zmq.Socket[bytes]


@pytest.fixture
def context() -> Iterator[zmq.Context[Socket]]:
    made: zmq.Context[Socket] = zmq.Context()
    yield made
    made.term()


def executor(context: zmq.Context[Socket], endpoint: str) -> Socket:
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.probe_router = True
    socket.immediate = True
    socket.connect(endpoint)
    return socket


def heard(port: ProcessPort) -> list[Up]:
    deadline = time.monotonic() + 10
    while not (said := port.turn(time.monotonic_ns() // 1000)):
        assert time.monotonic() < deadline
        port.socket.poll(20)
    return said


def received(socket: Socket, kind: type[Down]) -> Down:
    """The next message of that kind; questions of the port whether anybody is there are skipped."""
    while True:
        assert socket.poll(10_000)
        message = decode_down(socket.recv())
        if isinstance(message, kind):
            return message
        assert isinstance(message, Hello)


def test_nobody_there_is_no_error_and_questions_are_refused(context: zmq.Context[Socket], tmp_path: Path) -> None:
    port = ProcessPort(context, f"ipc://{tmp_path}/x.ipc")
    assert port.turn(0) == []
    port.execute(BLOCK)
    assert not port.ask(FindBlock(1, 1))
    port.close()


def test_executor_that_was_there_first_is_asked_where_it_stands(context: zmq.Context[Socket], tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/x.ipc"
    other = executor(context, endpoint)
    port = ProcessPort(context, endpoint)
    deadline = time.monotonic() + 10
    while not other.poll(20):
        assert port.turn(time.monotonic_ns() // 1000) == []
        assert time.monotonic() < deadline
    assert decode_down(other.recv()) == Hello()
    other.send(encode(READY))
    assert heard(port) == [READY]
    assert port.ask(FindBlock(1, 1))
    assert received(other, FindBlock) == FindBlock(1, 1)
    other.close()
    port.close()


def test_executor_that_comes_again_gets_nothing_of_what_its_former_self_was_sent(
    context: zmq.Context[Socket], tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path}/x.ipc"
    port = ProcessPort(context, endpoint)
    first = executor(context, endpoint)
    first.send(encode(READY))
    assert heard(port) == [READY]
    for _ in range(5):
        port.execute(BLOCK)
    assert received(first, ExecuteBlock) == BLOCK
    first.close()
    second = executor(context, endpoint)
    second.send(encode(READY))
    assert heard(port) == [READY]
    port.execute(ExecuteBlock(9, bytes(80), b"", bytes(32)))
    assert received(second, ExecuteBlock) == ExecuteBlock(9, bytes(80), b"", bytes(32))
    second.close()
    port.close()


def test_executor_is_found_by_a_replica_that_comes_again(context: zmq.Context[Socket], tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/x.ipc"
    first = ProcessPort(context, endpoint)
    other = executor(context, endpoint)
    other.send(encode(READY))
    assert heard(first) == [READY]
    first.close()
    second = ProcessPort(context, endpoint)
    deadline = time.monotonic() + 10
    while not other.poll(20):
        assert second.turn(time.monotonic_ns() // 1000) == []
        assert time.monotonic() < deadline
    assert decode_down(other.recv()) == Hello()
    other.send(encode(READY))
    assert heard(second) == [READY]
    other.close()
    second.close()


def test_nonsense_is_dropped(context: zmq.Context[Socket], tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/x.ipc"
    port = ProcessPort(context, endpoint)
    other = executor(context, endpoint)
    other.send(b"\xff\xff")
    other.send(encode(READY))
    assert heard(port) == [READY]
    other.close()
    port.close()


def test_questions_get_their_own_answers_and_none_after_their_time(
    context: zmq.Context[Socket], tmp_path: Path
) -> None:
    endpoint = f"ipc://{tmp_path}/x.ipc"
    port = ProcessPort(context, endpoint)
    other = executor(context, endpoint)
    other.send(encode(READY))
    assert heard(port) == [READY]
    questions = Questions(port)
    answers: list[tuple[int, Up | None]] = []
    for number in range(3):
        assert questions.ask(lambda token: FindBlock(token, 1), lambda up, n=number: answers.append((n, up)), number)
    tokens = [message.token for message in (received(other, FindBlock) for _ in range(3)) if hasattr(message, "token")]
    answer = BlockFound(tokens[1], False)
    questions.answered(tokens[1], answer)
    questions.answered(tokens[1], answer)
    assert answers == [(1, answer)]
    questions.expire(QUESTION_US)
    assert answers == [(1, answer), (0, None)]
    questions.forget_all()
    assert answers == [(1, answer), (0, None), (2, None)]
    assert len(questions) == 0
    other.close()
    port.close()


def test_open_questions_are_bounded(context: zmq.Context[Socket], tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/x.ipc"
    port = ProcessPort(context, endpoint)
    other = executor(context, endpoint)
    other.send(encode(READY))
    assert heard(port) == [READY]
    questions = Questions(port)
    asked = 0
    while questions.ask(lambda token: FindBlock(token, 1), lambda _: None, 0):
        asked += 1
        while other.poll(0):
            other.recv()
    assert asked == QUESTIONS_MAX
    other.close()
    port.close()
