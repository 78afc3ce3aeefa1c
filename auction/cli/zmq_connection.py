"""ZeroMQ to all replicas at once through `nodes.client`: no gateway in between, q of them are believed."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from auction.cli.failure import ExitCode, Failure, unreachable, unverified
from auction.cli.signing import SignedRequest, Signer, sign_query
from auction.codes import code_name
from nodes import canonical
from nodes.client.aio import Client
from nodes.client.core import SignedQuery
from nodes.client.errors import (
    ClientError,
    NoQuorum,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    Refused,
    VerificationFailed,
)
from nodes.client.options import ClientOptions
from nodes.config import ClusterConfig
from nodes.receipt import Receipt, ReceiptError


class ZmqConnection:
    """A `Connection`. Signing stays with the caller, so that one key has one session whatever the way."""

    def __init__(self, cluster: ClusterConfig, timeout_s: float) -> None:
        """Connected to a quorum, or failed, within `timeout_s`."""
        self.cluster = cluster
        self._runner = asyncio.Runner()
        self._client = Client.connect(
            cluster, code_name=code_name, options=ClientOptions(connect_timeout_ms=_milliseconds(timeout_s))
        )
        try:
            self._runner.run(self._client.open())
        except ClientError as error:
            self._runner.close()
            raise _failure(error) from error

    def submit(self, request: SignedRequest, timeout_s: float) -> Receipt:
        try:
            receipt = self._runner.run(self._client.submit_signed(request.record, timeout_ms=_milliseconds(timeout_s)))
        except Refused as error:
            if error.receipt is None:
                raise Failure(ExitCode.REFUSED, error.code, f"{error.detail}; it was never ordered") from error
            receipt = error.receipt
        except ClientError as error:
            raise _failure(error) from error
        return self._verified(receipt)

    def _verified(self, receipt: Receipt) -> Receipt:
        try:
            receipt.verify(self.cluster)
        except ReceiptError as error:
            raise unverified(error.code, error.detail) from error
        return receipt

    def query(self, query: dict[str, Any], signer: Signer | None, timeout_s: float) -> dict[str, Any]:
        payload = canonical.encode(query)
        nonce = secrets.token_bytes(16)
        signature: SignedQuery | bool = False
        if signer is not None:
            signature = SignedQuery(*sign_query(signer, self.cluster.cluster_id, nonce, payload))
        try:
            answer = self._runner.run(
                self._client.query(payload, signature, nonce=nonce, timeout_ms=_milliseconds(timeout_s))
            )
        except ClientError as error:
            raise _failure(error) from error
        value: dict[str, Any] = json.loads(answer.result)
        return value

    def receipt(self, digest: bytes, timeout_s: float) -> Receipt:
        try:
            receipt = self._runner.run(self._client.receipt(digest, timeout_ms=_milliseconds(timeout_s)))
        except ClientError as error:
            raise _failure(error) from error
        return self._verified(receipt)

    def events(self, auction: str | None, after: tuple[int, int, int]) -> Iterator[dict[str, Any]]:
        filters = {} if auction is None else {"auction": auction}
        stream = self._client.events(after=after, **filters)
        try:
            while True:
                yield self._runner.run(_next(stream))
        except ClientError as error:
            raise _failure(error) from error
        finally:
            self._runner.run(_close(stream))

    def close(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


async def _next(stream: AsyncIterator[dict[str, Any]]) -> dict[str, Any]:
    return await anext(stream)


async def _close(stream: Any) -> None:
    async with aclosing(stream):
        return


def _milliseconds(timeout_s: float) -> int:
    return max(1, int(timeout_s * 1_000))


def _failure(error: ClientError) -> Failure:
    """The command line's kind of a client's error."""
    match error:
        case VerificationFailed():
            hint = "is this the genesis of the cluster that answers?"
            return unverified(error.code, f"replica {error.replica}: {error.detail}", hint)
        case Overloaded():
            hint = f"try again in {error.retry_after:g} s"
            return Failure(ExitCode.NO_QUORUM, error.code, error.detail, hint=hint)
        case OutcomeUnknown():
            hint = f"it may still happen; ask: arremate receipt fetch {error.digest.hex()}"
            return Failure(ExitCode.NO_QUORUM, error.code, error.detail, hint=hint)
        case NotFound():
            return Failure(ExitCode.REFUSED, error.code, error.detail)
        case NoQuorum():
            return unreachable(error.detail)
        case _:
            return Failure(ExitCode.REFUSED, error.code, error.detail)
