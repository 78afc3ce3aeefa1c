"""The executor as a process of its own, at the other end of an ipc socket from its replica.

Blocks come first; between two blocks some waiting questions are answered from one snapshot, which is
begun after they were received. The process ends on SIGTERM or SIGINT, when its parent has gone, and when
it cannot go on (its supervisor starts it again); the database is after a whole block in every case.
Deliberately elsewhere: what executing means (`executor.py`), restarting (`nodes.supervisor`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import assert_never

import structlog
import zmq

from nodes.config import ClusterConfig, ConfigError, NodeConfig
from nodes.executor.executor import (
    ATTEMPTS_MAX,
    BACKOFF_MAX_S,
    DatabaseUnavailable,
    Executor,
    ExecutorStopped,
    OutOfOrder,
    unavailable,
)
from nodes.executor.protocol import (
    ExecuteBlock,
    ExecutorAlarm,
    FetchArchive,
    FindBlock,
    FindReceipt,
    Hello,
    Query,
    Question,
    Up,
    decode_down,
    encode,
)
from nodes.executor.store import DatabaseRefused
from nodes.logs import configure_logs
from nodes.machine import StateMachine

QUEUE_MAX = 4096
"""Messages held here; more wait in the socket."""
QUESTIONS_PER_SNAPSHOT = 32
"""Answered between two blocks: bounds how long a block waits for them."""
POLL_MS = 250
"""How soon a lost parent or a signal is noticed by an idle executor."""
MESSAGE_BYTES_MAX = 64 * 1024 * 1024
LINGER_MS = 1000
"""Time for a last alarm to find its way, and to leave."""

EXIT_REFUSED = 2
EXIT_STOPPED = 3

log = structlog.get_logger(__name__)


class Stopping(Exception):
    """Asked to end; raised where no transaction is open."""


def load_machine(name: str) -> StateMachine:
    """The application named "module:Class". ConfigError when there is none."""
    module_name, _, class_name = name.partition(":")
    try:
        machine: StateMachine = getattr(importlib.import_module(module_name), class_name)()
    except (ImportError, AttributeError) as error:
        raise ConfigError("application", f"{name}: {error}", "name a class as module:Class") from error
    return machine


class Lifetime:
    """When to end: on a signal, or when the parent is no longer the one that started this process."""

    def __init__(self, *, with_parent: bool) -> None:
        self._parent = os.getppid() if with_parent else None
        self._asked = False

    def install(self) -> None:
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def check(self) -> None:
        """Raises Stopping when it is time."""
        if self._asked or (self._parent is not None and os.getppid() != self._parent):
            raise Stopping

    def pause(self, seconds: float) -> None:
        """Wait between two tries of something that failed."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, POLL_MS / 1000))
        self.check()


class Service:
    """The loop: messages in, one block or some questions at a time, messages out."""

    def __init__(self, executor: Executor, socket: zmq.Socket[bytes], lifetime: Lifetime) -> None:
        self._executor = executor
        self._socket = socket
        self._lifetime = lifetime
        self._blocks: deque[ExecuteBlock] = deque()
        self._questions: deque[Question] = deque()
        self._alarmed = False

    def run(self) -> None:
        """Until Stopping, or an exception that ends the process."""
        self._open()
        while True:
            self._lifetime.check()
            self._receive(0 if self._blocks or self._questions else POLL_MS)
            if self._blocks:
                self._execute(self._blocks[0])
            if self._questions:
                self._answer()

    def _open(self) -> None:
        """Open the database, however long it takes to come up."""
        while True:
            try:
                ready = self._executor.open()
            except DatabaseUnavailable as error:
                self._alarm(str(error))
                self._lifetime.pause(BACKOFF_MAX_S)
            else:
                self._alarmed = False
                return self._send(ready)

    def _receive(self, timeout_ms: int) -> None:
        if not self._socket.poll(timeout_ms):
            return
        while len(self._blocks) + len(self._questions) < QUEUE_MAX:
            try:
                message = decode_down(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            match message:
                case ExecuteBlock():
                    self._blocks.append(message)
                case Hello():
                    self._send(self._executor.ready())
                case Query() | FetchArchive() | FindReceipt() | FindBlock():
                    self._questions.append(message)
                case _:
                    assert_never(message)

    def _execute(self, block: ExecuteBlock) -> None:
        try:
            executed = self._executor.execute(block)
        except OutOfOrder as error:
            log.warning("out_of_order", reason=str(error))
            self._blocks.clear()
            self._send(self._executor.ready())
        except DatabaseUnavailable as error:
            self._alarm(str(error))  # the block stays first in the queue
        else:
            self._alarmed = False
            self._blocks.popleft()
            self._send(executed)

    def _answer(self) -> None:
        questions = [self._questions.popleft() for _ in range(min(len(self._questions), QUESTIONS_PER_SNAPSHOT))]
        try:
            answers = self._executor.answer(questions, attempts_max=1 if self._alarmed else ATTEMPTS_MAX)
        except DatabaseUnavailable as error:
            self._alarm(str(error))
            answers = [unavailable(question) for question in questions]
        for answer in answers:
            self._send(answer)

    def _alarm(self, reason: str) -> None:
        """Say once that execution stands still, not at every try."""
        log.error("database_unavailable", reason=reason)
        if not self._alarmed:
            self._alarmed = True
            self._send(ExecutorAlarm(reason))

    def _send(self, message: Up) -> None:
        """Send, waiting for a replica that is away; what it missed by then it asks for again (`Hello`)."""
        data = encode(message)
        while True:
            try:
                return self._socket.send(data, zmq.NOBLOCK)
            except zmq.Again:
                self._lifetime.check()
                self._socket.poll(POLL_MS, zmq.POLLOUT)


def serve(executor: Executor, endpoint: str, lifetime: Lifetime) -> int:
    """Run until the end; the process's exit status."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.PROBE_ROUTER, 1)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # a lost connection is forgotten, and the next one probes again
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    socket.connect(endpoint)
    try:
        Service(executor, socket, lifetime).run()
    except Stopping:
        log.info("stopping")
        return 0
    except (DatabaseRefused, ExecutorStopped) as error:
        log.error("executor_stopped", reason=str(error))
        _last_word(socket, str(error))
        return EXIT_REFUSED if isinstance(error, DatabaseRefused) else EXIT_STOPPED
    except BaseException as error:
        _last_word(socket, f"{type(error).__name__}: {error}")
        raise
    finally:
        executor.close()
        socket.close()
        context.term()
    return 0


def _last_word(socket: zmq.Socket[bytes], reason: str) -> None:
    """The reason, if a replica is there or comes within the time of a farewell."""
    if socket.poll(LINGER_MS, zmq.POLLOUT):
        socket.send(encode(ExecutorAlarm(reason)), zmq.NOBLOCK)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nodes.executor", description="Executes ordered blocks.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="node.toml of this node")
    parser.add_argument("--standalone", action="store_true", help="do not end when the parent process ends")
    options = parser.parse_args(arguments)
    try:
        config = NodeConfig.load(options.config)
        cluster = ClusterConfig.load(config.genesis)
        machine = load_machine(config.application)
        configure_logs("executor", config.replica, config.log_level)
        lifetime = Lifetime(with_parent=not options.standalone)
        lifetime.install()
        executor = Executor(
            cluster,
            machine,
            config.database_url,
            config.replica,
            data_dir=config.data_dir,
            pause=lifetime.pause,
        )
    except (OSError, ConfigError, DatabaseRefused) as error:
        print(f"executor: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return serve(executor, config.executor_endpoint, lifetime)
