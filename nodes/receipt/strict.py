"""Strict readers of JSON fields: the value, or a ReceiptError (malformed_receipt) that names the field."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any

from nodes import canonical
from nodes.receipt.error import ReceiptCode, ReceiptError

_HEX = re.compile("(?:[0-9a-f]{2})*")


def malformed(field: str, problem: str) -> ReceiptError:
    """The error to raise for a field."""
    return ReceiptError(ReceiptCode.MALFORMED_RECEIPT, f"{field}: {problem}")


def parse_object(field: str, value: object, names: frozenset[str]) -> dict[str, Any]:
    """An object with exactly the fields `names`."""
    if not isinstance(value, dict) or value.keys() != names:
        raise malformed(field, f"not an object with exactly the fields {', '.join(sorted(names))}")
    return value


def parse_list(field: str, value: object, length_max: int) -> list[Any]:
    """A list of at most `length_max` items."""
    if not isinstance(value, list) or len(value) > length_max:
        raise malformed(field, f"not a list of at most {length_max}")
    return value


def parse_integer(fields: dict[str, Any], name: str, low: int = 0, high: int = canonical.INTEGER_MAX) -> int:
    """The field `name`: an integer of low..high."""
    value = fields[name]
    if type(value) is not int or not low <= value <= high:
        raise malformed(name, f"not an integer of {low} to {high}")
    return value


def parse_hex(field: str, value: object, size: int) -> bytes:
    """`size` bytes in lower-case hex."""
    if not isinstance(value, str) or len(value) != 2 * size or not _HEX.fullmatch(value):
        raise malformed(field, f"not {2 * size} lower-case hex digits")
    return bytes.fromhex(value)


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def parse_base64(field: str, value: object, low: int, high: int) -> bytes:
    """low..high bytes in RFC 4648 base64 with padding, in the one form that `to_base64` writes."""
    if not isinstance(value, str):
        raise malformed(field, "not base64 text")
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise malformed(field, "not base64") from error
    if to_base64(data) != value:
        raise malformed(field, "base64 with stray bits or padding")
    if not low <= len(data) <= high:
        raise malformed(field, f"{len(data)} bytes, not {low} to {high}")
    return data
