"""The JSON of a receipt: strict both ways, so that one receipt has one byte string.

Unknown, missing or wrongly typed fields, upper-case hex, base64 that `encode` would not have written,
unordered attestations: all malformed_receipt.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from nodes import canonical
from nodes.block import TIMER_ID_BYTES_MAX, BlockHeader
from nodes.core.types import ReplicaId
from nodes.receipt import receipt as values
from nodes.receipt.error import ReceiptCode, ReceiptError
from nodes.wire.requests import OPERATION_BYTES_MAX

VERSION = 1
RECEIPT_BYTES_MAX = 256 * 1024
"""An operation and a result of 64 KiB each in base64, and everything else, fit."""
RESULT_BYTES_MAX = 65_536
PATH_LENGTH_MAX = 32
ATTESTATIONS_MAX = 64

_HEX = re.compile("(?:[0-9a-f]{2})*")
_FIELDS = frozenset(
    {
        "version",
        "cluster",
        "epoch",
        "block",
        "index",
        "leaf_count",
        "status",
        "result",
        "path",
        "attestations",
    }
)
_OPERATION_FIELDS = frozenset(
    {"public_key", "session", "sequence", "floor", "valid_until_us", "operation", "signature"}
)
_BLOCK_HASHES = (
    "previous_block_hash",
    "order_hash",
    "digest",
    "results_root",
    "write_set_hash",
    "state_root",
    "config_hash",
)
_BLOCK_INTEGERS = ("sequence", "time_us", "state_sequence")
_BLOCK_FIELDS = frozenset({"version", "cluster", "epoch", "result_count", *_BLOCK_HASHES, *_BLOCK_INTEGERS})
_U16_MAX, _U32_MAX = 2**16 - 1, 2**32 - 1


def encode(receipt: values.Receipt) -> bytes:
    """Canonical bytes. ValueError for values that no receipt has."""
    return canonical.encode(to_document(receipt))


def to_document(receipt: values.Receipt) -> dict[str, Any]:
    """The receipt as plain JSON values."""
    header = receipt.header
    block: dict[str, Any] = {"version": 1, "cluster": header.cluster_id.hex(), "epoch": header.epoch}
    block |= {name: getattr(header, name).hex() for name in _BLOCK_HASHES}
    block |= {name: getattr(header, name) for name in (*_BLOCK_INTEGERS, "result_count")}
    document: dict[str, Any] = {
        "version": VERSION,
        "cluster": receipt.cluster_id.hex(),
        "epoch": receipt.epoch,
        "block": block,
        "index": receipt.index,
        "leaf_count": receipt.leaf_count,
        "status": receipt.status,
        "result": _base64(receipt.result),
        "path": [receipt.path[start : start + 32].hex() for start in range(0, len(receipt.path), 32)],
        "attestations": [
            {"replica": replica, "signature": _base64(signature)} for replica, signature in receipt.attestations
        ],
    }
    match receipt.subject:
        case values.FiredTimer(timer_id, due_us):
            document["timer"] = {"id": timer_id.hex(), "due_us": due_us}
        case values.SignedOperation() as operation:
            document["operation"] = {
                "public_key": _base64(operation.public_key),
                "session": operation.session,
                "sequence": operation.sequence,
                "floor": operation.floor,
                "valid_until_us": operation.valid_until_us,
                "operation": _base64(operation.operation),
                "signature": _base64(operation.signature),
            }
    return document


def decode(data: bytes) -> values.Receipt:
    """The receipt in these bytes, unverified. ReceiptError (malformed_receipt) for anything else."""
    try:
        return from_document(canonical.decode(data, RECEIPT_BYTES_MAX))
    except canonical.CanonicalError as error:
        raise ReceiptError(ReceiptCode.MALFORMED_RECEIPT, str(error)) from error


def from_document(value: object) -> values.Receipt:
    """The receipt of plain JSON values, as of `to_document`."""
    is_timer = isinstance(value, dict) and "timer" in value
    document = _object("receipt", value, _FIELDS | {"timer" if is_timer else "operation"})
    _integer(document, "version", VERSION, VERSION)
    return values.Receipt(
        cluster_id=_hex("cluster", document["cluster"], 16),
        epoch=_integer(document, "epoch", 0, _U32_MAX),
        subject=_timer(document["timer"]) if is_timer else _operation(document["operation"]),
        header=_header(document["block"]),
        index=_integer(document, "index", 0, _U32_MAX),
        leaf_count=_integer(document, "leaf_count", 0, _U32_MAX),
        status=_integer(document, "status", 0, _U16_MAX),
        result=_bytes("result", document["result"], 0, RESULT_BYTES_MAX),
        path=b"".join(_hex("path", item, 32) for item in _list("path", document["path"], PATH_LENGTH_MAX)),
        attestations=_attestations(document["attestations"]),
    )


def _operation(value: object) -> values.SignedOperation:
    fields = _object("operation", value, _OPERATION_FIELDS)
    sequence = _integer(fields, "sequence", 1)
    return values.SignedOperation(
        public_key=_bytes("public_key", fields["public_key"], 32, 32),
        session=_integer(fields, "session"),
        sequence=sequence,
        floor=_integer(fields, "floor", 1, sequence),
        valid_until_us=_integer(fields, "valid_until_us"),
        operation=_bytes("operation", fields["operation"], 0, OPERATION_BYTES_MAX),
        signature=_bytes("signature", fields["signature"], 64, 64),
    )


def _timer(value: object) -> values.FiredTimer:
    fields = _object("timer", value, frozenset({"id", "due_us"}))
    timer_id = fields["id"]
    if not isinstance(timer_id, str) or not 2 <= len(timer_id) <= 2 * TIMER_ID_BYTES_MAX:
        raise _malformed("timer.id", f"not 1 to {TIMER_ID_BYTES_MAX} bytes of hex")
    return values.FiredTimer(_hex("timer.id", timer_id, len(timer_id) // 2), _integer(fields, "due_us"))


def _header(value: object) -> BlockHeader:
    fields = _object("block", value, _BLOCK_FIELDS)
    _integer(fields, "version", 1, 1)
    hashes = {name: _hex(f"block.{name}", fields[name], 32) for name in _BLOCK_HASHES}
    integers = {name: _integer(fields, name) for name in _BLOCK_INTEGERS}
    return BlockHeader(
        cluster_id=_hex("block.cluster", fields["cluster"], 16),
        epoch=_integer(fields, "epoch", 0, _U32_MAX),
        result_count=_integer(fields, "result_count", 0, _U32_MAX),
        **hashes,
        **integers,
    )


def _attestations(value: object) -> tuple[tuple[ReplicaId, bytes], ...]:
    attestations = []
    for item in _list("attestations", value, ATTESTATIONS_MAX):
        fields = _object("attestations", item, frozenset({"replica", "signature"}))
        replica = ReplicaId(_integer(fields, "replica", 0, _U16_MAX))
        if attestations and replica < attestations[-1][0]:
            raise _malformed("attestations", "not in the order of replicas")
        attestations.append((replica, _bytes("signature", fields["signature"], 64, 64)))
    return tuple(attestations)


def _malformed(field: str, problem: str) -> ReceiptError:
    return ReceiptError(ReceiptCode.MALFORMED_RECEIPT, f"{field}: {problem}")


def _object(field: str, value: object, names: frozenset[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != names:
        raise _malformed(field, f"not an object with exactly the fields {', '.join(sorted(names))}")
    return value


def _list(field: str, value: object, length_max: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > length_max:
        raise _malformed(field, f"not a list of at most {length_max}")
    return value


def _integer(fields: dict[str, Any], name: str, low: int = 0, high: int = canonical.INTEGER_MAX) -> int:
    value = fields[name]
    if type(value) is not int or not low <= value <= high:
        raise _malformed(name, f"not an integer of {low} to {high}")
    return value


def _hex(field: str, value: object, size: int) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * size or not _HEX.fullmatch(value):
        raise _malformed(field, f"not {2 * size} lower-case hex digits")
    return bytes.fromhex(value)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(field: str, value: object, low: int, high: int) -> bytes:
    if not isinstance(value, str):
        raise _malformed(field, "not base64 text")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed(field, "not base64") from error
    if _base64(data) != value:
        raise _malformed(field, "base64 with stray bits or padding")
    if not low <= len(data) <= high:
        raise _malformed(field, f"{len(data)} bytes, not {low} to {high}")
    return data
