"""The way to the executor: another process behind an ipc socket, or an object in this one.

Always: what was not handed over is handed over again, because an executor that starts says where it
stands (`Ready`) and the core goes on from there; so nothing is kept here for an executor that is gone.
Questions have no such memory: they are refused when nobody is there, and forgotten with the process
that was asked. `turn` never blocks for the process port; the inline one does one block's work in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog
import zmq

from nodes.executor.executor import DatabaseUnavailable, Executor, OutOfOrder, unavailable
from nodes.executor.protocol import Down, ExecuteBlock, ExecutorAlarm, Hello, Question, Ready, Up, decode_up, encode

FRAMES = 2048
"""High-water mark of the ipc socket: room for the core's 8 blocks and `QUESTIONS_MAX` questions."""
ANSWER_BYTES_MAX = 64 * 1024 * 1024
"""A block's outcomes: at most 1,280 results of 64 KiB in theory, of which this replica's share."""
HELLO_INTERVAL_US = 200_000

log = structlog.get_logger(__name__)


class ExecutorPort(Protocol):
    """What the loop needs of an executor."""

    @property
    def socket(self) -> zmq.Socket[bytes] | None:
        """To be polled for reading."""

    @property
    def has_work(self) -> bool:
        """`turn` has something to do at once."""

    def execute(self, block: ExecuteBlock) -> None:
        """Hand over the next block."""

    def ask(self, question: Question) -> bool:
        """False: nobody is there to answer."""

    def turn(self, now_us: int) -> list[Up]:
        """What the executor said since the last call."""

    def close(self) -> None:
        """Let it go."""


class ProcessPort:
    """`nodes.executor.process`, which connects to `endpoint` whenever it (re)starts.

    Each connection announces itself by an empty message; the newest one is the executor, and what an
    older one still says is dropped.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.sndhwm = self._socket.rcvhwm = FRAMES
        self._socket.maxmsgsize = ANSWER_BYTES_MAX
        self._socket.router_mandatory = True
        self._socket.bind(endpoint)
        self._connection = b""
        self._is_known = False
        self._hello_us = 0

    @property
    def socket(self) -> zmq.Socket[bytes]:
        return self._socket

    @property
    def has_work(self) -> bool:
        return False

    def execute(self, block: ExecuteBlock) -> None:
        if not self._send(block):
            # It died with blocks in hand; a Ready will tell from where to repeat them.
            self._is_known = False

    def ask(self, question: Question) -> bool:
        return self._is_known and self._send(question)

    def _send(self, message: Down) -> bool:
        if not self._connection:
            return False
        try:
            self._socket.send_multipart((self._connection, encode(message)), zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._connection = b""
            self._is_known = False
            return False
        return True

    def turn(self, now_us: int) -> list[Up]:
        said: list[Up] = []
        while True:
            try:
                connection, data = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                break
            if not data:
                said.clear()
                self._connection, self._is_known = connection, False
                self._hello_us = now_us + HELLO_INTERVAL_US  # it may speak first
            elif connection == self._connection:
                try:
                    said.append(decode_up(data))
                except msgspec.DecodeError as error:
                    log.error("executor_said_nonsense", error=str(error))
        if any(isinstance(message, Ready) for message in said):
            self._is_known = True
        if not self._is_known and now_us >= self._hello_us:
            self._hello_us = now_us + HELLO_INTERVAL_US
            self._send(Hello())
        return said

    def close(self) -> None:
        self._socket.close()


class InlinePort:
    """An executor in the replica's own thread: for machines without a database worth waiting for."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._said: deque[Up] = deque([executor.open()])
        self._blocks: deque[ExecuteBlock] = deque()
        self._questions: list[Question] = []

    @property
    def socket(self) -> None:
        return None

    @property
    def has_work(self) -> bool:
        return bool(self._said or self._blocks or self._questions)

    def execute(self, block: ExecuteBlock) -> None:
        self._blocks.append(block)

    def ask(self, question: Question) -> bool:
        self._questions.append(question)
        return True

    def turn(self, now_us: int) -> list[Up]:
        """One block, and all questions, which so see a state no older than they are."""
        if self._blocks:
            block = self._blocks.popleft()
            try:
                self._said.append(self._executor.execute(block))
            except OutOfOrder:
                self._blocks.clear()
                self._said.append(self._executor.ready())
            except DatabaseUnavailable as error:
                self._blocks.appendleft(block)
                self._said.append(ExecutorAlarm(str(error)))
        if self._questions:
            questions, self._questions = self._questions, []
            try:
                self._said.extend(self._executor.answer(questions))
            except DatabaseUnavailable:
                self._said.extend(unavailable(question) for question in questions)
        said = list(self._said)
        self._said.clear()
        return said

    def close(self) -> None:
        self._executor.close()


Callback = Callable[[Up | None], None]
"""Gets the answer; None when there will be none."""
QUESTIONS_MAX = 1024
QUESTION_US = 5_000_000
"""An answer is not waited for any longer."""


class Questions:
    """Open questions to the executor by token, bounded in number and time."""

    def __init__(self, port: ExecutorPort) -> None:
        self._port = port
        self._token = 0
        self._open: dict[int, tuple[int, Callback]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, question: Callable[[int], Question], callback: Callback, now_us: int) -> bool:
        """`question` makes one from its token. False: it was not asked, and `callback` is never called."""
        if len(self._open) >= QUESTIONS_MAX:
            return False
        self._token += 1
        if not self._port.ask(question(self._token)):
            return False
        self._open[self._token] = (now_us + QUESTION_US, callback)
        return True

    def answered(self, token: int, answer: Up) -> None:
        waiting = self._open.pop(token, None)
        if waiting is not None:
            waiting[1](answer)

    def forget_all(self) -> None:
        """The executor that was asked is gone."""
        callbacks = [callback for _, callback in self._open.values()]
        self._open.clear()
        for callback in callbacks:
            callback(None)

    def expire(self, now_us: int) -> None:
        """Give up on what is overdue; tokens are in the order of their deadlines."""
        while self._open:
            token = next(iter(self._open))
            deadline_us, callback = self._open[token]
            if deadline_us > now_us:
                return
            del self._open[token]
            callback(None)
