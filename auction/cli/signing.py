"""The user's side of a request: one key, one client session, sequence numbers, the signature.

Signing happens here, in the user's process, and nowhere else: nodes only ever see the public key. A new
process starts a new session (milliseconds since 1970), so two processes with one key never share one.
Commands are sequential, so a request's floor is its own sequence: whatever came before it and is still
unknown can no longer happen once it has been executed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from auction.cli.failure import usage
from nodes import wire
from nodes.core.types import Request
from nodes.keys import KeyFileError, SigningKey
from nodes.wire import signed

VALIDITY_US = 60_000_000


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """The exact signed bytes (protocol.md 3) and what is in them; they may be sent again, to any node."""

    request: Request
    operation: bytes
    signature: bytes

    @property
    def record(self) -> bytes:
        return self.request.record

    @property
    def digest(self) -> bytes:
        return self.request.digest


class Signer:
    """Gives out the sequence numbers of one session of one key."""

    def __init__(self, key: SigningKey) -> None:
        self.key = key
        self._session = time.time_ns() // 1_000_000
        self._sequence = 0

    @classmethod
    def load(cls, path: Path) -> Signer:
        return cls(load_key(path))

    def renew_session(self) -> None:
        """After `stale_session`: a later session, sequences from 1."""
        self._session = max(self._session + 1, time.time_ns() // 1_000_000)
        self._sequence = 0

    def sign(self, cluster_id: bytes, operation: bytes) -> SignedRequest:
        """The next request of this session, valid for a minute of block time."""
        self._sequence += 1
        record = wire.build_request(
            self.key,
            cluster_id,
            session=self._session,
            sequence=self._sequence,
            floor=self._sequence,
            valid_until_us=time.time_ns() // 1_000 + VALIDITY_US,
            operation=operation,
        )
        request = wire.parse_record(record, cluster_id)
        return SignedRequest(request, operation, wire.signature_of(request))


def sign_query(signer: Signer, cluster_id: bytes, nonce: bytes, query: bytes) -> tuple[bytes, int, bytes]:
    """(public key, valid_until_us, signature) of a query asked in the name of a key."""
    valid_until_us = time.time_ns() // 1_000 + VALIDITY_US
    statement = signed.query_bytes(cluster_id, nonce, signer.key.public_key, valid_until_us, query)
    return signer.key.public_key, valid_until_us, signer.key.sign(statement)


def load_key(path: Path) -> SigningKey:
    """The signing key of a file; usage error that says how to mend it."""
    try:
        return SigningKey.load(path)
    except OSError as error:
        raise usage("no_key", f"cannot read {path}: {error.strerror}", f"make one: arremate key new {path}") from error
    except KeyFileError as error:
        raise usage("bad_key", str(error)) from error
