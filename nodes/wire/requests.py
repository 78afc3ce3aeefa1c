"""REQUEST records: built and signed by a client, parsed by everybody else."""

from __future__ import annotations

import struct
from typing import Protocol

import fastpath
from nodes.core.types import Request
from nodes.wire import signed
from nodes.wire.error import WireCode, WireError
from nodes.wire.format import NUMBER_MAX, REQUEST_FIXED_BYTES, SIGNATURE_BYTES

OPERATION_BYTES_MAX = 65_536
_RECORD = struct.Struct("<BBH16s32sQQQQI")
_OPERATION_START = REQUEST_FIXED_BYTES


class Signer(Protocol):
    """A key that signs, e.g. `nodes.keys.SigningKey`."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""


def build_request(
    signing_key: Signer,
    cluster_id: bytes,
    *,
    session: int,
    sequence: int,
    floor: int,
    valid_until_us: int,
    operation: bytes,
    kind: int = 0,
) -> bytes:
    """A signed record. ValueError for fields that every replica would refuse."""
    unsigned = unsigned_record(
        cluster_id, signing_key.public_key, session, sequence, floor, valid_until_us, operation, kind
    )
    return unsigned + signing_key.sign(signed.request_prefix(cluster_id) + unsigned)


def unsigned_record(
    cluster_id: bytes,
    public_key: bytes,
    session: int,
    sequence: int,
    floor: int,
    valid_until_us: int,
    operation: bytes,
    kind: int = 0,
) -> bytes:
    """The record without its signature: what the client signs, after the prefix. ValueError as above."""
    if len(public_key) != 32 or len(cluster_id) != 16:
        raise ValueError("a public key is 32 bytes, a cluster id 16")
    if not 1 <= floor <= sequence:
        raise ValueError(f"floor {floor} is not in 1..{sequence}")
    if not all(0 <= number <= NUMBER_MAX for number in (session, sequence, valid_until_us)):
        raise ValueError("session, sequence and valid_until_us are 0..2^53-1")
    if len(operation) > OPERATION_BYTES_MAX:
        raise ValueError(f"an operation is at most {OPERATION_BYTES_MAX} bytes, not {len(operation)}")
    if not 0 <= kind <= 3:
        raise ValueError(f"request kind {kind} is not in 0..3")
    head = _RECORD.pack(1, kind, 0, cluster_id, public_key, session, sequence, floor, valid_until_us, len(operation))
    return head + operation


def parse_record(record: bytes, cluster_id: bytes, operation_bytes_max: int = OPERATION_BYTES_MAX) -> Request:
    """The one request in `record`; its signature is not verified. WireError for anything else."""
    try:
        parsed = fastpath.parse_requests(record, 0, len(record), cluster_id, 1, operation_bytes_max)
    except ValueError as error:
        raise WireError(WireCode.MALFORMED, str(error)) from error
    if not parsed:
        raise WireError(WireCode.MALFORMED, "an empty request record")
    return Request(*parsed[0])


def operation_of(request: Request) -> bytes:
    """The exact signed operation bytes."""
    return request.record[_OPERATION_START:-SIGNATURE_BYTES]


def signature_of(request: Request) -> bytes:
    return request.record[-SIGNATURE_BYTES:]


def request_is_signed(record: bytes, cluster_id: bytes) -> bool:
    """Is the record signed by the key inside it?"""
    return fastpath.verify_requests(signed.request_prefix(cluster_id), [record]) == b"\x01"
