"""JSON bodies of the interface, decoded strictly: no unknown, missing or repeated field, no number for a
boolean, no float, base64 exactly as RFC 4648 writes it. Everything else is a `malformed` problem."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from nodes.gateway.problem import Problem
from nodes.wire import OPERATION_BYTES_MAX, QUERY_BYTES_MAX

INTEGER_MAX = 2**53 - 1
Number = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Positive = Annotated[int, Meta(ge=1, le=INTEGER_MAX)]
Key = Annotated[str, Meta(description="Ed25519 public key, 32 bytes, base64", min_length=44, max_length=44)]
Signature = Annotated[str, Meta(description="Ed25519 signature, 64 bytes, base64", min_length=88, max_length=88)]
Body = TypeVar("Body", bound=msgspec.Struct)


class OperationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed operation (docs/receipts.md has the bytes that are signed)."""

    public_key: Key
    session: Annotated[Number, Meta(description="The author's session: milliseconds at its start")]
    sequence: Annotated[Positive, Meta(description="1, 2, 3, ... in the session")]
    floor: Annotated[Positive, Meta(description="No sequence below this is wanted any more; 1 <= floor <= sequence")]
    valid_until_us: Annotated[Number, Meta(description="Block time after which it must not be executed")]
    operation: Annotated[str, Meta(description="The exact bytes of the operation, base64")]
    signature: Signature


class QueryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query; with the three fields of a signature it is answered in the signer's name."""

    query: Annotated[str, Meta(description="Canonical JSON of the query, base64, at most 16 KiB")]
    public_key: Key | UnsetType = UNSET
    valid_until_us: Number | UnsetType = UNSET
    nonce: Annotated[str, Meta(description="16 bytes, base64; or hex in the header Arremate-Nonce")] | UnsetType = UNSET
    signature: Signature | UnsetType = UNSET


def decode(data: bytes, kind: type[Body]) -> Body:
    """The body, or a Problem that names the field."""
    try:
        body = msgspec.json.decode(data, type=kind)
        json.loads(data, object_pairs_hook=_refuse_repeated)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Problem("malformed", f"the body is not what this route takes: {error}; see /openapi.json") from error
    return body


def decode_base64(name: str, text: str, *, size: int | None = None, size_max: int = OPERATION_BYTES_MAX) -> bytes:
    """Strict, canonical base64 of exactly `size`, or at most `size_max`, bytes."""
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError) as error:
        raise Problem("malformed", f"{name} is not base64 (RFC 4648 with padding): {error}") from error
    if base64.b64encode(data).decode("ascii") != text:
        raise Problem("malformed", f"{name} is not canonical base64: its last character has spare bits set")
    if size is not None and len(data) != size:
        raise Problem("malformed", f"{name} is {len(data)} bytes, not {size}")
    if len(data) > size_max:
        raise Problem("too_large", f"{name} is {len(data)} bytes, at most {size_max} are allowed")
    return data


def decode_query(text: str) -> bytes:
    return decode_base64("query", text, size_max=QUERY_BYTES_MAX)


def decode_hex(name: str, text: str, size: int) -> bytes:
    """Exactly `size` bytes in lower-case hex digits."""
    if len(text) == 2 * size and all(letter in "0123456789abcdef" for letter in text):
        return bytes.fromhex(text)
    raise Problem("malformed", f"{name} is {2 * size} lower-case hex digits")


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field `{repeated[:40]}` is there twice")
    return fields
